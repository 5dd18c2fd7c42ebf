"""``JWTVerifier``: access tokens that prove themselves (RFC 7519, RFC 9068, RFC 8725).

The order of a verification: form (``token.py``), key (``jwks.py``, ``keys.py``), signature, claims (``claims.py``),
revocation. It costs a tenth of a millisecond at most, so it runs on the loop; a thread would cost more than it saves.
Whatever goes wrong on the way leaves as ``TokenRefused`` or ``VerifierUnavailable``.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..checks import check
from ..clock import LoopClock
from ..observe import NullObserver, Observer
from ..types import Clock
from . import options
from .cache import VerifiedCache, token_hash
from .claims import MAX_LEEWAY, ClaimRules
from .fetch import Fetch
from .jwks import MIN_AGE
from .principal import Principal
from .token import IGNORABLE, MAX_HEADER, MAX_TOKEN, TokenParser, claims_of
from .verifier import TokenRefused, VerifierUnavailable

if TYPE_CHECKING:
    from .given import Given

logger = logging.getLogger("streamware.auth")

#: What is accepted where ``algorithms`` is left out. Never a symmetric one: a secret has to be asked for.
DEFAULT_ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
MIN_COOLDOWN = 10.0
#: What each profile wants to be there. "strict": RFC 9068, section 2.2.
ESSENTIAL = {
    "strict": frozenset({"iss", "aud", "exp", "sub", "iat", "jti", "client_id"}),
    "lenient": frozenset({"iss", "aud", "exp"}),
}
#: The media types that each profile accepts as ``typ``, without "application/" (RFC 7515, section 4.1.9). An ID token,
#: a logout token or a DPoP proof is no access token, whoever signed it.
TYPES: Mapping[str, frozenset[str | None]] = {
    "strict": frozenset({"at+jwt"}),
    "lenient": frozenset({"at+jwt", "jwt", None}),
}

#: Tells whether a token that verified was revoked, synchronously or not.
Revoked = Callable[[Principal], bool | Awaitable[bool]]


class JWTVerifier:
    """Verifies JWT access tokens of one issuer.

    Keys come from ``jwks`` or ``key``; with neither, from the issuer's own metadata (RFC 8414, then OpenID Connect).

    :param issuer: what ``iss`` has to be, to the letter.
    :param audience: of which ``aud`` has to name one: one name, or several.
    :param jwks: the key set: an ``https`` URL, a set as a dict, or the ``Path`` of a file with one, which is read again
        when it may have changed.
    :param key: one key or several: PEM, JWK, a key of joserfc; for HMAC a secret of 32 bytes or more.
    :param metadata: URL of the issuer's metadata, where they are not at the well-known places.
    :param algorithms: the values of ``alg`` that are accepted; RS256, PS256, ES256 and EdDSA (under both names) unless
        given. HMAC (HS256 …) only by itself, and with ``key``.
    :param profile: "strict" (default): RFC 9068, so ``typ`` is ``at+jwt``, and iss, aud, exp, sub, iat, jti and
        client_id are there; "lenient": iss, aud and exp, and ``typ`` may be ``JWT`` or absent.
    :param required: claims that have to be there besides.
    :param scope_claims: the claims that may hold scopes, of which the first that is there counts.
    :param leeway: seconds that this clock and the issuer's may differ by; 10 by default, 300 at most.
    :param strict_header: refuse header members that are not registered; ``False`` ignores them, as some issuers need.
    :param max_header: longest header, in characters of the token; 1024 by default, more where ``x5c`` is sent.
    :param ignored_header: of ``x5c``, ``x5u`` and ``jku``, those that may stand in a header. They are never used.
    :param revoked: asked of each token that verified, at most once in ``cache_ttl``; may be async. If it fails, the
        token cannot be verified now.
    :param cache_size: tokens that are remembered as verified, 4096 by default.
    :param cache_ttl: seconds for which, 60 by default, and never past ``exp``; 0: none is.
    :param cooldown: seconds between fetches of keys that tokens with unknown key ids set off; 10 at least.
    :param max_age: seconds for which keys are used without a new fetch at most, whatever the issuer says; 3600.
    :param stale: seconds for which they are used beyond that while the issuer cannot be reached; 6 hours.
    :param require_at_startup: ``startup`` waits for the keys, and fails without them. By default it does not wait.
    :param fetch: asks for keys; ``None``: an ``HTTPFetch``, which wants the extra ``oauth``.
    :param timeout: seconds for one fetch, 5 by default.
    :param insecure: allow ``http`` to loopback addresses, for tests.
    :param observer: gets the counters ``auth.keys_fetched``, ``auth.keys_failed`` and ``auth.key_skipped``.
    :param clock: tells monotonic time; ``None``: the event loop's.
    :param wall: tells the seconds since 1970.
    :raises ConfigurationError: an option makes no sense, or a package is missing.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str | Iterable[str],
        jwks: str | Path | Mapping[str, object] | None = None,
        key: Given | None = None,
        metadata: str | None = None,
        algorithms: Iterable[str] = DEFAULT_ALGORITHMS,
        profile: Literal["strict", "lenient"] = "strict",
        required: Iterable[str] = (),
        scope_claims: Iterable[str] = ("scope", "scp"),
        leeway: float = 10.0,
        strict_header: bool = True,
        max_header: int = MAX_HEADER,
        ignored_header: Iterable[str] = (),
        revoked: Revoked | None = None,
        cache_size: int = 4096,
        cache_ttl: float = 60.0,
        cooldown: float = MIN_COOLDOWN,
        max_age: float = 3600.0,
        stale: float = 6 * 3600.0,
        require_at_startup: bool = False,
        fetch: Fetch | None = None,
        timeout: float = 5.0,
        insecure: bool = False,
        observer: Observer | None = None,
        clock: Clock | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        from .keys import ALGORITHMS, SYMMETRIC, signed_by
        from .sources import KeyOptions, keys_of

        self._owner = owner = type(self).__name__
        self.issuer = options.text(owner, "issuer", issuer, "the issuer's identifier, as tokens have it")
        audiences = options.names(owner, "audience", audience, "who this service is to the issuer")
        allowed = options.names(owner, "algorithms", algorithms, "a list of algorithms, as ['RS256']")
        check(owner, allowed <= ALGORITHMS.keys(), "algorithms", sorted(allowed), "signatures that joserfc knows")
        check(
            owner, allowed <= SYMMETRIC or not allowed & SYMMETRIC,
            "algorithms", sorted(allowed), "HMAC only or none of it: a public key is no secret",
        )  # fmt: skip
        check(owner, profile in ESSENTIAL, "profile", profile, '"strict" or "lenient"')
        wanted = options.names(owner, "required", required) if required else frozenset[str]()
        scopes = options.ordered(owner, "scope_claims", scope_claims, "names of claims")
        ignored = frozenset(ignored_header)
        check(owner, ignored <= IGNORABLE, "ignored_header", sorted(ignored), f"of {sorted(IGNORABLE)}")
        check(owner, isinstance(strict_header, bool), "strict_header", strict_header, "True or False")
        check(owner, revoked is None or callable(revoked), "revoked", revoked, "a callable, or None")
        self._types = TYPES[profile]
        self._parser = TokenParser(
            allowed,
            max_header=min(options.count(owner, "max_header", max_header, least=64), MAX_TOKEN),
            strict=strict_header,
            ignored=ignored,
        )
        self._rules = ClaimRules(
            issuer=issuer,
            audiences=audiences,
            essential=ESSENTIAL[profile] | wanted,
            leeway=options.seconds(owner, "leeway", leeway, most=MAX_LEEWAY),
            scope_claims=scopes,
        )
        self._revoked = revoked
        self._require = require_at_startup
        self._observer = NullObserver() if observer is None else observer
        self._clock = LoopClock() if clock is None else clock
        self._wall = wall
        self._cache = VerifiedCache(
            options.count(owner, "cache_size", cache_size),
            options.seconds(owner, "cache_ttl", cache_ttl),
            self._clock.now,
            wall,
        )
        keys = KeyOptions(
            owner=owner,
            issuer=issuer,
            algorithms=allowed,
            cooldown=options.seconds(owner, "cooldown", cooldown, least=MIN_COOLDOWN),
            max_age=options.seconds(owner, "max_age", max_age, least=MIN_AGE),
            stale=options.seconds(owner, "stale", stale),
            timeout=options.seconds(owner, "timeout", timeout, least=0.1),
            insecure=insecure,
            clock=self._clock,
            observer=self._observer,
        )
        given = [name for name, value in (("jwks", jwks), ("key", key), ("metadata", metadata)) if value is not None]
        check(owner, len(given) <= 1, "jwks, key and metadata", given, "one of these, or none of them")
        self._keys, self._own_fetch = keys_of(keys, jwks, key, metadata, fetch)
        self._signed_by = signed_by

    def __repr__(self) -> str:
        return f"{self._owner}(issuer={self.issuer!r})"

    def recall(self, token: str) -> Principal | None:
        """The principal of a token that was verified of late."""
        return self._cache.recall(token)

    def recall_hashed(self, digest: bytes) -> Principal | None:
        """The same by the token's SHA-256."""
        return self._cache.find(digest)

    def forget(self, principal: Principal) -> None:
        """Verify its token anew when it comes again: at a logout, after a revocation."""
        self._cache.forget(principal.token_hash)

    async def verify(self, token: str, *, client: str = "") -> Principal:
        """The principal of ``token``. ``client`` is of no interest: a forged token costs a fraction of a millisecond
        here, and nothing elsewhere.

        :raises TokenRefused: it is not good.
        :raises VerifierUnavailable: there are no keys to tell, or ``revoked`` failed.
        """
        try:
            if len(token) > MAX_TOKEN:
                raise TokenRefused("size")
            digest = token_hash(token)
            known = self._cache.find(digest)
            if known is not None:
                return known
            compact = self._parser.parse(token)
            if _media_type(compact.header.get("typ")) not in self._types:
                raise TokenRefused("type")
            checks = self._keys.find(compact) or await self._keys.seek(compact)
            if not self._signed_by(compact, checks):
                raise TokenRefused("nonce" if "nonce" in compact.header else "signature")
            verified = self._rules.verified(claims_of(compact.payload), self._wall(), digest)
            if self._revoked is not None:
                await self._check_revoked(self._revoked, verified.principal())
            self._cache.remember(verified)
            return verified.principal()
        except (TokenRefused, VerifierUnavailable):
            raise
        except Exception as error:
            # Nothing is known that ends here. A token must never be what fails a request, nor what gets through.
            logger.error("a token could not be verified: %s", type(error).__name__)
            self._observer.count("auth.unexpected", reason=type(error).__name__)
            raise TokenRefused("unexpected") from None

    async def startup(self) -> None:
        """Begin to fetch keys; wait for them where ``require_at_startup``.

        :raises VerifierUnavailable: waited in vain.
        """
        await self._keys.startup(wait=self._require)

    async def aclose(self) -> None:
        """End fetches, close connections."""
        await self._keys.aclose()
        if self._own_fetch is not None:
            await self._own_fetch.aclose()

    async def _check_revoked(self, revoked: Revoked, principal: Principal) -> None:
        try:
            answer = revoked(principal)
            if inspect.isawaitable(answer):
                answer = await answer
        except Exception as error:
            logger.error("revoked= failed: %s", type(error).__name__)
            raise VerifierUnavailable("revocation") from None
        if answer:
            raise TokenRefused("revoked")


def _media_type(typ: object) -> str | None:
    """``typ`` as media types compare; "" for what is none."""
    if typ is None:
        return None
    return typ.lower().removeprefix("application/") if isinstance(typ, str) else ""
