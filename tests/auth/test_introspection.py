"""``IntrospectionVerifier``: what an answer has to say, and what ten thousand forged tokens may cost."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from typing import Any
from urllib.parse import urlencode

import pytest

from streamware import (  # fmt: skip
    ConfigurationError,
    CountingObserver,
    FetchError,
    FetchResponse,
    IntrospectionVerifier,
    Principal,
    TokenRefused,
    VerifierUnavailable,
)
from streamware.testing import FakeClock, settle
from tests.auth.doubles import AWAY, Canned
from tests.auth.mint import reason
from tests.secrets import secret

ENDPOINT = "https://idp.example/introspect"
ISSUER = "https://idp.example"
SECRET = secret("s3cr:t with/odd ch&rs")
ACTIVE = {"active": True, "sub": "alice", "scope": "read", "client_id": "app", "token_type": "Bearer"}
INACTIVE = {"active": False}


def opaque() -> str:
    return secret(secrets.token_urlsafe(24))


class Stand:
    """A verifier on a clock of its own, and what it asks."""

    def __init__(self, *answers: Any, **options: Any) -> None:
        self.clock = FakeClock()
        self.observer = CountingObserver()
        self.fetch = Canned(*answers)
        given = {"endpoint": ENDPOINT, "issuer": ISSUER, "client_id": "service", "client_secret": SECRET, **options}
        self.verifier = IntrospectionVerifier(
            **given, fetch=self.fetch, clock=self.clock, observer=self.observer, wall=time.time
        )

    @property
    def calls(self) -> int:
        return len(self.fetch.requests)

    async def unavailable(self, text: str = "", *, client: str = "") -> VerifierUnavailable:
        with pytest.raises(VerifierUnavailable) as raised:
            await self.verifier.verify(text or opaque(), client=client)
        return raised.value


# -- what is asked


async def test_the_token_is_posted_with_the_clients_credentials() -> None:
    stand = Stand(ACTIVE)
    text = opaque()

    principal = await stand.verifier.verify(text)

    (request,) = stand.fetch.requests
    assert (principal.issuer, principal.subject, principal.client_id) == (ISSUER, "alice", "app")
    assert principal.scopes == {"read"}
    assert request.url == ENDPOINT
    assert request.form == {"token": text, "token_type_hint": "access_token"}
    scheme, _, pair = request.headers["authorization"].partition(" ")
    # RFC 6749, section 2.3.1: both are form-encoded before they are joined by a colon.
    assert (scheme, base64.b64decode(pair)) == ("Basic", b"service:" + urlencode({"": SECRET})[1:].encode())
    assert text not in repr(request)
    assert pair not in repr(request)


async def test_credentials_may_stand_in_the_form_or_be_a_token() -> None:
    in_form, by_token = Stand(ACTIVE, auth="post"), Stand(ACTIVE, bearer=lambda: "service-token")
    await in_form.verifier.verify(opaque())
    await by_token.verifier.verify(opaque())

    form, headers = in_form.fetch.requests[0].form, by_token.fetch.requests[0].headers
    assert form is not None
    assert (form["client_id"], form["client_secret"]) == ("service", SECRET)
    assert "authorization" not in in_form.fetch.requests[0].headers
    assert headers["authorization"] == "Bearer service-token"


# -- what it has to say


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"active": False}, "inactive"),
        ({**ACTIVE, "active": False}, "inactive"),
        ({**ACTIVE, "exp": 5}, "expired"),
        ({**ACTIVE, "exp": "tomorrow"}, "claims"),
        ({**ACTIVE, "exp": True}, "claims"),
        ({**ACTIVE, "nbf": 4_000_000_000}, "not_yet_valid"),
        ({**ACTIVE, "iss": "https://other.example"}, "issuer"),
        ({**ACTIVE, "iss": 5}, "claims"),
        ({**ACTIVE, "token_type": "DPoP"}, "token_type"),
        ({**ACTIVE, "token_type": 5}, "token_type"),
        ({**ACTIVE, "token_use": "refresh_token"}, "token_type"),
        ({**ACTIVE, "scope": 5}, "claims"),
        ({**ACTIVE, "sub": ["alice"]}, "claims"),
    ],
)
async def test_a_token_that_is_not_good_is_refused(answer: dict[str, Any], why: str) -> None:
    assert await reason(Stand(answer).verifier, opaque()) == why


@pytest.mark.parametrize("aud", [None, "https://other.example", ["x"], 5, ""])
async def test_an_audience_is_essential_where_one_is_configured(aud: object) -> None:
    good = {**ACTIVE, "aud": ["x", "https://api.example"]}

    await Stand(good, audience="https://api.example").verifier.verify(opaque())
    assert await reason(Stand({**ACTIVE, "aud": aud}, audience="https://api.example").verifier, opaque()) == "audience"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"active": "true", "sub": "alice"},
        {"active": 1, "sub": "alice"},
        {"active": None},
        FetchResponse(200, {}, b"[]"),
        FetchResponse(200, {}, b"<html>"),
        FetchResponse(200, {}, b'{"active":true,"active":false}'),
        FetchResponse(200, {}, b'{"active":true,"x":' + b"[" * 30_000 + b"}"),
        FetchResponse(200, {}, b'{"active":true,"x":"' + b"x" * 70_000 + b'"}'),
        FetchResponse(500, {}, b""),
        FetchResponse(302, {"location": "https://evil.example"}, b""),
        FetchResponse(401, {}, b'{"error":"invalid_client"}'),
        FetchResponse(204, {}, b""),
        FetchError("timeout"),
        ConnectionError("a client of somebody's own"),
    ],
)
async def test_trouble_is_told_from_a_token_that_is_not_good_and_lets_nobody_in(answer: Any) -> None:
    stand = Stand(answer)

    unavailable = await stand.unavailable()

    assert unavailable.reason == "introspection"
    assert stand.observer.total("auth.introspection_failed") == 1


@pytest.mark.parametrize(
    "text", ["", " ", "a b", "a\nb", "é", "\ud800", "a\0", "=", "a=b", "x" * 8193, '"', "a,b", "%41", "a;b"]
)
async def test_what_can_be_no_token_is_not_asked_for(text: str) -> None:
    stand = Stand(ACTIVE)

    assert await reason(stand.verifier, text) in ("malformed", "size")
    assert stand.calls == 0


# -- what it remembers


async def test_a_good_token_is_asked_for_once_in_a_while_and_never_recalled_past_its_end() -> None:
    clocked = {**ACTIVE, "exp": int(time.time()) + 3600}
    stand = Stand(clocked, cache_ttl=60)
    text = opaque()
    made = [await stand.verifier.verify(text) for _ in range(3)]

    assert stand.calls == 1
    assert len({id(each) for each in made}) == 3
    assert isinstance(stand.verifier.recall(text), Principal)
    await stand.clock.advance(60)
    assert stand.verifier.recall(text) is None
    await stand.verifier.verify(text)
    assert stand.calls == 2


async def test_a_bad_token_is_remembered_for_a_while_with_its_reason() -> None:
    stand = Stand({**ACTIVE, "exp": 5}, refused_ttl=30)
    text = opaque()

    for _ in range(5):
        assert await reason(stand.verifier, text) == "expired"
    assert stand.calls == 1
    await stand.clock.advance(30)
    await reason(stand.verifier, text)
    assert stand.calls == 2


async def test_both_memories_are_bounded_and_apart() -> None:
    stand = Stand(ACTIVE, INACTIVE, cache_size=10, client_failures=None)
    good = opaque()
    await stand.verifier.verify(good)

    for _ in range(50):
        await reason(stand.verifier, opaque())
    assert len(stand.verifier._refused) == 10
    assert stand.verifier.recall(good) is not None


# -- what it may cost


async def test_one_token_is_asked_for_once_at_a_time_and_who_is_cancelled_ends_nothing() -> None:
    stand = Stand(ACTIVE)
    stand.fetch.gate.clear()
    text = opaque()
    waiting = [asyncio.create_task(stand.verifier.verify(text)) for _ in range(20)]
    await settle()

    waiting[0].cancel()
    stand.fetch.gate.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert stand.calls == 1
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert all(isinstance(each, Principal) for each in outcomes[1:])
    assert len({id(each) for each in outcomes}) == 20


async def test_ten_thousand_forged_tokens_of_one_client_cause_a_bounded_number_of_calls() -> None:
    stand = Stand(INACTIVE, client_failures=30, concurrency=16)

    told = {"refused": 0, "limited": 0}
    for _ in range(100):
        attack = (stand.verifier.verify(opaque(), client="203.0.113.9") for _ in range(100))
        for outcome in await asyncio.gather(*attack, return_exceptions=True):
            assert isinstance(outcome, TokenRefused | VerifierUnavailable)
            told["refused" if isinstance(outcome, TokenRefused) else "limited"] += 1

    assert sum(told.values()) == 10_000
    assert 30 <= stand.calls <= 30 + 16
    assert told["refused"] == stand.calls
    await stand.clock.advance(2)  # one more of thirty a minute
    assert await reason(stand.verifier, opaque(), client="203.0.113.9") == "inactive"
    assert (await stand.unavailable(client="203.0.113.9")).reason == "limited"


async def test_ten_thousand_forged_tokens_of_as_many_clients_cause_a_bounded_number_of_calls() -> None:
    stand = Stand(INACTIVE, total_failures=200)

    for number in range(10_000):
        with pytest.raises((TokenRefused, VerifierUnavailable)):
            await stand.verifier.verify(opaque(), client=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert stand.calls == 200
    assert stand.observer.counts["auth.introspection_limited", "total"] == 9_800


async def test_ten_thousand_forged_tokens_at_once_wait_for_a_bounded_number_of_calls() -> None:
    stand = Stand(INACTIVE, client_failures=None, total_failures=None, concurrency=4, max_waiting=50)
    stand.fetch.gate.clear()
    attack = [asyncio.create_task(stand.verifier.verify(opaque())) for _ in range(10_000)]
    await settle()
    assert stand.calls == 4

    stand.fetch.gate.set()
    outcomes = await asyncio.gather(*attack, return_exceptions=True)
    assert stand.calls == 54
    assert sum(isinstance(each, VerifierUnavailable) and each.reason == "limited" for each in outcomes) == 9_946


async def test_the_limit_of_one_client_is_nobody_elses_and_good_tokens_do_not_count() -> None:
    stand = Stand(*[ACTIVE] * 50, INACTIVE, client_failures=3)
    for _ in range(50):
        await stand.verifier.verify(opaque(), client="203.0.113.9")

    for _ in range(3):
        assert await reason(stand.verifier, opaque(), client="203.0.113.9") == "inactive"
    assert (await stand.unavailable(client="203.0.113.9")).reason == "limited"
    assert (await stand.unavailable(client="::ffff:203.0.113.9")).reason == "limited"
    assert await reason(stand.verifier, opaque(), client="203.0.113.10") == "inactive"


async def test_a_client_of_ipv6_counts_as_its_64() -> None:
    stand = Stand(INACTIVE, client_failures=2)
    for address in ("2001:db8::1", "2001:db8::2"):
        await reason(stand.verifier, opaque(), client=address)

    assert (await stand.unavailable(client="2001:db8::ffff")).reason == "limited"
    assert await reason(stand.verifier, opaque(), client="2001:db8:0:1::1") == "inactive"


async def test_what_is_remembered_is_told_to_a_client_over_its_limit_as_well() -> None:
    stand = Stand(ACTIVE, INACTIVE, client_failures=1)
    good = opaque()
    await stand.verifier.verify(good, client="203.0.113.9")
    await reason(stand.verifier, opaque(), client="203.0.113.9")

    await stand.verifier.verify(good, client="203.0.113.9")
    assert (await stand.unavailable(client="203.0.113.9")).reason == "limited"


async def test_a_server_in_trouble_is_left_in_peace_for_a_while() -> None:
    stand = Stand(AWAY)
    for _ in range(100):
        await stand.unavailable()
    assert stand.calls == 5

    await stand.clock.advance(10)
    stand.fetch.gate.clear()
    probing = [asyncio.create_task(stand.unavailable()) for _ in range(10)]
    await settle()
    assert stand.calls == 6  # one attempt decides
    stand.fetch.answers = [ACTIVE]
    stand.fetch.gate.set()
    await asyncio.gather(*probing, return_exceptions=True)
    await stand.verifier.verify(opaque())
    await stand.verifier.verify(opaque())


async def test_trouble_is_nobodys_failure() -> None:
    stand = Stand(AWAY, AWAY, AWAY, INACTIVE, client_failures=1)
    for _ in range(3):
        await stand.unavailable(client="203.0.113.9")

    assert await reason(stand.verifier, opaque(), client="203.0.113.9") == "inactive"


@pytest.mark.parametrize(("asked", "given"), [("7", 7), ("100000", 60), ("soon", 10), ("", 10)])
async def test_a_server_that_asks_for_peace_gets_it(asked: str, given: float) -> None:
    stand = Stand(FetchResponse(429, {"retry-after": asked}, b""), ACTIVE)

    assert (await stand.unavailable()).retry_after == given
    if asked.isdecimal():
        await stand.unavailable()
        assert stand.calls == 1
        await stand.clock.advance(given)
    await stand.verifier.verify(opaque())


async def test_an_outage_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    stand = Stand(AWAY)
    for _ in range(30):
        await stand.unavailable()
        await stand.clock.advance(1)

    assert sum(record.name == "streamware.auth" for record in caplog.records) == 1


async def test_an_exception_that_nobody_expects_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    stand = Stand(ACTIVE)

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(stand.verifier._rules.__class__, "verified", fail)
    assert await reason(stand.verifier, opaque()) == "unexpected"
    assert stand.observer.counts["auth.unexpected", "MemoryError"] == 1


async def test_closing_ends_calls_and_answers_who_waits() -> None:
    stand = Stand(ACTIVE)
    stand.fetch.gate.clear()
    waiting = asyncio.create_task(stand.unavailable())
    await settle()

    await stand.verifier.aclose()
    assert (await waiting).reason == "introspection"
    stand.fetch.gate.set()
    await stand.verifier.verify(opaque())


def test_a_verifier_may_be_used_on_one_loop_after_the_other() -> None:
    stand = Stand(ACTIVE)

    async def abandoned() -> None:
        stand.fetch.gate = asyncio.Event()
        waiting = asyncio.create_task(stand.verifier.verify("abandoned"))
        await settle()
        waiting.cancel()

    async def served() -> None:
        stand.fetch.gate = asyncio.Event()
        stand.fetch.gate.set()
        await stand.verifier.verify("abandoned")

    asyncio.run(abandoned())
    asyncio.run(served())


async def test_who_is_named_by_no_subject() -> None:
    by_name = await Stand({"active": True, "username": "bob"}).verifier.verify(opaque())
    by_client = await Stand({"active": True, "client_id": "app"}).verifier.verify(opaque())
    nobody = Stand({"active": True})
    one, other = await nobody.verifier.verify(opaque()), await nobody.verifier.verify(opaque())

    assert (by_name.subject, by_client.subject) == ("bob", "app")
    assert one.subject != other.subject


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"endpoint": "http://idp.example/introspect"}, "endpoint"),
        ({"endpoint": None, "issuer": None}, "endpoint"),
        ({"endpoint": None, "issuer": "http://idp.example"}, "issuer"),
        ({"client_id": ""}, "client_id"),
        ({"client_secret": ""}, "client_secret"),
        ({"auth": "digest"}, "auth"),
        ({"bearer": ""}, "bearer"),
        ({"audience": []}, "audience"),
        ({"leeway": 1000}, "leeway"),
        ({"concurrency": 0}, "concurrency"),
        ({"max_waiting": -1}, "max_waiting"),
        ({"client_failures": 0}, "client_failures"),
        ({"total_failures": 0}, "total_failures"),
        ({"cache_size": 0}, "cache_size"),
        ({"refused_ttl": -1}, "refused_ttl"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_a_wrong_option_is_an_error_that_names_it(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as wrong:
        Stand(ACTIVE, **options)
    assert SECRET not in str(wrong.value)


def test_nothing_secret_is_in_its_repr() -> None:
    shown = repr(Stand(ACTIVE).verifier)

    assert shown == f"IntrospectionVerifier(issuer={ISSUER!r})"
    assert json.dumps(SECRET) not in shown
