"""The clock of production: the running event loop's own time and timers; and whether there is such a loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from .types import TimerHandle


class LoopClock:
    """``Clock`` over the running loop. ``now`` works outside a loop too."""

    __slots__ = ()

    now = staticmethod(time.monotonic)

    def call_later(self, delay: float, callback: Callable[[], object]) -> TimerHandle:
        return asyncio.get_running_loop().call_later(delay, callback)


def on_asyncio() -> bool:
    """False on another loop, where no task or timer of ours could run: Starlette's ``TestClient`` can drive an app on
    trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
