"""Idempotency keys of a shared store: taken in the store, waited for here.

Rules:

1. A duplicate is rare and waits for ten seconds at most, so it asks the store again and again, ever less often; what
   this worker itself settles or frees wakes it at once.
2. What the store was not heard to have done is owed to it: a claim that nobody heard the answer to is given back, for
   nothing was started for it, and a settling is said again, until the store has taken it. Otherwise every request with
   that key would be told to wait, for as long as this worker lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial

from ..types import Clock
from .backend import Backend
from .base import Claim
from .trouble import Trouble
from .waiters import release

FIRST_PAUSE = 0.05
MAX_PAUSE = 0.4
#: So many are owed at most, and paid at once; what is over it stays as it is for as long as this worker lives.
MAX_OWED = 10_000
AT_ONCE = 100


class Claims:
    """The keys that requests of this worker take and wait for."""

    __slots__ = ("_backend", "_clock", "_owed", "_reads", "_waiting", "_writes")

    def __init__(self, backend: Backend, reads: Trouble, writes: Trouble, clock: Clock) -> None:
        self._backend = backend
        self._reads = reads
        self._writes = writes
        self._clock = clock
        self._waiting: set[asyncio.Future[None]] = set()
        self._owed: dict[tuple[str, str], bool] = {}  # by key and stream: whether that has started

    async def claim(self, key: str, fingerprint: bytes, stream: str) -> Claim:
        """As ``Store.claim``."""
        asked = False

        def ask() -> Awaitable[Claim]:
            nonlocal asked
            asked = True
            return self._backend.claim(key, fingerprint, stream)

        try:
            return await self._writes.call(ask)
        except BaseException:
            if asked:
                self._owe(key, stream, False)
            raise

    async def held(self, key: str) -> Claim | None:
        """Who holds ``key``; None where it is free.

        :raises StoreUnavailable: the store is away.
        """
        return await self._reads.call(self._backend.claimed, key)

    async def settle(self, key: str, stream: str, started: bool) -> None:
        """As ``Store.settle``."""
        try:
            await self._writes.call(self._backend.settle, key, stream, started)
        except BaseException:
            self._owe(key, stream, started)
            raise
        finally:
            self.wake()

    async def pay(self) -> None:
        """Say again some of what the store was not heard to have done.

        :raises StoreUnavailable: it is away.
        """
        for (key, stream), started in list(self._owed.items())[:AT_ONCE]:
            await self._writes.call(self._backend.settle, key, stream, started)
            self._owed.pop((key, stream), None)
            self.wake()

    async def settled(self, key: str, timeout: float) -> Claim | None:
        """As ``Store.settled``."""
        deadline = self._clock.now() + timeout
        pause = FIRST_PAUSE
        while True:
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(woken)  # before it is asked for, so that what happens meanwhile wakes us
            try:
                claim = await self.held(key)
                left = deadline - self._clock.now()
                if claim is None or not claim.pending or left <= 0:
                    return claim
                timer = self._clock.call_later(min(pause, left), partial(release, woken))
                try:
                    await woken
                finally:
                    timer.cancel()
            finally:
                self._waiting.discard(woken)
            pause = min(2 * pause, MAX_PAUSE)

    def _owe(self, key: str, stream: str, started: bool) -> None:
        if len(self._owed) < MAX_OWED:
            self._owed[key, stream] = started

    def wake(self) -> None:
        """Some key was settled or freed here."""
        for woken in self._waiting:
            release(woken)
