"""A shared store that goes away under those who read from it: nobody hangs, nothing escapes to the server, and what was
cut looks cut."""

from __future__ import annotations

from typing import Any

import pytest

from streamware import MemoryStore
from streamware.exceptions import StoreUnavailable
from streamware.stores.base import Batch
from streamware.testing import FakeClock, settle
from tests.middleware.resume_site import EVENTSOURCE, READER, Site

KEY = {"idempotency-key": "k" * 22}


class Fragile:
    """A reader of a log in another worker, as far as its store answers."""

    def __init__(self, place: Any, store: FragileStore) -> None:
        self._place = place
        self._store = store
        self.sink = None

    @property
    def position(self) -> int:
        position: int = self._place.position
        return position

    async def read(self) -> Batch | None:
        if self._store.away:
            raise StoreUnavailable("the store does not answer")
        batch: Batch | None = await self._place.read()
        if self._store.away:
            raise StoreUnavailable("the store does not answer")
        return batch

    def close(self) -> None:
        self._place.close()


class FragileLog:
    """A log as another worker has it."""

    def __init__(self, log: Any, store: FragileStore) -> None:
        self._log = log
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def reader(self, after: int) -> Fragile:
        return Fragile(self._log.reader(after), self._store)


class FragileStore(MemoryStore):
    """Every log that it opens is another worker's, which can be read only while the store is not ``away``."""

    away = False

    async def open(self, stream: str) -> Any:
        found = await super().open(stream)
        return FragileLog(found, self) if found is not None and hasattr(found, "reader") else found

    async def settle(self, *args: Any) -> None:
        if self.away:
            raise StoreUnavailable("the store does not answer")
        await super().settle(*args)


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "daphne", "granian"])
@pytest.mark.parametrize("headers", [EVENTSOURCE, READER], ids=["eventsource", "other"])
async def test_a_reader_whose_store_goes_away_is_let_go_and_finds_the_rest_later(
    server: str, headers: dict[str, str]
) -> None:
    clock = FakeClock()
    store = FragileStore(clock=clock)
    async with Site(store=store, clock=clock) as site:
        first, run = await site.started("1", headers=READER)
        second = site.connect(headers=headers, cursor=first.at(0), server=server)
        assert (await second.event()).data == "1"
        store.away = True
        await run.say("2")
        await first.event()
        await second.finished()
        if server in ("uvicorn", "hypercorn", "granian"):
            assert not second.complete, "a partial replay never looks whole"
        elif headers is READER:
            assert second.complete, "this server would leave the connection open for ever"
            assert b"event: error" in second.body
        assert b"data: 2" not in second.body
        store.away = False
        again = site.connect(headers=headers, cursor=first.at(1))
        assert (await again.event()).data == "2"
        await run.end()


@pytest.mark.parametrize("headers", [EVENTSOURCE, READER], ids=["eventsource", "other"])
async def test_a_cursor_whose_log_cannot_be_read_is_refused_for_now(headers: dict[str, str]) -> None:
    clock = FakeClock()
    store = FragileStore(clock=clock)
    async with Site(store=store, clock=clock) as site:
        first, run = await site.started("1", "2", headers=READER)
        store.away = True
        refused = site.connect(headers=headers, cursor=first.at(1))
        await refused.finished()
        if headers is EVENTSOURCE:  # its answer has begun by then, and it comes back
            assert refused.status == 200
            assert b"data:" not in refused.body
        else:
            assert refused.status == 503
            assert refused.header("retry-after") is not None
        assert site.runs == 1
        store.away = False
        await run.end()


async def test_a_key_that_cannot_be_settled_leaves_no_unseen_error_and_starts_nothing_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    store = FragileStore(clock=clock)
    async with Site(store=store, clock=clock) as site:
        first = site.connect(headers=READER | KEY)
        run = await site.run()
        store.away = True
        await run.stream("1")
        await first.event()
        await settle()
        store.away = False
        duplicate = site.connect(headers=READER | KEY)
        await clock.advance(11)
        await duplicate.finished()
        assert duplicate.status == 409
        assert site.runs == 1
        assert site.observer.total("resume.unsettled") == 1
        await run.end()
    assert not [record for record in caplog.records if record.name == "asyncio"]
