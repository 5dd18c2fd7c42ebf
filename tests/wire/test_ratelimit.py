"""What clients are told of their limits."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware.wire import ratelimit
from streamware.wire.denial import denial_messages
from streamware.wire.ratelimit import Balance, Policy

GET = {"type": "http", "method": "GET", "headers": []}


def answered(denial: Any) -> tuple[int, dict[str, str], Any]:
    start, body = denial_messages(dict(GET), denial)
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], headers, json.loads(body["body"])


@pytest.mark.parametrize(
    ("policies", "line"),
    [
        ([Policy("60/minute", 60, 60)], '"60/minute";q=60;w=60'),
        ([Policy("a", 1, 1), Policy("t", 20, 60, "tokens")], '"a";q=1;w=1, "t";q=20;qu="tokens";w=60'),
        ([Policy('sa"y\\', 1, 0)], '"sa\\"y\\\\";q=1;w=1'),
        ([Policy("é\n", 10**20, 1)], '"??";q=999999999999999;w=1'),
        ([], ""),
    ],
)
def test_policies(policies: list[Policy], line: str):
    assert ratelimit.policy_line(policies) == (b"ratelimit-policy", line.encode())


@pytest.mark.parametrize(
    ("balances", "line"),
    [
        ([Balance("a", 5, 3.01)], '"a";r=5;t=4'),
        ([Balance("a", 0, 0.0), Balance("b", -1, -1.0)], '"a";r=0;t=0, "b";r=0;t=0'),
        ([Balance("a", 0, float("inf"))], '"a";r=0;t=999999999999999'),
    ],
)
def test_balances(balances: list[Balance], line: str):
    assert ratelimit.balance_line(balances) == (b"ratelimit", line.encode())


@given(st.lists(st.tuples(st.text(), st.integers(-5, 10**18), st.floats(0, 1e20)), max_size=4))
def test_whatever_the_names_and_numbers_the_field_can_be_parsed(given_: list[tuple[str, int, float]]):
    _, line = ratelimit.balance_line(Balance(*each) for each in given_)
    item = r'"(?:[ !#-\[\]-~]|\\["\\])*";r=\d{1,15};t=\d{1,15}'
    assert re.fullmatch(f"(?:{item}(?:, {item})*)?", line.decode())


def test_a_refusal_is_a_problem_that_names_what_was_exceeded():
    lines = ((b"ratelimit", b'"a";r=0;t=12'),)
    status, headers, body = answered(ratelimit.refused(["a", "b"], 11.2, lines=lines))

    assert status == 429
    assert headers["content-type"] == "application/problem+json"
    assert headers["retry-after"] == "12"
    assert headers["ratelimit"] == '"a";r=0;t=12'
    assert headers["cache-control"] == "no-store"
    assert "x-should-retry" not in headers
    assert body == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Rate limit exceeded",
        "status": 429,
        "detail": "Try again in 12 seconds.",
        "violated-policies": ["a", "b"],
    }


@pytest.mark.parametrize(
    ("wait", "told"), [(60.0, None), (60.1, "false"), (86_400.0, "false"), (float("inf"), "false")]
)
def test_sdks_are_told_not_to_try_again_where_the_wait_is_long(wait: float, told: str | None):
    _, headers, _ = answered(ratelimit.refused(["a"], wait))
    assert headers.get("x-should-retry") == told
    assert int(headers["retry-after"]) >= min(wait, 86_400)


@pytest.mark.parametrize(
    ("denial", "status", "error"),
    [
        (ratelimit.refused(["a"], 1.0, style="openai"), 429, ("requests", "rate_limit_exceeded")),
        (ratelimit.too_many_at_once(3, 1.0, style="openai"), 429, ("requests", "rate_limit_exceeded")),
        (ratelimit.cannot_tell(1.0, style="openai"), 503, ("server_error", "service_unavailable")),
    ],
)
def test_the_shape_of_openai(denial: Any, status: int, error: tuple[str, str]):
    told, headers, body = answered(denial)

    assert told == status
    assert headers["content-type"] == "application/json"
    assert set(body) == {"error"}
    assert (body["error"]["type"], body["error"]["code"], body["error"]["param"]) == (*error, None)
    assert body["error"]["message"]


@pytest.mark.parametrize(
    ("denial", "status", "kind"),
    [
        (ratelimit.refused(["a"], 1.0, style="anthropic"), 429, "rate_limit_error"),
        (ratelimit.cannot_tell(1.0, style="anthropic"), 503, "overloaded_error"),
    ],
)
def test_the_shape_of_anthropic(denial: Any, status: int, kind: str):
    told, _, body = answered(denial)

    assert told == status
    assert body["type"] == "error"
    assert body["error"]["type"] == kind


def test_too_many_at_once_and_a_storage_that_is_away():
    status, headers, body = answered(ratelimit.too_many_at_once(4, 3.0))
    assert (status, headers["retry-after"], body["violated-policies"]) == (429, "3", ["concurrent"])
    assert "4" in body["detail"]

    status, headers, body = answered(ratelimit.cannot_tell(2.5))
    assert (status, headers["retry-after"]) == (503, "3")
    assert body["type"].endswith("#temporary-reduced-capacity")
