"""An OpenAI-compatible chat in FastAPI. It knows nothing of Streamware.

    GET  /                       a page to try it with
    GET  /chat?q=…               an answer for EventSource: data: {"text": "word "}, and at the end event: done
    POST /v1/chat/completions    OpenAI's API, stream true or false
    GET  /v1/models

The words come from a text that is told at 30 words a second (``voice.py``), or, where OPENAI_BASE_URL and
OPENAI_API_KEY are set, from a real provider (``provider.py``; OPENAI_MODEL names the model that /chat asks).
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Literal

import httpx
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from . import voice
from .provider import Provider, error

PAGE = Path(__file__).with_name("page.html")


class Part(BaseModel):
    type: str
    text: str = ""


class ChatMessage(BaseModel):
    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """What of OpenAI's request the text can make sense of; the rest is let in and left alone."""

    messages: list[ChatMessage] = Field(min_length=1)
    model: str = voice.MODEL
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    n: Literal[1] | None = None


class Completion:
    """One answer from the text, in OpenAI's shapes."""

    def __init__(self, asked: ChatRequest) -> None:
        limit = asked.max_completion_tokens or asked.max_tokens
        whole = voice.words(asked.messages[-1].text)
        self.asked = asked
        self.words = whole[:limit]
        self.finish_reason = "stop" if len(self.words) == len(whole) else "length"
        self.head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": asked.model}
        prompt = sum(len(message.text.split()) for message in asked.messages)
        self.usage = {
            "prompt_tokens": prompt,
            "completion_tokens": len(self.words),
            "total_tokens": prompt + len(self.words),
        }

    def whole(self) -> dict[str, object]:
        message = {"role": "assistant", "content": "".join(self.words), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
        return {**self.head, "object": "chat.completion", "choices": [choice], "usage": self.usage}

    async def events(self, pace: float) -> AsyncIterator[str]:
        yield self.chunk({"role": "assistant", "content": ""})
        async for word in voice.tell(self.words, pace):
            yield self.chunk({"content": word})
        yield self.chunk({}, self.finish_reason)
        if self.with_usage:
            yield sse({**self.head, "object": "chat.completion.chunk", "choices": [], "usage": self.usage})
        yield "data: [DONE]\n\n"

    @property
    def with_usage(self) -> bool:
        return self.asked.stream_options is not None and self.asked.stream_options.include_usage

    def chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self.with_usage else {}
        return sse({**self.head, "object": "chat.completion.chunk", "choices": [choice], **usage})


def sse(document: object) -> str:
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n"


def create_app(pace: float = voice.WORDS_PER_SECOND, provider: Provider | None = None) -> FastAPI:
    """The chat. ``pace``: words a second of the text; ``provider``: who answers in its stead."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        if provider is not None:
            await provider.aclose()

    app = FastAPI(title="Chat", lifespan=lifespan)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, failure: RequestValidationError) -> JSONResponse:
        first = failure.errors()[0]
        param = ".".join(str(place) for place in first["loc"][1:])
        return error(400, f"{param}: {first['msg']}", "invalid_request_error", param or None)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE, media_type="text/html", headers={"cache-control": "no-cache"})

    @app.get("/chat")
    async def chat(q: str = "") -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            try:
                async for word in provider.tell(q) if provider else voice.tell(voice.words(q), pace):
                    yield sse({"text": word})
            except httpx.HTTPError as failure:
                yield sse({"text": "", "error": f"The provider failed: {failure}"})
            yield "event: done\ndata: {}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.post("/v1/chat/completions")
    async def completions(asked: ChatRequest, body: Annotated[bytes, Depends(raw_body)]) -> Response:
        if provider is not None:
            return await provider.complete(body)
        completion = Completion(asked)
        if asked.stream:
            return StreamingResponse(completion.events(pace), media_type="text/event-stream")
        return JSONResponse(completion.whole())

    @app.get("/v1/models")
    async def models() -> Response:
        if provider is not None:
            return await provider.models()
        told = {"id": voice.MODEL, "object": "model", "created": 0, "owned_by": "examples"}
        return JSONResponse({"object": "list", "data": [told]})

    return app


async def raw_body(request: Request) -> bytes:
    return await request.body()


def provider_from_environment() -> Provider | None:
    url, key = os.environ.get("OPENAI_BASE_URL"), os.environ.get("OPENAI_API_KEY")
    return Provider(url, key, os.environ.get("OPENAI_MODEL", "gpt-4o-mini")) if url and key else None


app = create_app(provider=provider_from_environment())
