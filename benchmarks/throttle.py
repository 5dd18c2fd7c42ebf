"""What a limit costs: a hit in memory by the number of live keys, a hit in Redis, and a whole request.

Memory and requests are CPU of this process, all of its threads; Redis is time on the clock, of one request at a time,
since what a request waits for is the round trip. The peers are slowapi and what it counts with, the ``limits`` package:
its storages for threads, as slowapi uses them, and for asyncio. With three limits they ask three times.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import limits
import limits.aio
from limits.aio.strategies import FixedWindowRateLimiter as AsyncWindow
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter as Window
from slowapi import Limiter
from slowapi.middleware import SlowAPIASGIMiddleware
from slowapi.util import get_remote_address
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from examples.cluster.redis_server import RedisServer
from streamware import Limit, MemoryLimitStorage, RedisLimitStorage, ThrottleMiddleware
from streamware.types import ASGIApp, Message

from .measure import BARE, OURS, Figure, Settings

TITLE = "What a limit costs"
THREADS, ASYNC = "limits, as in slowapi", "limits for asyncio"
SLOWAPI = "slowapi"
#: Hits are so many at a time between two looks at the clock.
BATCH = 200
LOTS = 1_000_000

Hit = Callable[[str], Awaitable[object]]


async def run(settings: Settings) -> list[Figure]:
    logging.getLogger("limits").setLevel(logging.ERROR)
    keys = [1000, settings.pick(100_000, 10_000)]
    figures = [await in_memory(settings, count) for count in keys]
    with RedisServer() as server:
        figures += [await in_redis(settings, server.url, count) for count in (1, 3)]
    return [*figures, await requests(settings)]


async def in_memory(settings: Settings, keys: int) -> Figure:
    """A hit on one limit, each on another of ``keys`` that are all live."""
    ours, own = MemoryLimitStorage(), (Limit(LOTS, 3600),)
    item = limits.parse(f"{LOTS}/hour")
    threads = Window(storage_from_string("memory://"))
    tasks = AsyncWindow(limits.aio.storage.MemoryStorage())

    async def in_thread(key: str) -> object:
        return threads.hit(item, key)

    async def in_task(key: str) -> None:
        await tasks.hit(item, key)
        await asyncio.sleep(0)  # as in a server, else the task never runs with which it looks for what has expired

    hits: dict[str, Hit] = {OURS: lambda key: ours.take(key, own, (1,)), THREADS: in_thread, ASYNC: in_task}
    names = [f"ip:10.0.{n // 250}.{n % 250}" for n in range(keys)]
    for hit in (hits[OURS], hits[THREADS]):
        for name in names:
            await hit(name)
    # Through the front door this one takes minutes: each hit looks at all keys.
    storage: Any = tasks.storage
    for name in names:
        storage.storage[item.key_for(name)] = 1
        storage.expirations[item.key_for(name)] = time.time() + 3600
    spread = itertools.cycle(names[:: max(1, keys // 997)])
    values = await in_turn(settings, hits, lambda: next(spread), time.process_time, slow={ASYNC: 5})
    return Figure(f"in memory, {keys:,} live keys", "µs a hit", values, base=OURS, bounds={OURS: 6.0})


async def in_redis(settings: Settings, url: str, count: int) -> Figure:
    """A hit on ``count`` limits of one key, after another."""
    ours = RedisLimitStorage(url, timeout=5.0)
    own = [Limit(LOTS, 3600 * n) for n in range(1, count + 1)]
    costs = [1] * count
    items = [limits.parse(f"{LOTS} per {n} hours") for n in range(1, count + 1)]
    threads = Window(storage_from_string(url))
    tasks = AsyncWindow(limits.aio.storage.RedisStorage(f"async+{url}", implementation="redispy"))

    async def in_thread(key: str) -> object:
        return [threads.hit(item, key) for item in items]

    async def in_task(key: str) -> object:
        return [await tasks.hit(item, key) for item in items]

    hits: dict[str, Hit] = {OURS: lambda key: ours.take(key, own, costs), THREADS: in_thread, ASYNC: in_task}
    values = await in_turn(settings, hits, lambda: "ip:10.0.0.1", time.perf_counter)
    await ours.aclose()
    figure = Figure(f"in Redis, {count} limit{'s' if count > 1 else ''}", "µs a hit", values, base=OURS)
    figure.note = "on the clock, one after the other; the one for threads blocks the loop for as long"
    return figure


async def requests(settings: Settings) -> Figure:
    """A whole request through an app in this process, without a server."""

    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    def starlette() -> Starlette:
        return Starlette(routes=[Route("/", endpoint)])

    peer = starlette()
    peer.state.limiter = Limiter(key_func=get_remote_address, default_limits=[f"{LOTS}/hour"], headers_enabled=True)
    peer.add_middleware(SlowAPIASGIMiddleware)
    apps: dict[str, ASGIApp] = {
        BARE: starlette(),
        OURS: ThrottleMiddleware(starlette(), limits=f"{LOTS}/hour", key="ip"),
        f"{OURS}, with concurrent=": ThrottleMiddleware(starlette(), limits=f"{LOTS}/hour", key="ip", concurrent=9),
        SLOWAPI: peer,
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        return None

    def hit(app: ASGIApp) -> Hit:
        async def ask(host: str) -> None:
            scope = {
                "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": "/",
                "raw_path": b"/", "root_path": "", "query_string": b"", "scheme": "http", "headers": [],
                "client": (host, 50000), "server": ("127.0.0.1", 80),
            }  # fmt: skip
            await app(scope, receive, send)

        return ask

    hosts = itertools.cycle([f"10.0.{n // 250}.{n % 250}" for n in range(1000)])
    values = await in_turn(settings, {name: hit(app) for name, app in apps.items()}, lambda: next(hosts),
                           time.process_time)  # fmt: skip
    for app in apps.values():
        if isinstance(app, ThrottleMiddleware):
            await app.aclose()
    return Figure("a request in process, 1,000 clients", "µs a request", values, targets={SLOWAPI: 1.0})


async def in_turn(
    settings: Settings,
    hits: dict[str, Hit],
    key: Callable[[], str],
    clock: Callable[[], float],
    slow: dict[str, int] | None = None,
) -> dict[str, list[float]]:
    """Microseconds a hit, of each in turn. ``slow``: those of which fewer are enough."""
    values: dict[str, list[float]] = {name: [] for name in hits}
    gc.collect()
    for turn in range(settings.rounds_of(15) + 1):  # the first is not counted
        for name, hit in hits.items():
            times = (slow or {}).get(name, BATCH * settings.pick(5, 1))
            names = [key() for _ in range(times)]
            began = clock()
            for each in names:
                await hit(each)
            if turn:
                values[name].append((clock() - began) / times * 1e6)
    return values
