"""The ground that the tests of token budgets stand on: an app that sends what a test says, behind a budget."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from streamware import CountingObserver, TokenBudgetMiddleware
from streamware.testing import Connection, FakeClock, WebSocketConnection, settle
from streamware.types import ASGIApp, Message, Receive, Scope, Send

SSE = [(b"content-type", b"text/event-stream")]
KEY = "own:all"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "x" * 40}], "stream": True}  # 10 tokens


def chunk(words: str, *, usage: tuple[int, int] | None = None, finish: str | None = None) -> bytes:
    """An event of OpenAI's chat completions."""
    reported = None if usage is None else {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    choices = [{"index": 0, "delta": {"content": words}, "finish_reason": finish}]
    return b"data: %b\n\n" % json.dumps({"id": "c1", "choices": choices, "usage": reported}).encode()


def words(tokens: int) -> bytes:
    """An event with so many tokens, by the estimate."""
    return chunk("x" * (4 * tokens))


class Site:
    """``sent``: the bodies that the app sends, one a message; the last may be the end. ``gate``: it waits there before
    the part of that number. What it was told is kept."""

    def __init__(self, *, outside: Any = None, **options: Any) -> None:
        self.clock = FakeClock()
        self.observer = CountingObserver()
        self.parts: Iterable[bytes] = [words(5)]
        self.headers: list[tuple[bytes, bytes]] = SSE
        self.status = 200
        self.gates: dict[int, asyncio.Event] = {}
        self.received: list[Message] = []
        self.raised: BaseException | None = None
        self.calls = 0
        self.sent = 0
        self.listens = self.yields = False
        self.before: Any = None  # called in the app's context
        options = {"limits": "1000/minute", "key": lambda scope: "all", "observer": self.observer, **options}
        if options.get("storage") is None:
            options.setdefault("clock", self.clock)
        self.budget = TokenBudgetMiddleware(self.app, **options)
        self.outermost: ASGIApp = self.budget if outside is None else outside(self.budget)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError("no lifespan")
        self.calls += 1
        listener = None
        try:
            if scope["type"] == "http":
                while True:
                    message = await receive()
                    self.received.append(message)
                    if not message.get("more_body"):
                        break
            if self.before is not None:
                self.before()
            if self.listens:
                listener = asyncio.ensure_future(self._listen(receive))
            start = {"type": "http.response.start", "status": self.status, "headers": self.headers}
            await send(start)
            for number, part in enumerate(self.parts):
                if number in self.gates:
                    await self.gates[number].wait()
                await send({"type": "http.response.body", "body": part, "more_body": True})
                self.sent += 1
                if self.yields:
                    await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except BaseException as error:
            self.raised = error
            raise
        finally:
            if listener is not None:
                listener.cancel()
                await asyncio.wait([listener])

    async def _listen(self, receive: Receive) -> None:
        self.received.append(await receive())

    # -- asking

    def connection(self, **options: Any) -> Connection:
        """One request for a chat."""
        body = options.pop("json", CHAT)
        given = {"method": "POST", "body": json.dumps(body).encode(), "headers": {"content-type": "application/json"}}
        given = {**given, **options}
        if given["body"] != b"":
            given["headers"] = {"transfer-encoding": "chunked", **given["headers"]}
        return Connection(self.outermost, **given)

    async def ask(self, **options: Any) -> Connection:
        """The same, to its end, and settled."""
        async with self.connection(**options) as connection:
            await connection.finished()
        await self.settled()
        return connection

    async def ask_refused(self, **options: Any) -> Connection:
        """The same, where the app is not to be called."""
        before = self.calls
        connection = await self.ask(**options)
        assert self.calls == before
        return connection

    async def settled(self) -> None:
        """Wait until nothing is left to be settled."""
        async with asyncio.timeout(10):
            while len(self.budget._ledger.settler) or self.budget._ledger.settler._task is not None:
                await asyncio.sleep(0.001)

    async def charged(self, path: str = "/") -> int:
        """What is charged now."""
        assert self.budget._limits is not None
        limits = self.budget._limits({"type": "http"}, path)
        taken = await self.budget.storage.take(KEY, limits, (0,) * len(limits))
        standing = taken.standings[0]
        return limits[0].amount - standing.remaining

    async def debt(self) -> int:
        """The same, where it may be more than the limit."""
        counter = self.budget.storage._counters[KEY, self.budget._limits({}, "/")[0].place]  # type: ignore
        return int(counter.current)


class SocketSite(Site):
    """The same for a WebSocket: ``parts`` are texts."""

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        try:
            await receive()
            await send({"type": "websocket.accept"})
            for number, part in enumerate(self.parts):
                if number in self.gates:
                    await self.gates[number].wait()
                await send({"type": "websocket.send", "text": part.decode()})
                self.sent += 1
            while (message := await receive())["type"] == "websocket.receive":
                self.received.append(message)
            self.received.append(message)
        except BaseException as error:
            self.raised = error
            raise

    def socket(self, **options: Any) -> WebSocketConnection:
        return WebSocketConnection(self.outermost, **options)


__all__ = ["CHAT", "KEY", "SSE", "Site", "SocketSite", "chunk", "settle", "words"]
