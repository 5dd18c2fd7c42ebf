"""Claims in each storage: taken in parts, settled once, whatever answer was lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware import Lease, Limit, LimitStorage, MemoryLimitStorage, RedisLimitStorage
from streamware.exceptions import StoreUnavailable
from streamware.limiting.claims import Claim, claim_of
from tests.redis_groups import RedisCluster
from tests.redis_server import PATIENCE, RedisServer, binaries, newest

_names = itertools.count()
HOUR = (Limit(1000, 3600, "1000/hour", "c"),)
BOTH = (Limit(1000, 3600, "1000/hour", "c"), Limit(300, 86_400, "300/day", "d", fixed=True))


def new(storage: LimitStorage, limits: tuple[Limit, ...] = HOUR) -> Claim:
    return claim_of(storage, "who", limits, f"claim{next(_names)}")


async def used(storage: LimitStorage, limits: tuple[Limit, ...] = HOUR) -> list[int]:
    taken = await storage.take("who", limits, (0,) * len(limits))
    return [limit.amount - each.remaining for limit, each in zip(limits, taken.standings, strict=True)]


async def test_what_is_reserved_is_charged_until_it_is_settled(storage: LimitStorage):
    claim = new(storage, BOTH)

    taken = await claim.reserve(100, force=False)

    assert taken.allowed
    assert claim.granted == 100
    assert [each.remaining for each in taken.standings] == [900, 200]
    assert await used(storage, BOTH) == [100, 100]
    await claim.settle(30)
    assert await used(storage, BOTH) == [30, 30]


async def test_what_does_not_fit_one_limit_is_taken_from_none(storage: LimitStorage):
    claim = new(storage, BOTH)

    taken = await claim.reserve(301, force=False)

    assert not taken.allowed
    assert taken.wait > 0
    await claim.settle(0)
    assert await used(storage, BOTH) == [0, 0]


async def test_forced_it_can_be_charged_all_the_same(storage: LimitStorage):
    claim = new(storage, BOTH)

    assert not (await claim.reserve(301, force=True)).allowed
    assert claim.granted == 0
    await claim.settle(500)

    assert await used(storage, BOTH) == [500, 300]  # 500 of 300: there is nothing left


async def test_extended_it_takes_what_there_is_and_no_more_than_its_share(storage: LimitStorage):
    claim = new(storage)
    await claim.reserve(200, force=False)

    assert (await claim.extend(256, share=1)).granted == 256
    assert (await claim.extend(256, share=8)).granted == 68  # of 544
    assert (await claim.extend(1000, share=1)).granted == 476
    refused = await claim.extend(10, share=1)
    assert not refused.allowed
    assert refused.wait > 0
    assert claim.granted == 1000
    await claim.settle(999)

    assert await used(storage) == [999]


async def test_it_may_begin_with_an_extension(storage: LimitStorage):
    claim = new(storage)
    await claim.extend(50, share=1)
    await claim.settle(20)

    assert await used(storage) == [20]


async def test_what_was_used_in_excess_is_a_debt(storage: LimitStorage):
    claim = new(storage)
    await claim.reserve(100, force=False)
    await claim.settle(1700)

    taken = await new(storage).reserve(1, force=False)
    assert not taken.allowed
    assert await used(storage) == [1000]


async def test_settled_twice_is_settled_once(storage: LimitStorage):
    claim = new(storage)
    await claim.reserve(100, force=False)
    await asyncio.gather(*(claim.settle(30) for _ in range(5)))

    assert await used(storage) == [30]


async def test_a_claim_without_anything_taken_settles_to_nothing(storage: LimitStorage):
    await new(storage).settle(0)

    assert await used(storage) == [0]


async def test_claims_of_one_key_do_not_meet(storage: LimitStorage):
    claims = [new(storage) for _ in range(5)]
    for claim in claims:
        await claim.reserve(100, force=False)
    for number, claim in enumerate(claims):
        await claim.settle(number)

    assert await used(storage) == [10]


@given(
    reserved=st.integers(0, 300),
    extended=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 4)), max_size=4),
    spent=st.integers(0, 1500),
    steps=st.lists(st.integers(0, 2500), min_size=6, max_size=6),
    fixed=st.booleans(),
)
def test_a_window_is_never_given_more_back_than_was_taken_in_it(
    reserved: int, extended: list[tuple[int, int]], spent: int, steps: list[int], fixed: bool
):
    """The counter of each window, taken apart: what one claim adds to it is never less than nothing."""

    async def check() -> None:
        now = 10_000.0
        storage = MemoryLimitStorage(now=lambda: now)
        limits = (Limit(1000, 2, "1000/2 s", "c", fixed),)
        other = claim_of(storage, "who", limits, "other")
        claim = claim_of(storage, "who", limits, "claim")
        pause = iter(steps)
        await claim.reserve(reserved, force=True)
        now += next(pause) / 1000
        for most, share in extended:
            await claim.extend(most, share=share)
            now += next(pause) / 1000
        await other.reserve(100, force=True)
        now += next(pause) / 1000
        await claim.settle(spent)
        counter = storage._counters["who", limits[0].place]
        mine = counter.current + counter.previous
        assert mine >= 0
        if now - 10_000 < 2 and not fixed:
            assert counter.current == spent + other.granted

    asyncio.run(check())


# -- answers that are lost, in Redis


async def test_a_reservation_whose_answer_is_lost_is_undone_by_settling(redis: RedisServer):
    storage = RedisLimitStorage(redis.url, timeout=0.1)
    await storage.start()
    claim = new(storage)
    redis.stall()
    with pytest.raises(StoreUnavailable):
        await claim.reserve(400, force=False)
    redis.resume()
    patient = RedisLimitStorage(redis.url, timeout=PATIENCE)
    async with asyncio.timeout(PATIENCE):
        while await used(patient) != [400]:  # it has arrived, late
            await asyncio.sleep(0.01)

    while True:
        try:
            await claim.settle(0)
            break
        except StoreUnavailable:
            pass

    assert await used(patient) == [0]
    await storage.aclose()
    await patient.aclose()


async def test_a_reservation_that_comes_behind_its_settling_takes_nothing(redis: RedisServer):
    storage = RedisLimitStorage(redis.url, timeout=PATIENCE)
    claim = new(storage)
    await claim.settle(0)

    assert not (await claim.reserve(400, force=True)).allowed
    assert (await claim.extend(400, share=1)).granted == 0
    assert await used(storage) == [0]
    await storage.aclose()


async def settle(claim: Claim, total: int) -> None:
    """Settle it once the storage answers again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(StoreUnavailable):
                await claim.settle(total)
                return


async def test_a_slice_whose_answer_is_lost_is_given_back_by_settling(redis: RedisServer):
    storage = RedisLimitStorage(redis.url, timeout=0.1)
    await storage.start()
    claim = new(storage)
    await claim.reserve(100, force=False)
    redis.stall()
    with pytest.raises(StoreUnavailable):
        await claim.extend(300, share=1)
    redis.resume()
    assert claim.granted == 100
    await settle(claim, 120)

    patient = RedisLimitStorage(redis.url, timeout=PATIENCE)
    assert await used(patient) == [120]
    await storage.aclose()
    await patient.aclose()


async def test_a_settling_whose_answer_is_lost_counts_once(redis: RedisServer):
    storage = RedisLimitStorage(redis.url, timeout=0.1)
    await storage.start()
    claim = new(storage)
    await claim.reserve(100, force=False)
    redis.stall()
    with pytest.raises(StoreUnavailable):
        await claim.settle(150)
    redis.resume()
    for _ in range(3):
        await settle(claim, 150)

    patient = RedisLimitStorage(redis.url, timeout=PATIENCE)
    assert await used(patient) == [150]
    await storage.aclose()
    await patient.aclose()


async def test_every_name_in_redis_expires_and_holds_no_key(redis: RedisServer):
    storage = RedisLimitStorage(redis.url, timeout=PATIENCE)
    claim = claim_of(storage, "secret-token", BOTH, "n1")
    await claim.reserve(10, force=False)
    for _ in range(2):
        names = redis.run("KEYS", "*")
        assert isinstance(names, list)
        assert len(names) == 3
        assert not any(b"secret" in name for name in names)
        assert all(int(str(redis.run("PTTL", name))) > 0 for name in names)
        await claim.settle(5)
    await storage.aclose()


# -- on a cluster whose slots move


@pytest.fixture(scope="module")
def moving() -> Iterator[RedisCluster]:
    """A cluster of its own, for it does not move back."""
    with RedisCluster(binaries()[newest()]) as made:
        yield made


def places(storage: RedisLimitStorage, key: str, cluster: RedisCluster) -> tuple[list[str], RedisServer]:
    """The names of the counters of ``key``, and a server that has none of them."""
    names = [storage._place(storage._tag(key), limit.place).decode() for limit in BOTH]
    return names, next(node for node in cluster.nodes if node is not cluster.holder(names[0]))


async def test_leases_and_reservations_go_with_their_slot_to_another_server(moving: RedisCluster):
    storage = RedisLimitStorage(moving.url, timeout=PATIENCE)
    lease, other = Lease("c", "m", 1, 60), Lease("c", "other", 1, 60)
    claim = new(storage, BOTH)
    await claim.reserve(100, force=False)
    assert (await storage.take("who", BOTH, (1, 1), lease)).allowed
    names, target = places(storage, "who", moving)

    moving.move(names[0], target)

    assert (await claim.extend(50, share=1)).granted == 50
    assert (await storage.take("who", BOTH, (1, 1), other)).full
    assert await storage.renew([("who", lease)]) == 0
    await claim.settle(120)
    assert await used(storage, BOTH) == [121, 121]
    await storage.release([("who", lease)])
    assert (await storage.take("who", BOTH, (1, 1), other)).allowed
    await storage.aclose()


async def test_what_cannot_be_settled_while_a_slot_is_on_its_way_is_settled_once_behind_it(moving: RedisCluster):
    storage = RedisLimitStorage(moving.url, timeout=PATIENCE)
    claim = claim_of(storage, "another", BOTH, "moving")
    await claim.reserve(100, force=False)
    names, target = places(storage, "another", moving)
    moving.move(names[0], target, only=(names[0],))  # the other counter, and the record, are still behind

    with pytest.raises(StoreUnavailable):
        await claim.settle(60)
    moving.move(names[0], target)
    for _ in range(2):
        await claim.settle(60)

    taken = await storage.take("another", BOTH, (0, 0))
    assert [each.limit.amount - each.remaining for each in taken.standings] == [60, 60]
    await storage.aclose()
