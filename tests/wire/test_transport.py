"""Where a page is to be had over TLS, what a page is, and HSTS."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware import ConfigurationError, HSTSOptions
from streamware.types import Scope
from streamware.wire.transport import asks_for_page, secure_location, with_hsts


def scope_of(
    method: str = "GET", path: str = "/", raw_path: bytes | None = None, query: bytes = b"", **headers: str
) -> Scope:
    lines = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": raw_path,
        "query_string": query,
        "headers": lines,
    }


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        ("GET", {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}, True),
        ("HEAD", {"accept": "text/html"}, True),
        ("GET", {"sec_fetch_mode": "navigate"}, True),
        ("GET", {"sec_fetch_mode": "navigate", "accept": "*/*", "cookie": "sid=1"}, True),
        ("GET", {}, False),
        ("GET", {"accept": "*/*"}, False),
        ("GET", {"accept": "application/json"}, False),
        ("GET", {"accept": "text/event-stream"}, False),
        ("GET", {"accept": "text/html;q=0"}, False),
        ("GET", {"accept": "text/html", "sec_fetch_mode": "cors"}, False),
        ("GET", {"accept": "text/html", "authorization": "Bearer abc"}, False),
        ("GET", {"accept": "text/html", "authorization": ""}, False),
        ("GET", {"sec_fetch_mode": "navigate", "authorization": "Basic abc"}, False),
        ("GET", {"accept": "text/html", "origin": "http://chat.example"}, False),
        ("POST", {"accept": "text/html", "sec_fetch_mode": "navigate"}, False),
    ],
)
def test_what_asks_for_a_page(method: str, headers: dict[str, str], expected: bool) -> None:
    assert asks_for_page(scope_of(method, **headers)) is expected


@pytest.mark.parametrize(
    ("scope", "port", "expected"),
    [
        (scope_of(host="chat.example"), 443, b"https://chat.example/"),
        (scope_of(host="Chat.Example:80"), 443, b"https://chat.example/"),
        (scope_of(host="chat.example:8000"), 443, b"https://chat.example/"),
        (scope_of(host="chat.example"), 8443, b"https://chat.example:8443/"),
        (scope_of(host="[::1]:80"), 443, b"https://[::1]/"),
        (scope_of(path="/a b", raw_path=b"/a%20b", query=b"q=%26&x", host="a.example"), 443, b"https://a.example/a%20b?q=%26&x"),
        (scope_of(path="/a b%", host="a.example"), 443, b"https://a.example/a%20b%25"),
        (scope_of(path="/é?", raw_path=b"/\xc3\xa9", host="a.example"), 443, b"https://a.example/%C3%A9"),
        (scope_of(path="//evil.example", raw_path=b"//evil.example", host="a.example"), 443, b"https://a.example//evil.example"),
        (scope_of(raw_path=b"/\r\nx: y", query=b"\r\n #", host="a.example"), 443, b"https://a.example/%0D%0Ax:%20y?%0D%0A%20%23"),
        (scope_of(raw_path=b".evil.example/", host="a.example"), 443, None),
        (scope_of(raw_path=b"http://evil.example/", host="a.example"), 443, None),
        (scope_of(path="*", host="a.example"), 443, None),
        (scope_of(), 443, None),
        (scope_of(host="a.example/"), 443, None),
        (scope_of(host="u@a.example"), 443, None),
        ({**scope_of(), "headers": [(b"host", b"a.example"), (b"host", b"b.example")]}, 443, None),
    ],
)  # fmt: skip
def test_the_place_over_tls(scope: Scope, port: int, expected: bytes | None) -> None:
    assert secure_location(scope, port) == expected


@given(
    path=st.text(max_size=30),
    raw_path=st.none() | st.binary(max_size=30),
    query=st.binary(max_size=30),
    host=st.binary(max_size=20),
)
def test_no_request_makes_a_location_that_leads_elsewhere(
    path: str, raw_path: bytes | None, query: bytes, host: bytes
) -> None:
    scope = {**scope_of(path=path, raw_path=raw_path, query=query), "headers": [(b"host", host)]}
    named = {**scope, "headers": [(b"host", b"a.example")]}

    secure_location(scope, 443)
    location = secure_location(named, 443)

    if location is not None:
        assert location.startswith(b"https://a.example/")
        assert all(0x21 <= byte <= 0x7E for byte in location)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (HSTSOptions(), b"max-age=31536000"),
        (HSTSOptions(max_age=0), b"max-age=0"),
        (HSTSOptions(max_age=300.9, include_subdomains=True), b"max-age=300; includeSubDomains"),
        (HSTSOptions(include_subdomains=True, preload=True), b"max-age=31536000; includeSubDomains; preload"),
    ],
)
def test_the_header_of_hsts(options: HSTSOptions, expected: bytes) -> None:
    assert options.line == (b"strict-transport-security", expected)


def test_an_app_that_sets_it_itself_is_not_overruled() -> None:
    own = [(b"Strict-Transport-Security", b"max-age=1")]

    assert with_hsts(own, HSTSOptions().line) == own
    assert with_hsts([(b"a", b"b")], HSTSOptions().line) == [(b"a", b"b"), HSTSOptions().line]


@pytest.mark.parametrize(
    "options",
    [
        {"max_age": -1}, {"max_age": True}, {"max_age": "1"}, {"max_age": float("inf")}, {"max_age": None},
        {"include_subdomains": 1}, {"preload": None}, {"preload": True},
        {"preload": True, "include_subdomains": True, "max_age": 300},
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"HSTSOptions: \w+ must be"):
        HSTSOptions(**options)
