"""Workers that share a ``SQLiteStore`` or a ``RedisStore``, as processes of their own: what becomes of streams when
they die or pause.

A lease of 2 s stands for that of 12; with the real one the soak shows the 15 s of the promise.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from examples import content
from tests.redis_groups import RedisCluster
from tests.redis_server import RedisServer, binaries, newest
from tests.servers.asking import Request, runs_of
from tests.servers.client import EVENTSOURCE, FETCH, ask, fetch, until
from tests.servers.launch import SERVERS, Server
from tests.servers.reading import Reading, follow, follow_until
from tests.servers.soak_cuts import cut_streams

APP = "tests.servers.shared_app:app"
LEASE = 2.0


class Workers:
    """Servers over one file, or the Redis at ``redis``, of so many workers ``each``."""

    def __init__(self, lease: float, redis: str = "", each: int = 1) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="streamware-workers-")
        self.files = Path(self._directory.name)
        self._lease = lease
        self._redis = redis
        self._each = each
        self._all = ExitStack()

    def start(self) -> Server:
        """One more."""
        uvicorn, more = SERVERS["uvicorn"], () if self._each == 1 else ("--workers", str(self._each))
        kind = replace(uvicorn, arguments=(*uvicorn.arguments, *more), workers=self._each)
        environment = {
            "STREAMWARE_FILES": str(self.files),
            "STREAMWARE_REDIS": self._redis,
            "STREAMWARE_LEASE": str(self._lease),
        }
        worker = self._all.enter_context(Server(kind, APP, environment))
        self._all.callback(self._check, worker)
        return worker

    @staticmethod
    def _check(worker: Server) -> None:
        if worker.running:
            os.kill(worker.pid, signal.SIGCONT)
        assert not worker.complaints

    def close(self) -> None:
        self._all.close()
        self._directory.cleanup()


@pytest.fixture(params=["sqlite", "redis"])
def redis(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a Redis, or a cluster, of the test's own; "" where the store is a file."""
    if request.param == "sqlite":
        yield ""
    elif request.param == "cluster":
        with RedisCluster(binaries()[newest()], patience=10_000) as cluster:
            yield cluster.url
    else:
        with RedisServer() as server:
            yield server.url


@pytest.fixture
def workers(redis: str) -> Iterator[Workers]:
    made = Workers(LEASE, redis)
    yield made
    made.close()


async def start_forever(worker: Server, run: str = "x") -> Reading:
    """A stream that runs on a worker, with nobody reading it."""
    reading = Reading()
    async with ask(worker, "GET", f"/forever?run={run}", headers=EVENTSOURCE) as exchange:
        await follow_until(exchange, reading, 3)
        exchange.cut("rst")
    return reading


async def count(worker: Server, name: str) -> int:
    _, _, body = await fetch(worker, "GET", "/counts")
    return sum(n for counted, n in json.loads(body).items() if counted.split(" ")[0] == name)


async def test_a_stream_goes_on_in_another_worker(workers: Workers) -> None:
    a, b = workers.start(), workers.start()
    request, reading = Request("eventsource", 60, 0.02), Reading()
    async with ask(a, "GET", request.target, headers=request.headers()) as exchange:
        await follow_until(exchange, reading, 10)
        exchange.cut("rst")
    reading.reconnect()
    async with ask(b, "GET", request.target, headers=request.headers(reading.cursor)) as exchange:
        assert await follow(exchange, reading)
    assert bytes(reading.body) == content.body(60)
    assert (reading.lost, reading.repeated) == (0, 0)
    assert await runs_of(b, request.run) == 1
    for worker in (a, b):
        status, _, _ = await fetch(worker, "GET", request.target, headers=request.headers(reading.cursor))
        assert status == 204


async def test_a_key_joins_the_stream_that_it_started_in_another_worker(workers: Workers) -> None:
    a, b = workers.start(), workers.start()
    request = Request("post", 40, 0.02).with_headers(("idempotency-key", "k" * 30))

    async def one(worker: Server) -> Reading:
        reading = Reading()
        async with ask(worker, "POST", request.target, headers=request.headers(), body=request.body) as exchange:
            assert await follow(exchange, reading)
        return reading

    readings = await asyncio.gather(*(one(worker) for worker in (a, b, a, b)))
    assert [bytes(reading.body) for reading in readings] == [content.body(40)] * 4
    assert await runs_of(a, request.run) == 1


async def test_a_stop_reaches_the_worker_that_produces(workers: Workers) -> None:
    a, b = workers.start(), workers.start()
    reading = await start_forever(a)
    began = time.monotonic()
    status, _, _ = await fetch(b, "DELETE", f"/forever?_stream={reading.stream}")
    assert status == 204
    assert time.monotonic() - began < 1.0
    await appears(workers.files / "cancelled-x")
    for worker in (a, b):
        status, _, _ = await fetch(worker, "DELETE", f"/forever?_stream={reading.stream}")
        assert status == 204


async def test_a_killed_workers_stream_is_closed_as_interrupted_once(workers: Workers) -> None:
    a, b, c = workers.start(), workers.start(), workers.start()
    await interrupted_by_death(a, [b, c], within=LEASE * 15 / 12)


async def interrupted_by_death(a: Server, others: list[Server], *, within: float) -> None:
    b, c = others
    reading = await start_forever(a)
    reading.reconnect()
    stranger = Reading()
    async with (
        ask(b, "GET", "/forever?run=x", headers=(*EVENTSOURCE, ("last-event-id", reading.cursor))) as like_a_browser,
        ask(c, "GET", "/forever?run=x", headers=(*FETCH, ("last-event-id", reading.cursor))) as like_a_script,
    ):
        follows = asyncio.ensure_future(follow(like_a_browser, reading))
        cut = asyncio.ensure_future(follow(like_a_script, stranger))
        await asyncio.sleep(0.3)  # so that it is in the middle of something
        os.kill(a.pid, signal.SIGKILL)
        died = time.monotonic()
        assert await follows is True, "the end, for it is told in band"
        assert await cut is False, "a visible cut"
        assert time.monotonic() - died < within
    assert [event.event for event in reading.controls] == ["streamware.interrupted"]
    assert bytes(reading.body) == content.body(len(reading.events))
    assert (reading.lost, reading.repeated) == (0, 0)
    assert stranger.last == reading.last, "both have all that there was"

    async def closed() -> int:
        return await count(b, "store.orphan_closed") + await count(c, "store.orphan_closed")

    await until(closed, 1)  # readers hear of it before its worker has counted it
    headers = (*FETCH, ("last-event-id", reading.cursor))
    for worker in others:
        status, _, body = await fetch(worker, "GET", "/forever?run=x", headers=headers)
        assert status == 410
        assert json.loads(body)["outcome"] == "interrupted"
    assert await closed() == 1, "once"


async def test_a_worker_that_blocks_its_loop_is_not_taken_for_dead(workers: Workers) -> None:
    a, b = workers.start(), workers.start()
    target = f"/events?n=20&blocks={LEASE * 1.5}"
    reading = Reading()
    async with ask(a, "GET", target, headers=EVENTSOURCE) as exchange:
        await follow_until(exchange, reading, 1)
        exchange.cut("rst")
    reading.reconnect()
    async with ask(b, "GET", target, headers=(*EVENTSOURCE, ("last-event-id", reading.cursor))) as exchange:
        assert await follow(exchange, reading)
    assert bytes(reading.body) == content.body(20)
    assert reading.controls == []
    assert await count(b, "store.orphan_closed") == 0


async def test_a_paused_worker_is_fenced_off_when_it_wakes(workers: Workers) -> None:
    a, b = workers.start(), workers.start()
    reading = await start_forever(a)
    os.kill(a.pid, signal.SIGSTOP)
    try:
        reading.reconnect()
        headers = (*EVENTSOURCE, ("last-event-id", reading.cursor))
        async with ask(b, "GET", "/forever?run=x", headers=headers) as exchange:
            assert await follow(exchange, reading)
        was_interrupted(reading)
    finally:
        os.kill(a.pid, signal.SIGCONT)
    await appears(workers.files / "cancelled-x")
    found: dict[Server, list[object]] = {}

    async def told(worker: Server) -> int:
        target = f"/forever?_stream={reading.stream}&after=0"
        status, _, body = await fetch(worker, "GET", target, headers=(("accept", "application/json"),))
        if status == 200:
            assert json.loads(body)["outcome"] == "interrupted"
            found[worker] = json.loads(body)["events"]
        else:
            assert (worker, status) == (a, 503), "what was asked of the store before the pause has taken too long"
        return status

    for worker in (a, b):
        await until(partial(told, worker), 200)
    assert found[a] == found[b]
    assert len(found[b]) <= reading.last, "nothing was added by the one that woke"


async def test_a_stop_does_not_wait_for_a_worker_that_is_paused(workers: Workers) -> None:
    a, b = workers.start(), workers.start()
    reading = await start_forever(a)
    os.kill(a.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        status, _, _ = await fetch(b, "DELETE", f"/forever?_stream={reading.stream}")
        assert status == 204
        assert time.monotonic() - began < 1.0
        headers = (*EVENTSOURCE, ("last-event-id", reading.cursor))
        async with ask(b, "GET", "/forever?run=x", headers=headers) as exchange:
            assert await follow(exchange, reading)
    finally:
        os.kill(a.pid, signal.SIGCONT)
    await appears(workers.files / "cancelled-x")


async def test_a_restart_of_all_workers_keeps_what_has_ended_and_ends_what_ran(workers: Workers) -> None:
    a, b = workers.start(), workers.start()
    request, ended = Request("eventsource", 10), Reading()
    async with ask(a, "GET", request.target, headers=request.headers()) as exchange:
        assert await follow(exchange, ended)
    running = await start_forever(b)
    for worker in (a, b):
        os.kill(worker.pid, signal.SIGKILL)
    c = workers.start()
    again = Reading()
    cursor = f"{ended.stream}.4"
    async with ask(c, "GET", request.target, headers=request.headers(cursor)) as exchange:
        assert await follow(exchange, again)
    assert bytes(again.body) == content.body(10)[len(content.body(4)) :]
    running.reconnect()
    async with ask(c, "GET", "/forever?run=x", headers=(*EVENTSOURCE, ("last-event-id", running.cursor))) as exchange:
        assert await follow(exchange, running)
    was_interrupted(running)
    assert (running.lost, running.repeated) == (0, 0)


async def test_a_worker_that_is_told_to_end_leaves_its_streams_ended(workers: Workers) -> None:
    a, b = workers.start(), workers.start()
    reading = await start_forever(a)
    a.terminate()
    reading.reconnect()
    async with ask(b, "GET", "/forever?run=x", headers=(*EVENTSOURCE, ("last-event-id", reading.cursor))) as exchange:
        assert await follow(exchange, reading)
    assert [event.event for event in reading.controls] == ["streamware.interrupted"]
    assert await count(b, "store.orphan_closed") == 0, "it has said so itself"


async def test_random_cuts_over_three_workers_of_one_server_lose_nothing(redis: str) -> None:
    made = Workers(12.0, redis, each=3)
    try:
        tally = await cut_streams(made.start(), 60, "few")
        assert tally.clean, tally.notes
        assert tally.cuts >= 60
    finally:
        made.close()


@pytest.mark.soak
@pytest.mark.parametrize("redis", ["sqlite", "redis", "cluster"], indirect=True)
async def test_a_thousand_random_cuts_over_three_workers_of_one_server_lose_nothing(redis: str) -> None:
    made = Workers(12.0, redis, each=3)
    try:
        tally = await cut_streams(made.start(), 1000, "many")
        assert tally.clean, tally.notes
    finally:
        made.close()


@pytest.mark.soak
async def test_a_killed_workers_stream_is_closed_within_15_seconds(redis: str) -> None:
    made = Workers(12.0, redis)
    try:
        await interrupted_by_death(made.start(), [made.start(), made.start()], within=15.0)
    finally:
        made.close()


@pytest.mark.soak
async def test_a_worker_that_blocks_its_loop_for_8_seconds_is_not_taken_for_dead(redis: str) -> None:
    made = Workers(12.0, redis)
    try:
        a, b = made.start(), made.start()
        reading = Reading()
        async with ask(a, "GET", "/events?n=20&blocks=8", headers=EVENTSOURCE) as exchange:
            assert await follow(exchange, reading)
        assert bytes(reading.body) == content.body(20)
        assert await count(b, "store.orphan_closed") == 0
    finally:
        made.close()


def was_interrupted(reading: Reading) -> None:
    """Told so in band; and before that, maybe, that we are ahead: with ``durability="local"`` a client may have seen an
    event a moment before the store got it, and the worker was paused or killed in that moment."""
    told = [event.event for event in reading.controls]
    assert told in (["streamware.interrupted"], ["streamware.reset", "streamware.interrupted"])


async def appears(path: Path) -> None:
    """Wait for a file that a worker makes."""
    async with asyncio.timeout(10):
        while not path.exists():
            await asyncio.sleep(0.01)
