"""Random runs over two workers: begun at one, cut at any event, read on at the other, and stopped from there.

    python -m tests.fleet.moves --runs 1000 --store redis

What must hold for each: the bytes of the uncut run, or of its beginning where it was stopped; each event once and in
order; the app called once; the same log from either worker; and 204 to the cursor at its end from both. A stop has to
land within ``STOP_WITHIN``: its readers at both workers are at their end, and the app has been cancelled. The exit
status is 1 if anything did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from examples import content
from tests.fleet.ledger import Runs
from tests.fleet.rolling import shared_store
from tests.fleet.workers import Fleet, Front, fleet
from tests.servers.asking import KINDS, Request
from tests.servers.client import EVENTSOURCE, ask, fetch
from tests.servers.reading import Reading, follow, follow_until
from tests.servers.wire import Cut

AT_ONCE = 12
STOP_WITHIN = 1.0
PATIENCE = 60.0


@dataclass
class Moves:
    """What was done, and what went wrong. ``stops``: seconds from the DELETE until the readers at both workers had
    their ends; ``cancels``: until the app was cancelled."""

    runs: int = 0
    cuts: int = 0
    stopped: int = 0
    stops: list[float] = field(default_factory=list)
    cancels: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        slowest = f"{max(self.stops):.3f} s, the app {max(self.cancels, default=0.0):.3f} s" if self.stops else "-"
        return f"{self.runs} runs, {self.cuts} cuts, {self.stopped} stopped, the slowest in {slowest}; " + (
            f"{len(self.notes)} failures" if self.notes else "all exact"
        )


class Run:
    """One stream."""

    def __init__(self, fronts: Sequence[Front], draw: random.Random, moves: Moves) -> None:
        self._here, self._there = draw.sample(list(fronts), 2)
        self._draw = draw
        self._moves = moves
        self.stopping = draw.random() < 0.5
        n = draw.randrange(20, 400) if self.stopping else draw.randrange(1, 80)
        delay = draw.choice([0.005, 0.02]) if self.stopping else draw.choice([0, 0.001, 0.005])
        self.request = Request(draw.choice(KINDS), n, delay)
        if self.request.kind != "eventsource":
            self.request = self.request.with_headers(("idempotency-key", secrets.token_urlsafe(24)))
        self.reading = Reading()
        #: When the stop was asked for, by the clock of the machine.
        self.asked = 0.0

    def fail(self, what: str) -> None:
        self._moves.notes.append(f"{self.request}: {what}, at {self.reading.cursor or 'its start'}")

    async def go(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._begin()
                whole = await self._read_on()
                if self.stopping and not whole:
                    await self._stop()
                elif not whole:
                    self.fail("was cut by its worker")
                await self._judge(stopped=self.stopping and not whole)
        except (AssertionError, Cut, OSError, TimeoutError) as failure:
            self.fail(repr(failure))
        self._moves.runs += 1

    async def _begin(self) -> None:
        """Read some of it where it was begun, and break off between two events or within one."""
        request, most = self.request, self.request.n // 2 if self.stopping else self.request.n
        events = self._draw.randint(0, most)
        headers = request.headers()
        async with ask(self._here, request.method, request.target, headers=headers, body=request.body) as got:  # type: ignore[arg-type]
            while not self.reading.cursor or len(self.reading.events) < events:
                data = await got.read()
                if not data:
                    break
                cut = self._draw.randrange(len(data) + 1)
                self.reading.feed(data[:cut])
                if self.reading.cursor and len(self.reading.events) >= events:
                    break
                self.reading.feed(data[cut:])
            got.cut(self._draw.choice(["rst", "fin"]))
        self._moves.cuts += 1

    async def _read_on(self) -> bool:
        """Read on at the other worker: True if that was to the end. One that is to be stopped is left in the middle."""
        reading, request = self.reading, self.request
        reading.reconnect()
        if self._draw.random() < 0.5:
            method, target, headers, body = (
                request.method, request.target, request.headers(reading.cursor), request.body,
            )  # fmt: skip
        else:
            method, target, body = "GET", self._location(), b""
            headers = (*EVENTSOURCE, ("last-event-id", reading.cursor))
        async with ask(self._there, method, target, headers=headers, body=body) as got:  # type: ignore[arg-type]
            if got.status == 204:
                return True
            assert got.status == 200, got.status
            if not self.stopping:
                return await follow(got, reading)
            await follow_until(got, reading, len(reading.events) + self._draw.randint(1, 5))
            got.cut("rst")
        return False

    async def _stop(self) -> None:
        """Stop it from the other worker, with a reader at each."""
        readings = [Reading(), Reading()]

        async def read(front: Front, reading: Reading) -> float:
            headers = (*EVENTSOURCE, ("last-event-id", f"{self.reading.stream}.0"))
            async with ask(front, "GET", self._location(), headers=headers) as got:  # type: ignore[arg-type]
                await follow_until(got, reading, 1)
                begun.release()
                assert await follow(got, reading), "a stopped stream was cut"
            return time.monotonic()

        begun = asyncio.Semaphore(0)
        both = asyncio.gather(*(read(*one) for one in zip((self._here, self._there), readings, strict=True)))
        for _ in readings:
            await begun.acquire()
        self.asked = time.monotonic()
        status, _, _ = await fetch(self._there, "DELETE", self._location())  # type: ignore[arg-type]
        assert status == 204, status
        took = max(await both) - self.asked
        self._moves.stopped += 1
        self._moves.stops.append(took)
        if took > STOP_WITHIN:
            self.fail(f"its stop took {took:.2f} s")
        if readings[0].body != readings[1].body:
            self.fail("was not the same at both workers")
        if not readings[0].body.startswith(self.reading.body):
            self.fail("was not what had been read before")
        self.reading = readings[0]

    async def _judge(self, stopped: bool) -> None:
        reading, request = self.reading, self.request
        wanted, got = content.body(request.n), bytes(reading.body)
        if reading.lost or reading.repeated or not (wanted.startswith(got) if stopped else got == wanted):
            self.fail(f"{reading.lost} lost, {reading.repeated} repeated, {len(got)} of {len(wanted)} bytes")
        for front in (self._here, self._there):
            status, _, _ = await fetch(
                front,  # type: ignore[arg-type]
                request.method,
                request.target,
                headers=request.headers(reading.cursor),
                body=request.body,
            )
            if status != 204:
                self.fail(f"was answered {status} at its end")

    def _location(self) -> str:
        return f"{self.request.path}?_stream={self.reading.stream}"


async def move(made: Fleet, runs: int, seed: str) -> Moves:
    """So many runs over the workers of a fleet."""
    moves, done = Moves(), []
    fronts = [Front(worker.backend.port, made.kind) for worker in made.workers]

    async def go_on(number: int) -> None:
        draw = random.Random(f"{seed} {number}")
        while len(done) < runs:
            done.append(run := Run(fronts, draw, moves))
            await run.go()

    await asyncio.gather(*(go_on(number) for number in range(AT_ONCE)))
    noted = Runs(made.ledger)
    for run in done:
        callers = noted.begun.get(run.request.run, [])
        if len(callers) != 1:
            run.fail(f"the app was called {len(callers)} times")
        how, when = noted.ended.get(run.request.run, ("nothing", 0.0))
        if run.asked and how == "cancelled":
            moves.cancels.append(when - run.asked)
            if when - run.asked > STOP_WITHIN:
                run.fail(f"its app was cancelled after {when - run.asked:.2f} s")
        elif how != "done":
            run.fail(f"its app has ended in {how}")
    moves.notes += made.complaints()
    return moves


async def moves_over(store: str, runs: int, seed: str) -> Moves:
    """The same over two workers of their own. ``store``: "redis" or "sqlite"."""
    with shared_store(store) as place:
        async with fleet("uvicorn", place) as made:
            return await move(made, runs, seed)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="random runs over two workers")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=("redis", "sqlite"), action="append", help="this one; default: both")
    given = parser.parse_args(arguments)
    fine = True
    for store in given.store or ("redis", "sqlite"):
        moves = asyncio.run(moves_over(store, given.runs, str(given.seed)))
        print(f"{store}: {moves}", *moves.notes[:20], sep="\n  ", flush=True)
        fine &= not moves.notes
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
