"""Random cuts: a few on every pair of app and server here, 10,000 in the soak."""

from __future__ import annotations

import pytest

from tests.servers.launch import PAIRS, Server
from tests.servers.soak_cuts import cut_streams, soak


async def test_random_cuts_lose_nothing(server: Server) -> None:
    tally = await cut_streams(server, 40, "few")

    assert tally.clean, tally.notes
    assert tally.cuts >= 40


@pytest.mark.soak
def test_10_000_random_cuts_lose_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print()
        assert soak(10_000, 1, PAIRS)
