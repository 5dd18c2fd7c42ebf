"""Dropped streams leave nothing behind: tasks, timers, logs, files, objects and memory are back where they began.

The server forgets a stream half a second after its last reader, and its tombstone half a second later.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from typing import Any

import pytest

from tests.servers.client import EVENTSOURCE, FETCH, Headers, begin, fetch
from tests.servers.launch import SERVERS, Server
from tests.servers.reading import Reading
from tests.servers.wire import Cut

MIB = 1024 * 1024
AT_ONCE = 50
ROUND = 500
WAYS = ("dropped at once", "dropped in the head", "dropped in the stream", "dropped and resumed", "stopped")


async def look(server: Server) -> dict[str, Any]:
    return dict(json.loads((await fetch(server, "GET", "/inside", headers=(("connection", "close"),)))[2]))


async def drop_one(server: Server, draw: random.Random) -> None:
    """Start a stream that would go on for minutes, and be gone."""
    way = draw.choice(WAYS)
    headers: Headers = EVENTSOURCE
    if draw.random() < 0.5:
        headers = (*FETCH, ("idempotency-key", secrets.token_urlsafe(24)))
    target, reading = "/events?n=10000&delay=0.05", Reading()
    cut_after = {"dropped at once": 0, "dropped in the head": draw.randrange(1, 150)}.get(way)
    exchange = await begin(server, "GET", target, headers=headers, cut_after=cut_after)
    try:
        await exchange.head()
        while not reading.cursor:
            data = await exchange.read()
            assert data, f"answered {exchange.status} and ended, without an id: {exchange.headers}"
            reading.feed(data)
        exchange.cut(draw.choice(["rst", "fin"]))
    except Cut:
        return
    finally:
        await exchange.aclose()
    if way == "dropped and resumed":
        again = await begin(server, "GET", target, headers=(*headers, ("last-event-id", reading.cursor)))
        await again.head()
        again.cut("rst")
        await again.aclose()
    elif way == "stopped":
        status, _, _ = await fetch(server, "DELETE", f"/events?_stream={reading.stream}")
        assert status == 204


async def drop(server: Server, count: int, seed: int) -> None:
    draw, left = random.Random(seed), count

    async def go_on() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await drop_one(server, draw)

    await asyncio.gather(*(go_on() for _ in range(AT_ONCE)))


async def drop_in_rounds(server: Server, count: int, seed: int) -> None:
    """Not more at once than a round, so that every round takes as much as any other."""
    for i in range(count // ROUND):
        await drop(server, ROUND, seed * 1000 + i)
        await settled(server, None)
    await asyncio.sleep(1.0)  # tombstones, which are not counted, live half a second more


async def settled(server: Server, before: dict[str, Any] | None) -> dict[str, Any]:
    """What there is once every stream is forgotten; or, after 15 seconds, what there still is."""
    now: dict[str, Any] = {}
    for _ in range(75):
        now = await look(server)
        if not now["logs"] and (before is None or not grown(before, now)):
            break
        await asyncio.sleep(0.2)
    return now


def grown(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """What there is more of than before. A connection that is just closing may hold a task or two of the server's."""
    allowed = {"tasks": 2, "timers": 2, "logs": 0, "log_bytes": 0, "files": 2, "threads": 0, "objects": 600}
    return {name: (before[name], now[name]) for name, more in allowed.items() if now[name] > before[name] + more}


async def check(kind: str, count: int) -> None:
    with Server(SERVERS[kind], "tests.servers.apps:leaking") as server:
        # Rounds before the first look: what the streams of one round take, the allocator keeps for those of the next.
        # hypercorn's HTTP/2 needs more of them to come to rest (measured: flat from 2,000 streams to 14,000).
        await drop_in_rounds(server, (8 if server.kind.http2 else 2) * ROUND, 1)
        before = await look(server)

        await drop_in_rounds(server, count, 2)
        after = await settled(server, before)

        assert not grown(before, after), after["task_names"]
        assert after["rss"] - before["rss"] < (16 if server.kind.http2 else 8) * MIB
        assert not server.complaints


@pytest.mark.parametrize("kind", ["uvicorn-h11", "hypercorn", "granian"])
async def test_1_000_dropped_streams_leave_nothing_behind(kind: str) -> None:
    await check(kind, 1_000)


@pytest.mark.soak
@pytest.mark.parametrize("kind", SERVERS)
async def test_10_000_dropped_streams_leave_nothing_behind(kind: str) -> None:
    await check(kind, 10_000)
