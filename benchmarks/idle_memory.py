"""Resident memory of a connection that has had one event and waits for the next."""

from __future__ import annotations

import resource

from .load import StreamClient, open_streams
from .measure import BARE, Figure, Settings, serving
from .servers import VARIANTS, ServerProcess

TITLE = "Memory of an idle connection"


async def run(settings: Settings) -> list[Figure]:
    # Server and client need a descriptor each; servers inherit the limit.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sizes = (500,) if settings.quick else (2_000, 10_000)
    loop = settings.loops[0]
    figures = [
        Figure(f"{size:,} connections, {loop}", "KiB each", {v: [] for v in VARIANTS}, {BARE: 1.3}) for size in sizes
    ]
    for _ in range(settings.rounds_of(3)):
        for variant in VARIANTS:
            with serving(loop, (variant,)) as servers:  # a fresh one: memory is hardly ever given back
                for figure, each in zip(figures, await fill(servers[variant], sizes), strict=True):
                    figure.values[variant].append(each)
    return figures


async def fill(server: ServerProcess, sizes: tuple[int, ...]) -> list[float]:
    """KiB a connection at each size, one after the other in the same process."""
    for client in await open_streams(server.port, "/burst?count=1", 10):  # what is allocated once
        client.close()
    empty = server.memory()
    clients: list[StreamClient] = []
    values = []
    for size in sizes:
        clients += await open_streams(server.port, "/idle?count=2", size - len(clients))
        values.append((server.memory() - empty) / 1024 / size)
    for client in clients:
        client.close()
    return values
