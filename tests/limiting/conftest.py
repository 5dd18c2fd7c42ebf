"""Fixtures: ``storage`` is each kind of storage in turn; ``redis`` a server that may be harmed."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from streamware import LimitStorage, MemoryLimitStorage, RedisLimitStorage
from tests.redis_server import PATIENCE, RedisServer, binaries, shared

_numbers = itertools.count()


@pytest.fixture(params=["memory", *binaries()])
async def storage(request: pytest.FixtureRequest) -> AsyncIterator[LimitStorage]:
    made: LimitStorage
    if request.param == "memory":
        made = MemoryLimitStorage()
    else:
        prefix = f"test{next(_numbers)}:"
        made = RedisLimitStorage(shared(request.param).url, prefix=prefix, timeout=PATIENCE)
    await made.start()
    yield made
    await made.aclose()


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server
