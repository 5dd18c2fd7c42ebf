"""``IssuerVerifier``: several issuers side by side.

Which one a token is for is told by its own ``iss``, which anybody can write. So it is only ever looked up in a dict of
the issuers that are configured: an unknown one is refused there, nothing is fetched for it, and the verifier that it
leads to checks the token as if it stood alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from ..checks import check
from ..exceptions import ConfigurationError
from .cache import token_hash
from .jwt import JWTVerifier
from .principal import Principal
from .token import MAX_TOKEN, unverified_issuer
from .verifier import TokenRefused, Verifier


@runtime_checkable
class _Hashed(Protocol):
    """A verifier whose memory goes by the token's hash, so that several need only one."""

    def recall_hashed(self, digest: bytes) -> Principal | None: ...

    def forget(self, principal: Principal) -> None: ...


class IssuerVerifier:
    """Hands each token to the verifier of its issuer.

    :param verifiers: of JWTs, one for each issuer.
    :param opaque: for tokens that are no JWT of an issuer above, as an ``IntrospectionVerifier``; ``None``: these are
        refused. A JWT whose issuer is unknown is refused in any case, unless ``unknown_to_opaque``.
    :param unknown_to_opaque: hand JWTs of other issuers to ``opaque`` as well.
    :raises ConfigurationError: no verifier, or two of one issuer.
    """

    def __init__(
        self, verifiers: Iterable[JWTVerifier], *, opaque: Verifier | None = None, unknown_to_opaque: bool = False
    ) -> None:
        owner = type(self).__name__
        given = list(verifiers)
        check(owner, bool(given), "verifiers", given, "a list of JWTVerifier, not empty")
        for verifier in given:
            check(owner, isinstance(verifier, JWTVerifier), "verifiers", verifier, "a list of JWTVerifier")
        check(owner, opaque is None or hasattr(opaque, "verify"), "opaque", opaque, "a verifier, or None")
        check(
            owner,
            not unknown_to_opaque or opaque is not None, "unknown_to_opaque", unknown_to_opaque, "False without opaque",
        )  # fmt: skip
        self._by_issuer = {verifier.issuer: verifier for verifier in given}
        if len(self._by_issuer) != len(given):
            issuers = sorted(verifier.issuer for verifier in given)
            raise ConfigurationError.option(owner, "verifiers", issuers, "one for each issuer")
        self._opaque = opaque
        self._unknown_to_opaque = unknown_to_opaque
        self._all: list[Verifier] = [*given, *([] if opaque is None else [opaque])]
        self._hashed = [verifier for verifier in self._all if isinstance(verifier, _Hashed)]
        self._others = [verifier for verifier in self._all if not isinstance(verifier, _Hashed)]

    def recall(self, token: str) -> Principal | None:
        if len(token) > MAX_TOKEN:
            return None
        digest = token_hash(token)
        for verifier in self._hashed:
            if (principal := verifier.recall_hashed(digest)) is not None:
                return principal
        for other in self._others:
            if (principal := other.recall(token)) is not None:
                return principal
        return None

    async def verify(self, token: str, *, client: str = "") -> Principal:
        """The principal of ``token``, as its issuer's verifier says.

        :raises TokenRefused: it is not good, or of no issuer that is known here.
        :raises VerifierUnavailable: that cannot be told now.
        """
        issuer = unverified_issuer(token)
        verifier: Verifier | None = self._opaque
        if issuer is not None:
            verifier = self._by_issuer.get(issuer) or (self._opaque if self._unknown_to_opaque else None)
        if verifier is None:
            raise TokenRefused("issuer" if issuer is not None else "malformed")
        return await verifier.verify(token, client=client)

    def forget(self, principal: Principal) -> None:
        """Verify its token anew when it comes again, whosever it is."""
        for verifier in self._hashed:
            verifier.forget(principal)

    async def startup(self) -> None:
        for verifier in self._all:
            await verifier.startup()

    async def aclose(self) -> None:
        for verifier in self._all:
            await verifier.aclose()
