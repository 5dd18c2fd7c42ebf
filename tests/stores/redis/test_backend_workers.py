"""The Redis back end, between workers: signals, stops, leases, orphans, claims, and how many connections it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from streamware.exceptions import StoreUnavailable
from streamware.stores.backend import Entry, Report, Reported, Resync, StopAsked, Verdict
from streamware.stores.base import Claim, Outcome
from streamware.wire.cursor import new_stream_id
from tests.stores.redis.kit import HEAD, Place, until
from tests.stores.worlds import answered


async def test_who_watches_is_signalled_at_each_entry_with_the_events_once_he_is_known(place: Place):
    a, b = await place.worker(), await place.worker()
    stream, other = await a.begin(), await a.begin()
    await b.backend.watch(stream)
    for seq in range(1, 4):
        await a.write(stream, seq, b"%d" % seq)
        await a.write(other, seq, b"%d" % seq)
    await until(lambda: len(b.heard(stream)) == 3)
    first, *later = b.heard(stream)
    assert (first.last, list(first.events)) == (1, []), "nobody was known to listen"
    assert [(entry.first, entry.events) for entry in later] == [(2, [b"2"]), (3, [b"3"])]
    assert b.heard(other) == []
    assert a.heard(stream) == []


async def test_large_entries_are_announced_without_their_events(place: Place):
    a, b = await place.worker(), await place.worker()
    stream = await a.begin()
    await b.backend.watch(stream)
    for seq in (1, 2):
        await a.write(stream, seq, b"x" * 20_000)
    await until(lambda: len(b.heard(stream)) == 2)
    assert [(entry.last, list(entry.events)) for entry in b.heard(stream)] == [(1, []), (2, [])]


async def test_nothing_is_announced_with_its_events_before_it_is_stored_where_that_is_asked_for(place: Place):
    a, b = await place.worker(inline=0), await place.worker()
    stream = await a.begin()
    await b.backend.watch(stream)
    for seq in (1, 2, 3):
        await a.write(stream, seq, b"x")
    await until(lambda: len(b.heard(stream)) == 3)
    assert [list(entry.events) for entry in b.heard(stream)] == [[], [], []]


@pytest.mark.parametrize("closer", ["producer", "other"])
async def test_an_end_is_signalled_with_the_last_seq_before_anything_that_is_refused(place: Place, closer: str):
    a, b, c = [await place.worker() for _ in range(3)]
    stream = await a.begin(b"1")
    await b.backend.watch(stream)
    await a.write(stream, 2, b"2")
    await a.write(stream, 3, b"3")
    if closer == "producer":
        await a.backend.write([Entry(stream, 4, (b"4",), outcome=Outcome.DONE, unfinished=True)])
    else:
        await c.backend.end(stream, Outcome.STOPPED)
        assert await a.write(stream, 4, b"a zombie's") is Verdict.FENCED
    last = 4 if closer == "producer" else 3
    await until(lambda: any(entry.outcome for entry in b.heard(stream)))
    heard = b.heard(stream)
    (end,) = [entry for entry in heard if entry.outcome is not None]
    outcome = Outcome.DONE if closer == "producer" else Outcome.STOPPED
    assert (end.last, end.outcome, end.unfinished) == (last, outcome, closer == "producer")
    before = heard[: heard.index(end)]
    assert all(b"zombie" not in (event or b"") for entry in before for event in entry.events)


async def test_who_watches_no_more_hears_no_more(place: Place):
    a, b = await place.worker(), await place.worker()
    stream, kept = await a.begin(), await a.begin()
    await b.backend.watch(stream)
    await b.backend.watch(kept)
    await b.backend.unwatch(stream)
    await b.backend.unwatch(stream)
    await a.write(stream, 1, b"1")
    await a.write(kept, 1, b"1")
    await until(lambda: b.heard(kept))
    assert b.heard(stream) == []


async def test_what_cannot_be_read_is_passed_over(place: Place):
    a, b = await place.worker(), await place.worker()
    stream = await a.begin()
    await b.backend.watch(stream)
    for nonsense in (b"", b"x", b"-1 ", b"1 \xc1", b"9!", b"9!1nothing", b"\x00\xff", b"1 \x92\xa1a\x01"):
        place.server.run("PUBLISH", f"{place.prefix}{{{stream}}}:new", nonsense)
        place.server.run("PUBLISH", f"{place.prefix}{{{b.name}}}:inbox", nonsense)
    await a.write(stream, 1, b"1")
    await until(lambda: b.heard(stream))
    assert {type(signal).__name__ for signal in b.signals} <= {"Appended"}


async def test_reports_and_stops_reach_the_owner(place: Place):
    a, b, c = [await place.worker() for _ in range(3)]
    streams = [await a.begin(b"1") for _ in range(3)]
    reports = [Report(stream, a.name, 2, 1) for stream in streams]
    await b.backend.tell([*reports, Report("other", c.name, 1, 0)])
    await b.backend.tell([])
    await b.backend.ask_stop(streams[1], a.name)
    await until(lambda: len(a.signals) == 4 and c.signals)
    assert a.signals == [*(Reported(b.name, report) for report in reports), StopAsked(streams[1])]
    assert await a.backend.asked() == [streams[1]]
    assert await c.backend.asked() == []


async def test_a_stop_is_asked_for_until_the_log_has_ended_and_not_for_ever(place: Place):
    a, b = await place.worker(), await place.worker()
    stopped, stalled = await a.begin(b"1"), await a.begin(b"1")
    await b.backend.ask_stop(stopped, a.name)
    await b.backend.ask_stop(stalled, a.name)
    assert set(await a.backend.asked()) == {stopped, stalled}
    await a.write(stopped, 2, outcome=Outcome.STOPPED)
    assert await a.backend.asked() == [stalled]
    place.pass_time(61)
    assert await a.backend.asked() == []


# -- leases


async def test_the_logs_of_a_worker_without_a_lease_are_orphans_until_they_have_ended(place: Place):
    a, b, c = [await place.worker() for _ in range(3)]
    streams = [await a.begin(b"1") for _ in range(3)]
    ended = await a.begin(b"1")
    await a.write(ended, 2, outcome=Outcome.DONE)
    mine = await b.begin(b"1")
    assert await b.backend.orphans() == []
    place.server.run("DEL", f"{place.prefix}{{{a.name}}}:lease")
    assert set(await b.backend.orphans()) == set(streams)
    assert set(await c.backend.orphans()) == set(streams)
    assert await a.backend.orphans() == [], "nobody takes itself for dead"
    for stream in streams:
        assert await b.backend.end(stream, Outcome.INTERRUPTED) is Outcome.INTERRUPTED
    assert await b.backend.orphans() == []
    assert f"{a.name}" not in str(place.server.run("SMEMBERS", f"{place.prefix}workers"))
    assert (await b.found(mine)).outcome is None


async def test_an_orphan_that_has_expired_is_found_only_once(place: Place):
    a, b = await place.worker(), await place.worker()
    stream = await a.begin(b"1")
    for name in (f"{{{a.name}}}:lease", f"{{{stream}}}:log", f"{{{stream}}}:meta"):
        place.server.run("DEL", place.prefix + name)
    assert await b.backend.orphans() == [stream]
    assert await b.backend.end(stream, Outcome.INTERRUPTED) is None
    assert await b.backend.orphans() == []


async def test_orphans_come_in_bounded_pieces(place: Place):
    a, b = await place.worker(), await place.worker()
    for _ in range(130):
        await a.begin()
    place.server.run("DEL", f"{place.prefix}{{{a.name}}}:lease")
    seen = 0
    while orphans := await b.backend.orphans():
        assert len(orphans) <= 100
        for stream in orphans:
            assert await b.backend.end(stream, Outcome.INTERRUPTED) is Outcome.INTERRUPTED
        seen += len(orphans)
    assert seen == 130


async def test_a_renewal_takes_a_lapsed_lease_anew(place: Place):
    a, b = await place.worker(), await place.worker()
    stream = await a.begin(b"1")
    place.pass_time(13)
    assert await b.backend.orphans() == [stream]
    await asyncio.to_thread(a.backend.renew)
    assert await b.backend.orphans() == []
    left = place.keys()[f"{{{a.name}}}:lease"]
    assert 11_000 < left <= 12_000


async def test_a_worker_that_leaves_gives_its_lease_back(place: Place):
    a, b = await place.worker(), await place.worker()
    stream = await a.begin(b"1")
    await asyncio.to_thread(a.backend.renew)
    await a.backend.aclose()
    assert await b.backend.orphans() == [stream]
    with pytest.raises(StoreUnavailable):
        await a.backend.read(stream, 0)
    with pytest.raises(StoreUnavailable):
        await asyncio.to_thread(a.backend.renew)
    await a.backend.aclose()


# -- claims


async def test_a_claim_is_taken_once_settled_by_its_holder_and_kept_with_the_log(place: Place):
    a, b = await place.worker(), await place.worker()
    first, second, third = (new_stream_id(a.backend.tag) for _ in range(3))
    assert await a.backend.claimed("key") is None
    assert await a.backend.claim("key", b"\x00body", first) == Claim(True, first, b"\x00body", False)
    assert await a.backend.claim("key", b"\x00body", first) == Claim(True, first, b"\x00body", False), "a call again"
    held = Claim(False, first, b"\x00body", False)
    assert await b.backend.claim("key", b"other", second) == held
    assert await b.backend.claimed("key") == held
    await b.backend.settle("key", second, True)
    await b.backend.settle("key", second, False)
    assert await b.backend.claimed("key") == held
    await a.backend.settle("key", first, True)
    settled = Claim(False, first, b"\x00body", True)
    assert await b.backend.claimed("key") == settled
    assert await b.backend.claim("key", b"other", second) == settled
    await a.backend.settle("key", first, False)
    assert (await b.backend.claim("key", b"other", third)).won


async def test_a_claim_that_comes_behind_its_being_given_back_takes_nothing(place: Place):
    a, b = await place.worker(), await place.worker()
    late, other = new_stream_id(a.backend.tag), new_stream_id(a.backend.tag)
    await a.backend.settle("key", late, False)
    with pytest.raises(ValueError, match="not a claim"):  # nobody waits for it any more
        await a.backend.claim("key", b"body", late)
    assert await b.backend.claimed("key") is None
    assert (await b.backend.claim("key", b"body", other)).won
    assert await a.backend.claim("key", b"body", late) == Claim(False, other, b"body", False)
    assert all(left > 0 for left in place.keys().values())


async def test_a_settled_claim_outlives_a_log_by_its_tombstone_and_no_more(place: Place):
    a, b = await place.worker(ttl=300, tombstone_ttl=1000), await place.worker()
    for ended_by in (a, b):
        stream, key = new_stream_id(a.backend.tag), f"key of {ended_by.name}"
        await a.backend.claim(key, b"body", stream)
        await a.write(stream, 1, b"1", head=HEAD)
        await a.backend.settle(key, stream, True)
        for _ in range(8):
            place.pass_time(900)
            await a.write(stream, 2)
        assert await b.backend.claimed(key) is not None, "a running stream has no time to live"
        if ended_by is a:
            await a.write(stream, 2, outcome=Outcome.DONE)
        else:
            await b.backend.end(stream, Outcome.INTERRUPTED)
        place.pass_time(1299)
        assert await b.backend.claimed(key) is not None
        place.pass_time(2)
        assert await b.backend.claimed(key) is None


async def test_a_claim_of_a_dead_worker_that_has_not_settled_is_abandoned_and_kept_for_a_day(place: Place):
    a, b = [await place.worker() for _ in range(2)]
    streams = [new_stream_id(a.backend.tag) for _ in range(3)]
    assert (await a.backend.claim("unsettled", b"body", streams[0])).won
    assert (await a.backend.claim("settled", b"body", streams[1])).won
    await a.backend.settle("settled", streams[1], True)
    place.server.run("DEL", f"{place.prefix}{{{a.name}}}:lease")
    abandoned = Claim(False, streams[0], b"body", settled=False, abandoned=True)
    assert await b.backend.claimed("unsettled") == abandoned
    assert await b.backend.claim("unsettled", b"body", streams[2]) == abandoned
    assert await b.backend.claim("settled", b"body", streams[2]) == Claim(False, streams[1], b"body", settled=True)
    place.pass_time(86_399)
    assert await b.backend.claimed("unsettled") == abandoned
    place.pass_time(2)
    assert await b.backend.claimed("unsettled") is None
    assert (await b.backend.claim("unsettled", b"body", streams[2])).won


async def test_a_key_that_is_freed_while_another_looks_for_its_holders_lease_is_free(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    a, b, c = [await place.worker() for _ in range(3)]
    first, second = (new_stream_id(a.backend.tag) for _ in range(2))
    for worker, key in ((b, "claim"), (c, "claimed")):
        await a.backend.claim(key, b"body", first)
        claims = worker.backend._now.claims
        lives_on = claims._lives_on

        async def leaves(name: str, key: str = key, lives_on: Callable[[str], Awaitable[bool]] = lives_on) -> bool:
            await a.backend.settle(key, first, False)
            place.server.run("DEL", f"{place.prefix}{{{a.name}}}:lease")
            return await lives_on(name)

        monkeypatch.setattr(claims, "_lives_on", leaves)
    assert (await b.backend.claim("claim", b"other", second)).won
    assert await c.backend.claimed("claimed") is None


# -- connections


async def test_what_has_the_store_at_a_new_connection_is_in_doubt_only_where_it_is_another_server(harmed: Place):
    a = await harmed.worker()
    for _ in range(3):
        assert int(str(harmed.server.run("CLIENT", "KILL", "TYPE", "normal"))) >= 1
        await answered(lambda: a.backend.claimed("key"))
        await a.begin(b"1\n\n")
    assert Resync() not in a.signals
    harmed.server.restart(keep=False)
    await answered(lambda: a.backend.claimed("key"))
    assert Resync() in a.signals, "before anybody has an answer"


async def test_a_worker_has_four_connections_however_many_logs_and_readers(place: Place):
    a, b = await place.worker(), await place.worker()
    streams = [await a.begin(b"1") for _ in range(200)]
    for worker in (a, b):
        await asyncio.to_thread(worker.backend.renew)
    await asyncio.gather(*(b.backend.watch(stream) for stream in streams))
    await asyncio.gather(*(b.backend.read(stream, 0) for stream in streams))
    await asyncio.gather(*(b.backend.claim(stream, b"", stream) for stream in streams))
    await a.backend.write([Entry(stream, 2, (b"2",)) for stream in streams])
    await until(lambda: all(b.heard(stream) for stream in streams))
    await b.begin()
    kinds = [f"{worker.name}-{kind}" for worker in (a, b) for kind in ("ask", "lease", "listen", "write")]
    names = place.connections()
    assert [name for name in names if name.partition("-")[0] in (a.name, b.name)] == sorted(kinds)
    assert Resync() not in b.signals
