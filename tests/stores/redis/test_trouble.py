"""What only a server can do to a store: it is killed, restarted, stalled, full, out of reach. No event is lost between
workers, none comes twice, local readers notice nothing, and it is said once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from streamware.exceptions import StoreFull, StoreUnavailable
from streamware.stores.backend import Entry, Written
from streamware.stores.base import Outcome, Tombstone
from streamware.stores.redis_line import Line
from streamware.wire.cursor import new_stream_id
from tests.redis_server import RedisServer
from tests.stores.redis.kit import HEAD, until
from tests.stores.redis.stores import FAST, WINDOW, Following, Producing, workers
from tests.stores.worlds import answered


def changes(counts: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    return {key: count for key, count in counts.items() if key[0] in ("store.away", "store.back")}


@pytest.mark.parametrize("keep", [True, False], ids=["with its data", "empty"])
async def test_a_server_that_is_killed_and_restarted_costs_no_event(own: RedisServer, keep: bool):
    async with workers(own.url, "t:") as (a, b):
        log = await a.begin()
        producing = Producing(log)
        near, far = Following(log.reader(0)), Following(await b.open(log.stream))
        await producing.reach(100)
        if keep:
            own.run("SAVE")
        await producing.reach(50)
        own.kill()
        await producing.reach(100)
        own.start() if keep else own.restart(keep=False)
        await producing.reach(200)
        events = await producing.end()
        assert await near.end() == events
        assert await far.end() == events
        assert (near.outcome, far.outcome, near.gaps, far.gaps) == (Outcome.DONE, Outcome.DONE, 0, 0)
        assert near.silence < 0.3, "local readers do not wait for the store"
        late = Following(await b.open(log.stream))
        assert await late.end() == events
        assert a.observer.total("store.rolled_back") >= 1


async def test_after_an_empty_restart_no_stream_is_unknown_and_no_key_free_before_they_are_written_again(
    own: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    async with workers(own.url, "t:") as (a, b):
        stream = new_stream_id(a.store.tag)
        assert (await a.store.claim("key", b"body", stream)).won
        log = await a.store.create(stream, HEAD, window=WINDOW)
        await a.store.settle("key", stream, True)
        producing = Producing(log)
        await producing.reach(50)
        known = await b.store.open(stream)
        assert known is not None
        assert not isinstance(known, Tombstone)
        late, real = asyncio.Event(), a.store._backend.write

        async def write_late(entries: Sequence[Entry]) -> Sequence[Written]:
            await late.wait()
            return await real(entries)

        own.restart(keep=False)
        monkeypatch.setattr(a.store._backend, "write", write_late)
        heard_from = 0
        ends = time.monotonic() + FAST.hold_off / 2
        while time.monotonic() < ends:  # while ``a`` has not come to write it
            with pytest.raises(StoreUnavailable):
                await b.store.open(stream)
            with pytest.raises(StoreUnavailable):
                await b.store.claim("key", b"body", new_stream_id(b.store.tag))
            with pytest.raises(StoreUnavailable):
                await known.reach(log.last + 1, 0.01)
            heard_from += not (b.store._reads.away or b.store._writes.away)
            await asyncio.sleep(0.01)
        assert heard_from, "the server answers, and has nothing"
        late.set()
        claim = await answered(lambda: b.store.claim("key", b"body", new_stream_id(b.store.tag)))
        assert (claim.won, claim.settled, claim.stream) == (False, True, stream)
        events = await producing.end()
        assert await Following(await b.open(stream)).end() == events
        # Once more it is known what there is not.
        assert await answered(lambda: b.store.open(new_stream_id(b.store.tag))) is None


async def test_a_server_that_stalls_holds_up_no_local_stream_and_no_request(own: RedisServer):
    async with workers(own.url, "t:") as (a, b):
        log = await a.begin()
        producing = Producing(log)
        near, far = Following(log.reader(0)), Following(await b.open(log.stream))
        await producing.reach(50)
        known = await b.store.open(log.stream)
        assert known is not None
        assert not isinstance(known, Tombstone)
        own.stall()
        stalled = time.monotonic()
        with pytest.raises((StoreUnavailable, StoreFull)):
            await a.begin()
        assert time.monotonic() - stalled < FAST.operation + 0.3
        while time.monotonic() - stalled < 2.0:
            asked = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await a.begin()
            with pytest.raises(StoreUnavailable):
                await b.store.open("sw" + a.store.tag + "A" * 22)
            assert time.monotonic() - asked < 2 * FAST.operation + 0.3, "nobody queues behind a dead store"
            await asyncio.sleep(0.05)
        with pytest.raises(StoreUnavailable):  # not that there is no such event: nobody knows
            await known.reach(log.last, 1.0)
        own.resume()
        await producing.reach(100)
        events = await producing.end()
        assert await near.end() == events
        assert await far.end() == events
        assert near.silence < 0.3
        assert producing.held_back == 0
        await until(lambda: not changes(a.observer.counts) or len(changes(a.observer.counts)) == 4)
        assert set(changes(a.observer.counts).values()) == {1}, "each change of state is counted once"


async def test_a_server_that_is_out_of_reach_at_the_start_is_used_once_it_is_there(own: RedisServer):
    own.kill()
    async with workers(own.url, "t:") as (a, b):
        for worker in (a, b):
            with pytest.raises(StoreUnavailable):
                await worker.begin()
        own.start()
        since = time.monotonic()
        while True:
            try:
                log = await a.begin()
                far = Following(await b.open(log.stream))
                break
            except StoreUnavailable:
                assert time.monotonic() - since < 5
                await asyncio.sleep(0.02)
        log.append(b"1\n\n")
        log.close(Outcome.DONE)
        assert await far.end() == [b"1\n\n"]


async def test_a_server_out_of_memory_takes_no_new_logs_and_gets_the_rest_later(own: RedisServer):
    own.run("CONFIG", "SET", "maxmemory-policy", "noeviction")
    async with workers(own.url, "t:") as (a, b):
        log = await a.begin()
        near, far = Following(log.reader(0)), Following(await b.open(log.stream))
        producing = Producing(log)
        await producing.reach(50)
        await a.store.flush()
        own.run("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises((StoreFull, StoreUnavailable)):
            await a.begin()
        await producing.reach(200)
        assert near.silence < 0.3
        assert len(near.events) > 200
        assert len(await asyncio.wait_for(_read_all(b, log.stream), 5)) >= 50, "what is there can still be read"
        own.run("CONFIG", "SET", "maxmemory", "0")
        await producing.reach(50)
        events = await producing.end()
        assert await near.end() == events
        assert await far.end() == events
        await a.store.flush()  # others may see the last write before it is acknowledged
        await a.begin()


async def test_the_connection_that_wakes_readers_may_be_cut_at_any_time(own: RedisServer):
    async with workers(own.url, "t:") as (a, b):
        log = await a.begin()
        producing = Producing(log)
        far = Following(await b.open(log.stream))
        for _ in range(8):
            await producing.reach(40)
            assert int(str(own.run("CLIENT", "KILL", "TYPE", "pubsub"))) == 2
        events = await producing.end()
        assert await far.end() == events
        assert far.silence < 1.3, "what no signal tells is looked for within a second"


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
async def test_any_connection_may_be_cut_at_any_time(own: RedisServer, kind: str):
    async with workers(own.url, "t:") as (a, b):
        log = await a.begin()
        producing = Producing(log)
        near, far = Following(log.reader(0)), Following(await b.open(log.stream))
        for _ in range(8):
            await producing.reach(40)
            own.run("CLIENT", "KILL", "TYPE", kind)
        events = await producing.end()
        assert await far.end() == events
        assert await near.end() == events


async def test_a_slow_subscriber_is_cut_off_by_the_server_and_finds_what_it_missed(own: RedisServer):
    own.run("CONFIG", "SET", "client-output-buffer-limit", "pubsub 64kb 0 0")
    async with workers(own.url, "t:") as (a, b):
        logs = [await a.begin() for _ in range(20)]
        readers = [Following(await b.open(log.stream)) for log in logs]
        events = [b"1\n\n"]
        for log in logs:
            log.append(events[0])
        await until(lambda: all(reader.events for reader in readers))
        for line in _listener_lines(b.store):
            assert line._pipe is not None
            assert line._pipe._transport is not None
            line._pipe._transport.pause_reading()  # type: ignore[attr-defined]
        while "overcoming of output buffer limits" not in own.log:
            events.append(b"%05d" % len(events) + b"x" * 10_000)
            for log in logs:
                log.append(events[-1])
            await a.store.flush()
            assert len(events) < 1000, "the server never cut it off"
        for log in logs:
            log.close(Outcome.DONE)
        for reader in readers:
            assert await reader.end() == events


async def test_with_durability_store_no_reader_gets_what_the_server_has_not_acknowledged(own: RedisServer):
    async with workers(own.url, "t:", durability="store") as (a, b):
        log = await a.begin()
        near, far = Following(log.reader(0)), Following(await b.open(log.stream))
        log.append(b"1\n\n")
        await until(lambda: near.events and far.events)
        own.stall()
        log.append(b"2\n\n")
        await asyncio.sleep(0.3)
        assert (near.events, far.events) == ([b"1\n\n"], [b"1\n\n"])
        own.resume()
        log.close(Outcome.DONE)
        assert await near.end() == await far.end() == [b"1\n\n", b"2\n\n"]


async def test_the_backlog_is_bounded_while_the_server_is_away(own: RedisServer):
    async with workers(own.url, "t:") as (a, b):
        log = await a.begin()
        near = Following(log.reader(0))
        own.kill()
        sent = 0
        while log.append(b"x" * 10_000):
            sent += 1
            await asyncio.sleep(0)
            assert sent < 1000
        assert 50 <= sent <= 150, "1 MiB for one log"
        await until(lambda: len(near.events) == sent + 1)
        room = asyncio.ensure_future(log.room())
        own.start()
        assert await asyncio.wait_for(room, 5) is True
        log.close(Outcome.DONE)
        assert len(await Following(await b.open(log.stream)).end()) == sent + 1


async def _read_all(worker, stream: str) -> list[bytes]:  # type: ignore[no-untyped-def]
    reader = await worker.open(stream)
    batch = await reader.read()
    reader.close()
    assert batch is not None
    return list(batch.events)


def _listener_lines(store) -> list[Line]:  # type: ignore[no-untyped-def]
    return list(store._backend._now.listener._lines.values())
