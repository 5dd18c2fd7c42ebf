"""Fixtures: ``storage`` is each kind of storage in turn, on one server and on a cluster; ``redis`` a server that may be
harmed."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from streamware import LimitStorage, MemoryLimitStorage, RedisLimitStorage
from tests.redis_groups import RedisCluster
from tests.redis_server import PATIENCE, RedisServer, binaries, newest, shared

_numbers = itertools.count()


@pytest.fixture(scope="package")
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster(binaries()[newest()]) as made:
        yield made


@pytest.fixture(params=["memory", *binaries(), "cluster"])
async def storage(request: pytest.FixtureRequest) -> AsyncIterator[LimitStorage]:
    made: LimitStorage
    if request.param == "memory":
        made = MemoryLimitStorage()
    else:
        prefix = f"test{next(_numbers)}:"
        own: RedisCluster | None = request.getfixturevalue("cluster") if request.param == "cluster" else None
        url = shared(request.param).url if own is None else own.url
        made = RedisLimitStorage(url, prefix=prefix, timeout=PATIENCE)
    await made.start()
    yield made
    await made.aclose()


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server
