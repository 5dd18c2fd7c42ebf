"""What only ``SQLiteStore`` can fail at: its options, its file, and its disk. Time is real here, and short."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamware import ConfigurationError, CountingObserver, SQLiteStore, StoreFull, StoreUnavailable
from streamware.clock import LoopClock
from streamware.stores import sqlite_changes
from streamware.stores.base import Outcome, ProducerLog, Tombstone
from streamware.stores.remote_log import RemoteLog
from streamware.stores.shared import SharedOptions, SharedStore
from streamware.stores.sqlite_backend import SQLiteBackend
from streamware.stores.sqlite_changes import Bounds
from streamware.stores.timing import Timing
from streamware.testing import FakeClock
from streamware.wire.cursor import new_stream_id
from tests.stores.worlds import PROMPT, answered, head, read, read_all, until

SHORT = Timing(
    window=0.005, operation=0.5, creation=0.5, retry=0.05, max_retry=0.1, beat=0.05, patience=0.5, farewell=0.5
)


class Opened:
    """Stores over one file, closed at the end."""

    def __init__(self, place: Path) -> None:
        self.path = place / "streams.db"
        self.observer = CountingObserver()
        self.stores: list[SQLiteStore] = []

    async def __call__(self, **options: Any) -> SQLiteStore:
        store = SQLiteStore(self.path, **{"timing": SHORT, "observer": self.observer, **options})
        self.stores.append(store)
        await store.start()
        return store


@pytest.fixture
async def opened(place: Path) -> AsyncIterator[Opened]:
    made = Opened(place)
    yield made
    for store in made.stores:
        await asyncio.wait_for(store.aclose(), 15)


async def create(store: SQLiteStore, account: str = "client:a") -> ProducerLog:
    return await store.create(new_stream_id(store.tag), head(account), window=10**6)


# -- options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_bytes": 0}, "max_bytes must be greater than 0, got 0"),
        ({"max_memory": -1}, "max_memory must be greater than 0"),
        ({"max_log_bytes": 2, "max_memory": 1}, "max_log_bytes must be at most max_memory"),
        ({"max_log_events": True}, "max_log_events must be greater than 0, got True"),
        ({"ttl": float("inf")}, "ttl must be greater than 0"),
        ({"tombstone_ttl": "1"}, "tombstone_ttl must be greater than 0, got '1'"),
        ({"owner_share": 1.5}, "owner_share must be in"),
        ({"durability": "disk"}, 'durability must be "local" or "store", got \'disk\''),
        ({"path": ":memory:"}, "path must be the path of a file"),
        ({"path": ""}, "path must be the path of a file"),
        ({"path": 7}, "path must be the path of a file, got 7"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SQLiteStore(**{"path": "streams.db", **options})
    assert f"SQLiteStore: {words}" in str(caught.value)


def test_nothing_is_opened_before_the_start(place: Path) -> None:
    SQLiteStore(place / "streams.db")
    assert list(place.iterdir()) == []


def test_the_same_file_has_the_same_tag_by_whatever_path(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "other").mkdir()
    (place / "link").symlink_to(place)
    monkeypatch.chdir(place)
    tags = {SQLiteStore(path).tag for path in (place / "a", "a", place / "other" / ".." / "a", place / "link" / "a")}
    assert len(tags) == 1
    assert SQLiteStore(place / "b").tag not in tags


# -- what is left of it


async def test_nothing_but_the_file_is_left(opened: Opened) -> None:
    store = await opened()
    log = await create(store)
    log.append(b"1\n\n")
    log.close(Outcome.DONE)
    await store.aclose()
    assert sorted(path.name for path in opened.path.parent.iterdir()) == ["streams.db"]
    with contextlib.closing(sqlite3.connect(opened.path)) as connection:
        assert connection.execute("SELECT count(*) FROM workers").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM fresh").fetchone() == (0,)


async def test_what_is_in_the_file_is_for_its_owner_alone(opened: Opened) -> None:
    store = await opened()
    (await create(store)).append(b"secret\n\n")
    await store.flush()
    beside = list(opened.path.parent.iterdir())
    assert len(beside) >= 4
    assert [path.name for path in beside if path.stat().st_mode & 0o077] == []


async def test_a_directory_of_sockets_that_others_may_write_to_is_not_used(opened: Opened) -> None:
    wakes = opened.path.with_name("streams.db-wakes")
    wakes.mkdir()
    wakes.chmod(0o777)
    a, b = await opened(), await opened()
    assert list(wakes.iterdir()) == []
    log = await create(a)
    found = await b.open(log.stream)
    assert isinstance(found, RemoteLog)
    reader = found.reader(0)
    log.append(b"1\n\n")
    assert (await read(reader)).events == [b"1\n\n"]
    reader.close()


async def test_what_has_expired_leaves_nothing_in_the_file(opened: Opened) -> None:
    clock = FakeClock()
    store = await opened(ttl=10, tombstone_ttl=10, clock=clock, timing=PROMPT)
    for turn in range(300):
        log = await create(store)
        await store.claim(f"key {turn}", b"", log.stream)
        await store.settle(f"key {turn}", log.stream, True)
        log.append(b"x" * 1000)
        log.close(Outcome.DONE)
    await store.flush()
    await clock.advance(11)
    await until(lambda: counts(opened.path)["pages"] == 0)
    assert counts(opened.path)["logs"] == 300
    await clock.advance(11)
    await until(lambda: counts(opened.path) == {"logs": 0, "pages": 0, "fresh": 0, "claims": 0}, 10)


def counts(path: Path) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("logs", "pages", "fresh", "claims")
        }


async def test_tombstones_are_bounded(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_changes, "TOMBSTONES", 20)
    clock = FakeClock()
    store = await opened(ttl=10, clock=clock, timing=PROMPT)
    for _ in range(50):
        (await create(store)).close(Outcome.DONE)
    await store.flush()
    await clock.advance(11)
    await until(lambda: counts(opened.path)["logs"] == 20)


# -- room


async def test_a_file_at_its_bound_loses_its_oldest_finished_logs_then_refuses_new_ones(opened: Opened) -> None:
    store = await opened(max_bytes=10_000_000)
    finished = []
    for _ in range(150):
        log = await create(store)
        log.append(b"x" * 100_000)
        log.close(Outcome.DONE)
        finished.append(log.stream)
        await store.flush()
        await asyncio.sleep(0.01)
    await until(lambda: counts(opened.path)["pages"] < 100)
    kept = [isinstance(await store.open(stream), RemoteLog) for stream in finished]
    assert kept == sorted(kept), "the oldest went first"
    assert any(kept)
    running = []
    with pytest.raises(StoreFull):
        for _ in range(150):
            log = await create(store)
            running.append(log)
            log.append(b"x" * 100_000)
            await store.flush()
            await asyncio.sleep(0.03)
    assert len(running) >= 50
    for log in running:
        assert log.append(b"more") is True, "what runs goes on"
        log.close(Outcome.DONE)
    await store.flush()

    async def again() -> None:
        while True:
            with contextlib.suppress(StoreFull):
                await create(store)
                return
            await asyncio.sleep(0.02)

    await asyncio.wait_for(again(), 5)


# -- trouble


async def test_while_the_file_is_locked_streams_go_on_here_and_are_written_afterwards(opened: Opened) -> None:
    store, other = await opened(), await opened()
    log = await create(store)
    log.append(b"1\n\n")
    await store.flush()
    with locked(opened.path):
        reader = log.reader(0)
        seen: list[bytes] = []
        for n in range(2, 100):
            assert log.append(b"%d\n\n" % n) is True
            seen += (await read(reader)).events
        assert seen == [b"%d\n\n" % n for n in range(1, 100)]
        await until(lambda: opened.observer.counts.get(("store.away", "writes")))
        began = time.monotonic()
        for _ in range(20):
            with pytest.raises(StoreUnavailable):
                await create(store)
            with pytest.raises(StoreUnavailable):
                await store.claim("key", b"", log.stream)
        assert time.monotonic() - began < 2.0, "nobody waits in a queue for it"
        found = await other.open(log.stream)
        assert isinstance(found, RemoteLog), "what is there can be read"
    await asyncio.wait_for(store.flush(), 5)
    log.close(Outcome.DONE)
    assert await read_all(found.reader(0)) == ([b"%d\n\n" % n for n in range(1, 100)], Outcome.DONE)
    await until(lambda: not store._writes.away and not other._writes.away)
    assert opened.observer.counts["store.away", "writes"] <= 2, "once a store"
    assert opened.observer.counts["store.away", "writes"] == opened.observer.counts["store.back", "writes"]
    assert (await store.claim("key", b"", log.stream)).won


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


async def test_nobody_is_taken_for_dead_because_nobody_could_renew(opened: Opened) -> None:
    timing = replace(SHORT, lease=0.6, renewal=0.1, hold_off=0.4)
    a, b = await opened(timing=timing), await opened(timing=timing)
    logs = [await create(store) for store in (a, b)]
    with locked(opened.path):
        await asyncio.sleep(1.5)
    await until(lambda: not a._writes.away and not b._writes.away)
    await asyncio.sleep(1.5)
    for store, log in zip((a, b), logs, strict=True):
        log.append(b"1\n\n")
        await asyncio.wait_for(store.flush(), 5)
    assert [log.outcome for log in logs] == [None, None]
    assert ("store.orphan_closed", "") not in opened.observer.counts


async def test_a_worker_that_was_removed_while_it_was_paused_comes_back_as_itself(opened: Opened) -> None:
    timing = replace(SHORT, lease=0.4, renewal=0.1, hold_off=0.2)
    a, b, c = await opened(timing=timing), await opened(timing=timing), await opened(timing=timing)
    vigil = a._vigil
    assert vigil is not None
    vigil.end()
    await until(lambda: workers(opened.path) == 2, 5)
    log = await create(a)  # as it does when it goes on, a moment before it renews
    assert workers(opened.path) == 3, "or nobody would look after the log if it died now"
    log.append(b"1\n\n")
    await a.flush()
    found = await b.open(log.stream)
    assert isinstance(found, RemoteLog)
    told: list[Outcome] = []
    log.on_closed = told.append
    assert await asyncio.wait_for(found.ends(10), 5) is True, "it is known as a worker that does not renew"
    assert await c.stop(log.stream) is True
    log.append(b"2\n\n")
    await until(lambda: told)
    assert told == [Outcome.INTERRUPTED]


async def test_what_a_dead_worker_left_claimed_is_held_for_as_long_as_a_tombstone_and_then_gone(opened: Opened) -> None:
    store = await opened()
    stream = new_stream_id(store.tag)
    await store.claim("key", b"body", stream)
    with contextlib.closing(sqlite3.connect(opened.path, isolation_level=None)) as connection:
        connection.execute("UPDATE workers SET renewed = 0")
        times, bounds = sqlite_changes.Times(1000.0, 0.0, 500.0), Bounds(300, 500, 10**9)
        for now, held in ((1000.0, True), (1499.0, True), (1501.0, False)):
            sqlite_changes.tidy(connection, bounds, replace(times, now=now))
            assert connection.execute("SELECT count(*) FROM claims").fetchone() == (held,)
            claim = sqlite_changes.claimed(connection, "key", replace(times, now=now))
            assert (claim is not None and claim.abandoned) is held


async def test_what_the_dead_left_claimed_is_bounded_and_the_claims_of_the_living_are_kept(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_changes, "TOMBSTONES", 20)
    a, b = [await opened() for _ in range(2)]
    for n in range(50):
        await a.claim(f"key {n}", b"", new_stream_id(a.tag))
        await b.claim(f"another key {n}", b"", new_stream_id(b.tag))
    await a.aclose()
    await until(lambda: counts(opened.path)["claims"] == 70)
    for n in range(50):
        assert not (await b.claim(f"another key {n}", b"", new_stream_id(b.tag))).won


def workers(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM workers").fetchone()[0])


async def test_what_waits_to_be_written_is_bounded_and_the_producer_waits(opened: Opened) -> None:
    store = await opened()
    log, small = await create(store), await create(store)
    reader = log.reader(0)
    with locked(opened.path):
        last = 0
        while log.append(b"x" * 10_000):
            last = (await read(reader)).last
            assert log.last < 200
        assert 1024 * 1024 <= log.last * 10_000 < 1024 * 1024 + 20_000
        room = asyncio.ensure_future(log.room())
        while last < log.last:
            last = (await read(reader)).last
        assert small.append(b"1\n\n") is True, "another's is its own"
        await asyncio.sleep(0.1)
        assert not room.done()
    assert await asyncio.wait_for(room, 5) is True


async def test_what_waits_to_be_written_is_bounded_for_the_whole_worker(opened: Opened) -> None:
    clock = LoopClock()
    backend = SQLiteBackend(opened.path, Bounds(300, 300, 10**9), clock, clock.now)
    options = SharedOptions(backlog_per_log=100_000, backlog=300_000)
    store = SharedStore(backend, options, clock=clock, observer=opened.observer, timing=SHORT)
    await store.start()
    try:
        logs = [await store.create(new_stream_id(store.tag), head(f"client:{n}"), window=10**6) for n in range(10)]
        with locked(opened.path):
            for log in logs:
                for _ in range(5):
                    assert log.append(b"x" * 10_000) is True, "below its own bound"
            await until(lambda: opened.observer.counts.get(("store.backlog_full", "")))
            assert [log.append(b"x") for log in logs] == [False] * 10
            rooms = [asyncio.ensure_future(log.room()) for log in logs]
            await asyncio.sleep(0.2)
            assert not any(room.done() for room in rooms)
        assert await asyncio.wait_for(asyncio.gather(*rooms), 5) == [True] * 10
        assert [log.append(b"x") for log in logs] == [True] * 10
        await asyncio.wait_for(store.flush(), 5)
        assert opened.observer.counts["store.backlog_full", ""] == 1
    finally:
        await store.aclose()


async def test_a_locked_file_holds_up_no_end(opened: Opened) -> None:
    store = await opened()
    log = await create(store)
    log.append(b"1\n\n")
    with locked(opened.path):
        await asyncio.wait_for(store.aclose(), 10)
    assert log.outcome is Outcome.INTERRUPTED
    other = await opened(timing=Timing(beat=0.05, lease=0.5, renewal=0.1, hold_off=0.2))
    await until(lambda: opened.observer.counts.get(("store.orphan_closed", "")), 5)
    found = await other.open(log.stream)
    assert isinstance(found, RemoteLog)
    assert found.outcome is Outcome.INTERRUPTED


@pytest.mark.parametrize("what", ["garbage", "directory", "nothing", "another version"])
async def test_a_file_that_cannot_be_used_is_trouble_until_it_can(place: Path, opened: Opened, what: str) -> None:
    path = opened.path
    if what == "garbage":
        path.write_bytes(b"this is no database" * 1000)
    elif what == "directory":
        path.mkdir()
    elif what == "nothing":
        opened.path = path = place / "missing" / "streams.db"
    else:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 77")
    began = time.monotonic()
    store = await opened()
    with pytest.raises(StoreUnavailable):
        await create(store)
    with pytest.raises(StoreUnavailable):
        await store.open(new_stream_id(store.tag))
    assert time.monotonic() - began < 2.0
    if what == "directory":
        path.rmdir()
    elif what == "nothing":
        path.parent.mkdir()
    else:
        path.unlink()

    log = await answered(lambda: create(store), 5)
    log.append(b"1\n\n")
    await asyncio.wait_for(store.flush(), 5)
    assert opened.observer.counts["store.back", "writes"] == 1


async def test_a_file_that_is_damaged_while_it_is_used_is_trouble_and_streams_go_on(opened: Opened) -> None:
    store = await opened()
    log = await create(store)
    reader = log.reader(0)
    for n in range(1, 11):
        log.append(b"%d\n\n" % n)
    await store.flush()
    for path in opened.path.parent.glob("streams.db*"):
        if path.is_file():
            path.write_bytes(b"damaged!" * (path.stat().st_size // 8))
    for n in range(11, 21):
        log.append(b"%d\n\n" % n)
    seen: list[bytes] = []
    while len(seen) < 20:
        seen += (await read(reader)).events
    assert seen == [b"%d\n\n" % n for n in range(1, 21)]
    await until(lambda: opened.observer.counts.get(("store.away", "writes")))
    for path in opened.path.parent.glob("streams.db*"):
        if path.is_file():
            path.unlink()
    await asyncio.wait_for(store.flush(), 10)
    other = await opened()
    found = await other.open(log.stream)
    assert isinstance(found, RemoteLog), "it was written once more, with all that there was"
    log.close(Outcome.DONE)
    assert await read_all(found.reader(0)) == (seen, Outcome.DONE)


async def test_a_connection_that_is_made_anew_loses_nothing_that_was_written(opened: Opened) -> None:
    """What is in no page yet is known to the writing thread alone, until it has to begin anew."""
    store, other = await opened(), await opened()
    logs = [await create(store) for _ in range(3)]
    for round_ in range(20):
        for log in logs[: 3 if round_ < 10 else 2]:  # one of them has nothing more to say
            log.append(b"%d\n\n" % (round_ + 1))
        await store.flush()
        if round_ % 5 == 3:
            with pytest.raises(StoreUnavailable):
                await store._backend._write_desk.do(spoil)  # type: ignore[attr-defined]
        await asyncio.sleep(0.1)
    for log in logs:
        log.close(Outcome.DONE)
    await store.flush()
    for log, count in zip(logs, (20, 20, 10), strict=True):
        found = await other.open(log.stream)
        assert isinstance(found, RemoteLog)
        assert await read_all(found.reader(0)) == ([b"%d\n\n" % n for n in range(1, count + 1)], Outcome.DONE)
    await store.aclose()
    found = await other.open(logs[0].stream)
    assert isinstance(found, RemoteLog)
    assert len((await read_all(found.reader(0)))[0]) == 20


def spoil(connection: sqlite3.Connection) -> None:
    """The thread takes its connection for broken after this."""
    raise sqlite3.DatabaseError("for the test")


async def test_a_file_that_is_removed_is_written_once_more(opened: Opened) -> None:
    store = await opened()
    log, idle = await create(store), await create(store)
    for each in (log, idle):
        for n in range(1, 11):
            each.append(b"%d\n\n" % n)
    await store.flush()
    follower = await opened()
    found = await follower.open(log.stream)
    assert isinstance(found, RemoteLog)
    reader = found.reader(0)
    while reader.position < 10:
        await read(reader)
    following = asyncio.ensure_future(reader.read())
    await asyncio.sleep(0.05)
    for path in opened.path.parent.glob("streams.db*"):
        if path.is_file():
            path.unlink()
    log.append(b"11\n\n")
    other = await opened()
    batch = await asyncio.wait_for(following, 5)
    assert batch is not None
    assert batch.events == [b"11\n\n"], "who follows it finds it again"
    following = asyncio.ensure_future(reader.read())
    await asyncio.sleep(0.2)
    log.append(b"12\n\n")
    batch = await asyncio.wait_for(following, 5)
    assert batch is not None
    assert batch.events == [b"12\n\n"], "and goes on following it"
    reader.close()
    for each, last in ((log, 12), (idle, 10)):

        async def comes(stream: str = each.stream, last: int = last) -> RemoteLog:
            while True:
                found = await other.open(stream)
                if isinstance(found, RemoteLog) and found.last == last:
                    return found
                await asyncio.sleep(0.01)

        found = await asyncio.wait_for(comes(), 5)
        each.close(Outcome.DONE)
        assert await read_all(found.reader(0)) == ([b"%d\n\n" % n for n in range(1, last + 1)], Outcome.DONE)


def test_a_full_disk_is_trouble_and_what_waited_is_written_when_there_is_room(place: Path) -> None:
    """In a process of its own, where no file may grow beyond a limit."""
    command = [sys.executable, "-m", "tests.stores.full_disk", str(place / "streams.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == ["away", "local", "back", "whole"]


# -- where there are no datagrams


async def test_without_datagrams_workers_find_each_other_through_the_file(place: Path, opened: Opened) -> None:
    long = place / ("d" * 120)  # longer than the name of a socket may be
    long.mkdir()
    opened.path = long / "streams.db"
    a, b = await opened(), await opened()
    log = await create(a)
    told: list[Outcome] = []
    log.on_closed = told.append
    found = await b.open(log.stream)
    assert isinstance(found, RemoteLog)
    reader = found.reader(0)
    await until(lambda: log.readers == 1)
    for n in range(1, 50):
        log.append(b"%d\n\n" % n)
        began = time.monotonic()
        assert (await read(reader)).events == [b"%d\n\n" % n]
        assert time.monotonic() - began < 1.0
    assert await b.stop(log.stream) is True
    assert told == [Outcome.STOPPED]
    assert await read_all(reader) == ([], Outcome.STOPPED)
    assert not (long / "streams.db-wakes").exists() or not list((long / "streams.db-wakes").iterdir())


async def test_a_tombstone_is_all_that_is_left_of_a_log(opened: Opened) -> None:
    clock = FakeClock()
    store = await opened(ttl=10, clock=clock, timing=PROMPT)
    log = await store.create(new_stream_id(store.tag), head(owner="principal:x"), window=1000)
    log.append(b"secret\n\n")
    log.close(Outcome.FAILED)
    await store.flush()
    await clock.advance(11)
    await until(lambda: counts(opened.path)["pages"] == 0)
    assert await store.open(log.stream) == Tombstone("principal:x", "/chat", "POST", Outcome.FAILED, 1)
