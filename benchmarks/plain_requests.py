"""CPU of a request that is no stream, on 32 connections that are kept alive."""

from __future__ import annotations

from .load import make_requests
from .measure import BARE, OURS, Figure, Settings, in_turn, serving
from .servers import ServerProcess

TITLE = "CPU per non-streaming request"
CONNECTIONS = 32
#: What the client accepts, and the target: a request that accepts event streams gets a task, for it may be one.
ACCEPTS: dict[str, dict[str, float]] = {"*/*": {BARE: 1.05}, "text/event-stream": {}}


async def run(settings: Settings) -> list[Figure]:
    each = settings.pick(300, 50)
    figures: list[Figure] = []
    for loop in settings.loops:
        with serving(loop, (BARE, OURS)) as servers:
            for accept, targets in ACCEPTS.items():

                async def visit(server: ServerProcess, accept: str = accept) -> float:
                    before = server.cpu()
                    await make_requests(server.port, "/plain", connections=CONNECTIONS, each=each, accept=accept)
                    return (server.cpu() - before) / (CONNECTIONS * each) * 1e6

                values = await in_turn(servers, settings.rounds_of(15), visit)
                figures.append(Figure(f"Accept: {accept}, {loop}", "µs a request", values, dict(targets)))
    return figures
