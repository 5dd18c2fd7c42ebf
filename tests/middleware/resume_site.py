"""The ground that the tests of Resume stand on: an app whose responses the test writes, and a site that serves it.

A ``Site`` is one worker: a ``ResumeMiddleware`` on its own embedded store, all on one ``FakeClock``. When it closes it
checks what must hold after every test: no call let an exception out, no message was out of order, nothing touched the
server's ``receive`` or ``send`` after a call had returned, nothing was sent to a client that was known to be gone, and
no timer, task or producer is left.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from streamware import MemoryStore, ResumeMiddleware
from streamware.testing import Connection, FakeClock
from streamware.types import ASGIApp, Message, Receive, Scope, Send
from tests.middleware.composed import Composed

SSE = ((b"content-type", b"text/event-stream"),)

#: What a browser's EventSource sends, and what an ordinary client of an event stream does.
EVENTSOURCE = {
    "accept": "text/event-stream",
    "cache-control": "no-cache",
    "pragma": "no-cache",
    "sec-fetch-mode": "cors",
    "sec-fetch-dest": "empty",
}
READER = {"accept": "text/event-stream"}

#: Longer than any response is held back for its first event.
HOLD = 0.06

_ID_LINE = re.compile(rb"(?:(?<=[\r\n])|\A)id: sw[^\r\n]*(\r\n|\n|\r)")
_RETRY_LINE = re.compile(rb"(?:(?<=[\r\n])|\A)retry: \d+(\r\n|\n|\r)")


def start(headers: Iterable[tuple[bytes, bytes]] = SSE, status: int = 200, **more: Any) -> Message:
    """A start of a response, of an event stream unless said otherwise."""
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def body(data: bytes, more: bool = True) -> Message:
    """A part of a body."""
    return {"type": "http.response.body", "body": data, "more_body": more}


def plain(wire: bytes) -> bytes:
    """``wire``, from its first event on, without the lines that Resume puts in."""
    return _RETRY_LINE.sub(b"", _ID_LINE.sub(b"", wire), count=1)


class Run:
    """One call of the app. What it sends is the test's to say; what it is told of is kept."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, listens: bool, heeds: bool) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.received: list[Message] = []
        self.cancelled = False
        self.over = asyncio.Event()
        self.disconnected = asyncio.Event()
        self.error: BaseException | None = None
        self._listens = listens
        self._heeds = heeds
        self._orders: asyncio.Queue[tuple[Any, asyncio.Future[BaseException | None]]] = asyncio.Queue()

    async def play(self) -> None:
        """The app itself: do what the test orders, listening for the client's leaving as frameworks do."""
        work = asyncio.current_task()
        assert work is not None
        listener = asyncio.ensure_future(self._listen(work)) if self._listens else None
        try:
            while True:
                order, done = await self._orders.get()
                try:
                    if order is None:
                        return
                    if isinstance(order, BaseException):
                        raise order
                    if callable(order):
                        await order()
                    else:
                        await self.send(order)
                except BaseException as error:
                    self.error = error
                    if not done.done():
                        done.set_result(error)
                    raise
                finally:
                    if not done.done():
                        done.set_result(None)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.over.set()
            if listener is not None:
                listener.cancel()
                await asyncio.wait([listener])

    async def _listen(self, work: asyncio.Task[object]) -> None:
        while True:
            message = await self.receive()
            self.received.append(message)
            if message["type"] == "http.disconnect":
                self.disconnected.set()
                if self._heeds:
                    work.cancel()
                return

    def begin(self, order: object) -> asyncio.Future[BaseException | None]:
        """Let the app do one thing; the future is done when it has, with what that raised."""
        done: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self._orders.put_nowait((order, done))
        return done

    async def put(self, *orders: object) -> None:
        """Let the app do these things: send a message, await a function, raise an exception, or return (None)."""
        for order in orders:
            async with asyncio.timeout(5):
                error = await self.begin(order)
            if error is not None and error is not order:
                raise error

    async def start(self, headers: Iterable[tuple[bytes, bytes]] = SSE, status: int = 200, **more: Any) -> None:
        await self.put(start(headers, status, **more))

    async def say(self, *words: str) -> None:
        """Send one event for each of ``words``, each in a message of its own."""
        for word in words:
            await self.put(body(b"data: " + word.encode() + b"\n\n"))

    async def stream(self, *words: str) -> None:
        """Start an event stream and say ``words``."""
        await self.start()
        await self.say(*words)

    async def end(self) -> None:
        """Send the final body, and return."""
        await self.put(body(b"", False), None)

    @property
    def got(self) -> bytes:
        """The request body as the app has received it."""
        return b"".join(message.get("body", b"") for message in self.received)


class Stage:
    """The app: each call of it is a ``Run``. ``listens``: for its client's leaving; ``heeds``: and ends by it."""

    def __init__(self, *, listens: bool = True, heeds: bool = False) -> None:
        self.runs: list[Run] = []
        self._listens = listens
        self._heeds = heeds
        self._changed = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        run = Run(scope, receive, send, listens=self._listens, heeds=self._heeds)
        self.runs.append(run)
        self._changed.set()
        await run.play()

    async def run(self, number: int = 1) -> Run:
        """The run of that number, 1 being the first, waiting for it."""
        async with asyncio.timeout(5):
            while len(self.runs) < number:
                self._changed.clear()
                await self._changed.wait()
        return self.runs[number - 1]


class UvicornCycle:
    """A server's ``send`` that Resume knows: it is given events straight from the app's own ``send``."""

    __module__ = "uvicorn.protocols.http.test_impl"

    def __init__(self, send: Send) -> None:
        self._send = send
        self.tasks: set[object] = set()  # that have sent parts of a body

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self.tasks.add(asyncio.current_task())
        await self._send(message)


def as_uvicorn(app: ASGIApp) -> ASGIApp:
    """``app`` as uvicorn calls it."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, UvicornCycle(send).send)

    return call


class Site(Composed):
    """One worker that serves ``app`` through Resume.

    :param around: puts something around the middleware, as an outer middleware would be.
    :param store: options of its ``MemoryStore``, or a store.
    """

    def __init__(
        self, app: ASGIApp | None = None, *, clock: FakeClock | None = None, store: object = None,
        around: Callable[[ASGIApp], ASGIApp] | None = None, listens: bool = True, heeds: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(Stage(listens=listens, heeds=heeds), clock)
        given: Mapping[str, Any] = store if isinstance(store, Mapping) else {}
        self.store: MemoryStore = store if isinstance(store, MemoryStore) else MemoryStore(clock=self.clock, **given)
        self.resume = ResumeMiddleware(
            app or self.stage, store=self.store, clock=self.clock, observer=self.observer, **options
        )
        self.app: ASGIApp = around(self.resume) if around else self.resume

    async def close(self) -> None:
        await self.resume.aclose()

    def check(self) -> None:
        super().check()
        assert self.resume._worker.detached == 0

    def check_exception(self, connection: Connection) -> None:
        if connection.started and connection.exception is not None and not connection.was_cancelled:
            raise AssertionError("an exception reached the server after the start") from connection.exception

    def connect(
        self, path: str = "/chat", *, headers: Mapping[str, str] | Iterable[tuple[str, str]] = READER,
        cursor: str | None = None, **options: Any,
    ) -> SiteConnection:  # fmt: skip
        """Begin a request. ``cursor`` goes into ``Last-Event-ID``."""
        given = list(headers.items() if isinstance(headers, Mapping) else headers)
        if cursor is not None:
            given.append(("last-event-id", cursor))
        connection = SiteConnection(self.app, path=path, headers=given, **options)
        self.connections.append(connection)
        connection.open()
        return connection

    def eventsource(self, path: str = "/chat", **options: Any) -> SiteConnection:
        """Begin a request as a browser's EventSource would."""
        return self.connect(path, headers=EVENTSOURCE | options.pop("more", {}), **options)

    async def run(self, number: int = 1) -> Run:
        return await self.stage.run(number)

    @property
    def runs(self) -> int:
        """How often the app was called."""
        return len(self.stage.runs)

    def counted(self, name: str, reason: str = "") -> int:
        return self.observer.counts.get((name, reason), 0)

    async def started(self, *words: str, path: str = "/chat", **options: Any) -> tuple[SiteConnection, Run]:
        """A stream that has said ``words`` to its first reader."""
        number = self.runs + 1
        connection = self.connect(path, **options)
        run = await self.run(number)
        await run.stream(*words)
        if words:
            await connection.events(len(words))
        else:
            await self.clock.advance(HOLD)
        return connection, run


class SiteConnection(Connection):
    """A connection that knows Resume's headers."""

    @property
    def was_cancelled(self) -> bool:
        return self._cancelled

    @property
    def stream(self) -> str:
        """The stream's id, out of ``Content-Location``."""
        location = self.header("content-location")
        assert location is not None, "the response has no Content-Location: it is no logged stream"
        return location.removeprefix("?_stream=")

    def at(self, seq: int) -> str:
        """The cursor behind event ``seq``."""
        return f"{self.stream}.{seq}"

    @property
    def own_url(self) -> str:
        """The stream's own URL."""
        return f"{self.scope['path']}?_stream={self.stream}"

    @property
    def logged(self) -> bool:
        return self.started and self.header("content-location") is not None

    @property
    def data(self) -> list[str]:
        """The data of all events so far that are the app's."""
        return [event.data for event in self._all_events() if not event.event.startswith("streamware.")]

    @property
    def controls(self) -> list[str]:
        """The types of the control events so far, without their prefix."""
        own = [event.event for event in self._all_events() if event.event.startswith("streamware.")]
        return [name.removeprefix("streamware.") for name in own]


async def until(condition: Callable[[], bool], *, awaiting: Callable[[], Awaitable[object]] | None = None) -> None:
    """Wait for ``condition``, letting the loop turn."""
    async with asyncio.timeout(5):
        while not condition():
            await (awaiting() if awaiting is not None else asyncio.sleep(0))
