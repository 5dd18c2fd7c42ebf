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
    figures: list[Figure] = []
    for loop in settings.loops:
        cases = [Case(loop, kind, awake, count) for kind in TARGETS for awake in (True, False)]
        for _ in range(starts):
            with serving(loop) as servers:
                for case in cases:
                    case.figure.add(await in_turn(servers, rounds, case.visit))
        figures += [case.figure for case in cases]
    return figures


class Case:
    """One kind of stream, of ``count`` events, and of client."""

    def __init__(self, loop: str, kind: str, awake: bool, count: int) -> None:
        label = f"{kind}, {loop}, client {'awake' if awake else 'waiting'}"
        self.figure = Figure(label, "µs an event", targets=dict(TARGETS[kind]))
        self._kind, self._awake, self._count = kind, awake, count

    async def visit(self, server: ServerProcess) -> float:
        """µs of CPU an event."""
        before = server.cpu()
        read_alone(server.port, f"/{self._kind}?count={self._count}", self._count, awake=self._awake)
        return (server.cpu() - before) / self._count * 1e6
