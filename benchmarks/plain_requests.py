"""CPU of a request that is no stream, on 32 connections that are kept alive.

Where a process happens to have its memory, and how its names hash, makes a difference of up to 5 % between two runs of
the same code, which no number of rounds takes out: the bare app in a process that has Streamware imported, and does not
use it, takes from 0.99 to 1.08 times what it takes without. So the servers are started anew several times. And each is
visited briefly and often, for on a shared machine the two of a round have to be as near in time as can be.
"""

from __future__ import annotations

from .load import make_requests
from .measure import BARE, OURS, Figure, Settings, in_turn, serving
from .servers import ServerProcess

TITLE = "CPU per non-streaming request"
CONNECTIONS = 32
STARTS = 16
#: What the client accepts, and the target: a request that accepts event streams gets a task, for it may be one.
ACCEPTS: dict[str, dict[str, float]] = {"*/*": {BARE: 1.05}, "text/event-stream": {}}


async def run(settings: Settings) -> list[Figure]:
    each = settings.pick(150, 50)
    starts, rounds = settings.starts_of(STARTS, 96)
    figures: list[Figure] = []
    for loop in settings.loops:
        made = [
            Figure(f"Accept: {accept}, {loop}", "µs a request", targets=dict(targets))
            for accept, targets in ACCEPTS.items()
        ]
        for _ in range(starts):
            with serving(loop, (BARE, OURS)) as servers:
                for accept, figure in zip(ACCEPTS, made, strict=True):

                    async def visit(server: ServerProcess, accept: str = accept) -> float:
                        before = server.cpu()
                        await make_requests(server.port, "/plain", connections=CONNECTIONS, each=each, accept=accept)
                        return (server.cpu() - before) / (CONNECTIONS * each) * 1e6

                    figure.add(await in_turn(servers, rounds, visit))
        figures += made
    return figures
