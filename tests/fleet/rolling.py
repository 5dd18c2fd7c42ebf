"""Workers that are restarted, recycled or killed under load, and clients that come back: nothing lost, nothing twice.

    python -m tests.fleet.rolling --server uvicorn --streams 500 --rounds 3
    python -m tests.fleet.rolling --how kill --store sqlite

So many streams are live at any time, half of them EventSources, half scripts' POSTs (where a server cannot cut, all
are EventSources): one that is over is followed by a new one until the last worker has been restarted, and then all are
read to their ends. ``--how restart``: SIGTERM to each worker in turn, another one in its place, and on once it has
left. ``kill``: the same with a ``kill -9`` instead for one worker in the middle. ``recycle``: no signal at all, the
server replaces its workers after so many requests. The exit status is 1 if anything was lost, came twice, or ran twice.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Literal

from examples.cluster.redis_server import RedisServer
from tests.fleet.clients import CLIENTS, PATIENCE, Client, EventSourceClient, Report
from tests.fleet.ledger import Runs, Verdict, judge
from tests.fleet.workers import KINDS, Fleet, fleet

How = Literal["restart", "kill", "recycle"]
#: Events of a stream, and seconds between two of them: it lasts for about ten seconds, much less than a drain may.
EVENTS, DELAY = (15, 25), 0.5
#: Requests that a worker lives for, with ``recycle``, and how many workers there are at a time.
REQUESTS = 150
WORKERS = 2


class Load:
    """So many streams at a time, until told to start no more."""

    def __init__(self, made: Fleet, streams: int, delay: float, seed: str) -> None:
        self.reports: list[Report] = []
        self._fleet = made
        self._delay = delay
        self._draw = random.Random(seed)
        self._over = False
        self._slots = [asyncio.create_task(self._slot(i)) for i in range(streams)]

    async def _slot(self, number: int) -> None:
        kinds = CLIENTS if self._fleet.kind.cuts else (EventSourceClient,)
        await asyncio.sleep(self._draw.uniform(0, EVENTS[1] * self._delay))  # not all in step
        while not self._over:
            kind: type[Client] = kinds[number % len(kinds)]
            client = kind(self._fleet.front, self._draw.randint(*EVENTS), self._delay, self._draw)
            self.reports.append(client.report)
            await client.run()

    async def spread(self) -> None:
        """Wait until every slot has a stream that has begun."""
        async with asyncio.timeout(PATIENCE):
            while sum(bool(report.reading.cursor) for report in self.reports) < len(self._slots):
                self._failed()
                await asyncio.sleep(0.05)

    async def more(self, streams: int) -> None:
        """Wait until so many more streams are over."""
        wanted = self._ended() + streams
        async with asyncio.timeout(10 * PATIENCE):
            while self._ended() < wanted:
                self._failed()
                await asyncio.sleep(0.05)

    async def finish(self) -> list[Report]:
        """Let all that runs come to its end."""
        self._over = True
        await asyncio.gather(*self._slots)
        return self.reports

    async def aclose(self) -> None:
        for slot in self._slots:
            slot.cancel()
        await asyncio.gather(*self._slots, return_exceptions=True)

    def _ended(self) -> int:
        return sum(bool(report.end) for report in self.reports)

    def _failed(self) -> None:
        for slot in self._slots:
            if slot.done() and not slot.cancelled():
                slot.result()


async def _restarts(made: Fleet, rounds: int, killing: bool) -> None:
    """Every worker in turn, in each round; ``killing``: the one in the middle of the whole is killed."""
    turns = rounds * len(made.workers)
    for turn in range(turns):
        if killing and turn == turns // 2:
            await made.kill(made.workers[0])
        else:
            await made.restart(made.workers[0])  # the oldest


async def roll(
    kind: str,
    store: str,
    *,
    how: How,
    streams: int,
    rounds: int,
    delay: float = DELAY,
    requests: int = REQUESTS,
    seed: int = 1,
) -> tuple[Verdict, Fleet]:
    """One run: what became of its streams, and the fleet that it was."""
    async with fleet(kind, store, requests=requests if how == "recycle" else None) as made:
        load = Load(made, streams, delay, f"{seed} {kind} {how}")
        try:
            await load.spread()
            if how == "recycle":
                await load.more(2 * rounds * max(streams, requests))
                while len(Runs(made.ledger).pids) <= WORKERS:  # servers spread the limit, to replace one at a time
                    await load.more(streams)
            else:
                await _restarts(made, rounds, how == "kill")
            reports = await load.finish()
        finally:
            await load.aclose()
        runs = Runs(made.ledger)
        killed = made.killed
        verdict = judge(reports, runs, killed)
        if complaints := made.complaints():
            verdict.failures += len(complaints)
            verdict.notes += complaints
        return verdict, made


@contextlib.contextmanager
def shared_store(name: str) -> Iterator[str]:
    """A Redis, or the path of a SQLite file, for one run."""
    if name == "redis":
        with RedisServer(maxclients="2000") as redis:
            yield redis.url
    else:
        with tempfile.TemporaryDirectory(prefix="streamware-fleet-store-") as directory:
            yield str(Path(directory) / "logs.sqlite")


def soak(
    kinds: Sequence[str],
    hows: Sequence[How],
    stores: Sequence[str],
    *,
    streams: int,
    rounds: int,
    seed: int,
) -> bool:
    """Every combination there is; prints a line each, and says whether all went well."""
    fine = True
    for store in stores:
        for how in hows:
            for kind in kinds:
                if how == "recycle" and not KINDS[kind].limit:
                    continue
                began = time.monotonic()
                with shared_store(store) as place:
                    verdict, made = run(roll(kind, place, how=how, streams=streams, rounds=rounds, seed=seed))
                fine &= verdict.clean
                print(f"{how} {kind} on {store}, {time.monotonic() - began:.0f} s: {verdict}", flush=True)
                if made.leaving:
                    print(f"  workers took {min(made.leaving):.1f} to {max(made.leaving):.1f} s to leave", flush=True)
                for note in verdict.notes[:20]:
                    print(f"  {note}", flush=True)
    return fine


def run(work: Coroutine[object, object, tuple[Verdict, Fleet]]) -> tuple[Verdict, Fleet]:
    async def go() -> tuple[Verdict, Fleet]:
        task = asyncio.ensure_future(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # workers are ended all the same
        return await task

    return asyncio.run(go())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="workers restarted, recycled and killed under load")
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--server", choices=list(KINDS), action="append", help="this one; default: all")
    parser.add_argument("--how", choices=("restart", "kill", "recycle"), action="append", help="default: all three")
    parser.add_argument("--store", choices=("redis", "sqlite"), action="append", help="default: redis")
    given = parser.parse_args(arguments)
    fine = soak(
        given.server or list(KINDS),
        given.how or ["restart", "kill", "recycle"],
        given.store or ["redis"],
        streams=given.streams,
        rounds=given.rounds,
        seed=given.seed,
    )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
