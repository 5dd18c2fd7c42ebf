"""The Python of the README and of the documents runs as it stands there, page by page, from top to bottom.

Blocks of one page share their names, as they would in one file. A block that calls ``asyncio.run`` is a program: it
runs in a thread of its own, and where it speaks to 127.0.0.1:8000, the page's ``app`` is served for it elsewhere.
"""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import uvicorn

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
ADDRESS = "http://127.0.0.1:8000"


def blocks(page: Path) -> list[tuple[int, str]]:
    """(line, code) of each Python block."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(1)), found[1]) for found in BLOCK.finditer(text)]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name)
async def test_the_code_of_a_page_runs(page: Path) -> None:
    names: dict[str, Any] = {"__name__": "docs"}
    for line, code in blocks(page):
        # Tracebacks then name the page and the line.
        source = "\n" * line + code
        if "asyncio.run(" not in code:
            exec(compile(source, str(page), "exec"), names)
        elif ADDRESS in code:
            await run_beside_its_server(source, str(page), names)
        else:
            await asyncio.to_thread(exec, compile(source, str(page), "exec"), names)


async def run_beside_its_server(source: str, page: str, names: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(
            uvicorn.Config(names["app"], log_level="warning", timeout_graceful_shutdown=1, ws="none")
        )
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            own = f"http://127.0.0.1:{listening.getsockname()[1]}"
            await asyncio.to_thread(exec, compile(source.replace(ADDRESS, own), page, "exec"), names)
        finally:
            server.should_exit = True
            await task


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]

    missing = [link for link in links if not (page.parent / link).exists()]

    assert missing == []


def test_every_option_has_its_line_on_the_page_of_its_middleware() -> None:
    import inspect

    import streamware

    pages = {
        "drain.md": streamware.DrainMiddleware,
        "heartbeat.md": streamware.HeartbeatMiddleware,
        "resume.md": streamware.ResumeMiddleware,
        "throttle.md": streamware.ThrottleMiddleware,
        "../stores.md": streamware.MemoryStore,
    }
    for page, cls in pages.items():
        text = (ROOT / "docs" / "middleware" / page).read_text(encoding="utf-8")
        table = {
            cell for row in re.findall(r"^\| ([^|]*) \|", text, re.MULTILINE) for cell in re.findall(r"`(\w+)`", row)
        }
        options = {option for option in inspect.signature(cls).parameters if option not in ("app", "args", "kwargs")}
        assert options <= table, f"{page} says nothing of {sorted(options - table)}"
