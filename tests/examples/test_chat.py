"""The chat, bare and through Streamware, under a real uvicorn: OpenAI's own SDK is the client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from openai import AsyncOpenAI, BadRequestError, RateLimitError

from examples.chat import voice
from examples.chat.app import create_app
from examples.chat.provider import Provider
from streamware import wrap

from .conftest import Serve

FAST = 5000.0
QUESTION = "Who kept the light?"
ANSWER = "".join(voice.words(QUESTION))

Wrapping = Callable[[FastAPI], Callable[..., Any]]


@pytest.fixture(params=["bare", "wrapped"])
def wrapping(request: pytest.FixtureRequest) -> Wrapping:
    return (lambda app: app) if request.param == "bare" else (lambda app: wrap(app, always=["/v1/*"]))


def openai(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)


async def test_the_sdk_streams_an_answer(serve: Serve, wrapping: Wrapping) -> None:
    url = await serve(wrapping(create_app(FAST)))

    async with openai(url) as client:
        stream = await client.chat.completions.create(
            model=voice.MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]

    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(voice.words(QUESTION))


async def test_the_sdk_gets_an_answer_whole(serve: Serve, wrapping: Wrapping) -> None:
    url = await serve(wrapping(create_app(FAST)))

    async with openai(url) as client:
        completion = await client.chat.completions.create(
            model="any", messages=[{"role": "user", "content": [{"type": "text", "text": QUESTION}]}], max_tokens=9
        )

    assert completion.choices[0].message.content == "".join(voice.words(QUESTION, 9))
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 9


async def test_the_sdk_lists_the_models_and_raises_what_is_refused(serve: Serve, wrapping: Wrapping) -> None:
    url = await serve(wrapping(create_app(FAST)))

    async with openai(url) as client:
        models = [model.id async for model in client.models.list()]
        with pytest.raises(BadRequestError) as refused:
            await client.chat.completions.create(model="any", messages=[], stream=True)

    assert models == [voice.MODEL]
    assert refused.value.param == "messages"


async def test_chat_for_eventsource_ends_with_done(serve: Serve, wrapping: Wrapping) -> None:
    url = await serve(wrapping(create_app(FAST)))

    async with httpx.AsyncClient() as http:
        got = await http.get(f"{url}/chat", params={"q": QUESTION}, headers={"accept": "text/event-stream"})

    events = [dict(line.split(": ", 1) for line in block.splitlines()) for block in got.text.strip().split("\n\n")]
    assert "".join(json.loads(event["data"])["text"] for event in events[:-1]) == ANSWER
    assert events[-1]["event"] == "done"


async def test_a_cut_answer_goes_on_behind_the_last_event_without_a_second_run(serve: Serve) -> None:
    runs = 0
    chat = create_app(pace=300.0)

    @chat.middleware("http")
    async def counted(request: Request, call_next: Callable[[Request], Any]) -> Any:
        nonlocal runs
        runs += 1
        return await call_next(request)

    url = await serve(wrap(chat, always=["/v1/*"]))
    body = {"stream": True, "messages": [{"role": "user", "content": QUESTION}]}

    async with httpx.AsyncClient() as http:
        before = await read(http, url, body, {}, stop_after=20)
        after = await read(http, url, body, {"last-event-id": before[-1][0]})
        over = await http.post(f"{url}/v1/chat/completions", json=body, headers={"last-event-id": after[-1][0]})

    assert [int(seq.rsplit(".", 1)[1]) for seq, _ in before + after] == list(range(1, len(voice.words(QUESTION)) + 4))
    assert text(before + after) == ANSWER
    assert over.status_code == 204
    assert runs == 1


async def test_delete_on_the_streams_own_url_stops_the_answer(serve: Serve) -> None:
    url = await serve(wrap(create_app(pace=50.0), always=["/v1/*"]))
    body = {"stream": True, "messages": [{"role": "user", "content": QUESTION}]}

    async with (
        httpx.AsyncClient() as http,
        http.stream("POST", f"{url}/v1/chat/completions", json=body) as answer,
    ):
        own = answer.url.join(answer.headers["content-location"])
        lines = answer.aiter_lines()
        async with asyncio.timeout(10):
            assert (await anext(lines)).startswith("data: ")
            assert (await http.delete(own)).status_code == 204
            assert (await http.delete(own)).status_code == 204
            rest = [line async for line in lines]

    assert "data: [DONE]" not in rest


async def read(
    http: httpx.AsyncClient, url: str, body: object, headers: dict[str, str], stop_after: int | None = None
) -> list[tuple[str, str]]:
    """(id, data) of each event; leaves without a word after so many."""
    got: list[tuple[str, str]] = []
    data = ""
    async with http.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                data = line[6:]
            elif line.startswith("id: "):
                got.append((line[4:], data))
            if len(got) == stop_after:
                break
    return got


def text(events: list[tuple[str, str]]) -> str:
    chunks = (json.loads(data) for _, data in events if data != "[DONE]")
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


# ---- a provider behind it -------------------------------------------------------------------------------------------


class Upstream:
    """A provider of our own on the loopback: says what it was asked and whether it was left."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.left = asyncio.Event()
        self.app = FastAPI()
        self.app.post("/v1/chat/completions", response_model=None)(self.complete)

    async def complete(self, request: Request) -> StreamingResponse | JSONResponse:
        self.keys.append(request.headers.get("authorization"))
        self.asked.append(await request.json())
        match self.asked[-1]["model"]:
            case "busy":
                return JSONResponse({"error": {"message": "slow down", "type": "rate_limit_error"}}, 429)
            case "endless":
                return StreamingResponse(self.endless(), media_type="text/event-stream")
        chat = ({"choices": [{"index": 0, "delta": {"content": word}}]} for word in ("from ", "far ", "away"))
        events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chat) + "data: [DONE]\n\n"
        return StreamingResponse(iter([events]), media_type="text/event-stream")

    async def endless(self) -> AsyncIterator[str]:
        try:
            while True:
                yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': 'on '}}]})}\n\n"
                await asyncio.sleep(0.01)
        finally:
            self.left.set()


@pytest.fixture
async def upstream() -> Upstream:
    return Upstream()


async def chat_over(serve: Serve, upstream: Upstream, wrapping: Wrapping) -> str:
    provider = Provider(f"{await serve(upstream.app)}/v1", "secret", "theirs")
    return await serve(wrapping(create_app(provider=provider)))


async def test_a_providers_answer_is_passed_on_with_the_key_of_the_server(
    serve: Serve, wrapping: Wrapping, upstream: Upstream
) -> None:
    url = await chat_over(serve, upstream, wrapping)

    async with openai(url) as client:
        stream = await client.chat.completions.create(
            model="theirs", messages=[{"role": "user", "content": QUESTION}], stream=True, temperature=0.5
        )
        words = [chunk.choices[0].delta.content async for chunk in stream]
    async with httpx.AsyncClient() as http:
        chat = await http.get(f"{url}/chat", params={"q": "there?"})

    assert words == ["from ", "far ", "away"]
    assert upstream.asked[0]["temperature"] == 0.5
    assert upstream.keys == ["Bearer secret", "Bearer secret"]
    assert chat.text.count('data: {"text": ') == 3


async def test_a_providers_error_keeps_its_status(serve: Serve, wrapping: Wrapping, upstream: Upstream) -> None:
    url = await chat_over(serve, upstream, wrapping)

    async with openai(url) as client:
        with pytest.raises(RateLimitError, match="slow down"):
            await client.chat.completions.create(
                model="busy", messages=[{"role": "user", "content": QUESTION}], stream=True
            )


async def test_a_provider_out_of_reach_is_a_502(serve: Serve, wrapping: Wrapping) -> None:
    url = await serve(wrapping(create_app(provider=Provider("http://127.0.0.1:1/v1", "secret", "theirs"))))

    async with httpx.AsyncClient() as http:
        got = await http.post(f"{url}/v1/chat/completions", json={"messages": [{"role": "user", "content": "?"}]})
        chat = await http.get(f"{url}/chat", params={"q": "there?"})

    assert got.status_code == 502
    assert got.json()["error"]["type"] == "upstream_error"
    assert "error" in chat.text


async def test_the_provider_is_left_when_the_answer_is_stopped(serve: Serve, upstream: Upstream) -> None:
    url = await chat_over(serve, upstream, lambda app: wrap(app, always=["/v1/*"]))
    body = {"model": "endless", "stream": True, "messages": [{"role": "user", "content": "?"}]}

    async with (
        httpx.AsyncClient() as http,
        http.stream("POST", f"{url}/v1/chat/completions", json=body) as answer,
    ):
        own = answer.url.join(answer.headers["content-location"])
        await anext(answer.aiter_lines())
        await http.delete(own)

        async with asyncio.timeout(10):
            await upstream.left.wait()
