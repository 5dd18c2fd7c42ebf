"""FastAPI: the verified principal as a dependency, with its lock in the documentation of the API.

    @app.get("/me")
    def me(principal: CurrentPrincipal): ...

    @app.post("/chat")
    def chat(principal: Annotated[Principal, Security(principal, scopes=["chat"])]): ...

Rules:

1. Nothing is verified here: ``AuthMiddleware`` has done that, outside the app. What is no principal of its making is
   nobody, so without it everybody is refused.
2. A refusal is RFC 6750's: 401 where nobody is known, 403 where a scope is missing, each with its challenge. A
   WebSocket is refused by an HTTP response, or closed with 3000 or 3003 where the server cannot send one.
3. The scheme of OpenAPI says how clients come by a token. It decides nothing.
"""

# No ``from __future__ import annotations``: FastAPI reads the annotations of ``__call__`` below as they are.

import logging
from typing import Annotated

from fastapi import HTTPException, Security, WebSocketException
from fastapi.openapi.models import SecurityBase as SecurityModel
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPBearer, SecurityScopes
from fastapi.security.base import SecurityBase

from ..auth.principal import Principal
from ..observe import OnceLog
from ..wire.challenge import INSUFFICIENT_SCOPE, Refusal

__all__ = (
    "CurrentPrincipal",
    "OptionalPrincipal",
    "OptionalPrincipalScheme",
    "PrincipalScheme",
    "optional_principal",
    "principal",
)

logger = logging.getLogger("streamware.auth")
_once = OnceLog(logger)

REALM = "api"
CLOSE_CODES = {401: 3000, 403: 3003}


class _Scheme(SecurityBase):
    """``scheme``: what the API's documentation says of tokens."""

    model: SecurityModel
    scheme_name: str

    def __init__(self, scheme: SecurityBase | None = None) -> None:
        chosen = HTTPBearer(bearerFormat="JWT", scheme_name="bearer") if scheme is None else scheme
        self.model = chosen.model
        self.scheme_name = chosen.scheme_name


class PrincipalScheme(_Scheme):
    """A dependency: the principal, who has all scopes that ``Security(…, scopes=[…])`` names; else a refusal.

    :param scheme: any of FastAPI's security schemes, ``OpenIdConnect(openIdConnectUrl=…)`` or
        ``OAuth2AuthorizationCodeBearer(…)``, for what the API's documentation says of tokens, and for its "Authorize"
        button; by default they are bearer tokens.
    """

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> Principal:
        found = _known(connection)
        if found is None:
            raise _refused(connection, Refusal(401, "absent"))
        _demand(connection, found, security_scopes)
        return found


class OptionalPrincipalScheme(_Scheme):
    """The same for paths that ``AuthMiddleware(optional=[…])`` names: None for who has shown no token."""

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> Principal | None:
        found = _known(connection)
        if found is not None:
            _demand(connection, found, security_scopes)
        return found


principal = PrincipalScheme()
optional_principal = OptionalPrincipalScheme()

#: For annotations where no scope is asked for.
CurrentPrincipal = Annotated[Principal, Security(principal)]
OptionalPrincipal = Annotated[Principal | None, Security(optional_principal)]


def _known(connection: HTTPConnection) -> Principal | None:
    """Who asks, if ``AuthMiddleware`` says so and it is somebody."""
    found = connection.scope.get("user")
    if not isinstance(found, Principal):
        _once.warning(
            "outside",
            "%r: no AuthMiddleware stands outside the app for this path, so nobody is known there",
            connection.scope["path"],
        )
        return None
    return found if found.is_authenticated else None


def _demand(connection: HTTPConnection, found: Principal, asked: SecurityScopes) -> None:
    if not found.has_scopes(*asked.scopes):
        raise _refused(connection, Refusal(403, "scope", INSUFFICIENT_SCOPE, tuple(asked.scopes)))


def _refused(connection: HTTPConnection, refusal: Refusal) -> HTTPException | WebSocketException:
    scope = connection.scope
    if scope["type"] == "websocket" and "websocket.http.response" not in (scope.get("extensions") or {}):
        return WebSocketException(CLOSE_CODES[refusal.status])
    challenge = refusal.challenge(REALM).decode("latin-1")
    return HTTPException(refusal.status, refusal.description, {"WWW-Authenticate": challenge})
