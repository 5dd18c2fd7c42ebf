"""Heartbeats: bytes on a silent connection, so that nobody on the way takes it for dead.

This is the configuration; what happens on a connection is in ``streams/pulse.py`` and ``streams/websocket_pulse.py``.
Connections of a kind that has nothing to do under the options given pass through with the very objects that came in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable

from ..clock import LoopClock
from ..exceptions import ConfigurationError
from ..observe import NullObserver, Observer
from ..streams.pulse import COMMENT, INFINITY, PulseOptions
from ..streams.websocket_pulse import WebSocketPulse
from ..types import ASGIApp, Clock, Receive, Scope, Send
from .base import BaseMiddleware, WatchingMiddleware


class HeartbeatMiddleware(WatchingMiddleware):
    """Sends heartbeats on event streams that are silent, and closes WebSockets whose client is.

    :param interval: seconds of silence after which a heartbeat is sent, 15 by default: proxies and balancers give up
        after 30 to 60. ``None`` sends none.
    :param event: the name of an event to send, with the data ``{}``, in place of a comment: for scripts that have to
        see the heartbeat; some clients choke on events that they do not know. ``None``: a comment, unseen by scripts.
    :param ndjson: send empty lines on NDJSON responses as well; not every parser skips them.
    :param websocket: the text to send on a silent WebSocket, once accepted. The client must know it. ``None``: none.
    :param idle_timeout: seconds after which a WebSocket whose client has sent nothing is closed with code 4408. Time in
        which the app does not listen does not count. ``None``: never.
    :param paths: glob patterns on the path within the mount; ``None`` touches every path.
    :param exclude: patterns of paths to leave alone, looked at after ``paths``.
    :param observer: gets the counters ``heartbeat.sent``, ``heartbeat.failed`` and ``heartbeat.idle_closed``.
    :param clock: tells the time; ``None``: the event loop's.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        interval: float | None = 15.0,
        event: str | None = None,
        ndjson: bool = False,
        websocket: str | None = None,
        idle_timeout: float | None = None,
        paths: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        observer: Observer | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(app, paths=paths, exclude=exclude)
        self.options = PulseOptions(
            interval=seconds("interval", interval),
            event=heartbeat_bytes(event),
            ndjson=flag("ndjson", ndjson),
            text=text("websocket", websocket),
            idle_timeout=seconds("idle_timeout", idle_timeout),
            observer=NullObserver() if observer is None else observer,
            clock=LoopClock() if clock is None else clock,
        )
        self.scope_types = frozenset(
            kind
            for kind, wanted in (
                ("http", interval is not None),
                ("websocket", idle_timeout is not None or (interval is not None and websocket is not None)),
            )
            if wanted
        )

    @property
    def frameless(self) -> bool:
        return "http" in self.unguarded and self.selection.everything

    def joined(self, outer: BaseMiddleware | None) -> None:
        if outer is not None and outer.drains is not None and outer.frameless and self.frameless:
            self.options.under_way = outer.drains.responses  # one look at a response does for both
            outer.delegated = True

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return (self.look_out if scope["type"] == "http" else self._handle_websocket)(scope, receive, send)

    async def _handle_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        pulse = WebSocketPulse(self.options, scope, receive, send)
        try:
            await self.app(scope, pulse.receive, pulse.send)
        finally:
            await pulse.end()


def wrong(option: str, received: object, expected: str) -> ConfigurationError:
    """The error for one option."""
    return ConfigurationError.option(HeartbeatMiddleware.__name__, option, received, expected)


def seconds(option: str, received: object) -> float:
    """A duration, checked; ``INFINITY`` for None."""
    if received is None:
        return INFINITY
    if isinstance(received, bool) or not isinstance(received, int | float) or not 0 < received < INFINITY:
        raise wrong(option, received, "> 0 seconds, or None to disable")
    return float(received)


def flag(option: str, received: object) -> bool:
    """A yes or no, checked."""
    if not isinstance(received, bool):
        raise wrong(option, received, "True or False")
    return received


def text(option: str, received: object) -> str | None:
    """A message's text, checked."""
    if received is not None and (not isinstance(received, str) or not received):
        raise wrong(option, received, "the text of a message that the client knows, or None")
    return received


def heartbeat_bytes(event: object) -> bytes:
    """What to send on an event stream: the event of that name, or the comment."""
    if event is None:
        return COMMENT
    if not isinstance(event, str) or not event or any(character in event for character in "\r\n\0"):
        raise wrong("event", event, "the name of an event, on one line, or None for a comment")
    try:
        return b"event: " + event.encode() + b"\ndata: {}\n\n"
    except UnicodeEncodeError as error:
        raise wrong("event", event, "text that UTF-8 can encode, or None for a comment") from error
