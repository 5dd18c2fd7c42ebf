"""The board of a shared store: kept by the back end, and who listens to it here.

Rules:

1. Listeners in this worker are told by this worker, whatever becomes of the store; the back end tells the others.
2. The back end is told what is listened to whenever that changes, in each connection anew; where it cannot be told, the
   next round tries again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..exceptions import StoreFull, StoreUnavailable
from .backend import Backend
from .board import check_item, check_message, hashed
from .listeners import Hear, Listeners
from .trouble import Trouble


class SharedBoard:
    """One worker's side of it. Its topics and keys are the back end's by their hashes."""

    __slots__ = ("_backend", "_listeners", "_open", "_reads", "_telling", "_told", "_writes")

    def __init__(self, backend: Backend, reads: Trouble, writes: Trouble) -> None:
        self._backend = backend
        self._reads = reads
        self._writes = writes
        self._listeners = Listeners()
        self._open = False
        self._told: frozenset[str] | None = frozenset()  # what the back end listens to; None: nobody knows
        self._telling: asyncio.Task[None] | None = None

    @property
    def in_step(self) -> bool:
        """The back end listens to what is listened to here."""
        return self._told == self._listeners.topics

    def connected(self) -> None:
        """The back end was connected, and listens to nothing yet."""
        self._open = True
        self._told = frozenset()
        self.keep_up()

    async def aclose(self) -> None:
        """Listeners stay, for when the back end is connected again."""
        self._open = False
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])

    def keep_up(self) -> None:
        """Let the back end listen to what is listened to here."""
        if self._open and self._telling is None and not self.in_step:
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        try:
            while not self.in_step:
                topics, self._told = self._listeners.topics, None
                await self._reads.call(self._backend.listen, topics)
                self._told = topics
        except StoreUnavailable:
            pass  # until the next round
        finally:
            self._telling = None

    # -- Board

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        check_item(value, ttl)
        if not await self._writes.call(self._backend.put, hashed(key), value, ttl):
            raise StoreFull(f"{self._backend.name} has no room for what was to be left there")

    async def take(self, key: str) -> bytes | None:
        return await self._writes.call(self._backend.take, hashed(key))

    def tell(self, topic: str, message: bytes) -> None:
        """The part of ``announce`` that is done here."""
        check_message(message)
        self._listeners.tell(hashed(topic), message)

    async def announce(self, topic: str, message: bytes) -> None:
        """The part of ``announce`` that is for other workers."""
        await self._writes.call(self._backend.announce, hashed(topic), message)

    def listen(self, topic: str, hear: Hear) -> Callable[[], None]:
        ended = self._listeners.add(hashed(topic), hear)
        self.keep_up()

        def end() -> None:
            ended()
            self.keep_up()

        return end

    def heard(self, topic: str, message: bytes) -> None:
        """Another worker has announced it; ``topic`` is a hash already."""
        self._listeners.tell(topic, message)
