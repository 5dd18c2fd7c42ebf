"""What the app sends, and where it goes: to the server as it is, or into a log.

Rules:

1. Until it is known what the response is, the app is fed by rendezvous: its messages go to the server from within its
   own ``send``. Nothing is decided twice.
2. A response is a stream once its first event has come without an id of the app's own (or after ``HOLD`` seconds, for
   a slow first event). One that ends before its first event, or has its own ids, passes through as if we were absent.
3. Once there is a log, the server's ``send`` is its readers' alone.
4. ``DONE`` is written only at the app's final body.
"""

from __future__ import annotations

import asyncio
import enum
import sys
from collections.abc import Sequence
from typing import Protocol

from ..exceptions import StoreError, StoreFull
from ..stores.base import Head, Outcome, ProducerLog
from ..types import Message, RawHeaders, Scope, Send, TimerHandle
from ..wire import headers, sse
from .early import EarlyAnswer
from .gone import ClientGone
from .inbound import Inbound
from .options import HOLD, Options
from .owner import Identity
from .probe import Finding, Probe
from .response import EVENT_STREAM, replayed, with_listed_headers
from .worker import Worker
from .writer import ForeignIds, body_of


class Verdict(enum.Enum):
    """What a response turned out to be."""

    LOGGED = "logged"
    PASSED = "passed"
    REFUSED = "refused"  # nothing has been sent, and this worker will not find out any more


class Phase(enum.Enum):
    PROBING = enum.auto()
    PASSING = enum.auto()
    LOGGING = enum.auto()
    EXPLAINING = enum.auto()  # started early, then no stream: its answer is told in band
    ENDED = enum.auto()


class Producing(Protocol):
    """Whose intake it is."""

    def logged(self, log: ProducerLog) -> None:
        """The log has been made."""

    def concluded(self) -> None:
        """The stream has its outcome."""

    def wake(self) -> None:
        """The app has ended its stream."""


class Intake:
    """The app's ``send``. ``told``: the app has been told that its client has gone, and is to send no more."""

    __slots__ = (
        "_announcing", "_decided", "_early", "_hold", "_identity", "_inbound", "_open_log", "_options", "_probe",
        "_producer", "_reader_came", "_scope", "_send", "_stream", "_writer", "awaits_reader", "handed_over", "log",
        "phase", "told", "waits",
    )  # fmt: skip

    def __init__(
        self, scope: Scope, send: Send, inbound: Inbound, stream: str, identity: Identity, options: Options,
        worker: Worker, producer: Producing,
    ) -> None:  # fmt: skip
        self._scope = scope
        self._send = send
        self._inbound = inbound
        self._stream = stream
        self._identity = identity
        self._options = options
        self._producer = producer
        probe = Probe(stream, scope, options, worker)
        self._probe: Probe | None = probe  # until it has nothing more to say
        self._writer = probe.writer
        self._open_log: ProducerLog | None = None  # the log, while what the app sends goes into it as it is
        self._hold: TimerHandle | None = None
        self._announcing: asyncio.Task[None] | None = None
        self._early: EarlyAnswer | None = None
        self.log: ProducerLog | None = None
        self.phase = Phase.PROBING
        self._decided: asyncio.Future[Verdict] | None = asyncio.get_running_loop().create_future()
        self.handed_over: asyncio.Future[None] | None = None
        self.told = False
        self.awaits_reader = True  # the connection that started the stream has not begun to read, and will
        self._reader_came: asyncio.Future[None] | None = None
        self.waits = False  # for room in the log: no fault of the app's

    @property
    def decided(self) -> asyncio.Future[Verdict]:
        """Done once it is known what the response is. To be asked for before the app runs."""
        if self._decided is None:
            raise RuntimeError("it has been decided")
        return self._decided

    @property
    def seq(self) -> int:
        """The number of the newest event."""
        return self._writer.seq

    @property
    def start(self) -> Message | None:
        """The app's own start of the stream; None where it was started early."""
        return None if self._probe is None else self._probe.start

    @property
    def preface(self) -> bytes:
        """What the app sent before its first event, for the first reader."""
        return b"" if self._probe is None else self._probe.preface

    def release_start(self) -> None:
        """The first reader has what it needs of the start."""
        if self._probe is not None:
            self._probe.release()
            if self.phase is not Phase.EXPLAINING and self.seq:
                self._probe = None

    @property
    def logs(self) -> bool:
        """There is a log, and the app has not ended it."""
        return self.phase in (Phase.LOGGING, Phase.EXPLAINING)

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
        elif not self.told and not self._inbound.gone and not self._inbound.released:
            await self._send(message)

    # -- the log's side

    async def _log_body(self, log: ProducerLog, message: Message) -> None:
        if self.told:
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
            await self._finish(log)

    async def _log_items(self, log: ProducerLog, items: Sequence[bytes | sse.Piece]) -> None:
        for item in items:
            if isinstance(item, bytes):
                if not self._writer.append(log, item):
                    await self._wait_for_room(log)
            else:
                while self.awaits_reader:  # it is in no log: whoever has asked for it is to be there for it
                    self._reader_came = asyncio.get_running_loop().create_future()
                    await self._reader_came
                await self._writer.pass_piece(log, item)
                if log.outcome is not None:
                    raise ClientGone("the stream has ended")

    async def _wait_for_room(self, log: ProducerLog) -> None:
        self.waits = True
        try:
            if not await log.room():
                raise ClientGone("the stream has ended")
        finally:
            self.waits = False

    async def _finish(self, log: ProducerLog) -> None:
        await self._writer.finish(log)
        self._enter(Phase.ENDED)
        log.close(Outcome.DONE)
        self._producer.concluded()
        self._producer.wake()

    async def _hand_over(self, log: ProducerLog, items: Sequence[bytes | sse.Piece], more_body: bool) -> None:
        """The first event of a stream that was announced already has an id of the app's own: take the log back, and
        let the app have the connection."""
        self._enter(Phase.PASSING)
        _, first = self._writer.first_event(items)
        items = items[first or 0 :]
        if self._probe is not None:
            self._probe.count_own_ids(items[0])
        log.on_readers = log.on_closed = None
        had_reader = log.readers > 0
        self.handed_over = asyncio.get_running_loop().create_future()
        await self._options.store.forget(self._stream)
        if had_reader:
            await self.handed_over
        if not had_reader or self._inbound.gone or self._inbound.released:
            self.told = True
            raise ClientGone("the client has gone")
        body = self._writer.unsplit(items)
        await self._send({"type": "http.response.body", "body": body, "more_body": more_body})

    # -- before it is decided

    async def _send_unlogged(self, message: Message) -> None:
        if self.told:
            raise ClientGone("the client has gone")
        if self._announcing is not None:
            await asyncio.wait([self._announcing])
            self._announcing = None
            await self.send(message)
        elif self.phase is Phase.PROBING and self._probe is not None:
            await self._find_out(self._probe, message)
        elif self.phase is Phase.PASSING:
            await self._send_on(message)
        elif self.phase is Phase.EXPLAINING and self.log is not None:
            self._explain(self.log, message)
        else:
            raise RuntimeError(f"{message['type']} was sent after the response had ended")

    async def _find_out(self, probe: Probe, message: Message) -> None:
        message = with_listed_headers(message)
        finding = probe.take(message)
        if finding is Finding.OPEN:
            if probe.start is None:
                await self._send_on(message)
            elif probe.start is message:
                self._hold = self._options.clock.call_later(HOLD, self._announce_soon)
        elif finding is Finding.OTHER or not await self._announce():
            await self._pass(message)
        elif self.log is not None:
            await self._log_items(self.log, probe.first)
            probe.first = ()
            if not message.get("more_body", False):
                await self._finish(self.log)

    async def _pass(self, message: Message | None = None) -> None:
        """It is no stream of ours: from here on the app has the server's ``send``, beginning with what was held."""
        self._call_off_hold()
        self._enter(Phase.PASSING)
        self._decide(Verdict.PASSED)
        for held in () if self._probe is None else self._probe.held():
            await self._send_on(held)
        if message is not None:
            await self._send_on(message)

    async def _send_on(self, message: Message) -> None:
        """To the server, unless its call has ended: it must not be touched any more then."""
        if self._inbound.released:
            self.told = True
            raise ClientGone("the client has gone")
        await self._send(message)

    def _announce_soon(self) -> None:
        if self.phase is Phase.PROBING:
            self._announcing = asyncio.get_running_loop().create_task(self._announce_or_pass())

    async def _announce_or_pass(self) -> None:
        if not await self._announce():
            await self._pass()

    async def _announce(self) -> bool:
        """Make the log. False where the store will not have it: then the stream passes through, unresumable."""
        self._call_off_hold()
        log = await make_log(self._scope, self._stream, self._identity, self.start, self._options)
        if self.phase is Phase.ENDED:  # refused meanwhile
            if log is not None:
                log.close(Outcome.INTERRUPTED)
                await self._options.store.forget(self._stream)
            return True
        self.log = log
        if log is None:
            return False
        self._options.observer.count("resume.started")
        if self._probe is not None:
            self._writer = self._probe.writer
        self._enter(Phase.LOGGING)
        self._producer.logged(log)
        self._decide(Verdict.LOGGED)
        return True

    def start_early(self) -> None:
        """Nothing has come for ``early_start`` seconds: begin the stream now, on the app's behalf."""
        if self.phase is Phase.PROBING and self.start is None and self._announcing is None:
            self._announcing = asyncio.get_running_loop().create_task(self._announce_early())

    async def _announce_early(self) -> None:
        if await self._announce() and self.log is not None:
            self._enter(Phase.EXPLAINING)
            self._options.observer.count("resume.early_start")

    def _explain(self, log: ProducerLog, message: Message) -> None:
        """After an early start: the real start at last. Anything but an event stream is told in band."""
        if message["type"] == "http.response.start" and self._early is None:
            message = with_listed_headers(message)
            self._early = EarlyAnswer(message)
            probe = self._probe
            if probe is not None and probe.may_be_stream(message) and probe.writer is self._writer:
                self._enter(Phase.LOGGING)
        elif self._early is not None and (told := self._early.take(message)) is not None:
            self._writer.append(log, told)
            self._enter(Phase.ENDED)
            log.close(Outcome.FAILED)
            self._producer.concluded()

    def refuse(self) -> None:
        """It is to be answered in the app's place: there is no time left to find out what it is."""
        self._call_off_hold()
        self._enter(Phase.ENDED)
        self._decide(Verdict.REFUSED)

    def reader_came(self) -> None:
        """The first reader is there, or there will be none."""
        self.awaits_reader = False
        if self._reader_came is not None and not self._reader_came.done():
            self._reader_came.set_result(None)

    async def settle(self) -> None:
        """The app has returned: what was held back by its start alone goes out, as it would bare."""
        if self._announcing is not None:
            await asyncio.wait([self._announcing])
        if self.phase is Phase.PROBING and self.start is not None:
            await self._pass()

    def end(self, outcome: Outcome) -> None:
        """The app is no more."""
        self._call_off_hold()
        if self.log is not None and self.phase is not Phase.PASSING:
            self.log.close(outcome)
            self._enter(Phase.ENDED)
        self._decide(Verdict.PASSED)

    def _call_off_hold(self) -> None:
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._open_log = self.log if phase is Phase.LOGGING else None

    def _decide(self, verdict: Verdict) -> None:
        decided, self._decided = self._decided, None  # not to be kept for as long as the stream
        if decided is not None and not decided.done():
            decided.set_result(verdict)


async def make_log(
    scope: Scope, stream: str, identity: Identity, start: Message | None, options: Options
) -> ProducerLog | None:
    """A log for the response that ``start`` begins; None where the store has none to give."""
    given: RawHeaders = [(b"content-type", EVENT_STREAM)] if start is None else list(start.get("headers") or [])
    head = Head(
        owner=identity.owner(stream),
        account=identity.account,
        path=scope["path"],
        method=scope["method"],
        status=200,
        headers=replayed(given, options.replay_headers),
        media_type=sys.intern(headers.media_type(headers.get(given, b"content-type")).decode("latin-1")),
    )
    try:
        return await options.store.create(stream, head, window=options.window)
    except StoreError as error:
        reason = "store_full" if isinstance(error, StoreFull) else "store_unavailable"
        options.observer.count("resume.passed", reason=reason)
        options.advice.warning(reason, "streams pass through unresumable for now: %s", error)
        return None
