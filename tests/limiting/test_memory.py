"""The storage in memory, against a model as simple as can be, and within its bounds."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamware import Limit, MemoryLimitStorage, Taken

T = TypeVar("T")


def now(awaitable: Awaitable[T]) -> T:
    """The result of what never waits."""
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it waits")


class Time:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Model:
    """One key and one limit, by the definition: every use with its window. Sliding windows follow each other while the
    key is used in each or the one before."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.start: int | None = None
        self.uses: dict[int, int] = {}

    def window(self, now: int) -> int:
        width = self.limit.window * 1000
        if self.limit.fixed:
            return now // width * width
        if self.start is None or now - self.start >= 2 * width:
            self.start = now
        elif now - self.start >= width:
            self.start += width
        return self.start

    def used(self, now: int) -> int:
        window, width = self.window(now), self.limit.window * 1000
        before = 0 if self.limit.fixed else self.uses.get(window - width, 0)
        return self.uses.get(window, 0) + before * (width - (now - window)) // width

    def take(self, now: int, cost: int) -> bool:
        if cost and self.used(now) + cost > self.limit.amount:
            return False
        window = self.window(now)
        self.uses[window] = self.uses.get(window, 0) + cost
        return True


steps = st.lists(st.tuples(st.integers(0, 9_000), st.integers(0, 6)), max_size=40)


@given(steps, st.integers(1, 12), st.integers(1, 6), st.booleans())
def test_what_is_let_through_is_what_the_definition_says(
    taken: list[tuple[int, int]], amount: int, window: int, fixed: bool
):
    clock, limit = Time(), Limit(amount, window, fixed=fixed)
    storage, model = MemoryLimitStorage(now=clock), Model(limit)

    for elapsed, cost in taken:
        clock.now = (round(clock.now * 1000) + elapsed) / 1000
        at = int(clock.now * 1000)
        answer = now(storage.take("a", (limit,), (cost,)))
        assert answer.allowed == model.take(at, cost)
        assert answer.standings[0].remaining == max(0, amount - model.used(at))


@given(steps, st.integers(1, 12), st.integers(1, 6), st.integers(1, 12), st.booleans())
def test_who_waits_as_long_as_it_was_told_is_let_through_and_not_before(
    taken: list[tuple[int, int]], amount: int, window: int, cost: int, fixed: bool
):
    clock, limit = Time(), Limit(amount, window, fixed=fixed)
    storage = MemoryLimitStorage(now=clock)
    for elapsed, used in taken:
        clock.now = (round(clock.now * 1000) + elapsed) / 1000
        now(storage.take("a", (limit,), (used,)))

    refused = now(storage.take("a", (limit,), (cost,)))
    if refused.allowed or refused.wait == float("inf"):
        assert refused.allowed or cost > amount
        return
    at = round(clock.now * 1000)
    wait = round(refused.wait * 1000)
    early = wait - 2
    if early > 0:
        clock.now = (at + early) / 1000
        assert not now(storage.take("a", (limit,), (cost,))).allowed
    clock.now = (at + wait + 1) / 1000
    assert now(storage.take("a", (limit,), (cost,))).allowed


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 4), st.integers(1, 4)), max_size=40))
def test_several_limits_are_all_kept_to_and_none_is_charged_for_a_refusal(taken: list[tuple[int, int, int]]):
    clock = Time()
    limits = (Limit(5, 2, counter="x"), Limit(9, 7, counter="y", fixed=True))
    storage, models = MemoryLimitStorage(now=clock), [Model(limit) for limit in limits]

    for elapsed, *costs in taken:
        clock.now = (round(clock.now * 1000) + elapsed) / 1000
        at = int(clock.now * 1000)
        fits = all(model.used(at) + cost <= model.limit.amount for model, cost in zip(models, costs, strict=True))
        answer = now(storage.take("a", limits, costs))
        assert answer.allowed == fits
        for model, cost in zip(models, costs, strict=True):
            assert not fits or model.take(at, cost)


async def test_one_a_minute_is_one_a_minute():
    clock = Time()
    storage, limit = MemoryLimitStorage(now=clock), Limit(1, 60)

    allowed = 0
    for _ in range(600):
        allowed += (await storage.take("a", (limit,), (1,))).allowed
        clock.now += 1.0

    assert allowed == 10


async def test_a_correction_finds_its_window_when_that_is_the_one_before():
    clock = Time()
    storage, limit = MemoryLimitStorage(now=clock), Limit(100, 10)
    taken = await storage.take("a", (limit,), (100,))
    clock.now += 11  # nine tenths of it still count

    before = await storage.take("a", (limit,), (0,))
    await storage.add("a", (limit,), (-50,), taken.windows, once="x")
    after = await storage.take("a", (limit,), (0,))

    assert (before.standings[0].remaining, after.standings[0].remaining) == (10, 55)


async def hits(storage: MemoryLimitStorage, keys: list[str]) -> float:
    """CPU seconds a hit, the best of some rounds."""
    limits, costs = (Limit(1_000_000, 3600),), (1,)
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for key in keys:
            await storage.take(key, limits, costs)
        best = min(best, (time.process_time() - began) / len(keys))
    return best


async def test_a_hit_costs_no_more_with_a_hundred_thousand_live_keys():
    few, many = MemoryLimitStorage(), MemoryLimitStorage()
    keys = [f"ip:{n}" for n in range(100_000)]
    limits, costs = (Limit(1_000_000, 3600),), (1,)
    for key in keys:
        await many.take(key, limits, costs)

    assert len(many) == 100_000
    assert await hits(many, keys[::50]) < 4 * await hits(few, keys[:2000])


async def test_counters_that_count_no_more_are_dropped_a_few_at_each_hit():
    clock = Time()
    storage, limit = MemoryLimitStorage(now=clock), (Limit(1, 1),)
    for n in range(1000):
        await storage.take(str(n), limit, (1,))
    clock.now += 10

    for _ in range(600):
        await storage.take("a", limit, (0,))

    assert len(storage) == 1
    assert storage.evicted == 0


async def test_at_the_cap_a_new_key_takes_the_place_of_another():
    clock = Time()
    storage, limit = MemoryLimitStorage(now=clock, max_keys=100), (Limit(1, 60),)
    for n in range(1000):
        assert (await storage.take(str(n), limit, (1,))).allowed
        assert len(storage) <= 100

    assert storage.evicted == 900
    assert not (await storage.take("999", limit, (1,))).allowed


@settings(max_examples=50)
@given(st.lists(st.integers(0, 30), max_size=60))
def test_whatever_comes_each_key_is_kept_once(keys: list[int]):
    clock = Time()
    storage, limits = MemoryLimitStorage(now=clock, max_keys=7), (Limit(3, 1), Limit(5, 2))

    answers: list[Taken] = []
    for key in keys:
        clock.now += key / 10
        answers.append(now(storage.take(str(key), limits, (1, 1))))

    assert len(storage) <= 7
    assert len(storage._order) == len(storage._counters) == len({*storage._order})


async def test_the_ids_of_corrections_are_remembered_up_to_a_cap(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("streamware.limiting.memory.MAX_IDS", 10)
    storage, limit = MemoryLimitStorage(), (Limit(10_000, 60),)
    taken = await storage.take("a", limit, (1,))

    for n in range(100):
        assert await storage.add("a", limit, (1,), taken.windows, once=str(n))

    assert not await storage.add("a", limit, (1,), taken.windows, once="99")
    assert len(storage._ids) == 10
