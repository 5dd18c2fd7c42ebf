"""The simulation of reconnect storms, where it can be worked out by hand."""

from __future__ import annotations

import random

import pytest

from benchmarks.storm import POLICIES, Storm, simulate, spread


def test_a_policy_spreads_by_its_part_either_way() -> None:
    draw = random.Random(1)
    drawn = [spread(4.0, 0.25)(draw) for _ in range(2000)]

    assert 3.0 <= min(drawn) < 3.05
    assert 4.95 < max(drawn) <= 5.0


def test_a_storm_is_the_same_each_time() -> None:
    storm = Storm("", 500, 3, 1)

    assert simulate(storm, POLICIES["3 s ± a half"]) == simulate(storm, POLICIES["3 s ± a half"])


def test_with_time_to_spare_the_last_is_back_when_its_own_time_is_over() -> None:
    got = simulate(Storm("", 100, 11, 1), spread(3.0, 0.5), rate=1000)

    assert got.last == pytest.approx(4.5, abs=0.1)
    assert got.half == pytest.approx(3.0, abs=0.3)
    assert got.peak < 0.1


def test_a_worker_that_has_too_much_to_do_is_what_all_wait_for() -> None:
    got = simulate(Storm("", 10_000, 2, 1), spread(3.0, 0.25), rate=1000)

    assert got.busy == pytest.approx(10.0, abs=0.1)
    assert got.last == pytest.approx(2.25 + 0.99 * 10.0, abs=0.1)
    assert got.peak == pytest.approx(10_000 / 1.5 / 1000, rel=0.15)


def test_all_come_back_to_a_fleet_that_is_restarted_and_to_what_is_left_of_another() -> None:
    storms = (Storm("", 300, 3, 3, restarted=True), Storm("", 300, 3, 2))

    assert [storm.left for storm in storms] == [3, 1]
    assert simulate(storms[0], spread(3.0, 0.0), rate=100).last == pytest.approx(3.0 + 0.99 * 3.0, abs=0.1)
    assert simulate(storms[1], spread(3.0, 0.0), rate=100).last == pytest.approx(3.0 + 0.99 * 6.0, abs=0.1)


def test_clients_that_give_up_too_soon_never_get_back() -> None:
    storm = Storm("", 4_000, 2, 2, restarted=True, patience=1.0)

    got = simulate(storm, spread(1.0, 0.25), rate=500)

    assert got.last == float("inf")
    assert got.attempts >= 10
