"""``SharedStore``: the store of several workers, over a back end that keeps the logs. SQLite's and Redis' are this one.

Rules:

1. A stream is announced only when the store knows of its log: whatever has its id can be resumed in every worker.
2. What this worker produces is read from its memory, whatever becomes of the store. Once the store has its outcome it
   is the store's, like everybody else's.
3. A stop asks the worker that produces the stream, and does itself what that does not do in time.
4. While the store is away nothing queues: requests are told ``StoreUnavailable`` at once, producers go on. So is, for a
   moment after trouble, who asks for what a store does not know that may have lost it: nobody is told that a stream is
   no more, and no work is started twice, because its worker has not come to write it once more.
5. What is to be forgotten is forgotten even if the store is away just then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from ..clock import LoopClock
from ..exceptions import StoreFull, StoreUnavailable
from ..observe import NullObserver, Observer
from ..types import Clock
from .backend import Announced, Appended, Backend, Reported, Signal, State, StopAsked
from .base import Claim, Head, Log, Outcome, ProducerLog, Tombstone
from .budget import WorkerBudget
from .claims import Claims
from .feed import Feed
from .flusher import BACKLOG, BACKLOG_PER_LOG, Flusher
from .local_log import LocalLog
from .presence import Presence
from .remote_log import RemoteLog
from .rounds import Rounds
from .shared_board import SharedBoard
from .timing import Timing
from .trouble import Trouble, within
from .vigil import Vigil

logger = logging.getLogger("streamware.stores")

#: How long the end waits for a thread that is stuck.
JOIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class SharedOptions:
    """What the core of a shared store is told. ``max_memory``: of this worker's own logs; ``durable``: local readers
    get only what the store has acknowledged."""

    max_memory: int = 256 * 1024 * 1024
    max_log_bytes: int = 8 * 1024 * 1024
    max_log_events: int = 100_000
    owner_share: float = 0.5
    durable: bool = False
    backlog_per_log: int = BACKLOG_PER_LOG
    backlog: int = BACKLOG


class SharedStore:
    """A ``Store`` over a ``Backend``."""

    shared = True

    def __init__(
        self,
        backend: Backend,
        options: SharedOptions,
        *,
        clock: Clock | None = None,
        observer: Observer | None = None,
        timing: Timing | None = None,
    ) -> None:
        self.tag = backend.tag
        self._backend = backend
        self._options = options
        self._clock = clock = clock or LoopClock()
        self._observer = observer = observer or NullObserver()
        self._timing = timing = timing or Timing()
        self._logs: dict[str, LocalLog] = {}
        self._feeds: dict[str, Feed] = {}
        self._retiring: dict[str, asyncio.Task[None]] = {}
        self._kept: set[asyncio.Task[None]] = set()
        self._budget = WorkerBudget(options.max_memory, options.owner_share)
        self._reads = Trouble(backend.name, "reads", clock, observer, timing)
        self._writes = Trouble(backend.name, "writes", clock, observer, timing)
        self._claims = Claims(backend, self._reads, self._writes, clock)
        self._board = SharedBoard(backend, self._reads, self._writes)
        self._vigil: Vigil | None = None
        self._worker = ""
        self._starting: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        """How many logs are held here."""
        return len(self._logs)

    @property
    def size(self) -> int:
        """Bytes granted to the logs that are held here."""
        return self._budget.size

    # -- lifecycle

    async def start(self) -> None:
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        if not self._starting.done():
            await asyncio.shield(self._starting)

    async def _start(self) -> None:
        clock, timing, options, backend = self._clock, self._timing, self._options, self._backend
        self._worker = secrets.token_urlsafe(12)
        self._reads.over = self._writes.over = False
        self._flusher = Flusher(
            backend,
            self._writes,
            self._logs,
            clock,
            self._observer,
            timing,
            backlog_per_log=options.backlog_per_log,
            backlog=options.backlog,
        )
        self._flusher.on_settled = self._settled
        self._presence = Presence(self._worker, backend, self._writes, clock, timing)
        self._rounds = Rounds(
            backend,
            self._reads,
            self._writes,
            self._flusher,
            self._presence,
            self._logs,
            self._feeds,
            self._board,
            self._claims,
            worker=self._worker,
            clock=clock,
            observer=self._observer,
            timing=timing,
            on_signal=self._signalled,
        )
        self._reads.on_back = self._rounds.suspect
        self._writes.on_back = self._rounds.writes_are_back
        await self._rounds.connect()
        self._vigil = Vigil(backend.renew, self._rounds.begin, timing)
        self._vigil.start()

    async def aclose(self) -> None:
        if self._starting is None:
            return
        if not self._starting.done():
            await asyncio.wait([self._starting])
        self._starting = None
        for log in list(self._logs.values()):
            log.close_from_outside(Outcome.INTERRUPTED)
        with contextlib.suppress(StoreUnavailable):
            await within(self._clock, self._timing.farewell, self._flusher.flush(give_up=True))
            await within(self._clock, self._timing.farewell, self._claims.pay())
        vigil, self._vigil = self._vigil, None
        if vigil is not None:
            vigil.end()
        await self._rounds.aclose()
        await self._board.aclose()
        await self._flusher.aclose()
        await self._presence.aclose()
        self._reads.over = self._writes.over = True
        for feed in list(self._feeds.values()):
            feed.suspect()  # whoever follows it finds that it is over
        tasks = [*self._kept, *self._retiring.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._logs.clear()
        self._feeds.clear()
        if vigil is not None:  # a renewal that is under way would take the lease again
            await asyncio.get_running_loop().run_in_executor(None, vigil.join, JOIN_SECONDS)
        await self._backend.aclose()

    async def flush(self) -> None:
        """Wait until the store has acknowledged all that this worker has appended."""
        await self._flusher.flush()

    # -- logs

    async def create(self, stream: str, head: Head, *, window: int) -> ProducerLog:
        await self.start()
        self._writes.check()
        options = self._options
        log = LocalLog(
            stream,
            head,
            window=window,
            max_bytes=options.max_log_bytes,
            max_events=options.max_log_events,
            budget=self._budget,
            clock=self._clock,
            writer=self._flusher,
            durable=options.durable,
        )
        if not self._budget.admit(log):
            raise StoreFull(f"this worker's logs hold {self._budget.size} of {options.max_memory} bytes")
        self._logs[stream] = log
        try:
            self._flusher.mark(log)
            known = log.acknowledged(lambda log: log.headed or log.refused or log.dropped)
            await within(self._clock, self._timing.creation, known)
            if log.refused:
                raise StoreFull(f"{self._backend.name} has no room for another log")
        except BaseException:
            self._drop(log)
            if not log.refused:
                self._rounds.forget(stream)
            raise
        return log

    async def open(self, stream: str) -> Log | Tombstone | None:
        await self.start()
        log = self._logs.get(stream)
        if log is not None:
            return log if log.headed else None
        state = await self._reads.call(self._backend.state, stream)
        if state is None and self._unsure():
            raise StoreUnavailable("it is not known yet whether there is such a log")
        return self._remote(stream, state) if isinstance(state, State) else state

    async def stop(self, stream: str) -> bool:
        await self.start()
        log = self._logs.get(stream)
        if log is not None:
            log.close_from_outside(Outcome.STOPPED)
            return True
        state = await self._reads.call(self._backend.state, stream)
        if isinstance(state, State) and state.outcome is None:
            await self._writes.call(self._backend.ask_stop, stream, state.worker)
            if not await self._remote(stream, state).ends(self._timing.stop):
                self._observer.count("store.stopped_for_another")
                await self._writes.call(self._backend.end, stream, Outcome.STOPPED)
                self._suspect(stream)
        return state is not None

    async def forget(self, stream: str) -> None:
        await self.start()
        log = self._logs.get(stream)
        if log is not None:
            self._drop(log)
        try:
            if log is not None and log.headed:  # so that whoever follows it elsewhere is told
                await self._writes.call(self._backend.end, stream, Outcome.INTERRUPTED)
            await self._writes.call(self._backend.forget, stream)
        except StoreUnavailable:
            self._rounds.forget(stream)
        self._suspect(stream)
        self._claims.wake()

    # -- idempotency keys

    async def claim(self, key: str, fingerprint: bytes, stream: str) -> Claim:
        await self.start()
        if self._unsure():
            held = await self._claims.held(key)
            if held is None:
                raise StoreUnavailable("it is not known yet whether the key is free")
            return held
        claim = await self._claims.claim(key, fingerprint, stream)
        if claim.won and self._unsure():  # found out by the call itself
            await self._claims.settle(key, stream, False)
            raise StoreUnavailable("it is not known yet whether the key is free")
        return claim

    async def settle(self, key: str, stream: str, started: bool) -> None:
        await self.start()
        await self._claims.settle(key, stream, started)

    async def settled(self, key: str, timeout: float) -> Claim | None:
        await self.start()
        return await self._claims.settled(key, timeout)

    # -- Board

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        await self.start()
        await self._board.put(key, value, ttl)

    async def take(self, key: str) -> bytes | None:
        await self.start()
        return await self._board.take(key)

    async def announce(self, topic: str, message: bytes) -> None:
        self._board.tell(topic, message)
        await self.start()
        await self._board.announce(topic, message)

    def listen(self, topic: str, hear: Callable[[bytes], None]) -> Callable[[], None]:
        return self._board.listen(topic, hear)

    # -- within

    def _drop(self, log: LocalLog) -> None:
        self._logs.pop(log.stream, None)
        self._flusher.discard(log)
        self._budget.release(log)

    def _settled(self, log: LocalLog) -> None:
        """The store has its outcome: from now on it is read from there."""
        if self._logs.pop(log.stream, None) is not None:
            self._budget.release(log)

    def _remote(self, stream: str, state: State) -> RemoteLog:
        return RemoteLog(
            stream,
            state,
            self._follow,
            max_bytes=self._options.max_log_bytes,
            clock=self._clock,
            timing=self._timing,
            unsure=self._unsure,
        )

    def _unsure(self) -> bool:
        return self._rounds.unsure

    def _follow(self, stream: str, state: State) -> Feed:
        feed = self._feeds.get(stream)
        if feed is None:
            feed = self._feeds[stream] = Feed(
                stream,
                state,
                self._backend,
                self._reads,
                now=self._clock.now,
                on_change=self._presence.changed,
                on_idle=self._idle,
                before=self._retiring.get(stream),
            )
        return feed

    def _idle(self, feed: Feed) -> None:
        """Nobody follows it any more; a poll may come back for it."""
        if self._feeds.get(feed.stream) is feed:
            del self._feeds[feed.stream]
        task = self._keep(self._retire(feed))
        self._retiring[feed.stream] = task
        task.add_done_callback(lambda ended: self._retired(feed.stream, ended))

    async def _retire(self, feed: Feed) -> None:
        with contextlib.suppress(StoreUnavailable):
            await feed.end_watch()

    def _retired(self, stream: str, task: asyncio.Task[None]) -> None:
        if self._retiring.get(stream) is task:
            del self._retiring[stream]

    def _suspect(self, stream: str) -> None:
        feed = self._feeds.get(stream)
        if feed is not None:
            feed.suspect()

    def _keep(self, coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Hold on to a short task that nobody waits for."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        return task

    # -- what other workers say

    def _signalled(self, signal: Signal) -> None:
        if isinstance(signal, Appended):
            feed = self._feeds.get(signal.entry.stream)
            if feed is not None:
                feed.hear(signal.entry)
        elif isinstance(signal, StopAsked):
            log = self._logs.get(signal.stream)
            if log is not None:
                log.close_from_outside(Outcome.STOPPED)
        elif isinstance(signal, Reported):
            log = self._logs.get(signal.report.stream)
            if log is not None:
                log.elsewhere(signal.worker, signal.report.readers, signal.report.sent)
        elif isinstance(signal, Announced):
            self._board.heard(signal.topic, signal.message)
        else:
            self._rounds.suspect()
