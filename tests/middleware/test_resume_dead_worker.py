"""A worker that dies while the first request with a key starts: nobody runs the app again, and its client is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamware import ResumeMiddleware
from streamware.streams.options import CLAIM_WAIT
from streamware.testing import FakeClock
from tests.middleware.resume_site import READER, SiteConnection, Stage
from tests.stores.worlds import DISTINCT, Limits, StoreKind, World

pytestmark = pytest.mark.parametrize("kind", [kind for kind in DISTINCT if kind.shared], ids=lambda kind: kind.name)

QUESTION = b'{"q": 1}'
KEYED = READER | {"idempotency-key": "k" * 22, "content-length": str(len(QUESTION))}


class Worker(World):
    """A store of its own over what is shared, and Resume before an app whose responses the test writes."""

    def __init__(self, kind: StoreKind, place: Path) -> None:
        super().__init__(kind, FakeClock(), Limits(lease=0.6), place)
        self.stage = Stage()
        self.resume = ResumeMiddleware(self.stage, store=self.store, clock=self.clock)

    def ask(self) -> SiteConnection:
        connection = SiteConnection(self.resume, path="/chat", method="POST", headers=KEYED, body=QUESTION)
        connection.open()
        return connection

    async def answered(self) -> SiteConnection:
        """The first answer that is not for now."""
        async with asyncio.timeout(10):
            while True:
                connection = self.ask()
                while not connection.started:
                    await self.clock.advance(CLAIM_WAIT / 10)
                    await asyncio.sleep(0.005)
                if connection.status != 409:
                    return connection
                await connection.finished()

    def die(self) -> None:
        """Renew the lease no more, as if the process had been killed."""
        self.store._vigil.end()  # type: ignore[attr-defined]  # there is no other way to die and be cleared up after


@asynccontextmanager
async def two(kind: StoreKind, place: Path) -> AsyncIterator[tuple[Worker, Worker]]:
    """Two workers that share a store."""
    workers = Worker(kind, place), Worker(kind, place)
    try:
        for worker in workers:
            await worker.store.start()
        yield workers
    finally:
        for worker in workers:
            await worker.resume.aclose()
            await worker.store.aclose()


async def test_an_app_whose_worker_died_before_its_answer_began_is_not_run_again(
    kind: StoreKind, tmp_path: Path
) -> None:
    async with two(kind, tmp_path) as (a, b):
        first = a.ask()
        await a.stage.run()
        refused = b.ask()
        async with asyncio.timeout(5):
            while not refused.started:
                await b.clock.advance(CLAIM_WAIT / 10)
                await asyncio.sleep(0.005)
        assert refused.status == 409, "its worker lives"
        await refused.finished()
        a.die()
        for _ in range(2):
            gone = await b.answered()
            await gone.finished()
            assert gone.status == 410
            told = msgspec.json.decode(gone.body)
            assert (told["reason"], told["outcome"]) == ("interrupted", "interrupted")
            assert "another key" in told["detail"]
        assert (len(a.stage.runs), len(b.stage.runs)) == (1, 0)
        await first.aclose()


async def test_a_stream_whose_worker_died_before_it_had_settled_the_key_is_joined_and_seen_to_be_cut(
    kind: StoreKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = asyncio.Event()

    async def too_late(*_: Any) -> None:
        await over.wait()

    async with two(kind, tmp_path) as (a, b):
        monkeypatch.setattr(a.store, "settle", too_late)
        first = a.ask()
        await (await a.stage.run()).stream("1")
        await first.event()
        await a.stored()
        a.die()
        again = await b.answered()
        assert again.status == 200
        await again.finished()
        assert again.data == ["1"]
        assert not again.complete
        assert (len(a.stage.runs), len(b.stage.runs)) == (1, 0)
        over.set()
        await first.aclose()


async def test_a_key_whose_app_is_ended_with_its_worker_before_it_began_is_freed_before_the_store_is_closed(
    kind: StoreKind, tmp_path: Path
) -> None:
    async with two(kind, tmp_path) as (a, b):
        first = a.ask()
        await a.stage.run()
        await a.resume.startup()
        await a.resume.shutdown()
        await a.resume.aclose()
        again = b.ask()
        await b.stage.run()
        assert (len(a.stage.runs), len(b.stage.runs)) == (1, 1)
        await first.aclose()
        await again.aclose()
