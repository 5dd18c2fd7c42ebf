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
from ..types import ASGIApp, Message, RawHeaders, Scope, Send, TimerHandle
from ..wire import headers, sse
from .current import CurrentStream, set_current_stream
from .gone import ClientGone, is_disconnect
from .inbound import Inbound
from .limits import Limits
from .options import HOLD, Options
from .owner import Identity
from .probe import Finding, Probe
from .response import EVENT_STREAM, error_block, replayed, with_listed_headers
from .worker import Worker
from .writer import ForeignIds, body_of

logger = logging.getLogger("streamware.resume")

#: Of an answer that turned out to be no stream after an early start, what is told of it in band.
EARLY_BODY_BYTES = 16 * 1024


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
        "_announcing", "_app", "_explained", "_hold", "_limits", "_linger", "_open_log", "_options", "_path", "_phase",
        "_probe", "_scope", "_send", "_told", "_waiting", "_waiting_room", "_worker", "_writer", "current", "decided",
        "handed_over", "identity", "inbound", "keyed", "log", "on_gone", "patience", "stream", "task",
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
        self.patience = 0.0  # the least seconds to linger
        self.on_gone = _nothing
        self.handed_over: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None
        self.decided: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self.current = CurrentStream(self._cursor, self._stop_self, options.linger[path])
        self._phase = Phase.PROBING
        self._open_log: ProducerLog | None = None  # the log, while what the app sends goes into it as it is
        self._probe = Probe(stream, scope, options, worker)
        self._writer = self._probe.writer
        self._limits = Limits(options, self._progress, self._overdue)
        self._hold: TimerHandle | None = None
        self._linger: TimerHandle | None = None
        self._announcing: asyncio.Task[None] | None = None
        self._told = False
        self._waiting: list[asyncio.Future[None]] = []
        self._waiting_room = False
        self._explained: list[bytes] = []

    @property
    def start(self) -> Message | None:
        """The app's own start of the stream; None where it was started early."""
        return self._probe.start

    @property
    def preface(self) -> bytes:
        """What the app sent before its first event, for the first reader."""
        return self._probe.preface

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
        """The app's ``send``."""
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
        body = body_of(message)
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
            if isinstance(item, bytes):
                if not self._writer.append(log, item):
                    await self._wait_for_room(log)
            else:
                await self._writer.pass_piece(log, item)
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
        self._probe.count_own_ids(items[0])
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
            await self._find_out(message)
        elif self._phase is Phase.PASSING:
            await self._send(message)
        elif self._phase is Phase.EXPLAINING:
            self._explain(message)
        else:
            raise RuntimeError(f"{message['type']} was sent after the response had ended")

    async def _find_out(self, message: Message) -> None:
        probe = self._probe
        message = with_listed_headers(message)
        finding = probe.take(message)
        if finding is Finding.OPEN:
            if probe.start is None:
                await self._send(message)
            elif probe.start is message:
                self._hold = self._options.clock.call_later(HOLD, self._announce_soon)
        elif finding is Finding.OTHER or not await self._announce():
            await self._pass(message)
        elif self.log is not None:
            await self._log_items(self.log, probe.first)
            probe.first = ()
            if not message.get("more_body", False):
                self._finish(self.log)

    async def _pass(self, message: Message | None = None) -> None:
        """It is no stream of ours: from here on the app has the server's ``send``, beginning with what was held."""
        self._call_off(self._hold)
        self._enter(Phase.PASSING)
        self._decide(Verdict.PASSED)
        for held in self._probe.held():
            await self._send(held)
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
        given: RawHeaders = [(b"content-type", EVENT_STREAM)]
        if self.start is not None:
            given = list(self.start.get("headers") or [])
        head = Head(
            owner=self.identity.owner(self.stream),
            account=self.identity.account,
            path=self._scope["path"],
            method=self._scope["method"],
            status=200,
            headers=replayed(given, self._options.replay_headers),
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
        self._writer = self._probe.writer
        self._enter(Phase.LOGGING)
        self._limits.arm()
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
            message = with_listed_headers(message)
            self._probe.start = message
            if self._probe.may_be_stream(message):
                self._enter(Phase.LOGGING)
        elif message["type"] == "http.response.body" and self.start is not None:
            if sum(map(len, self._explained)) < EARLY_BODY_BYTES:
                self._explained.append(body_of(message))
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
        self._worker.attach(self)  # whatever the app makes of it, it is no longer one that waits for a reader
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

    def _progress(self) -> int | None:
        return None if self._waiting_room else self._writer.seq

    def _overdue(self, limit: str) -> None:
        if self._phase in (Phase.LOGGING, Phase.EXPLAINING):
            self._options.observer.count("resume.ended", reason=limit)
            logger.warning("a stream on %s was ended by %s", self._path, limit)
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
        self._limits.cancel()
        self._call_off(self._hold)
        self._call_off(self._linger)
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
