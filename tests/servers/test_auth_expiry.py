"""Tokens that expire in the middle of streams, on real servers: who ends how, and who reads on with a fresh one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest
import websockets.asyncio.client
import websockets.exceptions

from examples import content
from tests.servers.client import EVENTSOURCE, FETCH, Headers, begin, fetch
from tests.servers.draining import SERVERS as DRAINING
from tests.servers.expiring import KEY, issue
from tests.servers.launch import SERVERS, Kind, Server
from tests.servers.reading import Reading, follow, follow_until

APP = "tests.servers.expiring:app"
KINDS: dict[str, Headers] = {"eventsource": EVENTSOURCE, "script": FETCH, "unlogged": (("accept", "*/*"),)}
WORKERS = DRAINING["uvicorn-workers"]
N = 30
LIFE = 0.8
#: Seconds within which a stream is to have ended, from the moment its token expires.
SOON = 1.0


@contextmanager
def serving(kind: Kind, store: Path | None = None) -> Iterator[Server]:
    key = str(KEY.as_dict(private=True)["k"])
    with Server(kind, APP, {"EXPIRY_STORE": str(store or ""), "EXPIRY_KEY": key}) as server:
        yield server
        assert "Traceback" not in server.log, server.log[-4000:]


def bearer(subject: str, expires_at: float) -> tuple[str, str]:
    return ("authorization", f"Bearer {issue(subject, expires_at)}")


async def socket_ends(server: Server, expires_at: float) -> None:
    """A WebSocket is closed when its token expires."""
    given = [bearer("ann", expires_at)]
    url = f"ws://127.0.0.1:{server.port}/ws"
    async with websockets.asyncio.client.connect(url, proxy=None, additional_headers=given) as socket:
        await socket.send("here")
        assert await socket.recv() == "here"
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 5)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 3000
    assert 0 <= time.time() - expires_at <= SOON + 0.5


async def socket_goes_on(server: Server, expires_at: float) -> None:
    """With a newer token, shown in band, another one outlives the first."""
    given = [bearer("ann", expires_at)]
    url = f"ws://127.0.0.1:{server.port}/ws"
    async with websockets.asyncio.client.connect(url, proxy=None, additional_headers=given) as socket:
        newer = issue("ann", expires_at + LIFE)
        await socket.send(json.dumps({"type": "streamware.authenticate", "token": newer}))
        assert json.loads(await socket.recv())["type"] == "streamware.authenticated"
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 5)
        assert 0 <= time.time() - expires_at - LIFE <= SOON + 0.5


@pytest.mark.parametrize("name", [name for name in SERVERS if name != "uvicorn-h11"])
async def test_streams_and_sockets_end_when_their_token_expires_and_a_fresh_one_reads_on(name: str) -> None:
    target = f"/events?n={N}&delay=0.04"
    with serving(SERVERS[name]) as server:
        async with AsyncExitStack() as stack:
            readings, exchanges = {}, {}
            expires_at = time.time() + LIFE
            for kind, headers in KINDS.items():
                exchange = await begin(server, "GET", target, headers=(*headers, bearer(kind, expires_at)))
                stack.push_async_callback(exchange.aclose)
                await exchange.head()
                assert exchange.status == 200
                readings[kind], exchanges[kind] = Reading(), exchange
                await follow_until(exchange, readings[kind], 3)
            sockets: list[asyncio.Future[None]] = []
            if not SERVERS[name].http2:
                tasks = (socket_ends(server, expires_at), socket_goes_on(server, expires_at))
                sockets = [asyncio.ensure_future(task) for task in tasks]
            ends = await asyncio.gather(*(follow(exchanges[kind], readings[kind]) for kind in KINDS))
            assert time.time() - expires_at <= SOON + 0.5  # the machine is a busy one
            proper = dict(zip(KINDS, ends, strict=True))
            assert proper["eventsource"]
            assert proper["script"] is not SERVERS[name].cuts
            assert proper["unlogged"]
            (told,) = readings["eventsource"].controls
            assert told.event == "streamware.auth-expired"
            assert json.loads(told.data)["cursor"] == readings["eventsource"].cursor
            errors = [kind for kind in KINDS if b"streamware.auth-expired" in bytes(readings[kind].body)]
            assert errors == ["unlogged"] if SERVERS[name].cuts else ["script", "unlogged"]
            for kind in ("eventsource", "script"):
                reading = readings[kind]
                reading.reconnect()
                if not SERVERS[name].cuts and kind == "script":
                    del reading.body[reading.body.index(b"event: error") :]
                    assert reading.repeated == 1  # it has no id, and so counts as another of the one before
                    reading.repeated = 0
                fresh = (*KINDS[kind], bearer(kind, time.time() + 60), ("last-event-id", reading.cursor))
                again = await begin(server, "GET", target, headers=fresh)
                stack.push_async_callback(again.aclose)
                await again.head()
                assert again.status == 200
                assert await follow(again, reading)
                assert bytes(reading.body) == content.body(N)
                assert (reading.lost, reading.repeated) == (0, 0)
            await asyncio.gather(*sockets)


async def test_a_user_is_disconnected_in_every_worker(tmp_path: Path) -> None:
    with serving(WORKERS, tmp_path / "logs.db") as server:
        async with AsyncExitStack() as stack:
            expires_at = time.time() + 600
            exchanges = []
            for number in range(24):
                subject = "ann" if number % 2 else "bob"
                exchange = await begin(server, "GET", "/idle", headers=(*EVENTSOURCE, bearer(subject, expires_at)))
                stack.push_async_callback(exchange.aclose)
                exchanges.append((subject, exchange, Reading()))
            for _, exchange, reading in exchanges:
                await exchange.head()
                await follow_until(exchange, reading, 1)
            status, _, _ = await fetch(server, "POST", "/logout", headers=[bearer("ann", expires_at)])
            assert status == 200
            followed = [follow(exchange, reading) for subject, exchange, reading in exchanges if subject == "ann"]
            assert all(await asyncio.wait_for(asyncio.gather(*followed), 5))
            for subject, _, reading in exchanges:
                assert [told.event for told in reading.controls] == ["streamware.disconnected"] * (subject == "ann")


async def all_end(kind: Kind, streams: int, life: float) -> tuple[float, float]:
    """Open ``streams`` idle streams whose tokens expire at one moment; the seconds after it in which the first and the
    last has ended."""
    with serving(kind) as server:
        expires_at = time.time() + life
        limit = asyncio.Semaphore(64)
        ended: list[float] = []

        async def one(number: int) -> None:
            token = bearer(f"user-{number}", expires_at)
            async with limit:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                lines = ["GET /idle HTTP/1.1", "host: x", *(f"{name}: {value}" for name, value in EVENTSOURCE)]
                writer.write("\r\n".join([*lines, f"{token[0]}: {token[1]}", "", ""]).encode())
                await reader.readuntil(b"data: here\n")
            try:
                assert time.time() < expires_at, "not all streams were open when the tokens expired"
                last = await reader.readuntil(b"0\r\n\r\n")
                ended.append(time.time() - expires_at)
                assert b"event: streamware.auth-expired\n" in last
            finally:
                writer.close()

        await asyncio.gather(*(one(number) for number in range(streams)))
        assert len(ended) == streams
        return min(ended), max(ended)


async def test_three_hundred_streams_whose_tokens_expire_at_once_end_within_a_second() -> None:
    first, last = await all_end(SERVERS["uvicorn"], 300, 2.5)
    assert first >= -0.01
    assert last <= SOON


@pytest.mark.soak
@pytest.mark.parametrize("name", ["uvicorn", "uvicorn-h11"])
async def test_five_thousand_streams_whose_tokens_expire_at_once_end_within_a_second(name: str) -> None:
    first, last = await all_end(SERVERS[name], 5_000, 40.0)
    print(f"{name}: the first after {first:.3f} s, the last after {last:.3f} s")
    assert first >= -0.01
    assert last <= SOON
