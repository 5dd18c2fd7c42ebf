"""CPU per event of one stream with one client: in a burst, and with a yield to the loop after each event."""

from __future__ import annotations

from .load import read_stream
from .measure import BARE, PEER, Figure, Settings, in_turn, serving
from .servers import ServerProcess

TITLE = "CPU per event, one stream"
TARGETS = {"burst": {BARE: 0.4, PEER: 0.25}, "live": {BARE: 1.3}}


async def run(settings: Settings) -> list[Figure]:
    count = settings.pick(30_000, 5_000)
    figures: list[Figure] = []
    for loop in settings.loops:
        with serving(loop) as servers:
            for kind in ("burst", "live"):

                async def visit(server: ServerProcess, kind: str = kind) -> float:
                    before = server.cpu()
                    await read_stream(server.port, f"/{kind}?count={count}", count)
                    return (server.cpu() - before) / count * 1e6

                values = await in_turn(servers, settings.rounds_of(15), visit)
                figures.append(Figure(f"{kind}, {loop}", "µs an event", values, TARGETS[kind]))
    return figures
