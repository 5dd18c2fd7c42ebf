"""Runs the app of one request in a task of its own, for as long as its stream is wanted.

Rules:

1. Before there is a log the app learns of a disconnect as it would bare. Afterwards it goes on without a connection,
   for ``linger`` seconds, and is then told by both of ASGI's signals at once.
2. However the app ends but by its final body, the log says so.
3. A stopped app is told, where it listens, and cancelled, where it does not or goes on; what it produced stays
   readable. Django's handler, for one, leaves its view running when it is cancelled.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Protocol

from ..stores.base import Outcome, ProducerLog
from ..types import ASGIApp, Message, Scope, Send, TimerHandle
from .current import CurrentStream, set_current_stream
from .gates import gates_of
from .gone import report
from .inbound import Inbound
from .intake import Intake, Phase
from .limits import Limits
from .options import CANCEL_AFTER, Options
from .owner import Identity
from .worker import Worker

logger = logging.getLogger("streamware.resume")

TASK = "streamware producer"  # one name for all: asyncio would make one for each


class Leaves(Protocol):
    """The connection that started a stream, as its reader."""

    def gone(self) -> None:
        """Its client has left."""


class Producer:
    """One run of the app. ``keyed``: its client can come back without having seen an id. ``patience``: the least
    seconds to linger. ``reader``: of the connection that started it, while it reads."""

    __slots__ = (
        "_app", "_cancelling", "_ending", "_gates", "_limits", "_linger", "_options", "_orphan", "_path", "_waiting",
        "_worker", "current", "identity", "inbound", "intake", "keyed", "patience", "reader", "scope", "stream", "task",
    )  # fmt: skip

    def __init__(
        self, app: ASGIApp, scope: Scope, send: Send, inbound: Inbound, *, stream: str, identity: Identity, keyed: bool,
        path: str, options: Options, worker: Worker,
    ) -> None:  # fmt: skip
        self._app = app
        self.scope = scope
        self._options = options
        self._worker = worker
        self._path = path
        self.inbound = inbound
        self.stream = stream
        self.identity = identity
        self.keyed = keyed
        self.intake = Intake(scope, send, inbound, stream, identity, options, worker, self)
        self.patience = 0.0
        self.reader: Leaves | None = None
        self.task: asyncio.Task[None] | None = None
        self.current = CurrentStream(self, options.linger[path])
        self._limits: Limits | None = None
        self._linger: TimerHandle | None = None
        self._cancelling: TimerHandle | None = None
        self._waiting: tuple[asyncio.Future[None], ...] = ()
        self._gates = gates_of(scope)
        self._ending: str | None = ""  # why the stream ends, where its outcome says less; None: it is counted
        self._orphan = False  # the call that started it has ended, undecided

    @property
    def log(self) -> ProducerLog | None:
        """The log, once there is one."""
        return self.intake.log

    def run(self) -> asyncio.Task[None]:
        """Start the app, in the caller's context; its task."""
        context = contextvars.copy_context()
        context.run(set_current_stream, self.current)
        self.inbound.on_change = self._inbound_changed
        self.task = asyncio.get_running_loop().create_task(self._run(), name=TASK, context=context)
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
            if self.intake.told or self.intake.phase is Phase.ENDED:
                return {"type": "http.disconnect"}
            if inbound.gone and not self._hides_drop():
                if inbound.error is not None:
                    raise inbound.error
                return {"type": "http.disconnect"}
            inbound.pull()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting += (waiter,)
            try:
                await waiter
            finally:
                if waiter in self._waiting:  # cancelled: frameworks look for an instant whether the client has gone
                    self._waiting = tuple(other for other in self._waiting if other is not waiter)

    async def _run(self) -> None:
        try:
            await self._app(self.scope, self.receive, self.intake.send)
        except Exception:
            await self.intake.settle()
            raise
        await self.intake.settle()

    def _returned(self, task: asyncio.Task[None]) -> None:
        self._worker.producers.discard(self)
        self._worker.attach(self)
        if self._limits is not None:
            self._limits.cancel()
        if self._cancelling is not None:
            self._cancelling.cancel()
        self._call_off_linger()
        passed = self.log is None or self.intake.phase is Phase.PASSING
        self.intake.end(Outcome.INTERRUPTED if self._worker.leaving else Outcome.FAILED)
        self.concluded()
        self.wake()
        if self._orphan or not passed:
            report(task, told=self.intake.told)

    # -- the client's side

    async def reader_left(self, *, handed_over: bool) -> None:
        """The connection that started the stream reads no more; ``handed_over``: the app has it now."""
        self.reader = None
        waits = self.intake.handed_over
        if waits is not None and not waits.done():
            waits.set_result(None)
            if handed_over and self.task is not None:
                await self.task

    async def caller_cancelled(self) -> None:
        """The server has cancelled the call while it was undecided: a disconnect, and treated as one."""
        if self._hides_drop():
            self._orphan = True
            self.linger()
        elif self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])

    def _hides_drop(self) -> bool:
        if self.intake.logs:
            return True
        return self.intake.phase is Phase.PROBING and self.keyed and self.inbound.complete

    def _inbound_changed(self) -> None:
        if self.inbound.gone:
            self.intake.reader_came()
            if self.reader is not None:
                self.reader.gone()
            if self.intake.logs and not self.inbound.complete:
                self.abandon()  # it left in the middle of its upload: nobody could finish that
            elif self._hides_drop() and self.log is None:
                self.linger()
        self.wake()

    def _readers_changed(self, readers: int) -> None:
        self.intake.reader_came()
        if readers:
            self._call_off_linger()
            self._worker.attach(self)
        else:
            self.linger()

    def linger(self) -> None:
        """Nobody reads now. The app is told after ``linger`` seconds, unless somebody comes back before."""
        self.intake.reader_came()
        if self.intake.phase in (Phase.ENDED, Phase.PASSING) or self.intake.told:
            return
        self._call_off_linger()
        seconds = self.current.linger
        if seconds is not None:
            seconds = max(seconds, self.patience, self._worker.patience)
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
        if self.intake.told or self.intake.phase in (Phase.ENDED, Phase.PASSING):
            return
        self.intake.told = True
        self.intake.reader_came()
        self._worker.attach(self)
        if self.log is not None:
            self.log.close(Outcome.INTERRUPTED)
        self.concluded()
        self.wake()

    def concluded(self) -> None:
        """The stream has its outcome: what was counted for it is free."""
        log = self.log
        if self._ending is not None and log is not None and log.outcome and self.intake.phase is not Phase.PASSING:
            ending, self._ending = self._ending, None
            self._options.observer.count("resume.ended", reason=ending or log.outcome)
        gates, self._gates = self._gates, ()
        for gate in gates:
            gate.let_go()

    def end(self, outcome: Outcome) -> None:
        """Close the log and end the app. What was produced stays readable."""
        self.intake.told = True
        self._worker.attach(self)  # whatever the app makes of it, it is no longer one that waits for a reader
        if self.log is not None:
            self.log.close(outcome)
        self._end_app()
        self.concluded()
        self.wake()

    def _end_app(self) -> None:
        task = self.task
        if task is None or task.done() or self._cancelling is not None:
            return
        if self._waiting:  # it is about to be told
            self._cancelling = self._options.clock.call_later(CANCEL_AFTER, task.cancel)
        else:
            task.cancel()

    def fail(self, reason: str) -> None:
        """End the stream as failed, by no word of the app's."""
        if self._ending == "":
            self._ending = reason
        self.end(Outcome.FAILED)

    @property
    def is_read(self) -> bool:
        """Whether anybody follows the stream."""
        return self.log is not None and self.log.readers > 0

    def give_up(self) -> bool:
        """This worker's time is up: end what has a log, or may get one. False where there is nothing to be ended here:
        whoever ends the responses has to end this one too."""
        if self.intake.phase in (Phase.ENDED, Phase.PASSING):
            return False
        if self.log is None:
            self.intake.refuse()
        self.end(Outcome.INTERRUPTED)
        return True

    def stop(self) -> None:
        """End the stream as ``stopped``."""
        if self.log is not None and self.log.close(Outcome.STOPPED):
            self.end(Outcome.STOPPED)

    @property
    def cursor(self) -> str:
        """Of the newest event; "" while there is no log."""
        return "" if self.log is None else f"{self.stream}.{self.intake.seq}"

    def wake(self) -> None:
        waiting, self._waiting = self._waiting, ()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    # -- the log's side

    def logged(self, log: ProducerLog) -> None:
        log.on_closed = self.end
        log.on_readers = self._readers_changed
        for gate in self._gates:
            gate.hold()
        if self._options.stall_timeout is not None or self._options.max_duration is not None:
            self._limits = Limits(self._options, self._progress, self._overdue)
            self._limits.arm()
        self.inbound.watch()

    def _progress(self) -> int | None:
        return None if self.intake.waits else self.intake.seq

    def _overdue(self, limit: str) -> None:
        if self.intake.logs:
            logger.warning("a stream on %s was ended by %s", self._path, limit)
            self.fail(limit)

    def _call_off_linger(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
