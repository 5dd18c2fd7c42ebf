"""The clock of production: the running event loop's own time and timers; whether there is such a loop; and how to sleep
by any clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from .types import Clock, TimerHandle


class LoopClock:
    """``Clock`` over the running loop. ``now`` works outside a loop too."""

    __slots__ = ()

    now = staticmethod(time.monotonic)

    def call_later(self, delay: float, callback: Callable[[], object]) -> TimerHandle:
        return asyncio.get_running_loop().call_later(delay, callback)


async def sleep(clock: Clock, seconds: float) -> None:
    """Wait so long by ``clock``."""
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = clock.call_later(seconds, lambda: None if over.done() else over.set_result(None))
    try:
        await over
    finally:
        timer.cancel()


def on_asyncio() -> bool:
    """False on another loop, where no task or timer of ours could run: Starlette's ``TestClient`` can drive an app on
    trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
