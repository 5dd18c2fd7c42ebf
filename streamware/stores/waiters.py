"""Futures that several wait on, each for himself, to look again at what has changed."""

from __future__ import annotations

import asyncio


def release(waiter: asyncio.Future[None]) -> None:
    """Wake who waits for it, unless somebody has, or he has given up."""
    if not waiter.done():
        waiter.set_result(None)


class Waiters:
    """Who waits for the same thing."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def __bool__(self) -> bool:
        """Somebody waits."""
        return bool(self._waiting)

    def wait(self) -> asyncio.Future[None]:
        """Until the next ``wake``."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        return waiter

    def wake(self) -> None:
        """Let everybody look again."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            release(waiter)
