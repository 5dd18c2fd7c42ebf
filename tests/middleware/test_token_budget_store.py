"""A token budget on a Redis that goes away in the middle: what begins, what runs, and what is charged afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import pytest

from streamware import RedisLimitStorage
from streamware.limiting.guard import MAX_PAUSE
from streamware.limiting.settler import MAX_RETRY
from streamware.testing import settle
from tests.middleware.budget_site import CHAT, KEY, Site, chunk, words
from tests.redis_server import PATIENCE, RedisServer

ASKS = {**CHAT, "max_tokens": 100}
END = (chunk("", usage=(10, 60)), b"data: [DONE]\n\n")
POLICIES = ["allow", "deny", "local"]
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


class StoreSite(Site):
    """A site on ``redis``, which may go away."""

    def __init__(self, redis: RedisServer, **options: Any) -> None:
        self.storage = RedisLimitStorage(redis.url, timeout=0.2)
        super().__init__(storage=self.storage, **options)
        self.budget._ledger.guard._clock = self.clock
        self.budget._ledger.settler._clock = self.clock
        self.patient = RedisLimitStorage(redis.url, timeout=PATIENCE)

    async def charged(self, path: str = "/") -> int:
        assert self.budget._limits is not None
        limits = self.budget._limits({"type": "http"}, path)
        taken = await self.patient.take(KEY, limits, (0,))
        return limits[0].amount - taken.standings[0].remaining

    async def settled(self) -> None:
        """Nothing: it may have to wait."""

    async def settled_at_last(self) -> None:
        """Once the storage is back."""
        async with asyncio.timeout(PATIENCE):
            while len(self.budget._ledger.settler) or self.budget._ledger.settler._task is not None:
                await self.clock.advance(max(MAX_PAUSE, MAX_RETRY))
                await asyncio.sleep(0.01)


@pytest.fixture
async def make(server: RedisServer) -> AsyncIterator[Make]:
    if not server._serves():
        server.restart(keep=False)
    server.run("FLUSHALL")
    made: list[StoreSite] = []

    async def start(**options: Any) -> StoreSite:
        site = StoreSite(server, **options)
        await site.budget.startup()
        made.append(site)
        return site

    yield start
    for site in made:
        await site.budget.aclose()
        await site.storage.aclose()
        await site.patient.aclose()


STATUSES = {"allow": [200] * 5, "deny": [503] * 5, "local": [200, 200, 429, 429, 429]}


@pytest.mark.parametrize("policy", POLICIES)
async def test_killed_in_the_middle_each_policy_does_what_it_says_and_no_stream_breaks(
    make: Make, server: RedisServer, policy: str
):
    site = await make(limits="1000/hour", on_store_error=policy, on_exceeded="cut", slice_size=50)
    site.gates[1] = asyncio.Event()
    site.parts = [words(5), *[words(50)] * 8, *END]
    whole = b"".join(site.parts)
    async with site.connection(json=ASKS) as running:
        await running.receive_body(len(words(5)))
        server.kill()
        gate = site.gates.pop(1)
        parts, site.parts = site.parts, [chunk("", usage=(10, 90)), END[1]]  # 100 of 250 each
        assert [(await site.ask(json=ASKS)).status for _ in range(5)] == STATUSES[policy]
        gate.set()
        await running.finished()
        assert running.body == whole == b"".join(parts)
        assert len(site.budget._ledger.settler) > 0

    server.restart(keep=False)
    await site.clock.advance(MAX_PAUSE)
    await site.settled_at_last()
    assert await site.charged() == 0  # what it was charged to is lost, and it is not charged again
    assert (await site.ask(json=ASKS)).status == 200
    await site.settled_at_last()
    assert await site.charged() == 100
    counts = site.observer.counts
    assert counts["token_budget.store", "away"] == 1
    assert counts["token_budget.store", "back"] == 1
    assert counts["token_budget.degraded", policy] >= 5


@pytest.mark.parametrize("policy", POLICIES)
async def test_what_runs_while_it_restarts_is_charged_once(make: Make, server: RedisServer, policy: str):
    site = await make(limits="10000/hour", on_store_error=policy)
    site.gates[1] = asyncio.Event()
    site.parts = [words(5), *END]
    connections = [site.connection(json=ASKS) for _ in range(20)]
    for connection in connections:
        connection.open()
        await connection.receive_body(len(words(5)))
    assert await site.charged() == 20 * 110
    server.run("SAVE")
    server.kill()
    site.gates[1].set()
    await asyncio.gather(*(connection.finished() for connection in connections))
    await settle()
    assert len(site.budget._ledger.settler) == 20

    server.start()
    await site.settled_at_last()

    assert await site.charged() == 20 * 70
    assert site.observer.counts["token_budget.used", "reported"] == 20 * 70


@pytest.mark.parametrize("policy", POLICIES)
async def test_what_is_asked_while_it_hangs_is_not_charged_when_it_goes_on(
    make: Make, server: RedisServer, policy: str
):
    site = await make(limits="10000/hour", on_store_error=policy)
    site.parts = [words(5), *END]
    site.gates[1] = asyncio.Event()
    async with site.connection(json=ASKS) as running:
        await running.receive_body(len(words(5)))
        gate = site.gates.pop(1)
        server.stall()
        try:
            statuses = [(await site.ask(json=ASKS)).status for _ in range(6)]  # the first are waited for
            gate.set()
            await running.finished()  # and settled in vain
            await settle()
        finally:
            server.resume()
    assert statuses == [503 if policy == "deny" else 200] * 6
    await site.settled_at_last()

    assert await site.charged() == 70  # of the one that began before; what took the others' place is not counted here


async def test_a_client_that_leaves_while_its_reservation_is_on_its_way_is_charged_nothing(
    make: Make, server: RedisServer
):
    site = await make(limits="10000/hour")
    server.stall()
    try:
        async with site.connection(json=ASKS) as connection:
            await settle()
            connection.cancel()
            await connection.finished()
    finally:
        server.resume()
    await site.settled_at_last()

    assert site.calls == 0
    assert await site.charged() == 0


async def test_a_stream_that_began_while_it_was_away_takes_slices_of_it_when_it_is_back(
    make: Make, server: RedisServer
):
    site = await make(limits="10000/hour", on_store_error="local", slice_size=50)
    server.kill()
    for _ in range(3):
        assert (await site.ask(json=ASKS)).status == 200
    site.parts = [words(5), words(200), chunk("", usage=(10, 300))]
    site.gates[1] = asyncio.Event()
    async with site.connection(json=ASKS) as running:
        await running.receive_body(len(words(5)))
        server.restart(keep=False)
        await site.clock.advance(MAX_PAUSE)
        site.gates[1].set()
        await running.finished()
    await site.settled_at_last()

    assert await site.charged() == 200  # 310, of which this worker's own counters have 110


async def test_redis_is_asked_once_for_a_stream_and_once_at_its_end(make: Make, server: RedisServer):
    site = await make(limits="10000/hour")
    site.parts = [words(5), *END]
    await site.ask(json=ASKS)
    await site.settled_at_last()
    server.run("CONFIG", "RESETSTAT")
    await site.ask(json=ASKS)
    await site.settled_at_last()

    stats = cast("dict[str, dict[str, int]]", server.run("INFO", "commandstats"))
    assert stats["cmdstat_evalsha"]["calls"] == 2


async def test_what_is_more_than_a_workers_share_takes_all_of_it_while_redis_is_away(make: Make, server: RedisServer):
    site = await make(limits="400/hour", on_store_error="local", expected_workers=4)
    site.parts = [chunk("", usage=(10, 190)), END[1]]
    server.kill()
    assert (await site.ask(json={**CHAT, "max_tokens": 300})).status == 200  # 310 of 400, but a share is 100
    refused = await site.ask(json=ASKS)
    assert refused.status == 429
    assert int(refused.header("retry-after") or 0) < 2 * 3600 * 1.1  # what was used in excess is waited for, no more
    server.restart(keep=False)


async def test_three_hundred_streams_that_are_cancelled_together_settle_three_hundred(make: Make, server: RedisServer):
    site = await make(limits="1000000/hour")
    site.budget._ledger.guard.storage._timeout = PATIENCE
    site.parts = [words(5), *END]
    site.gates[1] = asyncio.Event()
    running = [site.connection(json=ASKS) for _ in range(300)]
    for connection in running:
        connection.open()
    for connection in running:
        await connection.receive_body(len(words(5)))
    assert await site.charged() == 300 * 110

    for connection in running:
        connection.cancel()
    for connection in running:
        await connection.aclose()
    await site.settled_at_last()

    assert await site.charged() == 300 * 15
    assert site.observer.counts["token_budget.used", "estimated"] == 300 * 15
    records = server.run("KEYS", "*reservation*")
    assert isinstance(records, list)
    assert len(records) == 300
    assert {server.run("GET", record) for record in records} == {b"settled"}
