"""Appends, pieces, asides, readers that come, read and go, trims and ends at random moments, held against a model.

The model knows every event. Whatever happens in between, each reader sees exactly the events behind its cursor, in
order and once, or is told of the gap, and a gap is told only where events were trimmed or too large to keep.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamware.stores.base import Batch, LogReader, Outcome, ProducerLog
from streamware.testing import FakeClock, settle
from tests.stores.worlds import DISTINCT, Limits, StoreKind, World

WINDOW = 40
SMALL = Limits(max_log_bytes=60, max_log_events=6)
LARGE = Limits(max_log_bytes=10_000, max_log_events=10_000)

TOKEN = re.compile(rb"<(\d+)([abz])>|(: \d+\n)")


@dataclass
class Follower:
    """One reader, and what the model knows of it."""

    place: LogReader
    position: int
    sent: int  # bytes of events, as the model counts them from the start
    reading: asyncio.Task[Batch | None] | None = None
    asides: list[bytes] = field(default_factory=list)
    pieces: bytes = b""  # seen of the large event under way
    said_end: bool = False
    sink_answer: bool | None = None
    sink_ready: bool = True
    in_flight: bool = False


@dataclass
class FollowersSink:
    """A sink that answers as the test has last said."""

    machine: Interleavings
    follower: Follower

    def ready(self) -> bool:
        assert self.follower.position == len(self.machine.events), "a reader that begins to wait lacks nothing"
        return self.follower.sink_ready

    def give(self, event: bytes) -> bool | None:
        return self.machine.given(self.follower, event)


class Interleavings(RuleBasedStateMachine):
    kind: StoreKind
    limits: Limits

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.events: list[bytes | None] = []
        self.followers: list[Follower] = []
        self.sent = 0
        self.large: tuple[int, bytes] | None = None
        self.passing: asyncio.Task[None] | None = None
        self.rooms: list[asyncio.Task[bool]] = []
        self.asides = 0
        self.counts: list[int] = []
        self.ended: list[Outcome] = []
        self.outcome: Outcome | None = None
        self.complete: dict[int, bytes] = {}

    @initialize()
    def create(self) -> None:
        async def create() -> tuple[World, ProducerLog]:
            world = World(self.kind, FakeClock(), self.limits)
            await world.store.start()
            return world, await world.log(window=WINDOW)

        self.world, self.log = self.loop.run_until_complete(create())
        self.log.on_readers = self.counts.append
        self.log.on_closed = self.ended.append

    def run(self, action: Callable[[], object] = lambda: None) -> None:
        async def run() -> None:
            action()
            await settle(10)
            if hasattr(self, "world") and self.kind.shared:
                await self.world.stored()
                await settle(10)

        self.loop.run_until_complete(run())

    # -- what the model knows

    def size(self, first: int, last: int | None = None) -> int:
        return sum(len(event or b"") for event in self.events[first:last])

    @property
    def too_far_ahead(self) -> bool:
        return bool(self.followers) and self.size(0) - max(one.sent for one in self.followers) >= WINDOW

    @property
    def fits(self) -> bool:
        kept = self.events[self.log.first - 1 :]
        return len(kept) <= self.limits.max_log_events and self.size(self.log.first - 1) <= self.limits.max_log_bytes

    @property
    def free(self) -> bool:
        return self.outcome is None and self.passing is None and self.large is None

    # -- the producer

    @precondition(lambda self: self.passing is None and self.large is None)
    @rule(length=st.integers(1, 30), count=st.integers(1, 4))
    def append(self, length: int, count: int) -> None:
        def append() -> None:
            for _ in range(count):
                event = b"%d:" % (len(self.events) + 1) + b"x" * length
                if self.outcome is not None:
                    assert self.log.append(event) is False
                    continue
                self.events.append(event)
                room = self.log.append(event)
                assert self.log.last == len(self.events)
                assert room == (self.fits and not self.too_far_ahead)
                trimmed = self.log.first - 1
                if not self.kind.shared:
                    assert self.fits or trimmed == self.sent, "all that was sent is trimmed before it waits"
                elif not self.fits:
                    # What the store does not have yet stays. It has all that there was before this step.
                    assert min(self.sent, len(self.events) - count) <= trimmed <= self.sent

        self.run(append)

    @precondition(lambda self: self.free)
    @rule(length=st.integers(0, 50))
    def begin_large(self, length: int) -> None:
        seq = len(self.events) + 1
        self.piece(seq, b"<%da>" % seq + b"x" * length, False)

    @precondition(lambda self: self.outcome is None and self.passing is None and self.large is not None)
    @rule(length=st.integers(0, 50), last=st.booleans())
    def go_on_with_large(self, length: int, last: bool) -> None:
        assert self.large is not None
        seq = self.large[0]
        self.piece(seq, b"<%d%b>" % (seq, b"z" if last else b"b") + b"x" * length, last)

    @precondition(lambda self: self.free)
    @rule()
    def whole_large(self) -> None:
        seq = len(self.events) + 1
        self.piece(seq, b"<%dz>" % seq, True)

    def piece(self, seq: int, piece: bytes, last: bool) -> None:
        whole = (self.large[1] if self.large is not None else b"") + piece
        self.large = None if last else (seq, whole)
        if last:
            self.complete[seq] = whole
            self.events.append(None)

        def begin() -> None:
            self.passing = asyncio.ensure_future(self.log.pass_by(piece, last))

        self.run(begin)
        assert self.passing is not None
        if self.passing.done():
            self.passing = None

    @precondition(lambda self: self.large is None and self.passing is None and self.outcome is None)
    @rule()
    def aside(self) -> None:
        self.asides += 1
        aside = b": %d\n" % self.asides
        for follower in self.followers:
            follower.asides.append(aside)
        self.run(lambda: self.log.aside(aside))

    @rule()
    def wait_for_room(self) -> None:
        self.run(lambda: self.rooms.append(asyncio.ensure_future(self.log.room())))

    @precondition(lambda self: self.rooms)
    @rule(data=st.data())
    def give_up_on_room(self, data: st.DataObject) -> None:
        room = self.rooms.pop(data.draw(st.integers(0, len(self.rooms) - 1)))
        self.run(room.cancel)

    @precondition(lambda self: self.outcome is None and len(self.events) > 5)
    @rule(outcome=st.sampled_from(Outcome))
    def close(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.run(lambda: self.assert_true(self.log.close(outcome)))

    @precondition(lambda self: self.outcome is None and len(self.events) > 5)
    @rule()
    def stop(self) -> None:
        self.outcome = Outcome.STOPPED
        self.run(lambda: asyncio.ensure_future(self.world.store.stop(self.log.stream)))
        assert self.ended == [Outcome.STOPPED]

    @staticmethod
    def assert_true(value: bool) -> None:
        assert value

    # -- the readers

    @precondition(lambda self: len(self.followers) < 4)
    @rule(data=st.data(), sinks=st.booleans())
    def join(self, data: st.DataObject, sinks: bool) -> None:
        after = data.draw(st.integers(0, len(self.events)))
        place = self.log.reader(after)
        kept = max(after, self.log.first - 1)
        follower = Follower(place, after, self.size(0, kept))
        if sinks:
            place.sink = FollowersSink(self, follower)
        self.followers.append(follower)
        self.run()

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        follower = data.draw(st.sampled_from(self.followers), "reader")
        if follower.reading is not None:
            return
        follower.sent = self.size(0, max(follower.position, 0))
        self.sent = max(self.sent, follower.position)

        def read() -> None:
            follower.reading = asyncio.ensure_future(follower.place.read())

        self.run(read)

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def cancel_read(self, data: st.DataObject) -> None:
        follower = data.draw(st.sampled_from(self.followers), "reader")
        if follower.reading is not None:
            self.run(follower.reading.cancel)
            follower.reading = None

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        follower = data.draw(st.sampled_from(self.followers), "reader")
        self.followers.remove(follower)
        self.run(follower.place.close)
        if follower.reading is not None:
            assert follower.reading.done()
            assert follower.reading.result() is None

    @precondition(lambda self: self.followers)
    @rule(data=st.data(), answer=st.sampled_from([True, False, None]), ready=st.booleans())
    def change_sink(self, data: st.DataObject, answer: bool | None, ready: bool) -> None:
        follower = data.draw(st.sampled_from(self.followers), "reader")
        follower.sink_answer, follower.sink_ready = answer, ready

    def given(self, follower: Follower, event: bytes) -> bool | None:
        """What a reader's sink does."""
        assert follower.reading is not None
        assert self.followers == [follower], "only the only reader is given events"
        assert follower.position == len(self.events) - 1
        assert event == self.events[-1]
        if follower.in_flight or follower.asides:
            return None
        answer = follower.sink_answer
        if answer is not None:
            follower.position += 1
            follower.in_flight = not answer
        if answer:
            follower.sent = self.size(0)
            self.sent = len(self.events)
        return answer

    # -- what must hold after every step

    @invariant()
    def everything_that_can_go_on_has_gone_on(self) -> None:
        if not hasattr(self, "log"):
            return
        self.run()
        if self.passing is not None and self.passing.done():
            self.passing.result()
            self.passing = None
        for follower in self.followers:
            if follower.reading is not None and follower.reading.done():
                batch = follower.reading.result()
                follower.reading = None
                assert batch is not None
                self.check(follower, batch)
            elif follower.reading is not None:
                assert follower.position >= len(self.events), "an event waits, and its reader too"
                assert self.outcome is None, "the end was not told"
                assert not follower.asides or follower.pieces
                assert not follower.in_flight
        for room in [room for room in self.rooms if room.done()]:
            self.rooms.remove(room)
            assert room.result() == (self.outcome is None)
        if self.rooms:
            assert self.outcome is None
            assert self.too_far_ahead or not self.fits, "there is room, and somebody waits for it"

    @invariant()
    def the_log_is_what_the_model_says(self) -> None:
        if not hasattr(self, "log"):
            return
        log = self.log
        assert log.last == len(self.events)
        assert 1 <= log.first <= log.last + 1
        assert log.first - 1 <= self.sent, "nothing is trimmed that was sent to nobody"
        assert log.outcome is self.outcome
        assert log.readers == len(self.followers)
        assert (self.counts or [0])[-1] == len(self.followers)

    def check(self, follower: Follower, batch: Batch) -> None:
        before = follower.position
        begin = batch.last - len(batch.events)
        assert follower.place.position == batch.last
        if follower.in_flight:
            follower.in_flight = False
            assert batch == Batch((), before)
            return
        finished = self.take_asides(follower, batch)
        if batch.gap:
            lost = self.events[before:begin]
            assert lost
            assert all(event is None for event in lost[max(0, self.log.first - 1 - before) :]), "a gap without a loss"
            assert batch.torn == bool(follower.pieces)
            follower.pieces = b""
        elif finished:
            assert (begin, batch.last) == (before, before + 1) or begin == before + 1
            assert not batch.events
        else:
            assert begin == before
            assert not (batch.events and follower.pieces)
        assert list(batch.events) == self.events[begin : batch.last]
        follower.position = batch.last
        if batch.outcome is not None:
            assert batch.outcome is self.outcome
            assert batch.last == len(self.events)
            assert batch.torn == (bool(follower.pieces) or (batch.gap and batch.torn))
        assert batch.events or batch.aside or batch.gap or batch.outcome is not None

    def take_asides(self, follower: Follower, batch: Batch) -> bool:
        """Look at what came outside the log; True where it completed a large event."""
        seq = follower.position + 1
        finished = False
        rest = batch.aside
        while rest:
            found = TOKEN.match(rest)
            assert found, rest
            if found[3]:
                assert not follower.pieces, "an aside within an event"
                assert found[3] == follower.asides.pop(0)
                rest = rest[found.end() :]
                continue
            assert int(found[1]) == seq, "a piece of another event"
            length = len(rest[found.end() :]) - len(rest[found.end() :].lstrip(b"x"))
            end = found.end() + length
            follower.pieces += rest[:end]
            rest = rest[end:]
            if found[2] == b"z":
                assert follower.pieces == self.complete[seq]
                follower.pieces = b""
                finished = True
                assert batch.last == seq
        return finished

    def teardown(self) -> None:
        async def end() -> None:
            for follower in self.followers:
                follower.place.close()
            await self.world.store.aclose()
            shutil.rmtree(self.world.place)
            await settle(10)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await settle(5)

        if hasattr(self, "world"):
            self.loop.run_until_complete(end())
        self.loop.close()


@pytest.mark.parametrize("limits", [LARGE, SMALL], ids=["large", "small"])
@pytest.mark.parametrize("kind", DISTINCT, ids=lambda kind: kind.name)
def test_every_reader_sees_every_event_or_is_told(kind: StoreKind, limits: Limits) -> None:
    class Machine(Interleavings):
        pass

    Machine.kind, Machine.limits = kind, limits
    case = Machine.TestCase
    case.settings = settings(
        max_examples=150,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    case("runTest").runTest()  # type: ignore[attr-defined]  # hypothesis adds it
