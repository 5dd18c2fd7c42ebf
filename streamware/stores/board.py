"""What workers leave for one another beside logs: things that one of them may take, and announcements to all.

Rules that each store keeps:

1. ``take`` gives what ``put`` left to exactly one caller, in whichever worker, and to nobody once its time is over.
2. An announcement reaches every listener of its topic in every worker that shares the store, the announcing worker
   too, soon; one that is away at the time may miss it. It is no log.
3. Nothing is kept without a cap and a time to live.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Board(Protocol):
    """A store's side of tickets and of ``disconnect``. Every ``Store`` of Streamware's is one as well."""

    async def start(self) -> None:
        """Open connections. Idempotent; called before the first use."""

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Leave ``value`` under ``key`` for ``ttl`` seconds.

        :raises StoreFull: there is no room.
        :raises StoreUnavailable: a shared store did not answer.
        """

    async def take(self, key: str) -> bytes | None:
        """What was left under ``key``, which is gone from here on; None where there is nothing.

        :raises StoreUnavailable: a shared store did not answer: whether it was taken is unknown.
        """
        ...

    async def announce(self, topic: str, message: bytes) -> None:
        """Tell all listeners of ``topic``. At most 4 KiB.

        :raises StoreUnavailable: a shared store did not answer; listeners in this process have been told all the same.
        """

    def listen(self, topic: str, hear: Callable[[bytes], None]) -> Callable[[], None]:
        """Call ``hear`` on the loop with each message announced under ``topic``, until what is returned is called."""
        ...
