"""CORS by ``OriginMiddleware``: preflights, every answer of ours, and other CORS middleware within and around it."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware as StarletteMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from streamware import CORSOptions, Middleware, OriginMiddleware, ResumeMiddleware, Stack
from streamware.testing import Connection
from streamware.types import ASGIApp, Receive, Scope, Send
from tests.middleware.origin_site import COOKIE, FOREIGN, LISTED, OWN, Site

PREFLIGHT = {"origin": LISTED, "access-control-request-method": "POST"}
CORS_LINES = {"access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"}


def cors_of(connection: Connection) -> dict[str, str]:
    """The response's lines about CORS; none stands twice."""
    pairs = [(name.decode(), value.decode()) for name, value in connection.headers]
    found = [(name.lower(), value) for name, value in pairs if name.lower().startswith("access-control-")]
    assert len(dict(found)) == len(found), found
    return dict(found)


def vary_of(connection: Connection) -> list[str]:
    lines = [value.decode() for name, value in connection.headers if name.lower() == b"vary"]
    return [item.strip().lower() for line in lines for item in line.split(",")]


async def test_a_preflight_of_a_listed_origin_is_answered_without_the_app() -> None:
    site = Site(cors=True)

    answer = await site.ask("OPTIONS", {**PREFLIGHT, "access-control-request-headers": "last-event-id,prefer"})

    assert answer.status == 204
    assert answer.body == b""
    assert site.reached == []
    assert site.observer.counts == {}
    assert cors_of(answer)["access-control-allow-origin"] == LISTED
    assert vary_of(answer)[0] == "origin"


@pytest.mark.parametrize(
    "headers",
    [
        {**PREFLIGHT, "origin": FOREIGN},
        {**PREFLIGHT, "origin": OWN},
        {**PREFLIGHT, "access-control-request-headers": "x-app"},
        {**PREFLIGHT, "access-control-request-method": "BREW"},
    ],
)
async def test_any_other_preflight_is_the_apps(headers: dict[str, str]) -> None:
    site = Site(cors=True)

    answer = await site.ask("OPTIONS", headers)

    assert answer.status == 200
    assert answer.body == b"app"
    assert len(site.reached) == 1
    assert "origin" in vary_of(answer)


@pytest.mark.parametrize("origin", [LISTED, "https://Chat.Example:443"])
async def test_a_listed_origin_may_read_and_is_told_so_as_it_wrote_itself(origin: str) -> None:
    answer = await Site(cors=True).ask(headers={"origin": origin, **COOKIE})

    assert cors_of(answer).keys() == CORS_LINES
    assert cors_of(answer)["access-control-allow-origin"] == origin
    assert cors_of(answer)["access-control-allow-credentials"] == "true"
    assert "Content-Location" in cors_of(answer)["access-control-expose-headers"]


@pytest.mark.parametrize("headers", [{}, {"origin": OWN}, {"sec-fetch-site": "same-origin"}])
async def test_everybody_else_needs_no_permission_but_caches_are_told(headers: dict[str, str]) -> None:
    answer = await Site(cors=True).ask(headers=headers)

    assert cors_of(answer) == {}
    assert vary_of(answer) == ["origin"]


async def test_a_foreign_origin_is_told_nothing() -> None:
    answer = await Site(cors=True).ask(headers={"origin": FOREIGN})

    assert answer.status == 403
    assert cors_of(answer) == {}


async def test_refusals_of_a_listed_origin_can_be_read() -> None:
    site = Site(cors=True, hosts=["api.example"], require_secure=True)

    wrong_host = await site.ask(headers={"origin": LISTED}, host="other.example")
    insecure = await site.ask(headers={"origin": LISTED}, scheme="http")

    for answer in (wrong_host, insecure):
        assert answer.status == 403
        assert cors_of(answer)["access-control-allow-origin"] == LISTED


async def test_null_where_it_is_listed_reads_without_credentials() -> None:
    answer = await Site(cors=True, allow=["null"]).ask(headers={"origin": "null"})

    assert cors_of(answer)["access-control-allow-origin"] == "null"
    assert "access-control-allow-credentials" not in cors_of(answer)


async def test_a_wildcard_entry_is_answered_with_the_origin_itself() -> None:
    site = Site(cors=True, allow=["https://*.chat.example"])

    answer = await site.ask(headers={"origin": "https://a.b.chat.example"})

    assert cors_of(answer)["access-control-allow-origin"] == "https://a.b.chat.example"


@pytest.mark.parametrize("cors", [None, False])
async def test_without_the_option_nothing_is_written(cors: bool | None) -> None:
    site = Site(cors=cors)

    answer = await site.ask(headers={"origin": LISTED})

    assert answer.headers == site.lines


async def test_messages_that_are_no_start_pass_as_they_are() -> None:
    start = {"type": "http.response.start", "status": 200, "headers": iter([(b"vary", b"Accept")]), "trailers": True}
    others = [
        {"type": "http.response.debug", "info": {}},
        {"type": "http.response.early_hint", "links": []},
        {"type": "mystery"},
    ]
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (*others, start):
            await send(message)

    async def send(message: Any) -> None:
        seen.append(message)

    scope = {"type": "http", "method": "GET", "scheme": "https", "path": "/", "headers": [(b"origin", LISTED.encode())]}
    await OriginMiddleware(app, allow=[LISTED], cors=True)(scope, None, send)

    assert all(one is other for one, other in zip(seen, others, strict=False))
    assert seen[-1]["trailers"] is True
    assert (b"vary", b"Accept, Origin") in seen[-1]["headers"]
    assert (b"access-control-allow-origin", LISTED.encode()) in seen[-1]["headers"]


# -- a stream, through Resume


def streaming() -> ASGIApp:
    async def events(request: Any) -> StreamingResponse:
        async def body() -> Any:
            for word in ("a", "b", "c"):
                yield f"data: {word}\n\n"

        return StreamingResponse(body(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/chat", events, methods=["GET", "POST"])])
    return Stack(app, [Middleware(OriginMiddleware, allow=[LISTED], cors=True), Middleware(ResumeMiddleware)])


async def answered(app: ASGIApp, method: str, path: str, headers: dict[str, str]) -> Connection:
    connection = Connection(
        app, method=method, path=path, headers={"host": "api.example", **headers}, scope={"scheme": "https"}
    )
    async with connection:
        await connection.receive_body()
    return connection


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_every_answer_to_a_stream_of_ours_can_be_read(method: str) -> None:
    app = streaming()
    page = {"origin": LISTED, "accept": "text/event-stream"}

    started = await answered(app, method, "/chat", page)
    location = started.header("content-location") or ""
    cursor = started.pending_events[0].id
    resumed = await answered(app, method, "/chat", {**page, "last-event-id": cursor})
    polled = await answered(app, "GET", f"/chat{location}", {**page, "accept": "application/json"})
    stopped = await answered(app, "DELETE", f"/chat{location}", page)
    unknown = await answered(app, "DELETE", f"/chat{location}x", page)
    done = await answered(app, method, "/chat", {**page, "last-event-id": cursor.partition(".")[0] + ".3"})
    gone = await answered(app, "POST", "/chat", {**page, "last-event-id": cursor.partition(".")[0][:-1] + "x.3"})
    preflight = await answered(
        app, "OPTIONS", f"/chat{location}", {**PREFLIGHT, "access-control-request-method": "DELETE"}
    )

    assert [each.data for each in resumed.pending_events] == ["b", "c"]
    assert [each.status for each in (started, resumed, polled, stopped, done)] == [200, 200, 200, 204, 204]
    assert preflight.status == 204
    assert unknown.status in (404, 405)
    assert gone.status == 410
    for answer in (started, resumed, polled, stopped, unknown, done, gone):
        assert cors_of(answer).keys() == CORS_LINES
        assert cors_of(answer)["access-control-allow-origin"] == LISTED
        assert vary_of(answer).count("origin") == 1


async def test_each_reader_is_told_of_its_own_origin_whoever_started_the_stream() -> None:
    app = streaming()
    page = {"accept": "text/event-stream"}

    started = await answered(app, "GET", "/chat", {**page, "origin": LISTED})
    cursor = started.pending_events[0].id
    own = await answered(app, "GET", "/chat", {**page, "origin": OWN, "last-event-id": cursor})
    again = await answered(app, "GET", "/chat", {**page, "origin": LISTED, "last-event-id": cursor})

    assert cors_of(own) == {}
    assert cors_of(again)["access-control-allow-origin"] == LISTED


# -- Starlette's CORSMiddleware, within and around

STARLETTE = {"allow_methods": ["GET", "PUT"], "allow_headers": ["X-App"], "expose_headers": ["X-App", "Location"]}


def inside(**cors: Any) -> ASGIApp:
    """The app has its own CORS middleware."""
    app = Starlette(
        routes=[Route("/", lambda request: PlainTextResponse("app"), methods=["GET", "PUT"])],
        middleware=[StarletteMiddleware(CORSMiddleware, **{**STARLETTE, **cors})],
    )
    return OriginMiddleware(app, allow=[LISTED], cors=CORSOptions(credentials=not cors.get("plain", False)))


@pytest.mark.parametrize(
    "cors",
    [
        {"allow_origins": ["*"]},
        {"allow_origins": ["*"], "allow_credentials": True},
        {"allow_origins": [LISTED], "allow_credentials": True},
        {"allow_origins": ["https://other.example"]},
    ],
)
async def test_within_ours_its_lines_are_replaced_and_what_it_exposes_stays(cors: dict[str, Any]) -> None:
    app = inside(**cors)

    got = await answered(app, "GET", "/", {"origin": LISTED, **COOKIE})
    own = await answered(app, "GET", "/", {"origin": OWN})

    assert got.status == 200
    assert cors_of(got)["access-control-allow-origin"] == LISTED
    assert cors_of(got)["access-control-allow-credentials"] == "true"
    exposed = cors_of(got)["access-control-expose-headers"].split(", ")
    assert exposed.count("X-App") == exposed.count("Location") == exposed.count("Content-Location") == 1
    assert "origin" in vary_of(got)
    assert "origin" in vary_of(own)


async def test_within_ours_it_answers_the_preflights_that_ours_does_not_know() -> None:
    app = inside(allow_origins=[LISTED])
    ask = {"origin": LISTED, "access-control-request-method": "PUT"}

    theirs = await answered(app, "OPTIONS", "/", {**ask, "access-control-request-headers": "x-app"})
    ours = await answered(app, "OPTIONS", "/", {**ask, "access-control-request-headers": "prefer"})

    assert (theirs.status, ours.status) == (200, 204)
    assert "X-App" in cors_of(theirs)["access-control-allow-headers"]
    assert "Prefer" in cors_of(ours)["access-control-allow-headers"]
    assert cors_of(theirs)["access-control-allow-origin"] == cors_of(ours)["access-control-allow-origin"] == LISTED


@pytest.mark.parametrize("origins", [["*"], [LISTED]])
async def test_around_ours_it_answers_preflights_and_nothing_is_doubled(origins: list[str]) -> None:
    site = Site(cors=True)
    app = CORSMiddleware(site.app, allow_origins=origins, allow_credentials=True, **STARLETTE)

    got = await answered(app, "GET", "/", {"origin": LISTED, **COOKIE})
    preflight = await answered(app, "OPTIONS", "/", {"origin": LISTED, "access-control-request-method": "GET"})
    refused = await answered(app, "GET", "/", {"origin": FOREIGN})

    assert (got.status, preflight.status, refused.status) == (200, 200, 403)
    for answer in (got, preflight):
        assert cors_of(answer)["access-control-allow-origin"] == LISTED
        assert cors_of(answer)["access-control-allow-credentials"] == "true"
