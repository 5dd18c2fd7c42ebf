"""The app's ``receive`` for a request that waited in line, and whose client had to be watched meanwhile."""

from __future__ import annotations

import asyncio

from ..streams.inbound import Inbound
from ..types import Message


class Watched:
    """Gives what has arrived meanwhile, and then what comes. The client's leaving is told whenever it is asked for."""

    __slots__ = ("_inbound", "_waiting")

    def __init__(self, inbound: Inbound) -> None:
        self._inbound = inbound
        self._waiting: tuple[asyncio.Future[None], ...] = ()
        inbound.on_change = self._changed

    async def receive(self) -> Message:
        inbound = self._inbound
        while True:
            message = inbound.take()
            if message is not None:
                return message
            if inbound.gone:
                if inbound.error is not None:
                    raise inbound.error
                return {"type": "http.disconnect"}
            inbound.pull()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting += (waiter,)
            try:
                await waiter
            finally:
                self._waiting = tuple(other for other in self._waiting if other is not waiter)

    def _changed(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
