"""What the script of a page gets to see of ``AuthMiddleware``, in a real browser: every way in, and every refusal."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright

from tests.auth.verifying import token_for
from tests.servers.launch import SERVERS, Server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
TOKEN = token_for("ada")
FORGED = TOKEN[:-6] + "AAAAAA"

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
    pytest.mark.timeout(120),
]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(SERVERS["uvicorn"], "tests.servers.auth_app:auto") as running:
        yield running
        assert not running.complaints


@pytest.fixture
async def page(server: Server) -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await browser.new_page()
        await page.goto(f"http://127.0.0.1:{server.port}/page")
        yield page
        await browser.close()


async def test_a_page_sees_why_it_is_refused_and_comes_in_by_subprotocol_and_ticket(page: Page):
    async def run(script: str) -> Any:
        return await page.evaluate(f"async () => {script}")

    # A WebSocket: opened and closed with a code, where a refused handshake would be a bare 1006.
    refused = {"opened": True, "first": None, "code": 3000, "reason": "Unauthorized"}
    assert await run("await socket('', [])") == {**refused, "protocol": ""}
    assert await run(f"await socket('', ['bearer', '{FORGED}'])") == {**refused, "protocol": "bearer"}
    assert await run(f"await socket('', ['bearer', '{FORGED}', 'chat'])") == {**refused, "protocol": "chat"}
    let_in = {"opened": True, "first": "ada", "code": 1000, "reason": ""}
    assert await run(f"await socket('', ['bearer', '{TOKEN}'])") == {**let_in, "protocol": "bearer"}
    assert await run(f"await socket('', ['chat', 'bearer', '{TOKEN}'])") == {**let_in, "protocol": "bearer"}
    assert await run(f"await socket(await ticket('{TOKEN}', '/socket'), [])") == {**let_in, "protocol": ""}

    # An EventSource: ended for good. With a ticket it comes in, once.
    assert await run("await events('')") == {"closed": True}
    assert await run(f"await events(await ticket('{TOKEN}', '/events'))") == {"data": "ada"}
    used = await run(f"await ticket('{TOKEN}', '/events')")
    assert await run(f"[await events('{used}'), await events('{used}')]") == [{"data": "ada"}, {"closed": True}]

    # A fetch: the status and the challenge.
    answer = await run(f"await ask('/who', '{FORGED}')")
    assert (answer["status"], json.loads(answer["text"])["error"]) == (401, "invalid_token")
    assert answer["challenge"].startswith('Bearer realm="api", error="invalid_token"')
    assert (await run(f"await ask('/who', '{TOKEN}')"))["status"] == 200
