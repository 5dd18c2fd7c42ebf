"""What a request asks of Resume, read from its head in one pass: most requests ask nothing, and must not pay for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..types import Scope
from ..wire import headers
from ..wire.cursor import Cursor, parse_cursor
from ..wire.denial import is_eventsource_like

#: Without an owner, a shorter key is one that somebody else may use as well (22 characters of base64 are 128 bits).
LONE_KEY_LENGTH = 22
KEY_BYTES = 1024

_TELLING = frozenset({b"accept", b"last-event-id", b"idempotency-key", b"prefer"})
_MCP = frozenset({b"mcp-session-id", b"mcp-protocol-version"})


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


def read_request(scope: Scope, media_types: frozenset[bytes], always: Callable[[], bool] | None) -> Request | None:
    """What ``scope`` asks; None for a request that gets no log whatever its response is."""
    if scope["method"] in ("HEAD", "OPTIONS", "TRACE", "CONNECT"):
        return None
    given: list[tuple[bytes, bytes]] = scope.get("headers") or []
    telling = False
    for name, value in given:
        if name in _TELLING:
            if name != b"accept" or any(media_type in value.lower() for media_type in media_types):
                telling = True
        elif name in _MCP:
            return None
    if not telling and (always is None or not always()):
        return None
    accept = headers.combined(given, b"accept")
    cursor = parse_cursor(headers.combined(given, b"last-event-id"))
    key = headers.combined(given, b"idempotency-key") or None
    prefer = headers.parse_prefer(headers.get_all(given, b"prefer"))
    if (
        cursor is None
        and key is None
        and "respond-async" not in prefer
        and not any(headers.names_media_type(accept, media_type) for media_type in media_types)
        and (always is None or not always())
    ):
        return None
    if key is not None and len(key) > KEY_BYTES:
        key = None
    return Request(cursor, key, prefer, is_eventsource_like(scope))
