"""What operators get to see: counters with reasons.

Every refusal, resume, gap and degradation is counted once, where it is decided. Names are ``component.what``
(``resume.replayed``), reasons are short fixed words; neither ever carries a user's data, so both can be metric labels.
"""

from __future__ import annotations

import logging
from typing import Protocol


class Observer(Protocol):
    """Receives the counters. Called on the event loop: an implementation must not block or raise."""

    def count(self, name: str, *, reason: str = "", value: int = 1) -> None:
        """Add ``value`` to the counter ``name`` under ``reason``."""


class NullObserver:
    """The default: counts nothing."""

    __slots__ = ()

    def count(self, name: str, *, reason: str = "", value: int = 1) -> None:
        return None


class CountingObserver:
    """Keeps the counters in ``counts``, keyed by (name, reason): for tests, debug pages and small services."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}

    def count(self, name: str, *, reason: str = "", value: int = 1) -> None:
        self.counts[name, reason] = self.counts.get((name, reason), 0) + value

    def total(self, name: str) -> int:
        """The sum over all reasons of ``name``."""
        return sum(n for (counted, _), n in self.counts.items() if counted == name)


class OnceLog:
    """Logs a remedy once per key, and remembers at most ``capacity`` keys: advice must not become a flood."""

    __slots__ = ("_capacity", "_logger", "_seen")

    def __init__(self, logger: logging.Logger, capacity: int = 256) -> None:
        self._logger = logger
        self._capacity = capacity
        self._seen: set[str] = set()

    def warning(self, key: str, message: str, *args: object) -> None:
        """Log ``message % args`` unless ``key`` was logged before or the capacity is used up."""
        if key not in self._seen and len(self._seen) < self._capacity:
            self._seen.add(key)
            self._logger.warning(message, *args)
