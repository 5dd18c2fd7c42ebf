"""Verifiers and a real authorization server, over TLS: discovery, keys, introspection, what ``HTTPFetch`` refuses."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from streamware import (
    ConfigurationError,
    CountingObserver,
    FetchError,
    FetchRequest,
    HTTPFetch,
    IntrospectionVerifier,
    IssuerVerifier,
    JWTVerifier,
    VerifierUnavailable,
)
from streamware.auth.discovery import well_known
from streamware.testing import FakeClock
from tests.auth.mint import reason
from tests.auth.provider import Provider


@asynccontextmanager
async def asking(provider: Provider) -> AsyncIterator[HTTPFetch]:
    fetch = provider.fetch()
    try:
        yield fetch
    finally:
        await fetch.aclose()


def jwts(provider: Provider, fetch: HTTPFetch, **options: Any) -> JWTVerifier:
    """Found by the issuer alone."""
    return JWTVerifier(**{"issuer": provider.issuer, "audience": provider.audience, "fetch": fetch, **options})


def opaques(provider: Provider, fetch: HTTPFetch, **options: Any) -> IntrospectionVerifier:
    client = {"client_id": provider.service.client_id, "client_secret": provider.service.client_secret}
    return IntrospectionVerifier(**{"issuer": provider.issuer, "fetch": fetch, **client, **options})


# -- JWTs


async def test_a_token_by_the_real_grant_is_verified_with_keys_that_are_discovered(provider: Provider) -> None:
    async with asking(provider) as fetch:
        verifier = jwts(provider, fetch)
        principal = await verifier.verify(await provider.request_token(scope="read write"))
        await verifier.verify(await provider.request_token())

    assert (principal.issuer, principal.subject) == (provider.issuer, "app")
    assert principal.scopes == {"read", "write"}
    assert provider.calls["jwks"] == 1
    assert provider.calls["oauth-authorization-server"] == 1


@pytest.mark.parametrize("kind", ["oauth-authorization-server", "openid-configuration"])
async def test_either_kind_of_metadata_will_do(provider: Provider, kind: str) -> None:
    provider.metadata = {kind}
    async with asking(provider) as fetch:
        await jwts(provider, fetch).verify(provider.jwt())


async def test_metadata_of_another_issuer_are_not_believed(provider: Provider) -> None:
    observer = CountingObserver()
    document = {"issuer": provider.issuer + "/", "jwks_uri": provider.jwks_uri}
    provider.answers = {kind: (200, {}, json.dumps(document).encode()) for kind in provider.metadata}
    async with asking(provider) as fetch:
        with pytest.raises(VerifierUnavailable):
            await jwts(provider, fetch, observer=observer).verify(provider.jwt())

    assert observer.counts["auth.keys_failed", "issuer"] == 1
    assert provider.calls["jwks"] == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/jwks", "file:///etc/passwd", 5, None, "https://user@idp.example/"])
async def test_metadata_lead_to_https_only(provider: Provider, url: object) -> None:
    observer = CountingObserver()
    document = {"issuer": provider.issuer, "jwks_uri": url}
    provider.answers = {kind: (200, {}, json.dumps(document).encode()) for kind in provider.metadata}
    async with asking(provider) as fetch:
        with pytest.raises(VerifierUnavailable):
            await jwts(provider, fetch, observer=observer).verify(provider.jwt())

    assert observer.counts["auth.keys_failed", "endpoint"] == 1


async def test_metadata_may_be_elsewhere(provider: Provider) -> None:
    provider.answers["elsewhere"] = (200, {}, json.dumps(provider._metadata()).encode())
    async with asking(provider) as fetch:
        await jwts(provider, fetch, metadata=f"{provider.origin}/elsewhere").verify(provider.jwt())

    assert provider.calls["oauth-authorization-server"] == 0


def test_the_well_known_places_of_an_issuer_with_a_path() -> None:
    assert well_known("https://idp.example/tenant/") == [
        "https://idp.example/.well-known/oauth-authorization-server/tenant",
        "https://idp.example/tenant/.well-known/openid-configuration",
    ]
    assert well_known("https://idp.example") == [
        "https://idp.example/.well-known/oauth-authorization-server",
        "https://idp.example/.well-known/openid-configuration",
    ]


async def test_a_rotation_is_followed_and_a_key_that_was_withdrawn_is_forgotten(provider: Provider) -> None:
    clock = FakeClock()
    provider.max_age = 60
    async with asking(provider) as fetch:
        verifier = jwts(provider, fetch, jwks=provider.jwks_uri, clock=clock, cache_ttl=0)
        old = provider.jwt()
        await verifier.verify(old)
        provider.rotate()
        await verifier.verify(provider.jwt())  # at once: the first unknown key
        await verifier.verify(old)
        provider.rotate(keep=False)
        await clock.advance(60)
        assert await reason(verifier, old) == "key"

    assert provider.calls["jwks"] == 3


async def test_in_an_outage_what_is_known_goes_on_and_a_server_that_holds_is_given_up(provider: Provider) -> None:
    clock, observer = FakeClock(), CountingObserver()
    async with asking(provider) as fetch:
        verifier = jwts(
            provider, fetch, jwks=provider.jwks_uri, clock=clock, cache_ttl=0, timeout=0.2, observer=observer
        )
        text = provider.jwt()
        await verifier.verify(text)
        provider.down = True
        await clock.advance(3600)
        await verifier.verify(text)
        provider.down, provider.held = False, True
        await clock.advance(10)
        with pytest.raises(VerifierUnavailable):
            await verifier.verify(provider.jwt(key=None, header={"kid": "new"}))
        provider.held = False

    assert observer.counts["auth.keys_failed", "status"] == 1
    assert observer.counts["auth.keys_failed", "timeout"] == 1


# -- opaque tokens


@pytest.mark.parametrize("way", ["basic", "post", "bearer"])
async def test_an_opaque_token_is_introspected_at_the_endpoint_that_is_discovered(provider: Provider, way: str) -> None:
    options = {"bearer": provider.service_token} if way == "bearer" else {"auth": way}
    async with asking(provider) as fetch:
        verifier = opaques(provider, fetch, **options)
        principal = await verifier.verify(await provider.request_token(provider.opaque_app))
        assert await reason(verifier, "never-issued") == "inactive"

    assert (principal.issuer, principal.subject) == (provider.issuer, "opaque")


async def test_a_token_that_is_revoked_is_refused_when_it_is_asked_for_again(provider: Provider) -> None:
    clock = FakeClock()
    text = await provider.request_token(provider.opaque_app)
    async with asking(provider) as fetch:
        verifier = opaques(provider, fetch, clock=clock)
        await verifier.verify(text)
        await provider.post(provider.revocation_endpoint, provider.opaque_app, token=text)
        await verifier.verify(text)  # remembered
        await clock.advance(60)
        assert await reason(verifier, text) == "inactive"

    assert provider.calls["introspect"] == 2


async def test_wrong_credentials_let_nobody_in(provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    async with asking(provider) as fetch:
        verifier = opaques(provider, fetch, endpoint=provider.introspection_endpoint, client_secret="wrong-secret")
        with pytest.raises(VerifierUnavailable):
            await verifier.verify(provider.opaque())

    assert any("credentials" in record.getMessage() for record in caplog.records)


async def test_ten_thousand_forged_opaque_tokens_reach_a_real_server_a_bounded_number_of_times(
    provider: Provider,
) -> None:
    async with asking(provider) as fetch:
        verifier = opaques(provider, fetch, endpoint=provider.introspection_endpoint, client_failures=30)
        for batch in range(10):
            await asyncio.gather(
                *(verifier.verify(f"forged-{batch}-{number}", client="203.0.113.9") for number in range(1000)),
                return_exceptions=True,
            )

    assert 30 <= provider.calls["introspect"] <= 46


# -- both at once


async def test_jwts_and_opaque_tokens_of_several_issuers_side_by_side(provider: Provider) -> None:
    async with asking(provider) as fetch:
        verifier = IssuerVerifier([jwts(provider, fetch)], opaque=opaques(provider, fetch))
        signed, opaque = provider.jwt("alice"), provider.opaque("bob")
        assert (await verifier.verify(signed)).subject == "alice"
        assert (await verifier.verify(opaque)).subject == "bob"
        assert await reason(verifier, provider.jwt(iss="https://other.example")) == "issuer"
        for text, subject in ((signed, "alice"), (opaque, "bob")):
            recalled = verifier.recall(text)
            assert recalled is not None
            assert recalled.subject == subject

    assert provider.calls["introspect"] == 1


# -- the client


async def fails(fetch: HTTPFetch, url: str, **options: Any) -> str:
    with pytest.raises(FetchError) as failed:
        await fetch.fetch(FetchRequest(url, **options))
    return failed.value.reason


async def test_redirects_are_followed_within_the_host_only(provider: Provider) -> None:
    provider.answers["moved"] = (302, {"Location": "/tenant/jwks"}, b"")
    provider.answers["away"] = (302, {"Location": f"https://localhost:{provider.port}/tenant/jwks"}, b"")
    provider.answers["port"] = (302, {"Location": "https://127.0.0.1:1/"}, b"")
    provider.answers["plain"] = (302, {"Location": provider.jwks_uri.replace("https:", "http:")}, b"")
    provider.answers["loop"] = (302, {"Location": "loop"}, b"")
    async with asking(provider) as fetch:
        assert (await fetch.fetch(FetchRequest(f"{provider.origin}/moved"))).status == 200
        calls = provider.calls["jwks"]
        for place in ("away", "port", "plain", "loop"):
            assert await fails(fetch, f"{provider.origin}/{place}") == "redirect"
        assert provider.calls["jwks"] == calls
        # A POST holds a token and credentials: it is sent to nobody else, within the host either.
        posted = await fetch.fetch(FetchRequest(f"{provider.origin}/moved", form={"token": "t"}))
        assert posted.status == 302


async def test_answers_are_bounded_and_never_compressed(provider: Provider) -> None:
    provider.answers["big"] = (200, {}, b"x" * 300_000)
    provider.answers["bomb"] = (200, {"Content-Encoding": "gzip"}, gzip.compress(b"0" * 10_000_000))
    provider.answers["fits"] = (200, {}, b"x" * 262_144)
    async with asking(provider) as fetch:
        assert await fails(fetch, f"{provider.origin}/big") == "size"
        assert await fails(fetch, f"{provider.origin}/bomb") == "encoding"
        assert len((await fetch.fetch(FetchRequest(f"{provider.origin}/fits"))).body) == 262_144


async def test_a_server_that_does_not_answer_is_given_up(provider: Provider) -> None:
    provider.held = True
    async with asking(provider) as fetch:
        assert await fails(fetch, provider.jwks_uri, timeout=0.2) == "timeout"
    provider.held = False


async def test_who_is_not_trusted_or_not_there_is_not_asked(provider: Provider) -> None:
    stranger = HTTPFetch()
    assert await fails(stranger, provider.jwks_uri) == "connection"
    assert await fails(stranger, "https://127.0.0.1:1/") == "connection"
    assert await fails(stranger, provider.jwks_uri.replace("https:", "http:")) == "protocol"
    await stranger.aclose()
    async with asking(provider) as fetch:
        other_name = provider.jwks_uri.replace("127.0.0.1", "127.0.0.2")
        assert await fails(fetch, other_name) == "connection"
    assert provider.calls["jwks"] == 0


async def test_a_client_may_be_closed_and_used_again(provider: Provider) -> None:
    async with asking(provider) as fetch:
        for _ in range(2):
            assert (await fetch.fetch(FetchRequest(provider.jwks_uri))).status == 200
            await fetch.aclose()


def test_a_client_may_be_used_on_one_loop_after_the_other(provider: Provider) -> None:
    fetch = provider.fetch()

    async def ask() -> int:
        try:
            return (await fetch.fetch(FetchRequest(provider.jwks_uri))).status
        finally:
            await fetch.aclose()

    assert [asyncio.run(ask()), asyncio.run(ask())] == [200, 200]


async def test_the_environment_names_no_proxy(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with asking(provider) as fetch:
        assert (await fetch.fetch(FetchRequest(provider.jwks_uri))).status == 200


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpx2", None)

    with pytest.raises(ConfigurationError, match=r"asgi-streamware\[oauth\]"):
        JWTVerifier(issuer="https://idp.example", audience="a")


@pytest.mark.parametrize("options", [{"ssl_context": 5}, {"insecure": 1}, {"proxy": 5}])
def test_a_wrong_option_of_the_client_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        HTTPFetch(**options)
    HTTPFetch(ssl_context=ssl.create_default_context())
