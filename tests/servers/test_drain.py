"""SIGTERM with streams open, on real servers: what can end does, what cannot goes on elsewhere, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest
import websockets.asyncio.client
import websockets.exceptions

from examples import content
from tests.servers.client import EVENTSOURCE, FETCH, Exchange, Headers, begin, fetch
from tests.servers.draining import HYPERCORN_WORKER, SERVERS
from tests.servers.launch import Server
from tests.servers.reading import Reading, follow, follow_until

APP = "tests.servers.draining:app"
#: It cancels every call at once when it hears the signal: nothing can be finished there.
ALL_BUT_DAPHNE = [name for name in SERVERS if name != "daphne"]
CLIENTS: dict[str, Headers] = {"eventsource": EVENTSOURCE, "script": FETCH, "unlogged": (("accept", "*/*"),)}
N = 40


@contextmanager
def serving(name: str, *, grace: float, deadline: float, store: Path | None = None) -> Iterator[Server]:
    env = {"DRAIN_GRACE": str(grace), "DRAIN_DEADLINE": str(deadline), "DRAIN_STORE": str(store or "")}
    with Server(SERVERS[name], APP, env) as server:
        yield server


class Client:
    """One client of one stream."""

    def __init__(self, name: str, n: int, delay: float) -> None:
        self.name = name
        self.n = n
        self.target = f"/events?n={n}&delay={delay}"
        self.method = "POST" if name == "script" else "GET"
        self.reading = Reading()
        self.exchange: Exchange | None = None
        self.complete = False

    async def start(self, server: Server, stack: AsyncExitStack) -> None:
        """Open the stream, and read three events of it."""
        await self._ask(server, CLIENTS[self.name], stack)
        assert self.exchange is not None
        await follow_until(self.exchange, self.reading, 3)

    async def follow(self) -> None:
        """Read to the end of the connection."""
        assert self.exchange is not None
        self.complete = await follow(self.exchange, self.reading)

    async def resume(self, server: Server, stack: AsyncExitStack) -> None:
        """Come back, and read to the end."""
        self.reading.reconnect()
        await self._ask(server, (*CLIENTS[self.name], ("last-event-id", self.reading.cursor)), stack)
        assert self.exchange is not None
        assert self.exchange.status == 200
        await self.follow()

    async def _ask(self, server: Server, headers: Headers, stack: AsyncExitStack) -> None:
        self.exchange = await begin(server, self.method, self.target, headers=headers)
        stack.push_async_callback(self.exchange.aclose)
        await self.exchange.head()

    @property
    def is_whole(self) -> bool:
        reading = self.reading
        return bytes(reading.body) == content.body(self.n) and (reading.lost, reading.repeated) == (0, 0)


async def started(server: Server, stack: AsyncExitStack, names: list[str], *, n: int, delay: float) -> list[Client]:
    clients = [Client(name, n, delay) for name in names]
    await asyncio.gather(*(client.start(server, stack) for client in clients))
    return clients


async def ended(server: Server, within: float) -> None:
    await asyncio.to_thread(server.ended, within)
    assert "Traceback" not in server.log, server.log[-4000:]


@pytest.mark.parametrize("name", ALL_BUT_DAPHNE)
async def test_streams_that_end_before_the_deadline_are_delivered_whole(name: str) -> None:
    with serving(name, grace=0.2, deadline=8) as server:
        async with AsyncExitStack() as stack:
            clients = await started(server, stack, [*CLIENTS] * 3, n=N, delay=0.03)
            server.terminate()
            await asyncio.gather(*(client.follow() for client in clients))
            for client in clients:
                assert client.complete
                assert client.is_whole
                assert client.reading.controls == []
            await ended(server, 4)


@pytest.mark.parametrize("name", ALL_BUT_DAPHNE)
async def test_what_outlasts_the_deadline_never_looks_complete(name: str) -> None:
    with serving(name, grace=0.2, deadline=1) as server:
        async with AsyncExitStack() as stack:
            clients = await started(server, stack, [*CLIENTS] * 3, n=10_000, delay=0.03)
            server.terminate()
            await asyncio.gather(*(client.follow() for client in clients))
            await ended(server, 4)

    for client in clients:
        told = [control.event for control in client.reading.controls]
        events = client.reading.events
        if client.name == "eventsource":
            assert client.complete
            assert told == ["streamware.interrupted"]
        elif client.name == "script" and server.kind.cuts:
            assert not client.complete
        else:
            assert client.complete
            assert events[-1].event == "error"
            assert json.loads(events[-1].data)["error"]["type"].startswith("streamware.")


@pytest.mark.parametrize("name", SERVERS)
async def test_clients_go_on_at_another_worker_and_lose_nothing(name: str, tmp_path: Path) -> None:
    store = tmp_path / "logs.db"
    with (
        serving(name, grace=0.2, deadline=8, store=store) as old,
        serving("uvicorn", grace=0.2, deadline=8, store=store) as new,
    ):
        names = ["eventsource"] * 4 + ["script"] * 4 * old.kind.cuts
        async with AsyncExitStack() as stack:
            clients = await started(old, stack, names, n=N, delay=0.03)
            old.terminate()
            await asyncio.gather(*(client.follow() for client in clients))
            cut = [client for client in clients if not client.is_whole]
            if name != "daphne":  # it ends its producers with their connections
                assert cut == clients
            for client in cut:
                if client.name == "eventsource" and name != "daphne":
                    assert client.complete
                    assert 100 <= (client.reading.retry or 0) <= 300
            await asyncio.gather(*(client.resume(new, stack) for client in cut))
            for client in clients:
                if name == "daphne":
                    assert (client.reading.lost, client.reading.repeated) == (0, 0)
                else:
                    assert client.is_whole
                    assert client.complete
            await ended(old, 8)
            _, _, runs = await fetch(new, "GET", "/runs")
            assert json.loads(runs)["labels"].get("", 0) == 1  # the question itself


async def test_where_no_signal_is_heard_clients_are_cut_and_lose_nothing(tmp_path: Path) -> None:
    store = tmp_path / "logs.db"
    env = {"DRAIN_GRACE": "0.2", "DRAIN_DEADLINE": "8", "DRAIN_STORE": str(store)}
    with (
        Server(HYPERCORN_WORKER, APP, env) as old,
        serving("uvicorn", grace=0.2, deadline=8, store=store) as new,
    ):
        async with AsyncExitStack() as stack:
            clients = await started(old, stack, ["eventsource"] * 4 + ["script"] * 4, n=100, delay=0.03)
            old.terminate()
            await asyncio.gather(*(client.follow() for client in clients))
            cut = [client for client in clients if not client.is_whole]
            # From 3.12 on asyncio's server waits for its connections, and hypercorn's worker with it.
            assert len(cut) == len(clients) or sys.version_info >= (3, 12)
            await asyncio.gather(*(client.resume(new, stack) for client in cut))
            assert all(client.is_whole and client.complete for client in clients)
            await asyncio.to_thread(old.ended, 8)


@pytest.mark.parametrize("name", [name for name, kind in SERVERS.items() if not kind.http2])
async def test_a_websocket_is_closed_and_told_that_it_may_come_back(name: str) -> None:
    with serving(name, grace=0.2, deadline=2) as server:
        async with websockets.asyncio.client.connect(f"ws://127.0.0.1:{server.port}/", proxy=None) as socket:
            await socket.send("here")
            assert await socket.recv() == "here"
            server.terminate()
            with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                await asyncio.wait_for(socket.recv(), 5)
        code = closed.value.rcvd.code if closed.value.rcvd is not None else None
        assert code in {"daphne": (None,), "granian": (1012, None)}.get(name, (1012,))
        await ended(server, 4)


@pytest.mark.parametrize("name", SERVERS)
async def test_readiness_is_answered(name: str) -> None:
    with serving(name, grace=0.2, deadline=2) as server:
        status, _, body = await fetch(server, "GET", "/ready")
        assert (status, body) == (200, b'{"status":"serving"}')
        server.terminate()
        await ended(server, 4)
