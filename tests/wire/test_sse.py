"""Framing and encoding of event streams, held against a reading of the whole body line by line."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from streamware.wire.sse import (
    Event,
    EventFramer,
    Interpreter,
    Piece,
    comment,
    control_event,
    has_field,
    is_comment,
    line_end,
    own_id,
    parse,
    primer,
    with_id,
    with_retry,
    without_ids,
)

BOM = b"\xef\xbb\xbf"
LARGE = 1 << 20
CURSOR = b"swAbCdEf0123456789abcdefghijkl.7"

# What matters in a body, several times as likely as letters; and any bytes at all.
TOKENS = ["\r", "\n", "\r\n", "\n\n", "\r\n\r\n", "data: x", "data:", "id: 5", "id", "id:\0", "idle: 1", "event: e"]
TOKENS += [": ping", "retry: 5", "a", "i", '"id": 1', "\N{SNOWMAN}", "\0"]
STREAMS = st.lists(st.sampled_from([token.encode() for token in TOKENS] + [BOM, b"\xef", b"\xff"])).map(b"".join)
BODIES = STREAMS | st.binary(max_size=40)
CUTS = st.lists(st.integers(0, 60), max_size=6)
LIMITS = st.sampled_from([1, 2, 3, 5, 8, LARGE])


def parts(body: bytes, cuts: list[int]) -> list[bytes]:
    """``body`` cut at these places, some of which may make an empty message."""
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    return [body[begin:end] for begin, end in itertools.pairwise(places)]


def framed(messages: list[bytes], limit: int = LARGE) -> tuple[list[tuple[bytes, bool]], bytes]:
    """The blocks, each with whether it came in pieces, and the rest. Checks what holds for every piece."""
    framer = EventFramer(limit)
    blocks: list[tuple[bytes, bool]] = []
    pieces = b""
    for message in messages:
        for block in framer.feed(message):
            if isinstance(block, Piece):
                assert block.data
                pieces += block.data
                if block.last:
                    blocks.append((pieces, True))
                    pieces = b""
            else:
                assert not pieces
                assert len(block) <= limit
                blocks.append((block, False))
        assert len(framer.pending) <= limit + 2
    return blocks, pieces + framer.finish()


def read_by_line(body: bytes, limit: int = LARGE) -> tuple[list[tuple[bytes, bool]], bytes]:
    """The same, with nothing clever."""
    blocks: list[tuple[bytes, bool]] = []
    block = b""
    for line in body.removeprefix(BOM).splitlines(keepends=True):
        if line.strip(b"\r\n"):
            block += line
        elif block:
            blocks.append((block, len(block) > limit))
            block = b""
    return blocks, block


def id_by_line(block: bytes) -> bytes | None:
    """The value of the last ``id`` field, by the letter of the standard."""
    value = None
    for line in block.splitlines():
        name, _, rest = line.partition(b":")
        if name == b"id" and b"\0" not in rest:
            value = rest.removeprefix(b" ")
    return value


def interpreted(body: bytes, cuts: list[int] | None = None) -> list[Event]:
    interpreter = Interpreter()
    return [event for part in parts(body, cuts or []) for event in interpreter.feed(part)]


# --- framing ---------------------------------------------------------------------------------------------------------


@given(BODIES, CUTS, LIMITS)
@example(b"data: a\r\r\ndata: b\r\r", [9], LARGE)
@example(BOM + b"data: a\n\n", [1, 2], LARGE)
@example(b"data: aaaa\r\n\r\n", [8, 10, 11, 12], 3)
def test_any_split_of_the_bytes_gives_the_same_blocks(body: bytes, cuts: list[int], limit: int) -> None:
    whole = framed([body], limit)

    assert framed(parts(body, cuts), limit) == whole
    assert framed([bytes([byte]) for byte in body], limit) == whole


@given(BODIES.filter(lambda body: body not in (BOM[:1], BOM[:2])), LIMITS)
def test_blocks_are_those_of_a_reading_line_by_line(body: bytes, limit: int) -> None:
    assert framed([body], limit) == read_by_line(body, limit)


@given(BODIES)
def test_no_byte_but_blank_lines_and_the_mark_is_lost_or_added(body: bytes) -> None:
    blocks, rest = framed([body])

    kept = b"".join(block for block, _ in blocks) + rest

    def without_line_ends(data: bytes) -> bytes:
        return data.replace(b"\r", b"").replace(b"\n", b"")

    assert without_line_ends(kept) == without_line_ends(body.removeprefix(BOM))


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("lines", [[b"data: a"], [b"event: e", b"data: a", b"data: b"], [b": c"]])
def test_one_message_that_is_one_event_gives_its_block_at_once(end: bytes, lines: list[bytes]) -> None:
    block = b"".join(line + end for line in lines)
    framer = EventFramer(LARGE)

    for _ in range(3):
        assert framer.feed(block + end) == [block]
        assert framer.pending == b""


def test_a_message_of_many_events_gives_them_all() -> None:
    framer = EventFramer(LARGE)

    assert framer.feed(b"data: a\n\ndata: b\r\n\r\ndata: c\r\rdata: d\n\r\ndat") == [
        b"data: a\n",
        b"data: b\r\n",
        b"data: c\r",
        b"data: d\n",
    ]
    assert framer.pending == b"dat"
    assert framer.feed(b"a: e\n\n") == [b"data: e\n"]


def test_a_cr_that_ends_a_block_does_not_wait_for_the_lf_that_may_follow() -> None:
    framer = EventFramer(LARGE)

    assert framer.feed(b"data: a\r\n\r") == [b"data: a\r\n"]
    assert framer.feed(b"\ndata: b\r\r") == [b"data: b\r"]
    assert framer.feed(b"\n") == []
    assert framer.pending == b""


def test_a_cr_at_the_end_of_a_message_may_be_half_of_a_line_end() -> None:
    framer = EventFramer(LARGE)

    assert framer.feed(b"data: a\r") == []
    assert framer.feed(b"\n") == []
    assert framer.feed(b"\n") == [b"data: a\r\n"]


def test_blank_lines_between_blocks_give_nothing() -> None:
    framer = EventFramer(LARGE)

    assert framer.feed(b"\n\r\n\r\n\n") == []
    assert framer.feed(b"\n") == []
    assert framer.feed(b"\ndata: a\n\n\n\n") == [b"data: a\n"]
    assert framer.pending == b""


def test_only_the_mark_that_opens_the_stream_is_stripped() -> None:
    framer = EventFramer(LARGE)

    assert framer.feed(BOM[:1]) == framer.feed(BOM[1:2]) == framer.feed(BOM[2:]) == framer.feed(b"") == []
    assert framer.feed(BOM + b"data: a\n\n") == [BOM + b"data: a\n"]
    assert framer.feed(BOM + b"data: b\n\n") == [BOM + b"data: b\n"]


def test_a_beginning_that_only_looks_like_the_mark_is_kept() -> None:
    framer = EventFramer(LARGE)

    assert framer.feed(BOM[:2]) == []
    assert framer.pending == BOM[:2]
    assert framer.feed(b"\n\n") == [BOM[:2] + b"\n"]


def test_the_unfinished_rest_is_given_at_the_end_and_once() -> None:
    framer = EventFramer(LARGE)
    framer.feed(b"data: a\n\ndata: b\r")

    assert framer.finish() == b"data: b\r"
    assert framer.finish() == b""


def test_a_rest_that_was_given_leaves_nothing_behind() -> None:
    framer = EventFramer(4)
    framer.feed(b"data: aaaa\r")

    assert framer.finish() == b"\r"
    assert framer.feed(b"a\n\n") == [b"a\n"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_last_piece_ends_with_a_whole_line_end(end: bytes) -> None:
    """So that an id line can be put behind it."""
    framer = EventFramer(4)
    pieces = [piece for byte in b"data: abc" + end + end for piece in framer.feed(bytes([byte]))]

    assert all(isinstance(piece, Piece) for piece in pieces)
    assert [piece.last for piece in pieces if isinstance(piece, Piece)] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1] == Piece(end, True)


def test_pieces_leave_as_they_arrive() -> None:
    framer = EventFramer(8)

    assert framer.feed(b"data: abcd") == [Piece(b"data: abcd", False)]
    assert framer.feed(b"e") == [Piece(b"e", False)]
    assert framer.feed(b"\n") == []
    assert framer.feed(b"data: f\n") == [Piece(b"\ndata: f", False)]
    assert framer.feed(b"\ndata: g\n\n") == [Piece(b"\n", True), b"data: g\n"]


def test_an_event_of_exactly_the_limit_is_whole() -> None:
    block = b"data: abc\n"

    assert framed([block + b"\n"], len(block)) == ([(block, False)], b"")
    assert framed([block, b"\n"], len(block)) == ([(block, False)], b"")
    assert framed([block + b"\n"], len(block) - 1) == ([(block, True)], b"")


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_large_event_fed_by_the_byte_is_searched_once(end: bytes) -> None:
    """Linear work: what has been looked at is not looked at again, however many messages an event takes."""

    class CountingFramer(EventFramer):
        looked_at = 0

        def _go_on(self, data: bytes) -> list[bytes | Piece]:
            before = len(self._buffer)
            type(self).looked_at += before - max(0, before - 2) + len(data)
            return super()._go_on(data)

    framer = CountingFramer(LARGE)
    size = 20_000
    body = b"data: " + b"x" * size + end

    assert [block for byte in body for block in framer.feed(bytes([byte]))] == []
    assert framer.feed(end) == [body]
    assert CountingFramer.looked_at <= 4 * size


# --- what is written -------------------------------------------------------------------------------------------------


@given(STREAMS, CUTS)
def test_ids_added_to_every_block_change_nothing_else_that_a_client_sees(body: bytes, cuts: list[int]) -> None:
    plain = body.removeprefix(BOM)
    blocks, _ = framed(parts(plain, cuts))
    # Blank lines are gone, and what was behind them may now be at the start, where U+FEFF is a mark: the writer's task.
    assume(not blocks or not blocks[0][0].startswith(BOM))
    named = b"".join(with_id(without_ids(block), CURSOR + b"%d" % at) for at, (block, _) in enumerate(blocks))

    before, after = interpreted(plain), interpreted(named, cuts)

    assert [(event.event, event.data) for event in after] == [(event.event, event.data) for event in before]
    with_data = [CURSOR + b"%d" % at for at, (block, _) in enumerate(blocks) if parse(block).has_data]
    assert [(event.id or "").encode() for event in after] == with_data


@given(STREAMS, CUTS)
def test_framing_alone_changes_nothing_that_a_client_sees(body: bytes, cuts: list[int]) -> None:
    blocks, _ = framed(parts(body, cuts))
    again = b"".join(block + line_end(block) for block, _ in blocks)

    # A second mark is part of the first line, and must not become the one that opens the stream.
    assert interpreted(BOM + again) == interpreted(body)


@given(STREAMS)
@example(b"data: a\r\ndata: b\rid: 1\r\n")
@example(b"data: a\r\nx\rid\n")
def test_own_id_agrees_with_a_reading_line_by_line(body: bytes) -> None:
    for block, _ in framed([body])[0]:
        assert own_id(block) == id_by_line(block)
        assert own_id(with_id(block, CURSOR)) == CURSOR


@given(STREAMS)
def test_without_ids_removes_id_lines_and_nothing_else(body: bytes) -> None:
    for block, _ in framed([body])[0]:
        left = without_ids(block)

        assert not has_field(left, b"id")
        lines = block.splitlines(keepends=True)
        assert left == b"".join(line for line in lines if line.strip(b"\r\n").partition(b":")[0] != b"id")


@pytest.mark.parametrize(
    ("block", "value"),
    [
        (b"id: 5\n", b"5"),
        (b"id:5\r\n", b"5"),
        (b"id:  5 \n", b" 5 "),
        (b"id\ndata: a\n", b""),
        (b"id:\r", b""),
        (b"data: a\nid: 1\nid: 2\n", b"2"),
        (b"id: 1\nid: a\0b\n", b"1"),
        (b"id: a\0b\n", None),
        (b"data: a\rid: 3\r", b"3"),
        (b'data: {"id": 5}\n', None),
        (b"data: a\nidle: 5\n", None),
        (b"data: id: 5\ndata:id: 5\n", None),
        (b" id: 5\n", None),
        (b"ID: 5\n", None),
        (b"data: a\nid: 9", b"9"),
        (b"event: e\ndata: a", None),
        (b"data: a\r\nevent: e", None),
        (b"", None),
    ],
)
def test_own_id(block: bytes, value: bytes | None) -> None:
    assert own_id(block) == value


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_id_is_the_last_line_of_its_block(end: bytes) -> None:
    assert with_id(b"event: e" + end + b"data: a" + end, b"x.1") == end.join(
        [b"event: e", b"data: a", b"id: x.1", b"", b""]
    )


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_retry_goes_inside_the_block(end: bytes) -> None:
    assert with_retry(b"data: a" + end, 2500) == b"data: a" + end + b"retry: 2500" + end


@pytest.mark.parametrize("block", [b"retry: 5\ndata: a\n", b"data: a\r\nretry:5\r\n", b"data: a\nretry\n"])
def test_an_apps_own_retry_stands(block: bytes) -> None:
    assert with_retry(block, 2500) == block


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b":\n", True),
        (b": ping\r\n", True),
        (b": a\r: b\r", True),
        (b": a\ndata: b\n", False),
        (b"data: b\n: a\n", False),
        (b"event: ping\n", False),
        (b"", False),
    ],
)
def test_is_comment(block: bytes, expected: bool) -> None:
    assert is_comment(block) is expected


@pytest.mark.parametrize(
    ("block", "name", "expected"),
    [
        (b"data: a\n", b"data", True),
        (b"data\n", b"data", True),
        (b"database: a\n", b"data", False),
        (b"event: data: a\n", b"data", False),
        (b": data\n", b"data", False),
        (b"event: e\r\nretry:5\r\n", b"retry", True),
    ],
)
def test_has_field(block: bytes, name: bytes, expected: bool) -> None:
    assert has_field(block, name) is expected


@pytest.mark.parametrize(
    ("block", "end"), [(b"a\n", b"\n"), (b"a\r\n", b"\r\n"), (b"a\n\r", b"\r"), (b"a\r\nb\n", b"\n"), (b"a", b"\n")]
)
def test_line_end_is_that_of_the_last_line(block: bytes, end: bytes) -> None:
    assert line_end(block) == end


def test_a_comment_ends_with_one_newline_only() -> None:
    assert comment() == b":\n"
    assert comment("still here \N{SNOWMAN}") == ": still here \N{SNOWMAN}\n".encode()


@pytest.mark.parametrize("text", ["a\nb", "a\r", "\n"])
def test_a_comment_of_several_lines_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="one line"):
        comment(text)


def test_a_comment_dispatches_nothing_and_moves_no_id() -> None:
    body = b"id: 1\ndata: a\n\n" + comment("hb") + comment() + b"data: b\n\n"

    assert [(event.data, event.id) for event in interpreted(body)] == [("a", "1"), ("b", "1")]


def test_a_control_event_has_json_data_and_no_id() -> None:
    block = control_event("reset", {"reason": "gap", "text": "two\nlines"})

    assert block == b'event: streamware.reset\ndata: {"reason":"gap","text":"two\\nlines"}\n\n'
    assert own_id(block) is None


def test_a_primer_gives_a_cursor_and_dispatches_nothing() -> None:
    interpreter = Interpreter()

    assert interpreter.feed(primer(CURSOR, 4000)) == []
    assert interpreter.last_event_id == CURSOR.decode()
    assert interpreter.retry == 4000
    assert primer(b"x.0") == b"id: x.0\n\n"
