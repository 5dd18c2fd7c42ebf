"""What claims have to say for a token to be believed, and what is kept of it then.

Used for the claims of a JWT and for the answer of an introspection endpoint alike. A claim of the wrong type is never
taken for an absent one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .principal import Principal
from .token import JSON
from .verifier import TokenRefused

#: No token is believed to last longer, in seconds: timers are set by it.
MAX_LIFETIME = 366 * 86_400.0
#: Clocks that differ by more are wrong, in seconds.
MAX_LEEWAY = 300.0
# What says nothing: a claim that has to be there must not be one of these.
_ABSENT: tuple[object, ...] = (None, "", [])


class Verified:
    """What is known of a token that was verified; ``principal`` makes the object that one request gets."""

    __slots__ = ("claims", "client_id", "expires_at", "issuer", "scopes", "subject", "token_hash")

    def __init__(
        self,
        issuer: str,
        subject: str,
        scopes: frozenset[str],
        claims: Mapping[str, object],
        client_id: str,
        expires_at: float | None,
        token_hash: bytes,
    ) -> None:
        self.issuer = issuer
        self.subject = subject
        self.scopes = scopes
        self.claims = claims
        self.client_id = client_id
        self.expires_at = expires_at
        self.token_hash = token_hash

    def principal(self) -> Principal:
        """A new one each time: what a request does to its own is nobody else's to see."""
        return Principal(
            issuer=self.issuer,
            subject=self.subject,
            scopes=self.scopes,
            claims=self.claims,
            client_id=self.client_id,
            expires_at=self.expires_at,
            token_hash=self.token_hash,
        )


class ClaimRules:
    """The demands of one verifier.

    :param issuer: what ``iss`` has to be; None: whatever it is.
    :param audiences: of which ``aud`` has to name one; empty: not looked at.
    :param essential: claims that have to be there.
    :param leeway: seconds that clocks may differ by.
    :param scope_claims: where scopes are, of which the first that is there counts.
    """

    __slots__ = ("audiences", "essential", "issuer", "leeway", "scope_claims")

    def __init__(
        self,
        *,
        issuer: str | None,
        audiences: frozenset[str],
        essential: frozenset[str],
        leeway: float,
        scope_claims: tuple[str, ...],
    ) -> None:
        self.issuer = issuer
        self.audiences = audiences
        self.essential = essential
        self.leeway = leeway
        self.scope_claims = scope_claims

    def verified(self, claims: dict[str, JSON], now: float, token_hash: bytes, *, subjects: str = "") -> Verified:
        """What is known of the token, when its claims are good at ``now`` (seconds since 1970). ``subjects``: a further
        claim that may name the subject.

        :raises TokenRefused: they are not.
        """
        for claim in self.essential:
            if claims.get(claim) in _ABSENT:
                raise TokenRefused("missing_claim")
        issuer = _text(claims, "iss")
        if self.issuer is not None:
            # RFC 9068, section 4: exactly. An answer of the issuer's own endpoint need not repeat its name.
            if issuer is None:
                issuer = self.issuer
            elif issuer != self.issuer:
                raise TokenRefused("issuer")
        if self.audiences and not self._addressed(claims.get("aud")):
            raise TokenRefused("audience")
        expires_at = _moment(claims, "exp")
        if expires_at is not None:
            if expires_at <= now - self.leeway:
                raise TokenRefused("expired")
            expires_at = min(expires_at, now + MAX_LIFETIME)
        for claim in ("nbf", "iat"):
            if claim in claims and (moment := _moment(claims, claim)) is not None and moment > now + self.leeway:
                raise TokenRefused("not_yet_valid")
        client_id = _text(claims, "client_id") or _text(claims, "azp") or ""
        subject = _text(claims, "sub") or (_text(claims, subjects) if subjects else None) or client_id
        return Verified(
            issuer or "",
            # Two tokens that name nobody must not be taken for one user's.
            subject or f"token:{token_hash.hex()[:32]}",
            self._scopes(claims),
            MappingProxyType(claims),
            client_id,
            expires_at,
            token_hash,
        )

    def _addressed(self, audience: JSON) -> bool:
        if isinstance(audience, str):
            return audience in self.audiences
        if not isinstance(audience, list):
            return False
        named = [each for each in audience if isinstance(each, str)]
        return len(named) == len(audience) and not self.audiences.isdisjoint(named)

    def _scopes(self, claims: dict[str, JSON]) -> frozenset[str]:
        for claim in self.scope_claims:
            given = claims.get(claim)
            if isinstance(given, str):
                return frozenset(filter(None, given.split(" ")))
            if isinstance(given, list):
                listed = [each for each in given if isinstance(each, str)]
                if len(listed) != len(given):
                    raise TokenRefused("claims")
                return frozenset(listed)
            if given is not None:
                raise TokenRefused("claims")
        return frozenset()


def _text(claims: dict[str, JSON], claim: str) -> str | None:
    value = claims.get(claim)
    if value is None or isinstance(value, str):
        return value
    raise TokenRefused("claims")


def _moment(claims: dict[str, JSON], claim: str) -> float | None:
    """A NumericDate (RFC 7519, section 2)."""
    value = claims.get(claim)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRefused("claims")
    return float(value)
