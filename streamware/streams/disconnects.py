"""Who was disconnected of late, in whichever worker: told to all of them by a board that they share.

Rules:

1. What is announced is a hash of who, and nothing else of a user. What is heard that is not an order is ignored, for
   whoever can write to the store may announce.
2. A request whose stream begins after an order that came while it was under way is disconnected like the others. That
   is remembered for the latest ``REMEMBERED`` users; where a request has been under way for longer than that reaches
   back, nobody knows, so it is disconnected as well, and may come back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from ..exceptions import StoreError
from ..stores.board import Board

logger = logging.getLogger("streamware.auth")

TOPIC = "streamware-disconnect"
REMEMBERED = 4096
TRY_AGAIN = 5.0  # seconds


class Order(msgspec.Struct, frozen=True):
    """Disconnect ``who``, a hash in hex. ``before``: only where the token was issued before this, in seconds since
    1970. ``stop``: stop what their streams produce, too."""

    who: str
    before: float | None = None
    stop: bool = False

    def concerns(self, issued_at: float | None) -> bool:
        """Whether it means a connection by a token that was issued then; None: that is not known."""
        return self.before is None or issued_at is None or issued_at < self.before


class Disconnects:
    """``epoch``: how many orders have come. ``hear``: called with each, on the loop."""

    def __init__(self, board: Board | None, hear: Callable[[Order], None]) -> None:
        self._board = board
        self._hear = hear
        self._latest: OrderedDict[str, tuple[int, Order]] = OrderedDict()
        self._floor = 0  # orders up to this epoch may be forgotten
        self._end: Callable[[], None] | None = None
        self._started = board is None
        self._starting = False
        self.epoch = 0

    async def startup(self) -> None:
        """Listen. Idempotent.

        :raises StoreError: the board cannot be had.
        """
        if self._board is not None and not self._started:
            self._listen(self._board)
            await self._board.start()
            self._started = True

    def begin(self) -> Coroutine[Any, Any, None] | None:
        """Listen at once where nobody has done so; what is returned is to be awaited, in a task."""
        if self._board is None or self._started or self._starting:
            return None
        self._starting = True
        self._listen(self._board)
        return self._start()

    def _listen(self, board: Board) -> None:
        if self._end is None:
            self._end = board.listen(TOPIC, self._heard)

    async def _start(self) -> None:
        try:
            await self.startup()
        except StoreError:
            logger.warning("disconnects of other workers are not heard for now", exc_info=True)
            await asyncio.sleep(TRY_AGAIN)
        finally:
            self._starting = False

    async def aclose(self) -> None:
        """Listen no more, and close the board, where it can be closed. A store that others use is closed once."""
        close: Callable[[], Awaitable[None]] | None = getattr(self._board, "aclose", None)
        self._started = self._board is None
        if self._end is not None:
            self._end()
            self._end = None
        if close is not None:
            await close()

    async def announce(self, order: Order) -> None:
        """Have ``order`` heard in every worker, here before this returns, and whether or not the board can be had.

        :raises StoreError: other workers may not have heard of it.
        """
        board = self._board
        if board is None:
            self._obey(order)
            return
        epoch = self.epoch
        try:
            await self.startup()
            await board.announce(TOPIC, msgspec.json.encode(order))
        except StoreError:
            if not self.concerns(order.who, epoch, None):
                self._obey(order)
            raise

    def concerns(self, who: str, epoch: int, issued_at: float | None) -> bool:
        """Whether an order has come since ``epoch`` that means ``who``."""
        if epoch < self._floor:
            return True
        known = self._latest.get(who)
        return known is not None and known[0] > epoch and known[1].concerns(issued_at)

    def _heard(self, message: bytes) -> None:
        try:
            order = msgspec.json.decode(message, type=Order)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            logger.warning("something was announced under %s that is no order", TOPIC)
            return
        self._obey(order)

    def _obey(self, order: Order) -> None:
        self.epoch += 1
        known = self._latest.pop(order.who, None)
        widest = order
        if known is not None and order.before is not None:  # who is still under way since before both is meant by each
            earlier = known[1]
            widest = earlier if earlier.before is None or earlier.before > order.before else order
        self._latest[order.who] = (self.epoch, widest)
        if len(self._latest) > REMEMBERED:
            self._floor = max(self._floor, self._latest.popitem(last=False)[1][0])
        self._hear(order)
