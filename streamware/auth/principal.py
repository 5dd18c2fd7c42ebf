"""Who a request was authenticated as.

One object in the shape that each framework expects of its user: Starlette's ``BaseUser``, Django's ``is_anonymous`` and
``pk``, Channels' assignable attributes. It is made anew for every request, for Channels writes to what it finds in the
scope: what one request does to its principal is nobody else's to see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

_NO_CLAIMS: Mapping[str, object] = MappingProxyType({})


class Principal:
    """Who asks. Attributes may be added to it, as Channels does.

    ``issuer`` and ``subject`` say who, together; ``scopes`` what the token allows; ``claims`` all that it says, not to
    be changed; ``client_id`` the OAuth client, "" where the token names none; ``expires_at`` in seconds since 1970,
    None for never; ``token_hash`` the SHA-256 of the token, as a handle that reveals nothing.
    """

    def __init__(
        self,
        *,
        issuer: str = "",
        subject: str = "",
        scopes: Iterable[str] = (),
        claims: Mapping[str, object] = _NO_CLAIMS,
        client_id: str = "",
        expires_at: float | None = None,
        token_hash: bytes = b"",
    ) -> None:
        self.issuer = issuer
        self.subject = subject
        self.scopes = scopes if isinstance(scopes, frozenset) else frozenset(scopes)
        self.claims = claims
        self.client_id = client_id
        self.expires_at = expires_at
        self.token_hash = token_hash

    @property
    def is_authenticated(self) -> bool:
        """True for everybody but the anonymous."""
        return True

    @property
    def is_anonymous(self) -> bool:
        """The opposite of ``is_authenticated``, as Django has it."""
        return not self.is_authenticated

    @property
    def is_active(self) -> bool:
        """As ``is_authenticated``: a verified token is one of an active user."""
        return self.is_authenticated

    @property
    def display_name(self) -> str:
        """A name to show: the claim ``name``, ``preferred_username`` or ``email``, else the subject."""
        for claim in ("name", "preferred_username", "email"):
            value = self.claims.get(claim)
            if isinstance(value, str) and value:
                return value
        return self.subject

    @property
    def identity(self) -> str:
        """The subject, as Starlette calls it."""
        return self.subject

    @property
    def pk(self) -> None:
        """None: it is no row of a database."""
        return None

    def renew(self, newer: Principal) -> None:
        """Have what a newer token of the same holder says, in place: whoever holds this object sees it."""
        self.scopes = newer.scopes
        self.claims = newer.claims
        self.client_id = newer.client_id
        self.expires_at = newer.expires_at
        self.token_hash = newer.token_hash

    def has_scopes(self, *scopes: str) -> bool:
        """Whether the token allows all of these."""
        return self.scopes.issuperset(scopes)

    def __str__(self) -> str:
        return self.display_name

    def __repr__(self) -> str:
        """Without the claims, which are personal data."""
        return f"{type(self).__name__}(issuer={self.issuer!r}, subject={self.subject!r})"


class AnonymousPrincipal(Principal):
    """Nobody that is known: on paths where a credential is optional, and none was given."""

    @property
    def is_authenticated(self) -> bool:
        return False
