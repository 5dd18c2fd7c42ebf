"""Stream ids and cursors: one exact shape, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware.wire.cursor import Cursor, is_stream_id, new_stream_id, new_tag, parse_cursor, stream_tag

STREAM = "swAb3dEf" + "0123456789-_abcdefghij"


class Untouchable(bytes):
    """Bytes of a length, which nobody may look into."""

    def __len__(self) -> int:
        return 1_000_000

    def decode(self, *args: object, **kwargs: object) -> str:
        raise AssertionError("looked into")


def test_a_new_stream_id_carries_its_tag_and_has_the_shape() -> None:
    tag = new_tag()
    stream = new_stream_id(tag)

    assert len(tag) == 6
    assert tag.isalnum()
    assert stream_tag(stream) == tag
    assert len(stream) == 30
    assert is_stream_id(stream)


def test_stream_ids_and_tags_do_not_repeat() -> None:
    assert len({new_stream_id("aaaaaa") for _ in range(1000)}) == 1000
    assert len({new_tag() for _ in range(1000)}) > 990


@pytest.mark.parametrize("tag", ["", "short", "toolong", "a.b.c.", "ab-cd_", "\xe4bcdef"])
def test_a_tag_of_another_shape_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="6 letters or digits"):
        new_stream_id(tag)


@given(st.integers(0, 10**15 - 1))
def test_a_cursor_reads_back_as_it_was_written(seq: int) -> None:
    cursor = Cursor(new_stream_id("Tag123"), seq)

    assert parse_cursor(str(cursor)) == parse_cursor(str(cursor).encode()) == cursor
    assert cursor.tag == "Tag123"
    assert len(str(cursor)) <= 128


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "-1",
        "7",
        ".7",
        STREAM,
        f"{STREAM}.",
        f"{STREAM}.-1",
        f"{STREAM}.+1",
        f"{STREAM}.01",
        f"{STREAM}.00",
        f"{STREAM}.1.2",
        f"{STREAM}.1e3",
        f"{STREAM}.0x1",
        f"{STREAM}.1_0",
        f"{STREAM}.1000000000000000",
        f"{STREAM}.{'9' * 90}",
        f"{STREAM}.\N{ARABIC-INDIC DIGIT ONE}",
        f"{STREAM}.1\n",
        f"{STREAM}.1\r\n",
        f"{STREAM}.1\0",
        f"\0{STREAM}.1",
        f" {STREAM}.1",
        f"{STREAM}.1 ",
        f"{STREAM}.1,{STREAM}.2",
        f"{STREAM[:-1]}.1",
        f"{STREAM}x.1",
        f"SW{STREAM[2:]}.1",
        f"xx{STREAM[2:]}.1",
        f"{STREAM[:-1]}=.1",
        f"{STREAM[:-1]}/.1",
        f"{STREAM[:-1]}\xe9.1",
        f"{STREAM[:-1]}\N{FULLWIDTH DIGIT ONE}.1",
        "\N{SNOWMAN}",
        f"{STREAM}.1" * 3,
    ],
)
def test_what_is_not_a_cursor_of_ours_is_none(value: str | None) -> None:
    assert parse_cursor(value) is None
    if value is not None:
        assert parse_cursor(value.encode()) is None


@pytest.mark.parametrize("value", [b"\xff\xfe", STREAM.encode() + b".1\xe9", b"\x80" * 40])
def test_bytes_that_are_not_ascii_are_none(value: bytes) -> None:
    assert parse_cursor(value) is None


def test_a_megabyte_is_refused_by_its_length_alone() -> None:
    assert parse_cursor(Untouchable(b"x")) is None
    assert parse_cursor("9" * 1_000_000) is None


@given(st.text(max_size=60) | st.binary(max_size=60))
def test_nothing_makes_it_raise(value: str | bytes) -> None:
    parsed = parse_cursor(value)

    assert parsed is None or str(parsed) in (value, value.decode("ascii") if isinstance(value, bytes) else value)


@pytest.mark.parametrize("text", ["", "sw", STREAM[:-1], STREAM + "a", STREAM + "\n", "SW" + STREAM[2:], STREAM + ".1"])
def test_what_is_not_a_stream_id(text: str) -> None:
    assert not is_stream_id(text)
