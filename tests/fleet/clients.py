"""Clients that come back: one as a browser's EventSource does, one as a script around ``fetch`` should.

``EventSourceClient``: GET; whatever ends its response, it comes back after the reconnection time with its last event
ID; 204 tells it that all has come; any other status ends it for good. ``FetchClient``: POST with an
``Idempotency-Key``; a proper end is the end; a cut makes it ask again, with its cursor once it has one; 429, 503 and
409 make it wait for as long as they say; 410 with the outcome ``interrupted`` tells it that its worker has died.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from examples import content
from tests.servers.asking import Request
from tests.servers.client import Exchange, begin, whole
from tests.servers.reading import Reading
from tests.servers.wire import Cut

#: A stream that is not over in so many seconds is a failure.
PATIENCE = 120.0
RECONNECT = 0.5


@dataclass
class Report:
    """What became of one stream. ``end``: "whole", "interrupted", "ahead" where the client was told that it has had
    more than what is left, or what went wrong. ``runs``: the labels under which the app may have been called for it;
    all but the last gave the client nothing, not even a cursor. ``gaps``: seconds from the last byte before a reconnect
    to the first behind it."""

    kind: str
    n: int
    end: str = ""
    runs: list[str] = field(default_factory=list)
    reading: Reading = field(default_factory=Reading)
    connections: int = 0
    gaps: list[float] = field(default_factory=list)

    @property
    def cut_short(self) -> bool:
        """It has been told that it has all there is, and that is not what the app would have sent."""
        return self.end == "whole" and len(self.reading.body) < len(content.body(self.n))

    @property
    def exact(self) -> bool:
        """Every byte of the uncut run, or, where it was interrupted, of its beginning; each event once, in order."""
        wanted, got = content.body(self.n), bytes(self.reading.body)
        if self.reading.lost or self.reading.repeated:
            return False
        return got == wanted if self.end == "whole" else wanted.startswith(got)


class Client:
    """One stream, over as many connections as it takes."""

    kind = ""

    def __init__(self, front: object, n: int, delay: float, draw: random.Random) -> None:
        self.report = Report(self.kind, n)
        self._front = front
        self._n = n
        self._delay = delay
        self._draw = draw
        self._request = self._new_request()
        self._heard: float | None = None

    def _new_request(self) -> Request:
        request = Request(self.kind, self._n, self._delay)
        self.report.runs.append(request.run)
        return request

    async def run(self) -> Report:
        report = self.report
        try:
            async with asyncio.timeout(PATIENCE):
                while not report.end:
                    await self._connect()
        except TimeoutError:
            report.end = f"not over after {PATIENCE:.0f} s, at {report.reading.cursor or 'its start'}"
        return report

    async def _connect(self) -> None:
        """One connection, and what comes before the next."""
        request, reading = self._request, self.report.reading
        reading.reconnect()
        self.report.connections += 1
        try:
            exchange = await begin(
                self._front,  # type: ignore[arg-type]
                request.method,
                request.target,
                headers=request.headers(reading.cursor),
                body=request.body,
            )
        except OSError:
            await self._pause(None)
            return
        try:
            await exchange.head()
            await self._answered(exchange)
        except (Cut, TimeoutError, ValueError):
            await self._cut()
        finally:
            await exchange.aclose()

    async def _answered(self, exchange: Exchange) -> None:
        raise NotImplementedError

    async def _cut(self) -> None:
        raise NotImplementedError

    async def _follow(self, exchange: Exchange) -> None:
        """Read a body to its end.

        :raises Cut: it has none.
        """
        clock = asyncio.get_running_loop().time
        first = True
        while data := await exchange.read():
            self.report.reading.feed(data)
            if first and self._heard is not None and self.report.connections > 1:
                self.report.gaps.append(clock() - self._heard)
            first, self._heard = False, clock()

    async def _pause(self, seconds: float | None) -> None:
        await asyncio.sleep(RECONNECT * self._draw.uniform(0.75, 1.25) if seconds is None else seconds)


class EventSourceClient(Client):
    kind = "eventsource"

    async def _answered(self, exchange: Exchange) -> None:
        if exchange.status == 204:
            self.report.end = "whole"
        elif exchange.status != 200:
            self.report.end = f"killed by {exchange.status}"
        else:
            await self._follow(exchange)
            await self._again()

    async def _cut(self) -> None:
        await self._again()

    async def _again(self) -> None:
        reading = self.report.reading
        names = [control.event for control in reading.controls]
        if "streamware.interrupted" in names:
            self.report.end = "interrupted"
        elif names:
            told = json.loads(reading.controls[0].data)
            self.report.end = "ahead" if told.get("reason") == "ahead" else f"was told {names}: {told}"
        else:
            await self._pause(None if reading.retry is None else reading.retry / 1000)
            if not reading.cursor:
                self._request = self._new_request()


class FetchClient(Client):
    kind = "post"

    def _new_request(self) -> Request:
        return super()._new_request().with_headers(("idempotency-key", secrets.token_urlsafe(24)))

    async def _answered(self, exchange: Exchange) -> None:
        status = exchange.status
        if status == 200:
            await self._follow(exchange)
            self.report.end = "whole"
        elif status == 204:
            self.report.end = "whole"
        elif status in (409, 429, 503):
            await whole(exchange)
            await self._pause(float(exchange.headers.get("retry-after", RECONNECT)))
        elif status == 410:
            told = json.loads(await whole(exchange))
            reasons = [told.get("outcome"), told.get("reason")]
            known = [reason for reason in ("interrupted", "ahead") if reason in reasons]
            self.report.end = known[0] if known else f"was told that it is gone: {told}"
        else:
            self.report.end = f"was answered {status}"

    async def _cut(self) -> None:
        await self._pause(None)


CLIENTS: Sequence[type[Client]] = (EventSourceClient, FetchClient)
