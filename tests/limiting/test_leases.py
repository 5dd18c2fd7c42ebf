"""The leases of a worker: renewed together, given back together, and never brought back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from streamware import CountingObserver, Lease, MemoryLimitStorage
from streamware.limiting.guard import Guard
from streamware.limiting.leases import Leases
from streamware.testing import FakeClock, settle


class Slow(MemoryLimitStorage):
    """Answers renewals and releases when it is told to; knows which came first."""

    shared = True

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Semaphore(0)
        self.calls: list[tuple[str, list[str]]] = []

    async def renew(self, leases: Sequence[tuple[str, Lease]]) -> int:
        self.calls.append(("renew", [lease.member for _, lease in leases]))
        await self.go.acquire()
        return await super().renew(leases)

    async def release(self, leases: Sequence[tuple[str, Lease]]) -> None:
        self.calls.append(("release", [lease.member for _, lease in leases]))
        await self.go.acquire()
        await super().release(leases)


class Place:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.storage = Slow()
        self.observer = CountingObserver()
        guard = Guard("Test", self.storage, on_store_error="allow", expected_workers=1, clock=self.clock,
                      observer=self.observer)  # fmt: skip
        self.leases = Leases(guard, seconds=30, clock=self.clock, observer=self.observer)
        self.all = [("a", Lease("c", f"{n}", 99, 30)) for n in range(5)]

    async def hold(self) -> None:
        for key, lease in self.all:
            await self.storage.take(key, (), (), lease)
            self.leases.hold(key, lease)


async def test_what_is_given_back_while_a_renewal_is_under_way_stays_given_back():
    place = Place()
    await place.hold()
    await place.clock.advance(10)
    for each in place.all[:2]:
        place.leases.give_back(*each)
    await settle()
    assert place.storage.calls == [("renew", ["0", "1", "2", "3", "4"])]

    place.storage.go.release()
    place.storage.go.release()
    await settle()

    assert place.storage.calls[1:] == [("release", ["0", "1"])]
    assert set(place.storage._leases["a", "c"]) == {"2", "3", "4"}
    place.storage.go.release()
    await place.leases.aclose()


async def test_what_is_given_back_at_once_is_told_at_once_and_a_renewal_waits_for_it():
    place = Place()
    await place.hold()
    for each in place.all[:4]:
        place.leases.give_back(*each)
        place.leases.give_back(*each)
    await place.clock.advance(10)
    assert place.storage.calls == [("release", ["0", "1", "2", "3"])]

    place.storage.go.release()
    await settle()

    assert place.storage.calls[1:] == [("renew", ["4"])]
    place.storage.go.release()
    place.storage.go.release()
    await place.leases.aclose()
    assert place.storage._leases == {}
    assert place.clock.timers == 0


async def test_closing_does_not_wait_for_ever_for_a_storage_that_hangs():
    place = Place()
    await place.hold()

    async with asyncio.timeout(5):
        await place.leases.aclose()

    assert len(place.leases) == 0
