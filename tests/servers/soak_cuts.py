"""Random cuts over every app on every server, until there were enough of them.

    python -m tests.servers.soak_cuts --cuts 10000 --seed 1

A stream is asked for as an EventSource, by a script's GET, or by POST; its connections are cut at random bytes, by FIN,
by RST, by HTTP/2's RST_STREAM or GOAWAY, in the head, in the body, or in the middle of the request; it is resumed on
its path or at its own URL, until it is whole. Scripts start with an ``Idempotency-Key``, so their start may be cut
anywhere; an EventSource has no such thing, so its first connection is cut only once it has a cursor.

What must hold for each: every byte of the uncut run, each event once and in order; the app run once; and 204 to the
cursor at the end. The exit status is 1 if anything did not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from examples import content
from tests.servers.asking import KINDS, Request
from tests.servers.client import EVENTSOURCE, Exchange, Headers, Http1, begin, fetch, whole
from tests.servers.http2 import Http2Exchange
from tests.servers.launch import EXAMPLES, PAIRS, SERVERS, Server
from tests.servers.reading import Reading
from tests.servers.wire import Cut, How, Wire

AT_ONCE = 16
MOST_CUTS = 8  # of one stream, before it is left to finish
ATTEMPTS = 60


@dataclass
class Tally:
    """What was done, and what went wrong."""

    streams: int = 0
    cuts: int = 0
    lost: int = 0
    repeated: int = 0
    wrong_bytes: int = 0
    extra_runs: int = 0
    not_204: int = 0
    failures: int = 0
    seconds: float = 0
    notes: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.repeated or self.wrong_bytes or self.extra_runs or self.not_204 or self.failures)

    def add(self, other: Tally) -> None:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


class Cutter:
    """Reads one stream over as many connections as its cuts make necessary."""

    def __init__(self, server: Server, draw: random.Random, tally: Tally) -> None:
        self._server = server
        self._draw = draw
        self._tally = tally
        self._cuts = 0
        self.reading = Reading()
        kind = draw.choice(KINDS)
        self.request = Request(kind, draw.randrange(1, 80), draw.choice([0, 0, 0.001, 0.003]))
        if kind != "eventsource":
            self.request = self.request.with_headers(("idempotency-key", secrets.token_urlsafe(24)))

    async def run(self) -> None:
        """Until the stream is whole; the tally has the rest."""
        for _ in range(ATTEMPTS):
            self.reading.reconnect()
            if await self._connection():
                break
        else:
            self._fail("was not whole in time")
        await self._judge()

    async def _connection(self) -> bool:
        """One connection, cut or not: True once the stream has come to its proper end."""
        cutting = self._cuts < MOST_CUTS and self._draw.random() < 0.85
        resumes = bool(self.reading.cursor)
        if cutting and not resumes and self.request.kind != "eventsource" and self._draw.random() < 0.1:
            await self._half_a_request()
            return False
        method, target, headers, body = self._asked()
        left = len(content.body(self.request.n)) - len(self.reading.body)
        at = self._draw.randrange(int(left * 1.3) + 700)
        how: How = self._draw.choice(["rst", "fin", "close"])
        on_wire = cutting and (resumes or self.request.kind != "eventsource")
        exchange = await begin(
            self._server, method, target, headers=headers, body=body, cut_after=at if on_wire else None, how=how
        )
        received = 0
        try:
            await exchange.head()
            if exchange.status != 200:
                return await self._refused(exchange, resumes)
            while data := await exchange.read():
                self.reading.feed(data)
                received += len(data)
                if cutting and not on_wire and received >= at and self.reading.cursor:
                    await self._break(exchange, how)
                    return False
            return True
        except Cut:
            if on_wire and exchange.broken:
                self._count_cut()
            else:
                self._fail(f"the server cut it, {received} bytes after {self.reading.cursor or 'the start'}")
            return False
        except TimeoutError:
            self._fail(f"hung, {received} bytes after {self.reading.cursor or 'the start'}")
            return False
        finally:
            await exchange.aclose()

    def _asked(self) -> tuple[str, str, Headers, bytes]:
        """The next request: as the first one, or at the stream's own URL."""
        request, cursor = self.request, self.reading.cursor
        if not cursor or self._draw.random() < 0.7:
            return request.method, request.target, request.headers(cursor), request.body
        location = f"{request.path}?_stream={self.reading.stream}"
        if self._draw.random() < 0.5:
            return "GET", location, (*EVENTSOURCE, ("last-event-id", cursor)), b""
        return "GET", f"{location}&after={cursor.rpartition('.')[2]}", EVENTSOURCE, b""

    async def _half_a_request(self) -> None:
        request = self.request
        if self._server.kind.http2:  # the first frames of a connection, and no more
            exchange = await begin(
                self._server, request.method, request.target, headers=request.headers(), body=request.body, cut_after=0
            )
            exchange.cut("rst")
            await exchange.aclose()
        else:
            half = Http1(await Wire.connect(self._server))
            part = self._draw.randrange(1, 300)
            await half.begin(request.method, request.target, request.headers(), request.body, part=part)
            half.cut(self._draw.choice(["rst", "fin"]))
            await half.aclose()
        self._count_cut()

    async def _break(self, exchange: object, how: How) -> None:
        if isinstance(exchange, Http2Exchange) and self._draw.random() < 0.6:
            if self._draw.random() < 0.7:
                await exchange.reset()
            else:
                await exchange.connection.goaway()
        elif isinstance(exchange, Http2Exchange | Http1):
            exchange.cut(how)
        self._count_cut()

    async def _refused(self, exchange: Exchange, resumes: bool) -> bool:
        """204 says that nothing is missing, which the bytes will show."""
        if exchange.status == 204 and resumes:
            return True
        why = b"a body that was cut"
        with contextlib.suppress(Cut):
            why = await whole(exchange)
        self._fail(f"was answered {exchange.status} behind {self.reading.cursor or 'nothing'}: {why.decode()}")
        return False

    def _count_cut(self) -> None:
        self._cuts += 1
        self._tally.cuts += 1

    def _fail(self, what: str) -> None:
        self._tally.failures += 1
        self._tally.notes.append(f"{self._server.kind.name} {self._server.app} {self.request}: {what}")

    async def _judge(self) -> None:
        tally, reading, request = self._tally, self.reading, self.request
        tally.streams += 1
        tally.lost += reading.lost
        tally.repeated += reading.repeated
        if bytes(reading.body) != content.body(request.n):
            tally.wrong_bytes += 1
            tally.notes.append(
                f"{self._server.kind.name} {self._server.app} {request}: {len(reading.body)} bytes of "
                f"{len(content.body(request.n))}, {len(reading.events)} events, at {reading.cursor}"
            )
        for _ in range(2 if self._server.kind.workers > 1 else 1):  # another worker hears of the end a moment later
            status, _, rest = await fetch(
                self._server, request.method, request.target, headers=request.headers(reading.cursor), body=request.body
            )
            if status == 204 or b"data:" in rest:
                break
        if status != 204:
            tally.not_204 += 1
            tally.notes.append(f"{self._server.kind.name} {self._server.app} {request}: caught up, answered {status}")


async def cut_streams(server: Server, cuts: int, seed: str) -> Tally:
    """Cut connections of ``server`` until there were ``cuts`` of them, and every stream that they hit is whole."""
    tally, began = Tally(), time.monotonic()
    begun: list[Request] = []

    async def go_on(worker: int) -> None:
        draw = random.Random(f"{seed} {server.kind.name} {server.app} {worker}")
        while tally.cuts < cuts:
            cutter = Cutter(server, draw, tally)
            begun.append(cutter.request)
            await cutter.run()

    await asyncio.gather(*(go_on(worker) for worker in range(AT_ONCE)))
    labels = json.loads((await fetch(server, "GET", "/runs"))[2])["labels"]
    for request in begun:
        ran = labels.get(request.run, 0)
        if ran != 1:
            tally.extra_runs += abs(ran - 1)
            tally.notes.append(f"{server.kind.name} {server.app} {request}: the app ran {ran} times")
    tally.seconds = time.monotonic() - began
    return tally


def soak(cuts: int, seed: int, pairs: Sequence[tuple[str, str]]) -> bool:
    """Share ``cuts`` out over ``pairs``, print a table, and say whether all went well."""
    total = Tally()
    columns = ("streams", "cuts", "lost", "repeated", "wrong_bytes", "extra_runs", "not_204", "failures")
    print(f"{'server':14}{'app':12}" + "".join(f"{name:>13}" for name in columns) + f"{'seconds':>10}")
    for i, (kind, app) in enumerate(pairs):
        share = (cuts - total.cuts + len(pairs) - i - 1) // (len(pairs) - i)
        with Server(SERVERS[kind], EXAMPLES[app]) as server:
            tally = asyncio.run(cut_streams(server, share, str(seed)))
            if server.complaints:
                tally.failures += 1
                tally.notes.append(f"{server!r} has written:\n{server.complaints}")
        print_row(kind, app, tally, columns)
        total.add(tally)
    print_row("all", "", total, columns)
    for note in total.notes:
        print(note)
    return total.clean and total.cuts >= cuts


def print_row(kind: str, app: str, tally: Tally, columns: Sequence[str]) -> None:
    counts = "".join(f"{getattr(tally, name):>13}" for name in columns)
    print(f"{kind:14}{app:12}{counts}{tally.seconds:>10.1f}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="random cuts over every app on every server")
    parser.add_argument("--cuts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is printed")
    parser.add_argument("--server", choices=list(SERVERS), help="only this one")
    parser.add_argument("--app", choices=list(EXAMPLES), help="only this one")
    given = parser.parse_args(arguments)
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    pairs = [(kind, app) for kind, app in PAIRS if given.server in (None, kind) and given.app in (None, app)]
    print(f"seed {seed}")
    return 0 if soak(given.cuts, seed, pairs) else 1


if __name__ == "__main__":
    sys.exit(main())
