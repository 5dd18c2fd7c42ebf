"""Reading logs: a page behind a cursor, and what is known of a stream.

Rules:

1. A page is consecutive. Events that stand in two entries, since one was written again and cut otherwise, come once;
   before a hole it ends, and the next page begins behind the hole.
2. Redis counts entries, not bytes. So a page asks for few entries of a log that it does not know, and for as many as
   made up a page the last time.
"""

from __future__ import annotations

from collections import OrderedDict

from .backend import PAGE_BYTES, PAGE_EVENTS, Page, State
from .base import Head, Outcome, Tombstone
from .records import decode_head, tombstone
from .redis_asking import Asking, Command
from .redis_layout import Keys, decode_entry, decode_top
from .redis_pipe import pack
from .redis_replies import Reply
from .redis_scripts import TOP

FIRST_ENTRIES = 16
#: Of how many logs the size of an entry is remembered.
REMEMBERED = 4096


class Pages:
    """Reads logs, any worker's."""

    def __init__(self, asking: Asking, keys: Keys) -> None:
        self._asking = asking
        self._keys = keys
        self._entry_sizes: OrderedDict[str, int] = OrderedDict()

    async def read(self, stream: str, after: int) -> Page | None:
        log = self._keys.log(stream)
        known = self._entry_sizes.get(stream)
        count = FIRST_ENTRIES if known is None else max(1, min(PAGE_EVENTS, PAGE_BYTES // known))
        entries, end = await self._asking.ask(
            Command(log, pack(b"XRANGE", log, b"(1-%d" % after, b"(2-0", b"COUNT", b"%d" % count)),
            Command(log, TOP.call((log,))),
        )
        top = decode_top(end)
        if top is None:
            return None
        first, events, size, taken = _joined(stream, entries if isinstance(entries, list) else [], after)
        if taken:
            self._remember(stream, size // taken + 1)
        # Between the two something may have been added, or all of it lost.
        last = max(top.last, first + len(events) - 1) if events else top.last
        return Page(first, events, last, top.outcome, top.unfinished)

    async def state(self, stream: str) -> State | Tombstone | None:
        log, meta = self._keys.log(stream), self._keys.meta(stream)
        said, end, oldest = await self._asking.ask(
            Command(meta, pack(b"HMGET", meta, b"h", b"w", b"o", b"l")),
            Command(log, TOP.call((log,))),
            Command(log, pack(b"XRANGE", log, b"-", b"+", b"COUNT", b"1")),
        )
        match said:
            case [bytes(head), bytes(worker), outcome, last]:
                pass
            case _:
                return None
        top = decode_top(end)
        if top is None:
            return _tombstone(decode_head(head), outcome, last)
        first = top.last + 1
        entry = decode_entry(stream, oldest[0]) if isinstance(oldest, list) and oldest else None
        if entry is not None:
            first = entry[0] - len(entry[1]) + 1
        return State(decode_head(head), worker.decode(), first, top.last, top.outcome, top.unfinished)

    def forget(self, stream: str) -> None:
        self._entry_sizes.pop(stream, None)

    def _remember(self, stream: str, size: int) -> None:
        self._entry_sizes[stream] = size
        self._entry_sizes.move_to_end(stream)
        if len(self._entry_sizes) > REMEMBERED:
            self._entry_sizes.popitem(last=False)


def _joined(stream: str, entries: list[Reply], after: int) -> tuple[int, list[bytes | None], int, int]:
    """Of the entries behind ``after``: the first seq, the events, their size, and how many entries made them up."""
    first = after + 1
    events: list[bytes | None] = []
    size = taken = 0
    for reply in entries:
        entry = decode_entry(stream, reply)
        if entry is None or size >= PAGE_BYTES:
            break
        last, held = entry
        begins = last - len(held) + 1
        if not events:
            first = max(first, begins)
        elif begins > first + len(events):  # a hole
            break
        new = held[max(0, first + len(events) - begins) :]
        events += new
        size += sum(len(event or b"") for event in new)
        taken += 1
    return first, events, size, taken


def _tombstone(head: Head, outcome: Reply, last: Reply) -> Tombstone:
    # Without an outcome all of its workers were gone for so long that the log has expired before anybody ended it.
    ended = Outcome(outcome.decode()) if isinstance(outcome, bytes) else Outcome.INTERRUPTED
    return tombstone(head, ended, int(last) if isinstance(last, bytes) else 0)
