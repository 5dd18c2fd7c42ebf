"""What happens to limits while their storage is away: ``on_store_error``, and a breaker so that nobody waits for it.

Rules:

1. Nothing here raises for a storage that does not answer.
2. After ``FAILURES`` failures in a row it is not asked for a while; then one request tries whether it is back.
3. Each change is counted and logged once, however many requests see it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ..checks import check, is_whole
from ..exceptions import StoreUnavailable
from ..observe import Observer
from ..types import Clock
from .base import Lease, Limit, LimitStorage, Taken
from .memory import MemoryLimitStorage

#: Failures in a row before the storage is left alone, and for how long then, in seconds: doubled each time it is still
#: away, up to the last.
FAILURES = 3
PAUSE = 1.0
MAX_PAUSE = 8.0
#: Limits whose share of a worker is remembered.
MAX_SHARES = 1000

POLICIES = ("allow", "deny", "local")
MEANING = {
    "allow": "what it limits is not limited meanwhile",
    "deny": "what it limits is refused meanwhile",
    "local": "each worker counts for itself meanwhile",
}

T = TypeVar("T")


class Guard:
    """A storage, with what to do while it is away. ``local``: this worker's own counters, for "local".

    :param owner: the middleware, for errors and as the first word of counters: ``throttle.store``.
    :param on_store_error: "allow", "deny", or "local": each worker counts for itself, up to the limit divided by
        ``expected_workers``.
    """

    def __init__(
        self,
        owner: str,
        storage: LimitStorage,
        *,
        on_store_error: str,
        expected_workers: int,
        clock: Clock,
        observer: Observer,
        counters: str = "throttle",
        now: Callable[[], float] | None = None,
    ) -> None:
        check(owner, on_store_error in POLICIES, "on_store_error", on_store_error, '"allow", "deny" or "local"')
        check(owner, is_whole(expected_workers), "expected_workers", expected_workers, "a number of 1 or more")
        self.storage = storage
        self.policy = on_store_error
        self._workers = expected_workers
        self._clock = clock
        self._observer = observer
        self._counters = counters
        self._logger = logging.getLogger(f"streamware.{counters}")
        self.local = MemoryLimitStorage(now=now) if storage.shared and on_store_error == "local" else None
        self._shares: dict[Limit, Limit] = {}
        self._failures = 0
        self._next = 0.0
        self._pause = PAUSE
        self.away = False

    # -- asking

    async def take(self, key: str, limits: Sequence[Limit], costs: Sequence[int], lease: Lease | None = None) -> Taken:
        """As the storage's."""
        if not self.storage.shared:
            return await self.storage.take(key, limits, costs, lease)
        taken = await self.ask(lambda: self.storage.take(key, limits, costs, lease))
        if taken is not None:
            return taken
        if self.local is not None:
            taken = await self.local.take(key, self.local_limits(limits), costs, self._lease(lease))
        return self.instead(taken, 0)

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T | None:
        """What the storage answers; None where it does not."""
        if self.away:
            if self._clock.now() < self._next:
                return None
            self._put_off()  # one tries; the others go on as before until it is known
        try:
            answer = await question()
        except Exception as error:  # whatever a storage raises: who is limited has no part in it
            self._failed(error)
            return None
        self._failures = 0
        if self.away:
            self.away = False
            self._pause = PAUSE
            self._observer.count(f"{self._counters}.store", reason="back")
            self._logger.warning("the storage of limits is back")
        return answer

    def instead(self, local: Taken | None, granted: int) -> Taken:
        """What is answered in the storage's place: what this worker's own counters say, or as the policy has it, which
        may grant as much."""
        self._observer.count(f"{self._counters}.degraded", reason=self.policy)
        if local is not None:
            local.away = local.local = True
            return local
        allowed = self.policy == "allow"
        return Taken(allowed, granted=granted if allowed else 0, away=True)

    def local_limits(self, limits: Sequence[Limit]) -> list[Limit]:
        """The share of this worker in each."""
        return [self._shares.get(limit) or self._share_of(limit) for limit in limits]

    # -- leases

    async def renew(self, leases: Sequence[tuple[str, Lease]]) -> int:
        """As the storage's; 0 while it is away."""
        if self.local is not None and self.away:
            await self.local.renew([(key, self._lease(lease) or lease) for key, lease in leases])
        if not self.storage.shared:
            return await self.storage.renew(leases)
        return await self.ask(lambda: self.storage.renew(leases)) or 0

    def free(self, key: str, lease: Lease) -> bool:
        """Free a lease at once, as far as that can be done; True where the storage is to be told as well."""
        if self.local is not None:
            self.local.free(key, lease)
        if isinstance(self.storage, MemoryLimitStorage) and not self.storage.shared:
            self.storage.free(key, lease)
            return False
        return True

    async def release(self, leases: Sequence[tuple[str, Lease]]) -> None:
        """As the storage's. While it is away leases lapse there by themselves."""

        async def release() -> bool:
            await self.storage.release(leases)
            return True

        await self.ask(release)

    # -- within

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._observer.count(f"{self._counters}.store", reason="failed")
        if self.away or self._failures < FAILURES:
            return
        self.away = True
        self._next = self._clock.now() + self._pause
        self._observer.count(f"{self._counters}.store", reason="away")
        expected = isinstance(error, StoreUnavailable)
        self._logger.warning(
            "the storage of limits is away, and %s: %s",
            MEANING[self.policy],
            error,
            exc_info=None if expected else error,
        )

    def _put_off(self) -> None:
        self._pause = min(2 * self._pause, MAX_PAUSE)
        self._next = self._clock.now() + self._pause

    def _share_of(self, limit: Limit) -> Limit:
        amount = max(1, limit.amount // self._workers)
        share = Limit(amount, limit.window, limit.name, limit.counter, limit.fixed)
        if len(self._shares) < MAX_SHARES:
            self._shares[limit] = share
        return share

    def _lease(self, lease: Lease | None) -> Lease | None:
        if lease is None:
            return None
        return Lease(lease.place, lease.member, max(1, lease.most // self._workers), lease.seconds)
