"""The board between real processes: who takes, and who hears."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.redis_server import RedisServer, binaries, newest
from tests.stores.taker import store_at

ROOT = Path(__file__).parents[2]
COUNT = 200


@pytest.fixture(params=["sqlite", "redis"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "streams.db")
    else:
        with RedisServer(binaries()[newest()]) as server:
            yield server.url


@asynccontextmanager
async def takers(where: str, count: int) -> AsyncIterator[list[Process]]:
    command = sys.executable, "-m", "tests.stores.taker", where
    made = [await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE) for _ in range(count)]
    try:
        for process in made:
            assert await says(process) == "ready"
        yield made
    finally:
        for process in made:
            if process.returncode is None:
                process.kill()
            await process.wait()
            process._transport.close()  # type: ignore[attr-defined]  # its pipes


async def says(process: Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()


async def test_between_processes_each_thing_is_taken_by_exactly_one(where: str):
    store = store_at(where)
    async with takers(where, 3) as processes:
        for _ in range(2):
            await asyncio.gather(*(store.put(f"key {n}", b"%d" % n, 60) for n in range(COUNT)))
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(b"take %d\n" % COUNT)
            got = [json.loads(await says(process)) for process in processes]
            assert sorted(int(value) for each in got for value in each) == list(range(COUNT))
    await store.aclose()


async def test_every_process_hears_an_announcement_once_also_when_another_was_killed(where: str):
    store = store_at(where)
    async with takers(where, 3) as processes:
        await store.announce("topic", b"1")
        assert [await says(process) for process in processes] == ["heard 1"] * 3
        dead = processes[0]
        dead.kill()
        await dead.wait()
        for n in range(2, 50):
            await store.announce("topic", b"%d" % n)
        for process in processes[1:]:
            assert [await says(process) for _ in range(2, 50)] == [f"heard {n}" for n in range(2, 50)]
    await store.aclose()
