"""What is remembered of tokens, and the arithmetic of limits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamware.auth.breaker import Breaker, FailureLimit
from streamware.auth.cache import RefusedCache, VerifiedCache, token_hash
from streamware.auth.claims import Verified
from streamware.wire.addresses import client_of


class Hands:
    """Both clocks, in a test's hands."""

    def __init__(self) -> None:
        self.monotonic, self.wall = 100.0, 1_800_000_000.0


def cache_of(hands: Hands, capacity: int = 4, ttl: float = 60) -> VerifiedCache:
    return VerifiedCache(capacity, ttl, lambda: hands.monotonic, lambda: hands.wall)


def verified(name: str, expires_at: float | None = None) -> Verified:
    return Verified("issuer", name, frozenset(), {}, "", expires_at, token_hash(name))


def test_the_wall_clock_alone_ends_a_token() -> None:
    """The monotonic one stands still while a machine sleeps."""
    hands = Hands()
    cache = cache_of(hands)
    cache.remember(verified("token", hands.wall + 30))

    hands.wall += 30
    assert cache.recall("token") is None
    assert len(cache) == 0


def test_the_monotonic_clock_alone_ends_what_is_remembered() -> None:
    """The wall clock may be set back."""
    hands = Hands()
    cache = cache_of(hands)
    cache.remember(verified("token", hands.wall + 3600))

    hands.wall -= 7200
    hands.monotonic += 60
    assert cache.recall("token") is None


def test_what_has_ended_or_is_not_to_be_remembered_is_not() -> None:
    hands = Hands()
    cache, none = cache_of(hands), cache_of(hands, ttl=0)
    cache.remember(verified("late", hands.wall))
    none.remember(verified("token"))

    assert len(cache) == len(none) == 0


def test_both_caches_can_be_emptied() -> None:
    hands = Hands()
    cache, refused = cache_of(hands), RefusedCache(4, 60, lambda: hands.monotonic)
    cache.remember(verified("token"))
    refused.remember(b"digest", "inactive")

    cache.clear()
    refused.clear()
    assert cache.recall("token") is None
    assert refused.reason(b"digest") is None


def test_the_oldest_refusal_goes_first_and_a_new_one_renews_it() -> None:
    hands = Hands()
    refused = RefusedCache(2, 60, lambda: hands.monotonic)
    for digest in (b"1", b"2", b"1", b"3"):
        refused.remember(digest, "inactive")

    assert [refused.reason(digest) for digest in (b"1", b"2", b"3")] == ["inactive", None, "inactive"]
    assert len(refused) == 2
    none = RefusedCache(2, 0, lambda: hands.monotonic)
    none.remember(b"1", "inactive")
    assert len(none) == 0


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 40), st.booleans()), max_size=60))
def test_a_cache_never_holds_more_than_it_may_nor_for_longer(steps: list[tuple[str, float, bool]]) -> None:
    hands = Hands()
    cache = cache_of(hands)
    good_until: dict[str, float] = {}
    for name, passes, renew in steps:
        hands.monotonic += passes
        hands.wall += passes
        if renew:
            cache.remember(verified(name, hands.wall + 50))
            good_until[name] = hands.wall + 50
        recalled = cache.recall(name)
        assert len(cache) <= 4
        if recalled is not None:
            assert hands.wall < good_until[name]


@given(st.text())
def test_any_text_has_a_hash(text: str) -> None:
    assert len(token_hash(text)) == 32


# -- limits


def test_a_breaker_opens_after_failures_in_a_row_and_one_attempt_decides() -> None:
    breaker = Breaker(3, 10)
    assert [breaker.failed(0), breaker.failed(0), breaker.failed(0), breaker.failed(0)] == [False, False, True, False]

    assert breaker.wait(4) == 6
    assert breaker.wait(10) == 0
    assert breaker.wait(10) > 0  # the others wait for that one
    breaker.abandoned()
    assert breaker.wait(10) == 0
    assert breaker.failed(10) is False
    assert breaker.wait(19) == 1
    assert breaker.wait(20) == 0
    breaker.succeeded()
    assert [breaker.wait(20), breaker.wait(20), breaker.failed(20)] == [0, 0, False]


def test_a_success_in_between_starts_the_count_anew() -> None:
    breaker = Breaker(2, 10)
    for _ in range(5):
        breaker.failed(0)
        breaker.succeeded()

    assert breaker.wait(0) == 0


@given(st.lists(st.floats(0, 20), min_size=1, max_size=200))
def test_no_client_fails_more_often_than_its_limit(gaps: list[float]) -> None:
    limit, now, failed = FailureLimit(5, 60), 0.0, list[float]()
    for gap in gaps:
        now += gap
        wait = limit.wait("client", now)
        if wait == 0:
            limit.failed("client", now)
            failed.append(now)
        else:
            assert limit.wait("client", now + wait + 1e-6) == 0
    for start in failed:
        # What was in the bucket, and what was filled in meanwhile.
        assert sum(start <= when < start + 60 for when in failed) <= 10


def test_at_most_so_many_clients_are_remembered() -> None:
    limit = FailureLimit(1, 60, capacity=10)
    for number in range(100):
        limit.failed(str(number), 0)

    assert len(limit) == 10
    assert limit.wait("99", 0) > 0


def test_who_an_address_counts_as() -> None:
    assert client_of("203.0.113.9") == client_of("::ffff:203.0.113.9") == "203.0.113.9"
    assert client_of("2001:db8::1") == client_of("2001:db8::2%eth0") != client_of("2001:db8:0:1::1")
    assert client_of("") == ""
    assert len(client_of("x" * 1000)) == 64
