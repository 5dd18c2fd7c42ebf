"""CPU per event of many streams at a realistic pace, each with its own client.

Every event is another stream's than the one before, so that what belongs to a stream is no longer in the processor's
caches when its turn comes: each object that an event touches costs more than with one stream alone. ``numbered`` shows
how much of that is the price of keeping events at all.

What an event costs depends on what else the machine does, and that changes within seconds, by more than what is to be
seen. So the streams of all servers are open at once, and active in turns of a fifth of a second: one server works while
the others are silent, and what it took in a round of some turns is compared with what the others took in the same.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from .load import StreamClient, all_ended, events_of, open_streams
from .measure import BARE, Figure, Settings, serving
from .servers import FLOOR, TURN, VARIANTS, ServerProcess, turn_at, until_turn

TITLE = "CPU per event, many live streams"
#: Streams, events a second of each, and what the ratio to the bare app is to be at most.
LOADS = ((500, 20, 1.2), (1000, 50, None))
#: As with plain requests (``plain_requests.py``), a server that is started anew is another one, by some percent.
STARTS = 6
#: Turns of each server in a round.
TURNS = 5
#: Seconds at a turn's beginning and end that are not measured: other streams end, or begin.
MARGIN = 0.03


async def run(settings: Settings) -> list[Figure]:
    starts, rounds = settings.starts_of(STARTS, 48)
    loop = settings.loops[0]
    figures: list[Figure] = []
    for streams, rate, target in LOADS:
        label = f"{streams:,} streams, {rate} events/s each, {loop}"
        figure = Figure(label, "µs an event", targets={BARE: target} if target else {})
        delivered: dict[str, list[float]] = {}
        for _ in range(starts):
            with serving(loop, (*VARIANTS, FLOOR)) as servers:
                figure.add(await in_turns(servers, streams, rate, rounds, delivered))
        rates = ", ".join(f"{variant} {max(each):,.0f}" for variant, each in delivered.items())
        figure.note = f"delivered a second, of {streams * rate:,}: {rates}"
        figures.append(figure)
    return figures


async def in_turns(
    servers: dict[str, ServerProcess], streams: int, rate: int, rounds: int, delivered: dict[str, list[float]]
) -> dict[str, list[float]]:
    """µs of CPU an event, by variant and round; into ``delivered``, events a second.

    :raises Lost: a stream was not whole.
    """
    count = int(rate * TURN * (rounds * TURNS + 1))
    clients: dict[str, list[StreamClient]] = {}
    for turn, (variant, server) in enumerate(servers.items()):
        clients[variant] = await open_streams(
            server.port, f"/turns?count={count}&rate={rate}&turn={turn}&of={len(servers)}", streams
        )
    values: dict[str, list[float]] = {variant: [] for variant in servers}
    for _ in range(rounds):
        spent = {variant: Spent() for variant in servers}
        for _ in range(TURNS):
            for turn, (variant, server) in enumerate(servers.items()):
                await amid(turn, len(servers))
                await spent[variant].add_turn(server, clients[variant])
        for variant, each in spent.items():
            values[variant].append(each.cpu / each.events * 1e6)
            delivered.setdefault(variant, []).append(each.events / each.seconds)
    await all_ended([client for each in clients.values() for client in each], count)
    return values


@dataclass
class Spent:
    """What a round of one server took. ``cpu`` and ``seconds`` in seconds."""

    cpu: float = 0.0
    events: int = 0
    seconds: float = 0.0

    async def add_turn(self, server: ServerProcess, clients: list[StreamClient]) -> None:
        """Measure until shortly before the turn ends."""
        cpu, events, began = server.cpu(), events_of(clients), time.monotonic()
        await asyncio.sleep(TURN - MARGIN - began % TURN)
        self.cpu += server.cpu() - cpu
        self.events += events_of(clients) - events
        self.seconds += time.monotonic() - began


async def amid(turn: int, of: int) -> None:
    """Wait for the next turn of a server, and let it begin."""
    await asyncio.sleep(until_turn(turn, of) + MARGIN)
    while turn_at() % of != turn:  # overslept
        await asyncio.sleep(until_turn(turn, of) + MARGIN)
