"""One response under a token budget: what the app sends is counted on its way, and stopped where its budget ends.

Rules:

1. What is sent goes on as it is, before or without anything that is found out about it; only ``pace`` holds it back.
2. A stream that is cut off ends behind a whole event, with an error event in its provider's shape, properly. The app
   is told as by a client that leaves, by both of ASGI's signals. A body that states its length, that is encoded, or
   that is no stream is never cut, only charged.
3. However the call ends, what it used is handed over to be settled, once, without waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import cast

from ..streams.current import Usage
from ..streams.gone import ClientGone, is_disconnect
from ..streams.listening import Listening
from ..types import Message, RawHeaders, Receive, Scope, Send
from ..wire import headers
from ..wire.denial import is_eventsource_like
from ..wire.prompt import Asked
from ..wire.usage import TokenUsage
from ..wire.usage_body import Body, Kind, body_of
from ..wire.usage_words import cut_off, report
from .budget import Budget
from .ledger import Reservation


class MeteredResponse:
    """The ``receive`` and ``send`` of one HTTP request. ``usage``: where the app may say what it used."""

    __slots__ = (
        "_asked", "_base", "_body", "_budget", "_closed", "_counts", "_cuttable", "_cutting", "_ended", "_exceeded",
        "_finished", "_kind", "_listening", "_reservation", "_scope", "_send", "_status", "_streams",
        "_usage", "cursor",
    )  # fmt: skip

    def __init__(
        self, budget: Budget, scope: Scope, receive: Receive, send: Send, reservation: Reservation, asked: Asked | None
    ) -> None:
        self._budget = budget
        self._scope = scope
        self._listening = Listening(receive)
        self._send = send
        self._reservation = reservation
        self._asked = asked
        self._counts = budget.counts_of(asked)
        self._usage = Usage()
        self._base = 0
        self._body: Body | None = None
        self._kind = Kind.OTHER
        self._status = 0
        self._streams = self._cuttable = self._cutting = self._ended = False
        self._exceeded = self._finished = self._closed = False
        self.cursor = ""  # it has no log

    def told_by(self, usage: Usage) -> None:
        """The app may say what it uses to ``usage``."""
        self._usage = usage
        self._base = usage.total

    # -- what the app is given

    async def receive(self) -> Message:
        """The app's ``receive``."""
        message = await self._listening.message()
        return {"type": "http.disconnect"} if message is None else message

    def send(self, message: Message) -> Awaitable[None]:
        """The app's ``send``. No coroutine of its own for what just passes."""
        if self._listening.over:
            return self._send_late()
        if message["type"] == "http.response.body":
            if self._body is not None:
                data = message.get("body")
                if data:
                    self._body.feed(data if data.__class__ is bytes else _bytes_of(data))
                if self._streams and (
                    self._cutting
                    or (self._usage.total - self._base or self._counts.used) > self._reservation.granted
                    or not message.get("more_body")
                ):
                    return self._send_closely(message)
            if not message.get("more_body"):
                self._ended = True
        elif message["type"] == "http.response.start":
            message = self._look(message)
        send = self._send
        return send(message)

    def stop(self) -> None:
        """End the stream here (``CurrentStream.stop``)."""
        self._tell()

    def forgives(self, error: BaseException) -> bool:
        """Whether what the app raised says no more than what it was told."""
        return self._listening.over and is_disconnect(error)

    # -- the response

    def _look(self, start: Message) -> Message:
        self._status = start.get("status", 200)
        given: RawHeaders = list(start.get("headers") or ())
        self._kind, self._body = body_of(self._counts, given, self._budget.path)
        self._streams = self._kind in (Kind.EVENTS, Kind.LINES)
        self._cuttable = (
            self._streams and headers.get(given, b"content-length") is None and not start.get("trailers", False)
        )
        lines = self._budget.lines(self._reservation.taken)
        return {**start, "headers": [*given, *lines]} if lines else start

    async def _send_closely(self, message: Message) -> None:
        """Send a part of a stream that is its last, or beyond what was granted."""
        if not message.get("more_body"):
            await self._send_last(message)
        elif self._cutting or not await self._may_go_on():
            self._cutting = True
            await self._cut(message)
        else:
            await self._send(message)

    async def _may_go_on(self) -> bool:
        budget, reservation = self._budget, self._reservation
        wanted = self._used - reservation.granted
        if wanted <= 0 or await reservation.extend(wanted):
            return True
        policy = budget.on_exceeded if self._cuttable and budget.enforce else "finish"
        if not self._exceeded:
            self._exceeded = True
            budget.count("exceeded" if budget.enforce else "would_exceed", policy)
        wanted = self._used - reservation.granted
        if policy == "pace" and await budget.pause(reservation, wanted):
            return True
        if policy == "finish":
            reservation.lend(wanted + budget.ledger.slice)
            return True
        return False

    async def _cut(self, message: Message) -> None:
        """Send what is left of whole events, and the end. Where an event has begun and goes on, it is sent first."""
        data = _bytes_of(message.get("body", b""))
        held = None if self._body is None else self._body.held
        if held is None or held > len(data):
            await self._send(message)
            return
        end = self._report() + cut_off(self._counts.dialect, lines=self._kind is Kind.LINES, style=self._budget.style)
        self._ended = True
        self._budget.count("cut", self._counts.dialect)
        await self._send({"type": "http.response.body", "body": data[: len(data) - held] + end, "more_body": False})
        self._tell()

    async def _send_last(self, message: Message) -> None:
        between = self._body is not None and self._body.held == 0
        self._finish()
        self._ended = True
        if between and self._cuttable and (told := self._report()):
            message = {**message, "body": _bytes_of(message.get("body", b"")) + told}
        await self._send(message)

    def _report(self) -> bytes:
        """What was used, where the client is to be told."""
        if not self._budget.reports or self._kind is not Kind.EVENTS:
            return b""
        usage = self._counts.usage
        if used := self._usage.total - self._base:
            usage = TokenUsage(0, used)
        return report(usage, self._remaining(usage.total), event=is_eventsource_like(self._scope))

    def _remaining(self, used: int) -> int | None:
        standings = self._reservation.taken.standings
        if not standings:
            return None
        left = min(standing.remaining for standing in standings)
        return max(0, left + self._reservation.granted - used)

    async def _send_late(self) -> None:
        await asyncio.sleep(0)
        raise ClientGone("the stream was ended, for its budget is used up")

    def _tell(self) -> None:
        """Tell the app that it is to end, as if its client had left."""
        self._listening.end()

    # -- what it comes to

    async def end(self) -> None:
        """The app has returned. A stream that it was told to end, and did not, is ended."""
        if self._listening.over and not self._ended and self._status:
            self._ended = True
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def close(self, error: BaseException | None) -> None:
        """The call ends, with ``error`` or without: hand over what was used."""
        if self._closed:
            return
        self._closed = True
        self._finish()
        budget, counts = self._budget, self._counts
        used, basis = self._charge(error)
        self._reservation.close(used)
        budget.count("used", basis, used)
        if counts.errors:
            budget.count("unreadable", "event", counts.errors)
        if counts.oversize:
            budget.count("unreadable", "oversize", counts.oversize)
        budget.learn(self._asked, counts)

    def _finish(self) -> None:
        if not self._finished and self._body is not None:
            self._finished = True
            self._body.finish()

    @property
    def _used(self) -> int:
        return self._usage.total - self._base or self._counts.used

    def _charge(self, error: BaseException | None) -> tuple[int, str]:
        """How much is charged, and how it is known."""
        counts = self._counts
        if said := self._usage.total - self._base:
            return said, "app"
        if counts.recognised and counts.knows:
            return counts.used, "estimated" if counts.usage.estimated else "reported"
        if not self._status:  # it never began; whether its prompt had been read by then, nobody knows
            left = error is not None and (not isinstance(error, Exception) or is_disconnect(error))
            return (counts.prompt, "estimated") if left else (0, "none")
        if self._status >= 300:
            return 0, "none"
        if self._streams or counts.recognised:
            return counts.used, "estimated"
        if self._asked is None:
            return 0, "none"
        if self._kind is Kind.ENCODED:
            return self._reservation.granted, "reserved"
        if self._kind is Kind.OTHER:
            return counts.prompt, "estimated"
        used = counts.used
        if counts.oversize and self._asked.output is not None:
            used = min(used, counts.prompt + self._asked.output)
        return used, "estimated"


def _bytes_of(data: object) -> bytes:
    """A body as bytes; what is none is the server's to refuse."""
    if isinstance(data, bytes):
        return data
    return bytes(cast("bytearray", data)) if isinstance(data, bytearray | memoryview) else b""
