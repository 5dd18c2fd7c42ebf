"""``AuthlibVerifier``: authlib's own validators and such as people write, and whatever they raise."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from authlib.oauth2.rfc6749 import TokenMixin, TokenValidator
from authlib.oauth2.rfc6750 import BearerTokenValidator, InvalidTokenError
from authlib.oauth2.rfc7662 import IntrospectTokenValidator
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc.jwk import KeySet, RSAKey

from streamware import AuthlibVerifier, ConfigurationError, CountingObserver, Principal, VerifierUnavailable
from streamware.testing import FakeClock, settle
from tests.auth.mint import AUDIENCE, ISSUER, OTHER_RSA, RSA, claims, outcome, reason, token


class Signed(JWTBearerTokenValidator):  # type: ignore[misc]  # authlib has no types
    def get_jwks(self) -> KeySet:
        return KeySet([RSAKey.import_key(RSA.as_dict(private=False))])


class Row(TokenMixin):  # type: ignore[misc]  # authlib has no types
    """As a table of tokens has them."""

    def __init__(self, **columns: Any) -> None:
        vars(self).update({"user_id": 7, "client_id": "app", "scope": "read write", "revoked": False, **columns})

    def get_scope(self) -> str:
        return str(self.scope)

    def is_expired(self) -> bool:
        return False

    def is_revoked(self) -> bool:
        return bool(self.revoked)


class Table(BearerTokenValidator):  # type: ignore[misc]  # authlib has no types
    def __init__(self, **rows: Row) -> None:
        super().__init__()
        self.rows = rows
        self.threads: set[str] = set()

    def authenticate_token(self, token_string: str) -> Row | None:
        self.threads.add(threading.current_thread().name)
        return self.rows.get(token_string)


class Raising(TokenValidator):  # type: ignore[misc]  # authlib has no types
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def authenticate_token(self, token_string: str) -> object:
        raise self.error

    def validate_token(self, token: object, scopes: object, request: object) -> None: ...


async def test_authlibs_own_validator_of_jwts() -> None:
    verifier = AuthlibVerifier(Signed(ISSUER, AUDIENCE))
    try:
        principal = await verifier.verify(token())
        assert (principal.issuer, principal.subject, principal.client_id) == (ISSUER, "alice", "app")
        assert principal.scopes == {"read", "write"}
        assert principal.expires_at is not None
        assert await reason(verifier, token(key=OTHER_RSA)) == "validator"
        assert await reason(verifier, token(body=claims(exp=5))) == "validator"
        assert await reason(verifier, token(body=claims(aud="other"))) == "validator"
        # Each of these is a 500 where authlib stands alone.
        assert await reason(verifier, token(b'["alg"]')) == "validator_error"
        assert await reason(verifier, token() + "\ud800") == "malformed"
        assert await reason(verifier, token(body=claims(scope=5))) == "claims"
    finally:
        await verifier.aclose()


async def test_a_table_of_tokens_is_asked_in_a_thread() -> None:
    table = Table(good=Row(), revoked=Row(revoked=True), late=Row(issued_at=int(time.time()), expires_in=60))
    verifier = AuthlibVerifier(table, issuer="https://own.example")
    try:
        principal = await verifier.verify("good")
        assert (principal.issuer, principal.subject, principal.client_id) == ("https://own.example", "7", "app")
        assert principal.scopes == {"read", "write"}
        assert principal.expires_at is None
        assert (await verifier.verify("late")).expires_at == table.rows["late"].issued_at + 60
        assert await reason(verifier, "revoked") == "validator"
        assert await reason(verifier, "unknown") == "validator"
        assert all(name.startswith("streamware-validator") for name in table.threads)
    finally:
        await verifier.aclose()


async def test_introspection_by_authlib_is_checked_for_expiry_too() -> None:
    class Asking(IntrospectTokenValidator):  # type: ignore[misc]  # authlib has no types
        def introspect_token(self, token_string: str) -> dict[str, Any]:
            return {"active": True, "sub": "alice", "scope": "read", "exp": 5 if token_string == "old" else None}

    verifier = AuthlibVerifier(Asking())
    try:
        assert (await verifier.verify("new")).subject == "alice"
        assert await reason(verifier, "old") == "expired"
    finally:
        await verifier.aclose()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InvalidTokenError(), "validator"),
        (ValueError("of the token"), "validator_error"),
        (TypeError("of the token"), "validator_error"),
        (KeyError("of the token"), "validator_error"),
        (RecursionError(), "validator_error"),
        (OverflowError(), "validator_error"),
        (ConnectionError("the database"), "validator"),
        (TimeoutError(), "validator"),
        (RuntimeError("anything else"), "validator"),
        (StopIteration(), "validator_error"),
    ],
)
async def test_whatever_a_validator_raises_nobody_gets_in(error: Exception, told: str) -> None:
    verifier = AuthlibVerifier(Raising(error))
    try:
        assert await outcome(verifier, "token") == told
    finally:
        await verifier.aclose()


@pytest.mark.parametrize("error", [ConnectionError(), RuntimeError(), TimeoutError()])
async def test_trouble_is_told_from_a_bad_token(error: Exception) -> None:
    observer = CountingObserver()
    verifier = AuthlibVerifier(Raising(error), observer=observer)
    with pytest.raises(VerifierUnavailable):
        await verifier.verify("token")
    await verifier.aclose()

    assert observer.total("auth.validator_failed") == 1


async def test_so_many_at_once_and_no_more() -> None:
    release, running, most = threading.Event(), 0, 0
    lock = threading.Lock()

    class Slow(Table):
        def authenticate_token(self, token_string: str) -> Row:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            release.wait(10)
            with lock:
                running -= 1
            return Row()

    verifier = AuthlibVerifier(Slow(), threads=2, max_waiting=3)
    waiting = [asyncio.create_task(outcome(verifier, f"token-{number}")) for number in range(20)]
    await settle()
    release.set()
    outcomes = await asyncio.gather(*waiting)
    assert sum(isinstance(each, Principal) for each in outcomes) == 5
    assert outcomes.count("busy") == 15
    assert most == 2
    while verifier._running:  # until the threads have said that they are free
        await asyncio.sleep(0)
    assert isinstance(await outcome(verifier, "after"), Principal)
    await verifier.aclose()


async def test_one_that_takes_too_long_is_not_waited_for_and_keeps_its_place() -> None:
    release = threading.Event()

    class Hung(Table):
        def authenticate_token(self, token_string: str) -> Row:
            release.wait(10)
            return Row()

    verifier = AuthlibVerifier(Hung(), threads=1, max_waiting=0, timeout=0.1)
    assert await outcome(verifier, "token") == "validator"
    assert await outcome(verifier, "another") == "busy"
    release.set()
    await verifier.aclose()


async def test_an_asynchronous_validator_is_awaited() -> None:
    class Later:
        async def authenticate_token(self, token_string: str) -> dict[str, Any] | None:
            await asyncio.sleep(0)
            return {"sub": "alice"} if token_string == "good" else None

        async def validate_token(self, token: object, scopes: object, request: object) -> None:
            if token is None:
                raise InvalidTokenError

    verifier = AuthlibVerifier(Later())
    assert (await verifier.verify("good")).subject == "alice"
    assert await reason(verifier, "bad") == "validator"
    await verifier.aclose()


async def test_what_was_good_is_remembered_for_a_while() -> None:
    clock = FakeClock()
    table = Table(good=Row())
    verifier = AuthlibVerifier(table, clock=clock, cache_ttl=60)
    principal = await verifier.verify("good")
    table.rows.clear()

    assert verifier.recall("good") is not None
    assert verifier.recall_hashed(principal.token_hash) is not None
    assert (await verifier.verify("good")) is not principal
    verifier.forget(principal)
    assert await reason(verifier, "good") == "validator"
    await verifier.aclose()


@pytest.mark.parametrize("validator", [None, 5, object(), "validator"])
def test_what_is_no_validator_is_an_error(validator: Any) -> None:
    with pytest.raises(ConfigurationError, match="validator"):
        AuthlibVerifier(validator)


@pytest.mark.parametrize("options", [{"threads": 0}, {"max_waiting": -1}, {"timeout": 0}, {"cache_ttl": -1}])
def test_a_wrong_option_is_an_error_that_names_it(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        AuthlibVerifier(Table(), **options)
