"""A verifier of the tests' own: real JWTs, signed with a secret, verified by joserfc."""

from __future__ import annotations

import time
from collections.abc import Iterable

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from streamware import Principal, TokenRefused

ISSUER = "https://idp.example"
KEY = OctKey.import_key("0123456789abcdef0123456789abcdef")


def token_for(subject: str = "ada", scopes: Iterable[str] = ("chat",), *, lifetime: float = 3600.0) -> str:
    """A token of ``subject``'s. It outlives a run of the whole suite, for modules make theirs when they are loaded."""
    claims = {"iss": ISSUER, "sub": subject, "scope": " ".join(scopes), "exp": int(time.time() + lifetime)}
    return jwt.encode({"alg": "HS256"}, claims, KEY)


class SecretVerifier:
    """Keeps what it has verified. ``asked``: how often ``verify`` was called; ``clients``: from where; ``error``: what
    it raises from now on."""

    def __init__(self) -> None:
        self.asked = 0
        self.clients: list[str] = []
        self.error: Exception | None = None
        self.remembers = True
        self.revoked: set[str] = set()
        self.opened = self.closed = 0
        self._known: dict[str, dict[str, object]] = {}

    def recall(self, token: str) -> Principal | None:
        claims = self._known.get(token)
        return None if claims is None or claims["exp"] <= time.time() else self._principal(claims)

    async def verify(self, token: str, *, client: str = "") -> Principal:
        self.asked += 1
        self.clients.append(client)
        if self.error is not None:
            raise self.error
        try:
            claims = dict(jwt.decode(token, KEY, algorithms=["HS256"]).claims)
        except (JoseError, ValueError) as error:
            raise TokenRefused("signature") from error
        if claims["exp"] <= time.time():
            raise TokenRefused("expired")
        if claims["sub"] in self.revoked:
            raise TokenRefused("revoked")
        if self.remembers:
            self._known[token] = claims
        return self._principal(claims)

    async def startup(self) -> None:
        self.opened += 1

    async def aclose(self) -> None:
        self.closed += 1

    def _principal(self, claims: dict[str, object]) -> Principal:
        return Principal(
            issuer=claims["iss"],
            subject=claims["sub"],
            scopes=claims["scope"].split(),
            claims=claims,
            expires_at=float(claims["exp"]),
        )
