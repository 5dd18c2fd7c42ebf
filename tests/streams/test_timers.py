"""Many timers on one of the clock's."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

from hypothesis import given
from hypothesis import strategies as st

from streamware.clock import LoopClock
from streamware.streams.pulse import COMMENT, INFINITY, PulseOptions
from streamware.streams.timers import SLACK, Timer, Timers
from streamware.testing import FakeClock
from streamware.types import Clock


class Owner:
    """Notes when it fires; may set its timer again, or call another's off."""

    def __init__(self, clock: Clock, *, then: object = None) -> None:
        self.clock = clock
        self.fired: list[float] = []
        self.then = then

    def fire(self) -> None:
        self.fired.append(self.clock.now())
        if callable(self.then):
            self.then()


def timers_on(clock: Clock) -> Timers:
    return Timers(clock, asyncio.get_running_loop())


async def test_each_fires_once_at_its_time_and_the_clock_has_one_timer() -> None:
    clock = FakeClock(0.0)
    timers = timers_on(clock)
    owners = [Owner(clock) for _ in range(5)]
    for owner, delay in zip(owners, (3.0, 1.0, 2.0, 1.0, 10.0), strict=True):
        timers.call_later(delay, owner)
    assert clock.timers == 1
    await clock.advance(20)
    assert [owner.fired for owner in owners] == [[3.0], [1.0], [2.0], [1.0], [10.0]]
    assert clock.timers == 0


async def test_one_that_is_called_off_does_not_fire_and_the_last_takes_the_clocks_timer_along() -> None:
    clock = FakeClock()
    timers = timers_on(clock)
    one, other = Owner(clock), Owner(clock)
    first, second = timers.call_later(1, one), timers.call_later(2, other)
    first.cancel()
    first.cancel()
    assert clock.timers == 1
    second.cancel()
    assert clock.timers == 0
    await clock.advance(10)
    assert one.fired == other.fired == []
    second.cancel()


async def test_one_set_while_another_fires_is_kept_and_the_clock_still_has_one_timer() -> None:
    clock = FakeClock(0.0)
    timers = timers_on(clock)
    again = Owner(clock, then=lambda: timers.call_later(5, again) if len(again.fired) < 3 else None)
    timers.call_later(5, again)
    timers.call_later(7, later := Owner(clock))
    await clock.advance(6)
    assert clock.timers == 1
    await clock.advance(60)
    assert (again.fired, later.fired) == ([5.0, 10.0, 15.0], [7.0])
    assert clock.timers == 0


async def test_one_that_is_called_off_by_another_that_fires_with_it_does_not_fire() -> None:
    clock = FakeClock()
    timers = timers_on(clock)
    pending: list[Timer] = []
    pending.append(timers.call_later(1, Owner(clock, then=lambda: pending[1].cancel())))
    pending.append(timers.call_later(1, other := Owner(clock)))
    await clock.advance(5)
    assert other.fired == []
    assert clock.timers == 0


async def test_an_owner_that_raises_costs_the_others_nothing() -> None:
    clock = FakeClock(0.0)
    timers = timers_on(clock)

    def broken() -> None:
        raise RuntimeError("broken")

    timers.call_later(1, Owner(clock, then=broken))
    timers.call_later(1, beside := Owner(clock))
    timers.call_later(2, behind := Owner(clock))
    raised = False
    try:
        await clock.advance(1)
    except RuntimeError:
        raised = True
    assert raised
    await clock.advance(5)
    assert len(beside.fired) == len(behind.fired) == 1


async def test_one_that_was_called_off_holds_its_owner_no_longer() -> None:
    timers = timers_on(FakeClock())
    timers.call_later(100, Owner(FakeClock()))
    owner = Owner(FakeClock())
    held = weakref.ref(owner)
    timers.call_later(50, owner).cancel()
    del owner
    gc.collect()
    assert held() is None


async def test_what_is_left_of_those_called_off_is_bounded_by_the_live_ones() -> None:
    clock = FakeClock()
    timers = timers_on(clock)
    live = [timers.call_later(1000, Owner(clock)) for _ in range(100)]
    for _ in range(10_000):
        timers.call_later(500, Owner(clock)).cancel()
    assert len(timers._heap) <= 2 * len(live) + SLACK + 1
    for timer in live:
        timer.cancel()
    assert len(timers._heap) == clock.timers == 0


@given(st.lists(st.tuples(st.sampled_from(["set", "cancel", "advance"]), st.integers(0, 40)), max_size=80))
def test_any_order_of_setting_calling_off_and_waiting_is_as_with_timers_of_the_clocks_own(
    steps: list[tuple[str, int]],
) -> None:
    async def run() -> None:
        ours, plain = FakeClock(0.0), FakeClock(0.0)
        timers = timers_on(ours)
        pairs: list[tuple[Owner, Owner, Timer, object]] = []
        for step, number in steps:
            if step == "set":
                one, other = Owner(ours), Owner(plain)
                pairs.append((one, other, timers.call_later(number, one), plain.call_later(number, other.fire)))
            elif step == "cancel" and pairs:
                _, _, timer, handle = pairs[number % len(pairs)]
                timer.cancel()
                handle.cancel()  # type: ignore[attr-defined]  # a FakeTimer
            elif step == "advance":
                await ours.advance(number / 4)
                await plain.advance(number / 4)
            assert ours.timers == min(1, plain.timers)
        await ours.advance(100)
        await plain.advance(100)
        assert [one.fired for one, *_ in pairs] == [other.fired for _, other, *_ in pairs]

    asyncio.run(run())


def test_each_loop_has_timers_of_its_own_also_in_threads() -> None:
    """One app may be served by several loops: a timer of one must not be set on another's."""
    options = PulseOptions(0.02, COMMENT, False, None, INFINITY, observer=None, clock=LoopClock())  # type: ignore[arg-type]
    fired: list[int] = []

    async def beat(which: int) -> None:
        for _ in range(5):
            done = asyncio.get_running_loop().create_future()
            owner = Owner(LoopClock(), then=lambda done=done: done.set_result(None))
            options.timers().call_later(0.01, owner)
            await asyncio.wait_for(done, 5)
            fired.append(which)

    threads = [threading.Thread(target=lambda which=which: asyncio.run(beat(which))) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(fired) == [which for which in range(4) for _ in range(5)]
