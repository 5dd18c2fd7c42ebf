"""Events without their id lines: what comes out is what went in."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware.stores.redis_events import id_line, pack_events, unpack_events

STREAM, OTHER = "swabcdef" + "A" * 22, "swabcdef" + "B" * 22
seqs = st.integers(1, 10**15 - 1)
bodies = st.sampled_from([b"", b"data: a\n", b"data: a\r\n", b": ping\n", b"data: \xff\xc1\n"]) | st.binary(max_size=40)


@st.composite
def entries(draw: st.DrawFn) -> tuple[int, list[bytes | None]]:
    first = draw(seqs)
    events: list[bytes | None] = []
    for seq in range(first, first + draw(st.integers(0, 6))):
        line = draw(
            st.sampled_from(
                [b"id: %b.%d\n\n" % (STREAM.encode(), seq)] * 8
                + [b"id: %b.%d\n\n" % (STREAM.encode(), seq + 1), b"id: %b.%d\n\n" % (OTHER.encode(), seq), b"\n"]
            )
        )
        events.append(draw(st.none() | st.just(draw(bodies) + line)))
    return first, events


@given(entries())
def test_what_comes_out_is_what_went_in(entry: tuple[int, list[bytes | None]]) -> None:
    first, events = entry
    assert unpack_events(STREAM, first + len(events) - 1, pack_events(id_line(STREAM), first, events)) == events


def test_events_of_the_streams_own_ids_are_kept_without_them() -> None:
    events = [b"data: %d\nid: %b.%d\n\n" % (seq, STREAM.encode(), seq) for seq in range(1, 101)]
    packed = pack_events(id_line(STREAM), 1, events)
    assert STREAM.encode() not in packed
    assert len(packed) < sum(map(len, events)) / 3


@pytest.mark.parametrize(
    "end",
    [b"id: 1\n\n", b"id: %b.1\r\n\r\n" % STREAM.encode(), b"id: %b.2\n\n" % STREAM.encode(), b"\n"],
    ids=["another id", "crlf", "another number", "no id"],
)
def test_an_event_that_ends_otherwise_keeps_its_entry_as_it_is(end: bytes) -> None:
    packed = pack_events(id_line(STREAM), 1, [b"data: a\n" + end])
    assert end in packed
    assert unpack_events(STREAM, 1, packed) == [b"data: a\n" + end]


@given(st.binary(max_size=60))
def test_what_is_no_entry_is_an_error_of_its_own_kind(data: bytes) -> None:
    for garbage in (data, b"\xc1" + data):
        with contextlib.suppress(msgspec.MsgspecError):
            unpack_events(STREAM, 5, garbage)
