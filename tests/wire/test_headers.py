"""Header lists and header values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware.wire import headers

LINES = [(b"Vary", b"Accept"), (b"x-a", b"1"), (b"X-A", b"2"), (b"content-type", b"text/plain")]


def test_names_compare_without_case_and_repeated_lines_are_kept() -> None:
    assert headers.get(LINES, b"x-a") == b"1"
    assert headers.get(LINES, b"VARY") == b"Accept"
    assert headers.get(LINES, b"missing") is None
    assert headers.get_all(LINES, b"x-a") == [b"1", b"2"]
    assert headers.get_all(LINES, b"missing") == []
    assert headers.combined(LINES, b"x-a") == b"1, 2"
    assert headers.combined(LINES, b"missing") is None


def test_changes_leave_the_list_that_came_in_alone() -> None:
    before = list(LINES)

    assert headers.without(LINES, b"X-a", b"vary") == [(b"content-type", b"text/plain")]
    assert headers.replaced(LINES, b"X-a", b"3") == [LINES[0], (b"x-a", b"3"), LINES[3]]
    assert headers.replaced(LINES, b"New", b"4") == [*LINES, (b"new", b"4")]
    assert headers.merge_vary(LINES, b"Accept") is not LINES
    headers.merge_vary(LINES, b"Origin")
    headers.no_store(LINES)
    assert before == LINES


@pytest.mark.parametrize(
    ("lines", "names", "expected"),
    [
        ([], [b"Accept"], [b"Accept"]),
        ([], [b"Accept", b"Origin"], [b"Accept, Origin"]),
        ([b"accept"], [b"Accept"], [b"accept"]),
        ([b"Cookie"], [b"Accept", b"cookie"], [b"Cookie, Accept"]),
        ([b"Cookie", b"Origin,Accept"], [b"Prefer"], [b"Cookie, Origin, Accept, Prefer"]),
        ([b"Cookie", b"Origin"], [b"Origin"], [b"Cookie", b"Origin"]),
        ([b"*"], [b"Accept"], [b"*"]),
        ([b"Cookie, *"], [b"Accept"], [b"Cookie, *"]),
        ([b""], [b"Accept"], [b"Accept"]),
        ([b", ,"], [b"Accept"], [b"Accept"]),
    ],
)
def test_merge_vary(lines: list[bytes], names: list[bytes], expected: list[bytes]) -> None:
    merged = headers.merge_vary([(b"vary", line) for line in lines] + [(b"x", b"y")], *names)

    assert headers.get_all(merged, b"vary") == expected
    assert headers.get(merged, b"x") == b"y"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], b"no-store"),
        ([b"no-cache"], b"no-store"),
        ([b"max-age=3600, public"], b"no-store"),
        ([b"no-transform"], b"no-store, no-transform"),
        ([b"max-age=5", b"private, No-Transform"], b"no-store, no-transform"),
        ([b'private="x, no-transform"'], b"no-store"),
        ([b"no-store"], b"no-store"),
    ],
)
def test_no_store_keeps_only_no_transform(lines: list[bytes], expected: bytes) -> None:
    result = headers.no_store([(b"Cache-Control", line) for line in lines])

    assert result == [(b"cache-control", expected)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, b""),
        (b"", b""),
        (b"text/event-stream", b"text/event-stream"),
        (b"Text/Event-Stream; charset=utf-8", b"text/event-stream"),
        (b" text/event-stream\t;charset=utf-8", b"text/event-stream"),
        (b";charset=utf-8", b""),
    ],
)
def test_media_type_is_the_essence_in_lower_case(value: bytes | None, expected: bytes) -> None:
    assert headers.media_type(value) == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, False),
        (b"", False),
        (b"text/event-stream", True),
        (b"Text/Event-Stream", True),
        (b"text/event-stream, */*;q=0.1", True),
        (b"application/json,text/event-stream", True),
        (b"text/html;level=1;q=0.7 , text/event-stream ; q=0.001", True),
        (b"text/event-stream;q=1.000", True),
        (b"text/event-stream;charset=utf-8", True),
        (b"text/event-stream;q=0", False),
        (b"text/event-stream; Q = 0.000", False),
        (b"text/event-stream;q=0, text/event-stream;q=0.5", True),
        (b"*/*", False),
        (b"text/*", False),
        (b"text/event-streams", False),
        (b"x-text/event-stream", False),
        (b'text/html;a="text/event-stream"', False),
        (b'text/html;a=", text/event-stream ,"', False),
        (b'text/event-stream;a=";q=0"', True),
        (b"text/event-stream;q=high", True),
        (b"text/event-stream;", True),
        (b";,;text/event-stream", False),
    ],
)
def test_names_media_type(accept: bytes | None, expected: bool) -> None:
    assert headers.names_media_type(accept, b"text/event-stream") is expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], {}),
        ([b""], {}),
        ([b"respond-async"], {"respond-async": ""}),
        ([b"respond-async, wait=25"], {"respond-async": "", "wait": "25"}),
        ([b"respond-async", b"wait = 25"], {"respond-async": "", "wait": "25"}),
        ([b"Wait=25, WAIT=30"], {"wait": "25"}),
        ([b"wait=5", b"wait=6"], {"wait": "5"}),
        ([b"handling=lenient; strict=no ; x"], {"handling": "lenient"}),
        ([b'foo="a, b; c=\\"d\\""'], {"foo": 'a, b; c="d"'}),
        ([b'foo=""'], {"foo": ""}),
        ([b"foo="], {"foo": ""}),
        ([b'foo; bar="a,b", baz'], {"foo": "", "baz": ""}),
        ([b'foo="never closed, bar', b"wait=5"], {"wait": "5"}),
        ([b'foo="x\\', b"wait=5"], {"wait": "5"}),
        ([b'"quoted name"=1, wait=5'], {"wait": "5"}),
        ([b"a b=1, =2, ;, ,wait=5"], {"wait": "5"}),
        ([b';foo="a", wait=5'], {"wait": "5"}),
        ([b'foo;bar="a;b";baz'], {"foo": ""}),
        ([b"foo=\xff"], {"foo": "\xff"}),
        ([b"control-events,respond-async"], {"control-events": "", "respond-async": ""}),
    ],
)
def test_parse_prefer(lines: list[bytes], expected: dict[str, str]) -> None:
    assert headers.parse_prefer(lines) == expected


@given(st.lists(st.binary(max_size=30) | st.text('a="\\,; ', max_size=30).map(str.encode), max_size=3))
def test_reading_never_raises(lines: list[bytes]) -> None:
    preferences = headers.parse_prefer(lines)
    assert all(name == name.lower() and name.isascii() for name in preferences)
    for line in lines:
        headers.names_media_type(line + b"text/event-stream", b"text/event-stream")
        assert all(headers.split_list(line))
        headers.no_store([(b"cache-control", line)])
        headers.merge_vary([(b"vary", line)], b"Accept")


@pytest.mark.parametrize("value", [b'"' * 99_999, b'a="' + b"\\" * 99_999, b'",' * 50_000, b'a="x' * 30_000])
def test_a_hostile_header_is_read_in_one_pass(value: bytes) -> None:
    """Backtracking would take hours here, and the test's time-out would end it."""
    headers.parse_prefer([value])
    headers.names_media_type(value + b"text/event-stream", b"text/event-stream")


@pytest.mark.parametrize(
    ("method", "names", "expected"),
    [
        ("OPTIONS", [b"origin", b"access-control-request-method"], True),
        ("OPTIONS", [b"Origin", b"Access-Control-Request-Method"], True),
        ("OPTIONS", [b"origin"], False),
        ("OPTIONS", [b"access-control-request-method"], False),
        ("GET", [b"origin", b"access-control-request-method"], False),
    ],
)
def test_is_preflight(method: str, names: list[bytes], expected: bool) -> None:
    scope = {"type": "http", "method": method, "headers": [(name, b"GET") for name in names]}

    assert headers.is_preflight(scope) is expected


def test_a_websocket_is_no_preflight() -> None:
    assert not headers.is_preflight({"type": "websocket", "headers": []})
