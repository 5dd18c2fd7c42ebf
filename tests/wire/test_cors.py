"""Answers to preflights, and the headers that let a page read a response."""

from __future__ import annotations

import pytest

from streamware import ConfigurationError, CORSOptions
from streamware.types import RawHeaders
from streamware.wire import headers as raw
from streamware.wire.cors import Answers

ORIGIN = b"https://chat.example"


def preflight(
    answers: Answers, method: bytes | None = b"GET", headers: bytes | None = None, origin: bytes = ORIGIN, **more: bytes
) -> dict[bytes, bytes] | None:
    given = [(b"origin", origin)]
    if method is not None:
        given.append((b"access-control-request-method", method))
    if headers is not None:
        given.append((b"access-control-request-headers", headers))
    given += [(name.replace("_", "-").encode(), value) for name, value in more.items()]
    answer = answers.preflight(given, origin)
    assert answer is None or len(dict(answer)) == len(answer)
    return None if answer is None else dict(answer)


def response(answers: Answers, *lines: tuple[bytes, bytes], origin: bytes = ORIGIN) -> dict[bytes, bytes]:
    written = answers.response(list(lines), origin)
    assert len({name.lower() for name, _ in written}) == len(written)
    return {name.lower(): value for name, value in written}


def test_a_preflight_is_told_what_requests_to_streams_need() -> None:
    answer = preflight(Answers(CORSOptions()), b"POST", b"authorization,content-type,idempotency-key,prefer")

    assert answer == {
        b"access-control-allow-origin": ORIGIN,
        b"access-control-allow-credentials": b"true",
        b"access-control-allow-methods": b"GET, HEAD, POST, PUT, PATCH, DELETE",
        b"access-control-allow-headers": b"Accept, Accept-Language, Authorization, Content-Language, Content-Type, "
        b"Idempotency-Key, Last-Event-ID, Prefer",
        b"access-control-max-age": b"600",
        b"vary": b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    }


@pytest.mark.parametrize(
    ("method", "headers", "answered"),
    [
        (b"GET", None, True),
        (b"GET", b"", True),
        (b"GET", b"last-event-id", True),
        (b"GET", b"Last-Event-ID", True),
        (b"DELETE", b"accept , ,prefer,", True),
        (b"GET", b"x-app", False),
        (b"GET", b"last-event-id, x-app", False),
        (b"GET", b"*", False),
        (b"GET", b"\xff\x00", False),
        (b"get", None, False),
        (b"BREW", None, False),
        (b"", None, False),
        (None, None, False),
    ],
)
def test_a_preflight_that_asks_for_more_is_left_to_the_app(
    method: bytes | None, headers: bytes | None, answered: bool
) -> None:
    assert (preflight(Answers(CORSOptions()), method, headers) is not None) is answered


def test_options_say_what_else_a_preflight_may_ask_for() -> None:
    answers = Answers(CORSOptions(allow_headers=["X-App"], allow_methods=["BREW"], credentials=False, max_age=None))

    answer = preflight(answers, b"BREW", b"x-app,last-event-id")

    assert answer is not None
    assert answer[b"access-control-allow-methods"] == b"BREW"
    assert answer[b"access-control-allow-headers"].endswith(b", X-App")
    assert b"access-control-allow-credentials" not in answer
    assert b"access-control-max-age" not in answer
    assert preflight(answers, b"GET") is None


def test_a_private_network_is_open_only_where_that_is_wanted() -> None:
    asked = {"access_control_request_private_network": b"true"}
    name = b"access-control-allow-private-network"

    closed = preflight(Answers(CORSOptions()), **asked)
    opened = preflight(Answers(CORSOptions(private_network=True)), **asked)
    unasked = preflight(Answers(CORSOptions(private_network=True)))

    assert closed is not None
    assert name not in closed
    assert closed[b"vary"].endswith(b", Access-Control-Request-Private-Network")
    assert opened is not None
    assert opened[name] == b"true"
    assert unasked is not None
    assert name not in unasked


def test_a_response_may_be_read_by_the_page_that_asked() -> None:
    assert response(Answers(CORSOptions()), (b"content-type", b"text/event-stream")) == {
        b"content-type": b"text/event-stream",
        b"access-control-allow-origin": ORIGIN,
        b"access-control-allow-credentials": b"true",
        b"access-control-expose-headers": b"Content-Location, Location, RateLimit, RateLimit-Policy, Retry-After, "
        b"WWW-Authenticate",
        b"vary": b"Origin",
    }


@pytest.mark.parametrize("credentials", [True, False])
def test_what_the_app_says_of_the_origin_is_replaced(credentials: bool) -> None:
    written = response(
        Answers(CORSOptions(credentials=credentials)),
        (b"Access-Control-Allow-Origin", b"*"),
        (b"access-control-allow-origin", b"https://other.example"),
        (b"Access-Control-Allow-Credentials", b"true"),
    )

    assert written[b"access-control-allow-origin"] == ORIGIN
    assert written.get(b"access-control-allow-credentials") == (b"true" if credentials else None)


def test_what_the_app_exposes_stays_exposed() -> None:
    written = response(
        Answers(CORSOptions(expose_headers=["X-Ours"])),
        (b"access-control-expose-headers", b"X-App, location"),
        (b"Access-Control-Expose-Headers", b"x-app,X-More"),
    )

    assert written[b"access-control-expose-headers"] == (
        b"Content-Location, Location, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-Ours, X-App, X-More"
    )


def test_null_gets_no_credentials() -> None:
    answers = Answers(CORSOptions())

    written = response(answers, origin=b"null")
    answer = preflight(answers, origin=b"null")

    assert written[b"access-control-allow-origin"] == b"null"
    assert b"access-control-allow-credentials" not in written
    assert answer is not None
    assert b"access-control-allow-credentials" not in answer


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], [b"Origin"]),
        ([(b"vary", b"Accept")], [b"Accept, Origin"]),
        ([(b"Vary", b"Accept")], [b"Accept, Origin"]),
        ([(b"vary", b"origin")], [b"origin"]),
        ([(b"vary", b"*")], [b"*"]),
        ([(b"vary", b"Cookie"), (b"vary", b"Origin, Accept")], [b"Cookie", b"Origin, Accept"]),
        ([(b"vary", b"Cookie"), (b"vary", b"Accept")], [b"Cookie, Accept, Origin"]),
        ([(b"vary", b"X-Origin")], [b"X-Origin, Origin"]),
    ],
)
def test_every_response_says_that_it_depends_on_the_origin(lines: RawHeaders, expected: list[bytes]) -> None:
    answers = Answers(CORSOptions())

    for _ in range(2):  # what is remembered of the first must not change the second
        before = list(lines)
        assert raw.get_all(answers.unread(lines), b"vary") == expected
        assert raw.get_all(answers.response(lines, ORIGIN), b"vary") == expected
        assert lines == before


def test_what_is_remembered_of_vary_is_bounded() -> None:
    answers = Answers(CORSOptions())

    for number in range(1000):
        assert raw.get_all(answers.unread([(b"vary", b"X-%d" % number)]), b"vary") == [b"X-%d, Origin" % number]
    assert raw.get_all(answers.unread([(b"vary", b"X" * 10_000)]), b"vary") == [b"X" * 10_000 + b", Origin"]

    assert len(answers._varies) <= 256


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("allow_headers", "X-App"), ("allow_headers", ["X App"]), ("allow_headers", [""]), ("allow_headers", ["*"]),
        ("allow_headers", [b"X-App"]), ("allow_headers", 5), ("allow_headers", ["X-\n"]), ("allow_headers", ["\udc80"]),
        ("allow_methods", "GET"), ("allow_methods", ["*"]), ("expose_headers", ["*"]), ("expose_headers", None),
        ("credentials", 1), ("private_network", None),
        ("max_age", -1), ("max_age", 86_401), ("max_age", True), ("max_age", "600"), ("max_age", float("nan")),
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused(option: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"CORSOptions: {option} must be"):
        CORSOptions(**{option: value})


def test_an_iterator_of_names_is_read_once() -> None:
    options = CORSOptions(allow_headers=iter(["X-App"]))

    assert options.allow_headers == ("X-App",)
    assert preflight(Answers(options), headers=b"x-app") is not None
    assert preflight(Answers(options), headers=b"x-app") is not None
