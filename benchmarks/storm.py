"""Reconnect storms, simulated: ``python -m benchmarks.storm`` prints the tables of docs/scaling.md.

What is modelled. At time 0 the connections of some workers end, all at once. Each client comes back after its
reconnection time, drawn by the policy under test, to a worker that is left, round-robin. A worker takes reconnects in
the order in which they came, ``rate`` a second. Nobody gives up while waiting: what queues are accepted connections,
and browsers wait for minutes. With ``patience`` clients give up after so many seconds and come back after another
reconnection time, and the worker has had the work all the same.

What is said of each: ``peak``, the most reconnects a second that one worker was asked for, in any tenth of a second, as
a multiple of what it can take; ``busy``, the seconds for which a worker had nothing but reconnects to do, so that its
live streams waited; ``half`` and ``last``, the seconds until half and 99 % of the clients had their streams again.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

#: Reconnects a second that one worker can take beside its live streams: half of what ``reconnects`` measures of a core.
RATE = 1000.0
BUCKET = 0.1
QUANTILE = 0.99
#: Attempts a client after which a storm is taken to be one without end.
MOST = 10

Policy = Callable[[random.Random], float]


def spread(retry: float, part: float) -> Policy:
    """``retry`` seconds, ``part`` of it either way, evenly."""
    return lambda draw: retry * draw.uniform(1 - part, 1 + part)


POLICIES: dict[str, Policy] = {
    "3 s, none": spread(3.0, 0.0),
    "3 s ± a quarter": spread(3.0, 0.25),
    "3 s ± a half": spread(3.0, 0.5),
    "3 s ± all of it": spread(3.0, 1.0),
    "6 s ± a half": spread(6.0, 0.5),
}


@dataclass(frozen=True, slots=True)
class Storm:
    """``clients`` a worker, on ``workers``, of which ``lost`` end their connections and do not come back in time;
    ``restarted``: they do, so that all connections end and all workers are there for them, as when a balancer restarts.
    """

    name: str
    clients: int
    workers: int
    lost: int
    restarted: bool = False
    patience: float = float("inf")

    @property
    def left(self) -> int:
        return self.workers if self.restarted else self.workers - self.lost


STORMS = (
    Storm("a deploy: one of 10 workers", 10_000, 10, 1),
    Storm("a deploy: one of 4 workers", 2_500, 4, 1),
    Storm("a deploy: one of 4 workers", 10_000, 4, 1),
    Storm("a deploy: one of 2 workers", 1_000, 2, 1),
    Storm("a deploy: one of 2 workers", 2_500, 2, 1),
    Storm("a deploy: one of 2 workers", 10_000, 2, 1),
    Storm("the balancer restarts", 10_000, 4, 4, restarted=True),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """See the module. ``attempts``: connections made, by client."""

    peak: float
    busy: float
    half: float
    last: float
    attempts: float


def simulate(storm: Storm, policy: Policy, *, rate: float = RATE, seed: int = 1) -> Outcome:
    """One storm under one policy."""
    draw = random.Random(seed)
    clients = storm.clients * storm.lost
    arrivals = [(policy(draw), number % storm.left) for number in range(clients)]
    heapq.heapify(arrivals)
    free = [0.0] * storm.left  # when each worker has done what it was asked for
    busy = [0.0] * storm.left
    asked: dict[tuple[int, int], int] = {}
    back: list[float] = []
    attempts = 0
    while arrivals:
        at, worker = heapq.heappop(arrivals)
        attempts += 1
        asked[worker, int(at / BUCKET)] = asked.get((worker, int(at / BUCKET)), 0) + 1
        begins = max(at, free[worker])
        free[worker] = begins + 1 / rate
        busy[worker] += 1 / rate if begins > at else 0.0  # somebody waited for it
        if free[worker] - at > storm.patience:  # its client has gone, which is seen when its turn has come
            if attempts > MOST * clients:
                break  # it will not end
            again = at + storm.patience + policy(draw)
            heapq.heappush(arrivals, (again, draw.randrange(storm.left)))
        else:
            back.append(free[worker])
    back.sort()
    whole = [*back, *[float("inf")] * (clients - len(back))]
    return Outcome(
        peak=max(asked.values()) / BUCKET / rate,
        busy=max(busy),
        half=whole[clients // 2],
        last=whole[int(QUANTILE * clients)],
        attempts=attempts / clients,
    )


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < float("inf") else "never"


def table(storms: Sequence[Storm], policies: dict[str, Policy], rate: float, seed: int) -> Iterator[str]:
    yield "| storm | clients a worker | policy | peak | busy | half back | 99 % back | attempts |"
    yield "|---|---|---|---|---|---|---|---|"
    for storm in storms:
        for name, policy in policies.items():
            got = simulate(storm, policy, rate=rate, seed=seed)
            cells = (storm.name, f"{storm.clients:,}", name, f"{got.peak:.1f}", f"{got.busy:.1f} s")
            yield f"| {' | '.join(cells)} | {_seconds(got.half)} | {_seconds(got.last)} | {got.attempts:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="reconnect storms, simulated")
    parser.add_argument("--rate", type=float, default=RATE, help="reconnects a second that a worker can take")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(*table(STORMS, POLICIES, given.rate, given.seed), sep="\n")
    impatient = [
        Storm(f"the balancer restarts, clients wait {patience:g} s", 10_000, 4, 4, True, patience)
        for patience in (2.0, 5.0)
    ]
    print("", *table(impatient, POLICIES, given.rate, given.seed), sep="\n")


if __name__ == "__main__":
    main()
