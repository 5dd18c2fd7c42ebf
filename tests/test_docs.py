"""The Python of the README and of the documents runs as it stands there, page by page, from top to bottom.

Blocks of one page share their names, as they would in one file. A block that calls ``asyncio.run`` is a program: it
runs in a thread of its own, and where it speaks to 127.0.0.1:8000, the page's ``app`` is served for it elsewhere.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import uvicorn

import streamware

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


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_links_to_a_section_name_one(page: Path) -> None:
    found = re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8"))

    missing = [
        f"{target}#{anchor}"
        for target, anchor in found
        if "://" not in target and anchor not in anchors(page.parent / target if target else page)
    ]

    assert missing == []


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Whose options the tables of a page are, from top to bottom.
TABLES = {
    "auth.md": [streamware.JWTVerifier, streamware.IntrospectionVerifier],
    "limits.md": [streamware.wrap],
    "middleware/auth-expiry.md": [streamware.Expiry],
    "middleware/auth.md": [streamware.Tickets, streamware.AuthMiddleware],
    "middleware/client-ip.md": [streamware.ClientIPMiddleware, streamware.IPAllowlistMiddleware],
    "middleware/compression.md": [streamware.CompressionMiddleware],
    "middleware/drain.md": [streamware.DrainMiddleware],
    "middleware/heartbeat.md": [streamware.HeartbeatMiddleware],
    "middleware/origin.md": [streamware.OriginMiddleware, streamware.CORSOptions, streamware.OriginMiddleware],
    "middleware/resume.md": [streamware.ResumeMiddleware],
    "middleware/throttle.md": [streamware.ThrottleMiddleware],
    "middleware/token-budget.md": [streamware.TokenBudgetMiddleware],
    "stores.md": [streamware.MemoryStore, streamware.SQLiteStore, streamware.RedisStore],
}
UNITS = {"": 1, " s": 1, " h": 3600, " KiB": 1024, " MiB": 1024**2, " GiB": 1024**3}


def option_tables(page: Path) -> list[tuple[bool, dict[str, str]]]:
    """Of each table of options: whether it gives defaults, and so has to be complete; and its second cell by option."""
    found = re.finditer(
        r"^\| option[^|]* \| (\w+)[^\n]*\n\|[-|]+\n((?:\|[^\n]*\n)+)", page.read_text(encoding="utf-8"), re.MULTILINE
    )
    tables: list[tuple[bool, dict[str, str]]] = []
    for table in found:
        cells: dict[str, str] = {}
        for row in table[2].splitlines():
            _, first, second, *_ = row.split("|")
            options = re.findall(r"`(\w+)`", first)
            values = second.strip().split(", ") if len(options) > 1 else [second.strip()]
            cells |= zip(options, values if len(values) == len(options) else [""] * len(options), strict=True)
        tables.append((table[1] == "default", cells))
    return tables


def default_of(cell: str) -> object:
    """The value that a cell gives, as ``None``, 15.0, 8 MiB; ``...`` where it says it in words."""
    number = re.fullmatch(r"([\d,.]+)( s| h| [KMG]iB|)", cell)
    if number is not None:
        return float(number[1].replace(",", "")) * UNITS[number[2]]
    try:
        value: object = ast.literal_eval(cell.strip("`")) if cell.startswith("`") else ...
    except (ValueError, SyntaxError):
        return ...
    return tuple(value) if isinstance(value, list) else value


def test_every_table_of_options_is_looked_at() -> None:
    tables = {name(page).removeprefix("docs/"): len(option_tables(page)) for page in PAGES}

    assert {page: count for page, count in tables.items() if count} == {p: len(own) for p, own in TABLES.items()}
    middlewares = {each for each in streamware.__all__ if each.endswith("Middleware") and each != "Middleware"}
    assert middlewares <= {owner.__name__ for owners in TABLES.values() for owner in owners}


@pytest.mark.parametrize("page", TABLES)
def test_tables_of_options_are_true_to_the_signatures(page: str) -> None:
    for owner, (complete, cells) in zip(TABLES[page], option_tables(ROOT / "docs" / page), strict=True):
        parameters = dict(inspect.signature(owner).parameters)
        parameters.pop("app", None)
        assert cells.keys() <= parameters.keys(), f"{owner.__name__} has no {sorted(cells.keys() - parameters.keys())}"
        if not complete:
            continue
        assert cells.keys() == parameters.keys(), f"nothing is said of {sorted(parameters.keys() - cells.keys())}"
        told = {option: default_of(cell) for option, cell in cells.items()}
        wrong = {
            option: (value, parameters[option].default)
            for option, value in told.items()
            if value is not ... and value != parameters[option].default
        }
        assert wrong == {}, f"defaults of {owner.__name__}, as told and as they are"


def test_the_reference_names_the_options_of_what_it_spells_out() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    spelled = re.findall(r"^\| `(\w+)` \| `\1\(([^`…]*)\)`", text, re.MULTILINE)
    assert {"wrap", "Stack", "Expiry", "IssuerVerifier"} <= {each for each, _ in spelled}

    for each, written in spelled:
        value = getattr(streamware, each, None)
        if value is None or "**" in written:
            continue
        options = [re.match(r"\w*", option.strip()) for option in written.split(",")]
        names = [option[0] for option in options if option is not None and option[0]]
        assert names == list(inspect.signature(value).parameters), each
