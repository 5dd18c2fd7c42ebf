"""What a running app may ask of its own stream: ``current_stream()``. No app has to."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Protocol


class Usage:
    """What the app says that its stream has used: LLM tokens, as a rule."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0

    def add(self, n: int) -> None:
        """Count ``n`` more.

        :raises ValueError: ``n`` is negative.
        """
        if n < 0:
            raise ValueError(f"usage only grows, got {n}")
        self.total += n


class Stoppable(Protocol):
    """What stands behind a current stream: its producer."""

    @property
    def cursor(self) -> str: ...

    def stop(self) -> None: ...


class CurrentStream:
    """The stream that the calling app is producing.

    ``linger``: seconds that the app goes on with no reader; assign to change it for this stream (0: stop at the next
    drop; None: never stop for lack of readers).
    """

    __slots__ = ("_producer", "_usage", "linger")

    def __init__(self, producer: Stoppable, linger: float | None) -> None:
        self._producer = producer
        self._usage: Usage | None = None
        self.linger = linger

    @property
    def usage(self) -> Usage:
        """What the app counts for metering."""
        if self._usage is None:
            self._usage = Usage()
        return self._usage

    @property
    def cursor(self) -> str:
        """The cursor of the newest event, or of the place before the first; "" while no log has been made (yet)."""
        return self._producer.cursor

    def stop(self) -> None:
        """End the stream as ``stopped`` after what has been sent so far; the app is cancelled."""
        self._producer.stop()


_current: ContextVar[CurrentStream | None] = ContextVar("streamware_current_stream", default=None)


def current_stream() -> CurrentStream | None:
    """The stream that the running code produces; None outside a request that may get a log, or that is metered."""
    return _current.get()


def set_current_stream(stream: CurrentStream) -> Token[CurrentStream | None]:
    """Make ``stream`` the current one of the calling context; what ``reset_current_stream`` undoes it by."""
    return _current.set(stream)


def reset_current_stream(token: Token[CurrentStream | None]) -> None:
    """Make the one before the current one again."""
    _current.reset(token)
