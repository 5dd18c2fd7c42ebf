"""The four example apps, bare: the same bytes from each, and a run counted for each start."""

from __future__ import annotations

import httpx
import pytest

from examples import bare_asgi_app, content, django_app, fastapi_app, starlette_app
from streamware.types import ASGIApp

APPS = {
    "starlette": starlette_app.app,
    "fastapi": fastapi_app.app,
    "django": django_app.app,
    "bare": bare_asgi_app.app,
}


@pytest.fixture(params=APPS)
def app(request: pytest.FixtureRequest) -> ASGIApp:
    return APPS[request.param]


def client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")


async def test_events_are_the_same_bytes_in_every_app(app: ASGIApp) -> None:
    async with client(app) as http:
        got = await http.get("/events?n=40&delay=0")

    assert got.status_code == 200
    assert got.headers["content-type"].startswith("text/event-stream")
    assert got.content == content.body(40)


async def test_generate_takes_its_measure_from_a_json_body(app: ASGIApp) -> None:
    async with client(app) as http:
        got = await http.post("/generate", json={"n": 7, "delay": 0.001})

    assert got.content == content.body(7)


async def test_every_start_is_counted_by_its_label(app: ASGIApp) -> None:
    async with client(app) as http:
        before = (await http.get("/runs")).json()["total"]
        await http.get("/events?n=1&run=one")
        await http.post("/generate", json={"n": 1, "run": "two"})
        after = (await http.get("/runs")).json()

    assert after["total"] == before + 2
    assert after["labels"]["one"] >= 1
    assert after["labels"]["two"] >= 1


async def test_plain_is_one_json_document(app: ASGIApp) -> None:
    async with client(app) as http:
        got = await http.get("/plain")

    assert got.json()["plain"] is True
