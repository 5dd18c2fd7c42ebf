"""What it costs to keep streams in a shared store, and how soon another worker has what was appended.

The cost is the worker's CPU an event, as in ``many_streams``, with each store; the store's own server is not in it.
Delivery is from the making of an event in one worker to its arrival at a client of another, of some streams among many.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator

from tests.redis_server import RedisServer

from .load import HOST, Lost, StreamClient, all_ended, events_of, open_streams, request
from .measure import OURS, Figure, Settings, in_turn
from .servers import ServerProcess

TITLE = "Shared stores"
SQLITE, REDIS = "streamware, SQLiteStore", "streamware, RedisStore"
#: Streams, and events a second of each: more than one worker can send to its own clients, and what two workers, a
#: client and a Redis can carry on two processors without waiting for each other.
STREAMS, RATE = 1000, 50
CALM = ((200, 20), (1000, 10))
#: So many of the streams are read at the other worker.
ELSEWHERE = 50
ALLOWED = {SQLITE: 1.3, REDIS: 1.5}
#: What delivery may take, in ms, at the 99th percentile.
SOON = 50.0


@contextlib.contextmanager
def places() -> Iterator[dict[str, str]]:
    """Where each store keeps its logs."""
    with tempfile.TemporaryDirectory(prefix="streamware-") as directory, RedisServer() as redis:
        yield {OURS: "", SQLITE: f"{directory}/streams.db", REDIS: redis.url}


async def run(settings: Settings) -> list[Figure]:
    loop = settings.loops[0]
    with places() as stores:
        calm = [await delivery(settings, loop, stores, streams, rate) for streams, rate in CALM]
        full = await delivery(settings, loop, stores, STREAMS, RATE, detached=True)
        return [await cost(settings, loop, stores), *calm, full]


async def cost(settings: Settings, loop: str, stores: dict[str, str]) -> Figure:
    seconds = settings.pick(5, 2)
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(ServerProcess(OURS, loop, store)) for name, store in stores.items()}

        async def visit(server: ServerProcess) -> float:
            count = RATE * (seconds + 3)  # enough for that, however slowly they begin
            clients = await open_streams(server.port, f"/paced?count={count}&rate={RATE}", STREAMS)
            await asyncio.sleep(0.5)
            events, cpu = events_of(clients), server.cpu()
            await asyncio.sleep(seconds)
            events, cpu = events_of(clients) - events, server.cpu() - cpu
            await all_ended(clients, count)
            return cpu / events * 1e6

        values = await in_turn(servers, settings.rounds_of(4), visit, warm=False)
    label = f"{STREAMS:,} streams, {RATE} events/s each, {loop}"
    return Figure(label, "µs an event", values, ALLOWED, base=OURS)


class TimedClient(StreamClient):
    """Notes how old each event is when it comes, in ms."""

    def __init__(self, head: bytes) -> None:
        super().__init__(head)
        self.ages: list[float] = []

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        super().data_received(data)
        for block in data.split(b"data: ")[1:]:
            if block[:20].isdigit():
                self.ages.append((now - int(block[:20])) / 1e6)


async def delivery(
    settings: Settings, loop: str, stores: dict[str, str], streams: int, rate: int, *, detached: bool = False
) -> Figure:
    """``detached``: the clients that began the streams leave, and all that the producing worker does is to append."""
    seconds = settings.pick(5, 2)
    values: dict[str, list[float]] = {}
    medians: dict[str, float] = {}
    clock = asyncio.get_running_loop()
    for name in (SQLITE, REDIS):
        with ServerProcess(OURS, loop, stores[name]) as here, ServerProcess(OURS, loop, stores[name]) as there:

            async def visit(
                server: ServerProcess, here: ServerProcess = here, there: ServerProcess = there
            ) -> list[float]:
                count = rate * (seconds + 6)
                clients = await open_streams(here.port, f"/timed?count={count}&rate={rate}", streams)
                followers: list[TimedClient] = []
                for client in clients[:ELSEWHERE]:
                    place = client.header("content-location")
                    head = request(f"/timed{place}", last_event_id=_first_id(client))
                    _, made = await clock.create_connection(lambda head=head: TimedClient(head), HOST, there.port)
                    followers.append(made)
                await asyncio.sleep(1)
                if detached:
                    for client in clients:
                        client.close()
                    clients = []
                    await asyncio.sleep(1)
                begun = [len(follower.ages) for follower in followers]
                await asyncio.sleep(seconds)
                ages = [age for follower, first in zip(followers, begun, strict=True) for age in follower.ages[first:]]
                await all_ended([*clients, *followers])
                return ages

            rounds = [await visit(here) for _ in range(settings.rounds_of(3))]
        values[name] = [statistics.quantiles(ages, n=100)[98] for ages in rounds]
        medians[name] = statistics.median(age for ages in rounds for age in ages)
    half = ", ".join(f"{name} {median:.1f}" for name, median in medians.items())
    kind = "detached streams" if detached else "streams"
    label = f"delivery at another worker, 99th percentile, {streams:,} {kind} of {rate} events/s, {loop}"
    note = f"of {ELSEWHERE} streams among them; half of the events within, in ms: {half}"
    return Figure(label, "ms", values, note=note, base=OURS, bounds={SQLITE: SOON, REDIS: SOON})


def _first_id(client: StreamClient) -> str:
    """The id of the first event that a client has had."""
    for line in client.opening.decode("latin-1").splitlines():
        if line.startswith("id: "):
            return line[4:]
    raise Lost("no id in what came first")
