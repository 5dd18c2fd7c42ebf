"""``RedisLimitStorage``: limits that all workers count together, in Redis 6.2 or newer, or Valkey.

Rules:

1. One script, one round trip, however many limits, with the lease that goes with them.
2. A key is hashed before it becomes part of a name, and every name expires.
3. Nothing is ever sent again from here: after a time-out it is unknown whether it was done.
4. One connection a worker (on a cluster, to each server), used by all requests at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..exceptions import ConfigurationError, StoreUnavailable
from ..stores.checks import check_positive
from ..stores.redis_asking import Asking, Command
from ..stores.redis_nodes import Pipes, nodes_of
from ..stores.redis_pipe import Pipe, pack
from ..stores.redis_replies import Reply, ServerError
from ..stores.redis_target import Target, target_of
from .base import Lease, Limit, Standing, Taken
from .patience import answered_within
from .redis_reservation_scripts import RESERVATION_SCRIPTS
from .redis_scripts import ADD, RENEW, SCRIPTS, TAKE, TAKE_PART, load
from .window import standing

if TYPE_CHECKING:
    from ..stores.redis_target import Client

#: What a connection, and any answer, may take before the connection is given up; callers have gone before.
CONNECTION_TIMEOUT = 2.0
#: How long the id of a correction is remembered: longer than anybody tries to send it again.
ID_LIFE = 3_600_000
#: So many leases are renewed by one call: a script holds everybody else up.
AT_ONCE = 500


class RedisLimitStorage:
    """Limits in Redis. Wants the extra ``redis``.

    :param url: ``redis://``, ``rediss://`` (TLS), ``unix://``, ``redis+sentinel://host:port,…/service[/db]`` or
        ``redis+cluster://host:port,…``; or a client of redis-py, whose address and credentials are taken; or the
        ``target`` of a ``RedisStore``.
    :param prefix: what all names of keys begin with.
    :param timeout: seconds that a request waits for an answer, 0.1 by default: a limit must not cost more than what it
        protects.
    :raises ConfigurationError: a value that makes no sense, or redis-py is not installed.
    """

    shared = True

    def __init__(self, url: str | Client | Target, *, prefix: str = "streamware:limits:", timeout: float = 0.1) -> None:
        owner = type(self).__name__
        check_positive(owner, timeout=timeout)
        if not prefix.isascii() or "{" in prefix:
            raise ConfigurationError.option(owner, "prefix", prefix, "ASCII text without braces")
        if importlib.util.find_spec("redis") is None:
            raise ConfigurationError(f"{owner}: redis-py is missing; install asgi-streamware[redis]")
        self._target = target_of(owner, "url", url)
        self._prefix = prefix.encode()
        self._timeout = float(timeout)
        self._asking: Asking | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- counters

    async def take(self, key: str, limits: Sequence[Limit], costs: Sequence[int], lease: Lease | None = None) -> Taken:
        tag = self._tag(key)
        keys = [self._place(tag, limit.place) for limit in limits]
        words = [b"%d" % len(limits), b"", b"", b""]
        if lease is not None:
            keys.append(self._place(tag, lease.place))
            words[1:] = [lease.member.encode(), b"%d" % lease.most, b"%d" % int(lease.seconds * 1000)]
        for limit, cost in zip(limits, costs, strict=True):
            words += words_of(limit, cost)
        if not keys:
            return Taken(True)
        numbers = numbers_of(await self._ask(Command(keys[0], TAKE.call(tuple(keys), *words))))
        allowed = numbers[0] == 1
        return Taken(allowed, standings_of(limits, costs, numbers, allowed), 0, numbers[1] == 1)

    async def take_part(self, key: str, limits: Sequence[Limit], most: int, *, share: int = 1) -> Taken:
        tag = self._tag(key)
        keys = tuple(self._place(tag, limit.place) for limit in limits)
        words = [b"%d" % len(limits), b"%d" % most, b"%d" % share, b""]
        for limit in limits:
            words += words_of(limit, 0)
        numbers = numbers_of(await self._ask(Command(keys[0], TAKE_PART.call(keys, *words))))
        granted = numbers[0]
        standings = standings_of(limits, [granted or 1] * len(limits), numbers, granted > 0)
        return Taken(granted > 0, standings, granted)

    async def add(
        self, key: str, limits: Sequence[Limit], amounts: Sequence[int], windows: Sequence[int], *, once: str
    ) -> bool:
        tag = self._tag(key)
        keys = (*(self._place(tag, limit.place) for limit in limits), self._place(tag, f"id/{once}"))
        words = [b"%d" % len(limits), b"%d" % ID_LIFE, b"", b""]
        for limit, amount in zip(limits, amounts, strict=True):
            words += words_of(limit, amount)
        words += [b"%d" % window for window in windows]
        return await self._ask(Command(keys[0], ADD.call(keys, *words))) == 1

    # -- leases

    async def renew(self, leases: Sequence[tuple[str, Lease]]) -> int:
        members: dict[tuple[bytes, int], list[bytes]] = {}
        for key, lease in leases:
            place = self._place(self._tag(key), lease.place)
            members.setdefault((place, int(lease.seconds * 1000)), []).append(lease.member.encode())
        commands = [
            Command(place, RENEW.call((place,), b"%d" % life, *renewed[at : at + AT_ONCE]))
            for (place, life), renewed in members.items()
            for at in range(0, len(renewed), AT_ONCE)
        ]
        replies = await self._ask_all(*commands) if commands else []
        return sum(reply for reply in replies if isinstance(reply, int))

    async def release(self, leases: Sequence[tuple[str, Lease]]) -> None:
        members: dict[bytes, list[bytes]] = {}
        for key, lease in leases:
            members.setdefault(self._place(self._tag(key), lease.place), []).append(lease.member.encode())
        if members:
            await self._ask_all(
                *(Command(place, pack(b"ZREM", place, *released)) for place, released in members.items())
            )

    # -- lifecycle

    async def start(self) -> None:
        """Connect, so that the first requests need not wait for it. A server that is away keeps no worker from
        starting."""
        with contextlib.suppress(StoreUnavailable):
            await self._ask_all(Command(b"", pack(b"PING")), timeout=CONNECTION_TIMEOUT)

    async def aclose(self) -> None:
        asking, self._asking = self._asking, None
        if asking is not None and self._loop is asyncio.get_running_loop():
            await asking.pipes.aclose()

    # -- within

    async def _ask(self, command: Command) -> Reply:
        return (await self._ask_all(command))[0]

    async def _ask_all(self, *commands: Command, timeout: float | None = None) -> list[Reply]:
        asking = self._asking
        loop = asyncio.get_running_loop()
        if asking is None or self._loop is not loop:  # connections belong to their loop
            nodes = nodes_of(self._target, CONNECTION_TIMEOUT)
            pipes = Pipes(nodes, "streamware-limits", self._prepare)
            asking = self._asking = Asking(self._target.name, nodes, pipes, CONNECTION_TIMEOUT)
            self._loop = loop
        try:
            return await answered_within(timeout or self._timeout, asking.ask(*commands))
        except TimeoutError as error:
            raise StoreUnavailable(f"{self._target.name}: no answer within {self._timeout:g} s") from error

    async def _prepare(self, pipe: Pipe, again: bool) -> None:
        packed, count = load((*SCRIPTS, *RESERVATION_SCRIPTS))
        for reply in await pipe.ask(packed, count, CONNECTION_TIMEOUT):
            if isinstance(reply, ServerError):
                raise StoreUnavailable(f"{self._target.name}: scripts cannot be loaded: {reply.kind}")

    def _tag(self, key: str) -> bytes:
        return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest().encode()

    def _place(self, tag: bytes, place: str) -> bytes:
        return b"%b{%b}%b" % (self._prefix, tag, place.encode())


def words_of(limit: Limit, number: int) -> tuple[bytes, bytes, bytes, bytes]:
    return b"%d" % limit.amount, b"%d" % (limit.window * 1000), b"1" if limit.fixed else b"0", b"%d" % number


def numbers_of(reply: Reply) -> list[int]:
    return [number for number in reply if isinstance(number, int)] if isinstance(reply, list) else []


def standings_of(limits: Sequence[Limit], costs: Sequence[int], numbers: list[int], taken: bool) -> list[Standing]:
    now = numbers[2]
    found: list[Standing] = []
    for place, (limit, cost) in enumerate(zip(limits, costs, strict=True), 1):
        start, current, previous = numbers[3 * place : 3 * place + 3]
        found.append(standing(limit, cost, start, current, previous, max(now, start), taken))
    return found
