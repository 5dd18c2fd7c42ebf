"""``TokenBudgetMiddleware``: how many tokens of a language model one client may use.

This module decides what a request is reserved with; the counting, the reservations and their settling are in
``streamware.limiting``, what providers' streams say is in ``streamware.wire``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal

from ..checks import check, is_number, is_text, is_whole
from ..clock import on_asyncio
from ..exceptions import ConfigurationError
from ..limiting.accounts import Accounts
from ..limiting.base import Limit, LimitStorage
from ..limiting.budget import Budget
from ..limiting.keys import Key
from ..limiting.ledger import Ledger, Reservation
from ..limiting.metered_socket import MeteredSocket
from ..limiting.metering import MeteredResponse
from ..limiting.request import Ahead, read_ahead
from ..limiting.rules import Limits, Plan, Rule
from ..limiting.storages import Storage
from ..observe import Observer
from ..paths import FirstMatch, path_within_mount
from ..streams.current import CurrentStream, current_stream, reset_current_stream, set_current_stream
from ..streams.inbound import Inbound
from ..streams.refusal import refuse
from ..types import ASGIApp, Clock, Receive, Scope, Send
from ..wire.denial import UNKNOWN_CALLER, Denial, deny_websocket
from ..wire.prompt import Asked
from ..wire.ratelimit import Style
from .base import BaseMiddleware

logger = logging.getLogger("streamware.token_budget")


_check = partial(check, "TokenBudgetMiddleware")


class TokenBudgetMiddleware(BaseMiddleware):
    """See docs/middleware/token-budget.md for the whole of it; in short, by option:

    :param limits: in tokens: ``"20000/minute"``, several at once, a mapping of glob patterns of paths or of plans to
        these, or a function of the scope. All are taken or none.
    :param models: other limits for some models: a mapping of glob patterns on the name in the request to what
        ``limits`` takes. The first that matches counts in the place of ``limits``, in counters of its own; all of them
        where the body of a request cannot be read.
    :param key: whose limits they are: ``"principal"`` (default), ``"token"``, ``"ip"``, or a function of the scope.
    :param plan: names the plan of a request, for options that map plans.
    :param window: ``"sliding"`` (default), or ``"fixed"``: aligned to the calendar, in UTC.
    :param storage: ``None``: this process's memory; a ``redis://`` URL or a redis-py client; or a ``LimitStorage``.
    :param name: opens the names of the counters. By default made of ``key``, ``paths`` and ``exclude``.
    :param on_exceeded: what becomes of a stream whose budget ends in the middle: ``"finish"`` (default): it goes on and
        is charged; ``"cut"``: it ends behind a whole event, with an error; ``"pace"``: it is held back until there is
        more, for ``max_pause`` seconds, and cut then.
    :param reserve: tokens reserved for an answer whose request does not say how long it may be; default 512.
    :param max_reserve: the most that is reserved for an answer, whatever its request says; default 4096.
    :param slice_size: tokens that a stream takes at a time beyond what was reserved; default 256.
    :param max_pause: seconds that ``"pace"`` holds a stream back at a time; default 60.
    :param usage_path: where an app of your own says what its stream has used so far, as ``"meta.tokens"``.
    :param report: whether an event stream ends with what it used: ``event: streamware.usage`` for clients that read
        control events, a comment for others.
    :param on_store_error: ``"local"`` (default), ``"allow"`` or ``"deny"``, for what begins while the storage is away.
        What runs goes on.
    :param expected_workers: default 4.
    :param enforce: False: refuse and cut nothing, and count what would have been.
    :param body: of refusals: ``"problem"`` (RFC 9457, the default), ``"openai"`` or ``"anthropic"``.
    :param send_headers: whether responses carry ``RateLimit`` and ``RateLimit-Policy``.
    :param max_body: bytes of a request's body that are read before the app is called; default 1 MiB. A prompt behind
        that is not estimated.
    :param retry: seconds after which to come again where nobody knows, 3 by default.
    :param paths: glob patterns on the path within the mount; ``None`` touches every path.
    :param exclude: patterns of paths to leave alone, looked at after ``paths``.
    :param observer: gets the counters.
    :param clock: tests' clock.
    :raises ConfigurationError: an option that cannot work.
    """

    scope_types = frozenset({"http", "websocket"})
    guards = True

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits = None,
        models: Mapping[str, Limits] | None = None,
        key: Key = "principal",
        plan: Plan | None = None,
        window: Literal["sliding", "fixed"] = "sliding",
        storage: Storage = None,
        name: str | None = None,
        on_exceeded: Literal["finish", "cut", "pace"] = "finish",
        reserve: int = 512,
        max_reserve: int = 4096,
        slice_size: int = 256,
        max_pause: float = 60.0,
        usage_path: str | None = None,
        report: bool = False,
        on_store_error: Literal["allow", "deny", "local"] = "local",
        expected_workers: int = 4,
        enforce: bool = True,
        body: Style = "problem",
        send_headers: bool = True,
        max_body: int = 1024 * 1024,
        retry: float = 3.0,
        paths: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        observer: Observer | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(app, paths=paths, exclude=exclude)
        owner = type(self).__name__
        _check(on_exceeded in ("finish", "cut", "pace"), "on_exceeded", on_exceeded, '"finish", "cut" or "pace"')
        for option, number in (("reserve", reserve), ("max_reserve", max_reserve), ("slice_size", slice_size),
                               ("max_body", max_body)):  # fmt: skip
            _check(is_whole(number), option, number, "a number of 1 or more")
        _check(reserve <= max_reserve, "reserve", reserve, f"at most max_reserve, which is {max_reserve!r}")
        for option, seconds in (("max_pause", max_pause), ("retry", retry)):
            _check(is_number(seconds) and seconds > 0, option, seconds, "greater than 0 seconds")
        for option, flag in (("enforce", enforce), ("report", report), ("send_headers", send_headers)):
            _check(isinstance(flag, bool), option, flag, "True or False")
        _check(usage_path is None or _is_path(usage_path), "usage_path", usage_path, "names with dots between, or None")
        accounts = self._accounts = Accounts(
            owner, "token_budget", key=key, plan=plan, window=window, storage=storage, name=name,
            selected=self.selection, unit="tokens", on_store_error=on_store_error,
            expected_workers=expected_workers, body=body, observer=observer, clock=clock,
        )  # fmt: skip
        self._key = accounts.key
        self._limits = accounts.rule("limits", limits)
        self._models: FirstMatch[Rule | None] = FirstMatch()
        self._every = [] if self._limits is None else [self._limits]
        expected = "a mapping of glob patterns of models' names to limits, or None"
        _check(models is None or isinstance(models, Mapping), "models", models, expected)
        for glob, within in (models or {}).items():
            _check(is_text(glob), "models", glob, expected)
            rule = accounts.rule("models", within, f" model {glob}")
            self._models.add(glob, rule)
            if rule is not None:
                self._every.append(rule)
        if self._limits is None and not self._models:
            raise ConfigurationError(f"{owner}: give it limits=, or models=")

        self._clock = clock_ = accounts.clock
        observer_ = accounts.observer
        ledger = Ledger(
            accounts.guard, slice_size=slice_size, workers=expected_workers, clock=clock_, observer=observer_
        )
        self._budget = Budget(
            counters="token_budget", observer=observer_, style=body, retry=retry, enforce=enforce,
            unit="tokens", tells=send_headers and enforce,
            ledger=ledger, clock=clock_, on_exceeded=on_exceeded, max_pause=max_pause, path=usage_path, reports=report,
        )  # fmt: skip
        self._ledger = ledger
        self._reserve = reserve
        self._max_reserve = max_reserve
        self._max_body = max_body

    @property
    def storage(self) -> LimitStorage:
        """Where the limits are kept."""
        return self._accounts.storage

    # -- lifecycle

    async def startup(self) -> None:
        await self._accounts.start()

    async def shutdown(self) -> None:
        """Nothing: what runs is settled when it has ended."""

    async def aclose(self) -> None:
        await self._ledger.settler.drain()
        await self._accounts.aclose()

    # -- requests

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope.get("method") in ("HEAD", "OPTIONS") or not on_asyncio():
            return self.app(scope, receive, send)
        return (self._serve if scope["type"] == "http" else self._serve_websocket)(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        limits: Sequence[Limit] = ()
        try:
            key = self._key(scope)
            if key is not None and not self._models:
                limits = self._limits_of(scope)
        except Exception:
            await self._refuse_unknown(scope, receive, send)
            return
        if key is None or not (limits or self._models):
            await self.app(scope, receive, send)
            return
        ahead = await read_ahead(scope, receive, self._max_body)
        if self._models:  # which of them it is, only the body tells
            try:
                limits = self._limits_of(scope, ahead)
            except Exception:
                await self._refuse_unknown(scope, ahead.receive, send)
                return
        if not limits or ahead.gone:
            await self.app(scope, ahead.receive, send)
            return
        reservation, denial = await self._admit(key, limits, ahead.asked)
        if denial is not None:
            await self._refuse(scope, ahead.receive, send, denial)
            return
        response = MeteredResponse(self._budget, scope, ahead.receive, send, reservation, ahead.asked)
        error: BaseException | None = None
        current = current_stream()
        token = None
        if current is None:
            current = CurrentStream(response, None)
            token = set_current_stream(current)
        response.told_by(current.usage)
        try:
            await self.app(scope, response.receive, response.send)
        except BaseException as raised:
            error = raised
            if not response.forgives(raised):
                raise
        finally:
            response.close(error)
            if token is not None:
                reset_current_stream(token)
        await response.end()

    def _limits_of(self, scope: Scope, ahead: Ahead | None = None) -> Sequence[Limit]:
        path = path_within_mount(scope)
        if ahead is not None and ahead.hidden:  # nobody is to get around the limits of a model by hiding its name
            return [limit for rule in self._every for limit in rule(scope, path)]
        asked = None if ahead is None else ahead.asked
        rule = self._limits if asked is None else self._models.find(asked.model, self._limits)
        return () if rule is None else rule(scope, path)

    async def _admit(self, key: str, limits: Sequence[Limit], asked: Asked | None) -> tuple[Reservation, Denial | None]:
        """Reserve what the request may use. An answer may be shorter than what is reserved for it, a prompt not."""
        output = self._reserve if asked is None or asked.output is None else asked.output
        prompt = 0 if asked is None else self._budget.prompt_of(asked)
        least = min(limit.amount for limit in limits)
        cost = max(prompt, min(prompt + min(output, self._max_reserve), least))
        reservation = await self._ledger.reserve(key, limits, cost, force=not self._budget.enforce)
        if reservation.taken.allowed:
            return reservation, None
        return reservation, self._budget.refused(reservation.taken, cost, limits)

    async def _refuse_unknown(self, scope: Scope, receive: Receive, send: Send) -> None:
        logger.exception("whose budget a request comes under could not be told, so it is refused")
        self._budget.count("refused", "key")
        await self._refuse(scope, receive, send, UNKNOWN_CALLER)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, denial: Denial) -> None:
        await refuse(scope, Inbound(scope, receive), send, denial, self._clock, soft=True)

    # -- WebSockets

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            key = self._key(scope)
            limits = () if key is None else self._limits_of(scope)
        except Exception:
            logger.exception("whose budget a WebSocket comes under could not be told, so it is refused")
            self._budget.count("refused", "key")
            await deny_websocket(scope, send, UNKNOWN_CALLER)
            return
        if key is None or not limits:
            await self.app(scope, receive, send)
            return
        cost = min(self._ledger.slice, *(limit.amount for limit in limits))
        reservation = await self._ledger.reserve(key, limits, cost, force=not self._budget.enforce)
        if not reservation.taken.allowed:
            denial = self._budget.refused(reservation.taken, cost, limits)
            if denial is not None:
                await deny_websocket(scope, send, denial)
                return
        socket = MeteredSocket(self._budget, scope, receive, send, reservation, key=key, limits=limits)
        current = CurrentStream(socket, None)
        socket.told_by(current.usage)
        token = set_current_stream(current)
        try:
            await self.app(scope, socket.receive, socket.send)
        except Exception as error:
            if not socket.forgives(error):
                raise
        finally:
            socket.close()
            reset_current_stream(token)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and all(value.split("."))
