"""Nothing secret is ever seen: not in logs, errors, tracebacks, reprs nor counters, at whatever level.

Every test of this directory is searched for tokens by the fixture in ``conftest.py``; these look where no test looks by
itself, and make sure that the search finds what it is to find.
"""

from __future__ import annotations

import logging
import pickle
import traceback
from typing import Any

import pytest

from streamware import (
    AuthlibVerifier,
    ConfigurationError,
    CountingObserver,
    FetchRequest,
    HTTPFetch,
    IntrospectionVerifier,
    JWTVerifier,
    TokenRefused,
    VerifierUnavailable,
)
from streamware.auth.token import TokenParser
from tests.auth.doubles import Canned
from tests.auth.mint import AUDIENCE, ISSUER, OCT, OTHER_RSA, SECRET, claims, header, token, verifier
from tests.auth.provider import Provider
from tests.secrets import Listener, leaked, secret

BAD = {
    "signature": token(key=OTHER_RSA),
    "expired": token(body=claims(exp=5)),
    "audience": token(body=claims(aud="someone-else-altogether")),
    "header": token(header(crit=["exp"])),
    "key": token(header(kid="no-such-key-anywhere")),
    "malformed": secret("eyJhbGciOiJub25lIn0.not-a-payload.é"),
    "claims": token(body=b'["no", "claims", "at", "all"]'),
    "surrogate": secret("\ud800abcdefghijklmnop"),
}


def seen(error: BaseException) -> str:
    """All that a careless application might print of an error."""
    lines = traceback.format_exception(error)
    return "\n".join([str(error), repr(error), repr(vars(error)), *lines]).encode("utf-8", "replace").decode()


@pytest.mark.parametrize("kind", BAD)
async def test_a_refusal_shows_nothing_of_the_token(kind: str) -> None:
    with pytest.raises(TokenRefused) as refused:
        await verifier().verify(BAD[kind])

    assert leaked(seen(refused.value)) == []


async def test_neither_does_trouble(provider: Provider) -> None:
    class Quoting:
        """A client of somebody's own that quotes what it was sent."""

        async def fetch(self, request: FetchRequest) -> Any:
            raise RuntimeError(f"{request.form} {request.headers}")

    text = provider.opaque()
    verifying = IntrospectionVerifier(
        endpoint="https://idp.example/i", client_id="service", client_secret=SECRET.hex(), fetch=Quoting()
    )
    secret(SECRET.hex())
    with pytest.raises(VerifierUnavailable) as trouble:
        await verifying.verify(text)

    assert leaked(seen(trouble.value)) == []


async def test_what_a_validator_says_of_a_token_is_not_repeated() -> None:
    class Quoting:
        async def authenticate_token(self, token_string: str) -> object:
            raise RuntimeError(token_string)

        async def validate_token(self, token: object, scopes: object, request: object) -> None: ...

    with pytest.raises(VerifierUnavailable) as trouble:
        await AuthlibVerifier(Quoting()).verify(BAD["signature"])

    assert leaked(seen(trouble.value)) == []


async def test_reprs_and_counters_show_nothing(provider: Provider) -> None:
    observer = CountingObserver()
    text, opaque = provider.jwt(), provider.opaque()
    fetch = provider.fetch()
    jwts = JWTVerifier(issuer=provider.issuer, audience=provider.audience, fetch=fetch, observer=observer)
    opaques = IntrospectionVerifier(
        issuer=provider.issuer,
        client_id=provider.service.client_id,
        client_secret=provider.service.client_secret,
        fetch=fetch,
        observer=observer,
    )
    principals = [await jwts.verify(text), await opaques.verify(opaque)]
    with pytest.raises(TokenRefused):
        await opaques.verify(secret("never-issued-at-all"))
    await fetch.aclose()
    compact = TokenParser(["ES256"]).parse(text)
    hmac = verifier(key=SECRET, algorithms=["HS256"])
    request = FetchRequest("https://idp.example", form={"token": opaque}, headers={"authorization": text})

    for shown in (*principals, jwts, opaques, hmac, fetch, request, compact, observer.counts, Canned({})):
        assert leaked(f"{shown!r} {shown!s}") == []
    for principal in principals:
        assert leaked(repr(vars(principal))) == []  # what is kept of a token is its hash
        assert leaked(pickle.dumps({**vars(principal), "claims": dict(principal.claims)}).decode("latin-1")) == []


def test_a_configuration_error_shows_no_key() -> None:
    for options in ({"key": SECRET}, {"key": OCT}, {"key": OCT.as_dict(private=True)}, {"jwks": {"keys": [SECRET]}}):
        with pytest.raises(ConfigurationError) as wrong:
            JWTVerifier(issuer=ISSUER, audience=AUDIENCE, **options)  # type: ignore[arg-type]  # that is the point
        assert leaked(seen(wrong.value)) == []
        assert repr(SECRET) not in seen(wrong.value)
    with pytest.raises(ConfigurationError) as wrong:
        HTTPFetch(proxy=5)  # type: ignore[arg-type]  # that is the point
    assert "int" in str(wrong.value)


def test_the_search_finds_what_it_is_to_find() -> None:
    text = token()
    listener = Listener()
    logger = logging.getLogger("somebodys.app")
    logger.addHandler(listener)
    try:
        for shown in (text, f"<{text}>", text.split(".")[1], f"sig={text.split('.')[2]};"):
            # Straight into the listener: the fixture of this directory would take it for a leak, and be right.
            listener.emit(logging.LogRecord("app", logging.DEBUG, "", 0, "got %s", (shown,), None))
    finally:
        logger.removeHandler(listener)

    assert len(listener.lines) == 4
    assert all(leaked(line) for line in listener.lines)
    assert leaked("nothing of the kind: " + text.split(".")[0]) == []
