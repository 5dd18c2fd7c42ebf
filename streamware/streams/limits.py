"""The two limits on how long an app may stream: without an event, and in all. One timer each, none per event."""

from __future__ import annotations

from collections.abc import Callable

from ..types import TimerHandle
from .options import Options

#: A stall is so many looks in a row that see no new event: it is found within a quarter over ``stall_timeout``.
LOOKS = 4


class Limits:
    """``progress`` tells the newest event's number, or None while the app cannot be blamed for silence; ``overdue`` is
    called with the name of the limit that was reached."""

    __slots__ = ("_expires", "_look", "_options", "_overdue", "_progress", "_quiet", "_seen")

    def __init__(self, options: Options, progress: Callable[[], int | None], overdue: Callable[[str], None]) -> None:
        self._options = options
        self._progress = progress
        self._overdue = overdue
        self._expires: TimerHandle | None = None
        self._look: TimerHandle | None = None
        self._seen: int | None = None
        self._quiet = 0

    def arm(self) -> None:
        """The stream begins."""
        duration = self._options.max_duration
        if duration is not None:
            self._expires = self._options.clock.call_later(duration, lambda: self._overdue("max_duration"))
        self._look_later()

    def cancel(self) -> None:
        """The stream has ended."""
        for timer in (self._expires, self._look):
            if timer is not None:
                timer.cancel()

    def _look_later(self) -> None:
        timeout = self._options.stall_timeout
        if timeout is not None:
            self._look = self._options.clock.call_later(timeout / LOOKS, self._check)

    def _check(self) -> None:
        now = self._progress()
        self._quiet = self._quiet + 1 if now is not None and now == self._seen else 0
        self._seen = now
        if self._quiet >= LOOKS:
            self._overdue("stall_timeout")
        else:
            self._look_later()
