"""The client's side of one call: the only one that touches the server's ``receive``.

Rules (research: servers differ):

1. At most one ``receive()`` is under way, as a task of its own, so that the app may give up waiting without losing a
   message, and so that a server's awaitable need not be a coroutine.
2. The first ``http.disconnect`` is final: afterwards ``receive`` is never called again (some servers block there).
3. Before the response is a stream, a message is asked for only when the app asks. Afterwards one is always asked for,
   while what the app has not taken is small, for a drop has to be noticed.
4. Once ``release`` was called nothing is touched any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import cast

from ..types import Clock, Message, Receive, Scope
from ..wire import headers
from .lookout import Lookout

UNREAD_BYTES = 64 * 1024
TASK = "streamware inbound"


class Inbound:
    """``complete``: the request's body has arrived. ``gone``: the client has left; ``error``: by an exception.
    ``on_change`` is called at every message and at the client's leaving."""

    __slots__ = (
        "_drain", "_lookout", "_pending", "_receive", "_unread", "_watch",
        "complete", "error", "gone", "on_change", "queue", "released",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive) -> None:
        # Heartbeats would look at each message for the client's leaving: we do, and spare the frame in between.
        lookout: object = getattr(receive, "__self__", None)
        self._lookout = lookout if isinstance(lookout, Lookout) else None
        self._receive = receive if self._lookout is None else self._lookout.inner_receive
        self._pending: asyncio.Future[Message] | None = None
        self._unread = 0
        self._watch = False
        self._drain = False
        self.queue: list[Message] = []  # short, and most often empty
        self.complete = has_no_body(scope)
        self.gone = False
        self.error: BaseException | None = None
        self.released = False
        self.on_change: Callable[[], None] | None = None

    def take(self) -> Message | None:
        """The next message of the request that has arrived and was not taken yet."""
        if not self.queue:
            return None
        message = self.queue.pop(0)
        self._unread -= len(message.get("body", b""))
        if self._watch:
            self.pull()
        return message

    def put_back(self, messages: list[Message]) -> None:
        """Messages that somebody read ahead of the app."""
        self.queue[:0] = messages
        self._unread += sum(len(message.get("body", b"")) for message in messages)

    def watch(self) -> None:
        """From now on look out for the client's leaving."""
        self._watch = True
        self.pull()

    def drain(self) -> None:
        """The same, for a request whose body nobody wants."""
        self._drain = True
        self.watch()

    def pull(self) -> None:
        """Ask the server for a message, unless that is under way, useless, or too much lies unread. Behind the end of
        the body only the client's leaving can come, and that is small."""
        if self._pending is not None or self.gone or self.released:
            return
        if self._unread < UNREAD_BYTES or self.complete:
            lookout = self._lookout
            if lookout is None:
                self._pending = self._ask()
            elif lookout.told:
                self._pending = asyncio.get_running_loop().create_future()
                self._pending.cancel()
            else:
                self._pending = lookout.listener = self._ask()
            self._pending.add_done_callback(self._arrived)

    def _ask(self) -> asyncio.Future[Message]:
        message = self._receive()
        if isinstance(message, CoroutineType):  # as of most servers; granian's is an awaitable of its own
            steps = cast("Coroutine[object, object, Message]", message)
            return asyncio.get_running_loop().create_task(steps, name=TASK)
        return asyncio.ensure_future(message)

    async def discard(self, clock: Clock, timeout: float) -> None:
        """Take the rest of a body that nobody wants, at most ``timeout`` seconds long: the request is to be whole
        before it is answered."""
        if self.complete or self.gone:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        before = self.on_change

        def look() -> None:
            if before is not None:
                before()
            if (self.complete or self.gone) and not done.done():
                done.set_result(None)

        self.on_change = look
        timer = clock.call_later(timeout, lambda: None if done.done() else done.set_result(None))
        self.queue.clear()
        self._unread = 0
        try:
            self.drain()
            await done
        finally:
            timer.cancel()
            self.on_change = before

    def release(self) -> None:
        """The server's call is about to return."""
        self.released = True
        self.on_change = None
        if self._pending is not None:
            self._pending.cancel()

    async def body(self, limit: int) -> list[Message]:
        """The request body as it came: the whole of it, or, of a larger one, as much as takes it over ``limit``. Stops
        early at a disconnect."""
        taken: list[Message] = []
        size = 0
        changed: asyncio.Future[None] | None = None

        def wake() -> None:
            if changed is not None and not changed.done():
                changed.set_result(None)

        self.on_change = wake
        try:
            while True:
                message = self.take()
                if message is not None:
                    taken.append(message)
                    size += len(message.get("body", b""))
                    if size > limit or (message["type"] == "http.request" and not message.get("more_body", False)):
                        return taken
                elif self.gone:
                    return taken
                else:
                    changed = asyncio.get_running_loop().create_future()
                    self.pull()
                    await changed
        finally:
            self.on_change = None

    def _arrived(self, pending: asyncio.Future[Message]) -> None:
        self._pending = None
        if self._lookout is not None:
            self._lookout.listener = None
        error = None if pending.cancelled() else pending.exception()  # looked at even where nobody wants it any more
        if self.released:
            return
        if error is not None or pending.cancelled():  # by the server, or by us: done with the connection
            self.gone = True
            self.error = error
        else:
            message = pending.result()
            if message["type"] == "http.disconnect":
                self.gone = True
                if self._lookout is not None:
                    self._lookout.left()
            else:
                if message["type"] == "http.request" and not message.get("more_body", False):
                    self.complete = True
                if not self._drain:
                    self.queue.append(message)
                    self._unread += len(message.get("body", b""))
        if self._watch:
            self.pull()
        if self.on_change is not None:
            self.on_change()


def has_no_body(scope: Scope) -> bool:
    """Whether the request's head alone says that there is no body (RFC 9112 §6.3; HTTP/2 says so elsewhere)."""
    if not str(scope.get("http_version", "")).startswith("1"):
        return False
    given = scope.get("headers") or ()
    length = headers.get(given, b"content-length")
    return (length is None or length.strip() == b"0") and headers.get(given, b"transfer-encoding") is None
