"""The pulse of one connection: what is sent when it is silent, and when.

``ResponsePulse`` is for an HTTP response; a WebSocket connection's is in ``websocket_pulse.py``. Each wraps the
server's ``receive`` and ``send``, and has one timer. The rules:

1. Silence is the time since the last message of the app went out. The timer is not set anew for every message: when it
   fires too early, it is set again for the rest.
2. A heartbeat goes between two events, never into one, and never while a message of the app is under way: a ``send``
   that waits is backpressure, not silence. A message of the app waits for a heartbeat that is under way.
3. A response is looked at once, at its start. One that is no stream gets the server's own ``send`` from then on.
4. Nothing is sent before the start has been sent, after the end, after the client is known to have left, or after the
   call has returned; and by then there is neither timer nor task. A task exists only while a heartbeat is being sent.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..observe import Observer
from ..types import Clock, Message, RawHeaders, Receive, Scope, Send
from ..wire import headers, sse
from ..wire.boundary import EventBoundary, LineBoundary
from ..wire.denial import EVENT_STREAM as EVENT_STREAM
from ..wire.ndjson import MEDIA_TYPES as NDJSON
from .timers import Timer, Timers, of_this_loop

if TYPE_CHECKING:
    from .lookout import Lookout

logger = logging.getLogger("streamware.heartbeat")

COMMENT = sse.comment()  # one newline: after a blank line the OpenAI SDK and httpx-sse make an empty message of it
LINE = b"\n"
REASONS = {COMMENT: "comment", LINE: "line"}
_MENTION = re.compile(rb"event-stream|ndjson|jsonl", re.IGNORECASE).search
BOM = b"\xef\xbb\xbf"
INFINITY = float("inf")
KNOWN_TYPES = 256


@dataclass(slots=True)
class PulseOptions:
    """What all connections of one middleware share.

    ``interval``: of silence, ``INFINITY`` for none. ``event``: the bytes for an event stream. ``ndjson``: whether such
    responses get any. ``text``: for a WebSocket, None for none. ``idle_timeout``: ``INFINITY`` for none.
    ``on_stream``: called with the scope and the start of a response that may be a stream, for whoever else looks out
    for one. ``under_way``: where responses that may be streams are listed, for whoever may want to end them; None where
    nobody does.
    """

    interval: float
    event: bytes
    ndjson: bool
    text: str | None
    idle_timeout: float
    observer: Observer
    clock: Clock
    on_stream: Callable[[Scope, Message], None] | None = None
    under_way: set[Lookout] | None = None
    known: dict[bytes, bool] = field(default_factory=dict[bytes, bool])  # a service has few content types
    _timers: Timers | None = None

    def timers(self) -> Timers:
        """Those of the running loop.

        :raises RuntimeError: there is none.
        """
        self._timers = timers = of_this_loop(self._timers, self.clock)
        return timers

    def may_be_stream(self, content_type: bytes) -> bool:
        """Whether a response of this type, which is not in ``known`` as one that is none, is worth a closer look."""
        found = _MENTION(content_type) is not None
        if len(self.known) < KNOWN_TYPES:
            self.known[bytes(content_type)] = found
        return found


def looks_only(under_way: set[Lookout], *, clock: Clock, observer: Observer) -> PulseOptions:
    """For one who sends no heartbeats, and may want to end responses."""
    return PulseOptions(
        interval=INFINITY,
        event=COMMENT,
        ndjson=False,
        text=None,
        idle_timeout=INFINITY,
        observer=observer,
        clock=clock,
        under_way=under_way,
    )


class Pulse:
    """The timer of one connection, and the gate that keeps heartbeats and the app's messages apart."""

    __slots__ = (
        "beat",
        "clock",
        "forward",
        "inner_receive",
        "inner_send",
        "last",
        "now",
        "options",
        "sending",
        "stopped",
        "timer",
    )

    def __init__(self, options: PulseOptions, receive: Receive, send: Send) -> None:
        self.options = options
        self.clock = options.clock
        self.now = options.clock.now
        self.inner_receive = receive
        self.inner_send = send
        self.forward: Send = send
        self.last = 0.0  # when a message last went out
        self.sending = 0  # how many messages of the app are under way
        self.beat: asyncio.Task[None] | None = None  # the heartbeat that is under way
        self.timer: Timer | None = None
        self.stopped = False

    def send(self, message: Message) -> Awaitable[None]:
        """The app's ``send``. No coroutine of its own: where ``forward`` is the server's ``send``, so is this."""
        return self.forward(message)

    async def pass_on(self, message: Message) -> None:
        """Send a message of the app when no heartbeat is under way."""
        await self.turn()
        self.sending += 1
        try:
            await self.inner_send(message)
        finally:
            self.sending -= 1
            self.last = self.now()

    async def turn(self) -> None:
        """Wait for a heartbeat that is under way."""
        while self.beat is not None:
            await asyncio.wait((self.beat,))

    def begin(self) -> None:
        """The start has been sent: silence counts from now."""
        self.last = self.now()
        if not self.stopped:
            self.arm(self.wait())

    def arm(self, delay: float) -> None:
        """Set the timer; never for a pulse that has no heartbeats."""
        if delay == INFINITY:
            return
        if self.timer is not None:
            self.timer.cancel()
        try:
            self.timer = self.options.timers().call_later(delay, self)
        except RuntimeError:  # no asyncio loop runs here: a server or a test client on trio
            self.stop()

    def stop(self) -> None:
        """Begin no heartbeat any more. One that is under way goes on, and the app's messages still wait for it."""
        if self.stopped:
            return
        self.stopped = True
        self.forward = self.inner_send if self.beat is None else self.pass_on
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    async def end(self) -> None:
        """The call is about to return: end the heartbeat that is under way, too."""
        self.stop()
        if self.beat is not None:
            self.beat.cancel()
            await asyncio.wait((self.beat,))

    def fire(self) -> None:
        """What the timer calls."""
        self.timer = None
        if self.stopped:
            return
        delay = self.wait()
        if delay > 0:
            self.arm(delay)
        elif self.beat is not None or self.sending or (message := self.due()) is None:
            self.arm(self.pause)
        else:
            self.begin_beat(message, counts=True)

    def begin_beat(self, message: Message, *, counts: bool) -> None:
        """Send a message that is not the app's."""
        sending = self.send_beat(message, counts)
        self.beat = asyncio.get_running_loop().create_task(sending, name="streamware heartbeat")
        self.hold(True)

    async def send_beat(self, message: Message, counts: bool) -> None:
        """Send a heartbeat, or what goes between two events like one, and set the timer for the next."""
        try:
            if not self.stopped:  # since the timer fired, the client may have left
                await self.inner_send(message)
                if counts:
                    self.options.observer.count("heartbeat.sent", reason=self.reason)
        except OSError:  # the client has left, and this server says so
            self.stop()
        except Exception:
            logger.warning("a heartbeat could not be sent; this connection gets no more of them", exc_info=True)
            self.options.observer.count("heartbeat.failed")
            self.stop()
        finally:
            self.beat = None
            self.hold(False)
            self.last = self.now()
        if not self.stopped:
            self.arm(self.wait())

    def hold(self, held: bool) -> None:
        """A heartbeat is under way, or no longer: for whoever sends without going through here."""

    @property
    def pause(self) -> float:
        """Seconds until the next look, when what is due must not be sent now."""
        raise NotImplementedError  # abstract: each kind of connection has its own

    def wait(self) -> float:
        """Seconds until something is due."""
        raise NotImplementedError  # abstract: each kind of connection has its own

    def due(self) -> Message | None:
        """The heartbeat to send now that one is due; None where it must not be."""
        raise NotImplementedError  # abstract: each kind of connection has its own

    @property
    def reason(self) -> str:
        """What kind of heartbeat it is, for the counter."""
        raise NotImplementedError  # abstract: each kind of connection has its own


class Shortcut(Protocol):
    """Sends whole events past the pulse. ``last``: when it last did; ``held``: it must not, for a heartbeat is under
    way."""

    held: bool
    last: float


class ResponsePulse(Pulse):
    """An HTTP response: a pulse if it proves to be an event stream, and else out of the way."""

    __slots__ = ("begun", "bodiless", "bom", "boundary", "data", "encoded", "interval", "shortcut")
    boundary: EventBoundary | LineBoundary  # set, as ``data`` is, once the response proves to be a stream
    data: bytes  # the heartbeat

    def __init__(self, options: PulseOptions, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(options, receive, send)
        self.forward = self.send_start
        self.bodiless: bool = scope.get("method") == "HEAD"
        self.interval = options.interval
        self.encoded = False  # it would be, but for its Content-Encoding
        self.begun = False  # a heartbeat has been sent
        self.bom = b""  # the beginning of a byte order mark, held back
        self.shortcut: Shortcut | None = None

    async def send_start(self, message: Message) -> None:
        """The app's ``send`` until its response starts."""
        if message["type"] != "http.response.start":
            await self.inner_send(message)
            return
        given: RawHeaders = message.get("headers", [])
        if type(given) is not list:  # any iterable will do for ASGI, but it may be one that can be read only once
            given = list(given)
            message = {**message, "headers": given}
        if self.looks_alive(message["status"], given):
            self.forward = self.send_first
            self.sending += 1  # nothing may be put in before it is out
            try:
                await self.inner_send(message)
            finally:
                self.sending -= 1
            if self.interval < INFINITY:
                self.begin()
        else:
            self.stop()
            await self.inner_send(message)

    def looks_alive(self, status: int, given: RawHeaders) -> bool:
        """Whether this is a response to put heartbeats into; if so, get ready for it."""
        kind = headers.media_type(headers.get(given, b"content-type"))
        if kind == EVENT_STREAM:
            self.boundary, self.data = EventBoundary(), self.options.event
        elif kind in NDJSON and (self.options.ndjson or self.options.under_way is not None):
            self.boundary, self.data = LineBoundary(), LINE
            if not self.options.ndjson:
                self.interval = INFINITY
        else:
            return False
        endless = (
            not self.bodiless
            and 200 <= status < 300
            and status not in (204, 205)
            and headers.get(given, b"content-length") is None
        )
        self.encoded = endless and headers.get(given, b"content-encoding") is not None
        return endless and not self.encoded

    async def send_first(self, message: Message) -> None:
        """The app's ``send`` until the first byte of the body. A byte order mark counts at the start of a stream only:
        behind a heartbeat it would spoil the first line."""
        await self.turn()
        if message["type"] == "http.response.body" and (body := bytes(message.get("body", b""))):
            if self.begun:
                body = self.bom + body
                if len(body) < len(BOM) and BOM.startswith(body) and message.get("more_body", False):
                    self.bom = body
                    body = b""
                message = {**message, "body": body.removeprefix(BOM)}
            if body and not self.stopped:
                self.forward = self.send_stream
        await self.send_stream(message)

    async def send_stream(self, message: Message) -> None:
        """The app's ``send`` on a stream. The hot path: what ``pass_on`` does, and the boundary."""
        while self.beat is not None:
            await asyncio.wait((self.beat,))
        if message["type"] == "http.response.body":
            body = message.get("body", b"")
            if type(body) is not bytes:  # some apps send memoryviews, and most servers take them
                body = bytes(body)
            self.boundary.feed(body)
            if not message.get("more_body", False):
                self.stop()
        elif message["type"] == "http.response.pathsend":
            self.stop()
        else:  # it may put bytes into the body that are not seen here
            self.boundary.tear()
        self.sending += 1
        try:
            await self.inner_send(message)
        except BaseException:
            self.boundary.tear()
            raise
        finally:
            self.sending -= 1
            self.last = self.now()

    @property
    def pause(self) -> float:
        return self.interval

    def wait(self) -> float:
        if self.shortcut is not None:
            self.last = max(self.last, self.shortcut.last)
        return self.last + self.interval - self.clock.now()

    def hold(self, held: bool) -> None:
        if self.shortcut is not None:
            self.shortcut.held = held

    def due(self) -> Message | None:
        if not self.boundary.between:
            return None
        self.begun = True
        return {"type": "http.response.body", "body": self.data, "more_body": True}

    def interject(self, event: bytes) -> bool:
        """Send ``event`` between two events of the app. False where that cannot be done now."""
        if self.stopped or self.beat is not None or self.sending or not self.boundary.between:
            return False
        self.begun = True
        self.begin_beat({"type": "http.response.body", "body": event, "more_body": True}, counts=False)
        return True

    @property
    def reason(self) -> str:
        return REASONS.get(self.data, "event")
