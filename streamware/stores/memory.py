"""``MemoryStore``: logs in this process's memory, the embedded default.

It holds the sum of its logs within ``max_bytes`` and one account's within its share. Logs get their capacity in steps;
where there is no more to get, finished logs go first (oldest first), then new streams are refused a log
(``StoreFull``: they pass through unresumable), and running ones trim what was sent or wait.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextvars import Context
from dataclasses import dataclass, field
from typing import TypeVar

from ..clock import LoopClock
from ..exceptions import StoreFull
from ..types import Clock, TimerHandle
from ..wire.cursor import new_tag
from .base import Claim, Head, Log, Outcome, ProducerLog, Tombstone
from .board import check_message
from .checks import check_positive, check_shares
from .listeners import Listeners
from .memory_board import MemoryBoard
from .memory_log import MemoryLog

T = TypeVar("T")

FIRST_CAPACITY = 4096
TOMBSTONES = 50_000


@dataclass(slots=True)
class _Held:
    """An idempotency key that somebody holds."""

    fingerprint: bytes
    stream: str
    settled: bool = False
    waiting: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]])

    async def wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(waiter)
        try:
            await waiter
        finally:
            self.waiting.remove(waiter)

    def wake(self) -> None:
        for waiter in self.waiting:
            if not waiter.done():
                waiter.set_result(None)


class MemoryStore:
    """Logs in this process's memory. Serves one process: its logs end with it.

    :param max_bytes: bound on the sum of all logs; default 256 MiB.
    :param max_log_bytes: bound on one log; default 8 MiB, more than kernels and servers swallow for a client that has
        silently gone, so that what such a client has not seen still fits.
    :param max_log_events: bound on one log in events; default 100,000.
    :param ttl: seconds that a finished log can still be read; default 300.
    :param tombstone_ttl: seconds that an expired log is remembered as ended, so that a late reader is told so instead
        of starting the work again; default one day, for at most 50,000 logs.
    :param owner_share: the part of ``max_bytes`` that one account (principal, credential, or client address) may
        hold; default 0.5.
    :param clock: tests' clock.
    :raises ConfigurationError: a value that makes no sense.
    """

    shared = False

    def __init__(
        self,
        *,
        max_bytes: int = 256 * 1024 * 1024,
        max_log_bytes: int = 8 * 1024 * 1024,
        max_log_events: int = 100_000,
        ttl: float = 300.0,
        tombstone_ttl: float = 86_400.0,
        owner_share: float = 0.5,
        clock: Clock | None = None,
    ) -> None:
        check_positive(
            "MemoryStore",
            max_bytes=max_bytes,
            max_log_bytes=max_log_bytes,
            max_log_events=max_log_events,
            ttl=ttl,
            tombstone_ttl=tombstone_ttl,
        )
        check_shares("MemoryStore", max_log_bytes, owner_share, max_bytes=max_bytes)
        self.tag = new_tag()
        self._max_bytes = max_bytes
        self._max_log_bytes = max_log_bytes
        self._max_log_events = max_log_events
        self._ttl = ttl
        self._tombstone_ttl = tombstone_ttl
        self._share = int(max_bytes * owner_share)
        self._clock = clock or LoopClock()
        self._logs: dict[str, MemoryLog] = {}
        self._finished: OrderedDict[str, float] = OrderedDict()  # stream: when it expires; oldest first
        self._finished_of: dict[str, OrderedDict[str, None]] = {}  # the same by account, so that evicting never scans
        self._tombstones: OrderedDict[str, tuple[Tombstone, float]] = OrderedDict()
        self._claims: dict[str, _Held] = {}
        self._keys: dict[str, str] = {}  # stream: the idempotency key that started it
        self._board = MemoryBoard(self._clock.now)
        self._listeners = Listeners()
        self._bytes = 0
        self._accounts: dict[str, int] = {}
        self._evictable: dict[str, int] = {}  # of each account, the bytes that finished logs hold
        self._evictable_in_all = 0
        self._starved: set[MemoryLog] = set()  # were refused bytes since the last were freed
        self._timer: TimerHandle | None = None
        self._due = 0.0  # when the timer was to fire

    @property
    def size(self) -> int:
        """Bytes granted to logs."""
        return self._bytes

    def __len__(self) -> int:
        """How many logs there are, running and finished."""
        return len(self._logs)

    # -- Store

    async def start(self) -> None:
        return None

    async def aclose(self) -> None:
        for log in list(self._logs.values()):
            log.close_from_outside(Outcome.INTERRUPTED)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._starved.clear()
        self._board.clear()

    async def create(self, stream: str, head: Head, *, window: int) -> ProducerLog:
        self._sweep()
        log = MemoryLog(
            stream,
            head,
            window=window,
            max_bytes=self._max_log_bytes,
            max_events=self._max_log_events,
            capacity=0,
            budget=self,
            clock=self._clock,
        )
        first = min(FIRST_CAPACITY, self._max_log_bytes)
        if not self.grant(log, first):
            self._starved.discard(log)
            raise StoreFull(f"MemoryStore holds {self._bytes} of {self._max_bytes} bytes, none of which may go")
        log.capacity = first
        self._logs[stream] = log
        return log

    async def open(self, stream: str) -> Log | Tombstone | None:
        self._sweep()
        log = self._logs.get(stream)
        if log is not None:
            return log
        found = self._tombstones.get(stream)
        return found[0] if found else None

    async def stop(self, stream: str) -> bool:
        self._sweep()
        log = self._logs.get(stream)
        if log is not None:
            log.close_from_outside(Outcome.STOPPED)
        return log is not None or stream in self._tombstones

    async def forget(self, stream: str) -> None:
        log = self._logs.get(stream)
        if log is not None:
            log.close(Outcome.INTERRUPTED)  # whoever reads it must not take it for complete
            self._drop(stream)
            self._disarm()
        self._release_key(stream)

    async def claim(self, key: str, fingerprint: bytes, stream: str) -> Claim:
        self._sweep()
        held = self._claims.get(key)
        if held is not None:
            return Claim(False, held.stream, held.fingerprint, held.settled)
        self._claims[key] = _Held(fingerprint, stream)
        self._keys[stream] = key
        return Claim(True, stream, fingerprint, False)

    async def settle(self, key: str, stream: str, started: bool) -> None:
        held = self._claims.get(key)
        if held is None or held.stream != stream:
            return
        if started:
            held.settled = True
            held.wake()
        else:
            self._release_key(held.stream)

    async def settled(self, key: str, timeout: float) -> Claim | None:
        late = False

        def expire() -> None:
            nonlocal late
            late = True
            if held is not None:
                held.wake()

        held = self._claims.get(key)
        timer = self._clock.call_later(timeout, expire)
        try:
            # The key may change hands while we wait: then it is the next holder who is waited for.
            while held is not None and not held.settled and not late:
                await held.wait()
                held = self._claims.get(key)
        finally:
            timer.cancel()
        return None if held is None else Claim(False, held.stream, held.fingerprint, held.settled)

    # -- Board

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        self._board.put(key, value, ttl)

    async def take(self, key: str) -> bytes | None:
        return self._board.take(key)

    async def announce(self, topic: str, message: bytes) -> None:
        check_message(message)
        self._listeners.tell(topic, message)

    def listen(self, topic: str, hear: Callable[[bytes], None]) -> Callable[[], None]:
        return self._listeners.add(topic, hear)

    # -- Budget

    def grant(self, log: MemoryLog, wanted: int) -> bool:
        account = log.head.account
        more = wanted - log.capacity
        over_share = self._accounts.get(account, 0) + more - self._share
        over_all = self._bytes + more - self._max_bytes
        if over_share > self._evictable.get(account, 0) or over_all > self._evictable_in_all:
            self._starved.add(log)  # and nothing is expired before its time: it would not help
            return False
        over_all -= self._free(over_share, self._finished_of.get(account))
        self._free(over_all, self._finished)
        self._charge(account, more)
        return True

    def ended(self, log: MemoryLog) -> None:
        if log.stream in self._logs:
            kept = min(log.capacity, max(log.size, FIRST_CAPACITY))
            self._charge(log.head.account, kept - log.capacity)
            log.capacity = kept
            self._finished[log.stream] = self._clock.now() + self._ttl
            self._finished_of.setdefault(log.head.account, OrderedDict())[log.stream] = None
            self._evictable_in_all += kept
            self._evictable[log.head.account] = self._evictable.get(log.head.account, 0) + kept
            self._starved.discard(log)
            self._relieve()
            self._arm()

    # -- within

    def _charge(self, account: str, more: int) -> None:
        self._bytes += more
        held = self._accounts.get(account, 0) + more
        if held > 0:
            self._accounts[account] = held
        else:
            self._accounts.pop(account, None)

    def _free(self, wanted: int, finished: OrderedDict[str, float] | OrderedDict[str, None] | None) -> int:
        """Expire logs of ``finished`` before their time, oldest first, until ``wanted`` bytes are free; how many are
        now."""
        freed = 0
        while finished and freed < wanted:
            stream = next(iter(finished))
            freed += self._logs[stream].capacity
            self._expire(stream)
        return freed

    def _relieve(self) -> None:
        """Bytes have become free, or may be freed now: logs that were refused some may ask again."""
        starved, self._starved = self._starved, set()
        for log in starved:
            log.give_room()

    def _drop(self, stream: str) -> MemoryLog:
        log = self._logs.pop(stream)
        account = log.head.account
        if self._finished.pop(stream, None) is not None:
            finished = self._finished_of[account]
            del finished[stream]
            self._evictable_in_all -= log.capacity
            self._evictable[account] -= log.capacity
            if not finished:
                del self._finished_of[account], self._evictable[account]
        self._charge(account, -log.capacity)
        self._starved.discard(log)
        self._relieve()
        return log

    def _expire(self, stream: str) -> None:
        log = self._drop(stream)
        head = log.head
        outcome = log.outcome or Outcome.INTERRUPTED
        tombstone = Tombstone(head.owner, head.path, head.method, outcome, log.last)
        self._tombstones[stream] = tombstone, self._clock.now() + self._tombstone_ttl
        while len(self._tombstones) > TOMBSTONES:
            oldest, _ = self._tombstones.popitem(last=False)
            self._release_key(oldest)

    def _release_key(self, stream: str) -> None:
        key = self._keys.pop(stream, None)
        if key is not None:
            self._claims.pop(key).wake()

    def _sweep(self) -> None:
        now = self._clock.now()
        while self._finished:
            stream, expires = next(iter(self._finished.items()))
            if expires > now:
                break
            self._expire(stream)
        while self._tombstones:
            stream, (_, forgotten) = next(iter(self._tombstones.items()))
            if forgotten > now:
                break
            del self._tombstones[stream]
            self._release_key(stream)

    def _arm(self) -> None:
        """One timer for the whole store, at the next moment at which something expires."""
        now = self._clock.now()
        if self._timer is not None:
            if self._due >= now:
                return
            self._timer.cancel()  # overdue: the loop is late, or has ended; two of them would go on for ever
            self._timer = None
        finished, buried = _first(self._finished.values()), _first(self._tombstones.values())
        expiries = [] if finished is None else [finished]
        if buried is not None:
            expiries.append(buried[1])
        if expiries:
            self._due = max(now, min(expiries))
            # In a context of its own: the one at hand is a request's, and would be held for as long as the timer.
            self._timer = Context().run(self._clock.call_later, self._due - now, self._expired)

    def _disarm(self) -> None:
        if self._timer is not None and not self._finished and not self._tombstones:
            self._timer.cancel()
            self._timer = None

    def _expired(self) -> None:
        self._timer = None
        self._sweep()
        self._arm()


def _first(values: Iterable[T]) -> T | None:
    return next(iter(values), None)
