"""Token budgets of several processes on one Redis: together they use no more than there is, but for what is stated."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from dataclasses import replace

from streamware import Limit, RedisLimitStorage
from tests.middleware.budget_app import LIMIT, PROMPT, WORDS
from tests.redis_server import PATIENCE, RedisServer
from tests.servers.client import ask, whole
from tests.servers.launch import SERVERS, Server

APP = "tests.middleware.budget_app:budgeted"
WORKERS = 4
STREAMS = 24


async def talk(server: Server) -> int:
    """Tokens of one stream, by the last that it said; 0 where it was refused."""
    async with ask(server, "GET", "/") as exchange:
        if exchange.status == 429:
            return 0
        assert exchange.status == 200
        body = await whole(exchange)
    *events, error, rest = body.split(b"\n\n")
    assert rest == b""
    assert b"rate_limit_exceeded" in error
    usage = json.loads(events[-1][6:])["usage"]
    assert usage["completion_tokens"] == WORDS * len(events)
    return PROMPT + int(usage["completion_tokens"])


async def charged(redis: RedisServer) -> int:
    storage = RedisLimitStorage(redis.url, timeout=PATIENCE)
    limit = Limit(10 * LIMIT, 3600, counter="all tokens")
    taken = await storage.take("own:all", (limit,), (0,))
    await storage.aclose()
    return limit.amount - taken.standings[0].remaining


async def test_the_overshoot_of_four_workers_is_within_its_bound_and_all_of_it_is_charged():
    kind = replace(SERVERS["uvicorn"], arguments=(*SERVERS["uvicorn"].arguments, "--lifespan", "off"))
    with ExitStack() as all_of_them:
        redis = all_of_them.enter_context(RedisServer())
        servers = [
            all_of_them.enter_context(Server(kind, APP, {"STREAMWARE_REDIS": redis.url})) for _ in range(WORKERS)
        ]

        used = await asyncio.gather(*(talk(servers[n % WORKERS]) for n in range(STREAMS)))

        running = sum(1 for each in used if each)
        assert running > WORKERS
        # What a stream used beyond its grant when it was cut off: one message, which was made and paid for already.
        assert LIMIT <= sum(used) <= LIMIT + running * WORDS
        async with asyncio.timeout(PATIENCE):
            while await charged(redis) != sum(used):
                await asyncio.sleep(0.02)
        assert await asyncio.gather(*(talk(server) for server in servers)) == [0] * WORKERS
        assert not any(server.complaints for server in servers)
