"""Where a heartbeat may go: the boundary trackers against a byte-by-byte reading of the same rules."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware.wire.boundary import EventBoundary, LineBoundary

BYTES = st.lists(st.sampled_from([b"\r", b"\n", b"\n\n", b"\r\n", b"\r\n\r\n", b":", b": c\n", b"data: x", b"a"])).map(
    b"".join
)


def parts(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` cut at these places."""
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[begin:end] for begin, end in itertools.pairwise(places)] or [b""]


def inside_an_event(data: bytes) -> bool:
    """Whether ``data`` ends inside an event or a line, by the letter of HTML §9.2.6 and with nothing clever."""
    text = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    *lines, rest = text.split(b"\n")
    event = False
    for line in lines:
        if not line:
            event = False
        elif not line.startswith(b":"):
            event = True
    return event or bool(rest)


@pytest.mark.parametrize(
    ("data", "between"),
    [
        (b"", True),
        (b"data: a\n\n", True),
        (b"data: a\r\n\r\n", True),
        (b"data: a\n\r\n", True),
        (b"data: a", False),
        (b"data: a\n", False),
        (b"data: a\r\n", False),
        (b"data: a\n\r", False),
        (b"data: a\r\n\r", False),
        (b"data: a\r\r", True),
        (b"data: a\r\rdata: b\r", False),
        (b"data: a\r\rdata: b\r\r", True),
        (b"\r", False),
        (b"\n", True),
        (b": ping\n", True),
        (b": ping", False),
        (b":", False),
        (b":\n:\n", True),
        (b"data: a\n: ping\n", False),
        (b"data: a\n: ping\n\n", True),
        (b"data: a\n\n: ping\n", True),
        (b"data: a\n\nid: 1\n", False),
        (b"id: 1\n\n", True),
        (b"\xef\xbb\xbfdata: a\n\n", True),
        (b"\n\ndata: a", False),
    ],
)
def test_tells_whether_the_bytes_end_between_events(data: bytes, between: bool) -> None:
    whole, single = EventBoundary(), EventBoundary()

    whole.feed(data)
    for index in range(len(data)):
        single.feed(data[index : index + 1])

    assert (whole.between, single.between) == (between, between)


@given(data=BYTES, cuts=st.lists(st.integers(0, 60)))
def test_is_never_between_inside_an_event_however_the_bytes_are_split(data: bytes, cuts: list[int]) -> None:
    boundary = EventBoundary()
    fed = b""

    for part in parts(data, cuts):
        boundary.feed(part)
        fed += part

        assert not (boundary.between and inside_an_event(fed))


@given(data=BYTES.map(lambda data: data.replace(b"\r", b"")), cuts=st.lists(st.integers(0, 60)))
def test_finds_every_boundary_of_a_stream_without_cr(data: bytes, cuts: list[int]) -> None:
    boundary = EventBoundary()
    fed = b""

    for part in parts(data, cuts):
        boundary.feed(part)
        fed += part

        assert boundary.between is not inside_an_event(fed)


@given(data=BYTES, cuts=st.lists(st.integers(0, 60)))
def test_a_held_back_cr_never_lets_a_line_feed_end_the_event_twice(data: bytes, cuts: list[int]) -> None:
    """A CRLF that is split over two messages is one line end: what is told before its LF is told after it."""
    boundary = EventBoundary()
    for part in parts(data + b"\n\ndata: x\r", cuts):
        boundary.feed(part)

    boundary.feed(b"\n")
    assert not boundary.between

    boundary.feed(b"\r\n")
    assert boundary.between


def test_a_torn_message_closes_the_boundary_until_a_blank_line() -> None:
    boundary = EventBoundary()
    boundary.feed(b"data: a\n\n")

    boundary.tear()
    assert not boundary.between
    boundary.feed(b"\n")
    assert not boundary.between
    boundary.feed(b"data: b\n\n")
    assert boundary.between


def test_large_messages_are_looked_at_from_their_end() -> None:
    boundary = EventBoundary()

    boundary.feed(b"data: a\n\n" * 100_000 + b"data: b\n")
    assert not boundary.between

    boundary.feed(b"\n")
    assert boundary.between


def test_lines_end_in_a_line_feed() -> None:
    boundary = LineBoundary()
    assert boundary.between

    seen = []
    for part in (b"{}\n", b"{", b"", b"}\r", b"\n", b"{}\n{}\n"):
        boundary.feed(part)
        seen.append(boundary.between)
    boundary.tear()

    assert seen == [True, False, False, False, True, True]
    assert not boundary.between
