"""The events of an entry as they lie in Redis: without their ``id`` lines, where these are the stream's own.

Such a line says what the entry's key and id say already, in some 45 bytes an event, a third of what a token's event is.
So it is cut off when an entry is written and set again when it is read: what comes out is, byte for byte, what went in.
An entry with an event that ends otherwise (the app's own ids, CRLF, a piece of a large event) is kept as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from .records import decode_events, encode_events

#: Before the list of events that were cut. No MessagePack begins with this byte.
_CUT = b"\xc1"


def id_line(stream: str) -> bytes:
    """How the last line of the stream's events begins: all but the number and the blank line."""
    return b"id: %b." % stream.encode()


def pack_events(line: bytes, first: int, events: Sequence[bytes | None]) -> bytes:
    """The events of one entry, the first of them number ``first``, of the stream whose ``id_line`` is ``line``."""
    cut: list[bytes | None] = []
    seq = first
    for event in events:  # the hot path of an append
        if event is None:
            cut.append(None)
        else:
            end = b"%b%d\n\n" % (line, seq)
            if not event.endswith(end):
                return encode_events(events)
            cut.append(event[: -len(end)])
        seq += 1
    return _CUT + encode_events(cut)


def unpack_events(stream: str, last: int, data: bytes) -> list[bytes | None]:
    """The events of one entry, the last of them number ``last``.

    :raises msgspec.MsgspecError: they are not.
    """
    if not data.startswith(_CUT):
        return decode_events(data)
    cut, line = decode_events(data[1:]), id_line(stream)
    return [
        None if event is None else b"%b%b%d\n\n" % (event, line, seq)
        for seq, event in enumerate(cut, last - len(cut) + 1)
    ]
