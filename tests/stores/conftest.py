"""Fixtures of the contract suite: every test that asks for ``world`` or ``build`` runs against every store."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from streamware.stores.base import Store
from streamware.testing import FakeClock
from tests.stores.worlds import KINDS, Build, Limits, StoreKind, World


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> StoreKind:
    chosen: StoreKind = request.param
    return chosen


@pytest.fixture
async def build(kind: StoreKind, clock: FakeClock) -> AsyncIterator[Build]:
    """Makes worlds with limits of their own: ``build(max_log_bytes=…)``; several workers of one with ``place=``."""
    worlds: list[World] = []

    def make(place: Path | None = None, **limits: float) -> World:
        world = World(kind, clock, Limits(**limits), place)  # type: ignore[arg-type]  # sizes are given as int
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        await world.store.aclose()
        shutil.rmtree(world.place, ignore_errors=True)
    assert clock.timers == 0, "a store leaves no timer behind"


@pytest.fixture
async def world(build: Build) -> World:
    made = build()
    await made.store.start()
    return made


@pytest.fixture
def store(world: World) -> Store:
    return world.store


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory for a file of stores. Not ``tmp_path``, whose name is too long for the sockets beside the file."""
    directory = Path(tempfile.mkdtemp(prefix="streamware-"))
    yield directory
    shutil.rmtree(directory)
