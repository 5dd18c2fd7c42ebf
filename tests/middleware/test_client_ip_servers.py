"""Addresses as real servers give them: IPv4, IPv6, mapped, unix sockets, lists for tuples, repeated header lines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypercorn.asyncio
import hypercorn.config
import pytest
import uvicorn

from tests.middleware.client_ip_site import Peers, site
from tests.servers.launch import ROOT, SERVERS, Kind, Server

ALLOWED = "203.0.113.7"
OTHER = "198.51.100.1"
LISTED = ["203.0.113.0/24", "2001:db8::/32", "127.0.0.1", "::1"]
UPGRADE = [
    ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]  # fmt: skip


@dataclass(frozen=True)
class Answer:
    status: int
    head: str
    body: bytes

    @property
    def said(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.body)
        return told


async def ask(where: tuple[str, int] | str, *forwarded: str, upgrade: bool = False, proto: str = "") -> Answer:
    """One request, with a line of X-Forwarded-For for each of ``forwarded``."""
    lines = [("Host", "chat.example"), *(("X-Forwarded-For", line) for line in forwarded)]
    lines += [("X-Forwarded-Proto", proto)] if proto else []
    lines += UPGRADE if upgrade else [("Connection", "close")]
    async with asyncio.timeout(10):
        if isinstance(where, str):
            reader, writer = await asyncio.open_unix_connection(where)
        else:
            reader, writer = await asyncio.open_connection(*where)
        try:
            head = "".join(f"{name}: {value}\r\n" for name, value in lines)
            writer.write(f"GET / HTTP/1.1\r\n{head}\r\n".encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = re.search(r"^content-length: (\d+)", answer, re.IGNORECASE | re.MULTILINE)
            body = await reader.readexactly(int(length[1])) if length else b""
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    return Answer(int(answer.split(" ", 2)[1]), answer.lower(), body)


@contextlib.asynccontextmanager
async def on_uvicorn(app: Peers, **options: Any) -> AsyncIterator[tuple[str, int] | str]:
    config = uvicorn.Config(
        app, **{"port": 0, "log_level": "error", "ws": "websockets-sansio", "proxy_headers": False, **options}
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    try:
        async with asyncio.timeout(10):
            while not server.started:
                await asyncio.sleep(0.005)
        if "uds" in options:
            yield options["uds"]
        else:
            name = server.servers[0].sockets[0].getsockname()
            yield name[0], name[1]
    finally:
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def on_hypercorn(app: Peers, bind: str) -> AsyncIterator[None]:
    config = hypercorn.config.Config()
    config.bind = [bind]
    config.errorlog = None
    end = asyncio.Event()
    serving = asyncio.create_task(
        hypercorn.asyncio.serve(app, config, mode="asgi", shutdown_trigger=end.wait)  # type: ignore[arg-type]
    )
    try:
        yield
    finally:
        end.set()
        await serving


async def ask_once_up(where: tuple[str, int] | str, *forwarded: str) -> Answer:
    """The first answer of a server that does not say when it listens."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await ask(where, *forwarded)
            except OSError:
                await asyncio.sleep(0.005)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def check_all_of_it(where: tuple[str, int] | str, peer: str) -> None:
    """What is the same on every server: ``peer`` is trusted, and the client behind it decides."""
    answer = await ask(where, OTHER, f"{ALLOWED}:4711", proto="https")
    assert answer.status == 200
    assert answer.said == {"client": [ALLOWED, 4711], "scheme": "https", "peer": peer, "reason": "forwarded"}

    assert (await ask(where, ALLOWED, OTHER)).status == 403
    assert (await ask(where, f"{OTHER}, {ALLOWED}")).status == 200
    assert (await ask(where, ALLOWED, "unknown")).status == 403
    assert (await ask(where, ALLOWED, "")).status == 403
    assert (await ask(where, "2001:DB8:0::7")).said["client"] == ["2001:db8::7", 0]
    assert (await ask(where, "[2001:db8::7]:80")).said["client"] == ["2001:db8::7", 80]
    assert (await ask(where, f"::ffff:{ALLOWED}")).said["client"] == [ALLOWED, 0]
    refused = await ask(where, OTHER)
    assert "content-type: application/problem+json" in refused.head
    assert refused.said["title"] == "Forbidden"
    assert (await ask(where, ALLOWED, upgrade=True)).status == 101


async def check_denial(where: tuple[str, int] | str) -> None:
    """A WebSocket is refused by a response of ours."""
    denied = await ask(where, OTHER, upgrade=True)
    assert denied.status == 403
    assert "content-type: application/problem+json" in denied.head
    assert b'"title":"Forbidden"' in denied.body


@pytest.mark.parametrize(("host", "trusted"), [("127.0.0.1", ["127.0.0.1"]), ("::1", ["::1"])])
async def test_uvicorn_on_ipv4_and_ipv6(host: str, trusted: list[str]):
    app = site(LISTED, trusted)
    async with on_uvicorn(app, host=host) as where:
        await check_all_of_it(where, host)
        await check_denial(where)

        alone = await ask(where)
        assert alone.said["reason"] == "no_header"
        assert alone.said["client"] == list(app.given[-1])
    assert {type(given) for given in app.given} == {tuple}


async def test_uvicorn_on_ipv4_with_a_peer_that_is_no_proxy():
    async with on_uvicorn(site(LISTED, ["10.0.0.1"]), host="127.0.0.1") as where:
        answer = await ask(where, ALLOWED, proto="https")

    assert answer.said["client"][0] == "127.0.0.1"
    assert (answer.said["scheme"], answer.said["reason"]) == ("http", "ignored")


async def test_uvicorn_on_a_unix_socket(tmp_path: Path):
    path = str(tmp_path / "socket")
    app = site(LISTED, ["unix"])
    async with on_uvicorn(app, uds=path) as where:
        await check_all_of_it(where, "unix")
        await check_denial(where)
        assert (await ask(where)).status == 403
    assert set(app.given) == {None}


async def test_uvicorn_on_a_unix_socket_that_is_not_listed(tmp_path: Path):
    async with on_uvicorn(site(["0.0.0.0/0", "::/0"], ["loopback"]), uds=str(tmp_path / "socket")) as where:
        assert (await ask(where, ALLOWED)).status == 403


async def test_uvicorn_that_has_read_the_header_itself(caplog: pytest.LogCaptureFixture):
    """Its default for local peers. What it found is kept, nothing is read twice, and the remedy is logged."""
    app = site(LISTED, ["loopback"])
    async with on_uvicorn(app, host="127.0.0.1", proxy_headers=True) as where:
        answer = await ask(where, OTHER, ALLOWED, proto="https")
        assert (await ask(where, ALLOWED, OTHER)).status == 403
        assert (await ask(where, "<script>")).status == 403
        with_port = await ask(where, f"{ALLOWED}:4711")

    assert app.given[0] == (ALLOWED, 0)
    assert answer.said == {"client": [ALLOWED, 0], "scheme": "https", "peer": ALLOWED, "reason": "rewritten"}
    assert with_port.said["client"] == [ALLOWED, 4711]
    assert with_port.said["reason"] == "rewritten"
    assert caplog.text.count("--no-proxy-headers") == 1


async def test_hypercorn_bound_to_both_families_gives_mapped_peers():
    app = site(LISTED, ["127.0.0.0/8"])
    port = free_port()
    async with on_hypercorn(app, f"[::]:{port}"):
        assert (await ask_once_up(("127.0.0.1", port), ALLOWED)).status == 200
        await check_all_of_it(("127.0.0.1", port), "127.0.0.1")
        await check_denial(("127.0.0.1", port))
        assert {given[0] for given in app.given} == {"::ffff:127.0.0.1"}

        alone = await ask(("127.0.0.1", port))
        assert alone.said["client"] == ["127.0.0.1", app.given[-1][1]]
        six = await ask(("::1", port), ALLOWED)
        assert (six.said["peer"], six.said["reason"]) == ("::1", "ignored")


async def test_hypercorn_on_a_unix_socket(tmp_path: Path):
    path = str(tmp_path / "socket")
    app = site(LISTED, ["unix"])
    async with on_hypercorn(app, f"unix:{path}"):
        await ask_once_up(path, ALLOWED)
        await check_all_of_it(path, "unix")
    assert set(app.given) == {None}


SITE = "tests.middleware.client_ip_site:app"


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a server in a process of its own."""
    path = tmp_path_factory.mktemp("listed") / "allow.txt"
    path.write_text("\n".join(LISTED))
    return {"STREAMWARE_TEST_ALLOW": str(path)}


async def test_granian(listed: dict[str, str]):
    with Server(SERVERS["granian"], SITE, listed) as running:
        where = ("127.0.0.1", running.port)
        await check_all_of_it(where, "127.0.0.1")
        await check_denial(where)
        assert not running.complaints


async def test_granian_on_a_unix_socket(listed: dict[str, str], tmp_path: Path):
    path = str(tmp_path / "socket")
    options = ("--interface", "asgi", "--uds", path, "--log-level", "warning", "--workers-kill-timeout", "1")
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "granian", *options, SITE, cwd=ROOT, env={**os.environ, **listed}
    )
    try:
        await ask_once_up(path, ALLOWED)
        await check_all_of_it(path, "unix")
        assert (await ask(path)).status == 403
    finally:
        running.terminate()
        await running.wait()


DAPHNE = ("daphne", "-p", "{port}", "-v", "0")


@pytest.fixture(scope="module", params=["127.0.0.1", "::"])
def daphne(request: pytest.FixtureRequest, listed: dict[str, str]) -> Iterator[Server]:
    """It has no lifespan, so the list is read at the first request, and gives lists for tuples; bound to both families,
    mapped peers too."""
    with Server(Kind("daphne", (*DAPHNE, "-b", request.param, "{app}")), SITE, listed) as running:
        yield running
        assert not running.complaints


async def test_daphne(daphne: Server):
    where = ("127.0.0.1", daphne.port)
    await check_all_of_it(where, "127.0.0.1")

    refused = await ask(where, OTHER, upgrade=True)
    assert refused.status == 403  # its own: it has no way for ours
