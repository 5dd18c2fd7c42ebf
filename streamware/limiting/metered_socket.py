"""One WebSocket under a token budget, as OpenAI's Realtime: its responses are counted one by one.

Rules:

1. Each response is a reservation of its own, settled at its end: a connection may live for days, and is charged in the
   windows in which it uses something. What has no responses is settled once in the shortest window.
2. Nothing is reserved for a response but a slice: nobody knows how long it will be.
3. Where there is no more, the client is told by an error message, and the connection is closed: behind the response
   under way (``finish``), or at once (``cut``). ``pace`` holds messages back first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..streams.current import Usage
from ..streams.gone import ClientGone, is_disconnect
from ..streams.listening import Listening
from ..types import Message, Receive, Scope, Send
from ..wire.usage import Counts
from ..wire.usage_body import Reader, reader_of
from ..wire.usage_words import cut_off_message
from .base import Limit
from .budget import Budget
from .ledger import Reservation
from .sockets import close_code


class MeteredSocket:
    """Its ``receive`` and ``send``. ``reservation``: what the handshake was let in with."""

    def __init__(
        self, budget: Budget, scope: Scope, receive: Receive, send: Send, reservation: Reservation, *, key: str,
        limits: Sequence[Limit],
    ) -> None:  # fmt: skip
        self._budget = budget
        self._scope = scope
        self._listening = Listening(receive)
        self._send = send
        self._key = key
        self._limits = limits
        self._reservation: Reservation | None = reservation
        self._counts = Counts()
        self._read: Reader = reader_of(budget.path)
        self._usage = Usage()
        self._base = 0
        self._settled = 0  # tokens of reservations before this one
        self._since = budget.clock.now()
        self._period = min(limit.window for limit in limits)
        self._code = 0  # that it was closed with
        self._exceeded = False
        self._wait = 0.0  # until there is more, when it was exceeded
        self._turn = asyncio.Lock()  # apps send from several tasks: each message is counted on its own
        self.cursor = ""  # it has no log

    def told_by(self, usage: Usage) -> None:
        """The app may say what it uses to ``usage``."""
        self._usage = usage
        self._base = usage.total

    async def receive(self) -> Message:
        """The app's ``receive``."""
        message = await self._listening.message()
        return {"type": "websocket.disconnect", "code": self._code, "reason": ""} if message is None else message

    async def send(self, message: Message) -> None:
        """The app's ``send``."""
        if message["type"] != "websocket.send":
            if not self._code:
                await self._send(message)
            return
        async with self._turn:
            if not self._code:
                await self._send_counted(message)
                return
        await asyncio.sleep(0)
        raise ClientGone("the connection was closed, for its budget is used up")

    async def _send_counted(self, message: Message) -> None:
        counts = self._counts
        if text := message.get("text"):
            self._read(counts, text.encode("utf-8", "surrogatepass"))
        goes_on = await self._covered()
        await self._send(message)
        if counts.current.finished or self._budget.clock.now() - self._since >= self._period:
            self._roll()
            goes_on = goes_on and not self._exceeded
        if not goes_on:
            await self._close()

    def stop(self) -> None:
        """Nothing: a WebSocket is closed by its app."""

    def forgives(self, error: BaseException) -> bool:
        """Whether what the app raised says no more than what it was told."""
        return bool(self._code) and is_disconnect(error)

    def close(self) -> None:
        """The connection has ended."""
        self._roll()
        if self._counts.errors:
            self._budget.count("unreadable", "event", self._counts.errors)

    # -- within

    @property
    def _used(self) -> int:
        """Tokens of this reservation's."""
        return max(0, (self._usage.total - self._base or self._counts.used) - self._settled)

    async def _covered(self) -> bool:
        """See that what was used is granted. False: the connection is to be closed."""
        budget = self._budget
        reservation = self._reservation
        if not self._used:
            return True
        if reservation is None:
            reservation = await budget.ledger.reserve(self._key, self._limits, 0, force=True)
            self._reservation = reservation
        wanted = self._used - reservation.granted
        if wanted <= 0 or await reservation.extend(wanted):
            return True
        policy = budget.on_exceeded if budget.enforce else "finish"
        self._wait = reservation.taken.wait
        if not self._exceeded:
            budget.count("exceeded" if budget.enforce else "would_exceed", policy)
        if policy == "pace" and await budget.pause(reservation, self._used - reservation.granted):
            return True
        if policy == "finish":
            self._exceeded = budget.enforce
            reservation.lend(self._used - reservation.granted + budget.ledger.slice)
            return True
        return False

    def _roll(self) -> None:
        """Have settled what was used since the last time."""
        used = self._used
        reservation, self._reservation = self._reservation, None
        self._since = self._budget.clock.now()
        if reservation is not None:
            reservation.close(used)
            self._settled += used
            basis = "app" if self._usage.total > self._base else "estimated" if self._counts.pending else "reported"
            self._budget.count("used", basis, used)

    async def _close(self) -> None:
        self._budget.count("cut", "websocket")
        self._code = close_code(self._scope, self._wait)
        self._listening.end()
        await self._send({"type": "websocket.send", "text": cut_off_message()})
        await self._send({"type": "websocket.close", "code": self._code, "reason": "the token budget is used up"})
