"""Encoders of content codings, behind one small protocol: data in, coded bytes out.

1. What ``flush`` returned, after all before it, decodes to all that was given: no decoder waits for more.
2. An encoder is made for one response and dropped with it. There is nothing to close.
3. Streams and bodies have profiles of their own (measured: ``docs/middleware/compression.md``): a stream holds its
   encoder for as long as it lives, a body for a moment. No library's defaults are used for a stream, where zstd would
   hold 0.9 MB and more. brotli has no profile for streams: it takes half a megabyte each, and is no better.
4. Of what is optional nothing is imported before it is used.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, cast

from .negotiation import BROTLI, GZIP, ZSTD

#: By coding: the module that has it, and the extra that installs it.
_ZSTD_MODULE = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
_MODULES = {GZIP: ("zlib", ""), BROTLI: ("brotli", "brotli"), ZSTD: (_ZSTD_MODULE, "zstd")}

#: All that is known, in the order of preference between codings that the client likes as well.
BODY_CODINGS = (ZSTD, BROTLI, GZIP)
LIVE_CODINGS = (GZIP, ZSTD)

BODY_LEVEL = 6
#: In a small window the chains that are searched are short: 8 costs hardly more than 6, and no more is to be found.
STREAM_LEVEL = 8
#: log2 of the window of a gzip stream, and zlib's memLevel for it, which makes no difference to what is flushed soon. 9
#: cannot see the event before: a window of 512 bytes, less zlib's look-ahead of 262.
MEMORY_LEVELS = {10: 2, 11: 3, 12: 4, 13: 4, 14: 6, 15: 8}
WINDOW = 12

#: What a gzip stream at rest keeps of what it has sent, for its next encoder to refer to.
HISTORY = 2048
#: What a gzip stream at rest sends without an encoder: heartbeats.
TRIFLE = 64

_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # RFC 1952 §2.3: deflate, no name, no time, unknown system
_EMPTY_BLOCK = b"\0\0\0\xff\xff"  # RFC 1951 §3.2.4: stored, of no bytes
_LAST_BLOCK = b"\x03\0"  # §3.2.6: final, fixed codes, and its end
_SYNC, _FINISH = zlib.Z_SYNC_FLUSH, zlib.Z_FINISH


class Encoder(Protocol):
    """One response's. ``filler``: bytes that may follow what ``flush`` returned, any number of times, and decode to
    nothing. ``data`` is never empty but in ``finish``."""

    filler: bytes

    def encode(self, data: bytes) -> bytes:
        """Take ``data``; what is ready, which may be nothing."""
        ...

    def flush(self, data: bytes) -> bytes:
        """Take ``data``; all that it takes to decode everything so far."""
        ...

    def finish(self, data: bytes) -> bytes:
        """Take ``data``, the last; all the rest. The encoder is of no use afterwards."""
        ...


class GzipBody:
    """gzip with zlib's full window."""

    __slots__ = ("_deflate",)
    filler = _EMPTY_BLOCK

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(BODY_LEVEL, zlib.DEFLATED, 31)

    def encode(self, data: bytes) -> bytes:
        return self._deflate.compress(data)

    def flush(self, data: bytes) -> bytes:
        return self._deflate.compress(data) + self._deflate.flush(_SYNC)

    def finish(self, data: bytes) -> bytes:
        return self._deflate.compress(data) + self._deflate.flush(_FINISH)


class GzipStream:
    """gzip for a stream that is flushed at each event, and that may be silent for long.

    Its compressor can be dropped between two events (``rest``). Another one goes on in the same member, which decoders
    do not notice: its deflate is raw, it is primed with what was sent last, and the member's check is carried on here.
    Some clients stop at the end of a first member, so there is never a second.

    Flushes are sync flushes, whose empty stored block is what some decoders (Go's) take for the word to hand out what
    they have; a partial flush would save a fifth more and leave these waiting.

    ``last``: the bytes taken last. ``on_wake`` is called with the encoder whenever it makes a compressor.
    """

    __slots__ = ("_check", "_compress", "_flush", "_on_wake", "_raw", "_total", "_window", "last")
    filler = _EMPTY_BLOCK
    _flush: Callable[[int], bytes]  # as long as there is a ``_compress``

    def __init__(self, window: int = WINDOW, on_wake: Callable[[GzipStream], None] | None = None) -> None:
        self._window = window
        self._on_wake = on_wake
        self._compress: Callable[[bytes], bytes] | None = None
        self._raw = False  # not the first compressor, whose head and check zlib itself makes
        self._check = self._total = 0  # of all that was taken, where ``_raw``
        self.last = b""

    @property
    def resting(self) -> bool:
        """There is no compressor now."""
        return self._compress is None

    def encode(self, data: bytes) -> bytes:
        return self.flush(data)

    def flush(self, data: bytes) -> bytes:
        """The hot path."""
        compress = self._compress
        if compress is None:
            return self._resume(data)
        if self._raw:
            self._count(data)
        self.last = data
        return compress(data) + self._flush(_SYNC)

    def finish(self, data: bytes) -> bytes:
        if not self._raw:
            self.wake()
        coded = self.flush(data) if data else b""
        if self._compress is None:
            coded += _LAST_BLOCK
        else:
            coded += self._flush(_FINISH)
        self._compress = None
        return coded + self._trailer() if self._raw else coded

    def rest(self) -> None:
        """Drop the compressor. To be called behind a flush only, as all is here."""
        if self._compress is None:
            return
        if not self._raw:
            end = self._flush(_FINISH)  # which nobody gets: it ends with the check so far
            self._check, self._total = int.from_bytes(end[-8:-4], "little"), int.from_bytes(end[-4:], "little")
            self._raw = bool(self.last)  # else it has sent nothing, not even the head
        self._compress = None
        del self._flush
        self.last = self.last[-HISTORY:]

    def forget(self) -> None:
        """What was returned last may not have been sent: refer to nothing before."""
        self.rest()
        self.last = b""

    def wake(self) -> None:
        """Make a compressor, unless there is one."""
        if self._compress is not None:
            return
        window, memory = self._window, MEMORY_LEVELS[self._window]
        if not self._raw:
            made = zlib.compressobj(STREAM_LEVEL, zlib.DEFLATED, 16 + window, memory)
        elif self.last:
            made = zlib.compressobj(
                STREAM_LEVEL, zlib.DEFLATED, -window, memory, zlib.Z_DEFAULT_STRATEGY, self.last[-HISTORY:]
            )
        else:
            made = zlib.compressobj(STREAM_LEVEL, zlib.DEFLATED, -window, memory)
        self._compress, self._flush = made.compress, made.flush
        if self._on_wake is not None:
            self._on_wake(self)

    def _resume(self, data: bytes) -> bytes:
        """``flush``, without a compressor."""
        if len(data) > TRIFLE:
            self.wake()
            return self.flush(data)
        opening = b"" if self._raw else _HEADER
        self._raw = True
        self._count(data)
        self.last = (self.last + data)[-HISTORY:]
        # A stored block (§3.2.4). A flush or the head has gone before, so it begins at a byte.
        length = len(data).to_bytes(2, "little"), (len(data) ^ 0xFFFF).to_bytes(2, "little")
        return b"%b\0%b%b%b%b" % (opening, *length, data, _EMPTY_BLOCK)

    def _count(self, data: bytes) -> None:
        self._check = zlib.crc32(data, self._check)
        self._total = (self._total + len(data)) & 0xFFFFFFFF

    def _trailer(self) -> bytes:
        return self._check.to_bytes(4, "little") + self._total.to_bytes(4, "little")


class _BrotliCompressor(Protocol):
    def process(self, data: bytes) -> bytes: ...
    def flush(self) -> bytes: ...
    def finish(self) -> bytes: ...


class _Brotli(Protocol):
    def Compressor(self, *, quality: int, lgwin: int) -> _BrotliCompressor: ...  # noqa: N802  its own name


class BrotliBody:
    """brotli at a quality that keeps up with a server, and a window that covers most pages."""

    __slots__ = ("_compressor",)
    filler = b"\x06"  # RFC 7932 §9.2: an empty block of metadata

    def __init__(self) -> None:
        brotli = cast("_Brotli", import_module("brotli"))
        self._compressor = brotli.Compressor(quality=5, lgwin=19)

    def encode(self, data: bytes) -> bytes:
        return self._compressor.process(data)

    def flush(self, data: bytes) -> bytes:
        return self._compressor.process(data) + self._compressor.flush()

    def finish(self, data: bytes) -> bytes:
        return self._compressor.process(data) + self._compressor.finish()


class _ZstdCompressor(Protocol):
    def compress(self, data: bytes, mode: int) -> bytes: ...


class Zstd:
    """zstd, as Python 3.14 has it and its backport before."""

    __slots__ = ("_compress",)
    filler = b"\0\0\0"  # RFC 8878 §3.1.1.2: a raw block, of no bytes, not the last

    def __init__(self, options: dict[str, int]) -> None:
        zstd: Any = import_module(_ZSTD_MODULE)  # Any: which module it is, depends on the interpreter
        parameter = zstd.CompressionParameter
        made = zstd.ZstdCompressor(options={getattr(parameter, name): value for name, value in options.items()})
        self._compress = cast("_ZstdCompressor", made).compress

    def encode(self, data: bytes) -> bytes:
        return self._compress(data, 0)

    def flush(self, data: bytes) -> bytes:
        return self._compress(data, 1)

    def finish(self, data: bytes) -> bytes:
        return self._compress(data, 2)


#: window_log: RFC 9659 allows 23 at most. Small tables are what keeps a stream at 80 KB.
_ZSTD_BODY = {"compression_level": 3, "window_log": 21}
_ZSTD_STREAM = {"compression_level": 1, "window_log": 14, "hash_log": 12, "chain_log": 10}


@cache
def installed(coding: str) -> bool:
    """Whether ``coding`` can be had here. Imports nothing of it."""
    try:
        return find_spec(_MODULES[coding][0]) is not None
    except ModuleNotFoundError:  # not even its parent
        return False


def extra_of(coding: str) -> str:
    """The extra of the distribution that installs ``coding``."""
    return _MODULES[coding][1]


def body_encoder(coding: str) -> Encoder:
    """A new encoder for a body, which is not flushed before its end.

    :raises ImportError: the coding is not installed.
    """
    if coding == GZIP:
        return GzipBody()
    return BrotliBody() if coding == BROTLI else Zstd(_ZSTD_BODY)


def stream_encoder(coding: str, window: int = WINDOW, on_wake: Callable[[GzipStream], None] | None = None) -> Encoder:
    """A new encoder for a stream, which is flushed at each event. The options are gzip's.

    :raises ImportError: the coding is not installed.
    """
    return GzipStream(window, on_wake) if coding == GZIP else Zstd(_ZSTD_STREAM)
