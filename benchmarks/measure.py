"""What a measurement is, and how rounds over several servers are run and compared."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from .servers import VARIANTS, ServerProcess

#: The variant that the others are measured against.
BARE = "starlette"
OURS = "streamware"
PEER = "sse-starlette"


@dataclass(frozen=True)
class Settings:
    """``quick``: small enough to see that all works; its figures are rough."""

    quick: bool = False
    rounds: int | None = None
    loops: tuple[str, ...] = ("uvloop", "asyncio")

    def pick(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def rounds_of(self, full: int) -> int:
        return self.rounds or self.pick(full, 2)

    def starts_of(self, starts: int, rounds: int) -> tuple[int, int]:
        """How often to start the servers anew, and how many of the rounds each start gets."""
        starts = self.pick(starts, 1)
        return starts, -(-self.rounds_of(rounds) // starts)


@dataclass
class Figure:
    """One line of a table. ``values``: by variant, one for each round. ``targets``: by variant, what the ratio of ours
    to it is to be at most. ``base``: the variant that the others are measured against; where it is not the bare app,
    ``targets`` says of each variant what its ratio to the base is to be at most, and ``bounds`` what its value is."""

    label: str
    unit: str
    values: dict[str, list[float]] = field(default_factory=dict)
    targets: dict[str, float] = field(default_factory=dict)
    note: str = ""
    base: str = BARE
    bounds: dict[str, float] = field(default_factory=dict)

    def add(self, values: dict[str, list[float]]) -> None:
        """Take in more rounds."""
        for variant, more in values.items():
            self.values.setdefault(variant, []).extend(more)

    def median(self, variant: str) -> float:
        return statistics.median(self.values[variant])

    def ratios(self, variant: str, base: str) -> list[float]:
        """Round by round, for only those of one round saw the same machine."""
        return [one / other for one, other in zip(self.values[variant], self.values[base], strict=True)]


@contextlib.contextmanager
def serving(loop: str, variants: tuple[str, ...] = VARIANTS) -> Iterator[dict[str, ServerProcess]]:
    """A server for each variant."""
    with contextlib.ExitStack() as stack:
        yield {variant: stack.enter_context(ServerProcess(variant, loop)) for variant in variants}


async def in_turn(
    servers: dict[str, ServerProcess],
    rounds: int,
    visit: Callable[[ServerProcess], Awaitable[float]],
    *,
    warm: bool = True,
) -> dict[str, list[float]]:
    """``visit`` each server once a round, beginning with another one each time; ``warm``: once before, uncounted."""
    values: dict[str, list[float]] = {variant: [] for variant in servers}
    order = list(servers)
    if warm:
        for server in servers.values():
            await visit(server)
    for _ in range(rounds):
        for variant in order:
            values[variant].append(await visit(servers[variant]))
        order.append(order.pop(0))
    return values
