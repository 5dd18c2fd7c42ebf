"""Runs the app of one request in a task of its own, and its events into a log once it proves to be a stream.

Rules:

1. Until that is known the app is fed by rendezvous: its messages go to the server from within its own ``send``, and it
   learns of a disconnect as it would bare. Nothing is decided twice.
2. A response is a stream once its first event has come without an id of the app's own (or after ``HOLD`` seconds, for
   a slow first event). One that ends before its first event, or has its own ids, passes through as if we were absent.
3. Once there is a log the server's ``send`` is the reader's alone; the app goes on without a connection.
4. ``DONE`` is written only at the app's final body. However else it ends, the log says so.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import logging
from collections.abc import Sequence

from ..exceptions import StoreError, StoreFull
from ..stores.base import Head, Outcome, ProducerLog
from ..types import ASGIApp, Message, Scope, Send, TimerHandle
from ..wire import headers, sse
from ..wire.cursor import parse_cursor
from .current import CurrentStream, set_current_stream
from .inbound import Inbound
from .options import HOLD, Options
from .owner import Identity
from .response import EVENT_STREAM, error_block, replayed
from .worker import Worker
from .writer import EventWriter, ForeignIds

logger = logging.getLogger("streamware.resume")

#: Comments that came before the first event are kept for the first reader up to this size.
PREFACE_BYTES = 4096
#: Of an answer that turned out to be no stream after an early start, what is told of it in band.
EARLY_BODY_BYTES = 16 * 1024


class ClientGone(OSError):
    """What the app's ``send`` raises once it has been told that the client has gone (ASGI HTTP spec 2.4)."""


class Verdict(enum.Enum):
    """What a response turned out to be."""

    LOGGED = "logged"
    PASSED = "passed"


class Phase(enum.Enum):
    PROBING = enum.auto()
    PASSING = enum.auto()
    LOGGING = enum.auto()
    EXPLAINING = enum.auto()  # started early, then no stream: its answer is told in band
    ENDED = enum.auto()


class Producer:
    """One run of the app. ``keyed``: its client can come back without having seen an id."""

    __slots__ = (
        "_announcing", "_app", "_expires", "_explained", "_held", "_hold", "_linger", "_moved", "_open_log", "_options",
        "_path", "_phase", "_scope", "_send", "_stall", "_told", "_waiting", "_waiting_room", "_worker", "_writer",
        "current", "decided", "handed_over", "identity", "inbound", "keyed", "log", "on_gone", "patience", "preface",
        "start",
        "stream", "task",
    )  # fmt: skip

    def __init__(
        self, app: ASGIApp, scope: Scope, send: Send, inbound: Inbound, *, stream: str, identity: Identity, keyed: bool,
        path: str, options: Options, worker: Worker,
    ) -> None:  # fmt: skip
        self._app = app
        self._scope = scope
        self._send = send
        self._options = options
        self._worker = worker
        self._path = path
        self.inbound = inbound
        self.stream = stream
        self.identity = identity
        self.keyed = keyed
        self.log: ProducerLog | None = None
        self.start: Message | None = None
        self.preface = b""
        self.patience = 0.0  # the least seconds to linger
        self.on_gone = _nothing
        self.handed_over: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None
        self.decided: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self.current = CurrentStream(self._cursor, self._stop_self, options.linger[path])
        self._phase = Phase.PROBING
        self._open_log: ProducerLog | None = None  # the log, while what the app sends goes into it as it is
        self._writer = self._new_writer(lines=False)
        self._held: list[bytes] = []
        self._hold: TimerHandle | None = None
        self._linger: TimerHandle | None = None
        self._stall: TimerHandle | None = None
        self._expires: TimerHandle | None = None
        self._announcing: asyncio.Task[None] | None = None
        self._told = False
        self._waiting: list[asyncio.Future[None]] = []
        self._waiting_room = False
        self._moved = 0
        self._explained: list[bytes] = []

    def _new_writer(self, *, lines: bool) -> EventWriter:
        options = self._options
        return EventWriter(
            self.stream,
            lines=lines,
            max_event_bytes=options.max_event_bytes,
            replace_ids=options.replace_ids,
            retry=options.retry,
            observer=options.observer,
        )

    def run(self) -> asyncio.Task[None]:
        """Start the app, in the caller's context; its task."""
        context = contextvars.copy_context()
        context.run(set_current_stream, self.current)
        self.inbound.on_change = self._inbound_changed
        self.task = asyncio.get_running_loop().create_task(self._run(), context=context)
        self._worker.producers.add(self)
        self.task.add_done_callback(self._returned)
        return self.task

    # -- what the app is given

    async def receive(self) -> Message:
        inbound = self.inbound
        while True:
            message = inbound.take()
            if message is not None:
                return message
            if self._told or self._phase is Phase.ENDED:
                return {"type": "http.disconnect"}
            if inbound.gone and not self._hides_drop():
                if inbound.error is not None:
                    raise inbound.error
                return {"type": "http.disconnect"}
            inbound.pull()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    async def send(self, message: Message) -> None:
        log = self._open_log
        if log is None:
            await self._send_unlogged(message)
        elif message["type"] == "http.response.body":
            body = message.get("body")
            if body.__class__ is bytes and body and message.get("more_body"):
                room = self._writer.write(log, body)
                if room:
                    return
                if room is not None:
                    await self._wait_for_room(log)
                    return
            await self._log_body(log, message)
        elif message["type"] == "http.response.start":
            raise RuntimeError("http.response.start was sent twice")
        elif not self._told and not self.inbound.gone and not self.inbound.released:
            await self._send(message)

    # -- the log's side

    async def _log_body(self, log: ProducerLog, message: Message) -> None:
        if self._told:
            raise ClientGone("the client has gone")
        body = message.get("body", b"")
        if body.__class__ is not bytes:
            body = bytes(body)
        if body:
            items = self._writer.split(body)
            try:
                await self._log_items(log, items)
            except ForeignIds:
                await self._hand_over(log, items, message.get("more_body", False))
                return
        if not message.get("more_body", False):
            self._finish(log)

    async def _log_items(self, log: ProducerLog, items: Sequence[bytes | sse.Piece]) -> None:
        for item in items:
            if item.__class__ is bytes:
                if not self._writer.append(log, item):  # type: ignore[arg-type]  # isinstance() costs more
                    await self._wait_for_room(log)
            else:
                await self._writer.pass_piece(log, item)  # type: ignore[arg-type]  # the same
                if log.outcome is not None:
                    raise ClientGone("the stream has ended")

    async def _wait_for_room(self, log: ProducerLog) -> None:
        self._waiting_room = True
        try:
            if not await log.room():
                raise ClientGone("the stream has ended")
        finally:
            self._waiting_room = False

    def _finish(self, log: ProducerLog) -> None:
        self._writer.finish(log)
        self._enter(Phase.ENDED)
        log.close(Outcome.DONE)
        self._wake()

    async def _hand_over(self, log: ProducerLog, items: Sequence[bytes | sse.Piece], more_body: bool) -> None:
        """The first event of a stream that was announced already has an id of the app's own: take the log back, and
        let the app have the connection."""
        self._enter(Phase.PASSING)
        _, first = self._writer.first_event(items)
        items = items[first or 0 :]
        self._count_own_ids(items[0])
        log.on_readers = log.on_closed = None
        had_reader = log.readers > 0
        self.handed_over = asyncio.get_running_loop().create_future()
        await self._options.store.forget(self.stream)
        if had_reader:
            await self.handed_over
        if not had_reader or self.inbound.gone or self.inbound.released:
            self._told = True
            raise ClientGone("the client has gone")
        body = self._writer.unsplit(items)
        await self._send({"type": "http.response.body", "body": body, "more_body": more_body})

    # -- before it is decided

    async def _send_unlogged(self, message: Message) -> None:
        if self._told:
            raise ClientGone("the client has gone")
        if self._announcing is not None:
            await asyncio.wait([self._announcing])
            self._announcing = None
            await self.send(message)
        elif self._phase is Phase.PROBING:
            await self._probe(message)
        elif self._phase is Phase.PASSING:
            await self._send(message)
        elif self._phase is Phase.EXPLAINING:
            self._explain(message)
        else:
            raise RuntimeError(f"{message['type']} was sent after the response had ended")

    async def _probe(self, message: Message) -> None:
        kind = message["type"]
        if self.start is None:
            if kind != "http.response.start":
                await self._send(message)
            elif self._may_be_stream(message):
                self.start = message
                self._hold = self._options.clock.call_later(HOLD, self._announce_soon)
            else:
                await self._pass(message)
        elif kind != "http.response.body":
            await self._pass(message)
        else:
            await self._probe_body(message)

    async def _probe_body(self, message: Message) -> None:
        body = bytes(message.get("body", b""))
        more_body = message.get("more_body", False)
        items = self._writer.split(body)
        comments, first = self._writer.first_event(items)
        if first is None and more_body:
            self._held.append(body)
            if len(self.preface) + len(comments) <= PREFACE_BYTES:
                self.preface += comments
            return
        if first is None or not self._is_ours(items[first]) or not await self._announce():
            await self._pass(message)
            return
        self.preface += comments
        log = self.log
        assert log is not None  # announced  # noqa: S101 - narrows the type, checks no input
        await self._log_items(log, items[first:])
        if not more_body:
            self._finish(log)

    def _is_ours(self, first: bytes | sse.Piece) -> bool:
        """Whether a stream that begins with this event is one that we may number."""
        if isinstance(first, sse.Piece):
            self._options.observer.count("resume.passed", reason="oversize_event")
            return False
        if self._writer.app_id(first) is None:
            return True
        self._count_own_ids(first)
        return False

    def _count_own_ids(self, first: bytes | sse.Piece) -> None:
        self._options.observer.count("resume.passed", reason="app_ids")
        inner = parse_cursor(sse.own_id(first)) if isinstance(first, bytes) else None
        if inner is not None:
            self._worker.learn_inner_tag(inner.tag)

    def _may_be_stream(self, start: Message) -> bool:
        given = start.get("headers") or []
        media_type = headers.media_type(headers.get(given, b"content-type"))
        if start.get("status") != 200 or media_type not in self._options.media_types or start.get("trailers"):
            return False
        if headers.get(given, b"mcp-session-id") is not None or headers.get(given, b"mcp-protocol-version") is not None:
            return False
        if headers.get(given, b"content-encoding") not in (None, b"identity"):
            self._options.observer.count("resume.passed", reason="content_encoding")
            return False
        if media_type != EVENT_STREAM:
            self._writer = self._new_writer(lines=True)
        record = self._scope.get("streamware")
        return record is None or not record.denied

    async def _pass(self, message: Message | None = None) -> None:
        """It is no stream of ours: from here on the app has the server's ``send``, beginning with what was held."""
        self._call_off(self._hold)
        self._enter(Phase.PASSING)
        start, held, self._held = self.start, self._held, []
        self.preface = b""
        self._decide(Verdict.PASSED)
        if start is not None:
            await self._send(start)
            for body in held:
                await self._send({"type": "http.response.body", "body": body, "more_body": True})
        if message is not None:
            await self._send(message)

    def _announce_soon(self) -> None:
        if self._phase is Phase.PROBING:
            self._announcing = asyncio.get_running_loop().create_task(self._announce_or_pass())

    async def _announce_or_pass(self) -> None:
        if not await self._announce():
            await self._pass()

    async def _announce(self) -> bool:
        """Make the log. False where the store will not have it: then the stream passes through, unresumable."""
        self._call_off(self._hold)
        start = self.start or {"status": 200, "headers": [(b"content-type", EVENT_STREAM)]}
        given = start.get("headers") or []
        head = Head(
            owner=self.identity.owner(self.stream),
            account=self.identity.account,
            path=self._scope["path"],
            method=self._scope["method"],
            status=200,
            headers=replayed(list(given), self._options.replay_headers),
            media_type=headers.media_type(headers.get(given, b"content-type")).decode("latin-1"),
        )
        try:
            self.log = await self._options.store.create(self.stream, head, window=self._options.window)
        except StoreError as error:
            reason = "store_full" if isinstance(error, StoreFull) else "store_unavailable"
            self._options.observer.count("resume.passed", reason=reason)
            self._options.advice.warning(reason, "streams pass through unresumable for now: %s", error)
            return False
        self._options.observer.count("resume.started")
        self.log.on_closed = self._closed_outside
        self.log.on_readers = self._readers_changed
        self._held.clear()
        self._enter(Phase.LOGGING)
        self._arm_limits()
        self.inbound.watch()
        self._decide(Verdict.LOGGED)
        return True

    def start_early(self) -> None:
        """Nothing has come for ``early_start`` seconds: begin the stream now, on the app's behalf."""
        if self._phase is Phase.PROBING and self.start is None and self._announcing is None:
            self._announcing = asyncio.get_running_loop().create_task(self._announce_early())

    async def _announce_early(self) -> None:
        if await self._announce():
            self._enter(Phase.EXPLAINING)
            self._options.observer.count("resume.early_start")

    def _explain(self, message: Message) -> None:
        """After an early start: the real start at last. Anything but a stream is told in band."""
        log = self.log
        assert log is not None  # announced  # noqa: S101 - narrows the type, checks no input
        if message["type"] == "http.response.start":
            self.start = message
            if self._may_be_stream(message):
                self._enter(Phase.LOGGING)
        elif message["type"] == "http.response.body" and self.start is not None:
            if sum(map(len, self._explained)) < EARLY_BODY_BYTES:
                self._explained.append(bytes(message.get("body", b"")))
            if not message.get("more_body", False):
                text = b"".join(self._explained)[:EARLY_BODY_BYTES].decode("utf-8", "replace")
                block = error_block({"status": self.start.get("status"), "body": text})
                self._writer.append(log, block)
                self._enter(Phase.ENDED)
                log.close(Outcome.FAILED)

    async def caller_cancelled(self) -> None:
        """The server has cancelled the call while it was undecided: a disconnect, and treated as one."""
        if self._hides_drop():
            self.linger()
        elif self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._open_log = self.log if phase is Phase.LOGGING else None

    def _decide(self, verdict: Verdict) -> None:
        if not self.decided.done():
            self.decided.set_result(verdict)

    # -- the client's side

    def _hides_drop(self) -> bool:
        if self._phase in (Phase.LOGGING, Phase.EXPLAINING):
            return True
        return self._phase is Phase.PROBING and self.keyed and self.inbound.complete

    def _inbound_changed(self) -> None:
        if self.inbound.gone:
            self.on_gone()
            if self._phase in (Phase.LOGGING, Phase.EXPLAINING) and not self.inbound.complete:
                self.abandon()  # it left in the middle of its upload: nobody could finish that
            elif self._hides_drop() and self.log is None:
                self.linger()
        self._wake()

    def _readers_changed(self, readers: int) -> None:
        if readers:
            self._call_off(self._linger)
            self._linger = None
            self._worker.attach(self)
        else:
            self.linger()

    def linger(self) -> None:
        """Nobody reads now. The app is told after ``linger`` seconds, unless somebody comes back before."""
        if self._phase in (Phase.ENDED, Phase.PASSING) or self._told:
            return
        self._call_off(self._linger)
        self._linger = None
        seconds = self.current.linger
        if seconds is not None:
            seconds = max(seconds, self.patience)
            if seconds <= 0:
                self._options.observer.count("resume.abandoned", reason="linger")
                self.abandon()
                return
            self._linger = self._options.clock.call_later(seconds, self._linger_over)
        self._worker.detach(self)

    def _linger_over(self) -> None:
        if self.log is None or not self.log.readers:
            self._options.observer.count("resume.abandoned", reason="linger")
            self.abandon()

    def abandon(self) -> None:
        """Tell the app that the client has gone, by both of ASGI's signals at once."""
        if self._told or self._phase in (Phase.ENDED, Phase.PASSING):
            return
        self._told = True
        self._worker.attach(self)
        if self.log is not None:
            self.log.close(Outcome.INTERRUPTED)
        self._wake()

    def end(self, outcome: Outcome) -> None:
        """Close the log and cancel the app. What was produced stays readable."""
        self._told = True
        if self.log is not None:
            self.log.close(outcome)
        if self.task is not None and not self.task.done():
            self.task.cancel()
        self._wake()

    def _closed_outside(self, outcome: Outcome) -> None:
        self._options.observer.count("resume.ended", reason=outcome)
        self.end(outcome)

    def _stop_self(self) -> None:
        if self.log is not None and self.log.close(Outcome.STOPPED):
            self._closed_outside(Outcome.STOPPED)

    def _cursor(self) -> str:
        return "" if self.log is None else f"{self.stream}.{self._writer.seq}"

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    # -- limits and the end

    def _arm_limits(self) -> None:
        options = self._options
        if options.max_duration is not None:
            self._expires = options.clock.call_later(options.max_duration, lambda: self._overdue("max_duration"))
        if options.stall_timeout is not None:
            self._stall = options.clock.call_later(options.stall_timeout / 4, lambda: self._check_stall(0))

    def _check_stall(self, quiet: int) -> None:
        """Four looks without a new event are a stall; no clock is read per event."""
        limit = self._options.stall_timeout
        if limit is None or self._phase not in (Phase.LOGGING, Phase.EXPLAINING):
            return
        quiet = quiet + 1 if self._moved == self._writer.seq and not self._waiting_room else 0
        self._moved = self._writer.seq
        if quiet >= 4:
            self._overdue("stall_timeout")
        else:
            self._stall = self._options.clock.call_later(limit / 4, lambda: self._check_stall(quiet))

    def _overdue(self, reason: str) -> None:
        if self._phase in (Phase.LOGGING, Phase.EXPLAINING):
            self._options.observer.count("resume.ended", reason=reason)
            logger.warning("a stream on %s was ended by %s", self._path, reason)
            self.end(Outcome.FAILED)

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self.receive, self.send)
        except Exception:
            await self._settle()
            raise
        await self._settle()

    async def _settle(self) -> None:
        """The app has returned: what it held back by its start alone goes out, as it would bare."""
        if self._announcing is not None:
            await asyncio.wait([self._announcing])
        if self._phase is Phase.PROBING and self.start is not None:
            await self._pass()

    def _returned(self, task: asyncio.Task[None]) -> None:
        self._worker.producers.discard(self)
        self._worker.attach(self)
        for timer in (self._hold, self._linger, self._stall, self._expires):
            self._call_off(timer)
        logged = self.log is not None and self._phase is not Phase.PASSING
        if logged and self.log is not None:
            if self.log.close(Outcome.INTERRUPTED if self._worker.leaving else Outcome.FAILED):
                self._options.observer.count("resume.ended", reason="incomplete")
            self._enter(Phase.ENDED)
        self._decide(Verdict.PASSED)
        self._wake()
        if logged and not task.cancelled():
            error = task.exception()
            if error is not None and not (self._told and is_disconnect(error)):
                logger.error("Exception in ASGI application, after its stream had begun", exc_info=error)

    @staticmethod
    def _call_off(timer: TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


def _nothing() -> None:
    return None


def is_disconnect(error: BaseException) -> bool:
    """Whether ``error`` is nothing but how frameworks say that the client has gone."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_disconnect(leaf) for leaf in error.exceptions)
    return isinstance(error, OSError) or type(error).__name__ == "ClientDisconnect"
