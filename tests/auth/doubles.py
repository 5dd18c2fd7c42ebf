"""HTTP clients that are no HTTP, for what only an answer decides; what the wire decides is tried on a real server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from streamware import FetchError, FetchRequest, FetchResponse


class Canned:
    """Answers with one document after the other, and with the last one from then on. An exception is raised, a
    ``FetchResponse`` returned as it is. ``requests``: what it was asked; ``gate``: closed, it answers nobody."""

    def __init__(self, *answers: dict[str, Any] | FetchResponse | BaseException) -> None:
        self.answers = list(answers)
        self.requests: list[FetchRequest] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self, request: FetchRequest) -> FetchResponse:
        self.requests.append(request)
        await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, FetchResponse):
            return answer
        return FetchResponse(200, {}, json.dumps(answer).encode())


AWAY = FetchError("connection")
