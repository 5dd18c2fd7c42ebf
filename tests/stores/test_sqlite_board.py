"""The board in the file: what is swept and kept, who is woken how, files that are older or locked."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamware import SQLiteStore, StoreUnavailable
from streamware.stores import sqlite_board, sqlite_file
from streamware.stores.sqlite_wakes import Wakes
from streamware.stores.timing import Timing
from tests.stores.worlds import answered, until

SHORT = Timing(window=0.005, operation=0.5, creation=0.5, retry=0.05, max_retry=0.1, beat=0.05, farewell=0.5)


class Opened:
    """Stores over one file, closed at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stores: list[SQLiteStore] = []

    async def __call__(self) -> SQLiteStore:
        store = SQLiteStore(self.path, timing=SHORT)
        self.stores.append(store)
        await store.start()
        return store

    def rows(self, statement: str) -> list[tuple[object, ...]]:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(statement).fetchall()


@pytest.fixture
async def opened(place: Path) -> AsyncIterator[Opened]:
    made = Opened(place / "streams.db")
    yield made
    for store in made.stores:
        await asyncio.wait_for(store.aclose(), 15)


async def listening(store: SQLiteStore) -> list[bytes]:
    """What it hears from now on."""
    heard: list[bytes] = []
    store.listen("topic", heard.append)
    await until(lambda: store._board.in_step)
    return heard


async def test_what_nobody_takes_and_what_was_announced_is_swept(opened: Opened, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sqlite_board, "NOTICE_SECONDS", 0.1)
    monkeypatch.setattr(sqlite_board, "SWEPT", 7)
    store = await opened()
    for n in range(20):
        await store.put(f"short {n}", b"value", 0.1)
    await store.put("long", b"value", 60)
    await store.announce("topic", b"message")
    await until(lambda: opened.rows("SELECT count(*) FROM board") == [(1,)])
    await until(lambda: opened.rows("SELECT count(*) FROM notices") == [(0,)])
    assert opened.rows("SELECT bytes FROM board_size") == opened.rows("SELECT sum(size) FROM board")
    assert await store.take("long") == b"value"
    assert opened.rows("SELECT bytes FROM board_size") == [(0,)]


async def test_so_many_announcements_are_kept_at_most(opened: Opened, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sqlite_board, "NOTICES", 10)
    a, b = await opened(), await opened()
    heard = await listening(b)
    for n in range(50):
        await a.announce("topic", b"%d" % n)
        ((count,),) = opened.rows("SELECT count(*) FROM notices")
        assert count <= 10  # type: ignore[operator]
    await until(lambda: b"49" in heard)
    assert sorted(set(heard)) == sorted(heard), "none twice"


async def test_who_does_not_listen_does_not_look(opened: Opened, monkeypatch: pytest.MonkeyPatch):
    looks: list[int | None] = []
    look = sqlite_board._look

    def counted(connection: sqlite3.Connection, seen: int | None) -> object:
        looks.append(seen)
        return look(connection, seen)

    monkeypatch.setattr(sqlite_board, "_look", counted)
    a, b = await opened(), await opened()
    await a.announce("topic", b"message")
    ends = [store.listen("topic", lambda _: None) for store in (a, b)]
    await until(lambda: a._board.in_step and b._board.in_step)
    await a.announce("topic", b"message")
    assert looks[:2] == [None, None], "before they listened nobody looked"
    for end in ends:
        end()
    await until(lambda: a._board.in_step and b._board.in_step)
    rounds, looks[:] = len(looks), []
    assert rounds >= 4
    await a.announce("topic", b"message")
    tidied = asyncio.ensure_future(a._backend.tidy())
    await tidied
    await b._backend.tidy()
    assert looks == []


async def test_an_announcement_wakes_who_listens_by_a_datagram(opened: Opened, monkeypatch: pytest.MonkeyPatch):
    a, b = await opened(), await opened()
    heard = await listening(b)

    async def no_refresh(self: object) -> None: ...

    monkeypatch.setattr(sqlite_board.Notices, "refresh", no_refresh)
    for n in range(20):
        await a.announce("topic", b"%d" % n)
        await until(lambda n=n: len(heard) == n + 1)  # type: ignore[misc]


async def test_without_datagrams_an_announcement_is_found_within_a_round(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Wakes, "open", lambda self: False)
    a, b = await opened(), await opened()
    heard = await listening(b)
    for n in range(5):
        began = time.monotonic()
        await a.announce("topic", b"%d" % n)
        await until(lambda n=n: len(heard) == n + 1)  # type: ignore[misc]
        assert time.monotonic() - began < 20 * SHORT.beat
    assert heard == [b"0", b"1", b"2", b"3", b"4"]


async def test_while_the_file_is_locked_who_listens_here_is_told_and_the_rest_is_trouble(opened: Opened):
    store = await opened()
    await store.put("key", b"value", 60)
    heard = await listening(store)
    with contextlib.closing(sqlite3.connect(opened.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            await store.announce("topic", b"message")
        for refused in (store.put("other", b"value", 30), store.take("key")):
            with pytest.raises(StoreUnavailable):
                await refused
        other.execute("ROLLBACK")
    assert heard == [b"message"]

    assert await answered(lambda: store.take("key"), 5) == b"value"


async def test_a_key_that_was_made_up_takes_no_lock_of_the_file(opened: Opened):
    store = await opened()
    with contextlib.closing(sqlite3.connect(opened.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        for n in range(100):
            assert await store.take(f"made up {n}") is None
        assert time.monotonic() - began < SHORT.operation
        other.execute("ROLLBACK")


async def test_a_file_of_the_version_before_is_given_what_it_lacks(opened: Opened):
    store = await opened()
    await store.claim("key", b"body", "stream")
    await store.settle("key", "stream", True)
    await store.aclose()
    with contextlib.closing(sqlite3.connect(opened.path, isolation_level=None)) as connection:
        for table in ("board", "board_size", "notices"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("PRAGMA user_version = 1")
    again = await opened()
    assert opened.rows("PRAGMA user_version") == [(sqlite_file.VERSION,)]
    await again.put("key", b"value", 60)
    assert await again.take("key") == b"value"
    assert (await again.claim("key", b"body", "other")).settled, "what was there stays"


async def test_where_another_file_takes_its_place_what_is_announced_there_is_heard(opened: Opened):
    a, b = await opened(), await opened()
    heard = await listening(b)
    for _ in range(3):
        await a.announce("topic", b"first")
    await until(lambda: len(heard) == 3)
    for path in opened.path.parent.glob("streams.db*"):
        if path.is_file():
            path.unlink()

    async def announced() -> None:
        while b"second" not in heard:
            with contextlib.suppress(StoreUnavailable):
                await a.announce("topic", b"second")
            await asyncio.sleep(0.02)

    await asyncio.wait_for(announced(), 10)
