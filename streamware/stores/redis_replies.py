"""What a Redis server answers (RESP2), read from bytes as they come.

``hiredis`` reads it where it is installed; ``Replies`` is the same in Python, with the same two methods, for where it
is not. Both give an error reply as a ``ServerError`` among the other values: whoever asked decides what it means.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol, TypeAlias

from ..exceptions import StoreError

Reply: TypeAlias = "bytes | int | list[Reply] | ServerError | None"


class ServerError(StoreError):
    """An error reply. ``kind`` is its first word, ``OOM``, ``MOVED``, ``READONLY`` …; of an error within a script, the
    one that the server speaks of."""

    @property
    def kind(self) -> str:
        kind, _, detail = str(self).partition(" ")
        if kind != "ERR":
            return kind
        return next((within for within in _WITHIN if f"{within} " in detail), kind)

    @property
    def detail(self) -> str:
        """What follows the kind, up to where a script is spoken of."""
        return str(self).partition(f"{self.kind} ")[2].partition(" script:")[0]


_WITHIN = ("OOM", "READONLY", "MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN")


class NotEnough:
    """There is no whole reply yet."""


NOT_ENOUGH = NotEnough()


class ReplyReader(Protocol):
    """Takes bytes, gives replies."""

    def feed(self, data: bytes, /) -> None: ...

    def gets(self) -> Reply | NotEnough: ...


def reply_reader() -> ReplyReader:
    """A reader of replies, in C where there is one."""
    try:
        from hiredis import Reader
    except ImportError:
        return Replies()
    reader: ReplyReader = Reader(protocolError=ConnectionError, replyError=ServerError, notEnoughData=NOT_ENOUGH)
    return reader


class Replies:
    """Reads replies in Python. It goes on where it stopped for want of bytes: a long reply costs no more in pieces."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = 0
        self._reply: Generator[None, None, Reply] | None = None

    def feed(self, data: bytes, /) -> None:
        if self._at:
            del self._data[: self._at]
            self._at = 0
        self._data += data

    def gets(self) -> Reply | NotEnough:
        if self._reply is None:
            self._reply = self._read()
        try:
            next(self._reply)
        except StopIteration as end:
            self._reply = None
            reply: Reply = end.value
            return reply
        return NOT_ENOUGH

    def _read(self) -> Generator[None, None, Reply]:
        while (end := self._data.find(b"\r\n", self._at)) < 0:
            yield
        kind, text = bytes(self._data[self._at : self._at + 1]), bytes(self._data[self._at + 1 : end])
        self._at = end + 2
        if kind == b"+":
            return text
        if kind == b"-":
            return ServerError(text.decode("utf-8", "replace"))
        if kind == b":":
            return int(text)
        length = int(text) if kind in (b"$", b"*") else None
        if length is None:
            raise ConnectionError(f"not a reply of a Redis server: {kind!r}")
        if length < 0:
            return None
        if kind == b"*":
            replies: list[Reply] = []
            for _ in range(length):
                reply: Reply = yield from self._read()
                replies.append(reply)
            return replies
        while len(self._data) < self._at + length + 2:
            yield
        value = bytes(self._data[self._at : self._at + length])
        self._at += length + 2
        return value
