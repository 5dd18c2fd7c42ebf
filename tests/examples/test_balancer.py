"""The balancer of the example cluster, between real sockets: who gets connections, and how their ends are passed on."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from examples.cluster.balancer import Balancer

PATIENCE = 10.0


class Echo:
    """A backend that says its name to each connection and sends back what it gets; not ready while ``ready`` is not."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready = True
        self.port = 0
        self.ends: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> Echo:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self.ends:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(65536)
        if first.startswith(b"GET /readyz"):
            writer.write(b"HTTP/1.1 %d Whatever\r\n\r\n" % (200 if self.ready else 503))
            writer.close()
            return
        self.ends.append(writer)
        writer.write(self.name.encode() + b":")
        while first:
            writer.write(first)
            await writer.drain()
            first = await reader.read(65536)
        writer.close()


@asynccontextmanager
async def between(*names: str, patience: float = 5.0) -> AsyncIterator[tuple[Balancer, list[Echo]]]:
    async with AsyncExitStack() as stack:
        echoes = []
        for name in names:
            echoes.append(await Echo(name).start())
            stack.push_async_callback(echoes[-1].close)
        front = socket.create_server(("127.0.0.1", 0))
        balancer = await stack.enter_async_context(Balancer(front, interval=0.02, patience=patience))
        async with asyncio.timeout(PATIENCE):
            for echo in echoes:
                await balancer.until(balancer.add(echo.name, echo.port))
            yield balancer, echoes


async def ask(balancer: Balancer, said: bytes = b"hi") -> bytes:
    """What one connection is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
    writer.write(said)
    answer = await reader.readexactly(2 + len(said))
    writer.close()
    return answer


async def test_connections_go_round() -> None:
    async with between("A", "B") as (balancer, _):
        answers = [await ask(balancer) for _ in range(4)]

    assert sorted(answers) == [b"A:hi", b"A:hi", b"B:hi", b"B:hi"]


async def test_a_backend_that_is_not_ready_gets_none_and_keeps_those_it_has() -> None:
    async with between("A", "B") as (balancer, (first, _)):
        opened = [await asyncio.open_connection("127.0.0.1", balancer.port) for _ in range(2)]
        for _, writer in opened:
            writer.write(b"1")
        held = {(await reader.readexactly(3))[:1]: (reader, writer) for reader, writer in opened}
        first.ready = False
        await balancer.until(balancer.backends[0], ready=False)
        answers = [await ask(balancer) for _ in range(4)]
        held[b"A"][1].write(b"on")
        went_on = await held[b"A"][0].readexactly(2)
        first.ready = True
        await balancer.until(balancer.backends[0])
        again = {await ask(balancer) for _ in range(2)}
        for _, writer in opened:
            writer.close()

    assert answers == [b"B:hi"] * 4
    assert went_on == b"on"
    assert again == {b"A:hi", b"B:hi"}


async def test_a_backend_that_refuses_is_passed_over_at_once() -> None:
    async with between("A", "B") as (balancer, (first, _)):
        balancer._interval = 60.0  # what it was told last stands
        await first.close()
        answers = [await ask(balancer) for _ in range(4)]

    assert answers == [b"B:hi"] * 4


async def test_with_no_backend_a_connection_waits_for_one() -> None:
    async with between() as (balancer, _):
        asking = asyncio.create_task(ask(balancer))
        echo = await Echo("C").start()
        balancer.add("C", echo.port)

        assert await asking == b"C:hi"
        await echo.close()


async def test_and_is_closed_when_none_comes_in_time() -> None:
    async with between(patience=0.1) as (balancer, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
        writer.write(b"hi")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        writer.close()

    assert balancer.refused == 1


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_the_backends_end_is_the_clients(how: str) -> None:
    async with between("A") as (balancer, (echo,)):
        reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
        writer.write(b"x")
        await reader.readexactly(3)
        (end,) = echo.ends
        end.write(b"last")
        if how == "reset":
            await end.drain()
            await reader.readexactly(4)
            end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()
        else:
            end.close()
            assert await reader.readexactly(4) == b"last"
        try:
            assert await reader.read() == b""
        except ConnectionError:
            assert how == "reset"
        writer.close()


async def test_much_is_passed_on_whole_at_the_pace_of_the_slower_side() -> None:
    data = bytes(range(256)) * 16_384  # 4 MiB: more than the buffers on the way
    async with between("A") as (balancer, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
        sending = asyncio.create_task(send(writer, data))
        answer = await reader.readexactly(2 + len(data))
        await sending
        writer.close()

    assert answer == b"A:" + data


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()
