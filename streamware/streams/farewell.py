"""Ends a response that has no log, in the app's place, so that it does not look complete.

Rules:

1. It ends between two events: at once where it stands there, else behind the message that gets it there, else, after
   ``PATIENCE`` seconds, in the middle of one, which parsers drop.
2. What is said last is the ``Ending``'s. A response that nothing can be put into (encoded) is cut, where the server
   cuts; else it is left where the ``Ending`` spares it, and else ended before its encoding is complete.
3. The app is told as by a client that leaves, once the last words are through: one that ends earlier cuts them off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from ..types import Message
from ..wire.boundary import LineBoundary
from .ending import Ending
from .pulse import ResponsePulse
from .servers import cuts_visibly

if TYPE_CHECKING:
    from .lookout import Lookout

logger = logging.getLogger("streamware.drain")

#: Seconds that an app in the middle of an event gets to end it, and that a client gets to take what is said last.
PATIENCE = 2.0


class Farewell:
    """The end of one response, for the reason of ``ending``. ``retry``: milliseconds after which an EventSource is to
    come back. ``said``: nothing more is to follow, whether it is through (``_over``) or on its way."""

    __slots__ = ("_ending", "_forward", "_lookout", "_over", "_pulse", "_retry", "said")

    def __init__(self, lookout: Lookout, pulse: ResponsePulse, ending: Ending, retry: int) -> None:
        self._lookout = lookout
        self._ending = ending
        self._pulse = pulse
        self._retry = retry
        self._forward = pulse.forward  # before it is stopped: what the next message of the app needs
        self._over = asyncio.Event()
        self.said = False

    async def say(self) -> bool:
        """End the response. False where there is nothing that could be done: it has ended, or is to be left."""
        pulse, lookout = self._pulse, self._lookout
        if lookout.gone or lookout.told:
            return False
        if pulse.encoded:
            return await self._end_encoded()
        if pulse.stopped:  # its final message has been sent, or it is no stream that anything can be put into
            return False
        pulse.stop()
        pulse.forward = self.send
        try:
            async with asyncio.timeout(PATIENCE):
                await pulse.turn()
        except TimeoutError:  # its client takes not even a heartbeat
            self._tell()
            return True
        for _ in range(2):  # a message of the app that waited for the same heartbeat goes first
            await asyncio.sleep(0)
        if self.said:
            return True
        if self._is_between:
            await self._end(self._last_words())
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._over.wait()
        if not self.said:
            await self._give_up()
        return True

    async def _end_encoded(self) -> bool:
        if cuts_visibly(self._lookout.scope):
            self._tell()
        elif not self._ending.spares:
            self._pulse.forward = self.send
            await self._end(b"")
        return self.said

    async def send(self, message: Message) -> None:
        """The app's ``send`` while its response is about to be ended."""
        if self.said:
            await self._over.wait()
            await (self._lookout.send_late if self._lookout.told else self._forward)(message)
            return
        await self._forward(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.said = True  # the app has ended it itself
            self._over.set()
        elif self._is_between:
            await self._end(self._last_words())

    @property
    def _is_between(self) -> bool:
        return not self._pulse.sending and self._pulse.boundary.between

    async def _give_up(self) -> None:
        """The app did not come to the end of its event, or its client does not read."""
        if self._pulse.sending or cuts_visibly(self._lookout.scope):
            self._tell()
        else:
            await self._end(b"")

    def _tell(self) -> None:
        self.said = True
        self._lookout.tell()
        self._over.set()

    async def _end(self, last_words: bytes) -> None:
        if self.said:
            return
        self.said = True
        message: Message = {"type": "http.response.body", "body": last_words, "more_body": False}
        try:
            async with asyncio.timeout(PATIENCE):
                await self._pulse.inner_send(message)
        except Exception:  # the client has left, or takes nothing
            logger.debug("a response could not be ended", exc_info=True)
        finally:
            self._tell()

    def _last_words(self) -> bytes:
        lines = isinstance(self._pulse.boundary, LineBoundary)
        return self._ending.last_words(self._lookout.scope, self._retry, lines=lines)
