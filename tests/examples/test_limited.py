"""The chat within limits, as two workers on one Redis: OpenAI's own SDK is the client, its key says who asks."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from openai import AsyncOpenAI, AsyncStream, AuthenticationError, RateLimitError
from openai.types.chat import ChatCompletionChunk

from examples.chat.app import create_app
from examples.limited import KEYS, limited
from streamware import Stack
from tests.redis_limits import patient, settled
from tests.redis_server import PATIENCE, RedisServer
from tests.secrets import secret

from .conftest import Serve

ADA, BOB = map(secret, KEYS)
QUESTION = "Who kept the light?"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def stacks(redis: RedisServer) -> list[Stack]:
    redis.run("FLUSHALL")
    return [patient(limited(create_app(100.0), redis.url)) for _ in range(2)]


@pytest.fixture
async def workers(stacks: list[Stack], serve: Serve) -> list[str]:
    """The URLs of both."""
    return [await serve(stack) for stack in stacks]


def openai(url: str, key: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)


async def ask(client: AsyncOpenAI, words: int | None = None) -> AsyncStream[ChatCompletionChunk]:
    return await client.chat.completions.create(
        model="any",
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=words,
        stream=True,
        stream_options={"include_usage": True},
    )


async def stop(stream: AsyncStream[ChatCompletionChunk], key: str) -> None:
    own = stream.response.url.join(stream.response.headers["content-location"])
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE) as http:
        assert (await http.delete(str(own))).status_code == 204
    await stream.close()


async def test_without_a_key_there_is_no_answer(workers: list[str]):
    async with openai(workers[0], "eve-0123456789abcdef") as eve:
        with pytest.raises(AuthenticationError):
            await ask(eve)


async def test_three_answers_run_at_once_wherever_they_run(workers: list[str]):
    async with openai(workers[0], ADA) as one, openai(workers[1], ADA) as other, openai(workers[1], BOB) as bob:
        running = [await ask(one), await ask(other), await ask(one)]
        for client in (one, other):
            with pytest.raises(RateLimitError):
                await ask(client)
        assert [chunk async for chunk in await ask(bob, 5)]
        for stream in running:
            await stop(stream, ADA)


async def test_a_hundred_requests_a_minute_and_no_more_whichever_worker_they_come_to(workers: list[str]):
    headers = {"Authorization": f"Bearer {ADA}"}
    async with httpx.AsyncClient(headers=headers, timeout=PATIENCE) as http:
        statuses = [(await http.get(f"{workers[n % 2]}/v1/models")).status_code for n in range(105)]

    assert statuses == [200] * 100 + [429] * 5


async def test_an_answer_is_charged_the_tokens_that_it_reports(workers: list[str], stacks: list[Stack]):
    async with openai(workers[0], ADA) as one:
        chunks = [chunk async for chunk in await ask(one, 30)]
    await settled(stacks[0])
    async with openai(workers[1], ADA) as other, await ask(other, 50) as second:
        told = second.response.headers.get_list("ratelimit")
        await stop(second, ADA)

    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens == 30
    # Of the second answer all that it may be is taken, and its prompt by an estimate.
    (left,) = (int(line.partition(";r=")[2].partition(";")[0]) for line in told if line.startswith('"20000/minute"'))
    assert 20000 - usage.total_tokens - 50 - len(QUESTION) <= left < 20000 - usage.total_tokens - 50
