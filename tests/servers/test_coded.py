"""Compression on real servers: coded as agreed, event by event, and free when the client has gone."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Iterator

import pytest

from tests.servers.client import ask, fetch
from tests.servers.coded_app import PAGE
from tests.servers.launch import SERVERS, Server

GZIP = (("accept-encoding", "gzip"), ("accept", "text/event-stream"))


@pytest.fixture(scope="module", params=SERVERS)
def coded(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(SERVERS[request.param], "tests.servers.coded_app:stack") as running:
        yield running
        assert not running.complaints


async def test_events_are_coded_and_come_one_by_one(coded: Server) -> None:
    inflate, read, arrived = zlib.decompressobj(31), b"", 0
    async with ask(coded, "GET", "/events?n=8&delay=0.03", headers=GZIP) as exchange:
        assert exchange.headers["content-encoding"] == "gzip"
        assert "Accept-Encoding" in exchange.headers["vary"]
        while data := await exchange.read():
            read += inflate.decompress(data)
            arrived += 1

    assert inflate.eof
    assert arrived >= 7  # at most two came in one read
    assert [json.loads(line[6:])["n"] for line in read.splitlines() if line.startswith(b"data: ")] == list(range(8))


async def test_a_page_is_coded_with_its_length(coded: Server) -> None:
    status, headers, body = await fetch(coded, "GET", "/page", headers=[("accept-encoding", "gzip")])

    assert (status, headers["content-encoding"], headers["content-length"]) == (200, "gzip", str(len(body)))
    assert zlib.decompress(body, 31) == PAGE
    _, headers, body = await fetch(coded, "GET", "/page")
    assert (headers["vary"], body) == ("Accept-Encoding", PAGE)
    _, headers, body = await fetch(coded, "HEAD", "/page", headers=[("accept-encoding", "gzip")])
    assert (headers["content-encoding"], body) == ("gzip", b"")


async def test_encoders_of_clients_that_have_gone_are_free(coded: Server) -> None:
    async def encoders() -> int:
        return int((await fetch(coded, "GET", "/inside"))[2])

    for how in ("fin", "rst"):
        async with ask(coded, "GET", "/silent", headers=GZIP) as exchange:
            assert exchange.headers["content-encoding"] == "gzip"
            assert b'"n":0' in zlib.decompressobj(31).decompress(await exchange.read())
            assert await encoders() == 1
            exchange.cut(how)  # type: ignore[arg-type]
            async with asyncio.timeout(10):
                while await encoders():
                    await asyncio.sleep(0.02)
