"""``make demo`` as a person runs it: its own process, Ctrl-C to end it."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def demo(*options: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """The running demo and its URL, once it answers."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "examples.chat.serve", *options,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            while (found := re.search(r"http://127\.0\.0\.1:\d+", (await process.stdout.readline()).decode())) is None:
                assert process.returncode is None
        yield found[0], process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("options", [(), ("--bare",), ("--flaky", "30"), ("--pace", "50")], ids=" ".join)
async def test_the_demo_serves_its_page_and_ends_at_ctrl_c(options: tuple[str, ...]) -> None:
    async with demo("--port", "0", *options) as (url, process):
        async with httpx.AsyncClient(timeout=30) as http:
            page = await http.get(url)
            async with http.stream("GET", f"{url}/chat?q=hi", headers={"accept": "text/event-stream"}) as chat:
                lines = chat.aiter_lines()
                first = [await anext(lines) for _ in range(4)]
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            code = await process.wait()

    assert "Cut the connection" in page.text
    assert any(line.startswith("data: ") for line in first)
    assert ("content-location" in chat.headers) == ("--bare" not in options)
    assert code == 0


async def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "examples.chat.serve", "--port", str(taken.getsockname()[1]),
            cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        told, _ = await process.communicate()

    assert process.returncode == 1
    assert "make demo PORT=" in told.decode()
    assert "Traceback" not in told.decode()
