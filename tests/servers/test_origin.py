"""Origins on real servers: what each of them makes of a refusal, of two lines, and of a preflight."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import websockets.asyncio.client
import websockets.exceptions

from tests.servers.client import EVENTSOURCE, FETCH, fetch
from tests.servers.launch import SERVERS, Server
from tests.servers.origin_app import ALLOWED

FOREIGN = "https://evil.example"
PAGE = (("accept", "text/html"),)


NAMES = ["uvicorn", "uvicorn-h11", "hypercorn", "hypercorn-h2", "daphne", "granian"]


@pytest.fixture(scope="module", params=NAMES)
def site(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(SERVERS[request.param], "tests.servers.origin_app:app") as running:
        yield running
        assert not running.complaints


#: Those that speak WebSocket: over HTTP/2 it is out of scope.
with_websocket = pytest.mark.parametrize("site", [name for name in NAMES if name != "hypercorn-h2"], indirect=True)


def own(site: Server) -> str:
    """The origin of the pages that a client of ``client.py`` would be on."""
    return "https://127.0.0.1" if site.kind.http2 else "http://127.0.0.1"


async def shake(site: Server, path: str, headers: dict[str, str]) -> tuple[int, str]:
    """Open a WebSocket: 101 and the echo, or the status of the refusal and its body."""
    try:
        async with websockets.asyncio.client.connect(
            f"ws://127.0.0.1:{site.port}{path}", additional_headers=headers, open_timeout=10
        ) as socket:
            await socket.send("hello")
            return 101, str(await socket.recv())
    except websockets.exceptions.InvalidStatus as refused:
        return refused.response.status_code, (refused.response.body or b"").decode()


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [("GET", "/plain", ()), ("POST", "/plain", ()), ("GET", "/events", EVENTSOURCE), ("POST", "/events", FETCH)],
)
async def test_requests_and_streams_are_judged_by_their_origin(
    site: Server, method: str, target: str, headers: tuple[tuple[str, str], ...]
) -> None:
    for origin, status in ((own(site), 200), (ALLOWED, 200), (FOREIGN, 403), ("null", 403), ("", 403), (None, 200)):
        lines = headers if origin is None else (*headers, ("origin", origin))
        got, _, body = await fetch(site, method, target, headers=lines, body=b"x" if method == "POST" else b"")
        assert got == status, (origin, body)


async def test_two_origins_are_refused(site: Server) -> None:
    status, _, _ = await fetch(site, "GET", "/plain", headers=[("origin", ALLOWED), ("origin", ALLOWED)])

    assert status == 403


async def test_a_refusal_is_whole_however_much_was_sent(site: Server) -> None:
    status, headers, body = await fetch(site, "POST", "/plain", headers=[("origin", FOREIGN)], body=b"x" * 16_000)

    assert status == 403
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body)["status"] == 403


async def test_a_preflight_is_answered_and_a_stream_and_its_resume_can_be_read(site: Server) -> None:
    page = (*FETCH, ("origin", ALLOWED))

    status, head, body = await fetch(
        site,
        "OPTIONS",
        "/events",
        headers=[
            ("origin", ALLOWED),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type,last-event-id"),
        ],
    )
    assert (status, body) == (204, b"")
    assert head["access-control-allow-origin"] == ALLOWED
    assert "Last-Event-ID" in head["access-control-allow-headers"]

    status, head, body = await fetch(site, "POST", "/events", headers=page, body=b"{}")
    cursor = body.decode().partition("id: ")[2].partition("\n")[0]
    assert (status, head["access-control-allow-origin"]) == (200, ALLOWED)
    assert "Content-Location" in head["access-control-expose-headers"]

    status, head, body = await fetch(site, "POST", "/events", headers=(*page, ("last-event-id", cursor)), body=b"{}")
    assert (status, head["access-control-allow-origin"]) == (200, ALLOWED)
    assert [line for line in body.decode().splitlines() if line.startswith("data")] == ["data: b", "data: c"]


async def test_tls_is_asked_for_and_told(site: Server) -> None:
    call, head, _ = await fetch(site, "GET", "/secure/plain")
    page, moved, _ = await fetch(site, "GET", "/secure/plain?a=b", headers=PAGE)

    if site.kind.http2:
        assert (call, page) == (200, 200)
        assert head["strict-transport-security"] == "max-age=31536000"
    else:
        assert (call, page) == (403, 308)
        assert moved["location"] == "https://127.0.0.1/secure/plain?a=b"
        assert "strict-transport-security" not in head


@with_websocket
@pytest.mark.parametrize(
    ("headers", "good"),
    [
        ({}, True),
        ({"Origin": ALLOWED, "Cookie": "sid=1"}, True),
        ({"Origin": "http://127.0.0.1:{port}", "Cookie": "sid=1"}, True),
        ({"Authorization": "Bearer abc"}, True),
        ({"Cookie": "sid=1"}, False),
        ({"Origin": FOREIGN}, False),
        ({"Origin": "https://127.0.0.1:{port}"}, False),
        ({"Origin": "null"}, False),
    ],
)
async def test_a_websocket_is_refused_in_its_handshake(site: Server, headers: dict[str, str], good: bool) -> None:
    filled = {name: value.format(port=site.port) for name, value in headers.items()}

    status, text = await shake(site, "/echo", filled)

    assert status == (101 if good else 403)
    if good:
        assert text == "hello"
    elif site.kind.name != "daphne":  # which can say no more than 403
        assert json.loads(text)["title"] == "The request may not come from here"


@with_websocket
async def test_a_websocket_without_tls_is_refused(site: Server) -> None:
    assert (await shake(site, "/secure/echo", {}))[0] == 403
