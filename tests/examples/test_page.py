"""The page of the chat in a real browser: ask, cut, reload, stop, and a bad network. The page counts by itself."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright

from examples.chat import voice
from examples.chat.app import create_app
from examples.chat.flaky import FlakyProxy
from streamware import wrap
from streamware.types import Receive, Scope, Send

from .conftest import Serve

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
QUESTION = "Who kept the light?"
# The page's EventSource gets the words and "done"; its fetch gets the role, the words, the finish reason and [DONE].
WHOLE = {"eventsource": len(voice.words(QUESTION)) + 1, "fetch": len(voice.words(QUESTION)) + 3}

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
    pytest.mark.timeout(120),
]


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await browser.new_page()
        failures: list[str] = []
        page.on("pageerror", lambda failure: failures.append(str(failure)))
        yield page
        await browser.close()
    assert failures == []


@pytest.fixture(params=WHOLE)
def via(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def chat(pace: float) -> Callable[..., Any]:
    return wrap(create_app(pace), always=["/v1/*"])


async def ask(page: Page, url: str, via: str) -> None:
    await page.goto(url)
    await page.fill("#question", QUESTION)
    await page.click(f"[value={via}]")
    await page.click("#ask")


async def received(page: Page, at_least: int) -> None:
    await page.wait_for_function(f"state.received >= {at_least}")


async def ended(page: Page, status: str) -> None:
    # While a page is reloaded it has no such element yet.
    await page.wait_for_function(f"document.getElementById('state')?.textContent === '{status}'", timeout=60_000)


async def counters(page: Page) -> dict[str, int]:
    return {name: int(await page.inner_text(f"#{name}")) for name in ("received", "lost", "repeated", "reconnects")}


async def assert_whole(page: Page, via: str, reconnects: int | None = None) -> None:
    """The page has had every event once and in order, and shows the whole answer."""
    counted = await counters(page)
    if reconnects is not None:
        assert counted["reconnects"] == reconnects
    assert (counted["received"], counted["lost"], counted["repeated"]) == (WHOLE[via], 0, 0)
    assert await page.evaluate("state.text") == "".join(voice.words(QUESTION))


async def test_an_uncut_answer_arrives_whole(serve: Serve, page: Page, via: str) -> None:
    await ask(page, await serve(chat(pace=2000)), via)

    await ended(page, "done")

    await assert_whole(page, via, reconnects=0)


async def test_a_cut_and_a_reload_cost_nothing(serve: Serve, page: Page, via: str) -> None:
    await ask(page, await serve(chat(pace=60)), via)  # ten seconds: a busy machine still cuts in the middle

    await received(page, 30)
    await page.click("#cut")
    await received(page, 110)
    await page.click("#reload")
    await ended(page, "done")

    await assert_whole(page, via, reconnects=2)


async def test_an_answer_that_ended_while_the_page_was_away_is_read_to_its_end(
    serve: Serve, page: Page, via: str
) -> None:
    answered = asyncio.Event()
    inner = create_app(pace=400)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await inner(scope, receive, send)
        if scope["type"] == "http" and scope["path"] != "/":
            answered.set()

    url = await serve(wrap(app, always=["/v1/*"]))
    await ask(page, url, via)

    await received(page, 30)
    await page.goto("about:blank")
    async with asyncio.timeout(20):
        await answered.wait()  # the app goes on without the page
    await page.goto(url)
    await ended(page, "done")

    await assert_whole(page, via, reconnects=1)


async def test_a_stopped_answer_stays_stopped(serve: Serve, page: Page, via: str) -> None:
    await ask(page, await serve(chat(pace=60)), via)

    await received(page, 30)
    await page.click("#stop")
    await ended(page, "stopped")

    counted = await counters(page)
    assert counted["received"] < WHOLE[via] / 2
    assert (counted["lost"], counted["repeated"]) == (0, 0)
    await page.click("#reload")
    await ended(page, "stopped")
    assert await counters(page) == counted


async def test_the_browser_itself_reconnects_through_a_bad_network(serve: Serve, page: Page, via: str) -> None:
    url = await serve(chat(pace=90))
    host, port = url.removeprefix("http://").split(":")
    front = socket.create_server(("127.0.0.1", 0))
    async with FlakyProxy(front, (host, int(port)), seconds=1.0, seed=7) as network:
        await ask(page, f"http://127.0.0.1:{front.getsockname()[1]}", via)

        await ended(page, "done")

    await assert_whole(page, via)
    assert network.cuts >= 2
    assert (await counters(page))["reconnects"] >= 2
