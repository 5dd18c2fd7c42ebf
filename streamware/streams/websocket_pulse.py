"""The pulse of a WebSocket connection: a text in the silence of the app, a close in the silence of the client.

The rules of ``pulse.py`` hold, and these:

1. A client is silent while the app listens and nothing comes. While the app does not listen, it may have spoken without
   being heard: that time does not count.
2. Whoever closes tells the app. Servers differ in when they would (hypercorn: once a dead client's socket is gone,
   which may be never; granian: does not even close while a ``receive()`` waits), so the waiting ``receive()`` is ended,
   as ``asyncio.timeout`` ends it; in its place the close is sent, and the app gets the disconnect.
"""

from __future__ import annotations

import asyncio
import contextlib

from ..types import Message, Receive, Scope, Send
from .pulse import INFINITY, Pulse, PulseOptions
from .servers import spec_version

# As HTTP's 408. Of 1000 and 3000 to 4999, the codes that every server lets through: daphne raises for the others.
IDLE_CODE = 4408
IDLE_REASON = "idle timeout"
CLOSE_WAIT = 5.0  # seconds that the close may take, where a client that reads nothing blocks it as well


class WebSocketPulse(Pulse):
    """A WebSocket connection, from its accept to its end."""

    __slots__ = ("closed", "deadline", "heard", "idle", "interval", "left", "opened", "raises")

    def __init__(self, options: PulseOptions, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(options, receive, send)
        self.forward = self.send_accept
        self.interval = INFINITY if options.text is None else options.interval
        self.idle = options.idle_timeout
        self.heard = self.left = 0.0  # when a message last came, and when the app last stopped to listen
        self.deadline: asyncio.Timeout | None = None  # of the ``receive()`` that the app waits in
        self.opened = False  # accepted, and a loop to run timers on
        self.closed = False  # by this pulse
        self.raises = spec_version(scope) >= (2, 4)  # what a send after the end does: raise, or nothing

    async def receive(self) -> Message:
        """The app's ``receive``."""
        if self.closed:
            return disconnect()
        if self.opened and self.idle < INFINITY:
            message = await self.listen()
        else:
            message = await self.inner_receive()
        if message["type"] == "websocket.disconnect":
            self.stop()
        else:
            self.heard = self.left = self.clock.now()
        return message

    async def listen(self) -> Message:
        """Wait for the client, for as long as its silence may last."""
        self.heard += self.clock.now() - self.left
        try:
            async with asyncio.timeout(None) as self.deadline:
                return await self.inner_receive()
        except TimeoutError:
            if not self.closed:
                raise  # not ours
            await self.close()
            return disconnect()
        finally:
            self.deadline = None
            self.left = self.clock.now()

    async def close(self) -> None:
        """Close a connection whose client is silent."""
        self.options.observer.count("heartbeat.idle_closed")
        # Whatever the server makes of it (a client that leaves just now, buffers that are full), the app is told.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_WAIT):
                await self.inner_send({"type": "websocket.close", "code": IDLE_CODE, "reason": IDLE_REASON})

    async def send_accept(self, message: Message) -> None:
        """The app's ``send`` until it accepts."""
        if message["type"] != "websocket.accept":
            await self.inner_send(message)
            return
        self.forward = self.send_open
        await self.inner_send(message)
        self.heard = self.left = self.clock.now()
        self.begin()
        self.opened = not self.stopped

    async def send_open(self, message: Message) -> None:
        """The app's ``send`` on an open connection."""
        await self.turn()
        if self.closed:
            await self.send_late(message)
            return
        if message["type"] == "websocket.close":
            self.stop()
        await self.pass_on(message)

    async def send_late(self, message: Message) -> None:
        """The app's ``send`` after the close, as servers have it after the client has left."""
        if self.raises and message["type"] == "websocket.send":
            raise OSError("the connection was closed: its client had been silent for too long")

    def fire(self) -> None:
        if self.deadline is not None and not self.stopped and self.silence(self.clock.now()) >= self.idle:
            self.closed = True
            self.stop()
            self.forward = self.send_late
            self.deadline.reschedule(asyncio.get_running_loop().time())
            return
        super().fire()
        if self.timer is None and not self.stopped:  # a heartbeat is under way, and may be so for long
            self.arm(self.patience(self.clock.now()))

    @property
    def pause(self) -> float:
        return min(self.interval, self.idle)

    def wait(self) -> float:
        now = self.clock.now()
        return min(self.last + self.interval - now, self.patience(now))

    def patience(self, now: float) -> float:
        """Seconds until the client can have been silent for too long."""
        left = self.idle - self.silence(now)
        # While the app does not listen, silence stands still; looking again every few milliseconds would be no use.
        return left if self.deadline is not None else max(left, self.idle / 10)

    def silence(self, now: float) -> float:
        """For how long the client has said nothing while the app listened."""
        return (self.left if self.deadline is None else now) - self.heard

    def due(self) -> Message | None:
        if self.clock.now() < self.last + self.interval:
            return None
        return {"type": "websocket.send", "text": self.options.text}

    @property
    def reason(self) -> str:
        return "websocket"


def disconnect() -> Message:
    """What the app gets when this pulse has closed the connection."""
    return {"type": "websocket.disconnect", "code": IDLE_CODE, "reason": IDLE_REASON}
