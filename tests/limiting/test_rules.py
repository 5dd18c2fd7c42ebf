"""Which limits a request has, from what the operator wrote."""

from __future__ import annotations

from typing import Any

import pytest

from streamware import ConfigurationError
from streamware.limiting.rules import MAX_READ, Limits, Rules, most_rule
from streamware.types import Scope


def rules(plan: Any = None, *, fixed: bool = False) -> Rules:
    return Rules("Throttle", "limits", "c", fixed=fixed, plan=plan)


def limits(given: Limits, path: str = "/", scope: Scope | None = None, plan: Any = None) -> list[tuple[int, int]]:
    rule = rules(plan).rule(given)
    return [] if rule is None else [(limit.amount, limit.window) for limit in rule(scope or {}, path)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("60/minute", [(60, 60)]),
        ("60 per minute", [(60, 60)]),
        ("10 per 5 minutes", [(10, 300)]),
        ("10/second; 1000/day", [(10, 1), (1000, 86_400)]),
        (["10/second", "100/hour;2000/month"], [(10, 1), (100, 3600), (2000, 30 * 86_400)]),
        (("1/second",), [(1, 1)]),
        (["20/minute", "10/minute", "30/minute"], [(10, 60)]),
        (None, []),
    ],
)
def test_the_syntax_is_that_of_limits(given: Limits, expected: list[tuple[int, int]]):
    assert limits(given) == expected


def test_clients_are_told_what_was_written():
    rule = rules().rule("10 per 5 minutes; 60/minute")
    assert rule is not None
    assert [limit.name for limit in rule({}, "/")] == ["10/5 minute", "60/minute"]


@pytest.mark.parametrize(
    "given",
    ["", "60", "60/fortnight", "0/minute", "-1/minute", "60/minute;junk", f"{10**13}/day", "1 per 99 years", [],
     ["60/minute", 5], 60, b"60/minute", {}, {"/a": "60"}, {5: "60/minute"},
     {"/a": "1/minute", "b": "1/minute"}, {"/a": 5}],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_at_once(given: Any):
    with pytest.raises(ConfigurationError, match="Throttle"):
        limits(given)


def test_the_first_path_that_matches_counts_and_each_counts_apart():
    rule = rules().rule({"/chat/free*": "1/minute", "/chat*": ["2/minute", "9/day"], "/open": None})
    assert rule is not None

    found = {path: rule({}, path) for path in ("/chat/free", "/chat/x", "/chat", "/open", "/other")}

    assert [[limit.amount for limit in each] for each in found.values()] == [[1], [2, 9], [2, 9], [], []]
    assert len({limit.place for each in found.values() for limit in each}) == 3


@pytest.mark.parametrize("path", ["/cheap/../dear", "//dear", "/cheap/%2e%2e/dear", "/x\\dear"])
def test_a_path_that_may_be_taken_for_another_comes_under_all_of_them(path: str):
    rule = rules().rule({"/cheap*": "9/minute", "/dear*": "1/minute", "/open*": None})
    most = most_rule("Throttle", "concurrent", "c", {"/cheap*": 9, "/dear*": 1, "/open*": None}, None)
    assert rule is not None
    assert most is not None

    assert sorted(limit.amount for limit in rule({}, path)) == [1, 9]
    assert rule({}, path) == (*rule({}, "/cheap"), *rule({}, "/dear"))
    assert most({}, path) == most({}, "/dear")


def plan_of(scope: Scope) -> str | None:
    plan: str | None = scope.get("plan")
    return plan


def test_plans_share_what_was_used_and_who_has_none_has_the_default():
    plans = {"default": "10/minute", "pro": "100/minute", "staff": None}
    rule = rules(plan_of).rule(plans)
    assert rule is not None

    found = [rule({"plan": plan}, "/") for plan in ("pro", None, "unheard of", "staff")]

    assert [[limit.amount for limit in each] for each in found] == [[100], [10], [10], []]
    assert len({limit.place for each in found for limit in each}) == 1


def test_plans_may_differ_by_path():
    given: Limits = {"/a": {"default": "1/minute", "pro": "2/minute"}, "*": "3/minute"}
    assert limits(given, "/a", {"plan": "pro"}, plan_of) == [(2, 60)]
    assert limits(given, "/a", {"plan": "x"}, plan_of) == [(1, 60)]
    assert limits(given, "/b", {"plan": "pro"}, plan_of) == [(3, 60)]


@pytest.mark.parametrize(
    ("plan", "given"), [(None, {"default": "1/minute"}), (plan_of, {"pro": "1/minute"})], ids=["no plan=", "no default"]
)
def test_plans_want_to_be_told_apart_and_a_default(plan: Any, given: Limits):
    with pytest.raises(ConfigurationError, match="plan"):
        limits(given, plan=plan)
    with pytest.raises(ConfigurationError, match="plan"):
        most_rule("Throttle", "concurrent", "c", dict.fromkeys(given or (), 1), plan)  # type: ignore[arg-type]


def test_a_function_may_say_it_for_each_request():
    rule = rules().rule(lambda scope: scope["limits"])
    assert rule is not None
    for n in range(MAX_READ + 10):
        assert [limit.amount for limit in rule({"limits": f"{n + 1}/minute"}, "/")] == [n + 1]
    assert rule({"limits": None}, "/") == ()
    assert [limit.window for limit in rule({"limits": ["1/second", "2/hour"]}, "/")] == [1, 3600]
    with pytest.raises(ConfigurationError):
        rule({"limits": "many"}, "/")


def test_fixed_windows_count_apart_from_sliding_ones():
    sliding, fixed = rules().rule("1/minute"), rules(fixed=True).rule("1/minute")
    assert sliding is not None
    assert fixed is not None
    assert sliding({}, "/")[0].place != fixed({}, "/")[0].place
    assert fixed({}, "/")[0].fixed


def test_numbers_at_once_by_path_by_plan_and_by_request():
    assert most_rule("T", "concurrent", "c", None, None) is None
    constant = most_rule("T", "concurrent", "c", 3, None)
    by_path = most_rule("T", "concurrent", "c", {"/a": 1, "/b*": None, "*": 2}, None)
    only_a = most_rule("T", "concurrent", "c", {"/a": 1}, None)
    by_plan = most_rule("T", "concurrent", "c", {"default": 1, "pro": 5}, plan_of)
    by_request = most_rule("T", "concurrent", "c", lambda scope: scope["n"], None)
    assert constant and by_path and only_a and by_plan and by_request  # noqa: PT018 -- for type checkers

    assert constant({}, "/") == (3, "c")
    assert [by_path({}, path)[0] for path in ("/a", "/bb", "/c")] == [1, None, 2]
    assert by_path({}, "/a")[1] != by_path({}, "/c")[1]
    assert only_a({}, "/b")[0] is None
    assert [by_plan({"plan": plan}, "/") for plan in ("pro", "x", None)] == [(5, "c"), (1, "c"), (1, "c")]
    assert by_request({"n": 7}, "/") == (7, "c")
    with pytest.raises(ConfigurationError):
        by_request({"n": 0}, "/")


@pytest.mark.parametrize("given", [0, -1, True, 1.5, "4", {"/a": 0}, {"default": "x"}])
def test_numbers_that_cannot_work_are_refused(given: Any):
    with pytest.raises(ConfigurationError, match="T: concurrent"):
        most_rule("T", "concurrent", "c", given, plan_of)
