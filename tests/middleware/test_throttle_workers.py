"""Throttles of several processes on one Redis: they count together, and what a dead one held is free again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace

import pytest

from tests.middleware.throttled_app import LEASE
from tests.redis_server import RedisServer
from tests.servers.client import ask
from tests.servers.launch import SERVERS, Server

APP = "tests.middleware.throttled_app:limited"
WORKERS = 4


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def servers(redis: RedisServer) -> Iterator[list[Server]]:
    kind = replace(SERVERS["uvicorn"], arguments=(*SERVERS["uvicorn"].arguments, "--lifespan", "off"))
    with ExitStack() as all_of_them:
        started = [
            all_of_them.enter_context(Server(kind, APP, {"STREAMWARE_REDIS": redis.url})) for _ in range(WORKERS)
        ]
        yield started
        assert not any(server.complaints for server in started)


async def count(server: Server, times: int) -> list[int]:
    statuses: list[int] = []
    for _ in range(times):
        async with ask(server, "GET", "/count") as exchange:
            statuses.append(exchange.status)
    return statuses


async def test_sixty_four_clients_at_once_on_four_workers_get_exactly_the_limit(
    redis: RedisServer, servers: list[Server]
):
    redis.run("FLUSHALL")
    for server in servers:  # connected
        await count(server, 1)
    redis.run("FLUSHALL")

    answers = await asyncio.gather(*(count(servers[n % WORKERS], 4) for n in range(64)))

    statuses = [status for each in answers for status in each]
    assert len(statuses) == 256
    assert statuses.count(200) == 100
    assert statuses.count(429) == 156


async def test_the_leases_of_a_killed_worker_are_free_when_their_time_is_over(
    redis: RedisServer, servers: list[Server]
):
    redis.run("FLUSHALL")
    dying, other = servers[0], servers[1]
    async with AsyncExitStack() as held, ask(other, "GET", "/hold") as kept:
        for _ in range(2):
            assert (await held.enter_async_context(ask(dying, "GET", "/hold"))).status == 200
        async with ask(other, "GET", "/hold") as refused:
            assert refused.status == 429
        await asyncio.sleep(2 * LEASE)  # longer than a lease lives that is not renewed
        async with ask(other, "GET", "/hold") as refused:
            assert refused.status == 429

        os.kill(dying.pid, signal.SIGKILL)
        killed = time.monotonic()
        status = 429
        while status == 429 and time.monotonic() - killed < 10 * LEASE:
            async with ask(other, "GET", "/hold") as exchange:
                status = exchange.status
            await asyncio.sleep(0.02)

        assert status == 200
        assert time.monotonic() - killed <= LEASE + 3.0
        assert kept.status == 200
    dying.stop()
    dying.start()


async def test_a_stream_goes_on_while_redis_is_away_and_what_is_freed_meanwhile_is_free(
    redis: RedisServer, servers: list[Server]
):
    redis.run("FLUSHALL")
    async with ask(servers[1], "GET", "/hold") as held:
        assert held.status == 200
        redis.kill()
        async with ask(servers[1], "GET", "/hold") as local:  # the share of a worker is one, and that is had
            assert local.status == 200
        redis.restart(keep=False)
        give_up = time.monotonic() + 20
        while not (redis.run("KEYS", "*") or time.monotonic() > give_up):
            await asyncio.sleep(0.05)
        assert redis.run("KEYS", "*"), "the lease that is still held was never renewed"
        assert not held.broken
