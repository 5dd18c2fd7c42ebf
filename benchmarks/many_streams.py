"""CPU per event of many streams at a realistic pace, each with its own client.

Every event is another stream's than the one before, so that what belongs to a stream is no longer in the processor's
caches when its turn comes: each object that an event touches costs more than with one stream alone. ``numbered`` shows
how much of that is the price of keeping events at all.
"""

from __future__ import annotations

import asyncio

from .load import PATIENCE, Lost, open_streams
from .measure import BARE, Figure, Settings, in_turn, serving
from .servers import FLOOR, VARIANTS, ServerProcess

TITLE = "CPU per event, many live streams"
#: Streams, events a second of each, and what the ratio to the bare app is to be at most.
LOADS = ((500, 20, 1.2), (1000, 50, None))
#: How long a visit is measured.
SECONDS = 2
#: As with plain requests (``plain_requests.py``), a server that is started anew is another one, by some percent.
STARTS = 4


async def run(settings: Settings) -> list[Figure]:
    starts, rounds = settings.starts_of(STARTS, 16)
    loop = settings.loops[0]
    loads = [Load(streams, rate, target, loop) for streams, rate, target in LOADS]
    for _ in range(starts):
        with serving(loop, (*VARIANTS, FLOOR)) as servers:
            for load in loads:
                load.figure.add(await in_turn(servers, rounds, load.visit, warm=False))
    return [load.figured() for load in loads]


class Load:
    """So many streams at such a rate, and what was measured of them."""

    def __init__(self, streams: int, rate: int, target: float | None, loop: str) -> None:
        self._streams = streams
        self._rate = rate
        self._delivered: dict[str, list[float]] = {}
        label = f"{streams:,} streams, {rate} events/s each, {loop}"
        self.figure = Figure(label, "µs an event", targets={BARE: target} if target else {})

    async def visit(self, server: ServerProcess) -> float:
        """µs of CPU an event."""
        cost, delivered = await paced(server, self._streams, self._rate, SECONDS)
        self._delivered.setdefault(server.variant, []).append(delivered)
        return cost

    def figured(self) -> Figure:
        """What came of all visits."""
        rates = ", ".join(f"{variant} {max(each):,.0f}" for variant, each in self._delivered.items())
        self.figure.note = f"delivered a second, of {self._streams * self._rate:,}: {rates}"
        return self.figure


async def paced(server: ServerProcess, streams: int, rate: int, seconds: int) -> tuple[float, float]:
    """µs of CPU an event, and events delivered a second, measured while all of so many streams are under way.

    :raises Lost: a stream was not whole.
    """
    count = rate * (seconds + 3)  # enough for that, however slowly they begin
    clients = await open_streams(server.port, f"/paced?count={count}&rate={rate}", streams)
    clock = asyncio.get_running_loop()
    await asyncio.sleep(0.5)
    events, cpu, began = sum(client.events for client in clients), server.cpu(), clock.time()
    await asyncio.sleep(seconds)
    events, cpu = sum(client.events for client in clients) - events, server.cpu() - cpu
    delivered = events / (clock.time() - began)
    await asyncio.wait_for(asyncio.gather(*(client.ended for client in clients)), PATIENCE)
    for client in clients:
        client.close()
    if any(client.events != count for client in clients):
        raise Lost("a stream is not whole")
    return cpu / events * 1e6, delivered
