"""Workers that are replaced under load, behind one port and over one store: no event lost, none twice, no run twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.servers.client import Cut, fetch
from tests.servers.draining import ROLLING
from tests.servers.launch import Server
from tests.servers.test_drain import APP, Client, started

ROUNDS = 3


async def follow_through(client: Client, server: Server, stack: AsyncExitStack) -> int:
    """Read the stream to its end, over as many connections as it takes: how many those were."""
    await client.follow()
    connections = 1
    while not client.is_whole:
        assert connections < 50, "a client that gets nowhere"
        if client.reading.retry is not None and client.complete:
            await asyncio.sleep(client.reading.retry / 1000)  # as its server has asked for
        try:
            await client.resume(server, stack)
        except (Cut, ConnectionError):
            await asyncio.sleep(0.05)  # as any client that cannot connect
        connections += 1
    return connections


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.soak if name == "uvicorn-limited" else ()) for name in ROLLING]
)
async def test_streams_outlive_the_workers_that_serve_them(name: str, tmp_path: Path) -> None:
    env = {"DRAIN_GRACE": "0.1", "DRAIN_DEADLINE": "10", "DRAIN_STORE": str(tmp_path / "logs.db")}
    with Server(ROLLING[name], APP, env) as server:
        async with AsyncExitStack() as stack:
            clients = await started(server, stack, ["eventsource"] * 12 + ["script"] * 12, n=150, delay=0.03)
            reading = [asyncio.create_task(follow_through(client, server, stack)) for client in clients]
            for _ in range(ROUNDS):
                if name == "reloading":
                    os.kill(server.pid, signal.SIGHUP)
                    await asyncio.sleep(1.2)
                else:
                    for _ in range(40):
                        with contextlib.suppress(Cut, OSError):  # uvicorn closes what it has accepted and not read
                            await fetch(server, "GET", "/plain")
                        await asyncio.sleep(0.01)
            connections = await asyncio.wait_for(asyncio.gather(*reading), 40)

        for client in clients:
            assert client.is_whole
            assert client.reading.controls == []
        if name != "gunicorn-limited":  # it has no time-out of its own: streams end by themselves
            assert sum(connections) > len(clients)
        own = server.log.count("CancelledError: Task cancelled, timeout graceful shutdown exceeded")
        assert server.log.count("Traceback") == own, server.log[-4000:]
