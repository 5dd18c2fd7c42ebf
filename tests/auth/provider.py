"""A real authorization server on loopback, over TLS, built with authlib's own server side.

It issues access tokens by client credentials, as JWTs (RFC 9068) and opaque, and has introspection, revocation, a key
set that rotates, and both kinds of metadata. Tests steer it from outside:

    def test_something(provider: Provider) -> None:
        token = provider.jwt("alice", scope="read")          # minted with its current key
        verifier = JWTVerifier(issuer=provider.issuer, audience=provider.audience, fetch=provider.fetch())
        provider.rotate(); provider.revoke(token); provider.down = True; provider.calls["jwks"]

The fixture ``provider`` is one server a run, as new for each test: ``from tests.auth.provider import provider,
provider_server`` in a ``conftest.py`` makes it known there.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import socket
import ssl
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl

import httpx2
import pytest
import trustme
import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from streamware.auth.fetch import HTTPFetch
from streamware.types import Message, Receive, Scope, Send
from tests.auth.authorization import Answer, Client, OAuthRequest, Server, Token
from tests.secrets import secret

READY_WITHIN = 15.0
PATH = "/tenant"


class Provider:
    """One authorization server. ``with Provider() as provider`` runs it in a thread of its own.

    ``issuer``, ``audience``: what its JWTs say. ``service``: the client that may introspect, ``app`` and
    ``opaque_app``: clients that get tokens. ``calls``: how often each endpoint was asked, by the last part of its path.
    ``down``: refuse everybody with 503. ``held``: answer nobody until it is False. ``answers``: what an endpoint says
    instead of what it would. ``max_age``: of the key set; None: not said. ``metadata``: the kinds that exist.
    """

    audience = "https://api.example"

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="streamware-idp-")
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        self._pem = Path(self._directory.name) / "server.pem"
        certificate.private_key_and_cert_chain_pem.write_to_path(str(self._pem))
        self._authority = authority
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.origin = f"https://127.0.0.1:{self.port}"
        self.issuer = self.origin + PATH
        self.jwks_uri = f"{self.issuer}/jwks"
        self.introspection_endpoint = f"{self.issuer}/introspect"
        self.token_endpoint = f"{self.issuer}/token"
        self.revocation_endpoint = f"{self.issuer}/revoke"
        config = uvicorn.Config(
            self._serve,
            interface="asgi3",
            log_config=None,
            lifespan="off",
            ws="none",
            ssl_certfile=self._pem,
            ssl_keyfile=self._pem,
            timeout_graceful_shutdown=1,
        )
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._uvicorn.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self.reset()

    def reset(self) -> None:
        """As new: other keys, no tokens, nothing counted, nothing wrong."""
        self.keys: list[ECKey] = []
        self.rotate()
        self.tokens: dict[str, Token] = {}
        self.service, self.app, self.opaque_app = Client("service"), Client("app"), Client("opaque", opaque=True)
        self.clients = {client.client_id: client for client in (self.service, self.app, self.opaque_app)}
        self.service_token = secret(secrets.token_urlsafe(24))
        self.calls: Counter[str] = Counter()
        self.down = self.held = False
        self.answers: dict[str, Answer] = {}
        self.max_age: int | None = None
        self.metadata = {"oauth-authorization-server", "openid-configuration"}
        self._server = Server(self)

    def __enter__(self) -> Provider:
        self._thread.start()
        deadline = time.monotonic() + READY_WITHIN
        while not self._uvicorn.started:
            assert time.monotonic() < deadline, "the provider does not start"
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.held = False
        self._uvicorn.should_exit = True
        self._thread.join(READY_WITHIN)
        self._socket.close()
        self._directory.cleanup()

    # -- for clients

    def ssl_context(self) -> ssl.SSLContext:
        """One that trusts this server, and nobody else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._authority.configure_trust(context)
        return context

    def fetch(self) -> HTTPFetch:
        """What verifiers ask it with. To be closed by whoever made it."""
        return HTTPFetch(ssl_context=self.ssl_context())

    async def request_token(self, client: Client | None = None, *, scope: str = "read") -> str:
        """A token by the real grant, over HTTP. ``opaque_app`` gets an opaque one."""
        client = client or self.app
        answer = await self.post(self.token_endpoint, client, grant_type="client_credentials", scope=scope)
        return str(answer["access_token"])

    async def post(self, url: str, client: Client, **form: str) -> dict[str, Any]:
        """A POST by ``client``, who authenticates by HTTP Basic."""
        pair = base64.b64encode(f"{client.client_id}:{client.client_secret}".encode()).decode()
        async with httpx2.AsyncClient(verify=self.ssl_context(), trust_env=False) as asking:
            response = await asking.post(url, data=form, headers={"Authorization": f"Basic {pair}"})
        assert response.status_code == 200, response.status_code
        answer: dict[str, Any] = response.json()
        return answer

    # -- by hand

    def jwt(
        self,
        subject: str = "alice",
        *,
        scope: str = "read",
        lifetime: float = 600,
        key: ECKey | None = None,
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """An access token of RFC 9068, signed with the current key. ``claims`` given as None are left out."""
        key = key or self.keys[-1]
        now = int(time.time())
        said = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": subject,
            "client_id": "app",
            "iat": now,
            "exp": now + lifetime,
            "jti": secrets.token_hex(8),
            "scope": scope,
            **claims,
        }
        said = {name: value for name, value in said.items() if value is not None}
        header = {"alg": "ES256", "typ": "at+jwt", "kid": key.kid, **(header or {})}
        token = secret(jwt.encode({name: value for name, value in header.items() if value is not None}, said, key))
        return self.keep(token, Token("app", said))

    def opaque(self, subject: str = "alice", *, scope: str = "read", lifetime: float = 600, **answer: Any) -> str:
        """An opaque access token. ``answer``: what introspection says besides; None leaves a member out."""
        said = {
            "sub": subject,
            "client_id": "app",
            "iss": self.issuer,
            "aud": self.audience,
            "exp": int(time.time()) + lifetime,
            "scope": scope,
            **answer,
        }
        said = {name: value for name, value in said.items() if value is not None}
        return self.keep(secrets.token_urlsafe(32), Token("app", said))

    def keep(self, token: str, record: Token) -> str:
        """Let it be introspected and revoked."""
        self.tokens[secret(token)] = record
        return token

    def revoke(self, token: str) -> None:
        """As its client would at the revocation endpoint."""
        self.tokens[token].revoked = True

    def rotate(self, *, keep: bool = True) -> str:
        """Sign with a new key from here on; its id. ``keep``: the old ones stay in the set."""
        key = ECKey.generate_key("P-256", {"kid": secrets.token_hex(8), "use": "sig", "alg": "ES256"})
        self.keys = [*(self.keys if keep else []), key]
        return str(key.kid)

    # -- over HTTP

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message: Message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path: str = scope["path"]
        name = next((kind for kind in METADATA if kind in path), path.rpartition("/")[2])
        self.calls[name] += 1
        while self.held:
            await asyncio.sleep(0.005)
        if self.down:
            status, headers, answer = 503, {}, b""
        elif name in self.answers:
            status, headers, answer = self.answers[name]
        else:
            status, headers, answer = self._answer(scope, name, path, body)
        headers = {"Content-Type": "application/json", **headers, "Content-Length": str(len(answer))}
        lines = [(key.lower().encode(), value.encode()) for key, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": answer})

    def _answer(self, scope: Scope, name: str, path: str, body: bytes) -> Answer:
        if path in (f"/.well-known/{METADATA[0]}{PATH}", f"{PATH}/.well-known/{METADATA[1]}"):
            return (200, {}, json.dumps(self._metadata()).encode()) if name in self.metadata else (404, {}, b"{}")
        if name == "jwks":
            headers = {} if self.max_age is None else {"Cache-Control": f"public, max-age={self.max_age}"}
            return 200, headers, json.dumps(KeySet(list(self.keys)).as_dict()).encode()
        headers = {key.decode().title(): value.decode() for key, value in scope["headers"]}
        form = dict(parse_qsl(body.decode(), keep_blank_values=True))
        request = OAuthRequest(scope["method"], self.origin + path, headers, form)
        if name == "token":
            made: Answer = self._server.create_token_response(request)
            return made
        endpoint = {"introspect": "introspection", "revoke": "revocation"}.get(name)
        if endpoint is None:
            return 404, {}, b"{}"
        answered: Answer = self._server.create_endpoint_response(endpoint, request)
        return answered

    def _metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "jwks_uri": self.jwks_uri,
            "token_endpoint": self.token_endpoint,
            "introspection_endpoint": self.introspection_endpoint,
            "revocation_endpoint": self.revocation_endpoint,
            "grant_types_supported": ["client_credentials"],
            "response_types_supported": [],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }


METADATA = ("oauth-authorization-server", "openid-configuration")


@pytest.fixture(scope="session")
def provider_server() -> Iterator[Provider]:
    """One server for the whole run."""
    with Provider() as running:
        yield running


@pytest.fixture
def provider(provider_server: Provider) -> Iterator[Provider]:
    """It, as new."""
    provider_server.reset()
    yield provider_server
    provider_server.held = False
