"""Resume among others: in a ``Stack`` with heartbeats, and around and inside the middleware that frameworks bring."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware as StarletteMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from streamware import HeartbeatMiddleware, Middleware, ResumeMiddleware, Stack, wrap
from streamware.testing import FakeClock, settle
from tests.middleware.resume_site import EVENTSOURCE, HOLD, READER, Site, SiteConnection, Stage, plain, until


def beating(clock: FakeClock) -> Any:
    """Puts heartbeats around a site."""
    return lambda app: HeartbeatMiddleware(app, interval=10, clock=clock)


# -- heartbeats


@pytest.mark.parametrize("headers", [EVENTSOURCE, READER], ids=["eventsource", "other"])
async def test_heartbeats_reach_every_reader_and_never_enter_the_log(headers: dict[str, str]) -> None:
    clock = FakeClock()
    async with Site(clock=clock, around=beating(clock)) as site:
        first, run = await site.started("1", headers=headers)
        second = site.connect(first.own_url, headers=headers)
        await second.event()
        await clock.advance(35)
        await run.say("2")
        await first.event()
        await second.event()
        assert first.body.count(b":\n") == second.body.count(b":\n") == 3
        first.drop()
        again = site.connect(headers=headers, cursor=first.at(0))
        await again.events(2)
        assert b":\n" not in again.body
        await run.end()


async def test_a_stream_that_is_silent_before_its_first_event_has_heartbeats_once_it_has_begun() -> None:
    clock = FakeClock()
    async with Site(clock=clock, around=beating(clock)) as site:
        first = site.eventsource()
        run = await site.run()
        await run.start()
        await clock.advance(HOLD)
        await clock.advance(21)
        assert first.body == b"id: " + first.at(0).encode() + b"\n\n:\n:\n"
        await run.say("1")
        assert (await first.event()).data == "1"
        await run.end()


async def test_an_early_start_has_heartbeats_until_the_app_begins() -> None:
    clock = FakeClock()
    async with Site(clock=clock, around=beating(clock), early_start=5.0) as site:
        first = site.connect()
        run = await site.run()
        await clock.advance(40)
        assert first.body == b":\n:\n:\n"
        await run.stream("1")
        assert (await first.event()).data == "1"
        await run.end()


async def test_heartbeats_do_not_hide_a_hung_app() -> None:
    clock = FakeClock()
    async with Site(clock=clock, around=beating(clock), stall_timeout=60) as site:
        first, run = await site.started("1")
        await clock.advance(80)
        assert run.cancelled
        await first.finished()
        assert first.body.count(b":\n") > 3
        assert not first.complete


# -- Stack


async def test_two_of_them_with_disjoint_paths_keep_to_their_own() -> None:
    clock = FakeClock()
    stage = Stage()
    stack = Stack(
        stage,
        middleware=[
            Middleware(ResumeMiddleware, paths=["/chat*"], linger=None, clock=clock),
            Middleware(ResumeMiddleware, paths=["/feed*"], linger=0, on_done="restart", clock=clock),
        ],
    )
    connections = []
    for number, path in enumerate(["/chat", "/feed"], 1):
        connection = SiteConnection(stack, path=path, headers=READER)
        connections.append(connection)
        connection.open()
        await (await stage.run(number)).stream("1")
        await connection.event()
        connection.drop()
        await connection.finished()
    await stage.runs[1].disconnected.wait()
    await clock.advance(3600)
    assert not stage.runs[0].disconnected.is_set()
    async with SiteConnection(
        stack, path="/chat", headers=[*READER.items(), ("last-event-id", connections[0].at(0))]
    ) as again:
        assert (await again.event()).data == "1"
    for run in stage.runs:
        await run.put(None)
    await settle()


async def test_the_preset_resumes_and_stops_with_no_option_at_all() -> None:
    stage = Stage(heeds=True)
    app = wrap(stage)
    async with SiteConnection(app, path="/chat", headers=EVENTSOURCE) as first:
        run = await stage.run()
        await run.stream("1", "2")
        await first.events(2)
        first.drop()
        await first.finished()
    await run.say("3")
    cursor = [*EVENTSOURCE.items(), ("last-event-id", first.at(1))]
    async with SiteConnection(app, path="/chat", headers=cursor) as again:
        assert [event.data for event in await again.events(2)] == ["2", "3"]
        async with SiteConnection(app, path=first.own_url, method="DELETE") as stop:
            await stop.finished()
            assert stop.status == 204
        await again.finished()
        assert again.complete
    assert run.cancelled
    assert len(stage.runs) == 1


# -- inside and around the frameworks' own


async def words(count: int, gate: asyncio.Event) -> AsyncIterator[str]:
    for number in range(count):
        if number == 2:
            await gate.wait()
        yield f"data: {number}\n\n"


class Feed:
    """A Starlette app with middleware of its own, unaware of Resume. ``calls``: how often its endpoint ran."""

    def __init__(self, *middleware: StarletteMiddleware) -> None:
        self.gate = asyncio.Event()
        self.calls = 0
        self.closed = 0
        routes = [Route("/chat", self.chat, methods=["GET", "POST"]), Route("/json", self.json, methods=["POST"])]
        self.app = Starlette(routes=routes, middleware=middleware)

    async def chat(self, request: Request) -> Response:
        self.calls += 1
        question = await request.body()

        async def stream() -> AsyncIterator[str]:
            try:
                async for word in words(5, self.gate):
                    yield word
                yield f"data: {question.decode()}\n\n"
            finally:
                self.closed += 1

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def json(self, request: Request) -> Response:
        return JSONResponse({"got": len(await request.body())})


async def pass_on(request: Request, call_next: Any) -> Any:
    """What FastAPI's ``@app.middleware("http")`` makes of a function."""
    response = await call_next(request)
    response.headers["x-passed"] = "yes"
    return response


OWN = [
    pytest.param([], id="none"),
    pytest.param([StarletteMiddleware(BaseHTTPMiddleware, dispatch=pass_on)], id="BaseHTTPMiddleware"),
    pytest.param([StarletteMiddleware(GZipMiddleware, minimum_size=1)], id="gzip"),
    pytest.param([StarletteMiddleware(CORSMiddleware, allow_origins=["https://a.example"])], id="cors"),
    pytest.param(
        [
            StarletteMiddleware(CORSMiddleware, allow_origins=["*"]),
            StarletteMiddleware(GZipMiddleware, minimum_size=1),
            StarletteMiddleware(BaseHTTPMiddleware, dispatch=pass_on),
            StarletteMiddleware(BaseHTTPMiddleware, dispatch=pass_on),
        ],
        id="all of them",
    ),
]
HEADERS = {"accept-encoding": "gzip", "origin": "https://a.example", "content-length": "2"}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("own", OWN)
async def test_an_app_with_middleware_of_its_own_survives_drops(own: list[StarletteMiddleware], method: str) -> None:
    feed = Feed(*own)
    async with Site(feed.app) as site:
        first = site.connect(method=method, headers=READER | HEADERS, body=b"hi")
        await first.events(2)
        assert first.header("content-encoding") is None
        first.drop()
        await first.finished()
        await settle()
        assert feed.closed == 0
        again = site.connect(method=method, headers=READER | HEADERS, cursor=first.at(1), body=b"hi")
        feed.gate.set()
        await again.finished()
        assert again.complete
        assert again.data == ["1", "2", "3", "4", "hi"]
        assert feed.calls == 1


@pytest.mark.parametrize("own", OWN)
async def test_an_app_with_middleware_of_its_own_is_told_in_the_end(own: list[StarletteMiddleware]) -> None:
    feed = Feed(*own)
    async with Site(feed.app, linger=30) as site:
        first = site.connect(headers=READER)
        await first.events(2)
        first.drop()
        await site.clock.advance(29)
        assert feed.closed == 0
        await site.clock.advance(2)
        await until(lambda: feed.closed == 1)


@pytest.mark.parametrize("own", OWN)
async def test_an_app_with_middleware_of_its_own_can_be_stopped(own: list[StarletteMiddleware]) -> None:
    feed = Feed(*own)
    async with Site(feed.app) as site:
        first = site.connect(headers=READER)
        await first.events(2)
        stop = site.connect(first.own_url, method="DELETE", headers={})
        await stop.finished()
        assert stop.status == 204
        await first.finished()
        assert first.complete
        await until(lambda: feed.closed == 1)


@pytest.mark.parametrize("own", OWN[1:])
async def test_around_it_the_frameworks_middleware_does_what_it_does(own: list[StarletteMiddleware]) -> None:
    """As with ``add_middleware``: the framework's on the outside, Resume on the inside."""
    feed = Feed()

    def around(app: Any) -> Any:
        for one in reversed(own):
            app = one.cls(app, **one.kwargs)
        return app

    async with Site(feed.app, around=around) as site:
        first = site.connect(headers=READER | {"origin": "https://a.example"})
        await first.events(2)
        first.drop()
        await first.finished()
        await settle()
        assert feed.closed == 0
        again = site.connect(headers=READER | {"origin": "https://a.example"}, cursor=first.at(1))
        feed.gate.set()
        await again.receive_body()
        assert again.data == ["1", "2", "3", "4", ""]
        assert feed.calls == 1
        # Only out here do answers of ours, a replay among them, get the headers without which a page may not read them.
        allowed = any(one.cls is CORSMiddleware for one in own)
        assert (again.header("access-control-allow-origin") is not None) is allowed


async def test_an_ordinary_request_of_such_an_app_is_as_it_was() -> None:
    feed = Feed(StarletteMiddleware(BaseHTTPMiddleware, dispatch=pass_on))
    async with Site(feed.app) as site:
        for headers in (READER, {"accept": "*/*"}, READER | {"idempotency-key": "k" * 22}):
            connection = site.connect("/json", method="POST", headers=headers, body=None)
            for _ in range(10):
                connection.send_body(b"x" * 50_000, more=True)
            connection.send_body(b"x")
            await connection.finished()
            assert connection.status == 200
            assert connection.body == b'{"got":500001}'
            assert connection.header("x-passed") == "yes"
            assert not connection.logged


async def test_the_bytes_of_a_framework_are_those_of_the_bare_run() -> None:
    bare, wrapped = Feed(), Feed()
    bare.gate.set()
    wrapped.gate.set()
    async with SiteConnection(bare.app, path="/chat", headers=READER) as connection:
        await connection.finished()
    async with Site(wrapped.app) as site:
        first = site.connect()
        await first.finished()
        assert plain(first.body) == connection.body
        kept = {(name, value) for name, value in connection.headers if name != b"vary"}
        assert kept <= set(first.headers)
