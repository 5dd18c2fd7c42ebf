"""``MemoryLimitStorage``: limits of one process, with nothing to run.

Rules:

1. Nothing here looks at all keys. Each call looks at a few counters in turn and drops those that no longer count, so
   that a hit costs the same with a hundred thousand keys as with one.
2. There is a cap on keys. At it, a new key takes the place of the counter that was looked at longest ago.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from ..stores.checks import check_positive
from .base import Lease, Limit, Standing, Taken
from .window import standing, used

#: Counters looked at, whether they still count, by a call; while there are more of them than calls bring in.
LOOKS = 2
#: Ids of corrections that are remembered.
MAX_IDS = 100_000


def steady_time() -> Callable[[], float]:
    """Seconds since 1970 by a clock that is not set while the process runs."""
    since, monotonic = time.time() - time.monotonic(), time.monotonic
    return lambda: since + monotonic()


class Counter:
    """``end``: from when on, in ms, it counts no more."""

    __slots__ = ("current", "end", "previous", "start")

    def __init__(self) -> None:
        self.start = 0
        self.current = 0
        self.previous = 0
        self.end = 0


class MemoryLimitStorage:
    """Limits in this process's memory, the default.

    :param max_keys: counters that are kept, one for each key and limit; about 250 bytes each. Default 250,000.
    :param now: seconds since 1970, never going back; default: the system's time when this was made, and a monotonic
        clock since.
    :raises ConfigurationError: a value that makes no sense.
    """

    shared = False

    def __init__(self, *, max_keys: int = 250_000, now: Callable[[], float] | None = None) -> None:
        check_positive("MemoryLimitStorage", max_keys=max_keys)
        self._max_keys = max_keys
        self._now = steady_time() if now is None else now
        self._counters: dict[tuple[str, str], Counter] = {}
        self._order: deque[tuple[str, str]] = deque()  # every counter once; the first was looked at longest ago
        self._leases: dict[tuple[str, str], dict[str, int]] = {}
        self._ids: dict[str, None] = {}
        #: Counters that had to make room while they still counted.
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._counters)

    # -- counters

    async def take(self, key: str, limits: Sequence[Limit], costs: Sequence[int], lease: Lease | None = None) -> Taken:
        now = int(self._now() * 1000)
        counters: list[Counter] = []
        fits = True
        for limit, cost in zip(limits, costs, strict=True):
            counter = self._counter(key, limit, now)
            counters.append(counter)
            if counter.current + cost > limit.amount or (
                counter.previous
                and used(limit, counter.current, counter.previous, now - counter.start) + cost > limit.amount
            ):
                # A look is never refused, and what is over its limit already may be looked at.
                fits = fits and not cost
        full = False
        if fits and lease is not None:
            full = not self._lease(key, lease, now)
            fits = not full
        standings: list[Standing] = []
        for limit, cost, counter in zip(limits, costs, counters, strict=True):
            if fits:
                counter.current += cost
            standings.append(standing(limit, cost, counter.start, counter.current, counter.previous, now, fits))
        self._look_around(now)
        return Taken(fits, standings, 0, full)

    async def take_part(self, key: str, limits: Sequence[Limit], most: int, *, share: int = 1) -> Taken:
        now = int(self._now() * 1000)
        counters = [self._counter(key, limit, now) for limit in limits]
        left = most * share
        for limit, counter in zip(limits, counters, strict=True):
            count = used(limit, counter.current, counter.previous, now - counter.start)
            left = min(left, max(0, limit.amount - count))
        granted = min(most, -(-left // share))
        standings: list[Standing] = []
        for limit, counter in zip(limits, counters, strict=True):
            counter.current += granted
            cost = granted or 1
            standings.append(standing(limit, cost, counter.start, counter.current, counter.previous, now, granted > 0))
        self._look_around(now)
        return Taken(granted > 0, standings, granted)

    async def add(
        self, key: str, limits: Sequence[Limit], amounts: Sequence[int], windows: Sequence[int], *, once: str
    ) -> bool:
        if once in self._ids:
            return False
        self._ids[once] = None
        if len(self._ids) > MAX_IDS:
            del self._ids[next(iter(self._ids))]
        now = int(self._now() * 1000)
        for limit, amount, window in zip(limits, amounts, windows, strict=True):
            counter = self._counter(key, limit, now)
            if counter.start == window:
                counter.current = max(0, counter.current + amount)
            elif counter.start == window + limit.window * 1000 and not limit.fixed:
                counter.previous = max(0, counter.previous + amount)
        return True

    def _counter(self, key: str, limit: Limit, now: int) -> Counter:
        """The counter of ``limit``, in the window of ``now``."""
        place = (key, limit.place)
        width = limit.window * 1000
        counter = self._counters.get(place)
        if counter is None:
            counter = self._counters[place] = Counter()
            counter.start = now - 2 * width  # a window that is over
            self._order.append(place)
            if len(self._counters) > self._max_keys:
                self._evict(now)
        elapsed = now - counter.start
        if elapsed >= width:
            if limit.fixed:
                counter.start, counter.current = now - now % width, 0
                counter.end = counter.start + width
            else:
                if elapsed >= 2 * width:
                    counter.start, counter.previous = now, 0
                else:
                    counter.start, counter.previous = counter.start + width, counter.current
                counter.current = 0
                counter.end = counter.start + 2 * width
        return counter

    def _look_around(self, now: int) -> None:
        order, counters = self._order, self._counters
        for _ in range(min(LOOKS, len(order))):
            place = order[0]
            if counters[place].end <= now:
                order.popleft()
                del counters[place]
            else:
                order.rotate(-1)

    def _evict(self, now: int) -> None:
        place = self._order.popleft()
        self.evicted += self._counters.pop(place).end > now

    # -- leases

    def _lease(self, key: str, lease: Lease, now: int) -> bool:
        place = (key, lease.place)
        held = self._leases.get(place)
        if held is None:
            held = self._leases[place] = {}
        elif len(held) >= lease.most and lease.member not in held:
            for member in [member for member, end in held.items() if end <= now]:
                del held[member]
            if len(held) >= lease.most:
                return False
        held[lease.member] = now + int(lease.seconds * 1000)
        return True

    async def renew(self, leases: Sequence[tuple[str, Lease]]) -> int:
        now = int(self._now() * 1000)
        lapsed = 0
        for key, lease in leases:
            held = self._leases.setdefault((key, lease.place), {})
            lapsed += held.get(lease.member, 0) <= now
            held[lease.member] = now + int(lease.seconds * 1000)
        return lapsed

    async def release(self, leases: Sequence[tuple[str, Lease]]) -> None:
        for key, lease in leases:
            self.free(key, lease)

    def free(self, key: str, lease: Lease) -> None:
        """``release`` of one, at once."""
        held = self._leases.get((key, lease.place))
        if held is not None:
            held.pop(lease.member, None)
            if not held:
                del self._leases[key, lease.place]

    # -- lifecycle

    async def start(self) -> None:
        return None

    async def aclose(self) -> None:
        return None
