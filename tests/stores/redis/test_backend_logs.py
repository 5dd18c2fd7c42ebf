"""The Redis back end, logs: what is stored is fenced, idempotent by seq, never behind a hole, and expires."""

from __future__ import annotations

import asyncio

import pytest

from streamware.stores.backend import Entry, Page, Verdict, Written
from streamware.stores.base import Outcome, Tombstone
from streamware.wire.cursor import new_stream_id
from tests.stores.redis.kit import HEAD, Place


async def test_a_log_is_made_by_its_first_entry_and_read_by_any_worker(place: Place):
    a, b = await place.worker(), await place.worker()
    stream = await a.begin()
    state = await b.found(stream)
    assert (state.head, state.worker, state.first, state.last, state.outcome) == (HEAD, a.name, 1, 0, None)
    assert await a.write(stream, 1, b"1", b"2") is Verdict.TAKEN
    assert await a.write(stream, 3, b"3", None) is Verdict.TAKEN
    assert await b.backend.read(stream, 0) == Page(1, [b"1", b"2", b"3", None], 4)
    assert await b.backend.read(stream, 1) == Page(2, [b"2", b"3", None], 4)
    assert await b.backend.read(stream, 4) == Page(5, [], 4)
    assert await b.backend.read(new_stream_id(b.backend.tag), 0) is None
    assert await b.backend.state(new_stream_id(b.backend.tag)) is None


async def test_a_batch_has_one_answer_for_each_entry(place: Place):
    a = await place.worker()
    streams = [await a.begin(b"1") for _ in range(5)]
    await a.backend.end(streams[1], Outcome.STOPPED)
    unknown = new_stream_id(a.backend.tag)
    batch = [Entry(stream, 2, (b"2",)) for stream in streams[:2]]
    batch += [
        Entry(unknown, 2, (b"2",)),
        Entry(streams[2], 7, (b"7",)),
        Entry(streams[3], 1, (b"1",)),
        Entry(streams[4], 2),
    ]
    assert await a.backend.write(batch) == [
        Written(Verdict.TAKEN),
        Written(Verdict.FENCED, 1, Outcome.STOPPED),
        Written(Verdict.LOST),
        Written(Verdict.BEHIND, 1),
        Written(Verdict.TAKEN),
        Written(Verdict.TAKEN),
    ]


async def test_what_the_log_has_already_is_passed_over_however_it_is_cut(place: Place):
    a = await place.worker()
    stream = await a.begin(b"1")
    for first, events in ((2, b"23"), (2, b"23"), (1, b"123"), (3, b"345"), (2, b"2345"), (4, b"4"), (5, b"567")):
        assert await a.write(stream, first, *(b"%c" % event for event in events)) is Verdict.TAKEN
    assert await a.all_of(stream) == [b"1", b"2", b"3", b"4", b"5", b"6", b"7"]


@pytest.mark.parametrize("fresh", [True, False], ids=["on a new connection", "on the same one"])
async def test_nothing_is_stored_behind_a_hole_unless_it_is_meant(place: Place, fresh: bool):
    a = await place.worker()
    stream = await a.begin(b"1")
    writer = await place.worker() if fresh else a
    assert await writer.backend.write([Entry(stream, 5, (b"5",))]) == [Written(Verdict.BEHIND, 1)]
    assert await a.all_of(stream) == [b"1"]
    assert await writer.backend.write([Entry(stream, 5, (b"5", b"6"), gap=True)]) == [Written(Verdict.TAKEN)]
    assert await a.backend.read(stream, 0) == Page(1, [b"1"], 6)
    assert await a.backend.read(stream, 1) == Page(5, [b"5", b"6"], 6)


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_the_first_end_stays_and_nothing_follows_it(place: Place, outcome: Outcome):
    a, b = await place.worker(), await place.worker()
    stream = await a.begin(b"1")
    assert await b.backend.end(stream, outcome) is outcome
    assert await b.backend.end(stream, Outcome.DONE) is outcome
    fenced = [Written(Verdict.FENCED, 1, outcome)]
    assert await a.backend.write([Entry(stream, 2, (b"2",))]) == fenced
    assert await a.backend.write([Entry(stream, 2)]) == fenced
    assert await a.backend.write([Entry(stream, 2, (b"2",), outcome=Outcome.FAILED)]) == fenced
    assert await a.backend.write([Entry(stream, 1, (b"1",), head=HEAD)]) == fenced
    assert await b.backend.read(stream, 0) == Page(1, [b"1"], 1, outcome)


async def test_an_end_comes_with_the_last_events_and_says_whether_they_are_whole(place: Place):
    a, b = await place.worker(), await place.worker()
    stream = await a.begin(b"1")
    end = Entry(stream, 2, (b"2", b"3"), outcome=Outcome.DONE, unfinished=True)
    assert await a.backend.write([end]) == [Written(Verdict.TAKEN)]
    assert await a.backend.write([end]) == [Written(Verdict.FENCED, 3, Outcome.DONE)]
    assert await b.backend.read(stream, 1) == Page(2, [b"2", b"3"], 3, Outcome.DONE, True)
    state = await b.found(stream)
    assert (state.first, state.last, state.outcome, state.unfinished) == (1, 3, Outcome.DONE, True)


async def test_a_log_may_be_made_and_ended_by_one_entry(place: Place):
    a = await place.worker()
    for events in ((), (b"1", b"2")):
        stream = new_stream_id(a.backend.tag)
        entry = Entry(stream, 1, events, head=HEAD, outcome=Outcome.FAILED)
        assert await a.backend.write([entry]) == [Written(Verdict.TAKEN)]
        assert await a.backend.read(stream, 0) == Page(1, [*events], len(events), Outcome.FAILED)


async def test_of_racing_closers_exactly_one_wins(place: Place):
    workers = [await place.worker() for _ in range(3)]
    for _ in range(20):
        stream = await workers[0].begin(b"1")
        ends = [worker.backend.end(stream, outcome) for worker in workers[1:] for outcome in Outcome]
        own = workers[0].backend.write([Entry(stream, 2, (b"2",), outcome=Outcome.DONE)])
        *stand, (written,) = await asyncio.gather(*ends, own)
        assert len(set(stand)) == 1
        assert (written.verdict is Verdict.TAKEN) == (len(await workers[0].all_of(stream)) == 2)
        assert (await workers[0].found(stream)).outcome is stand[0]


async def test_ending_an_unknown_log_is_told(place: Place):
    a = await place.worker()
    assert await a.backend.end(new_stream_id(a.backend.tag), Outcome.STOPPED) is None


async def test_what_may_go_is_trimmed_and_the_newest_entry_stays(place: Place):
    a = await place.worker()
    stream = await a.begin()
    for seq in range(1, 11):
        await a.write(stream, seq, b"%d" % seq)
    await a.backend.write([Entry(stream, 11, (b"11",), trim=6)])
    assert (await a.found(stream)).first == 6
    assert await a.backend.read(stream, 0) == Page(6, [b"6", b"7", b"8", b"9", b"10", b"11"], 11)
    await a.backend.write([Entry(stream, 12, (b"12",), trim=13)])
    assert await a.backend.read(stream, 0) == Page(12, [b"12"], 12)
    assert await a.write(stream, 13, b"13") is Verdict.TAKEN


async def test_a_page_is_about_64_kib_and_pages_lead_through_the_whole_log(place: Place):
    a = await place.worker()
    for size in (20, 200, 5000, 60_000, 200_000):
        stream = await a.begin()
        events = [b"%06d" % seq + b"x" * size for seq in range(1, 1 + min(1000, 2_000_000 // size))]
        for at in range(0, len(events), 7):
            await a.write(stream, at + 1, *events[at : at + 7])
        seen: list[bytes | None] = []
        while len(seen) < len(events):
            page = await a.backend.read(stream, len(seen))
            assert page is not None
            assert page.first == len(seen) + 1
            assert 0 < sum(len(event or b"") for event in page.events) <= 64 * 1024 + 7 * (size + 6)
            seen += page.events
        assert seen == events


async def test_an_expired_log_leaves_its_tombstone_and_that_goes_too(place: Place):
    a = await place.worker(ttl=300, tombstone_ttl=1000)
    stream = await a.begin(b"1", b"2")
    await a.write(stream, 3, outcome=Outcome.DONE)
    place.pass_time(299)
    assert (await a.found(stream)).last == 2
    place.pass_time(2)
    tombstone = Tombstone("owner", "/chat", "POST", Outcome.DONE, 2)
    assert await a.backend.state(stream) == tombstone
    assert await a.backend.read(stream, 0) is None
    assert await a.backend.write([Entry(stream, 3, (b"3",))]) == [Written(Verdict.FENCED, 2, Outcome.DONE)]
    assert await a.backend.write([Entry(stream, 1, (b"1",), head=HEAD)]) == [Written(Verdict.FENCED, 2, Outcome.DONE)]
    place.pass_time(1000)
    assert await a.backend.state(stream) is None


async def test_a_running_log_lives_as_long_as_it_is_written_to(place: Place):
    a = await place.worker()
    stream = await a.begin(b"1")
    for _ in range(5):
        place.pass_time(a.backend.keep_every or 0)
        place.pass_time(a.backend.keep_every or 0)
        assert await a.write(stream, 2) is Verdict.TAKEN, "an empty entry keeps it"
    place.pass_time(4000)
    assert await a.write(stream, 2, b"2") is Verdict.LOST
    assert await a.write(stream, 1, b"1", b"2", head=HEAD) is Verdict.TAKEN, "it is made again, under the same seqs"
    assert await a.all_of(stream) == [b"1", b"2"]


async def test_every_key_has_an_expiry_from_the_first_moment(place: Place):
    a, b = await place.worker(), await place.worker()
    stream = new_stream_id(a.backend.tag)
    await a.backend.claim("key", b"body", stream)
    seen = place.keys()
    await a.write(stream, 1, b"1", head=HEAD)
    await a.backend.settle("key", stream, True)
    for seq in range(2, 50):
        await a.write(stream, seq, b"%d" % seq)
    await a.backend.write([Entry(stream, 50, (b"50",), trim=20)])
    await b.backend.ask_stop(stream, a.name)
    await asyncio.to_thread(a.backend.renew)
    seen |= place.keys()
    await a.write(stream, 51, outcome=Outcome.DONE)
    await b.backend.end(await a.begin(b"1"), Outcome.INTERRUPTED)
    await a.backend.tidy()
    seen |= place.keys()
    kinds = {name.rpartition(":")[2] for name in seen if not name.startswith("claim:")}
    assert kinds == {"log", "meta", "lease", "open", "stop", "workers", "ended"}
    assert any(name.startswith("claim:") for name in seen)
    assert {name: left for name, left in seen.items() if left < 0} == {}


async def test_tombstones_are_kept_to_a_number_the_oldest_go_first(place: Place):
    a = await place.worker(max_tombstones=3)
    streams = [await a.begin(b"1") for _ in range(6)]
    claimed = await a.backend.claim("key", b"body", streams[0])
    assert claimed.won
    for stream in streams:
        await a.write(stream, 2, outcome=Outcome.DONE)
    await a.backend.tidy()
    assert [await a.backend.state(stream) is not None for stream in streams] == [False] * 3 + [True] * 3
    assert (await a.backend.claim("other", b"body", streams[5])).won


async def test_a_forgotten_log_leaves_nothing(place: Place):
    a, b = await place.worker(), await place.worker()
    before = set(place.keys())
    stream = new_stream_id(a.backend.tag)
    await a.backend.claim("key", b"body", stream)
    await a.write(stream, 1, b"1", head=HEAD)
    await b.backend.forget(stream)
    assert set(place.keys()) == before
    assert await a.write(stream, 2, b"2") is Verdict.LOST
    await a.backend.forget(new_stream_id(a.backend.tag))


async def test_paths_and_owners_may_be_any_text(place: Place):
    a = await place.worker()
    stream = new_stream_id(a.backend.tag)
    head = HEAD.__class__("ow\udcffner", "acc\x00ount", "/{p}\udc80", "POST", 200, (), "text/event-stream")
    assert await a.write(stream, 1, b"1", head=head) is Verdict.TAKEN
    assert (await a.found(stream)).head == head
    assert (await a.backend.claim("k\udcff{}" * 5000, b"body", stream)).won
