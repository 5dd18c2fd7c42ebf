"""How a client is refused: who gets a soft answer, and what the answers look like."""

from __future__ import annotations

import json

import pytest

from streamware.record import KEY, Record
from streamware.types import Message, Scope
from streamware.wire import headers as raw
from streamware.wire.denial import Denial, denial_messages, deny, is_eventsource_like, no_content

EVENTSOURCE = {
    "accept": "text/event-stream",
    "cache-control": "no-cache",
    "pragma": "no-cache",
    "sec-fetch-mode": "cors",
    "sec-fetch-dest": "empty",
    "sec-fetch-site": "same-origin",
}
BUSY = Denial(503, "Busy", retry_after=2.2)


def scope_of(method: str = "GET", **headers: str) -> Scope:
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": "/", "headers": lines}


def eventsource(**headers: str | None) -> Scope:
    """A browser's request, with some headers changed, or None to leave one out."""
    changed = EVENTSOURCE | {name.replace("_", "-"): value for name, value in headers.items()}
    return scope_of(**{name: value for name, value in changed.items() if value is not None})


def answer(messages: list[Message]) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body; checks the order of messages and that no header stands twice."""
    start, body = messages
    assert start["type"] == "http.response.start"
    assert body["type"] == "http.response.body"
    assert not body["more_body"]
    assert len({name for name, _ in start["headers"]}) == len(start["headers"])
    return start["status"], dict(start["headers"]), body["body"]


# The clients of research/browser.md, section 1.
@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        pytest.param(eventsource(), True, id="first connect"),
        pytest.param(eventsource(last_event_id="x.1"), True, id="reconnect"),
        pytest.param(eventsource(origin="http://a.example", sec_fetch_site="same-site"), True, id="other port"),
        pytest.param(eventsource(sec_fetch_dest=None, sec_fetch_site=None), True, id="npm eventsource"),
        pytest.param(eventsource(sec_fetch_mode=None), True, id="an old browser, or plain http"),
        pytest.param(eventsource(cache_control="no-cache, no-transform"), True, id="through a proxy"),
        pytest.param(eventsource(cache_control=None, pragma=None), False, id="fetch"),
        pytest.param(eventsource(cache_control="max-age=0", pragma=None), False, id="fetch, cache no-cache"),
        pytest.param(eventsource(cache_control="no-store", sec_fetch_mode=None), False, id="httpx-sse"),
        pytest.param(scope_of(accept="text/event-stream"), False, id="fetch-event-source in Node"),
        pytest.param(scope_of("POST", accept="application/json"), False, id="openai"),
        pytest.param(scope_of(accept="*/*"), False, id="curl"),
        pytest.param({**eventsource(), "method": "POST"}, False, id="POST"),
        pytest.param({**eventsource(), "method": "HEAD"}, False, id="HEAD"),
        pytest.param(eventsource(accept="text/event-stream, */*"), False, id="accepts more"),
        pytest.param(eventsource(accept="*/*"), False, id="accepts anything"),
        pytest.param(eventsource(accept=None), False, id="accepts nothing"),
        pytest.param(eventsource(sec_fetch_mode="navigate"), False, id="a navigation"),
        pytest.param(eventsource(sec_fetch_mode="no-cors"), False, id="no-cors"),
        pytest.param(scope_of(prefer="control-events"), True, id="asks for it"),
        pytest.param(scope_of("POST", prefer="wait=5, Control-Events"), True, id="asks for it by POST"),
        pytest.param(scope_of(prefer="wait=5"), False, id="prefers something else"),
        pytest.param(scope_of(), False, id="no headers"),
    ],
)
def test_is_eventsource_like(scope: Scope, expected: bool) -> None:
    assert is_eventsource_like(scope) is expected


def test_two_accept_lines_are_not_exactly_one_media_type() -> None:
    scope = eventsource()
    scope["headers"] = [*scope["headers"], (b"accept", b"text/html")]

    assert not is_eventsource_like(scope)


def test_a_refusal_is_a_problem_document() -> None:
    denial = Denial(
        410,
        "Stream ended",
        "It was stopped.",
        extra={"outcome": "stopped", "last": 7, "cursor": None, "status": 200},
        type="https://errors.example/gone",
    )
    status, headers, body = answer(denial_messages(scope_of(), denial))

    assert status == 410
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"content-length"] == b"%d" % len(body)
    assert b"retry-after" not in headers
    assert json.loads(body) == {
        "type": "https://errors.example/gone",
        "title": "Stream ended",
        "status": 410,
        "detail": "It was stopped.",
        "outcome": "stopped",
        "last": 7,
        "cursor": None,
    }


def test_a_problem_says_no_more_than_it_was_given() -> None:
    _, _, body = answer(denial_messages(scope_of(), Denial(403, "Forbidden")))

    assert json.loads(body) == {"type": "about:blank", "title": "Forbidden", "status": 403}


@pytest.mark.parametrize("soft", [False, True])
def test_vary_names_what_the_answer_depends_on(soft: bool) -> None:
    denial = Denial(403, "No", headers=((b"vary", b"X-Tenant, accept"),))
    _, headers, _ = answer(denial_messages(eventsource(), denial, soft=soft))

    assert headers[b"vary"] == b"X-Tenant, accept, Last-Event-ID, Prefer, Authorization, Cookie, Origin"


def test_a_refusals_own_headers_are_sent_along() -> None:
    denial = Denial(401, "Who is there?", headers=((b"www-authenticate", b"Bearer"), (b"cache-control", b"public")))
    _, headers, _ = answer(denial_messages(scope_of(), denial))

    assert headers[b"www-authenticate"] == b"Bearer"
    assert headers[b"cache-control"] == b"no-store"


@pytest.mark.parametrize(
    ("seconds", "retry_after", "retry"),
    [
        (0.0, b"0", b"0"),
        (0.0001, b"1", b"1"),
        (1.0, b"1", b"1000"),
        (1.0005, b"2", b"1001"),
        (59.2, b"60", b"59200"),
        (-3.0, b"0", b"0"),
        (86_400.0 * 30, b"2592000", b"86400000"),
        (float("inf"), b"31622400", b"86400000"),
        (float("nan"), b"0", b"0"),
    ],
)
def test_waits_are_rounded_up_and_bounded(seconds: float, retry_after: bytes, retry: bytes) -> None:
    denial = Denial(503, "Busy", retry_after=seconds)

    assert answer(denial_messages(scope_of(), denial))[1][b"retry-after"] == retry_after
    assert answer(denial_messages(eventsource(), denial, soft=True))[2] == b"retry: " + retry + b"\n\n"


def test_a_refusal_for_now_lets_an_eventsource_come_back() -> None:
    status, headers, body = answer(denial_messages(eventsource(), BUSY, soft=True))

    assert status == 200
    assert headers[b"content-type"] == b"text/event-stream"
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"x-accel-buffering"] == b"no"
    assert headers[b"content-length"] == b"%d" % len(body)
    assert body == b"retry: 2200\n\n"


def test_a_refusal_for_now_that_names_no_time_asks_for_three_seconds() -> None:
    assert answer(denial_messages(eventsource(), Denial(503, "Busy"), soft=True))[2] == b"retry: 3000\n\n"


def test_a_refusal_for_good_is_the_same_for_an_eventsource() -> None:
    assert answer(denial_messages(eventsource(), BUSY))[0] == 503


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_others_are_told_the_status_even_for_now(method: str) -> None:
    status, headers, _ = answer(denial_messages(scope_of(method, accept="text/event-stream"), BUSY, soft=True))

    assert status == 503
    assert headers[b"retry-after"] == b"3"


def test_the_answer_to_a_head_has_the_headers_and_no_body() -> None:
    _, got, body = answer(denial_messages(scope_of("GET"), BUSY))
    _, head, nothing = answer(denial_messages(scope_of("HEAD"), BUSY))

    assert head == got
    assert head[b"content-length"] == b"%d" % len(body)
    assert nothing == b""


def test_no_content_has_neither_body_nor_length() -> None:
    status, headers, body = answer(no_content(eventsource()))

    assert status == 204
    assert body == b""
    assert headers[b"cache-control"] == b"no-store"
    assert b"content-length" not in headers
    assert b"content-type" not in headers


async def test_deny_marks_the_record_and_sends_the_answer() -> None:
    scope = scope_of()
    scope[KEY] = record = Record()
    sent: list[Message] = []

    async def send(message: Message) -> None:
        assert record.denied
        sent.append(message)

    await deny(scope, send, BUSY)

    assert sent == denial_messages(scope, BUSY)


async def test_deny_needs_no_record() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await deny(eventsource(), send, BUSY, soft=True)

    assert sent[0]["status"] == 200
    assert raw.get(sent[0]["headers"], b"content-type") == b"text/event-stream"
