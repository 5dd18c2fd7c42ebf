"""``wrap``: the stack that most apps want, from a few options."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TypedDict

from .auth.address_sources import AddressList
from .auth.verifier import Verifier
from .exceptions import ConfigurationError
from .limiting.base import LimitStorage
from .limiting.redis import RedisLimitStorage
from .limiting.rules import Limits, Most, Plan
from .limiting.storages import Storage, storage_of
from .middleware.auth import AuthMiddleware
from .middleware.client_ip import ClientIPMiddleware
from .middleware.compression import CompressionMiddleware
from .middleware.drain import DrainMiddleware
from .middleware.heartbeat import HeartbeatMiddleware
from .middleware.ip_allowlist import IPAllowlistMiddleware
from .middleware.origin import OriginMiddleware
from .middleware.resume import ResumeMiddleware
from .middleware.throttle import ThrottleMiddleware
from .middleware.token_budget import TokenBudgetMiddleware
from .observe import Observer, OnceLog
from .paths import patterns
from .stack import Middleware, Stack
from .stores.base import Store
from .stores.board import Board
from .stores.redis import RedisStore
from .stores.shared import SharedStore
from .types import AnyASGIApp

logger = logging.getLogger("streamware.preset")

_advice = OnceLog(logger)


def wrap(
    app: AnyASGIApp,
    *,
    store: Store | str | None = None,
    trusted_proxies: Iterable[str] | None = None,
    allow: AddressList | None = None,
    deny: AddressList | None = None,
    origins: Iterable[str] | None = None,
    verifier: Verifier | None = None,
    limits: Limits = None,
    reads: Limits = None,
    concurrent: Most = None,
    tokens: Limits = None,
    plan: Plan | None = None,
    storage: Storage = None,
    compress: bool = False,
    always: Iterable[str] = (),
    interval: float | None = 15.0,
    linger: float | Mapping[str, float | None] | None = 30.0,
    grace: float | None = 15.0,
    deadline: float = 25.0,
    readiness: str | None = None,
    paths: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
    observer: Observer | None = None,
) -> Stack:
    """Wrap ``app`` so that its event streams send heartbeats, survive drops and deploys, and can be stopped.

    It is a ``Stack`` of ``DrainMiddleware``, ``HeartbeatMiddleware``, ``ResumeMiddleware`` and those whose option is
    given; compose your own where you want other options of theirs, or other middleware in between.

    :param store: where the logs live: a store, or the URL of a Redis; ``None`` (default) is a ``MemoryStore``, which
        serves one process.
    :param trusted_proxies: addresses and CIDRs of the proxies in front, whose ``X-Forwarded-For`` and
        ``X-Forwarded-Proto`` are believed: ``ClientIPMiddleware``. ``None`` (default): nobody's are.
    :param allow: addresses that are let in: ``IPAllowlistMiddleware``. ``None`` (default): all.
    :param deny: addresses that are not, whatever ``allow`` says. ``None`` (default): none.
    :param origins: origins whose pages may ask, and read the answers, beside the server's own: ``OriginMiddleware``
        with ``cors``. An empty list: the server's own alone. ``None`` (default): it is left to the app.
    :param verifier: tells whose token it is, and nobody gets in without one: ``AuthMiddleware``. ``None`` (default):
        everybody does.
    :param limits: how much one client may start, as ``"100/minute"``, or whatever else ``ThrottleMiddleware`` takes.
        Reading on and stopping are free. A client is the principal that ``verifier`` has found, or else an address.
        ``None`` (default): as much as it likes.
    :param reads: the same for resumes, joins, polls and stops.
    :param concurrent: how many streams, other requests and WebSockets of one client may run at once; ``None``
        (default): any number.
    :param tokens: how many tokens of a language model one client may use, as ``"20000/minute"``:
        ``TokenBudgetMiddleware``. By path where the app streams other things as well: ``{"/v1/*": "20000/minute"}``.
        ``None`` (default): not counted.
    :param plan: names the plan of a request, for those four where they map plans.
    :param storage: where those four are counted. ``None`` (default): in the Redis of ``store``, by all workers
        together; where that is no ``RedisStore``, in the memory of each worker, so that four workers let through up to
        four times as much. Or the URL of a Redis, a client of redis-py, or a ``LimitStorage``, which is yours to close.
    :param compress: compress what is sent: ``CompressionMiddleware``. ``False`` by default: see its page for what that
        tells whoever listens.
    :param always: glob patterns of paths whose requests may get a log whatever they accept, for clients that do not
        say ``Accept: text/event-stream``: ``fetch`` says ``*/*``, OpenAI's SDKs say ``application/json``.
    :param interval: seconds of silence before a heartbeat (default 15: proxies give up after 30 to 60); ``None``: none.
    :param linger: seconds that the app goes on when its last reader has dropped (default 30); 0: none, ``None``: for
        ever; or a mapping of glob patterns to these.
    :param grace: seconds that streams get to finish once the worker is to end, before those that another worker can go
        on with are sent there (default 15); ``None``: no drain.
    :param deadline: seconds after which whatever still runs then is ended as interrupted (default 25).
    :param readiness: the path that tells a load balancer whether to send requests here; ``None`` (default): none.
    :param paths: glob patterns of the paths to touch; ``None`` (default) touches all.
    :param exclude: glob patterns of paths to leave alone, looked at after ``paths``.
    :param observer: receives the counters.
    """
    # They are read by several middlewares: an iterator would be spent after the first.
    common: _Common = {
        "paths": patterns("wrap", "paths", paths),
        "exclude": patterns("wrap", "exclude", exclude),
        "observer": observer,
    }
    if not isinstance(compress, bool):
        raise ConfigurationError.option("wrap", "compress", compress, "True or False")
    logs = _store(store)
    shared: object = logs  # a store of one's own need not be a board
    board = shared if isinstance(shared, Board) else None
    throttled = limits is not None or reads is not None or concurrent is not None
    counted = _storage(storage, logs) if throttled or tokens is not None else None

    middleware: list[Middleware] = []
    if trusted_proxies is not None:
        middleware.append(Middleware(ClientIPMiddleware, trusted_proxies=trusted_proxies, **common))
    if allow is not None or deny is not None:
        middleware.append(Middleware(IPAllowlistMiddleware, allow=allow, deny=deny, **common))
    if origins is not None:
        middleware.append(Middleware(OriginMiddleware, allow=origins, cors=True, **common))
    if verifier is not None:
        middleware.append(Middleware(AuthMiddleware, verifier=verifier, board=board, **common))
    if throttled:
        middleware.append(
            Middleware(
                ThrottleMiddleware,
                limits=limits,
                reads=reads,
                concurrent=concurrent,
                plan=plan,
                storage=counted,
                **common,
            )
        )
    if compress:
        middleware.append(Middleware(CompressionMiddleware, **common))
    if grace is not None:
        middleware.append(Middleware(DrainMiddleware, grace=grace, deadline=deadline, readiness=readiness, **common))
    if interval is not None:
        middleware.append(Middleware(HeartbeatMiddleware, interval=interval, **common))
    middleware.append(Middleware(ResumeMiddleware, store=logs, always=always, linger=linger, **common))
    if tokens is not None:
        middleware.append(Middleware(TokenBudgetMiddleware, limits=tokens, plan=plan, storage=counted, **common))
    stack = Stack(app, middleware=middleware)
    if counted is not None and counted is not storage:
        stack._hooks.insert(0, _Counted(counted))
    return stack


class _Counted:
    """The storage of several middlewares, in the lifecycle of a ``Stack``: each of them opens it, and none closes what
    it did not make."""

    def __init__(self, storage: LimitStorage) -> None:
        self._storage = storage

    async def startup(self) -> None:
        """Nothing: those who count there begin with it."""

    async def shutdown(self) -> None:
        """Nothing: what runs is counted to its end."""

    async def aclose(self) -> None:
        await self._storage.aclose()


class _Common(TypedDict):
    """The options that every middleware has."""

    paths: Iterable[str] | None
    exclude: Iterable[str] | None
    observer: Observer | None


def _store(given: Store | str | None) -> Store | None:
    if not isinstance(given, str):
        return given
    if "://" not in given:
        raise ConfigurationError.option("wrap", "store", given, "a store, as SQLiteStore(path), or the URL of a Redis")
    return RedisStore(given)


def _storage(given: Storage, store: Store | None) -> LimitStorage | None:
    """Where limits are counted: beside the logs where those are in a Redis, under names of the same prefix."""
    if given is not None:
        return storage_of(given, None)
    if isinstance(store, RedisStore):
        return RedisLimitStorage(store.target, prefix=f"{store.prefix}limits:")
    if isinstance(store, SharedStore):
        _advice.warning(
            "storage",
            "wrap: workers that share a %s each count limits=, reads=, concurrent= and tokens= for themselves, so a "
            "client gets as much from each of them: give storage= the URL of a Redis, or MemoryLimitStorage() if that "
            "is meant",
            type(store).__name__,
        )
    return None
