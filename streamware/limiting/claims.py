"""What a reservation holds in one storage: taken in parts, as they are wanted, and settled once.

Rules:

1. Settling says what was used in all. What was taken too much goes back into the windows that it was taken in, newest
   first; what is missing is charged to the newest, whether it fits or not.
2. Settled twice is settled once. An answer that was lost is found out by settling: Redis keeps a record of what was
   taken (``redis_reservation_scripts.py``). Storages that are somebody's own keep none, so that what was lost there
   stays taken to the end of its window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..stores.redis_asking import Command
from ..stores.redis_scripts import Script
from .base import Limit, LimitStorage, Taken
from .redis import RedisLimitStorage, numbers_of, standings_of, words_of
from .redis_reservation_scripts import EXTEND, RESERVE, SETTLE

#: How long a record is kept beyond its last change, in ms: longer than a stream is silent, or a settling put off.
RECORD_LIFE = 4 * 3_600_000
#: How long it is remembered that something was settled, in ms: longer than a command may be on its way.
SETTLED_LIFE = 60_000


class Claim(Protocol):
    """``granted``: what is known to have been taken."""

    granted: int

    async def reserve(self, cost: int, *, force: bool) -> Taken:
        """Take ``cost`` from every limit, or nothing. ``force``: the claim holds even then, and can be charged."""
        ...

    async def extend(self, most: int, *, share: int) -> Taken:
        """Take up to ``most`` more, and no more than a ``share``-th of what is left."""
        ...

    async def settle(self, used: int) -> None:
        """Charge what was used in the place of what was taken. To be tried again with the same number where it raises.

        :raises StoreUnavailable: the storage did not answer.
        """
        ...


def claim_of(storage: LimitStorage, key: str, limits: Sequence[Limit], name: str) -> Claim:
    """A new claim, called ``name``, unique, in ``storage``."""
    if isinstance(storage, RedisLimitStorage):
        return RedisClaim(storage, key, limits, name)
    return PlainClaim(storage, key, limits, name)


class PlainClaim:
    """In memory, or in a storage of somebody's own."""

    __slots__ = ("_corrections", "_key", "_limits", "_name", "_parts", "_storage", "granted")

    def __init__(self, storage: LimitStorage, key: str, limits: Sequence[Limit], name: str) -> None:
        self._storage = storage
        self._key = key
        self._limits = limits
        self._name = name
        self._parts: list[tuple[list[int], int]] = []
        self._corrections: list[tuple[list[int], int]] | None = None
        self.granted = 0

    @property
    def shared(self) -> bool:
        """Whether it is in a storage that may be away."""
        return self._storage.shared

    async def reserve(self, cost: int, *, force: bool) -> Taken:
        taken = await self._storage.take(self._key, self._limits, (cost,) * len(self._limits))
        if taken.allowed or force:
            self._note(taken, cost if taken.allowed else 0)
        return taken

    async def extend(self, most: int, *, share: int) -> Taken:
        taken = await self._storage.take_part(self._key, self._limits, most, share=share)
        self._note(taken, taken.granted)
        return taken

    async def settle(self, used: int) -> None:
        if self._corrections is None:
            self._corrections = self._corrected(used)
        number = len(self._corrections)
        while self._corrections:
            windows, amount = self._corrections[-1]
            amounts = (amount,) * len(self._limits)
            await self._storage.add(self._key, self._limits, amounts, windows, once=f"{self._name}.{number}")
            self._corrections.pop()
            number -= 1

    def _note(self, taken: Taken, amount: int) -> None:
        windows = taken.windows
        self.granted += amount
        if self._parts and self._parts[-1][0] == windows:
            amount += self._parts.pop()[1]
        self._parts.append((windows, amount))

    def _corrected(self, used: int) -> list[tuple[list[int], int]]:
        more = used - self.granted
        if not self._parts or not more:
            return []
        if more > 0:
            return [(self._parts[-1][0], more)]
        corrections: list[tuple[list[int], int]] = []
        for windows, amount in reversed(self._parts):
            back = min(amount, -more)
            if back:
                corrections.append((windows, -back))
                more += back
        return corrections


class RedisClaim:
    """In Redis."""

    __slots__ = ("_keys", "_limits", "_storage", "granted")

    def __init__(self, storage: RedisLimitStorage, key: str, limits: Sequence[Limit], name: str) -> None:
        self._storage = storage
        self._limits = limits
        tag = storage._tag(key)
        places = (*(limit.place for limit in limits), f"reservation/{name}")
        self._keys = tuple([storage._place(tag, place) for place in places])
        self.granted = 0

    async def reserve(self, cost: int, *, force: bool) -> Taken:
        numbers = await self._run(RESERVE, b"1" if force else b"0", b"%d" % RECORD_LIFE, b"", cost=cost)
        allowed = numbers[0] == 1
        if allowed:
            self.granted += cost
        return Taken(allowed, standings_of(self._limits, (cost,) * len(self._limits), numbers, allowed))

    async def extend(self, most: int, *, share: int) -> Taken:
        numbers = await self._run(EXTEND, b"%d" % most, b"%d" % RECORD_LIFE, b"%d" % share)
        granted = numbers[0]
        self.granted += granted
        costs = (granted or 1,) * len(self._limits)
        return Taken(granted > 0, standings_of(self._limits, costs, numbers, granted > 0), granted)

    async def settle(self, used: int) -> None:
        await self._run(SETTLE, b"%d" % used, b"%d" % SETTLED_LIFE, b"")

    async def _run(self, script: Script, *own: bytes, cost: int = 0) -> list[int]:
        words = [b"%d" % len(self._limits), *own]
        for limit in self._limits:
            words += words_of(limit, cost)
        return numbers_of(await self._storage._ask(Command(self._keys[0], script.call(self._keys, *words))))
