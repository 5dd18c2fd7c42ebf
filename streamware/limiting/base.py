"""What limits are kept in, and what it answers. ``ThrottleMiddleware`` and ``TokenBudgetMiddleware`` are written
against this, and know neither storage.

Rules:

1. What is taken from several limits is taken from all of them or from none, in one step.
2. What was taken may be corrected afterwards (``add``), in the window that it was taken in: a correction that comes
   late moves nothing in a later window, so it neither gives credit nor takes any away.
3. A correction has an id and counts once, however often it is sent.
4. A lease that nobody renews is free again after its time.

Two kinds of window, both of so many seconds:

* sliding, the default: it begins with the first request of a key. What was used in the window before counts in
  proportion to how much of it lies within the last ``window`` seconds, as if it had been used evenly. So nobody gets
  two windows' worth at once; who saves it for the end of a window gets at most what a bucket of that size would give
  that fills at that rate. A key that was silent for two windows has all of it.
* fixed: aligned to multiples of ``window`` since 1970, in UTC: a day begins at midnight. All of it is there again at
  the start of the next, whatever was used before. For quotas that are told in calendar terms.

In its first window it is no bucket: 100 a minute are 100 then, not 100 and what trickles in meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

INFINITY = float("inf")


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``amount`` in ``window`` seconds.

    ``name``: as clients are told it, ``60/minute``. ``counter``: where it is counted, beside the key: limits of the
    same counter, window and kind share what was used whatever their amounts, so a change of plan forgets nothing.
    ``fixed``: its windows are aligned to the calendar.
    """

    amount: int
    window: int
    name: str = ""
    counter: str = ""
    fixed: bool = False
    #: Of the counter, the window and the kind: what a storage tells it from others by.
    place: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", f"{self.counter}/{self.window}{'f' if self.fixed else 's'}")


@dataclass(frozen=True, slots=True)
class Lease:
    """One of at most ``most`` things that run at once under a key, free again ``seconds`` after its last renewal.
    ``place``: which of the key's sets of leases; ``member``: this one, unique."""

    place: str
    member: str
    most: int
    seconds: float


@dataclass(slots=True)
class Standing:
    """How a key stands with one limit, after what was asked.

    ``remaining``: whole units left, 0 or more. ``reset``: seconds until there is more: to the end of the window, or,
    with nothing left, to the next unit. ``wait``: seconds until what was asked would have fitted, if nobody else takes
    any: 0 where it did, infinite where it never will. ``window``: the start of the window, for ``add``.
    """

    limit: Limit
    remaining: int
    reset: float
    wait: float
    window: int


@dataclass(slots=True)
class Taken:
    """The answer to ``take`` and ``take_part``.

    ``allowed``: it was taken. ``granted``: how much, from each limit, by ``take_part``. ``standings``: of the limits,
    in their order. ``full``: no lease was to be had. ``away``: the storage did not answer, and ``on_store_error``
    decided (``Guard``); ``local``: by counters of this worker's own.
    """

    allowed: bool
    standings: Sequence[Standing] = ()
    granted: int = 0
    full: bool = False
    away: bool = False
    local: bool = False

    @property
    def windows(self) -> list[int]:
        """Of the limits, in their order, for ``add``."""
        return [standing.window for standing in self.standings]

    @property
    def unknown(self) -> bool:
        """Whether nobody has counted: the storage is away, and nothing stands in for it."""
        return self.away and not self.local

    @property
    def wait(self) -> float:
        """Seconds until the limits would let it through; a lease's freeing is not known in advance."""
        return max((standing.wait for standing in self.standings), default=0.0)


@runtime_checkable
class LimitStorage(Protocol):
    """Where limits are kept. ``MemoryLimitStorage`` or ``RedisLimitStorage``.

    ``key`` is whose limits they are, any text: a storage hashes what it writes. All but ``start`` and ``aclose`` raise
    ``StoreUnavailable`` where a shared storage did not do it in time; whether it was done is unknown then.
    """

    @property
    def shared(self) -> bool:
        """Whether several workers count together."""
        ...

    async def take(self, key: str, limits: Sequence[Limit], costs: Sequence[int], lease: Lease | None = None) -> Taken:
        """Take ``costs`` (0 or more, one for each limit) and the lease, or nothing at all. With costs of 0 it only
        looks."""
        ...

    async def take_part(self, key: str, limits: Sequence[Limit], most: int, *, share: int = 1) -> Taken:
        """Take a slice, the same from every limit: ``most``, but no more than a ``share``-th (rounded up) of what is
        left where the least is left. ``granted`` says how much; nothing left: not allowed."""
        ...

    async def add(
        self, key: str, limits: Sequence[Limit], amounts: Sequence[int], windows: Sequence[int], *, once: str
    ) -> bool:
        """Correct what was taken in ``windows``: by ``amounts``, which may be negative (what was not used) or drive a
        counter over its limit (what was used in excess). Never refused. False where ``once``, the correction's own
        id, was counted already."""
        ...

    async def renew(self, leases: Sequence[tuple[str, Lease]]) -> int:
        """Renew leases, each with its key. Those that have lapsed are held again, even where that makes more than
        ``most``, since what they stand for does run; answers how many that were."""
        ...

    async def release(self, leases: Sequence[tuple[str, Lease]]) -> None:
        """Free leases, each with its key. Harmless twice."""
        ...

    async def start(self) -> None:
        """Open what has to be. Idempotent, and not required before the first use."""

    async def aclose(self) -> None:
        """Release everything. Idempotent; it may be used again afterwards."""
