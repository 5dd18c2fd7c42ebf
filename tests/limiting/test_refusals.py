"""What is told of limits: lines that are kept, up to a bound."""

from __future__ import annotations

import pytest

from streamware import CountingObserver, Limit
from streamware.limiting.base import Standing, Taken
from streamware.limiting.refusals import Refusals


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
