"""The identity provider of the tests is a real one."""

from __future__ import annotations

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.auth.provider import Provider


async def test_a_token_by_client_credentials_is_signed_with_a_key_of_the_set(provider: Provider) -> None:
    token = await provider.request_token(scope="read write")

    async with httpx2.AsyncClient(verify=provider.ssl_context()) as client:
        document = (await client.get(provider.jwks_uri)).json()
    decoded = jwt.decode(token, KeySet.import_key_set(document))
    assert decoded.header["typ"] == "at+jwt"
    assert decoded.claims["iss"] == provider.issuer
    assert decoded.claims["aud"] == provider.audience
    assert decoded.claims["scope"] == "read write"
    assert all("d" not in key for key in document["keys"])


async def test_introspection_tells_an_active_token_from_a_revoked_one(provider: Provider) -> None:
    token = await provider.request_token(provider.opaque_app)

    before = await provider.post(provider.introspection_endpoint, provider.service, token=token)
    await provider.post(provider.revocation_endpoint, provider.opaque_app, token=token)
    after = await provider.post(provider.introspection_endpoint, provider.service, token=token)

    assert before["active"] is True
    assert before["sub"] == "opaque"
    assert after == {"active": False}


async def test_a_client_without_its_secret_gets_nothing(provider: Provider) -> None:
    async with httpx2.AsyncClient(verify=provider.ssl_context()) as client:
        form = {"grant_type": "client_credentials"}
        answer = await client.post(provider.token_endpoint, data=form, auth=("app", "wrong"))

    assert answer.status_code == 401
    assert "access_token" not in answer.json()


async def test_it_speaks_tls_only(provider: Provider) -> None:
    async with httpx2.AsyncClient() as client:
        with pytest.raises(httpx2.HTTPError):
            await client.get(provider.jwks_uri.replace("https:", "http:"))
        with pytest.raises(httpx2.ConnectError):  # nobody trusts it by itself
            await client.get(provider.jwks_uri)
