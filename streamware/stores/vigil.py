"""The thread of a worker that keeps its lease, and calls its loop to its rounds.

Rules:

1. The lease is renewed by real time, from this thread, so that an app that blocks the loop for some seconds is not
   taken for dead. A renewal that fails is tried again at the next beat.
2. Where more than ``lease`` seconds lie between two renewals that succeeded, the lease had lapsed: the loop is told,
   for this worker's logs may have been closed by others.
3. Each beat calls the loop at most once, however late the loop is.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable

from .timing import Timing


class Vigil:
    """``renew`` blocks; ``on_beat`` is called on the loop, with whether the lease has lapsed in between."""

    def __init__(self, renew: Callable[[], None], on_beat: Callable[[bool], None], timing: Timing) -> None:
        self._renew = renew
        self._on_beat = on_beat
        self._timing = timing
        self._loop = asyncio.get_running_loop()
        self._end = threading.Event()
        self._called = False  # the loop, and it has not come yet
        self._lapsed = False
        self._thread = threading.Thread(target=self._run, name="streamware-lease", daemon=True)

    def start(self) -> None:
        """Begin. The lease has just been taken."""
        self._thread.start()

    def end(self) -> None:
        """Renew no more. What is under way may still end after this."""
        self._end.set()

    def join(self, timeout: float) -> None:
        """Wait for the thread; blocks."""
        self._thread.join(timeout)

    def _run(self) -> None:
        timing = self._timing
        renewed = time.monotonic()
        while not self._end.wait(timing.beat):
            before = time.monotonic()
            if before - renewed >= timing.renewal - timing.beat / 2:
                with contextlib.suppress(Exception):  # what the matter is, the loop's own calls will find and say
                    self._renew()
                    self._lapsed = self._lapsed or before - renewed > timing.lease
                    renewed = before
            self._call_loop()

    def _call_loop(self) -> None:
        if not self._called:
            self._called = True
            try:
                self._loop.call_soon_threadsafe(self._beat)
            except RuntimeError:  # the loop has ended without us
                self._end.set()

    def _beat(self) -> None:
        self._called = False
        lapsed, self._lapsed = self._lapsed, False
        if not self._end.is_set():
            self._on_beat(lapsed)
