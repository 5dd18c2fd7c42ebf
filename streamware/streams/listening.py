"""Waiting in the server's ``receive``, where that can be ended from elsewhere: as ``asyncio.timeout`` ends what it
encloses, and without taking a cancellation of somebody else's for that. ``Lookout`` does the same by itself, for its
``receive`` is every plain request's, and spares the frame."""

from __future__ import annotations

import asyncio

from ..types import Message, Receive
from .lookout import current_task


class Listening:
    """``over``: it was ended."""

    __slots__ = ("_receive", "_task", "over")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task: asyncio.Task[object] | None = None
        self.over = False

    async def message(self) -> Message | None:
        """The next message; None where it is over, or that comes first."""
        if self.over:
            return None
        task = self._task = current_task()
        before = 0 if task is None else task.cancelling()
        try:
            return await self._receive()
        except asyncio.CancelledError:
            if not self.over or task is None or task.uncancel() > before:
                raise
            return None
        finally:
            self._task = None

    def end(self) -> bool:
        """Give up waiting, now and from here on. True where somebody waits: he goes on with None."""
        self.over = True
        if self._task is None:
            return False
        self._task.cancel()
        return True
