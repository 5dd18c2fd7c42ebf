"""Fixtures: every test that asks for ``place`` runs against every Redis at hand; ``own`` is a server to be harmed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer, binaries, shared
from tests.stores.redis.kit import Place


@pytest.fixture(params=list(binaries()))
def version(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def path(version: str) -> Path:
    return binaries()[version]


@pytest.fixture
async def place(version: str) -> AsyncIterator[Place]:
    made = Place(shared(version))
    yield made
    await made.aclose()


@pytest.fixture
def own(path: Path) -> Iterator[RedisServer]:
    with RedisServer(path) as server:
        yield server


@pytest.fixture
async def harmed(own: RedisServer) -> AsyncIterator[Place]:
    """A place on a server that the test may kill, stall and restart."""
    made = Place(own)
    yield made
    await made.aclose()
