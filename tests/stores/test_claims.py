"""Idempotency keys: taken once, settled or freed, and kept as long as what they started."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from streamware.exceptions import StoreUnavailable
from streamware.stores.base import Claim, Outcome
from streamware.stores.shared import SharedStore
from streamware.testing import settle
from tests.stores.worlds import CLOCKED, SHARED, Build, World, answered, until, waiting

across_workers = pytest.mark.parametrize("kind", SHARED, ids=lambda kind: kind.name)


async def test_the_first_claim_wins_and_the_next_learns_who_holds_the_key(world: World) -> None:
    first, second = world.stream(), world.stream()
    assert await world.store.claim("key", b"body", first) == Claim(True, first, b"body", False)
    assert await world.store.claim("key", b"other", second) == Claim(False, first, b"body", False)
    assert (await world.store.claim("another key", b"body", second)).won


async def test_of_concurrent_claimers_exactly_one_wins(world: World) -> None:
    streams = [world.stream() for _ in range(20)]
    claims = await asyncio.gather(*(world.store.claim("key", b"body", stream) for stream in streams))
    winners = [claim.stream for claim in claims if claim.won]
    assert len(winners) == 1
    assert {claim.stream for claim in claims} == set(winners)


async def test_a_settled_claim_says_so_to_all_that_come_and_all_that_wait(world: World) -> None:
    log = await world.log()
    await world.store.claim("key", b"body", log.stream)
    waiters = [await waiting(world.store.settled("key", 10)) for _ in range(3)]
    await world.store.settle("key", log.stream, True)
    settled = Claim(False, log.stream, b"body", True)
    assert await asyncio.wait_for(asyncio.gather(*waiters), 5) == [settled] * 3
    assert await asyncio.wait_for(world.store.settled("key", 10), 5) == settled
    assert await world.store.claim("key", b"body", world.stream()) == settled
    await until(lambda: world.clock.timers == 0)  # a round may be under way, whose calls have time-outs


async def test_a_key_whose_request_was_no_stream_is_free_again(world: World) -> None:
    first = world.stream()
    await world.store.claim("key", b"body", first)
    waiter = await waiting(world.store.settled("key", 10))
    await world.store.settle("key", first, False)
    assert await asyncio.wait_for(waiter, 5) is None
    second = world.stream()
    assert await world.store.claim("key", b"other", second) == Claim(True, second, b"other", False)


async def test_waiting_for_a_free_key_returns_at_once(world: World) -> None:
    assert await asyncio.wait_for(world.store.settled("key", 10), 5) is None
    await until(lambda: world.clock.timers == 0)  # a round may be under way, whose calls have time-outs


async def test_a_wait_that_takes_too_long_returns_the_unsettled_claim(world: World) -> None:
    stream = world.stream()
    await world.store.claim("key", b"body", stream)
    waiter = await waiting(world.store.settled("key", 10))
    await world.clock.advance(9)
    assert not waiter.done()
    await world.clock.advance(1.5)
    assert await asyncio.wait_for(waiter, 5) == Claim(False, stream, b"body", False)
    await until(lambda: world.clock.timers == 0)  # a round may be under way, whose calls have time-outs


async def test_a_wait_that_is_cancelled_leaves_nothing_and_the_others_waiting(world: World) -> None:
    stream = world.stream()
    await world.store.claim("key", b"body", stream)
    one, other = await waiting(world.store.settled("key", 10)), await waiting(world.store.settled("key", 10))
    one.cancel()
    await settle()
    assert not other.done()
    await world.store.settle("key", stream, True)
    assert (await asyncio.wait_for(other, 5)) is not None
    await until(lambda: world.clock.timers == 0)  # a round may be under way, whose calls have time-outs


async def test_when_a_key_changes_hands_the_next_holder_is_waited_for(world: World) -> None:
    """Of two duplicates that wait, one gets the key when it is free; to the other that is no time-out."""
    first = world.stream()
    await world.store.claim("key", b"body", first)
    outcomes: list[Claim] = []

    async def duplicate() -> None:
        claim = await world.store.claim("key", b"body", world.stream())
        while not claim.won and not claim.settled:
            settled = await world.store.settled("key", 10)
            assert settled is None or settled.settled, "nobody is out of time"
            claim = settled or await world.store.claim("key", b"body", world.stream())
        outcomes.append(claim)
        if claim.won:
            await settle()
            await world.store.settle("key", claim.stream, True)

    duplicates = [asyncio.ensure_future(duplicate()) for _ in range(4)]
    await settle()
    await world.store.settle("key", first, False)
    await asyncio.wait_for(asyncio.gather(*duplicates), 5)
    assert sorted(claim.won for claim in outcomes) == [False, False, False, True]
    assert len({claim.stream for claim in outcomes}) == 1


async def test_settling_a_key_that_nobody_holds_is_harmless(world: World) -> None:
    await world.store.settle("key", world.stream(), True)
    await world.store.settle("key", world.stream(), False)
    assert (await world.store.claim("key", b"body", world.stream())).won


async def test_forgetting_the_stream_frees_its_key_and_wakes_who_waits_for_it(world: World) -> None:
    log = await world.log()
    await world.store.claim("key", b"body", log.stream)
    waiter = await waiting(world.store.settled("key", 10))
    await world.store.forget(log.stream)
    assert await asyncio.wait_for(waiter, 5) is None
    assert (await world.store.claim("key", b"body", world.stream())).won


@pytest.mark.parametrize("kind", CLOCKED, ids=lambda kind: kind.name)
@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.INTERRUPTED])
async def test_a_settled_key_lives_as_long_as_its_log_and_not_beyond_its_tombstone(
    build: Build, outcome: Outcome
) -> None:
    world = build(ttl=300, tombstone_ttl=1000)
    log = await world.log()
    await world.store.claim("key", b"body", log.stream)
    await world.store.settle("key", log.stream, True)
    await world.clock.advance(10_000)
    assert not (await world.store.claim("key", b"body", world.stream())).won, "a running stream has no time to live"
    log.close(outcome)
    await world.stored()
    await world.clock.advance(299)
    claim = await world.store.claim("key", b"body", world.stream())
    assert (claim.won, claim.settled, claim.stream) == (False, True, log.stream)
    await world.clock.advance(1002)
    assert (await world.store.claim("key", b"body", world.stream())).won


async def test_a_late_settling_does_not_settle_another_streams_claim(world: World) -> None:
    first, second = world.stream(), world.stream()
    await world.store.claim("key", b"body", first)
    await world.store.settle("key", first, False)
    await world.store.claim("key", b"body", second)
    await world.store.settle("key", first, True)
    assert await world.store.claim("key", b"body", world.stream()) == Claim(False, second, b"body", False)
    await world.store.settle("key", first, False)
    assert not (await world.store.claim("key", b"body", world.stream())).won


# -- what the store was not heard to have done


def lose_answers(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """The next call of ``name`` reaches the store, which does it, and whose answer never comes; set once it is done."""
    assert isinstance(world.store, SharedStore)
    backend, done = world.store._backend, asyncio.Event()
    real = getattr(backend, name)

    async def lost(*args: object) -> object:
        monkeypatch.setattr(backend, name, real)
        await real(*args)
        done.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(backend, name, lost)
    return done


async def freed(world: World) -> Claim:
    """A claim of another stream, as soon as the key is free."""
    async with asyncio.timeout(5):
        while (claim := await answered(lambda: world.store.claim("key", b"body", world.stream()))).pending:
            await asyncio.sleep(0.01)
        return claim


@across_workers
async def test_a_claim_whose_request_left_before_the_answer_came_is_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = lose_answers(world, "claim", monkeypatch)
    asking = asyncio.ensure_future(world.store.claim("key", b"body", world.stream()))
    await asyncio.wait_for(done.wait(), 5)
    asking.cancel()
    await asyncio.wait([asking])
    assert (await freed(world)).won


@across_workers
@pytest.mark.parametrize("started", [True, False])
async def test_a_settling_that_nobody_heard_the_answer_of_is_said_again(
    build: Build, started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = build(lease=1.2)
    log = await world.log()
    await world.stored()
    await world.store.claim("key", b"body", log.stream)

    async def fails(*_: object) -> None:
        monkeypatch.setattr(backend, "settle", real)
        raise StoreUnavailable("for a moment")

    assert isinstance(world.store, SharedStore)
    backend = world.store._backend
    real = backend.settle
    monkeypatch.setattr(backend, "settle", fails)
    with pytest.raises(StoreUnavailable):
        await world.store.settle("key", log.stream, started)
    await world.clock.advance(10)  # the store may be asked again
    claim = await freed(world)
    assert (claim.won, claim.settled) == (not started, started)


@across_workers
async def test_what_is_owed_to_the_store_is_paid_before_the_worker_ends(
    build: Build, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = build(place), build(place)
    for world in (a, b):
        await world.store.start()
    assert isinstance(a.store, SharedStore)
    a.store._rounds.begin = lambda lapsed: None  # type: ignore[method-assign]  # none comes in time
    done = lose_answers(a, "claim", monkeypatch)
    asking = asyncio.ensure_future(a.store.claim("key", b"body", a.stream()))
    await asyncio.wait_for(done.wait(), 5)
    asking.cancel()
    await asyncio.wait([asking])
    assert (await b.store.claim("key", b"body", b.stream())).pending
    await a.store.aclose()
    assert (await b.store.claim("key", b"body", b.stream())).won


@across_workers
async def test_no_more_is_owed_than_a_bound(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(world.store, SharedStore)
    claims = world.store._claims
    monkeypatch.setattr("streamware.stores.claims.MAX_OWED", 3)

    async def fails(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(world.store._backend, "settle", fails)
    for n in range(10):
        with pytest.raises(StoreUnavailable):
            await claims.settle(str(n), world.stream(), True)
    assert len(claims._owed) <= 3
    claims._owed.clear()
