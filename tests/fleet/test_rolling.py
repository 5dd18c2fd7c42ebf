"""Workers killed under load: short here, all servers and many streams in the soak."""

from __future__ import annotations

import pytest

from tests.fleet.rolling import roll, shared_store


@pytest.mark.timeout(180)
@pytest.mark.parametrize("store", ["redis", "sqlite"])
async def test_a_killed_worker_ends_its_own_streams_and_no_others(store: str) -> None:
    with shared_store(store) as place:
        verdict, _ = await roll("uvicorn", place, how="kill", streams=40, rounds=1)

    assert verdict.clean, verdict.notes
    assert verdict.interrupted > 0
    assert verdict.whole > verdict.interrupted
