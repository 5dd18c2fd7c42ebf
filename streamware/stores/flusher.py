"""Takes what a worker's logs have to write to the store: one batch for all of them, then the next.

Rules:

1. The first thing to write goes out at once; what comes while it is under way, and within ``window`` of its start, goes
   out together with the next, in as many batches as it takes. Under load these grow and the window widens, up to 24 ms,
   or to 64 ms where nobody waits: no new stream, no reader in another worker or of what is durable.
2. A batch holds one entry a log. A log that has more comes again in the next, behind the others. Where more than a
   batch waits, every second entry goes by age, so that all come; the others are for those that somebody waits for.
3. What was not acknowledged is written again, under the same seqs, until it is: nothing is dropped for want of a store.
   What waits is bounded for each log and for the worker, and over the bound the producers wait.
4. Whatever the store answers is acted upon: a log that somebody else has ended is ended here, and what the store has
   lost is written once more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import Context
from itertools import chain

from ..exceptions import StoreUnavailable
from ..observe import Observer
from ..types import Clock, TimerHandle
from .backend import PAGE_BYTES, TAKEN, Backend, Entry, Verdict, Written
from .base import Outcome
from .local_log import LocalLog
from .timing import Timing
from .trouble import Trouble
from .waiters import Waiters

logger = logging.getLogger("streamware.stores")

#: With more, the lists of their events alone would set off a garbage collection at every batch.
BATCH_ENTRIES = 200
#: More entries than these are followed by a longer window, in proportion: an entry costs more than an event. The widest
#: is for when nobody waits for what is written, be it in another worker.
BUSY_ENTRIES = 100
WIDE = 3.0
WIDEST = 8.0
BATCH_BYTES = 2 * 1024 * 1024
BACKLOG_PER_LOG = 1024 * 1024
BACKLOG = 64 * 1024 * 1024
#: A batch that took so long may have let a backlog grow, and while the store is away it is weighed so often.
WEIGH_EVERY = 0.25


class Flusher:
    """A ``Writer``. ``on_settled``: called when the store has a log's outcome, or will never have the log."""

    def __init__(
        self,
        backend: Backend,
        trouble: Trouble,
        logs: Mapping[str, LocalLog],
        clock: Clock,
        observer: Observer,
        timing: Timing,
        *,
        backlog_per_log: int = BACKLOG_PER_LOG,
        backlog: int = BACKLOG,
    ) -> None:
        self._backend = backend
        self._trouble = trouble
        self._logs = logs
        self._clock = clock
        self._observer = observer
        self._timing = timing
        self._backlog = backlog
        self.backlog_per_log = backlog_per_log
        self.clogged = False
        self.on_settled: Callable[[LocalLog], None] = _ignore
        self._dirty: dict[LocalLog, None] = {}
        self._begun = float("-inf")  # when the last batch was
        self._due = float("-inf")  # when the next may be
        self._timer: TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._planned = False  # a batch will begin, or end, and look for more
        self._clean = Waiters()

    def mark(self, log: LocalLog) -> None:
        """``log`` has something to write."""
        if log.dropped or log.dirty:
            return
        log.dirty = True
        self._dirty[log] = None
        if log.hurried:
            self._narrow()
        if not self._planned:
            self._plan(self._due - self._clock.now())

    def discard(self, log: LocalLog) -> None:
        """Nothing of ``log`` is to be written any more."""
        log.drop()
        self._dirty.pop(log, None)
        if not self._dirty:
            self._call_off()
        self._tell_clean()

    def hurry(self) -> None:
        """The store may be back: do not wait to find out."""
        self._due = float("-inf")
        if self._call_off():
            self._plan(0.0)

    async def flush(self, *, give_up: bool = False) -> None:
        """Wait until everything is acknowledged; with ``give_up`` not for a store that is away."""
        if self._timer is not None and not self._trouble.away:
            self.hurry()
        while (self._dirty or self._task is not None) and not (give_up and self._trouble.away):
            await self._clean.wait()

    async def aclose(self) -> None:
        """Write no more."""
        self._call_off()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._dirty.clear()

    # -- batches

    def _narrow(self) -> None:
        """Somebody waits for the next batch, which is not to come as late as it may where nobody does."""
        latest = self._begun + WIDE * self._timing.window
        if self._due > latest:
            self._due = latest
            self._call_off()

    def _call_off(self) -> bool:
        """No batch is to begin at the time that was planned; whether one was."""
        if self._timer is None:
            return False
        self._timer.cancel()
        self._timer = None
        self._planned = False
        return True

    def _plan(self, delay: float) -> None:
        self._planned = True
        # In a context of its own: the one at hand is a request's, and would be held on to.
        if delay > 0:
            self._timer = Context().run(self._clock.call_later, delay, self._begin)
        else:
            asyncio.get_running_loop().call_soon(self._begin, context=Context())

    def _begin(self) -> None:
        self._timer = None
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        pause = 0.0
        try:
            while pause <= 0 and self._dirty:
                pause = await self._write_round()
        finally:
            self._task = None
            self._planned = False
            self._due = self._clock.now() + pause
            if self._dirty:
                self._plan(pause)
            self._tell_clean()

    async def _write_round(self) -> float:
        """Write what there is now, in as many batches as it takes; the pause before the next round."""
        window = self._timing.window
        left, count, hurried, took = len(self._dirty), 0, False, 0.0
        while left > 0 and self._dirty:
            self._begun = self._clock.now()
            if self._trouble.pause > 0:
                self._clean.wake()
                self._weigh()
                return min(self._trouble.pause, WEIGH_EVERY)
            logs, entries = self._take()
            if entries:
                try:
                    await self._write_batch(logs, entries)
                except StoreUnavailable:
                    self._clean.wake()
                    return max(self._trouble.pause, window)
            left -= BATCH_ENTRIES
            count += len(entries)
            hurried = hurried or any(log.hurried for log in logs)
            took = self._clock.now() - self._begun
            if self.clogged or took > WEIGH_EVERY:
                self._weigh()
        if self._clean:
            return 0.0
        widest = WIDE if hurried or any(log.hurried for log in self._dirty) else WIDEST
        return window * min(max(1.0, count / BUSY_ENTRIES), widest) - took

    async def _write_batch(self, logs: Sequence[LocalLog], entries: Sequence[Entry]) -> None:
        try:
            answers = await self._trouble.call(self._backend.write, entries)
        except BaseException:
            self._put_back(logs)
            raise
        for log, entry, answer in zip(logs, entries, answers, strict=True):
            if answer is TAKEN and entry.outcome is None and not log.dropped:  # as a rule
                log.acknowledge(entry)
                if not log.dirty and log.has_more:
                    self._again(log)
            else:
                self._settle(log, entry, answer)

    def _take(self) -> tuple[list[LocalLog], list[Entry]]:
        logs: list[LocalLog] = []
        entries: list[Entry] = []
        size = 0
        for log in self._in_turn():
            if size >= BATCH_BYTES or len(entries) >= BATCH_ENTRIES:
                break
            if not log.dirty:  # it had its turn before
                continue
            del self._dirty[log]
            log.dirty = False
            entry = log.entry()
            if entry is not None:
                logs.append(log)
                entries.append(entry)
                size += min(log.backlog, PAGE_BYTES)
        return logs, entries

    def _in_turn(self) -> Iterable[LocalLog]:
        """What waits to be written, in the order in which it is; some of it twice."""
        logs = list(self._dirty)
        if len(logs) <= BATCH_ENTRIES:
            return logs
        hurried = [log for log in logs if log.hurried]
        return chain(chain.from_iterable(zip(hurried, logs, strict=False)), logs[len(hurried) :])

    def _put_back(self, logs: Iterable[LocalLog]) -> None:
        for log in logs:
            self._again(log)
        self._weigh()

    def _again(self, log: LocalLog) -> None:
        if not log.dropped and not log.dirty:
            log.dirty = True
            self._dirty[log] = None

    def _settle(self, log: LocalLog, entry: Entry, answer: Written) -> None:
        if log.dropped:
            return
        if answer.verdict is Verdict.TAKEN:
            log.acknowledge(entry)
        elif answer.verdict is Verdict.FENCED:
            if log.outcome is None:
                self._observer.count("store.fenced", reason=(answer.outcome or Outcome.INTERRUPTED).value)
                logger.warning("a stream of this worker was closed by another: it was taken for dead, or stopped there")
            log.fence(answer.outcome or Outcome.INTERRUPTED)
        elif answer.verdict is Verdict.FULL:
            log.refuse()
            return
        else:
            lost = answer.verdict is Verdict.LOST
            self._observer.count("store.rolled_back", reason="lost" if lost else "behind")
            log.roll_back(-1 if lost else answer.top)
        if log.settled:
            self.on_settled(log)
        elif log.has_more:
            self._again(log)

    # -- bounds

    def _weigh(self) -> None:
        """Hold everybody back, or no longer. What is unwritten is summed up once a batch, not once an event."""
        clogged = sum(log.backlog for log in self._dirty) >= self._backlog
        if clogged != self.clogged:
            self.clogged = clogged
            if clogged:
                self._observer.count("store.backlog_full")
            for log in self._logs.values():
                log.look_again()

    def _tell_clean(self) -> None:
        if not self._dirty and self._task is None:
            self._clean.wake()


def _ignore(log: LocalLog) -> None:
    return None
