"""From the bytes of a body to numbered events: what is added, what is taken away, and that clients agree."""

from __future__ import annotations

import asyncio
import itertools
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware.observe import CountingObserver
from streamware.stores.base import Batch, Head, LogReader, ProducerLog
from streamware.stores.memory import MemoryStore
from streamware.streams.writer import EventWriter, ForeignIds, body_of, jittered_milliseconds
from streamware.testing import FakeClock
from streamware.wire import sse

STREAM = "swAbCdEf0123456789012345678901"
HEAD = Head("", "client:a", "/chat", "GET", 200, (), "text/event-stream")


class Writing:
    """A writer, its log, and a reader of that."""

    def __init__(self, *, lines: bool = False, replace_ids: bool = False, max_event_bytes: int = 1000) -> None:
        self.observer = CountingObserver()
        self.writer = EventWriter(
            STREAM,
            lines=lines,
            max_event_bytes=max_event_bytes,
            replace_ids=replace_ids,
            retry=3.0,
            observer=self.observer,
        )
        self.log: ProducerLog
        self.reader: LogReader

    async def open(self) -> Writing:
        store = MemoryStore(clock=FakeClock())
        self.log = await store.create(STREAM, HEAD, window=10**9)
        self.reader = self.log.reader(0)
        return self

    async def feed(self, *bodies: bytes) -> None:
        """As the producer does it, fast path and all."""
        for body in bodies:
            if body and self.writer.write(self.log, body) is None:
                for item in self.writer.split(body):
                    if isinstance(item, bytes):
                        self.writer.append(self.log, item)
                    else:
                        passing = asyncio.ensure_future(self.writer.pass_piece(self.log, item))
                        await asyncio.sleep(0)
                        await self.take()
                        passing.cancel()

    async def take(self) -> bytes:
        """What has come since."""
        taken = b""
        while True:
            reading = asyncio.ensure_future(self.reader.read())
            for _ in range(3):
                await asyncio.sleep(0)
            if not reading.done():
                reading.cancel()
                self.seen = getattr(self, "seen", b"") + taken
                return taken
            batch: Batch | None = reading.result()
            assert batch is not None
            taken += b"".join(batch.events) + batch.aside

    async def wire(self, *bodies: bytes) -> bytes:
        """All that a reader gets of these bodies and the end behind them; ``retry`` as 0."""
        await self.feed(*bodies)
        await self.writer.finish(self.log)
        await self.take()
        return re.sub(rb"retry: \d+(?=[\r\n])", b"retry: 0", self.seen)

    def events(self) -> list[bytes]:
        return [event for event in self.log._events if event is not None]  # type: ignore[attr-defined]  # its memory


def numbered(seq: int) -> bytes:
    return b"id: %s.%d" % (STREAM.encode(), seq)


async def test_the_id_is_the_last_line_of_each_event_and_the_first_has_the_retry() -> None:
    wire = await (await Writing().open()).wire(b"data: 1\n\n", b"event: a\ndata: 2\n\n")
    assert wire == b"data: 1\nretry: 0\n%b\n\nevent: a\ndata: 2\n%b\n\n" % (numbered(1), numbered(2))


async def test_event_and_id_are_one_event_of_the_log() -> None:
    writing = await Writing().open()
    await writing.feed(b"data: 1\n\ndata: 2\n\n", b"data: 3\n\n")
    assert [event.count(b"id: ") for event in writing.events()] == [1, 1, 1]
    assert all(event.endswith(b"\n\n") for event in writing.events())
    assert (writing.log.last, writing.writer.seq) == (3, 3)


WAYS = {
    "whole": b"data: x\n\n",
    "of two lines": b"event: a\ndata: x\n\n",
    "with carriage returns": b"data: x\r\n\r\n",
    "with an id": b"data: x\nid: own\n\n",
}


@given(st.lists(st.tuples(st.sampled_from(sorted(WAYS)), st.integers(1, 99)), min_size=4, max_size=12), st.booleans())
def test_every_event_has_the_number_after_the_last_whichever_way_it_comes(
    runs: list[tuple[str, int]], oversize: bool
) -> None:
    bodies = [b"data: x\n\n" * 98, *(WAYS[way] for way, times in runs for _ in range(times))]
    if oversize:
        bodies.insert(1, b"data: " + b"x" * 2000 + b"\n\n")

    async def write() -> tuple[Writing, bytes]:
        writing = await Writing(replace_ids=True).open()
        return writing, await writing.wire(*bodies)

    writing, wire = asyncio.run(write())
    ids = re.findall(rb"^id: .*?(\d+)\r?$", wire, re.MULTILINE)
    count = 98 + oversize + sum(times for _, times in runs)
    assert ids == [b"%d" % seq for seq in range(1, count + 1)]
    assert (writing.log.last, writing.writer.seq) == (count, count)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
async def test_each_block_keeps_its_own_line_end(end: bytes) -> None:
    body = end.join([b"data: 1", b"", b"data: 2", b"", b""])
    wire = await (await Writing().open()).wire(body)
    assert wire == end.join([b"data: 1", b"retry: 0", numbered(1), b"", b"data: 2", numbered(2), b"", b""])


async def test_an_apps_own_retry_stays_as_it_is() -> None:
    writing = await Writing().open()
    await writing.feed(b"retry: 77\ndata: 1\n\n")
    assert await writing.take() == b"retry: 77\ndata: 1\n%b\n\n" % numbered(1)


def test_retry_is_spread_by_a_half_either_way() -> None:
    random.seed(1)
    spread = [jittered_milliseconds(3.0) for _ in range(1000)]
    assert 1500 <= min(spread) < 1550
    assert 4450 < max(spread) <= 4500


async def test_a_byte_order_mark_in_mid_stream_does_not_open_an_event_of_the_log() -> None:
    """There it is part of a field's name. At the start of a replay it would be a mark again, and be taken away."""
    mark = b"\xef\xbb\xbf"
    writing = await Writing().open()
    await writing.feed(b"data: 1\n\n", mark + b"data: x\ndata: 2\n\n")
    event = writing.events()[1]
    assert sse.Interpreter().feed(event) == sse.Interpreter().feed(b"\n" + event)
    assert [one.data for one in sse.Interpreter().feed(event)] == ["2"]


async def test_a_byte_order_mark_is_taken_away() -> None:
    wire = await (await Writing().open()).wire(b"\xef\xbb", b"\xbfdata: 1\n\n")
    assert wire == b"data: 1\nretry: 0\n%b\n\n" % numbered(1)


# -- comments


async def test_comments_reach_who_is_there_with_one_newline_and_no_log() -> None:
    writing = await Writing().open()
    await writing.feed(b"data: 1\n\n")
    await writing.take()
    await writing.feed(b": ping\n\n", b": a\n: b\r\n\r\n")
    assert await writing.take() == b": ping\n: a\n: b\r\n"
    assert (writing.log.last, writing.writer.seq) == (1, 1)


async def test_a_comment_within_an_event_is_part_of_it() -> None:
    wire = await (await Writing().open()).wire(b": about\ndata: 1\n\n")
    assert wire == b": about\ndata: 1\nretry: 0\n%b\n\n" % numbered(1)


async def test_the_first_event_is_found_behind_what_is_none() -> None:
    writing = await Writing().open()
    items = writing.writer.split(b": ping\n\nretry: 5\n\ndata: 1\n\ndata: 2\n\n")
    assert writing.writer.first_event(items) == (b": ping\nretry: 5\n\n", 2)
    assert writing.writer.first_event(items[:2]) == (b": ping\nretry: 5\n\n", None)
    assert writing.writer.first_event([]) == (b"", None)
    assert writing.writer.first_event([sse.Piece(b"data", False)]) == (b"", 0)


# -- an app's own ids


async def test_an_id_in_the_first_event_makes_the_stream_the_apps_own() -> None:
    for body in (b"id: 7\ndata: 1\n\n", b"data: 1\nid\n\n", b": x\nid: 7\n\n"):
        writing = await Writing().open()
        (item,) = writing.writer.split(body)
        assert isinstance(item, bytes)
        assert writing.writer.app_id(item) is not None
        with pytest.raises(ForeignIds):
            writing.writer.append(writing.log, item)
        assert (writing.log.last, writing.writer.seq) == (0, 0)


async def test_a_foreign_stream_can_be_handed_back_byte_by_byte() -> None:
    writing = await Writing().open()
    body = b"id: 7\ndata: 1\n\nid: 8\r\ndata: 2\r\n\r\ndata: unfini"
    assert writing.writer.unsplit(writing.writer.split(body)) == body


async def test_ids_that_come_late_are_removed_and_counted() -> None:
    writing = await Writing().open()
    wire = await writing.wire(b"data: 1\n\n", b"id: 7\ndata: 2\n\n", b"data: 3\nid: 8\n\n", b"id: 9\n\n")
    assert wire == b"data: 1\nretry: 0\n%b\n\ndata: 2\n%b\n\ndata: 3\n%b\n\n" % tuple(map(numbered, (1, 2, 3)))
    assert writing.observer.counts == {("resume.app_id_removed", "late"): 3}


async def test_replace_takes_a_stream_with_ids_over() -> None:
    writing = await Writing(replace_ids=True).open()
    (item,) = writing.writer.split(b"id: 7\ndata: 1\n\n")
    assert isinstance(item, bytes)
    assert writing.writer.app_id(item) is None
    writing.writer.append(writing.log, item)
    assert writing.events()[0].count(b"id:") == 1
    assert writing.observer.counts == {("resume.app_id_removed", "replaced"): 1}


async def test_an_id_in_the_data_is_no_id() -> None:
    wire = await (await Writing().open()).wire(b'data: {"id": 7}\n\n', b"data: x\ndata: id: 7\nidx: 1\n\n")
    assert wire == b'data: {"id": 7}\nretry: 0\n%b\n\ndata: x\ndata: id: 7\nidx: 1\n%b\n\n' % (numbered(1), numbered(2))


# -- the end of the body


async def test_an_unfinished_end_is_logged_without_an_id() -> None:
    writing = await Writing().open()
    wire = await writing.wire(b"data: 1\n\n", b"data: half")
    assert wire.endswith(b"\n\ndata: half")
    assert writing.log.last == 2
    assert writing.log.unfinished is True


@pytest.mark.parametrize("end", [b": bye\n", b": bye", b": bye\r\n: for good\r\n"])
async def test_a_comment_at_the_very_end_is_no_event(end: bytes) -> None:
    writing = await Writing().open()
    assert (await writing.wire(b"data: 1\n\n", end)).endswith(b"\n\n" + end)
    assert writing.log.last == 1
    assert writing.log.unfinished is False


async def test_blank_lines_at_the_end_are_no_event() -> None:
    writing = await Writing().open()
    await writing.wire(b"data: 1\n\n", b"\n\n\r\n", b"")
    assert writing.log.last == 1
    assert writing.log.unfinished is False


# -- events too large to keep


async def test_a_large_event_reaches_live_readers_with_its_id_and_leaves_its_seq() -> None:
    writing = await Writing(max_event_bytes=20).open()
    large = b"data: " + b"x" * 100 + b"\ndata: y\n\n"
    wire = await writing.wire(b"data: 1\n\n", large[:30], large[30:], b"data: 3\n\n")
    assert wire == b"data: 1\nretry: 0\n%b\n\n" % numbered(1) + large[:-1] + b"%b\n\ndata: 3\n%b\n\n" % (
        numbered(2), numbered(3),
    )  # fmt: skip
    assert (writing.log.last, writing.writer.seq) == (3, 3)
    assert [event for event in writing.events() if b"x" in event] == []
    assert writing.observer.counts == {("resume.oversize_event", ""): 1}


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
async def test_a_large_event_keeps_its_line_end(end: bytes) -> None:
    writing = await Writing(max_event_bytes=20).open()
    wire = await writing.wire(b"data: 1\n\n", b"data: " + b"x" * 100 + end + end)
    assert wire.endswith(b"x" + end + numbered(2) + end + end)


# -- NDJSON


async def test_lines_are_numbered_but_never_changed() -> None:
    writing = await Writing(lines=True).open()
    body = b'{"id": 1}\n\n{"a":\r\n: no comment\nid: 7\n{"end": tru'
    assert await writing.wire(body[:12], body[12:]) == body.replace(b"\n\n", b"\n")
    assert writing.log.last == 5
    assert writing.log.unfinished is False, "JSON readers take it for the last line"


# -- the fast path


@pytest.mark.parametrize(
    "body",
    [
        b"data: 1\n", b"data: 1", b"\n\n", b"\n", b": ping\n\n", b"id: 7\n\n", b"data: 1\r\n\r\n", b"data: 1\r\r",
        b"data: 1\rid: 7\n\n", b"data: 1\ndata: 2\n\n", b"data: 1\n\ndata: 2\n\n", b"event: x\n\n", b"retry: 5\n\n",
        b"\ndata: 1\n\n", b"\xef\xbb\xbfdata: 1\n\n", b"data: " + b"x" * 1000 + b"\n\n", b"data: 1\n\n\n",
    ],
)  # fmt: skip
async def test_the_fast_path_is_for_one_whole_event_of_one_line(body: bytes) -> None:
    writing = await Writing().open()
    await writing.feed(b"data: 0\n\n")
    assert writing.writer.write(writing.log, body) is None
    assert (writing.log.last, writing.writer.seq) == (1, 1), "and nothing is done"


async def test_the_fast_path_is_taken_for_what_it_is_for_and_not_in_mid_event() -> None:
    writing = await Writing().open()
    assert writing.writer.write(writing.log, b"data: 1\n\n") is None, "the first event needs a closer look"
    await writing.feed(b"data: 1\n\n")
    assert writing.writer.write(writing.log, b"data: 2\n\n") is True
    await writing.feed(b"data: ha")
    assert writing.writer.write(writing.log, b"data: 3\n\n") is None
    writing = await Writing(lines=True).open()
    await writing.feed(b"1\n")
    assert writing.writer.write(writing.log, b"data: 1\n\n") is None


BLOCKS = [
    b"data: 1\n\n", b"data: 2\r\n\r\n", b"data: 3\r\r", b": ping\n\n", b"event: a\ndata: b\ndata: c\n\n", b"\n",
    b"data\n\n", b"data: \xff\xfe\n\n", b"data: id: 4\n\n", b":c\ndata: 5\n\n", b"data: " + b"x" * 50 + b"\n\n",
    b"data: \xc3\xa4\r\ndata: 6\r\n\r\n",
]  # fmt: skip


@given(
    blocks=st.lists(st.sampled_from(BLOCKS), max_size=12), cuts=st.lists(st.integers(0, 400), max_size=12),
    max_event_bytes=st.sampled_from([1000, 30]),
)  # fmt: skip
def test_whatever_the_messages_clients_see_the_apps_events_numbered(
    blocks: list[bytes], cuts: list[int], max_event_bytes: int
) -> None:
    body = b"data: first\n\n" + b"".join(blocks)
    places = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    messages = [body[begin:end] for begin, end in itertools.pairwise(places)]

    async def run() -> bytes:
        return await (await Writing(max_event_bytes=max_event_bytes).open()).wire(*messages)

    wire = asyncio.run(run())
    bare = sse.Interpreter().feed(body)
    ours = sse.Interpreter().feed(wire)
    assert [(event.event, event.data) for event in ours] == [(event.event, event.data) for event in bare]
    ids = [int((event.id or "").rpartition(".")[2]) for event in ours]
    assert ids == list(range(1, len(ours) + 1)), "every event has an id of its own, in order"


# -- bodies


def test_a_body_is_anything_like_bytes_and_a_copy_of_it() -> None:
    buffer = bytearray(b"data")
    body = body_of({"type": "http.response.body", "body": buffer})
    buffer[:] = b"gone"
    assert body == b"data"
    assert body_of({"type": "http.response.body", "body": memoryview(b"data")[1:]}) == b"ata"
    assert body_of({"type": "http.response.body"}) == b""


@pytest.mark.parametrize("body", [5, "text", None, [1], 1.5])
def test_a_body_of_another_type_is_an_error_of_the_apps(body: object) -> None:
    with pytest.raises(TypeError):
        body_of({"type": "http.response.body", "body": body})
