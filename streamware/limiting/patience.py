"""A time-out that means the other side: time in which this process did not look at its sockets does not count."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def answered_within(seconds: float, awaitable: Awaitable[T]) -> T:
    """The result of ``awaitable``, in the caller's own task.

    An app that blocks the loop for longer than ``seconds`` must not make an answer late that lies in the socket: when
    the time is over, what has arrived meanwhile is looked at first.

    :raises TimeoutError: it took longer.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as bound:

        def look_first() -> None:
            timers.append(loop.call_later(0, lambda: bound.reschedule(loop.time())))

        timers = [loop.call_later(seconds, look_first)]
        try:
            return await awaitable
        finally:
            for timer in timers:
                timer.cancel()
