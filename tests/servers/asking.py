"""The requests that the tests make of the example apps."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field, replace

from tests.servers.client import EVENTSOURCE, FETCH, Headers, fetch
from tests.servers.launch import Server


@dataclass(frozen=True)
class Request:
    """A request for a stream of ``n`` events: an EventSource's GET, or a script's GET or POST. ``run`` is the label by
    which the app counts how often it was run for it."""

    kind: str
    n: int
    delay: float = 0
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    more: tuple[tuple[str, str], ...] = ()

    @property
    def method(self) -> str:
        return "POST" if self.kind == "post" else "GET"

    @property
    def path(self) -> str:
        return "/generate" if self.kind == "post" else "/events"

    @property
    def target(self) -> str:
        return self.path if self.kind == "post" else f"{self.path}?n={self.n}&delay={self.delay}&run={self.run}"

    @property
    def body(self) -> bytes:
        asked = {"n": self.n, "delay": self.delay, "run": self.run}
        return json.dumps(asked).encode() if self.kind == "post" else b""

    def headers(self, cursor: str = "") -> Headers:
        """Those of the first request, or of one that resumes behind ``cursor``."""
        given = (*(EVENTSOURCE if self.kind == "eventsource" else FETCH), *self.more)
        return (*given, ("last-event-id", cursor)) if cursor else given

    def with_headers(self, *more: tuple[str, str]) -> Request:
        return replace(self, more=(*self.more, *more))


#: The three ways to ask for a stream.
KINDS = ("eventsource", "fetch", "post")


async def runs_of(server: Server, run: str) -> int:
    """How often the app was run for ``run``."""
    status, _, body = await fetch(server, "GET", "/runs")
    assert status == 200
    return int(json.loads(body)["labels"].get(run, 0))
