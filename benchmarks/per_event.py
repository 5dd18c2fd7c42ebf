"""CPU per event of one stream with one client: in a burst, and with a yield to the loop after each event.

Both with a client that never sleeps and with one that waits for each event: see ``load``.
"""

from __future__ import annotations

from .load import read_alone
from .measure import BARE, PEER, Figure, Settings, in_turn, serving
from .servers import ServerProcess

TITLE = "CPU per event, one stream"
TARGETS = {"burst": {BARE: 0.4, PEER: 0.25}, "live": {BARE: 1.3}}


async def run(settings: Settings) -> list[Figure]:
    count = settings.pick(30_000, 5_000)
    figures: list[Figure] = []
    for loop in settings.loops:
        with serving(loop) as servers:
            for kind, targets in TARGETS.items():
                for awake in (True, False):

                    async def visit(server: ServerProcess, kind: str = kind, awake: bool = awake) -> float:
                        before = server.cpu()
                        read_alone(server.port, f"/{kind}?count={count}", count, awake=awake)
                        return (server.cpu() - before) / count * 1e6

                    values = await in_turn(servers, settings.rounds_of(11), visit)
                    label = f"{kind}, {loop}, client {'awake' if awake else 'waiting'}"
                    figures.append(Figure(label, "µs an event", values, dict(targets)))
    return figures
