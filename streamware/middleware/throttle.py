"""``ThrottleMiddleware``: how much one client may start, run at once, read, send and receive.

This module decides what a request or a connection is charged with; the counters, leases, lines and clocks are in
``streamware.limiting``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterable
from functools import partial
from typing import Literal

from ..checks import check, is_number, is_text, is_whole
from ..clock import on_asyncio
from ..exceptions import ConfigurationError
from ..limiting.accounts import Accounts
from ..limiting.admission import Admission, Desk
from ..limiting.base import LimitStorage
from ..limiting.keys import Key
from ..limiting.leases import Leases
from ..limiting.pacing import MAX_DELAY, SENDS_FILES, Pace, PacedResponse, Paces
from ..limiting.queueing import Queue, Ticket
from ..limiting.reads import Telling, may_be_read
from ..limiting.rules import Limits, Most, Plan, most_rule
from ..limiting.sockets import ThrottledSocket, close_code
from ..limiting.storages import Storage
from ..limiting.watched import Watched
from ..observe import Observer
from ..paths import path_within_mount
from ..record import KEY, Record, record_of
from ..streams.inbound import Inbound
from ..streams.refusal import refuse
from ..types import ASGIApp, Clock, Message, Receive, Scope, Send
from ..wire.credentials import harmless
from ..wire.denial import UNKNOWN_CALLER, Denial, WebSocketReject, deny_websocket, reject_websocket
from ..wire.headers import is_preflight
from ..wire.ratelimit import Style
from .base import RANKS, BaseMiddleware

logger = logging.getLogger("streamware.throttle")


_check = partial(check, "ThrottleMiddleware")


class ThrottleMiddleware(BaseMiddleware):
    """See docs/middleware/throttle.md for the whole of it; in short, by option:

    :param limits: on what is started, requests and WebSockets: ``"60/minute"``, ``["10/second", "1000/day"]``, a
        mapping of glob patterns of paths or of plans to these, or a function of the scope. All are taken or none.
    :param reads: the same for resumes, joins, polls and stops of streams, which never cost what a start costs; ``None``
        (default): not limited.
    :param concurrent: streams, other requests and WebSockets that may run at once; a number, a mapping, or a function.
    :param messages: limits on the messages of a WebSocket's client.
    :param events_per_second: events, lines or WebSocket messages that a response may send; ``None``: as they come.
    :param bytes_per_second: the same in bytes.
    :param pace_together: whether what this worker sends to one client at once shares the pace; by default each
        response and each WebSocket has its own.
    :param key: whose limits they are: ``"principal"`` (default; the client's address where nobody is authenticated),
        ``"token"``, ``"ip"`` (IPv6 by /64), or a function of the scope that returns a text, or None for no limits.
    :param plan: names the plan of a request, for options that map plans.
    :param window: ``"sliding"`` (default), or ``"fixed"``: aligned to the calendar, in UTC.
    :param storage: ``None``: this process's memory; a ``redis://`` URL or a redis-py client; or a ``LimitStorage``.
    :param name: opens the names of the counters; those with the same one count together. By default it is made of
        ``key``, ``paths`` and ``exclude``.
    :param lease: seconds after which what a crashed worker ran no longer counts; default 30.
    :param queue: requests of one key that may wait for their turn; ``None`` (default): none.
    :param queue_timeout: seconds that they wait at most; default 5.
    :param on_store_error: ``"local"`` (default): each worker counts for itself while the storage is away, up to the
        limit divided by ``expected_workers``; ``"allow"``; or ``"deny"``: 503.
    :param expected_workers: default 4.
    :param enforce: False: refuse nothing, and count what would have been.
    :param body: of refusals: ``"problem"`` (RFC 9457, the default), ``"openai"`` or ``"anthropic"``.
    :param send_headers: whether responses carry ``RateLimit`` and ``RateLimit-Policy``.
    :param retry: seconds after which to come again where nobody knows, 3 by default.
    :param websocket_refusal: ``"http"`` (default): 429 where the server can, else a bare 403; ``"close"``: accept, then
        close with 1013 or 1008, which scripts in browsers can see.
    :param message_refusal: the text sent in answer to a message over the limit; ``None`` (default): the connection is
        closed.
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
        reads: Limits = None,
        concurrent: Most = None,
        messages: Limits = None,
        events_per_second: float | None = None,
        bytes_per_second: float | None = None,
        pace_together: bool = False,
        key: Key = "principal",
        plan: Plan | None = None,
        window: Literal["sliding", "fixed"] = "sliding",
        storage: Storage = None,
        name: str | None = None,
        lease: float = 30.0,
        queue: int | None = None,
        queue_timeout: float = 5.0,
        on_store_error: Literal["allow", "deny", "local"] = "local",
        expected_workers: int = 4,
        enforce: bool = True,
        body: Style = "problem",
        send_headers: bool = True,
        retry: float = 3.0,
        websocket_refusal: Literal["http", "close"] = "http",
        message_refusal: str | None = None,
        paths: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        observer: Observer | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(app, paths=paths, exclude=exclude)
        owner = type(self).__name__
        slowest = 1 / MAX_DELAY
        _check(_is_rate(events_per_second, slowest), "events_per_second", events_per_second,
               f"{slowest:.2f} or more, or None")  # fmt: skip
        _check(_is_rate(bytes_per_second, 1.0), "bytes_per_second", bytes_per_second, "1 or more, or None")
        for option, seconds in (("lease", lease), ("queue_timeout", queue_timeout), ("retry", retry)):
            _check(is_number(seconds) and seconds > 0, option, seconds, "greater than 0 seconds")
        _check(queue is None or is_whole(queue), "queue", queue, "a number of 1 or more, or None")
        _check(websocket_refusal in ("http", "close"), "websocket_refusal", websocket_refusal, '"http" or "close"')
        for option, flag in (("enforce", enforce), ("send_headers", send_headers), ("pace_together", pace_together)):
            _check(isinstance(flag, bool), option, flag, "True or False")
        _check(message_refusal is None or is_text(message_refusal), "message_refusal", message_refusal,
               "the text of a message, or None")  # fmt: skip
        accounts = self._accounts = Accounts(
            owner, "throttle", key=key, plan=plan, window=window, storage=storage, name=name, selected=self.selection,
            on_store_error=on_store_error, expected_workers=expected_workers, body=body, observer=observer, clock=clock,
        )  # fmt: skip
        self._key = accounts.key
        self._limits = accounts.rule("limits", limits)
        self._reads = accounts.rule("reads", reads, " reads")
        self._messages = accounts.rule("messages", messages, " messages")
        self._most = most_rule(owner, "concurrent", f"{accounts.name} concurrent", concurrent, plan)
        self._counts = any(rule is not None for rule in (self._limits, self._reads, self._messages, self._most))
        self._paces = Paces(events_per_second, bytes_per_second, accounts.clock, together=pace_together)
        if not self._counts and not self._paces:
            raise ConfigurationError(f"{owner}: give it limits=, reads=, concurrent=, messages= or a pace")
        # Addresses are known before anybody is authenticated; and bytes can be told apart only before compression.
        before = (RANKS["AuthMiddleware"] - 5,) if key == "ip" or not (self._counts or pace_together) else ()
        within = () if self._counts else (RANKS["CompressionMiddleware"] + 5,)
        self.ranks = (*before, self.rank, *within)

        self._clock = accounts.clock
        self._observer = accounts.observer
        guard = accounts.guard
        line = None if queue is None else Queue(queue, queue_timeout, self._clock)
        leases = Leases(guard, seconds=lease, clock=self._clock, observer=self._observer)
        leases.on_freed = None if line is None else line.freed
        self._desk = Desk(
            counters="throttle", observer=self._observer, style=body, retry=retry, enforce=enforce,
            guard=guard, leases=leases, queue=line, lease_seconds=lease,
        )  # fmt: skip
        self._tells = send_headers and enforce
        self._reject: WebSocketReject = "accept-close" if websocket_refusal == "close" else "http"
        self._message_refusal = message_refusal
        self._telling = Telling(app)

    @property
    def storage(self) -> LimitStorage:
        """Where the limits are kept."""
        return self._accounts.storage

    # -- lifecycle

    async def startup(self) -> None:
        await self._accounts.start()

    async def shutdown(self) -> None:
        """Nothing: what runs keeps its leases to its end."""

    async def aclose(self) -> None:
        await self._desk.leases.aclose()
        await self._accounts.aclose()

    # -- requests

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if is_preflight(scope) or not on_asyncio():
            return self.app(scope, receive, send)
        return (self._serve if scope["type"] == "http" else self._serve_websocket)(scope, receive, send)

    def _admission(self, scope: Scope) -> Admission | None:
        """What the request is to pass; None where it is not limited. Whatever goes wrong is raised: who cannot be told
        apart is not let in."""
        key = self._key(scope) if self._counts else None
        if key is None:
            return None
        path = path_within_mount(scope)
        limits = () if self._limits is None else self._limits(scope, path)
        most, place = (None, "") if self._most is None else self._most(scope, path)
        return Admission(self._desk, key, limits, most, place)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            admission = self._admission(scope)
            path = path_within_mount(scope)
            may_read = admission is not None and self._telling.of(path) and may_be_read(scope)
            reads = self._reads(scope, path) if may_read and self._reads is not None else ()
            pace = self._pace_of(scope, admission)
        except Exception:
            logger.exception("whose limits a request comes under could not be told, so it is refused")
            self._observer.count("throttle.refused", reason="key")
            await refuse(scope, Inbound(scope, receive), send, UNKNOWN_CALLER, self._clock, soft=True)
            return
        if pace is not None:
            scope, send = self._paced(scope, send, pace)
        if admission is None:
            await self.app(scope, receive, send)
        elif may_read:
            denial = await admission.read(reads)
            await self._run(scope, receive, send, admission, denial, may_read=True)
        elif self._desk.queue is None:
            denial = await admission.admit()
            await self._run(scope, receive, send, admission, denial)
        else:
            inbound = Inbound(scope, receive)
            ticket = Ticket()
            inbound.on_change = lambda: ticket.leave() if inbound.gone else None
            inbound.watch()
            try:
                denial = await admission.admit(ticket)
                waiting = Watched(inbound)
                await self._run(scope, waiting.receive, send, admission, denial, inbound=inbound)
            finally:
                inbound.release()
                admission.finish()

    async def _run(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        admission: Admission,
        denial: Denial | None,
        *,
        may_read: bool = False,
        inbound: Inbound | None = None,
    ) -> None:
        if denial is not None:
            await refuse(scope, inbound or Inbound(scope, receive), send, denial, self._clock, soft=True)
            return
        record: Record | None = None
        if may_read or admission.has_lease:
            record = record_of(scope)
            if record is None:
                record = Record()
                record.rank, record.entered = self.rank, type(self).__name__
                scope = {**scope, KEY: record}
            record.gates = (*record.gates, admission)
        if self._tells or may_read:
            send = self._telling_of(admission, send)
        try:
            await self.app(scope, receive, send)
        finally:
            admission.finish()
            if record is not None:
                record.gates = record.gates[:-1]
                # It may have come to nobody who tells: then it was refused on its way, or the app was run for it.
                if may_read and not admission.seen and not record.denied and 200 <= admission.status < 300:
                    self._telling.distrust()
        if may_read and not admission.seen and record is not None and not record.denied:
            await admission.charge()  # a refusal of somebody else's costs as much as any

    def _telling_of(self, admission: Admission, send: Send) -> Send:
        """``send``, with the limits in the response's head. The admission learns how it was answered."""
        desk, tells = self._desk, self._tells

        def tell(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                admission.status = message.get("status", 200)
                if tells and admission.taken is not None and (lines := desk.lines(admission.taken)):
                    message = {**message, "headers": [*(message.get("headers") or ()), *lines]}
            return send(message)

        return tell

    def _pace_of(self, scope: Scope, admission: Admission | None) -> Pace | None:
        if not self._paces:
            return None
        if admission is not None:
            return self._paces.of(admission.key)
        return self._paces.of(self._key(scope) if self._paces.together and not self._counts else None)

    def _paced(self, scope: Scope, send: Send, pace: Pace) -> tuple[Scope, Send]:
        """The request, and its ``send`` at a pace. Where bytes are paced no server may send files by itself."""
        if pace.octets is not None and (extensions := scope.get("extensions")):
            left = {name: given for name, given in extensions.items() if name not in SENDS_FILES}
            if len(left) < len(extensions):
                scope = {**scope, "extensions": left}
        return scope, PacedResponse(pace, send).send

    # -- WebSockets

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            admission = self._admission(scope)
            path = path_within_mount(scope)
            limits = self._messages(scope, path) if self._messages is not None and admission is not None else ()
            pace = self._pace_of(scope, admission)
        except Exception:
            logger.exception("whose limits a WebSocket comes under could not be told, so it is refused")
            self._observer.count("throttle.refused", reason="key")
            await deny_websocket(scope, send, UNKNOWN_CALLER)
            return
        denial = None if admission is None else await admission.admit()
        if denial is not None:
            code = close_code(scope, denial.retry_after or 0.0)
            offered = harmless(scope.get("subprotocols") or ())
            await reject_websocket(scope, receive, send, denial, how=self._reject, code=code, subprotocol=offered)
            return
        try:
            if not limits and pace is None:
                await self.app(scope, receive, send)
                return
            key = "" if admission is None else admission.key
            socket = ThrottledSocket(
                scope, receive, send, guard=self._desk.guard, key=key, limits=limits,
                text=self._message_refusal, pace=pace, observer=self._observer, enforce=self._desk.enforce,
            )  # fmt: skip
            try:
                await self.app(scope, socket.receive, socket.send)
            except Exception as error:
                if not socket.forgives(error):
                    raise
        finally:
            if admission is not None:
                admission.finish()


def _is_rate(value: object, least: float) -> bool:
    return value is None or (is_number(value) and value >= least)
