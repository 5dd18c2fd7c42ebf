"""Pages in a real browser: one on the API's own origin, one on a listed origin, and two on neither.

All are loopback ports. The listed page and the neighbour are on ``127.0.0.1``, and so the same site as the API: to a
browser its cookie is theirs to send. The stranger is on ``localhost``, which is another site.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from playwright.async_api import BrowserContext, Page, async_playwright
from playwright.async_api import Error as PlaywrightError
from starlette.applications import Starlette
from starlette.middleware import Middleware as StarletteMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from streamware import CountingObserver, Middleware, OriginMiddleware, ResumeMiddleware, Stack

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
    pytest.mark.timeout(120),
]


@dataclass
class Api:
    """The app that is asked. ``reached``: (method, path) of what came through to it; ``cookies``: what it was shown."""

    reached: list[tuple[str, str]] = field(default_factory=list)
    cookies: list[str | None] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    observer: CountingObserver = field(default_factory=CountingObserver)
    url: str = ""

    @property
    def reasons(self) -> dict[str, int]:
        return {reason: n for (name, reason), n in self.observer.counts.items() if name == "origin.refused"}

    def saw(self, request: Request | WebSocket) -> None:
        self.reached.append((request.scope.get("method", "WEBSOCKET"), request.url.path))
        self.cookies.append(request.headers.get("cookie"))

    async def chat(self, request: Request) -> StreamingResponse:
        self.saw(request)
        await request.body()

        async def body() -> AsyncIterator[str]:
            for number in range(1, 6):
                if number == 3:
                    await self.gate.wait()
                yield f"data: {number}\n\n"

        return StreamingResponse(body(), media_type="text/event-stream", headers={"x-request-id": "app"})

    async def echo(self, socket: WebSocket) -> None:
        self.saw(socket)
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close(3001)

    async def page(self, request: Request) -> HTMLResponse:
        self.saw(request)
        return HTMLResponse("<title>own</title>")

    def app(self, listed: str, *, own_cors: bool) -> Stack:
        cors = StarletteMiddleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], expose_headers=["X-App"])
        app = Starlette(
            routes=[
                Route("/", self.page),
                Route("/chat", self.chat, methods=["GET", "POST"]),
                WebSocketRoute("/echo", self.echo),
            ],
            middleware=[cors] if own_cors else [],
        )
        return Stack(
            app,
            [
                Middleware(OriginMiddleware, allow=[listed], cors=True, observer=self.observer),
                Middleware(ResumeMiddleware),
            ],
        )


@asynccontextmanager
async def serving(app: Callable[..., Any]) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, ws="websockets-sansio")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            async with asyncio.timeout(10):
                while not server.started and not task.done():
                    await asyncio.sleep(0.01)
            yield int(listening.getsockname()[1])
        finally:
            server.should_exit = True
            await task


@dataclass
class World:
    """An API, a browser with its cookie, and the URLs of pages."""

    api: Api
    context: BrowserContext
    listed: str
    neighbour: str
    stranger: str

    async def visit(self, url: str) -> Page:
        """A page, on which scripts know the API's URL as ``api``."""
        page = await self.context.new_page()
        await page.goto(url)
        await page.evaluate(f"globalThis.api = {self.api.url!r}")
        return page


@asynccontextmanager
async def world(*, own_cors: bool = False) -> AsyncIterator[World]:
    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse("<title>page</title>")

    async with AsyncExitStack() as stack:
        pages = Starlette(routes=[Route("/", page)])
        listed, other = [await stack.enter_async_context(serving(pages)) for _ in range(2)]
        api = Api()
        app = api.app(f"http://127.0.0.1:{listed}", own_cors=own_cors)
        api.url = f"http://127.0.0.1:{await stack.enter_async_context(serving(app))}"
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            context = await browser.new_context()
            await context.add_cookies([{"name": "sid", "value": "1", "url": api.url}])
            urls = [f"http://127.0.0.1:{listed}", f"http://127.0.0.1:{other}", f"http://localhost:{other}"]
            yield World(api, context, *urls)
        finally:
            api.gate.set()
            await browser.close()


#: Reads events of an EventSource until it ends, or has had as many as it is to have.
EVENTSOURCE = """([path, count]) => new Promise(resolve => {
    const source = new EventSource(api + path, {withCredentials: true}), got = [];
    source.onmessage = event => {
        got.push(event.data);
        if (got.length === count) { source.close(); resolve(got); }
    };
    source.onerror = () => { if (source.readyState === 2) resolve("closed"); };
})"""

#: Reads a stream by fetch until it has so many events; then breaks it off unless it has ended.
FETCH = """async ([path, count, headers]) => {
    const abort = new AbortController();
    const response = await fetch(api + path, {
        method: "POST", credentials: "include", signal: abort.signal, body: "{}",
        headers: {"accept": "text/event-stream", "content-type": "application/json", ...headers},
    });
    let text = "";
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    while ((text.match(/^data:/gm) ?? []).length < count) {
        const {value, done} = await reader.read();
        if (done) break;
        text += value;
    }
    abort.abort();
    return {
        status: response.status,
        data: [...text.matchAll(/^data: (.*)$/gm)].map(found => found[1]),
        ids: [...text.matchAll(/^id: (.*)$/gm)].map(found => found[1]),
        location: response.headers.get("content-location"),
        request: response.headers.get("x-request-id"),
    };
}"""

JSON = """async ([path, options]) => {
    const response = await fetch(api + path, {credentials: "include", ...options});
    const text = await response.text();
    const location = response.headers.get("content-location");
    return {status: response.status, body: text ? JSON.parse(text) : null, location};
}"""

SOCKET = """() => new Promise(resolve => {
    const socket = new WebSocket(api.replace("http", "ws") + "/echo");
    let got = null;
    socket.onopen = () => socket.send("hello");
    socket.onmessage = event => got = event.data;
    socket.onclose = event => resolve([got, event.code]);
})"""


@pytest.mark.parametrize("own_cors", [False, True], ids=["no other CORS", "the app's own CORS with *"])
async def test_a_page_of_a_listed_origin_reads_resumes_polls_and_stops(own_cors: bool) -> None:
    async with world(own_cors=own_cors) as site:
        api, page = site.api, await site.visit(site.listed)

        # an EventSource with its cookie
        api.gate.set()
        assert await page.evaluate(EVENTSOURCE, ["/chat", 5]) == ["1", "2", "3", "4", "5"]
        assert api.cookies == ["sid=1"]

        # a stream by POST, broken off and resumed: both ask for a preflight, neither of which reaches the app
        api.gate.clear()
        begun = await page.evaluate(FETCH, ["/chat", 2, {"idempotency-key": "k" * 22}])
        assert (begun["status"], begun["data"]) == (200, ["1", "2"])
        assert begun["location"].startswith("?_stream=")
        assert begun["request"] is None  # not exposed
        api.gate.set()
        resumed = await page.evaluate(FETCH, ["/chat", 3, {"last-event-id": begun["ids"][-1]}])
        assert (resumed["status"], resumed["data"]) == (200, ["3", "4", "5"])

        # a long poll of the same stream, its end, and what cannot be had
        url = "/chat" + begun["location"]
        headers = {"accept": "application/json", "prefer": "wait=5"}
        polled = await page.evaluate(JSON, [f"{url}&after=2", {"headers": headers}])
        assert [event["data"] for event in polled["body"]["events"]] == ["3", "4", "5"]
        assert polled["location"] == begun["location"]
        assert (await page.evaluate(JSON, [url, {"method": "DELETE"}]))["status"] == 204
        cursor = begun["ids"][-1]
        unknown = cursor[:-4] + ("A" if cursor[-4] != "A" else "B") + cursor[-3:]  # .N within a stream's id
        refused = await page.evaluate(JSON, ["/chat", {"method": "POST", "headers": {"last-event-id": unknown}}])
        assert (refused["status"], refused["body"]["reason"]) == (410, "unknown")
        assert api.reached[:2] == [("GET", "/chat"), ("POST", "/chat")]
        assert not any(method == "OPTIONS" for method, _ in api.reached)

        assert await page.evaluate(SOCKET) == ["hello", 3001]
        assert api.cookies[-1] == "sid=1"
        assert api.reasons == {}


FORM = """() => {
    document.body.innerHTML = `<iframe name=f></iframe><form method=post target=f action="${api}/chat"></form>`;
    document.forms[0].submit();
}"""
IMAGE = """() => new Promise(resolve => {
    const image = new Image();
    image.onerror = () => resolve();
    image.src = api + "/chat";
})"""


async def attack(api: Api, page: Page) -> None:
    """All that a page can ask, as it may be asked."""
    assert await page.evaluate(EVENTSOURCE, ["/chat", 5]) == "closed"
    with pytest.raises(PlaywrightError, match="Failed to fetch"):
        await page.evaluate(FETCH, ["/chat", 2, {}])
    assert await page.evaluate(SOCKET) == [None, 1006]
    # What needs no preflight cannot be read anyhow, but would still have started something.
    await page.evaluate("() => fetch(api + '/chat', {method: 'POST', mode: 'no-cors', credentials: 'include'})")
    await page.evaluate("() => fetch(api + '/chat', {mode: 'no-cors', credentials: 'include'})")
    await page.evaluate(IMAGE)
    async with page.expect_response(lambda response: response.request.method == "POST") as posted:
        await page.evaluate(FORM)
    assert (await posted.value).status == 403


async def test_a_page_of_another_origin_gets_nothing_and_starts_nothing() -> None:
    async with world() as site:
        site.api.gate.set()
        for url, reason in ((site.neighbour, "same_site"), (site.stranger, "cross_site")):
            site.api.observer.counts.clear()
            await attack(site.api, await site.visit(url))
            assert site.api.reasons == {"foreign": 4, reason: 2}

        # The preflight of the script's POST is the app's to answer, which knows of none.
        assert {method for method, _ in site.api.reached} <= {"OPTIONS"}


async def test_a_page_without_an_origin_gets_nothing() -> None:
    async with world() as site:
        page = await site.visit(site.listed)
        frame = """() => new Promise(resolve => {
            addEventListener("message", event => resolve(event.data));
            const frame = document.createElement("iframe");
            frame.sandbox = "allow-scripts";
            frame.srcdoc = `<script>
                const socket = new WebSocket("${api.replace("http", "ws")}/echo");
                socket.onclose = event => fetch("${api}/chat", {method: "POST", mode: "no-cors", body: "x"})
                    .then(() => parent.postMessage(event.code, "*"));
            </script>`;
            document.body.append(frame);
        })"""

        assert await page.evaluate(frame) == 1006

        assert site.api.reached == []
        assert site.api.reasons == {"null": 2}


async def test_a_page_of_the_api_itself_needs_no_listing_and_a_link_leads_to_it() -> None:
    async with world() as site:
        api, page = site.api, await site.visit(site.stranger)
        api.gate.set()

        async with page.expect_navigation():
            await page.evaluate("() => { location.href = api + '/'; }")
        assert await page.title() == "own"
        await page.evaluate(f"globalThis.api = {api.url!r}")

        assert await page.evaluate(EVENTSOURCE, ["/chat", 5]) == ["1", "2", "3", "4", "5"]
        assert (await page.evaluate(FETCH, ["/chat", 5, {}]))["data"] == ["1", "2", "3", "4", "5"]
        assert await page.evaluate(SOCKET) == ["hello", 3001]
        assert api.reasons == {}
