"""How a log lies in Redis: the names of keys and channels, and what is in them. Values in, bytes out.

    {stream}:log      the log, a Redis Stream. An entry has the id ``1-{last seq in it}`` and one field ``d``: a
                      MessagePack list of its events (``redis_events.py``). The end has the fixed id ``2-0``, and
                      fields for last seq and outcome. Redis refuses an id that is not above the last: the end is a
                      fence, nothing follows it.
    {stream}:meta     a hash: the head, the worker, the idempotency key; once ended, the outcome. It outlives the log,
                      as its tombstone.
    {stream}:new      channel: what was appended
    {worker}:lease    its worker is alive
    {worker}:open     set: the logs that the worker produces
    {worker}:stop     set: those of them that somebody asked to stop
    {worker}:inbox    channel: what other workers tell it
    workers           set: all that have or had a lease
    claim:{hash}      a hash: who holds an idempotency key
    board:{hash}      a string: what was left for one who takes it
    topic:{hash}      channel: what workers announce to all
    ended             list: the logs that have ended, oldest first, to keep them within a number

All begin with the store's prefix. The braces are for Redis Cluster, which keeps on one server what has the same text
within them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from .backend import Entry, Report
from .base import Outcome
from .redis_events import id_line, pack_events, unpack_events
from .redis_replies import Reply

#: Larger entries are announced without their events, and read by who wants them.
INLINE_BYTES = 16 * 1024

_encode = msgspec.msgpack.Encoder().encode


class HeldKey(NamedTuple):
    """The idempotency key of a stream that is produced here: its name in Redis, and what it was taken with."""

    name: bytes
    fingerprint: bytes


class Note(msgspec.Struct, array_like=True, frozen=True):
    """What one worker tells another: reports as (stream, readers, sent), and streams to stop."""

    worker: str
    reports: tuple[tuple[str, int, int], ...] = ()
    stops: tuple[str, ...] = ()


_decode_note = msgspec.msgpack.Decoder(Note).decode


@dataclass(frozen=True, slots=True)
class Top:
    """The end of a log as it is now; ``outcome``: None while it is open."""

    last: int
    outcome: Outcome | None = None
    unfinished: bool = False


class Keys:
    """The names of everything under one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.encode()
        self.workers = self._prefix + b"workers"
        self.ended = self._prefix + b"ended"
        self._news = b"}:new"

    def log(self, stream: str) -> bytes:
        return b"%b{%b}:log" % (self._prefix, stream.encode())

    def meta(self, stream: str) -> bytes:
        return b"%b{%b}:meta" % (self._prefix, stream.encode())

    def news(self, stream: str) -> bytes:
        return b"%b{%b}:new" % (self._prefix, stream.encode())

    def lease(self, worker: str) -> bytes:
        return b"%b{%b}:lease" % (self._prefix, worker.encode())

    def open(self, worker: str) -> bytes:
        return b"%b{%b}:open" % (self._prefix, worker.encode())

    def stop(self, worker: str) -> bytes:
        return b"%b{%b}:stop" % (self._prefix, worker.encode())

    def inbox(self, worker: str) -> bytes:
        return b"%b{%b}:inbox" % (self._prefix, worker.encode())

    def claim(self, key: str) -> bytes:
        # Hashed: a key is a client's text, of any length and with any braces.
        return b"%bclaim:%b" % (
            self._prefix,
            hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest().encode(),
        )

    def item(self, key: str) -> bytes:
        return b"%bboard:%b" % (self._prefix, key.encode())

    def topic(self, topic: str) -> bytes:
        return b"%btopic:%b" % (self._prefix, topic.encode())

    def stream_of(self, channel: bytes) -> str | None:
        """The stream whose channel it is; None where it is another's."""
        start = len(self._prefix) + 1
        return channel[start : -len(self._news)].decode() if channel.endswith(self._news) else None


# -- what is in them


def encode_note(note: Note) -> bytes:
    return _encode(note)


def decode_note(data: bytes) -> Note:
    return _decode_note(data)


def note_of(worker: str, reports: Sequence[Report]) -> bytes:
    return _encode(Note(worker, tuple((report.stream, report.readers, report.sent) for report in reports)))


def decode_entry(stream: str, reply: Reply) -> tuple[int, list[bytes | None]] | None:
    """One entry of a log as ``XRANGE`` gives it: its last seq and its events; None for the log's end."""
    match reply:
        case [bytes(entry), [b"d", bytes(events), *_]] if entry.startswith(b"1-"):
            last = int(entry[2:])
            return last, unpack_events(stream, last, events)
        case _:
            return None


def decode_top(reply: Reply) -> Top | None:
    """What the script ``TOP`` answers; None where there is no such log."""
    match reply:
        case [int(last)]:
            return Top(last)
        case [int(last), bytes(outcome), bytes(unfinished)]:
            return Top(last, Outcome(outcome.decode()), unfinished == b"1")
        case _:
            return None


# -- commands and messages of the hot path


class Packed:
    """The parts of one log's commands that are the same each time. ``publish``: the server's word for it."""

    __slots__ = ("_line", "_publish", "_trim", "_xadd")

    def __init__(self, keys: Keys, stream: str, publish: bytes) -> None:
        log, news = keys.log(stream), keys.news(stream)
        self._line = id_line(stream)
        self._xadd = b"*6\r\n$4\r\nXADD\r\n$%d\r\n%b\r\n$10\r\nNOMKSTREAM\r\n" % (len(log), log)
        self._publish = b"*3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(publish), publish, len(news), news)
        self._trim = b"*5\r\n$5\r\nXTRIM\r\n$%d\r\n%b\r\n$5\r\nMINID\r\n$1\r\n=\r\n" % (len(log), log)

    def append(self, first: int, events: Sequence[bytes | None], inline: int) -> bytes:
        """Store an entry, unless the log is gone or has ended; and tell who listens, with the events where they take
        no more than ``inline`` bytes."""
        data, last = pack_events(self._line, first, events), first + len(events) - 1
        seq, news = b"1-%d" % last, b"%d %b" % (last, data if len(data) <= inline else b"")
        return b"%b$%d\r\n%b\r\n$1\r\nd\r\n$%d\r\n%b\r\n%b$%d\r\n%b\r\n" % (
            *(self._xadd, len(seq), seq, len(data), data),
            *(self._publish, len(news), news),
        )

    def trim(self, first: int) -> bytes:
        """Let go of the entries that hold nothing from ``first`` on."""
        seq = b"1-%d" % first
        return b"%b$%d\r\n%b\r\n" % (self._trim, len(seq), seq)


def decode_news(stream: str, message: bytes) -> Entry:
    """What ``Packed.append`` told, or the script ``STEP``, which tells of a log's end as well.

    :raises ValueError: it is neither.
    """
    seq, _, events = message.partition(b" ")
    if not seq.isdigit():
        seq, _, ended = message.partition(b"!")
        return Entry(stream, int(seq) + 1, outcome=Outcome(ended[1:].decode()), unfinished=ended[:1] == b"1")
    last = int(seq)
    decoded = unpack_events(stream, last, events) if events else []
    return Entry(stream, last - len(decoded) + 1, decoded)
