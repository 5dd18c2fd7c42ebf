"""CPU per event of one stream with one client: in a burst, and with a yield to the loop after each event.

Both with a client that never sleeps and with one that waits for each event: see ``load``.
"""

from __future__ import annotations

from .load import read_alone
from .measure import BARE, PEER, Figure, Settings, in_turn, serving
from .servers import ServerProcess

TITLE = "CPU per event, one stream"
TARGETS = {"burst": {BARE: 0.4, PEER: 0.25}, "live": {BARE: 1.3}}


#: As with plain requests (``plain_requests.py``), a server that is started anew is another one, by some percent.
STARTS = 5


async def run(settings: Settings) -> list[Figure]:
    count = settings.pick(30_000, 5_000)
    starts, rounds = settings.starts_of(STARTS, 15)
    figures: dict[str, Figure] = {}
    for loop in settings.loops:
        for _ in range(starts):
            with serving(loop) as servers:
                for kind, targets in TARGETS.items():
                    for awake in (True, False):

                        async def visit(server: ServerProcess, kind: str = kind, awake: bool = awake) -> float:
                            before = server.cpu()
                            read_alone(server.port, f"/{kind}?count={count}", count, awake=awake)
                            return (server.cpu() - before) / count * 1e6

                        label = f"{kind}, {loop}, client {'awake' if awake else 'waiting'}"
                        figure = figures.setdefault(label, Figure(label, "µs an event", targets=dict(targets)))
                        figure.add(await in_turn(servers, rounds, visit))
    return list(figures.values())
