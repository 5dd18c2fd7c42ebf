"""A real provider behind the chat: anything that speaks OpenAI's API, over httpx.

The request goes out as it came in and the answer comes back as it is, byte by byte. When the app is cancelled, or its
client has gone, the request to the provider is closed with it: nobody pays for words that nobody will read.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send


def error(status: int, message: str, kind: str, param: str | None = None) -> JSONResponse:
    """An error in the shape that OpenAI's SDKs raise from."""
    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": None}}, status)


class Forwarded(StreamingResponse):
    """The provider's answer, passed on as it arrives. However this ends, the connection behind it is closed."""

    def __init__(self, upstream: httpx.Response) -> None:
        self.upstream = upstream
        kind = upstream.headers.get("content-type", "application/octet-stream")
        super().__init__(self.parts(), upstream.status_code, headers={"content-type": kind})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.upstream.aclose()

    async def parts(self) -> AsyncIterator[bytes]:
        try:
            async for part in self.upstream.aiter_bytes():
                yield part
        except httpx.HTTPError as failure:
            # Too late for a status: SDKs look for an error in the events too. No [DONE] follows, for it is not.
            told = {"error": {"message": f"The provider failed: {failure}", "type": "upstream_error"}}
            yield f"data: {json.dumps(told)}\n\n".encode()


class Provider:
    """``base_url`` ends in the API's version, as OpenAI's SDKs have it: ``https://api.example/v1``."""

    def __init__(self, base_url: str, key: str, model: str) -> None:
        self.model = model
        self._http = httpx.AsyncClient(
            base_url=base_url.rstrip("/") + "/",
            headers={"authorization": f"Bearer {key}", "accept-encoding": "identity"},
            timeout=httpx.Timeout(10.0, read=120.0),
        )

    async def complete(self, body: bytes) -> Response:
        """The provider's answer to ``body``; an error of its own comes back with its own status."""
        request = self._http.build_request(
            "POST", "chat/completions", content=body, headers={"content-type": "application/json"}
        )
        return await self._forward(request)

    async def models(self) -> Response:
        return await self._forward(self._http.build_request("GET", "models"))

    async def tell(self, question: str) -> AsyncIterator[str]:
        """The words of an answer to one question."""
        body = {"model": self.model, "stream": True, "messages": [{"role": "user", "content": question}]}
        async with self._http.stream("POST", "chat/completions", json=body) as upstream:
            upstream.raise_for_status()
            async for line in upstream.aiter_lines():
                if line.startswith("data:") and (data := line[5:].strip()) != "[DONE]":
                    for choice in json.loads(data).get("choices", []):
                        if text := choice.get("delta", {}).get("content"):
                            yield text

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _forward(self, request: httpx.Request) -> Response:
        try:
            return Forwarded(await self._http.send(request, stream=True))
        except httpx.TimeoutException:
            return error(504, "The provider did not answer in time.", "upstream_error")
        except httpx.HTTPError as failure:
            return error(502, f"The provider cannot be reached: {failure}", "upstream_error")
