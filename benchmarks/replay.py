"""CPU per event of a finished stream that is read again from its first event.

The bare app and the peer keep nothing: for them the same client costs the app's whole run once more.
"""

from __future__ import annotations

from .load import StreamClient, read_stream
from .measure import BARE, OURS, PEER, Figure, Settings, in_turn, serving
from .servers import ServerProcess

TITLE = "Replay of a log of 5,000 events"
EVENTS = 5_000
#: Replays in one visit.
TIMES = 10


async def run(settings: Settings) -> list[Figure]:
    figures: list[Figure] = []
    path = f"/burst?count={EVENTS}"
    for loop in settings.loops:
        with serving(loop) as servers:
            first: StreamClient = await read_stream(servers[OURS].port, path, EVENTS)
            cursor = first.header("content-location").removeprefix("?_stream=") + ".0"

            async def visit(server: ServerProcess, cursor: str = cursor) -> float:
                headers = {"Last_Event_ID": cursor} if server.variant == OURS else {}
                before = server.cpu()
                for _ in range(TIMES):
                    await read_stream(server.port, path, EVENTS, **headers)
                return (server.cpu() - before) / (TIMES * EVENTS) * 1e6

            values = await in_turn(servers, settings.rounds_of(10), visit)
            figure = Figure(f"replay, {loop}", "µs an event", values)
            rate = 1e6 / figure.median(OURS)
            figure.note = f"{OURS} replays {rate:,.0f} events a second of CPU; {BARE} and {PEER} run the app again"
            figures.append(figure)
    return figures
