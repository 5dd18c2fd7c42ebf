"""Fetched keys: when they are fetched, by whom, how often, and what an outage does. The clock is the test's."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any

import pytest

from streamware import CountingObserver, FetchResponse, JWTVerifier, TokenRefused, VerifierUnavailable
from streamware.testing import FakeClock, settle
from tests.auth.doubles import AWAY, Canned
from tests.auth.mint import EC, OTHER_RSA, RSA, encoded, header, public, reason, token, verifier

URL = "https://idp.example/jwks"
BOTH = public(RSA, OTHER_RSA)


class Stand:
    """A verifier on a clock of its own, and what it asks."""

    def __init__(self, *answers: Any, **options: Any) -> None:
        self.clock = FakeClock()
        self.observer = CountingObserver()
        self.fetch = Canned(*answers)
        self.verifier: JWTVerifier = verifier(
            jwks=URL, fetch=self.fetch, clock=self.clock, observer=self.observer, **options
        )

    @property
    def fetches(self) -> int:
        return len(self.fetch.requests)

    async def unavailable(self, text: str) -> VerifierUnavailable:
        with pytest.raises(VerifierUnavailable) as raised:
            await self.verifier.verify(text)
        assert raised.value.reason == "keys"
        return raised.value


def answer(document: dict[str, Any], **headers: str) -> FetchResponse:
    lines = {name.replace("_", "-"): value for name, value in headers.items()}
    return FetchResponse(200, lines, json.dumps(document).encode())


async def test_nothing_is_fetched_before_it_is_needed_and_then_once() -> None:
    stand = Stand(public(RSA))
    assert stand.fetches == 0

    await asyncio.gather(*(stand.verifier.verify(token()) for _ in range(50)))
    assert stand.fetches == 1


async def test_start_up_begins_to_fetch_and_waits_for_nobody() -> None:
    stand = Stand(public(RSA))
    stand.fetch.gate.clear()

    await stand.verifier.startup()
    await settle()
    assert stand.fetches == 1
    stand.fetch.gate.set()
    await stand.verifier.verify(token())
    await stand.verifier.startup()
    assert stand.fetches == 1


async def test_start_up_may_depend_on_the_issuer() -> None:
    stand = Stand(AWAY, public(RSA), require_at_startup=True)

    with pytest.raises(VerifierUnavailable):
        await stand.verifier.startup()
    await stand.clock.advance(10)
    await stand.verifier.startup()
    await stand.verifier.verify(token())


async def test_ten_thousand_forged_kids_cause_one_fetch_a_cooldown() -> None:
    stand = Stand(public(RSA), cooldown=10)
    _, body, signature = token(header(kid="kid-0000")).split(".")

    def forged() -> str:
        said = f'{{"alg":"RS256","typ":"at+jwt","kid":"{secrets.token_hex(4)}"}}'
        return f"{encoded(said.encode())}.{body}.{signature}"

    async def attack(count: int) -> None:
        for outcome in await asyncio.gather(
            *(stand.verifier.verify(forged()) for _ in range(count)), return_exceptions=True
        ):
            assert isinstance(outcome, TokenRefused)
            assert outcome.reason == "key"

    await attack(5_000)
    for _ in range(50):
        await attack(100)
    assert stand.fetches == 1
    for cooldown in range(2, 5):
        await stand.clock.advance(10)
        await attack(100)
        await attack(100)
        assert stand.fetches == cooldown


async def test_ten_thousand_forged_kids_cause_one_fetch_a_cooldown_in_an_outage_too() -> None:
    stand = Stand(public(RSA), AWAY)
    await stand.verifier.verify(token())
    text = token(header(kid="forged"))

    for number in range(200):
        if number == 100:
            await stand.clock.advance(10)
        await stand.unavailable(text)
    assert stand.fetches == 3


async def test_a_new_key_is_found_at_once() -> None:
    stand = Stand(public(RSA), BOTH)
    await stand.verifier.verify(token())

    new = token(header(kid="rsa-2"), key=OTHER_RSA)
    await asyncio.gather(*(stand.verifier.verify(new) for _ in range(20)))
    assert stand.fetches == 2


async def test_a_request_that_is_cancelled_does_not_cancel_the_fetch_of_the_others() -> None:
    stand = Stand(public(RSA))
    stand.fetch.gate.clear()
    first = asyncio.create_task(stand.verifier.verify(token()))
    second = asyncio.create_task(stand.verifier.verify(token()))
    await settle()

    first.cancel()
    await settle()
    assert first.cancelled()
    stand.fetch.gate.set()
    assert (await second).subject == "alice"
    assert stand.fetches == 1


async def test_closing_ends_a_fetch_and_answers_who_waits() -> None:
    stand = Stand(public(RSA))
    stand.fetch.gate.clear()
    waiting = asyncio.create_task(stand.verifier.verify(token()))
    await settle()

    await stand.verifier.aclose()
    with pytest.raises(VerifierUnavailable):
        await waiting
    stand.fetch.gate.set()
    await stand.verifier.verify(token())  # it may be used again


async def test_keys_are_fetched_anew_before_they_are_old_and_nobody_waits_for_that() -> None:
    stand = Stand(answer(public(RSA), cache_control="public, max-age=300"), public(RSA))
    await stand.verifier.verify(token())
    await stand.clock.advance(209)
    await stand.verifier.verify(token())
    assert stand.fetches == 1

    await stand.clock.advance(62)  # 271 of 300
    stand.fetch.gate.clear()
    await stand.verifier.verify(token())
    await settle()
    assert stand.fetches == 2
    stand.fetch.gate.set()


@pytest.mark.parametrize(
    ("said", "good_for"),
    [
        ("max-age=120", 120),
        ("public, Max-Age=120, must-revalidate", 120),
        ("max-age=1", 60),
        ("no-store", 60),
        ("no-cache, max-age=900", 60),
        ("max-age=99999999", 3600),
        ("max-age=x", 600),
        ("max-age=" + "9" * 400, 600),
        ("", 600),
    ],
)
async def test_the_issuer_says_how_long_keys_are_good_within_bounds(said: str, good_for: int) -> None:
    stand = Stand(answer(public(RSA), cache_control=said), public(OTHER_RSA))
    await stand.verifier.verify(token())
    await stand.clock.advance(good_for * 0.7 - 1)
    await stand.verifier.verify(token())
    assert stand.fetches == 1

    await stand.clock.advance(good_for * 0.3 + 1)  # now it is old, and fetched before it is used
    assert await reason(stand.verifier, token()) == "key"
    assert stand.fetches == 2


async def test_in_an_outage_keys_are_used_for_hours_and_nobody_waits() -> None:
    stand = Stand(public(RSA), AWAY, stale=3600)
    await stand.verifier.verify(token())
    await stand.clock.advance(600)

    await stand.verifier.verify(token())
    assert stand.observer.counts["auth.keys_failed", "connection"] == 1
    await stand.clock.advance(20)
    stand.fetch.gate.clear()
    async with asyncio.timeout(5):
        await stand.verifier.verify(token())  # known to be away: asked again, but not waited for
    await settle()
    assert stand.fetches == 3
    stand.fetch.gate.set()

    await stand.clock.advance(3600)
    refused = await stand.unavailable(token())
    assert 1 <= refused.retry_after <= 10


async def test_without_any_keys_nothing_is_told_and_the_issuer_is_asked_seldom() -> None:
    stand = Stand(AWAY)

    for _ in range(100):
        await stand.unavailable(token())
    assert stand.fetches == 1
    await stand.clock.advance(10)
    await stand.unavailable(token())
    assert stand.fetches == 2
    stand.fetch.answers = [public(RSA)]
    await stand.clock.advance(10)
    await stand.verifier.verify(token())


async def test_an_outage_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "streamware.auth")
    stand = Stand(AWAY)
    for _ in range(5):
        await stand.unavailable(token())
        await stand.clock.advance(10)
    stand.fetch.answers = [public(RSA)]
    await stand.verifier.verify(token())

    lines = [record.getMessage() for record in caplog.records if record.name == "streamware.auth"]
    assert len(lines) == 2
    assert "connection" in lines[0]
    assert "there again" in lines[1]


@pytest.mark.parametrize(
    "bad",
    [
        FetchResponse(500, {}, b"{}"),
        FetchResponse(404, {}, b"{}"),
        FetchResponse(200, {}, b"<html>"),
        FetchResponse(200, {}, b"[]"),
        FetchResponse(200, {}, b'{"keys":{}}'),
        FetchResponse(200, {}, b"\xff"),
        FetchResponse(200, {}, b"[" * 100_000),
        FetchResponse(200, {}, b'{"keys":[' + b" " * 262_144 + b"]}"),
        TimeoutError(),
        RuntimeError("a client of somebody's own"),
    ],
)
async def test_an_answer_that_is_no_key_set_is_an_outage(bad: Any) -> None:
    stand = Stand(public(RSA), bad)
    await stand.verifier.verify(token())
    await stand.clock.advance(600)

    await stand.verifier.verify(token())
    assert stand.fetches == 2
    assert stand.observer.total("auth.keys_failed") == 1


async def test_a_set_without_keys_is_what_the_issuer_says() -> None:
    """All were withdrawn: no token is good any more, and that is no outage."""
    stand = Stand(public(RSA), {"keys": []})
    await stand.verifier.verify(token())
    await stand.clock.advance(600)

    assert await reason(stand.verifier, token()) == "key"


async def test_at_most_so_many_keys_of_a_set_are_looked_at() -> None:
    other = EC.as_dict(private=False)
    many = [{**other, "kid": str(number)} for number in range(130)]
    stand = Stand({"keys": [*many, *public(RSA)["keys"]]})

    await stand.verifier.verify(token(header("ES256", "127"), key=EC))
    assert await reason(stand.verifier, token(header("ES256", "128"), key=EC)) == "key"
    assert stand.observer.counts["auth.key_skipped", "too_many"] >= 1


def test_a_verifier_may_be_used_on_one_loop_after_the_other() -> None:
    stand = Stand(public(RSA))
    stand.fetch.gate = asyncio.Event()

    async def abandoned() -> None:
        waiting = asyncio.create_task(stand.verifier.verify(token()))
        await settle()
        waiting.cancel()

    async def served() -> None:
        stand.fetch.gate = asyncio.Event()
        stand.fetch.gate.set()
        await stand.verifier.verify(token())

    asyncio.run(abandoned())
    asyncio.run(served())
