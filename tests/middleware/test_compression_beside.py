"""Compression beside what else writes into a response: heartbeats, drain and Resume within it, and others' gzip."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, StreamingResponse
from starlette.routing import Route

from streamware import (
    CompressionMiddleware,
    DrainMiddleware,
    HeartbeatMiddleware,
    Middleware,
    ResumeMiddleware,
    Stack,
)
from streamware.types import ASGIApp
from tests.middleware.coded_site import PAGE, Coded, decode, event, fetched
from tests.middleware.drain_site import DEADLINE, GRACE, WAYS, Place
from tests.middleware.resume_site import EVENTSOURCE, READER, plain


@pytest.fixture(params=[*WAYS, "one stack"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class CodedPlace(Place):
    """A worker that drains, with compression outside of it, in a ``Stack`` of its own or in the same one."""

    def __init__(self, way: str, **options: Any) -> None:
        super().__init__(way="short" if way == "one stack" else way, **options)
        if way != "one stack":
            self.compression = CompressionMiddleware(self.app, clock=self.clock)
            self.app = self.compression
            return
        common: dict[str, Any] = {"clock": self.clock, "observer": self.observer}
        self.stack = Stack(
            self.stage,
            middleware=[
                Middleware(CompressionMiddleware, **common),
                Middleware(DrainMiddleware, grace=GRACE, deadline=DEADLINE, signals=(), **common),
                Middleware(HeartbeatMiddleware, interval=7, **common),
                Middleware(ResumeMiddleware, store=self.store, **common),
            ],
        )
        self.app = self.stack
        self.compression, self.drain, _, self.resume = self.stack._own  # type: ignore[assignment]
        self.hooks = self.stack._hooks

    def check(self) -> None:
        rest = self.compression.options.rest
        assert rest is not None
        assert not rest.awake
        rest.close()  # one timer a worker, which would find nothing
        super().check()

    def coded(self, headers: dict[str, str], accepts: str = "gzip", cursor: str | None = None, **more: Any) -> Coded:
        given = headers | ({} if cursor is None else {"last-event-id": cursor})
        connection = Coded(self.app, path="/chat", accepts=accepts, headers=list(given.items()), **more)
        self.connections.append(connection)  # type: ignore[arg-type]
        connection.was_cancelled = False  # type: ignore[attr-defined]
        connection.open()
        return connection


async def test_heartbeats_are_coded_as_well_and_come_in_time(way: str) -> None:
    if way == "mute":
        return
    async with CodedPlace(way) as place:
        connection = place.coded(READER)
        run = await place.stage.run()
        await run.stream("a")
        await connection.read(b"data: a")
        before = connection.decoded
        for beats in (1, 2):
            await place.clock.advance(7)
            assert connection.decoded == before + b":\n" * beats
        await run.say("b")
        await run.end()
        await connection.finished()
        assert connection.coding == "gzip"
        assert connection.ended
        assert plain(connection.decoded).replace(b":\n", b"") == b"data: a\n\ndata: b\n\n"


async def test_a_stream_is_resumed_in_another_coding_without_loss(way: str) -> None:
    async with CodedPlace(way) as place:
        connection = place.coded(READER)
        run = await place.stage.run()
        await run.stream("a", "b")
        await connection.read(b"data: b")
        stream = str(connection.header("content-location")).removeprefix("?_stream=")
        connection.drop()
        await run.say("c")
        again = place.coded(READER, accepts="identity", cursor=f"{stream}.1")
        await again.read(b"data: c")
        await run.say("d")
        await run.end()
        await again.finished()

        assert again.coding is None
        assert plain(again.body) == b"data: b\n\ndata: c\n\ndata: d\n\n"
        assert again.vary is not None
        assert "Accept-Encoding" in again.vary
        third = place.coded(READER, cursor=f"{stream}.2")
        await third.finished()
        assert (third.coding, third.ended) == ("gzip", True)
        assert plain(third.decoded) == b"data: c\n\ndata: d\n\n"


async def test_a_farewell_is_within_the_coded_body(way: str) -> None:
    async with CodedPlace(way) as place:
        connection = place.coded(EVENTSOURCE)
        run = await place.stage.run()
        await run.stream("a")
        await connection.read(b"data: a")
        place.drain.drain()
        await place.clock.advance(DEADLINE)
        await connection.finished()

        assert connection.ended
        assert b"retry: " in connection.decoded.rpartition(b"data: a")[2]


async def test_a_visible_cut_is_one_through_a_coding(way: str) -> None:
    async with CodedPlace(way) as place:
        connection = place.coded(READER)
        run = await place.stage.run()
        await run.stream("a")
        await connection.read(b"data: a")
        place.drain.drain()
        await place.clock.advance(DEADLINE)
        await connection.finished()

        assert not connection.complete
        assert not decode("gzip", connection.body)[1]
        assert plain(connection.decoded).replace(b":\n", b"") == b"data: a\n\n"


async def test_a_long_poll_and_a_soft_refusal_are_answers_like_any_other(way: str) -> None:
    async with CodedPlace(way) as place:
        connection = place.coded(READER)
        run = await place.stage.run()
        await run.stream(*("word" * 10 for _ in range(50)))
        await connection.receive_body(lambda coded: decode("gzip", coded)[0].count(b"data:") == 50)
        stream = str(connection.header("content-location")).removeprefix("?_stream=")
        poll = Coded(place.app, path=f"/chat?_stream={stream}", headers=[("accept", "application/json")])
        await poll.finished()
        assert (poll.coding, len(json.loads(poll.decoded)["events"])) == ("gzip", 50)
        await run.end()
        await connection.finished()

        place.drain.drain()
        refused = place.coded(EVENTSOURCE)
        await refused.finished()
        assert (refused.coding, refused.status) == (None, 200)  # too small to be coded
        assert refused.body.startswith(b"retry: ")


# -- others' compression


def starlette(**gzip_options: Any) -> Starlette:
    async def page(_: Request) -> HTMLResponse:
        return HTMLResponse(PAGE)

    async def stream(_: Request) -> StreamingResponse:
        async def events() -> AsyncIterator[bytes]:
            for number in range(5):
                yield event(number)
                await asyncio.sleep(0)

        return StreamingResponse(events(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/page", page), Route("/stream", stream)])
    if gzip_options:
        app.add_middleware(GZipMiddleware, **{name: value for name, value in gzip_options.items() if value})
    return app


ALL_TYPES: dict[str, Any] = {"minimum_size": 1, "exclude_content_types": ("none/none",)}
AROUND = {
    "inside": lambda: CompressionMiddleware(starlette(minimum_size=1)),
    "inside, streams as well": lambda: CompressionMiddleware(starlette(**ALL_TYPES)),
    "outside": lambda: GZipMiddleware(CompressionMiddleware(starlette()), minimum_size=1),
    "outside, streams as well": lambda: GZipMiddleware(CompressionMiddleware(starlette()), **ALL_TYPES),
    "added after": lambda: added(CompressionMiddleware),
    "twice": lambda: CompressionMiddleware(CompressionMiddleware(starlette())),
}


def added(middleware: Any) -> ASGIApp:
    app = starlette(minimum_size=1)
    app.add_middleware(middleware)
    return app


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("accepts", ["gzip", "gzip, br, zstd", "identity"])
async def test_beside_starlettes_gzip_a_response_is_coded_once(around: str, accepts: str) -> None:
    app: Any = AROUND[around]()
    for path, expected in (("/page", PAGE), ("/stream", b"".join(map(event, range(5))))):
        connection = await fetched(app, path=path, accepts=accepts)

        assert connection.decoded == expected
        assert connection.ended
        codings = [value for name, value in connection.headers if name.lower() == b"content-encoding"]
        assert len(codings) == (0 if accepts == "identity" else 1)
        assert connection.vary is not None
        assert set(connection.vary.split(", ")) == {"Accept-Encoding"}


async def test_a_request_for_an_event_stream_hides_its_codings_from_the_app() -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["headers"])

    given = [("accept", "text/event-stream")]
    for live, headers in ((True, given), (True, []), (False, given)):
        connection = Coded(CompressionMiddleware(app, live=live), headers=headers)
        await connection.finished()
        assert any(name == b"accept-encoding" for name, _ in connection.scope["headers"])

    assert [any(name == b"accept-encoding" for name, _ in headers) for headers in seen] == [False, True, True]


async def test_beside_starlettes_gzip_outside_events_are_not_held() -> None:
    go = asyncio.Event()

    async def stream(_: Request) -> StreamingResponse:
        async def events() -> AsyncIterator[bytes]:
            yield event(1)
            await go.wait()
            yield event(2)

        return StreamingResponse(events(), media_type="text/event-stream")

    inner = Starlette(routes=[Route("/", stream)])
    for app in (
        GZipMiddleware(CompressionMiddleware(inner), **ALL_TYPES),
        CompressionMiddleware(GZipMiddleware(inner)),
    ):
        go.clear()
        async with Coded(app) as connection:
            assert await connection.read(event(1)) == event(1)
            go.set()
            await connection.finished()
            assert connection.decoded == event(1) + event(2)


# -- Django's, in a process of its own: its settings are for good


def test_beside_djangos_gzip_a_response_is_coded_once() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.middleware.django_gzip"], capture_output=True, text=True, timeout=50, check=False
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)

    expected = {"page": PAGE, "stream": b"".join(map(event, range(5)))}
    assert {place: len(cases) for place, cases in found.items()} == {"page": 3, "stream": 3}
    for place, cases in found.items():
        for case, (coding, vary, decoded) in cases.items():
            assert decoded.encode() == expected[place], case
            assert coding == (None if case == "identity" else "gzip")
            assert "Accept-Encoding" in vary
