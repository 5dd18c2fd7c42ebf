"""What a request asks of Resume, read from its head in one pass: most requests ask nothing, and must not pay for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..paths import path_within_mount
from ..stores.base import Log, Tombstone
from ..types import Message, Scope
from ..wire import headers
from ..wire.cursor import Cursor, parse_cursor
from ..wire.denial import EVENT_STREAM, is_eventsource_like
from ..wire.ndjson import MEDIA_TYPES as NDJSON

#: Without an owner, a shorter key is one that somebody else may use as well (22 characters of base64 are 128 bits).
LONE_KEY_LENGTH = 22
KEY_BYTES = 1024
_KNOWN_TYPES = 256
_KNOWN_BYTES = 256
_USUAL = NDJSON | {EVENT_STREAM}

_TELLING = frozenset({b"accept", b"last-event-id", b"idempotency-key", b"prefer"})
_MCP = frozenset({b"mcp-session-id", b"mcp-protocol-version"})
LOOKED_AT = _TELLING | _MCP
_NEVER = frozenset({"HEAD", "OPTIONS", "TRACE", "CONNECT"})


@dataclass(frozen=True, slots=True)
class Request:
    """A request that may get a log. ``key``: its idempotency key; ``prefer``: its preferences."""

    cursor: Cursor | None
    key: bytes | None
    prefer: dict[str, str]
    eventsource_like: bool

    @property
    def respond_async(self) -> bool:
        return "respond-async" in self.prefer

    def about(self, found: Log | Tombstone | None) -> Request:
        """The same, now that it is known what it is about: control events are for event streams, not for NDJSON."""
        if not self.eventsource_like or found is None or isinstance(found, Tombstone) or is_event_stream(found):
            return self
        return replace(self, eventsource_like=False)


def is_event_stream(log: Log) -> bool:
    """Whether what is in ``log`` are events of an event stream, rather than lines."""
    return log.head.media_type.encode() == EVENT_STREAM


class Reading:
    """How requests are read. ``always``: matches the paths, within the mount, whose requests may get a log whatever
    they accept."""

    __slots__ = ("_always", "_known", "_media_types", "_mention", "by_path", "plain", "usual")

    def __init__(self, media_types: frozenset[bytes], always: Callable[[str], object] | None) -> None:
        self._media_types = media_types
        #: No stream has a media type that heartbeats would not look out for.
        self.usual = media_types <= _USUAL
        self._mention = re.compile(b"|".join(map(re.escape, sorted(media_types))), re.IGNORECASE).search
        self._always = always
        #: True where a path alone may make a request one that gets a log.
        self.by_path = always is not None
        #: Values of Accept that have come, and name no stream: most requests have one of a few.
        self.plain: set[bytes] = set()
        self._known: dict[bytes, bool] = {}  # a service has few content types, and looks one up at each response

    def could_ask(self, scope: Scope) -> bool:
        """Whether another ``Accept`` would have got this request a log."""
        given: list[tuple[bytes, bytes]] = scope.get("headers") or []
        return scope["method"] not in _NEVER and not any(name in _MCP for name, _ in given)

    def starts_stream(self, start: Message) -> bool:
        """Whether a response that begins like this is a stream that could have had a log."""
        if start.get("status") != 200:
            return False
        for name, value in start.get("headers") or ():
            if name == b"content-type" or (len(name) == 12 and name.lower() == b"content-type"):
                known = self._known.get(value)
                if known is None:
                    known = headers.media_type(value) in self._media_types
                    if len(self._known) < _KNOWN_TYPES:
                        self._known[value] = known
                return known
        return False

    def _names_stream(self, accept: bytes) -> bool:
        if accept in self.plain:
            return False
        found = self._mention(accept) is not None
        if not found and len(self.plain) < _KNOWN_TYPES and len(accept) <= _KNOWN_BYTES:
            self.plain.add(accept)
        return found

    def read(self, scope: Scope) -> Request | None:
        """What ``scope`` asks; None for a request that gets no log whatever its response is."""
        given: list[tuple[bytes, bytes]] = scope.get("headers") or []
        asks = self._always is not None and bool(self._always(path_within_mount(scope)))
        telling = asks
        for name, value in given:
            if name not in LOOKED_AT:
                continue
            if name in _MCP:
                return None
            if name != b"accept" or self._names_stream(value):
                telling = True
        if not telling or scope["method"] in _NEVER:
            return None
        accept = headers.combined(given, b"accept")
        cursor = parse_cursor(headers.combined(given, b"last-event-id"))
        key = headers.combined(given, b"idempotency-key") or None
        prefer = headers.parse_prefer(headers.get_all(given, b"prefer"))
        asks = asks or cursor is not None or key is not None or "respond-async" in prefer
        if not asks and not any(headers.names_media_type(accept, media_type) for media_type in self._media_types):
            return None
        if key is not None and len(key) > KEY_BYTES:
            key = None
        return Request(cursor, key, prefer, is_eventsource_like(scope))
