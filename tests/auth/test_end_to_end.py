"""``AuthMiddleware`` with the real verifiers, a real identity provider over TLS, on a real server."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from streamware import (
    AuthMiddleware,
    HeartbeatMiddleware,
    HTTPFetch,
    IntrospectionVerifier,
    JWTVerifier,
    MemoryStore,
    Middleware,
    ResourceMetadata,
    ResumeMiddleware,
    Stack,
    Tickets,
)
from tests.auth.provider import Provider
from tests.middleware.auth_asking import Site

EVENTS = {"accept": "text/event-stream"}

# The client of these tests would log the handshake that it makes, token and all.
QUIET = logging.getLogger("tests.websocket")
QUIET.setLevel(logging.INFO)


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """``app`` on uvicorn, for as long as the block runs: host and port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # wsproto: uvicorn's other two log the headers of each handshake, at DEBUG.
        config = uvicorn.Config(app, log_config=None, lifespan="on", ws="wsproto", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@pytest.fixture
async def fetch(provider: Provider) -> AsyncIterator[HTTPFetch]:
    fetch = provider.fetch()
    yield fetch
    await fetch.aclose()


def guarded(provider: Provider, fetch: HTTPFetch) -> Stack:
    """Everything that it takes: JWTs by the keys that the provider publishes, opaque tokens by asking it."""
    store = MemoryStore()
    jwts = JWTVerifier(issuer=provider.issuer, audience=provider.audience, fetch=fetch)
    opaque = IntrospectionVerifier(
        endpoint=provider.introspection_endpoint,
        client_id=provider.service.client_id,
        client_secret=provider.service.client_secret,
        fetch=fetch,
        cache_ttl=0,
    )
    auth = Middleware(
        AuthMiddleware,
        verifiers=[jwts, opaque],
        scopes={"/admin": ["admin"]},
        tickets=Tickets(store),
        resource_metadata=ResourceMetadata(provider.audience, authorization_servers=[provider.issuer]),
    )
    return Stack(Site(), middleware=[auth, Middleware(HeartbeatMiddleware), Middleware(ResumeMiddleware, store=store)])


async def test_a_client_that_knows_but_the_url_gets_in_by_metadata_token_and_header(
    provider: Provider, fetch: HTTPFetch
):
    async with served(guarded(provider, fetch)) as host, httpx2.AsyncClient(base_url=f"http://{host}") as client:
        refused = await client.get("/")
        named = refused.headers["www-authenticate"].partition('resource_metadata="')[2].strip('"')
        metadata = (await client.get(named.removeprefix(provider.audience))).json()
        # The provider's own metadata, its token endpoint and its grant stand behind ``request_token``.
        assert metadata["authorization_servers"] == [provider.issuer]
        token = await provider.request_token(scope="read")
        bearer = {"authorization": f"Bearer {token}"}

        let_in = await client.get("/", headers=bearer)
        too_far = await client.get("/admin", headers=bearer)
        forged = await client.get("/", headers={"authorization": f"Bearer {token[:-8]}AAAAAAAA"})

    assert refused.status_code == 401
    assert let_in.json() == {"subject": "app", "known": True, "scopes": ["authenticated", "read"]}
    assert (too_far.status_code, too_far.json()["scope"]) == (403, "admin")
    assert (forged.status_code, forged.json()["error"]) == (401, "invalid_token")


async def test_an_opaque_token_lets_in_until_it_is_revoked(provider: Provider, fetch: HTTPFetch):
    async with served(guarded(provider, fetch)) as host, httpx2.AsyncClient(base_url=f"http://{host}") as client:
        token = await provider.request_token(provider.opaque_app)
        bearer = {"authorization": f"Bearer {token}"}

        before = await client.get("/", headers=bearer)
        await provider.post(provider.revocation_endpoint, provider.opaque_app, token=token)
        after = await client.get("/", headers=bearer)

    assert before.json()["subject"] == "opaque"
    assert (after.status_code, after.json()["error"]) == (401, "invalid_token")


async def test_a_ticket_whose_token_is_revoked_meanwhile_lets_nobody_in(provider: Provider, fetch: HTTPFetch):
    async with served(guarded(provider, fetch)) as host, httpx2.AsyncClient(base_url=f"http://{host}") as client:
        token = await provider.request_token(provider.opaque_app)
        tickets = []
        for _ in range(2):
            headers = {"authorization": f"Bearer {token}"}
            answer = await client.post("/_auth/ticket", headers=headers, json={"path": "/events"})
            tickets.append(answer.json()["ticket"])

        before = await client.get("/events", params={"ticket": tickets[0]})
        await provider.post(provider.revocation_endpoint, provider.opaque_app, token=token)
        after = await client.get("/events", params={"ticket": tickets[1]})

    assert before.json()["subject"] == "opaque"
    assert after.status_code == 401


async def test_a_websocket_brings_its_token_as_a_subprotocol(provider: Provider, fetch: HTTPFetch):
    async with served(guarded(provider, fetch)) as host:
        token = await provider.request_token()
        async with connect(f"ws://{host}/socket", subprotocols=["bearer", token], logger=QUIET) as let_in:
            assert let_in.subprotocol == "bearer"
            assert json.loads(await let_in.recv())["subject"] == "app"
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://{host}/socket", subprotocols=["bearer", f"{token[:-8]}AAAAAAAA"], logger=QUIET)

    assert refused.value.response.status_code == 401


async def test_while_the_provider_is_away_whoever_is_known_gets_in_and_the_others_may_come_again(
    provider: Provider, fetch: HTTPFetch
):
    async with served(guarded(provider, fetch)) as host, httpx2.AsyncClient(base_url=f"http://{host}") as client:
        known, opaque = await provider.request_token(), await provider.request_token(provider.opaque_app)
        assert (await client.get("/", headers={"authorization": f"Bearer {known}"})).status_code == 200
        provider.down = True

        still = await client.get("/", headers={"authorization": f"Bearer {known}"})
        other = await client.get("/", headers={"authorization": f"Bearer {opaque}"})
        source = await client.get(
            "/", headers={"authorization": f"Bearer {opaque}", "cache-control": "no-cache", **EVENTS}
        )

    assert still.status_code == 200
    assert other.status_code == 503
    assert int(other.headers["retry-after"]) >= 1
    assert (source.status_code, source.text[:7]) == (200, "retry: ")
