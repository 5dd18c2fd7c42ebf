"""Waiting for one's turn: a short line for each key, first come first served.

Rules:

1. Only the first of a line asks the storage; the others wait for it to get in or give up. Who comes while there is a
   line joins its end, also where there would be room just now.
2. Everybody waits ``patience`` seconds at most, and not at all for what is known to take longer.
3. A line has a length, and so have all of them together; who finds them full is refused at once.
4. Who has left makes room at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from ..types import Clock
from .base import Taken

#: Waiting in this worker, whatever their keys.
MAX_WAITING = 1000
#: How often the first of a line looks whether another worker has made room: nobody tells of that.
LOOK_EVERY = 0.25
#: Between two attempts at a rate, at least.
LEAST_PAUSE = 0.01


class Ticket:
    """One place in a line. ``gone``: whoever had it has left."""

    __slots__ = ("_turn", "gone")

    def __init__(self) -> None:
        self._turn: asyncio.Future[None] | None = None
        self.gone = False

    def leave(self) -> None:
        """Wait no more."""
        self.gone = True
        self.wake()

    def wake(self) -> None:
        """Look again whether it is one's turn."""
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    async def rest(self, clock: Clock, seconds: float) -> None:
        """Until woken, or so long."""
        self._turn = asyncio.get_running_loop().create_future()
        timer = clock.call_later(seconds, self.wake)
        try:
            await self._turn
        finally:
            timer.cancel()


class Queue:
    """The lines of one middleware: each of ``length`` at most, for ``patience`` seconds."""

    def __init__(self, length: int, patience: float, clock: Clock) -> None:
        self._length = length
        self._patience = patience
        self._clock = clock
        self._lines: dict[str, deque[Ticket]] = {}
        self.waiting = 0

    def has_line(self, key: str) -> bool:
        """Whether somebody waits already."""
        return key in self._lines

    def freed(self, key: str) -> None:
        """There is room again."""
        line = self._lines.get(key)
        if line:
            line[0].wake()

    async def wait(self, key: str, attempt: Callable[[], Awaitable[Taken]], ticket: Ticket) -> Taken | None:
        """The first answer that lets it in, or that nobody can wait for, or the last that did not; None where there was
        none: for want of a place in line, or of time to come to its head, or because who waited has left."""
        line = self._lines.get(key)
        if self.waiting >= MAX_WAITING or (line is not None and len(line) >= self._length):
            return None
        if line is None:
            line = self._lines[key] = deque()
        line.append(ticket)
        self.waiting += 1
        until = self._clock.now() + self._patience
        refused: Taken | None = None
        try:
            while not ticket.gone:
                left = until - self._clock.now()
                pause = left
                if line[0] is ticket:
                    refused = await attempt()
                    if refused.allowed or refused.unknown:
                        return refused
                    pause = LOOK_EVERY if refused.full else max(LEAST_PAUSE, refused.wait)
                    if not refused.full and pause > left:
                        return refused
                if left <= 0:
                    return refused
                await ticket.rest(self._clock, min(pause, left))
            return None
        finally:
            line.remove(ticket)
            self.waiting -= 1
            if line:
                line[0].wake()
            else:
                del self._lines[key]
