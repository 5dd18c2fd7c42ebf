"""The items that a ``MemoryStore`` holds for who may take them.

Items expire in the order of a heap, whose entries outlive what was taken; it is made anew when those are the most of
it, so that every call costs little whatever there is.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from ..exceptions import StoreFull
from .board import BOARD_BYTES, ITEM_BYTES, check_item

SMALL = 64


@dataclass(slots=True, eq=False)
class _Item:
    value: bytes
    expires: float


class MemoryBoard:
    """``now``: the store's clock."""

    __slots__ = ("_bytes", "_expiries", "_items", "_now", "_number")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._items: dict[str, _Item] = {}
        self._expiries: list[tuple[float, int, str, _Item]] = []
        self._number = 0  # orders what expires at once
        self._bytes = 0

    def __len__(self) -> int:
        """How many items are held."""
        return len(self._items)

    def put(self, key: str, value: bytes, ttl: float) -> None:
        """As ``Board.put``."""
        check_item(value, ttl)
        now = self._now()
        self._expire(now)
        held = self._items.get(key)
        more = _size(key, value) - (0 if held is None else _size(key, held.value))
        if self._bytes + more > BOARD_BYTES:
            raise StoreFull(f"MemoryStore holds {self._bytes} bytes that nobody has taken")
        item = self._items[key] = _Item(value, now + ttl)
        self._bytes += more
        self._number += 1
        heapq.heappush(self._expiries, (item.expires, self._number, key, item))

    def take(self, key: str) -> bytes | None:
        """As ``Board.take``."""
        self._expire(self._now())
        item = self._items.get(key)
        if item is None:
            return None
        self._drop(key, item)
        if len(self._expiries) > SMALL + 2 * len(self._items):
            self._expiries = [entry for entry in self._expiries if self._items.get(entry[2]) is entry[3]]
            heapq.heapify(self._expiries)
        return item.value

    def clear(self) -> None:
        """Let go of everything."""
        self._items.clear()
        self._expiries.clear()
        self._bytes = 0

    def _expire(self, now: float) -> None:
        expiries = self._expiries
        while expiries and expiries[0][0] <= now:
            _, _, key, item = heapq.heappop(expiries)
            if self._items.get(key) is item:
                self._drop(key, item)

    def _drop(self, key: str, item: _Item) -> None:
        del self._items[key]
        self._bytes -= _size(key, item.value)


def _size(key: str, value: bytes) -> int:
    return ITEM_BYTES + len(key) + len(value)
