"""How a throttle's refusals of WebSockets look to a real client, by server."""

from __future__ import annotations

import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.servers.launch import SERVERS, Server

# What a refused handshake looks like, and the code of a close that is for good.
SEEN = {"uvicorn": (429, 1008), "hypercorn": (429, 1008), "daphne": (403, 4429), "granian": (429, 1008)}


@pytest.mark.parametrize("kind", SEEN)
async def test_a_refused_socket_is_told_why_as_far_as_its_server_lets_it(kind: str):
    status, final = SEEN[kind]
    with Server(SERVERS[kind], "tests.servers.throttled:app") as server:
        url = f"ws://127.0.0.1:{server.port}"
        for _ in range(2):
            async with connect(f"{url}/deny") as socket:
                await socket.send("x")
                assert await socket.recv() == "x"
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{url}/deny")
        response = refused.value.response
        assert response.status_code == status
        if status == 429:
            assert int(response.headers["retry-after"]) > 0
            assert json.loads(response.body)["violated-policies"] == ["2/minute"]

        async with connect(f"{url}/close") as socket:
            for n in range(3):
                await socket.send(str(n))
                assert await socket.recv() == str(n)
            await socket.send("3")
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == final
        assert not server.complaints
