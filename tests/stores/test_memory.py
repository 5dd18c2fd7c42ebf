"""``MemoryStore`` alone: its options, its accounts, and that nothing is left in it."""

from __future__ import annotations

import asyncio

import pytest

from streamware.exceptions import ConfigurationError
from streamware.stores import memory
from streamware.stores.base import Outcome, Tombstone
from streamware.stores.memory import MemoryStore
from streamware.testing import FakeClock
from streamware.wire.cursor import new_stream_id
from tests.stores.worlds import head, read


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_bytes", 0), ("max_bytes", -1), ("max_bytes", True), ("max_bytes", "1"), ("max_log_bytes", 0),
        ("max_log_bytes", 1 << 40), ("max_log_events", 0), ("ttl", 0), ("ttl", float("inf")), ("ttl", float("nan")),
        ("ttl", None), ("tombstone_ttl", 0), ("owner_share", 0), ("owner_share", 1.1), ("owner_share", True),
        ("owner_share", "half"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"MemoryStore: {option} must be .*, got"):
        MemoryStore(**{option: value})  # type: ignore[arg-type]  # the point of the test


def test_it_can_be_made_where_no_loop_runs() -> None:
    store = MemoryStore()
    assert (len(store), store.size, store.shared) == (0, 0, False)


def test_each_store_has_a_tag_of_its_own() -> None:
    assert len({MemoryStore().tag for _ in range(10)}) == 10


async def test_what_is_charged_follows_what_is_held_and_goes_back_to_nothing() -> None:
    clock = FakeClock()
    store = MemoryStore(ttl=10, tombstone_ttl=10, clock=clock)
    logs = [await store.create(new_stream_id(store.tag), head(f"client:{n % 2}"), window=10**6) for n in range(6)]
    for log in logs:
        for _ in range(100):
            log.append(b"x" * 1000)
    assert store.size >= 6 * 100_000
    for log in logs:
        log.close(Outcome.DONE)
    assert 6 * 100_000 <= store.size < 6 * 110_000, "a finished log gives back what it does not use"
    await clock.advance(25)
    assert (len(store), store.size, clock.timers) == (0, 0, 0)
    held = {name: getattr(store, name) for name in vars(store) if isinstance(getattr(store, name), dict | set | list)}
    assert held
    assert not any(held.values()), held


async def test_forgotten_streams_leave_nothing_in_any_account() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    for n in range(20):
        stream = new_stream_id(store.tag)
        await store.claim(f"key {n}", b"body", stream)
        log = await store.create(stream, head(), window=1000)
        log.append(b"x" * 10_000)
        await store.forget(stream)
    assert (len(store), store.size, clock.timers) == (0, 0, 0)
    assert not any(value for value in vars(store).values() if isinstance(value, dict | set | list))


async def test_tombstones_are_capped_the_oldest_go_first_with_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "TOMBSTONES", 3)
    clock = FakeClock()
    store = MemoryStore(ttl=1, clock=clock)
    streams = []
    for n in range(5):
        stream = new_stream_id(store.tag)
        streams.append(stream)
        await store.claim(f"key {n}", b"body", stream)
        log = await store.create(stream, head(), window=1000)
        await store.settle(f"key {n}", stream, True)
        log.close(Outcome.DONE)
        await clock.advance(2)
    found = [await store.open(stream) for stream in streams]
    assert [isinstance(tombstone, Tombstone) for tombstone in found] == [False, False, True, True, True]
    claims = [await store.claim(f"key {n}", b"body", new_stream_id(store.tag)) for n in range(5)]
    assert [claim.won for claim in claims] == [True, True, False, False, False]
    await store.aclose()


def test_a_store_that_outlives_its_event_loop_still_expires() -> None:
    """Test clients run every request on a loop of its own: a timer of an earlier one never fires."""
    clock = LoopBoundClock()
    store = MemoryStore(ttl=10, tombstone_ttl=10, clock=clock)

    async def one_request() -> None:
        log = await store.create(new_stream_id(store.tag), head(), window=1000)
        log.append(b"1\n\n")
        log.close(Outcome.DONE)

    for _ in range(10):
        asyncio.run(one_request())
        clock.lose_timers()
        clock.seconds += 30
    assert len(store) <= 2
    asyncio.run(one_request())
    assert clock.set == 1, "and is set anew on the loop that runs"


class LoopBoundClock:
    """A clock whose timers are lost with the loop that they were set on; calling one of those off changes nothing."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.timers: dict[LoopBoundTimer, None] = {}

    @property
    def set(self) -> int:
        return len(self.timers)

    def now(self) -> float:
        return self.seconds

    def call_later(self, delay: float, callback: object) -> LoopBoundTimer:
        timer = LoopBoundTimer(self)
        self.timers[timer] = None
        return timer

    def lose_timers(self) -> None:
        self.timers.clear()


class LoopBoundTimer:
    """A timer of ``LoopBoundClock``."""

    def __init__(self, clock: LoopBoundClock) -> None:
        self.clock = clock

    def cancel(self) -> None:
        self.clock.timers.pop(self, None)


async def test_an_event_that_was_sent_frees_its_bytes_at_the_cap() -> None:
    store = MemoryStore(max_bytes=100_000, max_log_bytes=50_000, clock=FakeClock())
    log = await store.create(new_stream_id(store.tag), head(), window=10**6)
    reader = log.reader(0)
    for _ in range(1000):
        log.append(b"x" * 1000)
        await read(reader)
    assert store.size <= 50_000
    assert log.last - log.first < 51


async def test_finished_logs_stay_where_their_bytes_would_not_be_enough() -> None:
    """Replays must not be lost for a grant that fails all the same."""
    store = MemoryStore(max_bytes=100_000, max_log_bytes=100_000, owner_share=1.0, clock=FakeClock())
    done, running, _, other = [
        await store.create(new_stream_id(store.tag), head(account), window=10**6) for account in "abca"
    ]
    done.append(b"x" * 4000)
    done.close(Outcome.DONE)
    assert running.append(b"x" * 60_000) is True
    assert running.append(b"x" * 39_000) is False, "twice its capacity is more than there can be"
    assert await store.open(done.stream) is done
    assert other.append(b"x" * 33_000) is True, "there is room for this one, once the finished log has gone"
    assert isinstance(await store.open(done.stream), Tombstone)
    await store.aclose()
