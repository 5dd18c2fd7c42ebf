"""The board in Redis: its keys, its channels, and what becomes of both when the server is harmed or the slots move."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from streamware.exceptions import StoreFull, StoreUnavailable
from streamware.stores.backend import Announced
from streamware.stores.board import MAX_MESSAGE, hashed
from streamware.stores.redis_board import decode_notice
from tests.redis_groups import RedisCluster
from tests.redis_server import RedisServer, binaries
from tests.stores.redis.kit import Place, until
from tests.stores.redis.stores import FAST, Worker, workers

TOPIC = hashed("topic")
encode = msgspec.msgpack.encode


class Heard:
    """A listener at a worker, which the server knows of."""

    def __init__(self, worker: Worker, topic: str = "topic") -> None:
        self.messages: list[bytes] = []
        self.end = worker.store.listen(topic, self.messages.append)


async def in_step(*made: Worker) -> None:
    for worker in made:
        await until(lambda worker=worker: worker.store._board.in_step)  # type: ignore[misc]


async def until_heard(worker: Worker, heard: Heard, message: bytes) -> None:
    """Announce until it is heard: the server may be away, or not know of the listener yet."""
    since = time.monotonic()
    while message not in heard.messages:
        with contextlib.suppress(StoreUnavailable):
            await worker.store.announce("topic", message)
        await asyncio.sleep(0.02)
        assert time.monotonic() - since < 10, "never heard"


async def test_an_item_is_one_key_with_the_prefix_a_hash_and_an_expiry_until_it_is_taken(place: Place):
    a = await place.worker()
    before = place.keys().keys()
    assert await a.backend.put(hashed("a secret name"), b"value", 30) is True
    ((name, life),) = [(name, life) for name, life in place.keys().items() if name not in before]
    assert name == f"board:{hashed('a secret name')}"
    assert 29_000 < life <= 30_000
    place.pass_time(29)
    assert await a.backend.take(hashed("a secret name")) == b"value"
    kept = place.keys()
    assert not any(name.startswith("board:") for name in kept)
    await a.backend.put("x", b"value", 30)
    place.pass_time(30)
    assert await a.backend.take("x") is None


async def test_the_shortest_life_is_one_that_the_server_takes(place: Place):
    a = await place.worker()
    assert await a.backend.put("x", b"value", 1e-9) is True


async def test_listening_takes_no_connection_of_its_own(place: Place):
    a, b = await place.worker(), await place.worker()
    await a.backend.take("x")
    await b.backend.take("x")
    before = place.connections()
    await a.backend.listen([TOPIC, hashed("another")])
    await b.backend.announce(TOPIC, b"message")
    await until(lambda: a.signals)
    assert a.signals == [Announced(TOPIC, b"message")]
    assert place.connections() == before
    assert len([name for name in before if name.endswith("listen")]) == 2


async def test_what_is_no_announcement_is_passed_over(place: Place):
    a, b = await place.worker(), await place.worker()
    await a.backend.listen([TOPIC])
    channel = f"{place.prefix}topic:{TOPIC}"
    good = encode(["other", b"good"])
    for data in [
        b"",
        b"\xc1",
        b"[" * 100_000,
        b"\x91" * 100_000,  # lists within lists
        encode(None),
        encode(["other"]),
        encode(["other", 5]),
        encode([5, b"message"]),
        encode(["other", "text"]),
        encode({"worker": "other", "message": b"message"}),
        encode([b"\xff", b"message"]),
        good[:-1],
        good + b"x",
        encode(["other", b"m" * (MAX_MESSAGE + 1)]),
        encode(["other", b"m" * 10_000_000]),
        encode(["w" * 5000, b"message"]),
        encode([a.name, b"its own, which it has told itself"]),
    ]:
        with place.server.client() as client:
            client.publish(channel, data)
    await b.backend.announce(TOPIC, b"m" * MAX_MESSAGE)
    await until(lambda: a.signals)
    assert a.signals == [Announced(TOPIC, b"m" * MAX_MESSAGE)]


def test_a_notice_that_is_too_large_is_not_even_read():
    assert decode_notice(b"\xc1" * 5000) is None
    with pytest.raises(msgspec.MsgspecError):
        decode_notice(b"\xc1")


async def test_who_listens_no_more_is_subscribed_no_more(place: Place):
    a = await place.worker()
    channel = f"{place.prefix}topic:{TOPIC}"
    await a.backend.listen([TOPIC])
    assert place.server.run("PUBSUB", "NUMSUB", channel) == [channel.encode(), 1]
    await a.backend.listen([])
    await until(lambda: place.server.run("PUBSUB", "NUMSUB", channel) == [channel.encode(), 0])


@pytest.mark.parametrize("keep", [True, False], ids=["with its data", "empty"])
async def test_after_a_restart_of_the_server_workers_hear_and_take_again(own: RedisServer, keep: bool):
    async with workers(own.url, "t:") as (a, b):
        here, there = Heard(a), Heard(b)
        await in_step(a, b)
        await a.store.put("key", b"value", 60)
        if keep:
            own.run("SAVE")
        own.kill()
        with pytest.raises(StoreUnavailable):
            await a.store.announce("topic", b"while it is away")
        assert here.messages == [b"while it is away"], "who listens in the same worker is told all the same"
        for refused in (a.store.put("other", b"value", 30), b.store.take("key")):
            with pytest.raises(StoreUnavailable):
                await refused
        late = Heard(b, "listens while it is away")
        own.start() if keep else own.restart(keep=False)
        await until_heard(a, there, b"it is back")
        await in_step(b)
        await until(lambda: not b.store._writes.away)
        await a.store.announce("listens while it is away", b"heard")
        await until(lambda: late.messages)
        assert await b.store.take("key") == (b"value" if keep else None)
        assert b"while it is away" not in there.messages


async def test_a_server_that_does_not_answer_holds_nobody_up(own: RedisServer):
    async with workers(own.url, "t:", 1) as (a,):
        await a.store.put("key", b"value", 60)
        heard = Heard(a)
        own.stall()
        since = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await a.store.take("key")
        with pytest.raises(StoreUnavailable):
            await a.store.put("key", b"value", 60)
        with pytest.raises(StoreUnavailable):
            await a.store.announce("topic", b"message")
        assert time.monotonic() - since < 2 * FAST.operation + 0.5, "after the first they fail at once, but for one try"
        assert heard.messages == [b"message"]
        own.resume()


async def test_a_server_without_room_takes_nothing_more_and_gives_what_it_has(own: RedisServer):
    async with workers(own.url, "t:", 1) as (a,):
        await a.store.put("key", b"value", 60)
        own.run("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(StoreFull):
            await a.store.put("other", b"value", 60)
        assert await a.store.take("key") == b"value"
        assert await a.store.take("other") is None


# -- a cluster


@pytest.fixture(scope="module", params=list(binaries()))
def cluster(request: pytest.FixtureRequest) -> Iterator[RedisCluster]:
    path: Path = binaries()[request.param]
    with RedisCluster(path) as made:
        yield made


async def test_items_and_topics_spread_over_a_cluster(cluster: RedisCluster):
    async with workers(cluster.url, "spread:") as (a, b):
        names = [f"topic {n}" for n in range(12)]
        heard = [Heard(b, name) for name in names]
        await in_step(b)
        for name in names:
            await a.store.announce(name, name.encode())
            await a.store.put(name, name.encode(), 30)
        await until(lambda: all(one.messages for one in heard))
        assert [one.messages for one in heard] == [[name.encode()] for name in names]
        held = [node.run("KEYS", "spread:board:*") for node in cluster.nodes]
        assert all(held)
        for name in names:
            taken = await asyncio.gather(*(one.store.take(name) for one in (a, b) * 3))
            assert [value for value in taken if value is not None] == [name.encode()]


async def test_a_topic_whose_slot_moves_is_heard_where_it_is_then(cluster: RedisCluster):
    async with workers(cluster.url, "moves:") as (a, b):
        heard = Heard(b)
        await in_step(b)
        await a.store.put("key", b"value", 60)
        await until_heard(a, heard, b"before")
        for name in (f"moves:topic:{TOPIC}", f"moves:board:{hashed('key')}"):
            home = cluster.holder(name)
            cluster.move(name, next(node for node in cluster.nodes if node is not home))
        await until_heard(a, heard, b"after")
        assert await b.store.take("key") == b"value"
