"""The drain of one worker: its phases, and everybody who takes part in it.

Rules:

1. The phases only go forward: serving, leaving, draining, parting, over. ``open`` begins anew, for an app object may be
   served twice.
2. Nothing is kept per connection that is not kept anyway, and there is no timer but the two of the drain.
3. In ``parting`` go those who can read on elsewhere; in ``over`` everybody else, never so that it looks complete.
4. Everything is bounded by ``deadline`` and a few seconds in which clients get to take what is said last.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ..observe import Observer
from ..record import is_followed
from ..types import Clock, Scope, TimerHandle
from ..wire.denial import Denial
from .ending import DRAINING
from .lookout import Lookout
from .signals import Listener
from .websocket_watch import WebSocketWatch

logger = logging.getLogger("streamware.drain")

#: So many connections are ended before others get a turn.
SLICE = 64


class Phase(enum.IntEnum):
    """What a worker is at."""

    SERVING = 0
    LEAVING = 1  # readiness says no, everything is served
    DRAINING = 2  # running streams get to finish, new ones go elsewhere
    PARTING = 3  # those that can go on elsewhere were sent there
    OVER = 4  # everything was ended


@dataclass(frozen=True, slots=True)
class Terms:
    """What a party is told of the drain. ``concerns``: whether it is one of this connection's. ``left``: seconds to the
    deadline. ``retry``: milliseconds after which one EventSource is to come back, random."""

    concerns: Callable[[Scope], bool]
    left: Callable[[], float]
    retry: Callable[[], int]


class Party(Protocol):
    """Who has connections and producers of its own to end."""

    def drain(self, terms: Terms) -> None:
        """It has begun."""

    def stay(self) -> None:
        """It is over, and this worker serves anew."""

    def part(self) -> Iterator[None]:
        """End the connections that can go on elsewhere, one a step."""
        ...

    def cut_off(self) -> Iterator[None]:
        """End all that is left, one a step."""
        ...

    def is_needed(self, scope: Scope) -> bool:
        """Whether what ``scope`` asks for can be had from this worker only."""
        ...

    async def run_out(self) -> None:
        """Wait for the producers whose streams somebody can still read."""


class Drain:
    """See the module. ``phase``: where it is. ``responses``: those under way that may be streams without a log.
    ``sockets``: the WebSockets that are open. ``on_phase``: called at each change."""

    def __init__(
        self, *, grace: float, deadline: float, retry: float, clock: Clock, observer: Observer,
        concerns: Callable[[Scope], bool],
    ) -> None:  # fmt: skip
        self._grace = grace
        self._deadline = deadline
        self._retry = retry
        self._clock = clock
        self._observer = observer
        self._terms = Terms(concerns, self.left, self.retry)
        self.phase = Phase.SERVING
        self.responses: set[Lookout] = set()
        self.sockets: set[WebSocketWatch] = set()
        self.on_phase: Callable[[], None] | None = None
        self.opened = False  # was ever
        self._parties: list[Party] = []
        self._listener: Listener | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ends = 0.0
        self._timers: tuple[TimerHandle, ...] = ()
        self._tasks: set[asyncio.Task[None]] = set()
        self._over: asyncio.Event | None = None

    # -- set-up

    def open(self, signals: tuple[int, ...]) -> None:
        """Serve, on the running loop, and listen to ``signals``. On trio nothing is opened, and nothing ever ended."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self.close()
        self.phase = Phase.SERVING
        for party in self._parties:
            party.stay()
        self._loop = loop
        self._over = asyncio.Event()
        self._listener = Listener(self._begin)
        unheard = [signum for signum in signals if not self._listener.listen(signum)]
        if unheard:
            logger.debug("signals that are not heard here: %s", unheard)
        self.opened = True
        self._changed()

    def close(self) -> set[asyncio.Task[None]]:
        """Listen no more, and leave no timer; the tasks that were cancelled."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._call_off_timers()
        for task in self._tasks:
            task.cancel()
        return set(self._tasks)

    def join(self, party: Party) -> None:
        """``party`` takes part from here on."""
        if party not in self._parties:
            self._parties.append(party)
            if self.phase >= Phase.DRAINING:
                party.drain(self._terms)

    # -- what others ask

    def left(self) -> float:
        """Seconds to the deadline."""
        return max(0.0, self._ends - self._clock.now())

    def retry(self) -> int:
        """Milliseconds after which one EventSource is to come back: browsers add no jitter of their own."""
        return round(1000 * self._retry * random.uniform(0.5, 1.5))

    def is_needed(self, scope: Scope) -> bool:
        """Whether what ``scope`` asks for can be had from this worker only."""
        return any(party.is_needed(scope) for party in self._parties)

    # -- the phases

    def leave(self) -> None:
        """Readiness says no from here on. From any thread."""
        self._on_loop(self._leave)

    def begin(self) -> None:
        """Begin to drain. From any thread."""
        self._on_loop(self._begin)

    async def finish(self) -> None:
        """Drain, and wait until nothing is left that anybody could read on, or until the deadline."""
        over = self._over
        if over is None or over.is_set():
            return
        self._begin()
        waiting = [asyncio.ensure_future(over.wait()), asyncio.ensure_future(self._run_out())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waiting:
                wait.cancel()
            await asyncio.wait(waiting)
        if not over.is_set():
            over.set()
            self._call_off_timers()
            self._enter(Phase.OVER, "drained: nothing is left to be ended")

    async def _run_out(self) -> None:
        for party in self._parties:
            await party.run_out()
        if self.phase is Phase.OVER and self._over is not None:
            await self._over.wait()  # what is said last is to be said

    def _on_loop(self, step: Callable[[], None]) -> None:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if self._loop is None or self._loop is running or self._loop.is_closed():
            step()
        else:
            self._loop.call_soon_threadsafe(step)

    def _leave(self) -> None:
        if self.phase < Phase.LEAVING:
            self._enter(Phase.LEAVING, "leaving: readiness says no, everything is served")

    def _begin(self) -> None:
        if self.phase >= Phase.DRAINING:
            return
        self._ends = self._clock.now() + self._deadline
        self._enter(
            Phase.DRAINING,
            "draining: %g seconds for streams to finish, %g in all",
            self._grace,
            self._deadline,
        )
        for party in self._parties:
            party.drain(self._terms)
        self._timers = (
            self._clock.call_later(self._grace, lambda: self._spawn(self._part())),
            self._clock.call_later(self._deadline, lambda: self._spawn(self._cut_off())),
        )

    async def _part(self) -> None:
        """Send away those who can go on elsewhere."""
        if self.phase >= Phase.PARTING:
            return
        self._enter(Phase.PARTING, "parting: streams that another worker can go on with are sent there")
        for party in self._parties:
            await self._in_slices(party.part())
        for socket in list(self.sockets):
            self._observer.count("drain.ended", reason="websocket")
            self._spawn(socket.close(DRAINING))

    async def _cut_off(self) -> None:
        """End all that is left."""
        self._enter(Phase.OVER, "over: what is left is ended as interrupted")
        try:
            for party in self._parties:
                self._count_cut_off("stream", await self._in_slices(party.cut_off()))
            farewells = [
                farewell
                for lookout in list(self.responses)
                if not is_followed(lookout.scope) and (farewell := lookout.dismiss(DRAINING, self.retry())) is not None
            ]
            self._count_cut_off("response", sum(await asyncio.gather(*farewells)))
        finally:
            if self._over is not None:
                self._over.set()

    def _count_cut_off(self, reason: str, ended: int) -> None:
        if ended:
            self._observer.count("drain.cut_off", reason=reason, value=ended)

    def _call_off_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers = ()

    async def _in_slices(self, steps: Iterator[None]) -> int:
        taken = 0
        for _ in steps:
            taken += 1
            if not taken % SLICE:
                await asyncio.sleep(0)
        return taken

    # -- within

    def _enter(self, phase: Phase, message: str, *arguments: object) -> None:
        self.phase = phase
        self._observer.count("drain.phase", reason=phase.name.lower())
        logger.info(message, *arguments)
        self._changed()

    def _changed(self) -> None:
        if self.on_phase is not None:
            self.on_phase()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def worker_leaves(retry: float) -> Denial:
    """The refusal of a worker that leaves."""
    return Denial(503, "This server is being replaced", "Another one will take the request.", retry_after=retry)
