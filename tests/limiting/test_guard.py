"""What becomes of limits while their storage is away, by each policy, with a Redis that is killed and stopped."""

from __future__ import annotations

import asyncio
import logging

import pytest

from streamware import ConfigurationError, CountingObserver, Lease, Limit, MemoryLimitStorage, RedisLimitStorage, Taken
from streamware.limiting.guard import FAILURES, MAX_PAUSE, Guard
from streamware.testing import FakeClock
from tests.redis_server import RedisServer

LIMIT = (Limit(8, 60, "8/minute"),)


class Place:
    """A guard over ``redis``, with a clock of its own for the breaker."""

    def __init__(self, redis: RedisServer, policy: str, workers: int = 4, timeout: float = 2.0) -> None:
        self.clock = FakeClock()
        self.observer = CountingObserver()
        self.storage = RedisLimitStorage(redis.url, timeout=timeout)
        self.guard = Guard(
            "Test", self.storage, on_store_error=policy, expected_workers=workers, clock=self.clock,
            observer=self.observer, now=self.clock.now,
        )  # fmt: skip

    async def __aenter__(self) -> Place:
        async with asyncio.timeout(10):
            while (await self.guard.take("warm", LIMIT, (0,))).away:
                await self.clock.advance(MAX_PAUSE)
        self.observer.counts.clear()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.storage.aclose()

    async def passed(self, times: int, lease: int | None = None) -> int:
        """How many of so many requests are let in."""
        allowed = 0
        for n in range(times):
            wanted = None if lease is None else Lease("c", f"{n}", lease, 30)
            allowed += (await self.guard.take("a", LIMIT, (1,), wanted)).allowed
        return allowed


@pytest.mark.parametrize(("policy", "passed"), [("allow", 20), ("deny", 0), ("local", 2)])
async def test_each_policy_does_what_it_says_when_redis_is_killed_and_counts_on_when_it_is_back(
    redis: RedisServer, policy: str, passed: int
):
    async with Place(redis, policy) as place:
        assert await place.passed(5) == 5
        redis.kill()

        assert await place.passed(20) == passed

        counts = place.observer.counts
        assert counts["throttle.degraded", policy] == 20
        assert counts["throttle.store", "failed"] == FAILURES
        assert counts["throttle.store", "away"] == 1
        redis.restart(keep=False)
        await place.clock.advance(MAX_PAUSE)
        assert await place.passed(20) == 8  # empty, and nothing of what passed meanwhile is charged
        assert counts["throttle.store", "back"] == 1


async def test_a_server_that_hangs_is_waited_for_by_the_first_few_only(redis: RedisServer):
    async with Place(redis, "allow", timeout=0.2) as place:
        redis.stall()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await place.passed(FAILURES)
        waited = loop.time() - began

        assert 0.2 * FAILURES <= waited < 0.2 * FAILURES + 2
        began = loop.time()
        assert await place.passed(1000) == 1000
        assert loop.time() - began < 0.2
        redis.resume()


async def test_while_it_is_away_one_request_tries_and_less_and_less_often(redis: RedisServer):
    async with Place(redis, "allow") as place:
        redis.kill()
        await place.passed(FAILURES)
        tried: list[float] = []
        for second in range(40):
            before = place.observer.counts["throttle.store", "failed"]
            await place.passed(10)
            if place.observer.counts["throttle.store", "failed"] > before:
                tried.append(second)
                assert place.observer.counts["throttle.store", "failed"] == before + 1
            await place.clock.advance(1.0)

        assert tried == [1, 3, 7, 15, 23, 31, 39]


async def test_the_change_is_logged_once_each_way_and_holds_no_secret(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
):
    async with Place(redis, "deny") as place:
        with caplog.at_level(logging.WARNING):
            redis.kill()
            await place.passed(10)
            redis.restart(keep=False)
            await place.clock.advance(MAX_PAUSE)
            await place.passed(10)

    said = [record.getMessage() for record in caplog.records if record.name == "streamware.throttle"]
    assert len(said) == 2
    assert "is refused meanwhile" in said[0]
    assert said[1] == "the storage of limits is back"


async def test_leases_are_had_locally_by_a_share_and_reach_redis_when_it_is_back(redis: RedisServer):
    async with Place(redis, "local", workers=2) as place:
        redis.kill()
        assert await place.passed(4, lease=4) == 2
        redis.restart(keep=False)
        await place.clock.advance(MAX_PAUSE)
        held = [("a", Lease("c", f"{n}", 4, 30)) for n in range(2)]

        assert await place.guard.renew(held) == 2
        assert await place.passed(4, lease=2) == 2  # both hold theirs already; nobody else gets one
        assert all(place.guard.free(key, lease) for key, lease in held)
        await place.guard.release(held)
        assert (await place.guard.take("a", (), (), Lease("c", "new", 1, 30))).allowed


async def test_a_share_is_one_at_least(redis: RedisServer):
    async with Place(redis, "local", workers=1000) as place:
        redis.kill()
        assert await place.passed(10) == 1


async def test_the_shares_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("streamware.limiting.guard.MAX_SHARES", 5)
    guard = Guard(
        "T", RedisLimitStorage("redis://127.0.0.1:1"), on_store_error="local", expected_workers=4, clock=FakeClock(),
        observer=CountingObserver(),
    )  # fmt: skip
    for amount in range(4, 100):
        for _ in range(2):
            assert [share.amount for share in guard.local_limits([Limit(amount, 60)])] == [amount // 4]
    assert len(guard._shares) == 5


async def test_memory_is_asked_straight():
    observer = CountingObserver()
    guard = Guard("Test", MemoryLimitStorage(), on_store_error="deny", expected_workers=9, clock=FakeClock(),
                  observer=observer)  # fmt: skip

    assert (await guard.take("a", LIMIT, (3,))).allowed
    assert not (await guard.take("a", LIMIT, (8,))).allowed
    assert (await guard.take("a", LIMIT, (5,), Lease("c", "m", 1, 30))).allowed
    assert await guard.renew([("a", Lease("c", "m", 1, 30))]) == 0
    assert not guard.free("a", Lease("c", "m", 1, 30))

    assert observer.counts == {}


@pytest.mark.parametrize(
    ("option", "given"), [("on_store_error", "ignore"), ("expected_workers", 0), ("expected_workers", True)]
)
def test_options_that_cannot_work_are_refused(option: str, given: object):
    options = {"on_store_error": "deny", "expected_workers": 1, option: given}
    with pytest.raises(ConfigurationError, match=f"Test: {option}"):
        Guard("Test", MemoryLimitStorage(), clock=FakeClock(), observer=CountingObserver(), **options)  # type: ignore[arg-type]


class Broken(MemoryLimitStorage):
    """Somebody's own, with a mistake in it."""

    shared = True

    async def take(self, *_: object, **__: object) -> Taken:
        raise KeyError("mine")


async def test_a_storage_that_raises_what_it_should_not_is_one_that_is_away(caplog: pytest.LogCaptureFixture):
    observer = CountingObserver()
    guard = Guard("Test", Broken(), on_store_error="deny", expected_workers=1, clock=FakeClock(), observer=observer)

    answers = [await guard.take("a", LIMIT, (1,)) for _ in range(5)]

    assert not any(answer.allowed for answer in answers)
    assert observer.counts["throttle.store", "failed"] == FAILURES
    assert "KeyError" in caplog.text
