"""Stream ids and cursors: ``{stream}.{seq}``, what goes on the wire as an event's id and comes back as Last-Event-ID.

A stream id is ``sw``, the tag of the store that made it (6 letters or digits), and 128 random bits. All of it is
URL-safe ASCII, so it may stand in headers, queries and JSON as it is. Whatever a client sends is matched against that
exact shape; anything else is not ours and is None, at a cost that does not grow with its length.
"""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import dataclass

_TAG_LENGTH = 6
_TAG_START = 2
_TAG_END = _TAG_START + _TAG_LENGTH
_ALPHABET = string.ascii_letters + string.digits

_STREAM = "sw[A-Za-z0-9]{6}[A-Za-z0-9_-]{22}"
_match_tag = re.compile("[A-Za-z0-9]{6}").fullmatch
_match_stream = re.compile(_STREAM).fullmatch
# At most 15 digits: exact in every client's numbers, and what a store can hold.
_match_cursor = re.compile(rf"({_STREAM})\.(0|[1-9][0-9]{{0,14}})").fullmatch

MAX_CURSOR_BYTES = 128


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a stream: behind its event number ``seq``; 0 is before the first."""

    stream: str
    seq: int

    @property
    def tag(self) -> str:
        """Of the store that made the stream."""
        return stream_tag(self.stream)

    def __str__(self) -> str:
        return f"{self.stream}.{self.seq}"


def new_tag() -> str:
    """A random tag, for a store that does not share its logs."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_TAG_LENGTH))


def new_stream_id(tag: str) -> str:
    """A new stream id for the store ``tag``.

    :raises ValueError: ``tag`` is not 6 letters or digits.
    """
    if not _match_tag(tag):
        raise ValueError(f"a store's tag is {_TAG_LENGTH} letters or digits, got {tag!r}")
    return f"sw{tag}{secrets.token_urlsafe(16)}"


def stream_tag(stream: str) -> str:
    """The tag of the store that made the stream id ``stream``."""
    return stream[_TAG_START:_TAG_END]


def is_stream_id(text: str) -> bool:
    """True where ``text`` has the exact shape of a stream id."""
    return _match_stream(text) is not None


def parse_cursor(value: bytes | str | None) -> Cursor | None:
    """The cursor that ``value`` is; None for everything else."""
    if not value or len(value) > MAX_CURSOR_BYTES:
        return None
    # Latin-1 maps each byte to one character, and none beyond ASCII fits the shape.
    text = value if isinstance(value, str) else value.decode("latin-1")
    found = _match_cursor(text)
    return Cursor(found[1], int(found[2])) if found else None
