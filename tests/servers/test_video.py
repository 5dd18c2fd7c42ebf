"""A download through the whole stack: every byte, and no more memory than a few pieces take."""

from __future__ import annotations

import hashlib

import pytest

from tests.servers.apps import PIECE, video_piece
from tests.servers.client import Headers, ask, fetch
from tests.servers.launch import SERVERS, Server

MIB = 1024 * 1024

#: A plain download takes no part in resuming at all; one that would accept an event stream is looked at first.
ACCEPTS: dict[str, Headers] = {"any": (("accept", "*/*"),), "event stream": (("accept", "text/event-stream, */*"),)}


async def download(kind: str, size: int, accept: str, *, length: bool) -> None:
    wanted = hashlib.sha256()
    for i in range(size // PIECE):
        wanted.update(video_piece(i))
    got, received = hashlib.sha256(), 0
    with Server(SERVERS[kind], "tests.servers.apps:special") as server:
        target = f"/video?bytes={size}" + ("&length=1" if length else "")
        await fetch(server, "GET", "/plain")
        before = highest = server.rss()
        async with ask(server, "GET", target, headers=ACCEPTS[accept]) as exchange:
            looked = 0
            while data := await exchange.read():
                got.update(data)
                received += len(data)
                if received - looked >= 4 * MIB:
                    looked = received
                    highest = max(highest, server.rss())

    assert exchange.headers["content-type"] == "application/octet-stream"
    assert ("content-length" in exchange.headers) is length
    assert received == size
    assert got.hexdigest() == wanted.hexdigest()
    assert highest - before < 16 * MIB


@pytest.mark.parametrize("accept", ACCEPTS)
@pytest.mark.parametrize("length", [False, True], ids=["chunked", "length"])
async def test_64_mib_of_video_arrive_and_take_no_memory(accept: str, length: bool) -> None:
    await download("uvicorn", 64 * MIB, accept, length=length)


@pytest.mark.soak
@pytest.mark.parametrize("accept", ACCEPTS)
@pytest.mark.parametrize("length", [False, True], ids=["chunked", "length"])
@pytest.mark.parametrize("kind", [name for name, kind in SERVERS.items() if kind.bounded])
async def test_1_gib_of_video_arrives_and_takes_no_memory(kind: str, accept: str, length: bool) -> None:
    await download(kind, 1024 * MIB, accept, length=length)
