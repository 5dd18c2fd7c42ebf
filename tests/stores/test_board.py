"""What is left for one who takes it, and what is announced to all: in one worker, and between two."""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass

import pytest

from streamware import Board, StoreFull
from streamware.stores import memory_board, sqlite_board
from streamware.stores.board import MAX_MESSAGE, MAX_VALUE
from streamware.stores.memory import MemoryStore
from streamware.stores.shared import SharedStore
from streamware.testing import FakeClock
from tests.stores.worlds import BOUNDED, CLOCKED, SHARED, Build, StoreKind, World, until

across_workers = pytest.mark.parametrize("kind", SHARED, ids=lambda kind: kind.name)
KEYS = ["key", "", "a b\r\n\0{braces}", "\ud800", "k" * 100_000]


def board(world: World) -> Board:
    assert isinstance(world.store, Board)
    return world.store


async def in_step(*worlds: World) -> None:
    """What other workers announce is heard from now on."""
    for world in worlds:
        if isinstance(world.store, SharedStore):
            await until(lambda store=world.store: store._board.in_step)  # type: ignore[misc]


class Heard:
    """A listener."""

    def __init__(self, world: World, topic: str = "topic") -> None:
        self.messages: list[bytes] = []
        self.end = board(world).listen(topic, self.messages.append)


@dataclass
class Pair:
    """Two workers."""

    a: World
    b: World


@pytest.fixture
async def pair(build: Build) -> Pair:
    a = build()
    b = build(place=a.place)
    await a.store.start()
    await b.store.start()
    return Pair(a, b)


# -- put and take


@pytest.mark.parametrize("key", KEYS, ids=["plain", "empty", "odd", "surrogate", "long"])
@pytest.mark.parametrize("value", [b"", b"\0value\r\n", b"v" * MAX_VALUE], ids=["empty", "odd", "large"])
async def test_what_was_put_is_taken_once(world: World, key: str, value: bytes) -> None:
    await board(world).put(key, value, 30)
    assert await board(world).take("another key") is None
    assert await board(world).take(key) == value
    assert await board(world).take(key) is None


async def test_what_is_put_again_takes_the_place_of_what_was_there(world: World) -> None:
    await board(world).put("key", b"first", 30)
    await board(world).put("key", b"second", 30)
    assert await board(world).take("key") == b"second"
    assert await board(world).take("key") is None


async def test_of_many_who_would_take_it_at_once_exactly_one_does(world: World) -> None:
    for n in range(10):
        await board(world).put("key", b"%d" % n, 30)
        taken = await asyncio.gather(*(board(world).take("key") for _ in range(20)))
        assert [value for value in taken if value is not None] == [b"%d" % n]


@across_workers
async def test_of_two_workers_exactly_one_takes_it_whoever_put_it(pair: Pair) -> None:
    a, b = board(pair.a), board(pair.b)
    for n in range(50):
        await (a, b)[n % 2].put("key", b"%d" % n, 30)
        taken = await asyncio.gather(*(who.take("key") for who in (a, b) * 4))
        assert [value for value in taken if value is not None] == [b"%d" % n]


@pytest.mark.parametrize("kind", CLOCKED, ids=lambda kind: kind.name)
async def test_what_is_not_taken_in_time_is_gone(world: World) -> None:
    await board(world).put("key", b"value", 30)
    await board(world).put("later", b"value", 60)
    await world.clock.advance(29.9)
    await board(world).put("renewed", b"value", 0.05)
    await board(world).put("renewed", b"value", 30)
    await world.clock.advance(0.1)
    assert await board(world).take("key") is None
    assert await board(world).take("renewed") == b"value"
    assert await board(world).take("later") == b"value"


async def test_what_is_not_taken_in_time_is_gone_by_any_stores_own_clock(world: World) -> None:
    await board(world).put("key", b"value", 0.05)
    async with asyncio.timeout(5):
        await asyncio.sleep(0.06)
        await world.clock.advance(0.06)
        assert await board(world).take("key") is None


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf")])
async def test_a_time_to_live_that_is_none_is_refused(world: World, ttl: float) -> None:
    with pytest.raises(ValueError, match="time to live"):
        await board(world).put("key", b"value", ttl)
    assert await board(world).take("key") is None


async def test_a_value_that_is_too_large_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="at most 16384 bytes, not 16385"):
        await board(world).put("key", b"v" * (MAX_VALUE + 1), 30)
    assert await board(world).take("key") is None


@pytest.mark.parametrize("kind", CLOCKED, ids=lambda kind: kind.name)
async def test_a_full_board_refuses_more_until_something_is_taken_or_expires(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (memory_board, sqlite_board):
        monkeypatch.setattr(module, "BOARD_BYTES", 10_000)
    size = 1000 - memory_board.ITEM_BYTES - (32 if world.kind.shared else 1)
    for n in range(10):
        await board(world).put(str(n), b"v" * size, 30 + n)
    with pytest.raises(StoreFull):
        await board(world).put("x", b"", 30)
    await board(world).put("0", b"w" * size, 30)  # in place of another
    with pytest.raises(StoreFull):
        await board(world).put("0", b"w" * (size + 1), 30)
    assert await board(world).take("1") is not None
    await board(world).put("x", b"v" * size, 100)
    with pytest.raises(StoreFull):
        await board(world).put("y", b"", 30)
    await world.clock.advance(33.5)
    for n in range(3):
        await board(world).put(f"{n} more"[:1], b"v" * size, 30)
    with pytest.raises(StoreFull):
        await board(world).put("z", b"", 30)
    assert await board(world).take("x") == b"v" * size


async def test_a_store_that_is_closed_and_started_again_takes_and_hears(build: Build) -> None:
    world = build()
    await world.store.start()
    heard = Heard(world)
    await in_step(world)
    await world.store.aclose()
    await world.store.start()
    await in_step(world)
    await board(world).announce("topic", b"message")
    assert heard.messages == [b"message"]
    await board(world).put("key", b"value", 30)
    assert await board(world).take("key") == b"value"


# -- announcements


async def test_an_announcement_reaches_all_listeners_of_its_topic_here_at_once(world: World) -> None:
    one, two, other = Heard(world), Heard(world), Heard(world, "another topic")
    await board(world).announce("topic", b"first")
    assert (one.messages, two.messages, other.messages) == ([b"first"], [b"first"], [])
    one.end()
    one.end()
    await board(world).announce("topic", b"second")
    await board(world).announce("another topic", b"\0\xff")
    assert (one.messages, two.messages, other.messages) == ([b"first"], [b"first", b"second"], [b"\0\xff"])


async def test_a_callable_that_listens_twice_hears_twice_and_ends_once_each(world: World) -> None:
    messages: list[bytes] = []
    ends = [board(world).listen("topic", messages.append) for _ in range(2)]
    await board(world).announce("topic", b"1")
    ends[0]()
    await board(world).announce("topic", b"2")
    ends[1]()
    await board(world).announce("topic", b"3")
    assert messages == [b"1", b"1", b"2"]


async def test_a_listener_that_fails_or_ends_another_takes_the_message_from_nobody_else(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(message: bytes) -> None:
        later.end()
        raise RuntimeError("mine")

    board(world).listen("topic", fails)
    later, last = Heard(world), Heard(world)
    with caplog.at_level(logging.ERROR, "streamware.stores"):
        await board(world).announce("topic", b"what was said")
    assert (later.messages, last.messages) == ([], [b"what was said"])
    assert "a listener to announcements failed" in caplog.text
    assert "what was said" not in caplog.text


async def test_a_message_that_is_too_large_is_refused_before_anybody_hears_it(world: World) -> None:
    heard = Heard(world)
    with pytest.raises(ValueError, match="at most 4096 bytes, not 4097"):
        await board(world).announce("topic", b"m" * (MAX_MESSAGE + 1))
    assert heard.messages == []
    await board(world).announce("topic", b"m" * MAX_MESSAGE)
    assert heard.messages == [b"m" * MAX_MESSAGE]


@across_workers
async def test_an_announcement_is_heard_once_in_every_worker(pair: Pair) -> None:
    here, there, other = Heard(pair.a), Heard(pair.b), Heard(pair.b, "another topic")
    await in_step(pair.a, pair.b)
    said = [b"", b"\0\xff", b"m" * MAX_MESSAGE, *(b"%d" % n for n in range(50))]
    for n, message in enumerate(said):
        await board((pair.a, pair.b)[n % 2]).announce("topic", message)
    await board(pair.a).announce("another topic", b"last")
    await until(lambda: other.messages)
    await until(lambda: len(there.messages) >= len(said) and len(here.messages) >= len(said))
    assert sorted(here.messages) == sorted(said)
    assert sorted(there.messages) == sorted(said)
    assert [m for n, m in enumerate(said) if n % 2 == 0] == [m for m in there.messages if m in said[::2]], "in order"
    assert other.messages == [b"last"]


@across_workers
async def test_who_listens_before_the_start_is_told_as_soon_as_the_store_is_connected(build: Build) -> None:
    a = build()
    b = build(place=a.place)
    heard, ended = Heard(b), Heard(b, "ended")
    ended.end()
    await a.store.start()
    await b.store.start()
    await in_step(b)
    await board(a).announce("ended", b"not heard")
    await board(a).announce("topic", b"heard")
    await until(lambda: heard.messages)
    assert (heard.messages, ended.messages) == ([b"heard"], [])


@across_workers
async def test_who_listens_no_more_is_not_told_what_others_say_and_who_listens_again_is(pair: Pair) -> None:
    ended, listens = Heard(pair.b, "ended"), Heard(pair.b)
    await in_step(pair.b)
    ended.end()
    await in_step(pair.b)
    await board(pair.a).announce("ended", b"1")
    await board(pair.a).announce("topic", b"2")
    await until(lambda: listens.messages)
    again = Heard(pair.b, "ended")
    await in_step(pair.b)
    await board(pair.a).announce("ended", b"3")
    await until(lambda: again.messages)
    assert (ended.messages, listens.messages, again.messages) == ([], [b"2"], [b"3"])


@across_workers
async def test_a_worker_that_has_gone_is_missed_by_nobody(pair: Pair) -> None:
    heard = Heard(pair.b)
    await in_step(pair.b)
    await pair.b.store.aclose()
    await board(pair.a).announce("topic", b"message")
    assert heard.messages == []


@across_workers
async def test_nothing_of_keys_values_topics_and_messages_is_kept_or_shown(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key, topic = secrets.token_hex(), secrets.token_hex()
    Heard(pair.b, topic)
    await in_step(pair.b)
    await board(pair.a).put(key, b"value", 30)
    await board(pair.a).announce(topic, b"message")
    await pair.a.store.aclose()  # that is in the file
    held = b"".join(path.read_bytes() for path in pair.a.place.iterdir() if path.is_file())
    for name in (key, topic):
        assert name.encode() not in held
        assert name not in caplog.text
    assert await board(pair.b).take(key) == b"value"


# -- each store's own


async def test_what_was_taken_from_memory_leaves_nothing_behind(clock: FakeClock) -> None:
    store = MemoryStore(clock=clock)
    for n in range(10_000):
        await store.put(str(n), b"value", 30)
        assert await store.take(str(n)) == b"value"
    held = store._board
    assert len(held) == 0
    assert held._bytes == 0
    assert len(held._expiries) <= memory_board.SMALL + 1


async def test_what_expires_in_memory_goes_with_the_next_call_and_no_other_is_looked_at(clock: FakeClock) -> None:
    store = MemoryStore(clock=clock)
    for n in range(1000):
        await store.put(str(n), b"value", 1 + n % 2)
    await clock.advance(1)
    assert await store.take("none") is None
    assert len(store._board) == 500
    assert {key for _, _, key, _ in store._board._expiries} == {str(n) for n in range(1, 1000, 2)}
    await store.aclose()
    assert len(store._board) == 0


@pytest.mark.parametrize("kind", BOUNDED, ids=lambda kind: kind.name)
def test_a_store_of_ones_own_need_not_be_a_board(kind: StoreKind) -> None:
    class Own:
        tag = "own"
        shared = False

        async def start(self) -> None: ...

    assert not isinstance(Own(), Board)
