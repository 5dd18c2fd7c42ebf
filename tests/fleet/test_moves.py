"""Random runs over two workers: a few here, a thousand in the soak."""

from __future__ import annotations

import pytest

from tests.fleet.moves import moves_over


@pytest.mark.parametrize("store", ["redis", "sqlite"])
async def test_random_runs_over_two_workers_are_exact(store: str) -> None:
    moves = await moves_over(store, 30, "few")

    assert moves.notes == []
    assert moves.stopped > 5


@pytest.mark.soak
@pytest.mark.parametrize("store", ["redis", "sqlite"])
async def test_1000_random_runs_over_two_workers_are_exact(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    moves = await moves_over(store, 1000, "many")

    with capsys.disabled():
        print(f"\n{store}: {moves}")
    assert moves.notes == []
