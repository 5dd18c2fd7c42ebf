"""Framing of newline-delimited JSON, held against a split of the whole body."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware.wire.ndjson import LineFramer
from streamware.wire.sse import Piece

LARGE = 1 << 20
BODIES = st.lists(st.sampled_from([b"\n", b"\r\n", b"\r", b"{}", b'{"a": 1}\n', b" ", b"\xe2\x98\x83"])).map(b"".join)
CUTS = st.lists(st.integers(0, 40), max_size=6)
LIMITS = st.sampled_from([2, 3, 5, 8, LARGE])


def parts(body: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    return [body[begin:end] for begin, end in itertools.pairwise(places)]


def framed(messages: list[bytes], limit: int = LARGE) -> tuple[list[tuple[bytes, bool]], bytes]:
    """The lines, each with whether it came in pieces, and the rest."""
    framer = LineFramer(limit)
    lines: list[tuple[bytes, bool]] = []
    pieces = b""
    for message in messages:
        for line in framer.feed(message):
            if isinstance(line, Piece):
                assert line.data
                pieces += line.data
                if line.last:
                    lines.append((pieces, True))
                    pieces = b""
            else:
                assert not pieces
                lines.append((line, False))
        assert len(framer.pending) <= limit
    return lines, pieces + framer.finish()


@given(BODIES, CUTS, LIMITS)
def test_any_split_of_the_bytes_gives_the_lines_of_the_whole(body: bytes, cuts: list[int], limit: int) -> None:
    *ended, rest = body.split(b"\n")
    lines = [line + b"\n" for line in ended if line not in (b"", b"\r")]
    expected = [(line, len(line) > limit) for line in lines], rest

    assert framed([body], limit) == expected
    assert framed(parts(body, cuts), limit) == expected
    assert framed([bytes([byte]) for byte in body], limit) == expected


def test_a_line_keeps_its_line_end() -> None:
    framer = LineFramer(LARGE)

    assert framer.feed(b'{"a": 1}\n') == [b'{"a": 1}\n']
    assert framer.feed(b"1\r\n2\n3") == [b"1\r\n", b"2\n"]
    assert framer.pending == b"3"
    assert framer.feed(b"4\n") == [b"34\n"]
    assert framer.pending == b""


@pytest.mark.parametrize("blank", [b"\n", b"\r\n", b"\n\n\r\n"])
def test_blank_lines_give_nothing(blank: bytes) -> None:
    framer = LineFramer(LARGE)

    assert framer.feed(blank) == []
    assert framer.feed(blank + b"1\n" + blank) == [b"1\n"]
    assert [line for byte in blank for line in framer.feed(bytes([byte]))] == []


def test_a_line_over_the_limit_leaves_in_pieces_as_they_arrive() -> None:
    framer = LineFramer(4)

    assert framer.feed(b"[1,2,") == [Piece(b"[1,2,", False)]
    assert framer.feed(b"3") == [Piece(b"3", False)]
    assert framer.feed(b"]\n[]\n") == [Piece(b"]\n", True), b"[]\n"]
    assert framer.feed(b"[4,5]\n1\n") == [Piece(b"[4,5]\n", True), b"1\n"]


def test_a_message_without_bytes_changes_nothing() -> None:
    framer = LineFramer(LARGE)

    assert framer.feed(b"") == []
    framer.feed(b"1")
    assert framer.feed(b"") == []
    assert framer.pending == b"1"


def test_the_last_line_may_lack_its_end() -> None:
    framer = LineFramer(LARGE)
    framer.feed(b"1\n2")

    assert framer.finish() == b"2"
    assert framer.finish() == b""
