"""The reading of replies: in Python as in C, in whatever pieces they come."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from streamware.stores.redis_replies import NOT_ENOUGH, Replies, Reply, ReplyReader, ServerError, reply_reader

REPLIES = st.recursive(
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.binary(max_size=40)
    | st.text("abc XYZ", max_size=9).map(ServerError),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


def packed(reply: Reply) -> bytes:
    match reply:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % reply
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case ServerError():
            return b"-%b\r\n" % str(reply).encode()
        case list():
            return b"*%d\r\n" % len(reply) + b"".join(map(packed, reply))


def plain(reply: object) -> object:
    """Errors compare by what they say."""
    if isinstance(reply, list):
        return [plain(item) for item in reply]
    return ("error", str(reply)) if isinstance(reply, ServerError) else reply


def read(reader: ReplyReader, pieces: list[bytes]) -> list[object]:
    found = []
    for piece in pieces:
        reader.feed(piece)
        while (reply := reader.gets()) is not NOT_ENOUGH:
            found.append(plain(reply))
    return found


@given(replies=st.lists(REPLIES, max_size=6), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_replies_are_read_alike_in_python_and_in_c_however_they_are_cut(replies: list[Reply], cuts: list[int]):
    data = b"".join(map(packed, replies))
    places = sorted({min(cut, len(data)) for cut in cuts})
    pieces = [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
    expected = [plain(reply) for reply in replies]
    assert read(Replies(), pieces) == expected
    reader = reply_reader()
    assert not isinstance(reader, Replies), "hiredis is there"
    assert read(reader, pieces) == expected


def test_a_simple_string_and_a_null_list_are_read():
    assert read(Replies(), [b"+OK\r\n*-1\r\n"]) == [b"OK", None]


def test_a_long_reply_in_many_pieces_is_not_read_over_and_over():
    events = [b"x" * 1000] * 2000
    data = packed(list(events))
    reader = Replies()
    found = read(reader, [data[at : at + 100] for at in range(0, len(data), 100)])
    assert found == [events]


@pytest.mark.parametrize("reader", [Replies, reply_reader])
def test_what_is_no_reply_is_an_error(reader: type[Replies]):
    made = reader()
    made.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises((ConnectionError, ValueError)):
        made.gets()


@pytest.mark.parametrize(
    ("text", "kind", "detail"),
    [
        ("OOM command not allowed.", "OOM", "command not allowed."),
        ("MOVED 3999 127.0.0.1:6381", "MOVED", "3999 127.0.0.1:6381"),
        (
            "ERR Error running script (call to f_1): @user_script:19: -OOM command not allowed.",
            "OOM",
            "command not allowed.",
        ),
        ("OOM command not allowed. script: f_1, on @user_script:19.", "OOM", "command not allowed."),
        ("READONLY You can't write against it.", "READONLY", "You can't write against it."),
        ("ERR unknown command 'XADD'", "ERR", "unknown command 'XADD'"),
        ("", "", ""),
    ],
)
def test_the_kind_of_an_error_is_what_the_server_speaks_of(text: str, kind: str, detail: str):
    error = ServerError(text)
    assert (error.kind, error.detail) == (kind, detail)
