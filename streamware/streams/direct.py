"""Giving an event to a waiting reader's connection from within the producer's own ``send``: no task switch.

A stream that sends one event at a time pays for waking its reader at each of them. Where the reader is the only one,
has nothing to send and would be woken for this one event, the producer takes the first step of the connection's
``send`` itself. With every server that this is done for, that first step is the last, unless the client does not keep
up. Rules:

1. One event per tick of the loop goes this way; what follows in the same tick is left to the reader, who sends it in
   one. (A stream that has kept to one a tick is looked at again only some events later.)
2. Only to a server's own ``send`` that is known to be indifferent to the task it runs in, with nothing but our own
   heartbeats on the way. Anything else takes the reader's way.
3. A ``send`` that did not end in its first step belongs to the reader's task from then on. The producer never waits
   for it, and never cancels it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Protocol, cast

from ..types import Message, Send
from .lookout import Lookout
from .pulse import ResponsePulse

#: Modules whose ``send`` keeps no state per task, as far as its first suspension.
_SERVERS = ("uvicorn.protocols.http.",)

STREAK = 3
CREDIT = 64  # what a stream that begins to send many a tick may send singly, once, before that is noticed
SENT = object()


class Sends(Protocol):
    """The server's side of one connection."""

    def send(self, message: Message) -> Coroutine[object, None, None]: ...


def shortcut(send: Send) -> tuple[Sends, ResponsePulse | None] | None:
    """Whose the server's own ``send`` at the end of ``send`` is, where it may be begun in one task and ended in
    another, and the pulse on the way to it; None where anything else is on the way."""
    owner = getattr(send, "__self__", None)
    pulse = None
    if isinstance(owner, Lookout):
        send, pulse = owner.inner_send, owner.pulse
        owner = getattr(send, "__self__", None)
    if owner is None or not type(owner).__module__.startswith(_SERVERS) or getattr(owner, "send", None) != send:
        return None
    return cast("Sends", owner), pulse


class Ticks:
    """Tells whether the loop has gone round, for all streams of a worker by one callback a tick."""

    __slots__ = ("_armed", "number")

    def __init__(self) -> None:
        self.number = 0
        self._armed = False

    def mark(self) -> int:
        """The number of this tick; another one is current once the loop has gone round."""
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._next)
        return self.number

    def _next(self) -> None:
        self._armed = False
        self.number += 1


class DirectSend:
    """One reader's connection, as its producer may use it.

    Asking for the tick at every event would cost a third of what is saved. So a stream that has shown, ``STREAK`` times
    running, that its events come one a tick, is believed for the next ``CREDIT`` events.

    What goes this way does not go through the pulse. It is whole events, which leave the pulse where it was, between
    two; all that it has to know is when, ``last``, and it asks. While a heartbeat is under way (``held``), or the pulse
    is not between two events, nothing goes this way.
    """

    __slots__ = ("_credit", "_now", "_pulse", "_server", "_streak", "_tick", "_ticks", "error", "held", "last", "rest")

    def __init__(self, server: Sends, pulse: ResponsePulse | None, ticks: Ticks) -> None:
        self._server = server
        self._pulse = pulse
        self._now = None if pulse is None else pulse.now
        self._ticks = ticks
        self._tick = -1
        self._streak = 0
        self._credit = 0
        self.rest: Rest | None = None
        self.error: BaseException | None = None
        self.held = False
        self.last = 0.0
        if pulse is not None:
            pulse.shortcut = self

    def ready(self) -> bool:
        """As ``Sink.ready``."""
        pulse = self._pulse
        return pulse is None or (pulse.beat is None and pulse.boundary.between)

    def give(self, event: bytes) -> bool | None:
        """As ``Sink.give``. It is not called once the client has left: its place in the log is closed then; nor while a
        rest is open, for then the reader does not wait."""
        if self.held:
            return None
        if self._credit:
            self._credit -= 1
        elif not self._is_new_tick():
            return None
        now = self._now  # a slot's value is called faster from a local
        if now is not None:
            self.last = now()
        steps = self._server.send({"type": "http.response.body", "body": event, "more_body": True})
        try:
            first = next(steps.__await__(), SENT)  # no exception where it ends in this step, as it does
        except BaseException as error:
            self.error = error  # the reader's to raise: the producer has done nothing wrong
            return False
        if first is SENT:
            return True
        pulse = self._pulse
        self._streak = self._credit = 0
        self.rest = Rest(steps, first)
        if pulse is not None:
            pulse.sending += 1
        return False

    def _is_new_tick(self) -> bool:
        if self._tick == self._ticks.number:
            self._streak = 0
            return False
        self._tick = self._ticks.mark()
        self._streak += 1
        if self._streak >= STREAK:
            self._streak, self._credit = 0, CREDIT
        return True

    async def settle(self) -> None:
        """In the reader's task: end what was begun, or raise what it raised."""
        rest, self.rest = self.rest, None
        if rest is not None:
            try:
                await rest
            finally:
                if self._pulse is not None:
                    self._pulse.sending -= 1
                    self._pulse.last = self._pulse.now()
        error, self.error = self.error, None
        if error is not None:
            raise error


class Rest:
    """A coroutine that another task has begun, from its first suspension on."""

    __slots__ = ("_first", "_steps")

    def __init__(self, steps: Coroutine[Any, Any, None], first: object) -> None:
        self._steps = steps
        self._first = first

    def close(self) -> None:
        """Nobody will end it: its reader has gone."""
        self._steps.close()

    def __await__(self) -> Generator[object, Any, None]:
        steps, waited = self._steps, self._first
        while True:
            try:
                value = yield waited
            except BaseException as error:
                throw, given = True, error
            else:
                throw, given = False, value
            try:
                waited = steps.throw(given) if throw else steps.send(given)
            except StopIteration:
                return
