"""What the responses of one ``CompressionMiddleware`` share: its options, the threads for what is large, and the rest
of encoders whose stream is silent.

1. What takes long is encoded off the loop, by at most ``THREADS`` threads a middleware; what waits for one is a message
   that the app holds already.
2. Encoders of gzip streams are looked at in turn, by one timer a worker and none a connection. One that had nothing to
   do since the last look drops its compressor: a silent stream costs some hundred bytes. The timer runs only while
   there is a compressor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..observe import Observer
from ..types import Clock, TimerHandle
from ..wire import negotiation
from ..wire.codecs import GzipStream
from .options import ByPath

THREADS = 2
#: A client's ``Accept-Encoding`` is one of a few; so many are remembered, if no longer than this.
KNOWN, KNOWN_LENGTH = 256, 256


class OffLoop:
    """Threads to encode in, made when first needed."""

    __slots__ = ("_threads",)

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    async def run(self, call: Callable[[bytes], bytes], data: bytes) -> bytes:
        """``call(data)``, in a thread; here, where no loop of asyncio's runs."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return call(data)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, "streamware encoder")
        return await loop.run_in_executor(self._threads, call, data)

    def close(self) -> None:
        """Let the threads end; another ``run`` makes new ones."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)


class Rest:
    """Puts to rest the encoders of streams that were silent for ``after`` to twice ``after`` seconds."""

    __slots__ = ("_after", "_clock", "_loop", "_timer", "awake")

    def __init__(self, clock: Clock, after: float) -> None:
        self._clock = clock
        self._after = after
        self._timer: TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        #: The encoders that have a compressor, and what each had taken last, at the last look.
        self.awake: dict[GzipStream, bytes | None] = {}

    def add(self, encoder: GzipStream) -> None:
        """It has made a compressor."""
        self.awake[encoder] = None
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # on trio: nobody is put to rest there
            return
        if self._timer is None or self._loop is not loop:
            self._loop = loop
            self._timer = self._clock.call_later(self._after, self._look)

    def discard(self, encoder: GzipStream) -> None:
        """Its stream has ended, or it must not be touched for now."""
        self.awake.pop(encoder, None)

    def close(self) -> None:
        """Look no more, until another one wakes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        awake = self.awake
        for encoder, seen in list(awake.items()):
            if encoder.last is seen:
                encoder.rest()
                del awake[encoder]
            else:
                awake[encoder] = encoder.last
        if awake:
            self._timer = self._clock.call_later(self._after, self._look)


@dataclass(slots=True)
class CodingOptions:
    """See ``CompressionMiddleware`` for what each means. ``rest``: None where streams keep their compressor."""

    body_codings: tuple[str, ...]
    live_codings: tuple[str, ...]
    minimum_size: int
    live: ByPath[bool]
    window: int
    padding: int
    media_types: frozenset[bytes]
    thread_size: float
    rest: Rest | None
    off_loop: OffLoop
    observer: Observer
    known: dict[bytes | None, tuple[str | None, str | None]]

    def chosen(self, accept_encoding: bytes | None) -> tuple[str | None, str | None]:
        """The codings for a body and for a stream."""
        pair = self.known.get(accept_encoding)
        if pair is None:
            pair = (
                negotiation.choose_coding(accept_encoding, self.body_codings),
                negotiation.choose_coding(accept_encoding, self.live_codings),
            )
            if len(self.known) < KNOWN and (accept_encoding is None or len(accept_encoding) <= KNOWN_LENGTH):
                self.known[accept_encoding] = pair
        return pair
