"""``ThrottleMiddleware`` on a Redis that goes away: what is refused, what goes on, and what is left behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from streamware import CountingObserver, RedisLimitStorage, ThrottleMiddleware
from streamware.testing import Connection, WebSocketConnection
from streamware.types import Receive, Scope, Send
from tests.redis_server import PATIENCE, RedisServer

EVENTSOURCE = {"accept": "text/event-stream", "cache-control": "no-cache"}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


class Place:
    """A throttle over ``redis``, and an app that streams until it is told to end."""

    def __init__(self, redis: RedisServer, *, timeout: float = 2.0, **options: Any) -> None:
        self.redis = redis
        self.observer = CountingObserver()
        self.storage = RedisLimitStorage(redis.url, timeout=timeout)
        self.throttle = ThrottleMiddleware(self.app, storage=self.storage, observer=self.observer, **options)
        self.end = asyncio.Event()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message["text"]})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        if scope["path"] == "/stream":
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
            await self.end.wait()
            await send({"type": "http.response.body", "body": b"data: 2\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def ask(self, path: str = "/", **options: Any) -> Connection:
        async with Connection(self.throttle, path=path, **options) as connection:
            await connection.finished()
            return connection


@pytest.fixture
async def places(server: RedisServer) -> AsyncIterator[Any]:
    if not server._serves():
        server.restart(keep=False)
    server.run("FLUSHALL")
    made: list[Place] = []

    async def make(**options: Any) -> Place:
        place = Place(server, **options)
        await place.throttle.startup()
        made.append(place)
        return place

    yield make
    for place in made:
        await place.throttle.aclose()
        await place.storage.aclose()


@pytest.mark.parametrize(
    ("policy", "statuses"), [("allow", [200] * 6), ("deny", [503] * 6), ("local", [200, 200, 429, 429, 429, 429])]
)
async def test_killed_in_the_middle_each_policy_does_what_it_says_and_no_stream_breaks(
    places: Any, policy: str, statuses: list[int]
):
    place = await places(limits="4/minute", concurrent=9, on_store_error=policy, expected_workers=2)
    async with Connection(place.throttle, path="/stream") as stream:
        await stream.events(1)
        place.redis.kill()

        assert [(await place.ask()).status for _ in range(6)] == statuses
        place.end.set()
        await stream.finished()
        assert stream.body == b"data: 1\n\ndata: 2\n\n"
        assert stream.complete
        if policy == "deny":
            refused = await place.ask(headers=EVENTSOURCE)
            assert refused.status == 200
            assert refused.body.startswith(b"retry: ")
            assert place.observer.counts["throttle.refused", "store"] == 7


async def test_redis_is_never_asked_for_the_same_thing_twice(places: Any):
    place = await places(limits="10/minute", on_store_error="allow", timeout=0.3)
    assert (await place.ask()).header("ratelimit") == '"10/minute";r=9;t=60'
    place.redis.stall()
    for _ in range(5):
        assert (await place.ask()).status == 200
    place.redis.resume()

    other = await places(limits="10/minute", on_store_error="deny")
    balance = (await other.ask()).header("ratelimit")

    # Three had been asked for before it was left alone; they were taken late, but once.
    assert (balance or "").startswith('"10/minute";r=5;')


async def test_a_websocket_goes_on_without_its_limits(places: Any):
    place = await places(messages="2/hour", on_store_error="deny")
    async with WebSocketConnection(place.throttle) as socket:
        await socket.start()
        socket.send("1")
        assert await socket.receive() == "1"
        place.redis.kill()
        for n in range(5):
            socket.send(str(n))
            assert await socket.receive() == str(n)
        socket.close()
        await socket.finished()


async def test_a_message_whose_waiter_gave_up_while_it_was_counted_is_not_lost_nor_counted_twice(places: Any):
    place = await places(messages="2/hour", timeout=PATIENCE)
    got: list[str] = []
    stalled, gave_up = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await stalled.wait()
        try:
            await asyncio.wait_for(receive(), 0.05)
        except TimeoutError:
            gave_up.set()
        while (message := await receive())["type"] == "websocket.receive":
            got.append(message["text"])

    place.throttle.app = app
    async with WebSocketConnection(place.throttle) as socket:
        await socket.start()
        place.redis.stall()
        for n in range(3):
            socket.send(str(n))
        stalled.set()
        await gave_up.wait()
        place.redis.resume()
        assert await socket.closing() == 1008
        await socket.finished()
    assert got == ["0", "1"]


async def test_who_is_cancelled_while_redis_hangs_leaves_no_lease_behind(places: Any):
    place = await places(concurrent=1)
    place.redis.stall()
    asking = [Connection(place.throttle) for _ in range(2)]
    for connection in asking:
        connection.open()
        await asyncio.sleep(0)
        connection.cancel()
        await connection.aclose()
    place.redis.resume()

    async with asyncio.timeout(PATIENCE):
        while place.throttle._desk.leases._freed or place.throttle._desk.leases._telling:
            await asyncio.sleep(0.01)
    assert place.redis.run("KEYS", "*") == []


async def test_three_hundred_cancelled_together_free_three_hundred(places: Any):
    place = await places(concurrent=300, key=lambda scope: "all", lease=60)
    running = [Connection(place.throttle, path="/stream") for _ in range(300)]
    for connection in running:
        connection.open()
    for connection in running:
        await connection.events(1)
    assert (await place.ask()).status == 429

    for connection in running:
        connection.cancel()
    for connection in running:
        await connection.aclose()

    async with asyncio.timeout(PATIENCE):
        while place.redis.run("KEYS", "*"):
            await asyncio.sleep(0.01)


async def in_line(place: Any) -> None:
    """Until somebody waits for a place."""
    while not place.throttle._desk.queue.waiting:
        await asyncio.sleep(0.01)


async def test_who_waits_in_line_when_redis_goes_is_told_at_once(places: Any):
    place = await places(concurrent=1, queue=3, queue_timeout=60.0, on_store_error="deny", key=lambda scope: "all")
    async with Connection(place.throttle, path="/stream") as running, Connection(place.throttle) as waiting:
        await running.events(1)
        waiting.open()
        async with asyncio.timeout(PATIENCE):
            await in_line(place)
            place.redis.kill()
            await waiting.finished()
        assert waiting.status == 503
        assert place.observer.counts["throttle.degraded", "deny"] == 1
        place.end.set()
        await running.finished()


async def test_a_line_goes_on_by_this_workers_own_counters_while_redis_is_away(places: Any):
    place = await places(concurrent=1, queue=3, queue_timeout=60.0, expected_workers=1, key=lambda scope: "all")
    place.redis.kill()
    async with Connection(place.throttle, path="/stream") as running, Connection(place.throttle) as waiting:
        await running.events(1)
        waiting.open()
        async with asyncio.timeout(PATIENCE):
            await in_line(place)
            place.end.set()
            await running.finished()
            await waiting.finished()
        assert waiting.status == 200


async def test_a_worker_starts_while_redis_is_away(server: RedisServer, places: Any):
    server.kill()
    place = await places(limits="1/minute", body="openai", on_store_error="deny")
    refused = await place.ask()
    assert refused.status == 503
    assert json.loads(refused.body)["error"]["code"] == "service_unavailable"
