"""Heads and events as bytes, for back ends that keep them as such.

MessagePack, which costs some tens of nanoseconds an event. Text goes as bytes, for paths and owners may hold what is no
valid UTF-8.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .base import Head, Outcome, Tombstone


class _Head(msgspec.Struct, array_like=True):
    owner: bytes
    account: bytes
    path: bytes
    method: bytes
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    media_type: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(_Head).decode
_decode_events = msgspec.msgpack.Decoder(list[bytes | None]).decode


def encode_events(events: Sequence[bytes | None]) -> bytes:
    """The events of one entry."""
    return _encode(events)


def decode_events(data: bytes) -> list[bytes | None]:
    """The events of one entry.

    :raises msgspec.MsgspecError: they are not.
    """
    return _decode_events(data)


def encode_head(head: Head) -> bytes:
    """A head."""
    return _encode(
        _Head(
            _bytes(head.owner),
            _bytes(head.account),
            _bytes(head.path),
            _bytes(head.method),
            head.status,
            head.headers,
            _bytes(head.media_type),
        )
    )


def decode_head(data: bytes) -> Head:
    """A head.

    :raises msgspec.MsgspecError: it is not.
    """
    head = _decode_head(data)
    return Head(
        _text(head.owner),
        _text(head.account),
        _text(head.path),
        _text(head.method),
        head.status,
        head.headers,
        _text(head.media_type),
    )


def tombstone(head: Head, outcome: Outcome, last: int) -> Tombstone:
    """What is left of a log."""
    return Tombstone(head.owner, head.path, head.method, outcome, last)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
