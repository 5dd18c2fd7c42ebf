"""What a client makes of one stream over all the connections that it takes: nothing lost, nothing twice, every byte.

``Reading`` looks at the same bytes twice: as HTML's EventSource does (``Interpreter``), for the cursor and the events;
and as plain blocks, for the app's own bytes, which have to be those of the uncut run once our ids, retry lines,
comments and control events are out of them. The apps under test end their lines with LF.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from streamware.wire.eventsource import Event, Interpreter
from tests.servers.client import Exchange
from tests.servers.wire import Cut

OURS = re.compile(rb"(?m)^(?:id: ?sw[A-Za-z0-9_.-]+|retry: ?\d+|:.*)\n")
CONTROL = re.compile(rb"(?m)^event: ?streamware\.")


@dataclass
class Reading:
    """``body``: the app's own bytes, of whole events. ``lost`` and ``repeated``: events, told by the numbers in their
    ids. ``controls``: events that Streamware has put in. ``heartbeats``: comment lines."""

    body: bytearray = field(default_factory=bytearray)
    events: list[Event] = field(default_factory=list)
    controls: list[Event] = field(default_factory=list)
    lost: int = 0
    repeated: int = 0
    heartbeats: int = 0
    last: int = 0
    _interpreter: Interpreter = field(default_factory=Interpreter)
    _rest: bytearray = field(default_factory=bytearray)

    @property
    def cursor(self) -> str:
        """What a reconnect sends as Last-Event-ID; empty before the first id."""
        return self._interpreter.last_event_id

    @property
    def stream(self) -> str:
        return self.cursor.rpartition(".")[0]

    @property
    def retry(self) -> int | None:
        return self._interpreter.retry

    def reconnect(self) -> None:
        """A new connection: what was unfinished is forgotten."""
        self._interpreter.reconnect()
        self._rest.clear()

    def feed(self, data: bytes) -> None:
        for event in self._interpreter.feed(data):
            self._count(event)
        searched = max(0, len(self._rest) - 1)
        self._rest += data
        begin = 0
        while (end := self._rest.find(b"\n\n", max(begin, searched))) >= 0:
            self._block(bytes(self._rest[begin : end + 2]))
            begin = end + 2
        del self._rest[:begin]

    def _count(self, event: Event) -> None:
        if event.event.startswith("streamware."):
            self.controls.append(event)
            return
        self.events.append(event)
        number = (event.id or "").rpartition(".")[2]
        if number.isdigit():
            seq = int(number)
            self.repeated += seq <= self.last
            self.lost += max(0, seq - self.last - 1)
            self.last = max(seq, self.last)

    def _block(self, block: bytes) -> None:
        self.heartbeats += sum(line.startswith(b":") for line in block.split(b"\n"))
        if CONTROL.search(block):
            return
        kept = OURS.sub(b"", block)
        if kept.strip(b"\n"):
            self.body += kept


async def follow(exchange: Exchange, reading: Reading) -> bool:
    """Read a response to its end into ``reading``: True if that was a proper one, False if it was cut."""
    try:
        while data := await exchange.read():
            reading.feed(data)
    except Cut:
        return False
    return True


async def follow_until(exchange: Exchange, reading: Reading, events: int) -> None:
    """Read until ``reading`` holds so many events, and no further than the bytes that came with them.

    :raises Cut: the response was cut before.
    :raises AssertionError: it ended before.
    """
    while len(reading.events) < events:
        data = await exchange.read()
        assert data, f"the stream ended after {len(reading.events)} events"
        reading.feed(data)
