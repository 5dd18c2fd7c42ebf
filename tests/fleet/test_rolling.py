"""Workers restarted, recycled and killed under load: short here, every server and 500 streams in the soak."""

from __future__ import annotations

import pytest

from tests.fleet.rolling import How, roll, shared_store, soak
from tests.fleet.workers import KINDS


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("kind", "store"), [("uvicorn", "redis"), pytest.param("hypercorn", "sqlite", marks=pytest.mark.soak)]
)
async def test_a_rolling_restart_loses_nothing(kind: str, store: str) -> None:
    with shared_store(store) as place:
        verdict, made = await roll(kind, place, how="restart", streams=40, rounds=1, delay=0.2)

    assert verdict.clean, verdict.notes
    assert verdict.interrupted == verdict.unheard == 0
    assert verdict.moves >= 20
    assert len(made.leaving) == 2


@pytest.mark.soak
async def test_a_killed_worker_ends_its_own_streams_and_no_others() -> None:
    with shared_store("redis") as place:
        verdict, _ = await roll("uvicorn", place, how="kill", streams=40, rounds=1, delay=0.2)

    assert verdict.clean, verdict.notes
    assert verdict.interrupted > 0
    assert verdict.whole > verdict.interrupted


@pytest.mark.soak
async def test_workers_that_are_recycled_without_a_signal_lose_nothing() -> None:
    with shared_store("redis") as place:
        verdict, _ = await roll("uvicorn", place, how="recycle", streams=30, rounds=1, delay=0.2, requests=30)

    assert verdict.clean, verdict.notes
    assert verdict.interrupted == 0
    assert verdict.workers > 2
    assert verdict.moves > 0


@pytest.mark.soak
@pytest.mark.parametrize("how", ["restart", "kill", "recycle"])
@pytest.mark.parametrize("kind", KINDS)
def test_500_streams_over_three_rounds(kind: str, how: How, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print()
        assert soak([kind], [how], ["redis"], streams=500, rounds=3, seed=1)
