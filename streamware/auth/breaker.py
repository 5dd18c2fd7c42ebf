"""Limits on what unknown tokens may cost an authorization server.

``Breaker`` stops asking one that does not answer; ``FailureLimit`` stops asking for clients whose tokens turn out to be
worthless. Both are arithmetic on a clock that is handed in.
"""

from __future__ import annotations

from collections import OrderedDict


class Breaker:
    """Open after ``threshold`` failures in a row, for ``pause`` seconds; then one attempt decides."""

    __slots__ = ("_failures", "_open_until", "_pause", "_threshold", "_trying")

    def __init__(self, threshold: int, pause: float) -> None:
        self._threshold = threshold
        self._pause = pause
        self._failures = 0
        self._open_until = 0.0
        self._trying = False

    def wait(self, now: float) -> float:
        """Seconds to wait before an attempt may be made; 0: now, and its outcome has to be told."""
        if self._failures < self._threshold:
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        if self._trying:
            return self._pause
        self._trying = True
        return 0.0

    def succeeded(self) -> None:
        self._failures = 0
        self._trying = False

    def failed(self, now: float, pause: float | None = None) -> bool:
        """An attempt failed. ``pause``: the server asks for so many seconds of peace, whatever was before. True where
        this has opened the breaker."""
        self._trying = False
        was_closed = self._failures < self._threshold
        self._failures = self._threshold if pause is not None else self._failures + 1
        if self._failures < self._threshold:
            return False
        self._open_until = now + (self._pause if pause is None else pause)
        return was_closed

    def abandoned(self) -> None:
        """An attempt was given up, and says nothing."""
        self._trying = False


class FailureLimit:
    """A bucket of ``burst`` failures for each client, filled again over ``window`` seconds. At most ``capacity``
    clients are remembered, those that failed last."""

    __slots__ = ("_burst", "_capacity", "_clients", "_window")

    def __init__(self, burst: int, window: float, capacity: int = 10_000) -> None:
        self._burst = float(burst)
        self._window = window
        self._capacity = capacity
        # What is left of the bucket, and when it was.
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._clients)

    def wait(self, client: str, now: float) -> float:
        """Seconds until ``client`` may fail once more; 0: it may now."""
        left = self._left(client, now)
        return 0.0 if left >= 1.0 else (1.0 - left) * self._window / self._burst

    def failed(self, client: str, now: float) -> None:
        """Take one from the bucket of ``client``."""
        self._clients[client] = (max(0.0, self._left(client, now) - 1.0), now)
        self._clients.move_to_end(client)
        if len(self._clients) > self._capacity:
            self._clients.popitem(last=False)

    def _left(self, client: str, now: float) -> float:
        left, since = self._clients.get(client, (self._burst, now))
        return min(self._burst, left + (now - since) * self._burst / self._window)
