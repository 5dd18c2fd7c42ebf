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


async def run(settings: Settings) -> list[Figure]:
    seconds = settings.pick(5, 2)
    figures: list[Figure] = []
    loop = settings.loops[0]
    with serving(loop, (*VARIANTS, FLOOR)) as servers:
        for streams, rate, target in LOADS:
            delivered: dict[str, list[float]] = {variant: [] for variant in servers}

            async def visit(
                server: ServerProcess,
                streams: int = streams,
                rate: int = rate,
                delivered: dict[str, list[float]] = delivered,
            ) -> float:
                # Enough to be still under way when the measurement ends, however slowly they begin.
                count = rate * (seconds + 3)
                clients = await open_streams(server.port, f"/paced?count={count}&rate={rate}", streams)
                clock = asyncio.get_running_loop()
                await asyncio.sleep(0.5)
                events, cpu, began = sum(client.events for client in clients), server.cpu(), clock.time()
                await asyncio.sleep(seconds)
                events, cpu = sum(client.events for client in clients) - events, server.cpu() - cpu
                delivered[server.variant].append(events / (clock.time() - began))
                await asyncio.wait_for(asyncio.gather(*(client.ended for client in clients)), PATIENCE)
                for client in clients:
                    client.close()
                if any(client.events != count for client in clients):
                    raise Lost("a stream is not whole")
                return cpu / events * 1e6

            values = await in_turn(servers, settings.rounds_of(4), visit, warm=False)
            rates = ", ".join(f"{variant} {max(each):,.0f}" for variant, each in delivered.items())
            note = f"delivered a second, of {streams * rate:,}: {rates}"
            label = f"{streams:,} streams, {rate} events/s each, {loop}"
            figures.append(Figure(label, "µs an event", values, {BARE: target} if target else {}, note))
    return figures
