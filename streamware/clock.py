"""The clock of production: the running event loop's own time and timers."""

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
