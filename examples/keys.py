"""A verifier of one's own: API keys, of which only the hashes are kept. With an identity provider it is ``JWTVerifier``
or ``IntrospectionVerifier`` instead, and nothing else changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from streamware import Principal, TokenRefused


class KeyVerifier:
    """``keys``: for each key, who has it and what it allows."""

    def __init__(self, keys: Mapping[str, tuple[str, Iterable[str]]]) -> None:
        self._known = {_digest(key): (subject, frozenset(scopes)) for key, (subject, scopes) in keys.items()}

    def recall(self, token: str) -> Principal | None:
        digest = _digest(token)
        if digest not in self._known:
            return None
        subject, scopes = self._known[digest]
        # A new one each time: what one request does to it is nobody else's to see.
        return Principal(issuer="keys", subject=subject, scopes=scopes, token_hash=digest)

    async def verify(self, token: str, *, client: str = "") -> Principal:
        principal = self.recall(token)
        if principal is None:
            raise TokenRefused("unknown_key")
        return principal

    async def startup(self) -> None:
        return None

    async def aclose(self) -> None:
        return None


def _digest(key: str) -> bytes:
    # Keys are long and random, so a plain hash will do, and looking it up tells nothing by the time that it takes.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
