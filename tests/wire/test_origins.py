"""Origins and hosts: what is one, which are the same, and what an option may list."""

from __future__ import annotations

import contextlib
import random
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamware import ConfigurationError
from streamware.wire.origins import HostSet, Origin, OriginSet, parse_host, parse_origin

HTTPS = Origin("https", "chat.example", 443)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"https://chat.example", HTTPS),
        (b"https://chat.example:443", HTTPS),
        (b"HTTPS://Chat.EXAMPLE", HTTPS),
        (b"http://chat.example", Origin("http", "chat.example", 80)),
        (b"http://chat.example:443", Origin("http", "chat.example", 443)),
        (b"https://chat.example:8443", Origin("https", "chat.example", 8443)),
        (b"https://chat.example:65535", Origin("https", "chat.example", 65535)),
        (b"https://chat.example.", Origin("https", "chat.example.", 443)),
        (b"https://xn--bcher-kva.example", Origin("https", "xn--bcher-kva.example", 443)),
        (b"https://under_score.example", Origin("https", "under_score.example", 443)),
        (b"http://localhost:5173", Origin("http", "localhost", 5173)),
        (b"http://127.0.0.1:8000", Origin("http", "127.0.0.1", 8000)),
        (b"http://[::1]:8000", Origin("http", "[::1]", 8000)),
        (b"http://[0:0:0:0:0:0:0:1]", Origin("http", "[::1]", 80)),
        (b"http://[2001:DB8::1]", Origin("http", "[2001:db8::1]", 80)),
        (b"chrome-extension://abcdefghijklmnop", Origin("chrome-extension", "abcdefghijklmnop", None)),
        (b"app://12", Origin("app", "12", None)),
        (b"capacitor://localhost", Origin("capacitor", "localhost", None)),
    ],
)
def test_a_serialised_origin_is_read_to_its_value(value: bytes, expected: Origin) -> None:
    assert parse_origin(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"", b"null", b"NULL", b"*", b"chat.example", b"//chat.example", b"https:", b"https://", b"https:///",
        b"https://chat.example/", b"https://chat.example/path", b"https://chat.example?q", b"https://chat.example#f",
        b"https://user@chat.example", b"https://user:pw@chat.example", b"https://@chat.example",
        b"https://chat.example:", b"https://chat.example:0", b"https://chat.example:00443", b"https://chat.example:0443",
        b"https://chat.example:65536", b"https://chat.example:99999", b"https://chat.example:443443",
        b"https://chat.example:+443", b"https://chat.example:4_3", b"https://chat.example:\xb2",
        b" https://chat.example", b"https://chat.example ", b"https://chat.example\n", b"https://chat.example\0",
        b"https://chat.example, https://chat.example", b"https://chat.example https://other.example",
        b"https://chat..example", b"https://.chat.example", b"https://..", b"https://.", b"https://chat.example..",
        b"https://ch\xc3\xa4t.example", b"https://ch%61t.example", b"https://chat.ex*mple", b"https://*.example",
        b"https://" + b"a" * 64 + b".example", b"https://" + b"a." * 127 + b"aa", b"https://" + b"a" * 100_000,
        b"http://127.1", b"http://010.0.0.1", b"http://0x7f.0.0.1", b"http://0x7f000001", b"http://2130706433",
        b"http://256.0.0.1", b"http://1.2.3.4.5", b"http://1.2.3.4.", b"http://chat.0x", b"http://chat.1",
        b"http://[::1", b"http://::1", b"http://[::1]x", b"http://[::1%25eth0]", b"http://[::g]", b"http://[]",
        b"http://[127.0.0.1]", b"http://[:::1]", b"https:chat.example", b"1https://chat.example",
        b"https\\://chat.example", b"https://chat.example\\@evil.example", b"javascript:alert(1)", b"file://",
        b"a" * 33 + b"://chat.example",
    ],
)  # fmt: skip
def test_anything_else_is_no_origin(value: bytes) -> None:
    assert parse_origin(value) is None


@pytest.mark.parametrize(
    ("value", "scheme", "expected"),
    [
        (b"chat.example", "https", HTTPS),
        (b"Chat.Example:443", "https", HTTPS),
        (b"chat.example:443", "http", Origin("http", "chat.example", 443)),
        (b"chat.example", "http", Origin("http", "chat.example", 80)),
        (b"[::1]:8000", "http", Origin("http", "[::1]", 8000)),
        (b"chat.example.", "https", Origin("https", "chat.example.", 443)),
    ],
)
def test_a_host_is_read_with_the_scheme_of_its_request(value: bytes, scheme: str, expected: Origin) -> None:
    assert parse_host(value, scheme) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"", b":80", b"chat.example:", b"chat.example:0", b"chat.example:99999", b"chat.example/", b"a@chat.example",
        b"chat.example, chat.example", b"chat example", b"https://chat.example", b"[::1", b"127.1", b"chat..example",
        b"ch\xe4t.example", b"chat.example\r\nx: y", b"chat.example\n", b"*", b"null:", b"_" * 300,
    ],
)  # fmt: skip
def test_anything_else_is_no_host(value: bytes) -> None:
    assert parse_host(value, "http") is None


LABEL = st.text(string.ascii_lowercase + string.digits + "-_", min_size=1, max_size=20)
HOST = st.lists(LABEL, min_size=1, max_size=4).map(lambda labels: ".".join([*labels, "a"]))
SCHEME = st.sampled_from(["http", "https", "tauri"])
PORT = st.one_of(st.none(), st.integers(1, 65535))


@given(SCHEME, HOST, PORT, st.randoms())
def test_what_is_written_is_read_back_in_whatever_case(
    scheme: str, host: str, port: int | None, choices: random.Random
) -> None:
    own = {"http": 80, "https": 443}.get(scheme)
    origin = Origin(scheme, host, own if port is None else port)
    shouted = "".join(choices.choice([letter, letter.upper()]) for letter in str(origin))

    assert parse_origin(str(origin).encode()) == origin
    assert parse_origin(shouted.encode()) == origin


@given(st.binary(max_size=80) | st.text("htps:/.-@[]012x*a%\\ ", max_size=40).map(str.encode))
@example(b"https://a" * 1000)
def test_reading_never_raises_and_what_it_takes_is_written_like_an_origin(value: bytes) -> None:
    origin = parse_origin(value)

    if origin is not None:
        assert parse_origin(str(origin).encode()) == origin
        assert value.count(b"/") == 2
        assert not set(value) & set(b"@?#\\%, \r\n\0*")
    parse_host(value, "https")


# -- options


def allowed(*entries: str) -> OriginSet:
    return OriginSet("Test", "allow", entries)


def hosts(*entries: str) -> HostSet:
    return HostSet("Test", "hosts", entries)


def origin(value: str) -> Origin:
    parsed = parse_origin(value.encode())
    assert parsed is not None
    return parsed


@pytest.mark.parametrize(
    ("entry", "value", "expected"),
    [
        ("https://chat.example", "https://chat.example", True),
        ("https://chat.example:443", "https://chat.example", True),
        ("https://Chat.Example", "https://chat.example", True),
        ("https://chat.example", "http://chat.example", False),
        ("https://chat.example", "https://chat.example:8443", False),
        ("https://chat.example", "https://www.chat.example", False),
        ("https://chat.example", "https://chat.example.", False),
        ("https://chat.example", "https://chat.example.evil.example", False),
        ("https://chat.example", "https://evilchat.example", False),
        ("https://*.chat.example", "https://a.chat.example", True),
        ("https://*.chat.example", "https://a.b.chat.example", True),
        ("https://*.chat.example", "https://chat.example", False),
        ("https://*.chat.example", "https://evilchat.example", False),
        ("https://*.chat.example", "https://a.chat.example.", False),
        ("https://*.chat.example", "http://a.chat.example", False),
        ("https://*.chat.example", "https://a.chat.example:8443", False),
        ("https://*.chat.example:8443", "https://a.chat.example:8443", True),
        ("http://*.localhost:3000", "http://a.localhost:3000", True),
        ("chrome-extension://abc", "chrome-extension://abc", True),
        ("chrome-extension://abc", "chrome-extension://abd", False),
    ],
)
def test_an_entry_lists_an_origin(entry: str, value: str, expected: bool) -> None:
    assert (origin(value) in allowed("https://other.example", entry)) is expected


def test_null_is_listed_by_its_name_only() -> None:
    assert allowed("null").null
    assert not allowed("https://chat.example").null


@pytest.mark.parametrize(
    ("entry", "advice"),
    [
        ("chat.example", "'https://chat.example'"),
        ("https://chat.example/", "'https://chat.example'"),
        ("http://chat.example:8000/path?q#f", "'http://chat.example:8000'"),
        ("wss://chat.example", "'https://chat.example'"),
        ("ws://localhost:8000", "'http://localhost:8000'"),
        ("https://bücher.example", "'https://xn--bcher-kva.example'"),
        ("//chat.example", "'https://chat.example'"),
        ("http://::1", "'https://chat.example'"),
        ("https://chat.example:99999", "'https://chat.example'"),
        ("", "'https://chat.example'"),
        ("NULL", "'https://null'"),
        ("https://chat.*", "'https://chat.example'"),
        ("https://*chat.example", "'https://chat.example'"),
        ("*", "one by one"),
        ("https://*", "one by one"),
        ("https://*.example", "two labels"),
        ("https://*.1.2.3.4", "two labels"),
        ("https://*.*.example.com", "'https://chat.example'"),
    ],
)
def test_a_wrong_entry_is_refused_with_what_would_be_right(entry: str, advice: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        allowed(entry)

    assert "Test: allow must be" in str(raised.value)
    assert advice in str(raised.value)


def test_a_password_in_an_entry_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as raised:
        allowed("https://me:secret@chat.example")

    assert "secret" not in str(raised.value)
    assert "'https://chat.example'" in str(raised.value)


@pytest.mark.parametrize("given", ["https://chat.example", b"x", 5, None, [b"https://chat.example"], [None]])
def test_what_is_no_list_of_texts_is_refused(given: object) -> None:
    for kind in (OriginSet, HostSet):
        with pytest.raises(ConfigurationError):
            kind("Test", "option", given)


@given(st.text(max_size=40) | st.text("htps:/.-@[]012x*a%", max_size=20))
def test_any_text_is_an_entry_or_a_configuration_error(entry: str) -> None:
    for kind in (OriginSet, HostSet):
        with contextlib.suppress(ConfigurationError):
            kind("Test", "option", [entry])


@pytest.mark.parametrize(
    ("entry", "host", "expected"),
    [
        ("api.example", b"api.example", True),
        ("api.example", b"API.example:8443", True),
        ("api.example", b"api.example.", False),
        ("api.example", b"www.api.example", False),
        ("api.example:443", b"api.example", True),
        ("api.example:443", b"api.example:8443", False),
        ("api.example:8443", b"api.example", False),
        ("localhost", b"localhost:8000", True),
        ("127.0.0.1", b"127.0.0.1:8000", True),
        ("127.0.0.1", b"127.0.0.2", False),
        ("[::1]", b"[0:0::1]:8000", True),
        ("*.api.example", b"a.b.api.example:8000", True),
        ("*.api.example", b"api.example", False),
        ("*.api.example", b"evilapi.example", False),
        ("*.api.example:443", b"a.api.example", True),
        ("*.api.example:444", b"a.api.example", False),
    ],
)
def test_an_entry_lists_a_host(entry: str, host: bytes, expected: bool) -> None:
    asked = parse_host(host, "https")
    assert asked is not None

    assert (asked in hosts("other.example", entry)) is expected


@pytest.mark.parametrize(
    "entry", ["", "*", "https://api.example", "api.example/", "a@api.example", "127.1", "::1", "*.example", "*.1.2.3.4"]
)
def test_a_wrong_host_is_refused(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="hosts must be a list of hosts"):
        hosts(entry)


def test_an_empty_list_of_hosts_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="or None to accept any"):
        hosts()
