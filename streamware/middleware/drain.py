"""``DrainMiddleware``: a worker that is about to end sends its clients elsewhere, and loses nothing.

This module decides what a request gets from a worker that drains; the drain itself is ``streams/drain.py``, and what
ends a connection is its reader, ``streams/farewell.py`` or ``streams/websocket_watch.py``.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import msgspec

from ..checks import check, is_number, is_positive
from ..clock import LoopClock
from ..exceptions import ConfigurationError
from ..observe import NullObserver, Observer
from ..paths import path_within_mount
from ..record import record_of
from ..streams.drain import Drain, Phase, worker_leaves
from ..streams.inbound import Inbound
from ..streams.pulse import looks_only
from ..streams.refusal import refuse
from ..streams.websocket_watch import WebSocketWatch
from ..types import ASGIApp, Clock, Message, RawHeaders, Receive, Scope, Send
from ..wire import headers
from ..wire.answer import answer
from ..wire.denial import EVENT_STREAM, deny_websocket, is_eventsource_like
from .base import BaseMiddleware, WatchingMiddleware

_check = partial(check, "DrainMiddleware")


class DrainMiddleware(WatchingMiddleware):
    """Ends a worker's streams and WebSockets on purpose, so that clients come back to another worker.

    :param grace: seconds that running streams get to finish before those that can go on elsewhere are sent there,
        15 by default; 0: at once.
    :param deadline: seconds after which everything that still runs is ended as interrupted, 25 by default, so that it
        fits into the 30 that Kubernetes gives. The server has to allow some seconds more: see docs/servers.md.
    :param retry: seconds after which an EventSource comes back, 3 by default; each is told another number between half
        of it and one and a half.
    :param signals: that begin the drain, ``SIGTERM`` by default; heard before the server acts on them, and only where
        it handles them. Empty: none.
    :param readiness: the path, within the mount, that answers 200 while this worker serves and 503 once it leaves;
        ``None`` (default): none. A ``Stack`` answers it before any middleware.
    :param paths: glob patterns on the path within the mount; ``None`` touches every path.
    :param exclude: patterns of paths to leave alone, looked at after ``paths``.
    :param observer: gets the counters ``drain.phase``, ``drain.refused``, ``drain.ended`` and ``drain.cut_off``.
    :param clock: tells the time; ``None``: the event loop's.
    """

    scope_types = frozenset({"http", "websocket"})

    def __init__(
        self,
        app: ASGIApp,
        *,
        grace: float = 15.0,
        deadline: float = 25.0,
        retry: float = 3.0,
        signals: Iterable[int] = (signal.SIGTERM,),
        readiness: str | None = None,
        paths: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        observer: Observer | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(app, paths=paths, exclude=exclude)
        _check(is_number(grace) and grace >= 0, "grace", grace, "0 seconds or more")
        _check(is_positive(deadline), "deadline", deadline, "greater than 0 seconds")
        _check(deadline >= grace, "deadline", deadline, f"at least grace, which is {grace!r}")
        _check(is_positive(retry), "retry", retry, "greater than 0 seconds")
        _check(
            readiness is None or str(readiness).startswith("/"),
            "readiness",
            readiness,
            "a path that starts with /, or None",
        )
        self._signals = _signals(signals)
        self._retry = retry
        self._readiness = readiness
        self._observer = observer = NullObserver() if observer is None else observer
        clock = LoopClock() if clock is None else clock
        self._drain = Drain(
            grace=grace,
            deadline=deadline,
            retry=retry,
            clock=clock,
            observer=observer,
            concerns=lambda scope: self.selection.everything or path_within_mount(scope) in self.selection,
        )
        self._drain.on_phase = self._phase_changed
        self.patience = deadline
        #: What it looks out for on a connection, where nobody directly within does that for it.
        self.options = looks_only(self._drain.responses, clock=clock, observer=observer)

    # -- by hand

    def leave(self) -> None:
        """Let readiness say no from here on, and serve everything. From any thread."""
        self._drain.leave()

    def drain(self) -> None:
        """Begin to drain, as a signal would. From any thread; the app must have been started, or asked once."""
        self._drain.begin()

    # -- lifecycle

    async def startup(self) -> None:
        self._drain.open(self._signals)

    async def shutdown(self) -> None:
        await self._drain.finish()

    async def aclose(self) -> None:
        if tasks := self._drain.close():
            await asyncio.wait(tasks)

    # -- in a Stack

    @property
    def drains(self) -> Drain:
        return self._drain

    def encloses(self, within: Sequence[BaseMiddleware]) -> None:
        for inner in within:
            inner.drained_by(self._drain)

    @property
    def frameless(self) -> bool:
        return self.in_stack and self.selection.everything

    @property
    def needs_frame(self) -> bool:
        return not self._drain.opened or self._drain.phase >= Phase.DRAINING

    @property
    def endpoints(self) -> Mapping[str, ASGIApp]:
        return {} if self._readiness is None else {self._readiness: self._answer_readiness}

    def _phase_changed(self) -> None:
        if self.reshape is not None:
            self.reshape()

    # -- requests

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        drains = self._drain
        if not drains.opened:
            await self.startup()  # a server without a lifespan, as daphne
        record = record_of(scope)
        if record is not None:
            record.drain = drains
        if scope["type"] == "websocket":
            await self._handle_websocket(scope, receive, send)
            return
        if self._readiness is not None and not self.in_stack and path_within_mount(scope) == self._readiness:
            await self._answer_readiness(scope, receive, send)
            return
        if drains.phase >= Phase.DRAINING:
            send = closing(scope, send)
            if _asks_for_stream(scope) and not drains.is_needed(scope):
                await self._refuse(scope, receive, send)
                return
        await (self.app if self.delegated else self.look_out)(scope, receive, send)

    async def _handle_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._drain.phase >= Phase.DRAINING:
            self._observer.count("drain.refused", reason="websocket")
            await deny_websocket(scope, send, worker_leaves(self._retry))
            return
        watch = WebSocketWatch(scope, receive, send)
        self._drain.sockets.add(watch)
        try:
            await self.app(scope, watch.receive, watch.send)
        except Exception as error:
            if not watch.forgives(error):
                raise
        finally:
            self._drain.sockets.discard(watch)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a request for a stream elsewhere: what began here now would be cut short."""
        self._observer.count("drain.refused", reason="eventsource" if is_eventsource_like(scope) else "stream")
        denial = worker_leaves(self._drain.retry() / 1000)
        await refuse(scope, Inbound(scope, receive), send, denial, self.options.clock, soft=True)

    async def _answer_readiness(self, scope: Scope, receive: Receive, send: Send) -> None:
        phase = self._drain.phase
        status = 200 if phase is Phase.SERVING else 503
        lines: RawHeaders = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        body = msgspec.json.encode({"status": phase.name.lower()})
        if scope["method"] not in ("GET", "HEAD"):
            status, body = 405, b""
            lines = [(b"allow", b"GET, HEAD"), (b"cache-control", b"no-store")]
        await answer(scope, closing(scope, send) if phase >= Phase.DRAINING else send, status, lines, body)


def closing(scope: Scope, send: Send) -> Send:
    """``send``, with the connection's end announced in the response's head: HTTP/1.1 only, for HTTP/2 forbids it."""
    if not str(scope.get("http_version", "1.1")).startswith("1"):
        return send

    async def announce(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = [(bytes(name), bytes(value)) for name, value in message.get("headers") or ()]
            kept = headers.without(given, b"connection", b"keep-alive")
            message = {**message, "headers": [*kept, (b"connection", b"close")]}
        await send(message)

    return announce


def _asks_for_stream(scope: Scope) -> bool:
    if scope["method"] in ("OPTIONS", "HEAD", "DELETE"):
        return False
    given = scope.get("headers") or ()
    if headers.names_media_type(headers.combined(given, b"accept"), EVENT_STREAM) or is_eventsource_like(scope):
        return True
    prefer = headers.get_all(given, b"prefer")
    return bool(prefer) and "respond-async" in headers.parse_prefer(prefer)


def _signals(given: Iterable[int]) -> tuple[int, ...]:
    expected = "a list of signals, as [signal.SIGTERM]"
    if isinstance(given, str | bytes | int) or not isinstance(given, Iterable):
        raise ConfigurationError.option("DrainMiddleware", "signals", given, expected)
    checked = tuple(given)
    for each in checked:
        hearable = not isinstance(each, bool) and each in signal.valid_signals() and each not in _UNHEARABLE
        _check(hearable, "signals", each, expected)
    return checked


_UNHEARABLE = {getattr(signal, name, None) for name in ("SIGKILL", "SIGSTOP")}
