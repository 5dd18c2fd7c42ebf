"""One call of an ASGI app, as a server makes it: the common part of the HTTP and the WebSocket driver.

Rules: ``receive`` and ``send`` belong to the call, and a touch after it has returned is a violation; so is a
``receive`` left waiting then. Violations are kept, not only raised, since an app may swallow what its ``send`` raises:
``check`` raises for them, and ``finished`` and leaving the ``async with`` block call it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ..types import ASGIApp, Message, Receive, Scope, Send
from .order import MessageOrder, MessageOrderError
from .servers import ServerProfile

T = TypeVar("T")


class ConnectionEndedError(EOFError):
    """What was waited for cannot come any more: the response, or the connection, has ended."""


class PlainAwaitable(Generic[T]):
    """An awaitable that is no coroutine, as granian's ``receive()`` and ``send()`` return."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]]) -> None:  # Any: what coroutines yield is private
        self._make = make

    def __await__(self) -> Generator[Any, Any, T]:
        return self._make().__await__()


class Call:
    """What ``Connection`` and ``WebSocketConnection`` share. Not for direct use."""

    def __init__(self, app: ASGIApp, scope: Scope, server: ServerProfile, timeout: float) -> None:
        self.app = app
        self.scope = scope
        self.server = server
        self.timeout = timeout
        self.messages: list[Message] = []
        self.sent_after_disconnect: list[Message] = []
        self.violations: list[str] = []
        self.dropped = False
        self._order = MessageOrder(scope)
        self._ended = False  # the end has not only been sent, but has gone out
        self._task: asyncio.Task[None] | None = None
        self._returned = False
        self._cancelled = False
        self._stalled = False
        self._receiving = 0
        self._waiters: list[asyncio.Future[None]] = []

    # What the server hands to the app

    async def _next_message(self) -> Message:
        raise NotImplementedError  # abstract: each driver has its own

    def _take(self, message: Message) -> None:
        raise NotImplementedError  # abstract: each driver has its own

    async def _receive(self) -> Message:
        if self._returned:
            self.violations.append("receive() after the call returned")
            raise asyncio.CancelledError("receive() after the call returned")
        self._receiving += 1
        try:
            return await self._next_message()
        finally:
            self._receiving -= 1

    async def _send(self, message: Message) -> None:
        if self._returned:
            self.violations.append(f"send({message.get('type')}) after the call returned")
            return
        if self.dropped:
            self._late_send(message)
            return
        try:
            self._order.check(message)
            ends = self._order.ended
        except MessageOrderError as error:
            self.violations.append(str(error))
            raise
        while self._stalled and not self.dropped:
            await self._change()
        if self.dropped:
            return
        self.messages.append(dict(message))
        self._take(message)
        self._ended = self._ended or ends
        self._notify()

    def _late_send(self, message: Message) -> None:
        self.sent_after_disconnect.append(dict(message))

    # What the test does

    def open(self) -> None:
        """Let the server call the app, without waiting for anything."""
        self._opened()

    def drop(self) -> None:
        """The client leaves: a waiting ``receive()`` learns of it, a ``send()`` that is blocked returns, and from now
        on sends go nowhere, silently and without yielding."""
        self.dropped = True
        self._notify()

    def stall(self) -> None:
        """The client stops reading and all buffers are full: ``send()`` blocks until ``unstall`` or ``drop``."""
        self._stalled = True

    def unstall(self) -> None:
        """The client reads again."""
        self._stalled = False
        self._notify()

    def cancel(self) -> None:
        """The server cancels the call, as hypercorn and daphne do when they stop."""
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    async def finished(self) -> None:
        """Wait until the call has returned, then check.

        :raises BaseException: what the call raised; not its cancellation, if that was asked for by ``cancel``.
        :raises MessageOrderError: there were violations.
        """
        task = self._opened()
        await asyncio.wait([task], timeout=self.timeout)
        if not task.done():
            raise TimeoutError(f"the call has not returned after {self.timeout} s")
        error = self.exception
        if error is not None and not (self._cancelled and isinstance(error, asyncio.CancelledError)):
            raise error
        await asyncio.sleep(0)  # the done callback, which looks for a receive() left behind, runs first
        self.check()

    @property
    def exception(self) -> BaseException | None:
        """What the call raised, None if nothing or if it is still running."""
        task = self._task
        if task is None or not task.done():
            return None
        return asyncio.CancelledError() if task.cancelled() else task.exception()

    @property
    def returned(self) -> bool:
        """The call has returned or raised."""
        return self._returned

    def check(self) -> None:
        """Raise for the violations so far.

        :raises MessageOrderError: there were some.
        """
        if self.violations:
            raise MessageOrderError("; ".join(self.violations))

    async def aclose(self) -> None:
        """Leave, and wait until the call has returned: cancelled, if it does not return by itself."""
        task = self._task
        if task is None:
            return
        self.drop()
        for _ in range(50):
            if task.done():
                break
            await asyncio.sleep(0)
        while not task.done():
            self.cancel()
            await asyncio.wait([task], timeout=self.timeout)
        if not task.cancelled():
            task.exception()  # looked at, so that the loop does not report it as forgotten

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
        if error is None:
            self.check()

    # Inner parts

    def _plain_receive(self) -> Awaitable[Message]:
        return PlainAwaitable(self._receive)

    def _plain_send(self, message: Message) -> Awaitable[None]:
        return PlainAwaitable(lambda: self._send(message))

    async def _run(self, receive: Receive, send: Send) -> None:
        try:
            await self.app(self.scope, receive, send)
        finally:
            self._returned = True

    def _done(self, task: asyncio.Task[None]) -> None:
        if self._receiving:
            self.violations.append("the call returned while a receive() was waiting")
        self._notify()

    def _opened(self) -> asyncio.Task[None]:
        if self._task is None:
            receive: Receive = self._receive
            send: Send = self._send
            if not self.server.coroutines:
                receive = self._plain_receive
                send = self._plain_send
            self._task = asyncio.get_running_loop().create_task(self._run(receive, send), name="the server's call")
            self._task.add_done_callback(self._done)
        return self._task

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    async def _until(self, reached: Callable[[], bool], awaited: str) -> None:
        """Wait until ``reached()``; where it cannot be any more, raise what the call raised, or that it has ended."""
        task = self._opened()
        try:
            async with asyncio.timeout(self.timeout):
                while not reached():
                    if task.done():
                        if (error := self.exception) is not None:
                            raise error
                        raise ConnectionEndedError(f"the call returned while the test waited for {awaited}")
                    if self._ended or self.dropped:
                        raise ConnectionEndedError(f"the end came while the test waited for {awaited}")
                    await self._change()
        except TimeoutError as error:
            raise TimeoutError(f"no {awaited} within {self.timeout} s") from error
