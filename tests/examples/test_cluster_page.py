"""The page of the chat in a real browser, on a cluster whose workers are restarted and killed under it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, async_playwright

from examples.chat import voice

from .test_cluster import QUESTION, Demo, cluster
from .test_page import FLAGS, WHOLE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
    pytest.mark.timeout(120),
]


@pytest.fixture
async def demo() -> AsyncIterator[Demo]:
    async with cluster("--pace", "45") as running:
        yield running


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield await browser.new_page()
        await browser.close()


async def ask(page: Page, demo: Demo, via: str) -> str:
    """Ask, wait until the answer is under way; the worker that the page says serves it."""
    await page.goto(demo.url)
    await page.fill("#question", QUESTION)
    await page.click(f"[value={via}]")
    await page.click("#ask")
    await page.wait_for_function("state.received >= 40")
    return await served_by(page)


async def served_by(page: Page) -> str:
    return (await page.inner_text("#worker")).removeprefix("by worker ")


async def other_worker(page: Page, than: str) -> str:
    await page.wait_for_function(f"state.worker !== '{than}'", timeout=30_000)
    return await served_by(page)


async def assert_whole(page: Page, via: str) -> None:
    await page.wait_for_function("document.getElementById('state').textContent === 'done'", timeout=60_000)
    counted = {name: int(await page.inner_text(f"#{name}")) for name in ("received", "lost", "repeated")}
    assert counted == {"received": WHOLE[via], "lost": 0, "repeated": 0}
    assert await page.evaluate("state.text") == "".join(voice.words(QUESTION))


@pytest.mark.parametrize("via", ["eventsource", pytest.param("fetch", marks=pytest.mark.soak)])
async def test_an_answer_goes_on_in_the_page_while_its_worker_is_restarted(demo: Demo, page: Page, via: str) -> None:
    first = await ask(page, demo, via)

    demo.press("r")
    await demo.says(f"{first} gets SIGTERM")
    second = await other_worker(page, than=first)
    demo.press("r")
    await demo.says(f"{second} gets SIGTERM")
    third = await other_worker(page, than=second)

    await assert_whole(page, via)
    assert first in ("A1", "B1")
    assert third != second


@pytest.mark.soak
@pytest.mark.parametrize("via", WHOLE)
async def test_an_answer_goes_on_in_the_page_when_the_worker_that_reads_it_is_killed(
    demo: Demo, page: Page, via: str
) -> None:
    first = await ask(page, demo, via)

    await page.click("#cut")
    second = await other_worker(page, than=first)
    await page.wait_for_function("state.received >= 120")
    demo.press("k")
    await demo.says(f"{second} gets SIGKILL")

    await assert_whole(page, via)
