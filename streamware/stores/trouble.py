"""Whether a shared store answers: each call to it is bounded, and while it is away nobody queues behind it.

Rules:

1. A call that fails, or takes longer than its time-out, raises ``StoreUnavailable`` and makes the store *away*.
2. While it is away calls fail at once, but for one at a time that tries whether it is back, at growing intervals.
3. Each change between the two is counted and logged once, however many calls see it.
4. Reads and writes are away each for itself: a store that is locked or full can still be read.
5. So many calls at most are under way, and the others have their turn later: thousands of clients that come back at
   once are no trouble of the store's. Who waits too long for that, or finds too many waiting, is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from ..exceptions import StoreUnavailable
from ..observe import Observer
from ..types import Clock
from .timing import Timing

logger = logging.getLogger("streamware.stores")

#: Calls under way, and calls that wait for their turn.
MAX_CALLS = 100
MAX_WAITING = 10_000

#: What it means to users, by what is away.
MEANING = {
    "writes": "running streams go on here and are written when it is back, new ones pass through unresumable",
    "reads": "streams of other workers and of the past cannot be read for now",
}

P = ParamSpec("P")
T = TypeVar("T")


class Trouble:
    """Between the core and its back end. ``name``: of the store, for the log. ``what``: "reads" or "writes".
    ``on_back``: called when it answers again."""

    __slots__ = (
        "_calls", "_clock", "_name", "_next", "_observer", "_pause", "_since", "_timing", "_turns", "_what", "on_back",
        "over",
    )  # fmt: skip

    def __init__(self, name: str, what: str, clock: Clock, observer: Observer, timing: Timing) -> None:
        self._name = name
        self._what = what
        self._clock = clock
        self._observer = observer
        self._timing = timing
        self._since: float | None = None  # away since
        self._next = 0.0  # when it may be tried again
        self._pause = 0.0
        self._calls = 0
        self._turns: deque[asyncio.Future[None]] = deque()
        self.on_back: Callable[[], None] | None = None
        self.over = False  # the store was closed

    @property
    def away(self) -> bool:
        """The last that was heard of the store is that it did not answer."""
        return self._since is not None

    @property
    def pause(self) -> float:
        """Seconds until it may be tried again."""
        return max(0.0, self._next - self._clock.now()) if self.away else 0.0

    def check(self) -> None:
        """For those who would rather not be the one that tries.

        :raises StoreUnavailable: it is away.
        """
        if self.away:
            raise StoreUnavailable(f"{self._name} is away for {self._what}")

    async def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """``function``'s result.

        :raises StoreUnavailable: it failed, took too long, or the store is away.
        """
        if self._calls >= MAX_CALLS:
            await self._turn()
        if self.over:
            self._pass_on()
            raise StoreUnavailable(f"{self._name} was closed")
        if self._since is not None:
            if self._next > self._clock.now():
                self._pass_on()
                raise StoreUnavailable(f"{self._name} is away for {self._what}")
            self._put_off()
        self._calls += 1
        try:
            result = await within(self._clock, self._timing.operation, function(*args, **kwargs))
        except StoreUnavailable as error:
            self._failed(error)
            raise
        except Exception as error:
            self._failed(error)
            raise StoreUnavailable(f"{self._name} failed") from error
        finally:
            self._calls -= 1
            self._pass_on()
        self._answered()
        return result

    async def _turn(self) -> None:
        """Wait until fewer calls are under way."""
        if len(self._turns) >= MAX_WAITING:
            raise StoreUnavailable(f"{self._name}: too many wait")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            await within(self._clock, self._timing.operation, turn)
        except BaseException:
            if turn.done() and not turn.cancelled():
                self._pass_on()  # it came in the same moment
            raise

    def _pass_on(self) -> None:
        """Give the turn to who has waited for longest, and still does; to all of them where it is of no use."""
        while self._turns and (self._calls < MAX_CALLS or self.over):
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                if not self.over and self._since is None:
                    break

    def _failed(self, error: Exception) -> None:
        if self.over or self._since is not None:
            return
        self._since = self._clock.now()
        self._pause = self._timing.retry
        self._next = self._since + self._pause
        self._observer.count("store.away", reason=self._what)
        expected = isinstance(error, StoreUnavailable)
        logger.warning(
            "%s is away for %s (%s): %s", self._name, self._what, error, MEANING[self._what], exc_info=not expected
        )

    def _put_off(self) -> None:
        self._pause = min(2 * self._pause, self._timing.max_retry)
        self._next = self._clock.now() + self._pause

    def _answered(self) -> None:
        if self._since is None:
            return
        away, self._since = self._clock.now() - self._since, None
        self._observer.count("store.back", reason=self._what)
        logger.warning("%s is back for %s after %.1f s", self._name, self._what, away)
        if self.on_back is not None:
            self.on_back()


class TooSlow(StoreUnavailable):
    """A call was given up. What it was to do may have been done all the same."""


async def within(clock: Clock, seconds: float, awaitable: Awaitable[T]) -> T:
    """The result of ``awaitable``, which is cancelled after ``seconds``.

    :raises StoreUnavailable: it took longer.
    """
    task = asyncio.ensure_future(awaitable)
    late = False

    def expire() -> None:
        nonlocal late
        late = True
        task.cancel()

    timer = clock.call_later(seconds, expire)
    try:
        return await task
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if late and task.cancelled() and not (current is not None and current.cancelling()):
            raise TooSlow(f"no answer within {seconds:g} s") from None
        task.cancel()
        raise
    finally:
        timer.cancel()
