"""The leases that this worker holds: renewed by one timer for all of them, given back without anybody's waiting.

Rules:

1. A lease belongs to what runs, not to who asked for it: it is renewed until it is given back, and nothing is ended
   because it could not be.
2. Giving back never waits: whoever does it may be cancelled, together with hundreds of others. One task tells the
   storage of all that were given back meanwhile, in one step.
3. What the storage did not hear of lapses there: it is renewed no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ..observe import Observer
from ..types import Clock, TimerHandle
from .base import Lease
from .guard import Guard

#: How long ``aclose`` waits for what is to be told.
FAREWELL = 1.0


class Leases:
    """Of one middleware. ``on_freed``: called with the key of each that is given back. ``seconds``: what each lives
    for unless renewed; a third of it lies between two renewals."""

    def __init__(self, guard: Guard, *, seconds: float, clock: Clock, observer: Observer) -> None:
        self._guard = guard
        self._every = seconds / 3
        self._clock = clock
        self._observer = observer
        self._held: dict[str, tuple[str, Lease]] = {}
        self._freed: list[tuple[str, Lease]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()  # a renewal on its way must not bring back what is given back meanwhile
        self._telling = False
        self._timer: TimerHandle | None = None
        self.on_freed: Callable[[str], object] | None = None

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, key: str, lease: Lease) -> None:
        """It was taken: renew it until it is given back."""
        self._held[lease.member] = (key, lease)
        if self._timer is None:
            self._timer = self._clock.call_later(self._every, self._due)

    def give_back(self, key: str, lease: Lease) -> None:
        """What it stands for has ended. Harmless twice."""
        if self._held.pop(lease.member, None) is None:
            return
        if not self._held and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._guard.free(key, lease):
            self._freed.append((key, lease))
            if not self._telling:
                self._telling = True
                self._spawn(self._tell())
        if self.on_freed is not None:
            self.on_freed(key)

    def give_up(self, key: str, lease: Lease) -> None:
        """It may have been taken or not: whoever asked for it did not wait for the answer, or got none."""
        self._held[lease.member] = (key, lease)
        self.give_back(key, lease)

    async def aclose(self) -> None:
        """Tell the storage what it has not heard of yet, and renew no more."""
        for key, lease in list(self._held.values()):
            self.give_back(key, lease)
        if self._telling:
            await asyncio.wait(self._tasks, timeout=FAREWELL)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- within

    def _due(self) -> None:
        self._timer = self._clock.call_later(self._every, self._due)
        self._spawn(self._renew())

    async def _renew(self) -> None:
        async with self._turn:
            lapsed = await self._guard.renew(list(self._held.values()))
        if lapsed:
            self._observer.count("throttle.lapsed", value=lapsed)

    async def _tell(self) -> None:
        try:
            while self._freed:
                async with self._turn:
                    freed, self._freed = self._freed, []
                    await self._guard.release(freed)
        finally:
            self._telling = False

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
