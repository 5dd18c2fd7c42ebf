"""What every storage promises: all or nothing, corrections that count once, leases that lapse."""

from __future__ import annotations

import asyncio
import re

import pytest

from streamware import ConfigurationError, Lease, Limit, LimitStorage, MemoryLimitStorage, RedisLimitStorage
from tests.redis_groups import RedisCluster
from tests.redis_server import PATIENCE, RedisServer, binaries, newest, shared

MINUTE = Limit(10, 60, "10/minute")
DAY = Limit(12, 86_400, "12/day")
BOTH = (MINUTE, DAY)


async def left(storage: LimitStorage, *limits: Limit, key: str = "a") -> list[int]:
    looked = await storage.take(key, limits, [0] * len(limits))
    assert looked.allowed
    return [standing.remaining for standing in looked.standings]


async def test_what_is_taken_is_told(storage: LimitStorage):
    taken = await storage.take("a", BOTH, (3, 1))

    assert taken.allowed
    assert [standing.limit for standing in taken.standings] == [MINUTE, DAY]
    assert [standing.remaining for standing in taken.standings] == [7, 11]
    assert taken.wait == 0
    assert 59 < taken.standings[0].reset <= 60


async def test_a_refused_request_uses_up_nothing(storage: LimitStorage):
    await storage.take("a", BOTH, (9, 9))

    for costs in ((2, 0), (0, 4), (2, 4), (1, 4), (100, 1)):
        refused = await storage.take("a", BOTH, costs, Lease("c", "m", 1, 30))
        assert not refused.allowed
        assert [standing.remaining for standing in refused.standings] == [1, 3]
    assert await left(storage, *BOTH) == [1, 3]
    assert (await storage.take("a", (), (), Lease("c", "other", 1, 30))).allowed


async def test_no_more_is_taken_than_there_is_however_many_ask_at_once(storage: LimitStorage):
    answers = await asyncio.gather(*(storage.take("a", BOTH, (1, 1)) for _ in range(200)))

    assert sum(answer.allowed for answer in answers) == 10
    assert await left(storage, *BOTH) == [0, 2]


async def test_a_wait_is_told_for_what_does_not_fit_and_no_end_of_it_for_what_never_will(storage: LimitStorage):
    await storage.take("a", (MINUTE,), (10,))

    refused = await storage.take("a", (MINUTE,), (1,))
    never = await storage.take("a", (MINUTE,), (11,))

    assert 59 < refused.wait < 61
    assert refused.standings[0].reset == pytest.approx(refused.wait, abs=0.1)
    assert never.wait == float("inf")


async def test_keys_counters_and_kinds_of_window_are_apart_and_amounts_are_not(storage: LimitStorage):
    await storage.take("a", (MINUTE,), (10,))

    assert await left(storage, MINUTE, key="b") == [10]
    assert await left(storage, Limit(10, 60, counter="other")) == [10]
    assert await left(storage, Limit(10, 61)) == [10]
    assert await left(storage, Limit(10, 60, fixed=True)) == [10]
    assert await left(storage, Limit(100, 60, "100/minute")) == [90]


async def test_a_part_is_a_share_of_what_is_left_where_the_least_is_left(storage: LimitStorage):
    limits = (Limit(1000, 60), Limit(600, 3600))

    first = await storage.take_part("a", limits, 100, share=4)
    for _ in range(3):
        await storage.take_part("a", limits, 100, share=1)
    small = await storage.take_part("a", limits, 100, share=4)
    rest = await storage.take_part("a", limits, 1000)
    nothing = await storage.take_part("a", limits, 100, share=4)

    assert (first.granted, small.granted, rest.granted) == (100, 50, 150)
    assert (nothing.allowed, nothing.granted) == (False, 0)
    assert nothing.wait > 0
    assert await left(storage, *limits) == [400, 0]


async def test_a_correction_counts_once_and_may_go_either_way(storage: LimitStorage):
    taken = await storage.take("a", BOTH, (8, 8))

    assert await storage.add("a", BOTH, (-5, -5), taken.windows, once="one")
    assert not await storage.add("a", BOTH, (-5, -5), taken.windows, once="one")
    assert await left(storage, *BOTH) == [7, 9]
    assert await storage.add("a", BOTH, (20, 1), taken.windows, once="two")
    assert await left(storage, *BOTH) == [0, 8]
    assert not (await storage.take("a", BOTH, (1, 1))).allowed


async def test_a_correction_of_another_window_gives_no_credit(storage: LimitStorage):
    taken = await storage.take("a", BOTH, (8, 8))
    elsewhere = [window - 10 * 86_400_000 for window in taken.windows]

    await storage.add("a", BOTH, (-8, -8), elsewhere, once="late")
    await storage.add("a", BOTH, (-100, -100), taken.windows, once="too much")

    assert await left(storage, *BOTH) == [10, 12]


async def test_a_lease_is_had_by_so_many_and_free_when_it_is_released(storage: LimitStorage):
    def lease(member: str) -> Lease:
        return Lease("c", member, 2, 30)

    first = await storage.take("a", BOTH, (1, 1), lease("one"))
    await storage.take("a", BOTH, (1, 1), lease("two"))
    full = await storage.take("a", BOTH, (1, 1), lease("three"))
    elsewhere = await storage.take("b", BOTH, (1, 1), lease("three"))
    again = await storage.take("a", (), (), lease("one"))

    assert [first.allowed, elsewhere.allowed, again.allowed] == [True] * 3
    assert (full.allowed, full.full, full.wait) == (False, True, 0)
    assert await left(storage, *BOTH) == [8, 10]

    await storage.release([("a", lease("one")), ("b", lease("three"))])
    await storage.release([("a", lease("one"))])

    assert (await storage.take("a", (), (), lease("three"))).allowed
    assert (await storage.take("a", (), (), lease("four"))).full


async def test_a_lease_that_nobody_renews_is_free_again(storage: LimitStorage):
    kept, lost = Lease("c", "kept", 2, 0.3), Lease("c", "lost", 2, 0.3)
    for lease in (kept, lost):
        assert (await storage.take("a", (), (), lease)).allowed

    got = None
    async with asyncio.timeout(5):
        while got is None or not got.allowed:
            assert await storage.renew([("a", kept)]) == 0
            got = await storage.take("a", (), (), Lease("c", "new", 2, 30))
            await asyncio.sleep(0.02)

    assert (await storage.take("a", (), (), Lease("c", "newer", 2, 30))).full


async def test_what_has_lapsed_and_still_runs_is_counted_again(storage: LimitStorage):
    one, two = Lease("c", "one", 1, 30), Lease("c", "two", 1, 30)
    await storage.take("a", (), (), one)

    assert await storage.renew([("a", one), ("a", two), ("b", two)]) == 2
    await storage.release([("a", one)])

    assert (await storage.take("a", (), (), Lease("c", "three", 1, 30))).full


async def test_a_window_goes_by(storage: LimitStorage):
    limit = Limit(4, 1, fixed=True)
    await storage.take("a", (limit,), (1,))
    first = await storage.take("a", (limit,), (0,))

    async with asyncio.timeout(5):
        while (await left(storage, limit)) != [4]:
            await asyncio.sleep(0.02)

    second = await storage.take("a", (limit,), (4,))
    assert second.allowed
    assert second.windows[0] > first.windows[0]
    assert second.windows[0] % 1000 == 0


async def test_in_redis_names_hold_no_key_and_all_expire():
    server = shared(newest())
    storage = RedisLimitStorage(server.url, prefix="secrets:", timeout=PATIENCE)
    limits = (Limit(5, 60), Limit(5, 3600, fixed=True))

    taken = await storage.take("token:very-secret", limits, (1, 1), Lease("c", "m", 5, 30))
    await storage.add("token:very-secret", limits, (1, 1), taken.windows, once="x")
    await storage.take_part("token:very-secret", limits, 1)
    await storage.aclose()

    names = server.run("KEYS", "secrets:*")
    assert isinstance(names, list)
    assert len(names) == 4
    assert len({re.match(rb"secrets:(\{[0-9a-f]{32}\})", name)[1] for name in names}) == 1  # type: ignore[index]
    for name in names:
        life = server.run("PTTL", name)
        assert isinstance(life, int)
        assert 0 < life <= 7_200_000


async def test_in_redis_a_request_is_one_round_trip_whatever_it_is_limited_by(redis: RedisServer):
    storage = RedisLimitStorage(redis.url, timeout=PATIENCE)
    limits = [Limit(100, 60 * n) for n in range(1, 6)]
    await storage.take("a", limits, [1] * 5, Lease("c", "m", 5, 30))
    redis.run("CONFIG", "RESETSTAT")

    for n in range(10):
        await storage.take("a", limits, [1] * 5, Lease("c", f"m{n}", 50, 30))
    await storage.aclose()

    stats = redis.run("INFO", "commandstats")
    assert isinstance(stats, dict)
    asked = {name: told["calls"] for name, told in stats.items() if "eval" in name or "script" in name}
    assert asked == {"cmdstat_evalsha": 10}


async def test_in_redis_a_server_that_has_forgotten_the_scripts_is_told_them_again(redis: RedisServer):
    storage = RedisLimitStorage(redis.url, timeout=PATIENCE)
    assert (await storage.take("a", (MINUTE,), (1,))).allowed
    redis.run("SCRIPT", "FLUSH")

    answers: list[bool] = []
    for _ in range(3):
        try:
            answers.append((await storage.take("a", (MINUTE,), (1,))).allowed)
        except Exception:
            answers.append(False)
    await storage.aclose()

    assert answers == [False, True, True]


async def test_an_answer_that_lies_in_the_socket_is_not_late(redis: RedisServer):
    """An app that blocks the loop makes nothing late but itself."""
    import time

    storage = RedisLimitStorage(redis.url, timeout=0.05)
    async with asyncio.timeout(10):
        while True:
            try:
                await storage.take("a", (MINUTE,), (1,))
                break
            except Exception:  # connecting may take longer
                continue

    asking = asyncio.ensure_future(storage.take("a", (MINUTE,), (1,)))
    await asyncio.sleep(0)
    time.sleep(0.2)

    assert (await asking).allowed
    await storage.aclose()


def test_options_that_cannot_work_are_refused():
    for wrong in (0, -1, True, "1", None):
        with pytest.raises(ConfigurationError, match="max_keys"):
            MemoryLimitStorage(max_keys=wrong)  # type: ignore[arg-type]
        if wrong != "1":
            with pytest.raises(ConfigurationError, match="timeout"):
                RedisLimitStorage("redis://127.0.0.1:1", timeout=wrong)  # type: ignore[arg-type]
    for prefix in ("{a}", "é"):
        with pytest.raises(ConfigurationError, match="prefix"):
            RedisLimitStorage("redis://127.0.0.1:1", prefix=prefix)
    with pytest.raises(ConfigurationError) as refused:
        RedisLimitStorage("mysql://me:secret@127.0.0.1")
    assert "secret" not in str(refused.value)


async def test_on_a_cluster_all_that_belongs_to_a_request_is_on_one_server():
    with RedisCluster(binaries()[newest()]) as cluster:
        storage = RedisLimitStorage(cluster.url, timeout=PATIENCE)
        await storage.start()
        leases: list[tuple[str, Lease]] = []
        for n in range(20):
            lease = Lease("c", f"m{n}", 1, 30)
            leases.append((f"key{n}", lease))
            taken = await storage.take(f"key{n}", BOTH, (4, 4), lease)
            assert taken.allowed
            assert await storage.add(f"key{n}", BOTH, (-1, -1), taken.windows, once="x")
            assert (await storage.take_part(f"key{n}", BOTH, 2)).granted == 2
            assert await left(storage, *BOTH, key=f"key{n}") == [5, 7]
        assert await storage.renew(leases) == 0
        await storage.release(leases)
        assert await storage.renew(leases[:3]) == 3
        await storage.aclose()


# -- keys as anybody may write them, and clocks as they may go


@pytest.mark.parametrize("key", ["", "\0", "{a}", "}{", "{}", "é灯台\ud800", "a b\r\n*1\r\n", "x" * 1_000_000])
async def test_a_key_may_be_any_text(storage: LimitStorage, key: str):
    lease = Lease("c", "m", 1, 30)

    taken = await storage.take(key, BOTH, (4, 4), lease)

    assert taken.allowed
    assert await storage.add(key, BOTH, (1, 1), taken.windows, once=f"id of {len(key)}{key[:8]!r}")
    assert await left(storage, *BOTH, key=key) == [5, 7]
    assert await left(storage, *BOTH, key=key + "1") == [10, 12]
    assert await storage.renew([(key, lease)]) == 0
    await storage.release([(key, lease)])
    assert await storage.renew([(key, lease)]) == 1


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("hours", [1, 24 * 365])
async def test_a_server_whose_clock_is_set_back_limits_nobody_for_longer_than_a_window(
    redis: RedisServer, hours: int, fixed: bool
):
    storage = RedisLimitStorage(redis.url, timeout=PATIENCE)
    limit = Limit(5, 1, fixed=fixed)
    taken = await storage.take("a", (limit,), (5,))
    names = redis.run("KEYS", "*")
    assert isinstance(names, list)
    ahead = taken.windows[0] + hours * 3_600_000
    redis.run("SET", names[0], f"{ahead}:5:5", "PX", 10_000_000)

    assert not (await storage.take("a", (limit,), (1,))).allowed or fixed
    async with asyncio.timeout(5):
        while not (await storage.take("a", (limit,), (1,))).allowed:
            await asyncio.sleep(0.02)
    await storage.aclose()


async def test_a_little_behind_it_counts_on_in_the_window_that_is_under_way(redis: RedisServer):
    """As of a replica that has taken over."""
    storage = RedisLimitStorage(redis.url, timeout=PATIENCE)
    taken = await storage.take("a", (MINUTE,), (5,))
    names = redis.run("KEYS", "*")
    assert isinstance(names, list)
    window = taken.windows[0] + 2_000
    redis.run("SET", names[0], f"{window}:5:0", "PX", 100_000)

    again = await storage.take("a", (MINUTE,), (3,))
    assert again.windows == [window]
    assert await storage.add("a", (MINUTE,), (-2,), again.windows, once="x")
    assert await left(storage, MINUTE) == [4]
    await storage.aclose()


async def test_leases_of_the_dead_lapse_also_where_the_clock_was_set_back(redis: RedisServer):
    storage = RedisLimitStorage(redis.url, timeout=PATIENCE)
    dead, living = Lease("c", "dead", 2, 0.5), Lease("c", "living", 2, 0.5)
    for lease in (dead, living):
        await storage.take("a", (), (), lease)
    names = redis.run("KEYS", "*")
    assert isinstance(names, list)
    for lease in (dead, living):
        redis.run("ZADD", names[0], 10**15, lease.member)

    got = None
    async with asyncio.timeout(5):
        while got is None or not got.allowed:
            await storage.renew([("a", living)])
            got = await storage.take("a", (), (), Lease("c", "new", 2, 0.5))
            await asyncio.sleep(0.02)

    assert redis.run("ZSCORE", names[0], "dead") is None
    assert redis.run("ZSCORE", names[0], "living") is not None
    await storage.aclose()


async def test_a_shorter_lease_ends_no_longer_one(redis: RedisServer):
    """As while workers are replaced by those with another option."""
    storage = RedisLimitStorage(redis.url, timeout=PATIENCE)
    long, short = Lease("c", "long", 9, 30), Lease("c", "short", 9, 0.05)
    await storage.take("a", (), (), long)
    await storage.take("a", (), (), short)
    await storage.renew([("a", short)])
    async with asyncio.timeout(5):
        while await storage.renew([("a", short)]) == 0:
            await asyncio.sleep(0.1)

    assert await storage.renew([("a", long)]) == 0
    await storage.aclose()
