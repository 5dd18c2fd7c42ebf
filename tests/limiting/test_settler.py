"""The settler: hands on what it is given, again and again where it has to, within its bounds."""

from __future__ import annotations

import asyncio

import pytest

from streamware import CountingObserver
from streamware.exceptions import StoreUnavailable
from streamware.limiting import settler as module
from streamware.limiting.claims import Claim, PlainClaim
from streamware.limiting.memory import MemoryLimitStorage
from streamware.limiting.settler import BATCH, MAX_AGE, MAX_RETRY, RETRY, Settler
from streamware.testing import FakeClock, settle


class Place:
    """``away``: nothing is settled. ``settled``: what was, in order."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.observer = CountingObserver()
        self.settler = Settler(self.settle, waits=True, clock=self.clock, observer=self.observer)
        self.away = False
        self.hangs = False
        self.tries = 0
        self.settled: list[int] = []
        self.at_once = self.most = 0

    async def settle(self, claim: Claim, used: int) -> None:
        self.tries += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(3600 if self.hangs else 0)
        self.at_once -= 1
        if self.away:
            raise StoreUnavailable("away")
        if used < 0:
            raise ValueError("a mistake")
        self.settled.append(used)

    def put(self, *amounts: int) -> None:
        for amount in amounts:
            self.settler.put(PlainClaim(MemoryLimitStorage(), "k", (), f"{amount}"), amount)


async def test_all_is_settled_in_order_and_some_at_a_time():
    place = Place()
    place.put(*range(300))
    await settle(100)

    assert place.settled == list(range(300))
    assert place.most == BATCH
    assert len(place.settler) == 0


async def test_what_fails_is_tried_again_less_and_less_often_until_it_is_done():
    place = Place()
    place.away = True
    place.put(1, 2, 3)
    await settle()
    assert place.tries == 3
    await place.clock.advance(RETRY)
    assert place.tries == 6
    await place.clock.advance(RETRY)
    assert place.tries == 6
    for _ in range(5):
        await place.clock.advance(MAX_RETRY)
    before = place.tries
    await place.clock.advance(2 * MAX_RETRY)
    assert place.tries == before + 6
    place.away = False
    await place.clock.advance(MAX_RETRY)

    assert place.settled == [1, 2, 3]
    assert place.clock.timers == 0
    place.away = True
    place.put(4)
    await settle()
    place.away = False
    await place.clock.advance(RETRY)  # soon again, as at first
    assert place.settled[-1] == 4


async def test_it_gives_up_what_is_too_old():
    place = Place()
    place.away = True
    place.put(1)
    await settle()
    await place.clock.advance(MAX_AGE + MAX_RETRY)

    assert len(place.settler) == 0
    assert place.observer.counts["token_budget.unsettled", "age"] == 1
    assert place.clock.timers == 0


async def test_no_more_wait_than_its_bound_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_PENDING", 10)
    place = Place()
    place.away = True
    place.put(*range(25))
    await settle()

    assert len(place.settler) < 10
    assert place.observer.counts["token_budget.unsettled", "full"] == 16
    place.away = False
    await place.clock.advance(RETRY)
    assert place.settled == list(range(16, 25))


async def test_a_mistake_costs_only_itself(caplog: pytest.LogCaptureFixture):
    place = Place()
    place.put(1, -1, 2)
    await settle()

    assert place.settled == [1, 2]
    assert place.observer.counts["token_budget.unsettled", "error"] == 1
    assert "could not be settled" in caplog.text


async def test_at_the_end_it_waits_for_what_is_left():
    place = Place()
    place.away = True
    place.put(1, 2)
    await settle()
    place.away = False
    place.put(3)
    await place.settler.drain()

    assert sorted(place.settled) == [1, 2, 3]
    assert place.clock.timers == 0


async def test_at_the_end_it_waits_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "FAREWELL", 0.05)
    place = Place()
    place.hangs = True
    place.put(*range(BATCH + 5))
    await place.settler.drain()

    assert place.observer.counts["token_budget.unsettled", "shutdown"] == BATCH + 5
    assert len(place.settler) == 0
    assert place.clock.timers == 0
    place.hangs = False
    place.put(7)  # served again
    await settle()
    assert place.settled == [7]
