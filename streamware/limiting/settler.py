"""Settling what streams have used, after them: nobody waits for it, and nobody's end can prevent it.

Rules:

1. Handing over is one call that neither waits nor fails, for whoever does it may be cancelled, with hundreds of others,
   twice. The work is a task's of the worker's own, one for all.
2. What the storage did not answer to is tried again with the same words, until it is ``MAX_AGE`` old: a claim counts
   once, however often it is settled.
3. No more than ``MAX_PENDING`` wait. Over it the oldest is given up: it stays charged as it was reserved.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from ..exceptions import StoreUnavailable
from ..observe import Observer
from ..types import Clock, TimerHandle
from .claims import Claim

logger = logging.getLogger("streamware.token_budget")

MAX_PENDING = 10_000
MAX_AGE = 3_600.0
#: Settled at a time.
BATCH = 32
#: Seconds until what could not be settled is tried again, doubled up to the last.
RETRY = 1.0
MAX_RETRY = 15.0
#: How long ``drain`` waits.
FAREWELL = 2.0


class Settler:
    """Of one middleware. ``settle``: what is done with each claim and what it was used for; it raises
    ``StoreUnavailable`` where that is to be tried again. ``waits``: for an answer, so that several are settled at
    once."""

    def __init__(
        self, settle: Callable[[Claim, int], Awaitable[None]], *, waits: bool, clock: Clock, observer: Observer
    ) -> None:
        self._settle = settle
        self._batch = BATCH if waits else 1
        self._clock = clock
        self._observer = observer
        self._pending: deque[tuple[Claim, int, float]] = deque()
        self._failed: deque[tuple[Claim, int, float]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._timer: TimerHandle | None = None
        self._pause = RETRY

    def __len__(self) -> int:
        """How many have not been settled yet."""
        return len(self._pending) + len(self._failed)

    def put(self, claim: Claim, used: int) -> None:
        """``claim`` has come to its end."""
        self._pending.append((claim, used, self._clock.now()))
        if len(self) >= MAX_PENDING:
            (self._failed or self._pending).popleft()
            self._given_up("full")
        self._begin()

    async def drain(self) -> None:
        """Wait until all is settled, for ``FAREWELL`` seconds at most."""
        if self._timer is not None:
            self._timer.cancel()
        self._again()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=FAREWELL)
        left = len(self._pending)
        self._pending.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left += len(self._failed)
        self._failed.clear()
        if left:
            logger.warning("%d streams stay charged as they were reserved: the storage of limits is away", left)
            self._given_up("shutdown", left)

    # -- within

    def _begin(self) -> None:
        if self._task is None and self._pending:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="streamware settler")
            self._task.add_done_callback(self._returned)

    def _returned(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("what was used could not be settled", exc_info=error)
        self._begin()

    async def _run(self) -> None:
        while self._pending:
            batch = [self._pending.popleft() for _ in range(min(self._batch, len(self._pending)))]
            tries = [self._try(item) for item in batch]
            try:
                await (tries[0] if len(tries) == 1 else asyncio.gather(*tries))
            except asyncio.CancelledError:
                self._failed.extend(batch)
                raise
        if not self._failed:
            self._pause = RETRY

    async def _try(self, item: tuple[Claim, int, float]) -> None:
        try:
            await self._settle(item[0], item[1])
        except StoreUnavailable:
            self._put_off(item)
        except Exception:
            logger.exception("what was used could not be settled")
            self._given_up("error")

    def _put_off(self, item: tuple[Claim, int, float]) -> None:
        if self._clock.now() - item[2] >= MAX_AGE:
            self._given_up("age")
            return
        self._failed.append(item)
        if self._timer is None:
            self._timer = self._clock.call_later(self._pause, self._again)
            self._pause = min(2 * self._pause, MAX_RETRY)

    def _again(self) -> None:
        self._timer = None
        self._pending.extend(self._failed)
        self._failed.clear()
        self._begin()

    def _given_up(self, reason: str, value: int = 1) -> None:
        self._observer.count("token_budget.unsettled", reason=reason, value=value)
