"""Options that may differ by path."""

from __future__ import annotations

import re

import pytest

from streamware.exceptions import ConfigurationError
from streamware.streams.options import ByPath


def seconds(given: object) -> ByPath[object]:
    return ByPath("linger", given, 30.0, lambda value: value is None or isinstance(value, float), "seconds, or None")


def test_one_value_holds_for_all_paths() -> None:
    assert seconds(5.0)["/any"] == 5.0
    assert seconds(None)["/any"] is None


def test_by_path_the_first_pattern_that_matches_counts_and_the_rest_have_the_default() -> None:
    linger = seconds({"/chat/*": 5.0, "/chat/jobs": 7.0, "/jobs": None})
    assert [linger[path] for path in ("/chat/jobs", "/jobs", "/jobs/1", "/")] == [5.0, None, 30.0, 30.0]


def test_no_patterns_leave_the_default() -> None:
    assert seconds({})["/"] == 30.0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("5", "linger must be seconds, or None, got '5'"),
        ({"/chat": "5"}, "linger['/chat'] must be seconds, or None, got '5'"),
        ({"chat": 5.0}, "linger must be a list of glob patterns that start with / or *, got 'chat'"),
        ({5: 5.0}, "linger must be a list of glob patterns that start with / or *, got 5"),
    ],
)
def test_what_cannot_work_is_refused_by_name(given: object, told: str) -> None:
    with pytest.raises(ConfigurationError, match=f"ResumeMiddleware: {re.escape(told)}"):
        seconds(given)
