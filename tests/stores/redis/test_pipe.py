"""A connection: replies in order, a bounded wait, nothing sent twice, and what is left of it when it is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from streamware.exceptions import StoreUnavailable
from streamware.stores.redis_nodes import THE_NODE, Pipes, SingleNode
from streamware.stores.redis_pipe import Pipe, pack
from streamware.stores.redis_replies import Replies, ServerError
from streamware.stores.redis_target import target_of
from tests.redis_server import RedisServer, free_port, shared
from tests.stores.redis.kit import until

PING = pack(b"PING")


def node(url: str, timeout: float = 2.0) -> SingleNode:
    return SingleNode(target_of("test", "url", url), timeout)


@contextlib.asynccontextmanager
async def pipe_to(server: RedisServer) -> AsyncIterator[Pipe]:
    pipe = await node(server.url).dial(THE_NODE, "test")
    yield pipe
    pipe.drop()


@pytest.fixture(params=["hiredis", "python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr("streamware.stores.redis_pipe.reply_reader", Replies)


async def test_many_callers_get_their_own_replies(version: str, parser: None):
    async with pipe_to(shared(version)) as pipe:

        async def echo(n: int) -> None:
            words = [b"%d-%d" % (n, part) for part in range(n % 4 + 1)]
            packed = b"".join(pack(b"ECHO", word * 1000) for word in words)
            assert await pipe.ask(packed, len(words), 5) == [word * 1000 for word in words]

        await asyncio.gather(*map(echo, range(200)))


async def test_an_error_is_one_of_the_replies(version: str):
    async with pipe_to(shared(version)) as pipe:
        good, bad, other = await pipe.ask(PING + pack(b"NO-SUCH") + PING, 3, 5)
        assert (good, other) == (b"PONG", b"PONG")
        assert isinstance(bad, ServerError)


async def test_the_replies_of_a_caller_that_has_gone_are_thrown_away(version: str):
    async with pipe_to(shared(version)) as pipe:
        gone = asyncio.ensure_future(pipe.ask(pack(b"ECHO", b"1") + pack(b"ECHO", b"2"), 2, 5))
        kept = asyncio.ensure_future(pipe.ask(pack(b"ECHO", b"3"), 1, 5))
        await asyncio.sleep(0)
        gone.cancel()
        assert await kept == [b"3"]
        assert gone.cancelled()
        assert not pipe.lost


async def test_a_server_that_does_not_answer_in_time_loses_the_connection_and_all_that_wait(own: RedisServer):
    async with pipe_to(own) as pipe:
        own.stall()
        patient = asyncio.ensure_future(pipe.ask(PING, 1, 60))
        with pytest.raises(StoreUnavailable, match=r"no answer within 0\.1 s"):
            await pipe.ask(PING, 1, 0.1)
        with pytest.raises(StoreUnavailable, match="lost"):
            await patient
        with pytest.raises(StoreUnavailable, match="lost"):
            await pipe.ask(PING, 1, 1)
        assert pipe.lost


async def test_a_server_that_is_killed_is_noticed_at_once(own: RedisServer):
    async with pipe_to(own) as pipe:
        lost: list[bool] = []
        pipe.on_lost = lambda: lost.append(True)
        pending = asyncio.ensure_future(pipe.ask(pack(b"BLPOP", b"nothing", b"0"), 1, 60))
        await asyncio.sleep(0)
        own.kill()
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(pending, 5)
        await until(lambda: lost == [True])


async def test_what_is_no_redis_server_is_dropped():
    answered = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line == b"CLIENT\r\n":
                writer.write(b"+OK\r\n")
            elif line == b"PING\r\n":
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        answered.set()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        pipe = await node(f"redis://127.0.0.1:{port}").dial(THE_NODE, "test")
        with pytest.raises(StoreUnavailable):
            await pipe.ask(PING, 1, 60)
        await asyncio.wait_for(answered.wait(), 5)


async def test_a_server_that_cannot_be_reached_is_told_in_time():
    closed = f"redis://user:secret@127.0.0.1:{free_port()}"
    with pytest.raises(StoreUnavailable) as refused:
        await node(closed).dial(THE_NODE, "test")
    assert "secret" not in f"{refused.value!r} {refused.value.__cause__!r}"

    with RedisServer() as stalled:
        stalled.stall()
        with pytest.raises(StoreUnavailable):
            async with asyncio.timeout(2):
                await node(stalled.url, 0.2).dial(THE_NODE, "test")


async def test_whoever_wants_a_connection_shares_one_attempt_and_it_is_made_again_when_lost(version: str):
    pipes = Pipes(node(shared(version).url), "test")
    found = await asyncio.gather(*(pipes.to(THE_NODE) for _ in range(50)))
    assert len(set(map(id, found))) == 1
    found[0].drop()
    again = await pipes.to(THE_NODE)
    assert again is not found[0]
    assert await again.ask(PING, 1, 5) == [b"PONG"]
    await pipes.aclose()
    assert again.lost


async def test_a_waiter_that_leaves_does_not_take_the_attempt_with_it(version: str):
    pipes = Pipes(node(shared(version).url), "test")
    one, other = (asyncio.ensure_future(pipes.to(THE_NODE)) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    assert await (await other).ask(PING, 1, 5) == [b"PONG"]
    await pipes.aclose()
