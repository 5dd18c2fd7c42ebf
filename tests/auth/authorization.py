"""authlib's server side, as the tests' authorization server uses it: its clients, its tokens, and its endpoints."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Request, TokenMixin
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from joserfc.jwk import KeySet

from tests.secrets import secret

if TYPE_CHECKING:
    from tests.auth.provider import Provider

#: (status, headers, body)
Answer = tuple[int, dict[str, str], bytes]


class Client(ClientMixin):  # type: ignore[misc]  # authlib has no types
    """``opaque``: what it gets are opaque tokens."""

    def __init__(self, client_id: str, *, opaque: bool = False) -> None:
        self.client_id = client_id
        self.client_secret = secret(secrets.token_urlsafe(24))
        self.opaque = opaque

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str | None) -> str:
        return scope or ""

    def check_client_secret(self, given: str) -> bool:
        return secrets.compare_digest(given, self.client_secret)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return True

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "client_credentials"


class Token(TokenMixin):  # type: ignore[misc]  # authlib has no types
    """An access token that was issued. ``answer``: what introspection says of it while it is active."""

    def __init__(self, client_id: str, answer: dict[str, Any]) -> None:
        self.client_id = client_id
        self.answer = answer
        self.revoked = False

    def check_client(self, client: Client) -> bool:
        return self.client_id == client.client_id

    def is_expired(self) -> bool:
        return bool(self.answer.get("exp", time.time() + 1) <= time.time())

    def is_revoked(self) -> bool:
        return self.revoked


class OAuthRequest(OAuth2Request):  # type: ignore[misc]  # authlib has no types
    def __init__(self, method: str, uri: str, headers: dict[str, str], form: dict[str, str]) -> None:
        super().__init__(method, uri, headers=headers)
        self.payload = BasicOAuth2Payload(form)
        self._form = form

    @property
    def form(self) -> dict[str, str]:
        return self._form

    @property
    def args(self) -> dict[str, str]:
        return {}


class Server(AuthorizationServer):  # type: ignore[misc]  # authlib has no types
    """authlib's server, on requests and answers of ours."""

    def __init__(self, provider: Provider) -> None:
        super().__init__()
        self.provider = provider
        opaque = BearerTokenGenerator(lambda **_: secrets.token_urlsafe(32))
        signed = _Signed(provider)
        self._makers = {True: opaque, False: signed}
        self.register_grant(_Grant)
        self.register_endpoint(_Introspection)
        self.register_endpoint(_Revocation)
        self.register_client_auth_method("bearer", self._by_bearer)

    def query_client(self, client_id: str) -> Client | None:
        return self.provider.clients.get(client_id)

    def generate_token(self, grant_type: str, client: Client, **given: Any) -> dict[str, Any]:
        made: dict[str, Any] = self._makers[client.opaque](grant_type=grant_type, client=client, **given)
        return made

    def save_token(self, token: dict[str, Any], request: OAuth2Request) -> None:
        client = request.client
        answer = {
            "sub": client.client_id,
            "client_id": client.client_id,
            "scope": token.get("scope", ""),
            "exp": int(time.time()) + token["expires_in"],
        }
        self.provider.keep(token["access_token"], Token(client.client_id, answer))

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        return None

    def create_oauth2_request(self, request: OAuthRequest) -> OAuthRequest:
        return request

    def handle_response(self, status: int, body: object, headers: list[tuple[str, str]]) -> Answer:
        return status, dict(headers), json.dumps(body).encode()

    def _by_bearer(self, query_client: Callable[[str], Client], request: OAuthRequest) -> Client | None:
        good = request.headers.get("Authorization") == f"Bearer {self.provider.service_token}"
        return self.provider.service if good else None


class _Grant(ClientCredentialsGrant):  # type: ignore[misc]  # authlib has no types
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")


class _Signed(JWTBearerTokenGenerator):  # type: ignore[misc]  # authlib has no types
    def __init__(self, provider: Provider) -> None:
        super().__init__(provider.issuer, alg="ES256", expires_generator=600)
        self.provider = provider

    def get_jwks(self) -> KeySet:
        return KeySet([self.provider.keys[-1]])

    def get_audiences(self, client: Client, user: object, scope: str) -> str:
        return self.provider.audience


class _Introspection(IntrospectionEndpoint):  # type: ignore[misc]  # authlib has no types
    CLIENT_AUTH_METHODS = ("client_secret_basic", "client_secret_post", "bearer")

    def query_token(self, token_string: str, token_type_hint: str | None) -> Token | None:
        return self.server.provider.tokens.get(token_string)  # type: ignore[no-any-return]  # authlib has no types

    def check_permission(self, token: Token, client: Client, request: OAuthRequest) -> bool:
        return client.client_id == self.server.provider.service.client_id  # type: ignore[no-any-return]  # as above

    def introspect_token(self, token: Token) -> dict[str, Any]:
        return {"active": True, "token_type": "Bearer", **token.answer}


class _Revocation(RevocationEndpoint):  # type: ignore[misc]  # authlib has no types
    def query_token(self, token_string: str, token_type_hint: str | None) -> Token | None:
        return self.server.provider.tokens.get(token_string)  # type: ignore[no-any-return]  # authlib has no types

    def revoke_token(self, token: Token, request: OAuthRequest) -> None:
        token.revoked = True
