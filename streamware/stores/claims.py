"""Idempotency keys of a shared store: taken in the store, waited for here.

A duplicate is rare and waits for ten seconds at most, so it asks the store again and again, ever less often; what this
worker itself settles or frees wakes it at once.
"""

from __future__ import annotations

import asyncio
from functools import partial

from ..types import Clock
from .backend import Backend
from .base import Claim
from .trouble import Trouble
from .waiters import release

FIRST_PAUSE = 0.05
MAX_PAUSE = 0.4


class Claims:
    """The keys that requests of this worker take and wait for."""

    __slots__ = ("_backend", "_clock", "_reads", "_waiting", "_writes")

    def __init__(self, backend: Backend, reads: Trouble, writes: Trouble, clock: Clock) -> None:
        self._backend = backend
        self._reads = reads
        self._writes = writes
        self._clock = clock
        self._waiting: set[asyncio.Future[None]] = set()

    async def claim(self, key: str, fingerprint: bytes, stream: str) -> Claim:
        """As ``Store.claim``."""
        return await self._writes.call(self._backend.claim, key, fingerprint, stream)

    async def settle(self, key: str, stream: str, started: bool) -> None:
        """As ``Store.settle``."""
        try:
            await self._writes.call(self._backend.settle, key, stream, started)
        finally:
            self.wake()

    async def settled(self, key: str, timeout: float) -> Claim | None:
        """As ``Store.settled``."""
        deadline = self._clock.now() + timeout
        pause = FIRST_PAUSE
        while True:
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(woken)  # before it is asked for, so that what happens meanwhile wakes us
            try:
                claim = await self._reads.call(self._backend.claimed, key)
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

    def wake(self) -> None:
        """Some key was settled or freed here."""
        for woken in self._waiting:
            release(woken)
