"""Hears a signal before the server that handles it acts on it, and changes nothing else.

Rules:

1. Only by ``signal.signal`` on the main thread, and only where there is a handler to go on to: it is called each time,
   whatever we do. ``loop.add_signal_handler`` would take the server's place; a signal that nobody handles keeps its
   default.
2. One handler of ours a signal, however many listen. When nobody listens any more the old one is put back, if ours is
   still in its place.
3. A handler runs between two instructions of whatever the main thread does: all it does is to wake the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


class Chained:
    """Our handler of one signal, before ``old``."""

    __slots__ = ("listeners", "old", "signum")

    def __init__(self, signum: int, old: Handler) -> None:
        self.signum = signum
        self.old = old
        self.listeners: tuple[Listener, ...] = ()

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        for listener in self.listeners:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                listener.loop.call_soon_threadsafe(listener.callback)
        self.old(signum, frame)


class Listener:
    """Who listens to a signal: ``callback`` is called on the ``loop`` that ran when it was made."""

    __slots__ = ("_chained", "callback", "loop")

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.loop = asyncio.get_running_loop()
        self._chained: list[Chained] = []

    def listen(self, signum: int) -> bool:
        """Listen to ``signum``. False where it cannot be heard here."""
        if threading.current_thread() is not threading.main_thread():
            return False
        present = _present(signum)
        if isinstance(present, Chained):
            chained = present
        elif present is not None:
            chained = Chained(signum, present)
            signal.signal(signum, chained)
        else:
            return False
        chained.listeners = (*chained.listeners, self)
        self._chained.append(chained)
        return True

    def close(self) -> None:
        """Listen no more."""
        for chained in self._chained:
            chained.listeners = tuple(other for other in chained.listeners if other is not self)
            on_main = threading.current_thread() is threading.main_thread()
            if not chained.listeners and on_main and _present(chained.signum) is chained:
                signal.signal(chained.signum, chained.old)
        self._chained.clear()


def _present(signum: int) -> Chained | Handler | None:
    """Who handles ``signum`` in Python; None for nobody: the default, ignored, or a handler of other code's."""
    handler = signal.getsignal(signum)
    return handler if callable(handler) else None
