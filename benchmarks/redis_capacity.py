"""What one Redis carries: its CPU an event, at loads that tell batching apart, and its memory an event and a stream.

CPU is that of the Redis process alone, of streams that nobody reads elsewhere and of streams that are all read at
another worker. Memory is what the server says of its data, per stream of so many events; the ratio is to the bytes that
the app has sent.
"""

from __future__ import annotations

import asyncio
import contextlib

import redis

from examples.cluster.redis_server import RedisServer

from .load import HOST, PATIENCE, StreamClient, all_ended, events_of, open_streams, request
from .measure import OURS, Figure, Settings
from .servers import PAYLOADS, ServerProcess, cpu_of

TITLE = "What one Redis carries"
#: Streams and events a second of each.
LOADS = ((1000, 2), (1000, 10), (400, 50))
#: Events of a stream whose memory is weighed, and the app's stream that sends them: at once, or 50 a second.
WEIGHED = (("burst", 1), ("burst", 100), ("paced", 100), ("burst", 1000))
EVENT_BYTES = len(PAYLOADS[0]) + len("data: \n\n")
#: Redis allocates a node for the first entry of a stream, whatever is in it; how large is an option of the server.
DEFAULT = "as Redis comes"
NODES: dict[str, dict[str, str]] = {DEFAULT: {}, "stream-node-max-bytes 512": {"stream_node_max_bytes": "512"}}
ALONE, ELSEWHERE = "nobody elsewhere", "all read elsewhere"


async def run(settings: Settings) -> list[Figure]:
    loop = settings.loops[0]
    figures = [await cpu(settings, loop, streams, rate) for streams, rate in LOADS]
    return [*figures, *await memory(settings, loop)]


async def cpu(settings: Settings, loop: str, streams: int, rate: int) -> Figure:
    seconds = settings.pick(5, 2)
    values: dict[str, list[float]] = {ALONE: [], ELSEWHERE: []}
    for _ in range(settings.rounds_of(3)):
        for variant, taken in values.items():
            with contextlib.ExitStack() as stack:
                server = stack.enter_context(RedisServer())
                here, there = (stack.enter_context(ServerProcess(OURS, loop, server.url)) for _ in range(2))
                clients = await open_streams(
                    here.port, f"/paced?count={rate * (seconds + 30)}&rate={rate}", streams, at_once=20
                )
                followers = await follow(there, clients) if variant == ELSEWHERE else []
                await asyncio.sleep(1)
                events, before = events_of(clients), cpu_of(server.pid)
                await asyncio.sleep(seconds)
                events, used = events_of(clients) - events, cpu_of(server.pid) - before
                taken.append(used / events * 1e6)
                for client in (*clients, *followers):
                    client.close()
    figure = Figure(f"{streams:,} streams, {rate} events/s each, {loop}", "µs of Redis an event", values, base=ALONE)
    rates = ", ".join(f"{variant} {1e6 / figure.median(variant):,.0f}" for variant in values)
    figure.note = f"events a second of one core of Redis: {rates}"
    return figure


async def follow(server: ServerProcess, clients: list[StreamClient]) -> list[StreamClient]:
    """A reader for each at another worker."""
    clock = asyncio.get_running_loop()
    followers: list[StreamClient] = []
    for client in clients:
        place = client.header("content-location")
        head = request(f"/paced{place}", last_event_id=f"{place.removeprefix('?_stream=')}.0")
        _, follower = await clock.create_connection(lambda head=head: StreamClient(head), HOST, server.port)
        followers.append(follower)
    await asyncio.wait_for(asyncio.gather(*(follower.begun for follower in followers)), PATIENCE)
    return followers


async def memory(settings: Settings, loop: str) -> list[Figure]:
    streams = settings.pick(500, 100)
    figures = []
    for kind, count in WEIGHED:
        values: dict[str, list[float]] = {}
        for name, options in NODES.items():
            with RedisServer(**options) as server, ServerProcess(OURS, loop, server.url) as worker:
                await weigh(server, worker, kind, count, 1)  # what is allocated once
                rounds = settings.rounds_of(3)
                values[name] = [await weigh(server, worker, kind, count, streams) for _ in range(rounds)]
        label = f"{count:,} events of {EVENT_BYTES} B a stream, " + ("at once" if kind == "burst" else "50 a second")
        figure = Figure(label, "bytes a stream", values, base=DEFAULT)
        ratios = ", ".join(f"{figure.median(name) / (count * EVENT_BYTES):.2f} ({name})" for name in values)
        figure.note = f"times the bytes of the events: {ratios}" if count > 1 else ""
        figures.append(figure)
    return figures


async def weigh(server: RedisServer, worker: ServerProcess, kind: str, count: int, streams: int) -> float:
    before = used(server)
    clients = await open_streams(worker.port, f"/{kind}?count={count}&rate=50", streams, at_once=20)
    await all_ended(clients, count)
    await asyncio.sleep(0.5)  # the last write is on its way for some milliseconds
    return (used(server) - before) / streams


def used(server: RedisServer) -> int:
    with redis.Redis(port=server.port) as client:
        told = client.info("memory")
        assert isinstance(told, dict)
        return int(told["used_memory_dataset"]) + int(told["used_memory_overhead"]) - _connections(told)


def _connections(told: dict[str, int]) -> int:
    """What the buffers of clients take, which comes and goes."""
    return int(told.get("mem_clients_normal", 0))
