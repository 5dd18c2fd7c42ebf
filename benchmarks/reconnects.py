"""CPU of a reconnect: a connection, a request with a cursor, and the first event behind it. It decides how fast clients
get back after a deploy: see ``storm``.

With the ``MemoryStore`` it is a stream of the worker's own that is read on; with the others another worker's.
"""

from __future__ import annotations

import asyncio
import contextlib

from .load import HOST, PATIENCE, StreamClient, open_streams, request
from .measure import OURS, Figure, Settings
from .servers import ServerProcess
from .shared_stores import REDIS, SQLITE, places

TITLE = "What a reconnect costs"
STREAMS = 500
AT_ONCE = 50


async def run(settings: Settings) -> list[Figure]:
    loop = settings.loops[0]
    values: dict[str, list[float]] = {}
    with places() as stores:
        for name in (OURS, SQLITE, REDIS):
            with contextlib.ExitStack() as stack:
                here = stack.enter_context(ServerProcess(OURS, loop, stores[name]))
                there = here if name == OURS else stack.enter_context(ServerProcess(OURS, loop, stores[name]))
                clients = await open_streams(here.port, "/paced?count=3600&rate=1", STREAMS)
                heads = [
                    request(f"/paced{place}", last_event_id=f"{place.removeprefix('?_stream=')}.0")
                    for place in (client.header("content-location") for client in clients)
                ]
                await reconnect(there.port, heads)  # what is allocated once
                rounds = settings.rounds_of(5)
                values[name] = [await cost(there, heads) for _ in range(rounds)]
                for client in clients:
                    client.close()
    figure = Figure(f"{STREAMS} clients, {AT_ONCE} at a time, {loop}", "µs a reconnect", values, base=OURS)
    rates = ", ".join(f"{name} {1e6 / figure.median(name):,.0f}" for name in values)
    figure.note = f"reconnects a second of CPU: {rates}"
    return [figure]


async def cost(server: ServerProcess, heads: list[bytes]) -> float:
    before = server.cpu()
    await reconnect(server.port, heads)
    return (server.cpu() - before) / len(heads) * 1e6


async def reconnect(port: int, heads: list[bytes]) -> None:
    """One connection for each, left as soon as its first event has come."""
    clock = asyncio.get_running_loop()
    left = iter(heads)

    async def one_by_one() -> None:
        for head in left:
            _, client = await clock.create_connection(lambda head=head: StreamClient(head), HOST, port)
            await asyncio.wait_for(client.begun, PATIENCE)
            client.close()

    await asyncio.gather(*(one_by_one() for _ in range(AT_ONCE)))
