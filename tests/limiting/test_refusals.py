"""What is told of limits: lines that are kept, up to a bound."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware import CountingObserver, Limit
from streamware.limiting.base import Standing, Taken
from streamware.limiting.refusals import Refusals
from streamware.limiting.window import standing


def test_the_lines_that_are_kept_are_bounded_and_those_of_other_limits_never_taken_for_them(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("streamware.limiting.refusals.MAX_LINES", 5)
    refusals = Refusals(counters="throttle", observer=CountingObserver(), style="problem", retry=3.0, enforce=True)
    for amount in range(1, 100):  # each is new, and may have the address of one that is gone
        limit = Limit(amount, 60, f"{amount}/minute")
        for _ in range(2):
            lines = refusals.lines(Taken(True, [Standing(limit, 0, 1.0, 0.0, 0)]))
            assert lines[0] == (b"ratelimit-policy", f'"{amount}/minute";q={amount};w=60'.encode())
        assert len(refusals._policies) <= 5


@given(
    amount=st.integers(1, 1000), cost=st.integers(1, 1000), current=st.integers(0, 1000),
    previous=st.integers(0, 1000), elapsed=st.integers(0, 59_999),
)  # fmt: skip
def test_nobody_is_told_to_come_again_before_there_is_more(
    amount: int, cost: int, current: int, previous: int, elapsed: int
):
    refusals = Refusals(counters="throttle", observer=CountingObserver(), style="problem", retry=3.0, enforce=True)
    found = standing(Limit(amount, 60, "all"), cost, 0, current, previous, elapsed, taken=False)

    denial = refusals.refusal(Taken(False, [found]), "rate")

    assert denial is not None
    line = dict(denial.headers)[b"ratelimit"].decode()
    told = int(re.search(r";t=(\d+)", line)[1])  # type: ignore[index]
    if 0 < found.wait < math.inf:
        assert told <= math.ceil(denial.retry_after or 0)
