"""Who is let in: from a credential to a principal, or to the reason why not.

Whatever a credential is, and whatever a verifier does with it, the outcome is one of these two: nothing that a request
says can raise an exception here.
"""

from __future__ import annotations

import logging
import random
import traceback
from collections.abc import Callable

from ..exceptions import StoreError
from ..observe import Observer, OnceLog
from ..paths import path_within_mount
from ..record import record_of
from ..types import Scope
from ..wire import cross_origin, headers
from ..wire.challenge import INSUFFICIENT_SCOPE, INVALID_TOKEN, Refusal
from ..wire.credentials import COOKIE, HEADER, TICKET, Credential, is_printable
from ..wire.origins import OriginSet
from .endpoints import STORE_RETRY
from .principal import Principal
from .requirements import Requirements
from .tickets import Tickets
from .verifier import TokenRefused, Verifier, VerifierUnavailable

logger = logging.getLogger("streamware.auth")

_NO_ORIGIN_CHECK = (
    "AuthMiddleware takes a cookie for a credential, which browsers send with the requests of any site's pages, and no "
    "OriginMiddleware outside it has judged where they come from: none but pages of the same host are served"
)
_NONE_LISTED = OriginSet("AuthMiddleware", "allow", ())
_SINGLE = (b"origin", b"host", b"sec-fetch-site")


class Gate:
    """The decisions of one ``AuthMiddleware``, whose options these are."""

    def __init__(
        self,
        *,
        verifier: Verifier,
        requirements: Requirements,
        tickets: Tickets | None,
        anonymous: Callable[[], Principal],
        observer: Observer,
    ) -> None:
        self.verifier = verifier
        self.anonymous = anonymous
        self._requirements = requirements
        self._everywhere = requirements.everywhere
        self._tickets = tickets
        self._observer = observer
        self._advice = OnceLog(logger)

    def recall(self, credential: Credential) -> Principal | None:
        """Who shows a credential that needs no waiting for anybody; None where ``identify`` has to tell."""
        if credential.source == TICKET:
            return None
        try:
            return self.verifier.recall(credential.text)
        except Exception as error:
            self._report("The verifier", error)
            return None

    async def identify(self, scope: Scope, credential: Credential | None) -> tuple[Principal, str] | Refusal:
        """Who shows this credential, or none, and the token that it is, or stands for; "" where there is none."""
        if credential is None:
            path = path_within_mount(scope)
            if self._requirements.is_optional(path):
                return self.anonymous(), ""
            return Refusal(401, absent(scope), scopes=tuple(sorted(self._requirements.of(path))))
        if credential.source == TICKET and self._tickets is not None:
            return await self._redeem(self._tickets, scope, credential.text)
        found = await self.verify(scope, credential.text)
        return found if isinstance(found, Refusal) else (found, credential.text)

    def judge(self, scope: Scope, principal: Principal, credential: Credential | None) -> Refusal | None:
        """Why a known principal may not do what it asks for; None where it may."""
        if credential is not None and credential.source == COOKIE:
            record = record_of(scope)
            if record is not None:
                record.ambient = True
            if record is None or not record.origin_checked:
                self._advice.warning("origin", _NO_ORIGIN_CHECK)
                if not from_own_pages(scope):
                    return Refusal(403, "cross_site")
        needed = self._everywhere
        if needed is None:
            needed = self._requirements.of(path_within_mount(scope))
        if needed and not needed <= principal.scopes:
            return Refusal(403, "scope", INSUFFICIENT_SCOPE, tuple(sorted(needed)))
        return None

    async def verify(self, scope: Scope, token: str) -> Principal | Refusal:
        """Whose ``token`` is, as the verifier says."""
        if not is_printable(token):
            return Refusal(401, "malformed", INVALID_TOKEN)
        client = scope.get("client")
        try:
            return await self.verifier.verify(token, client=str(client[0]) if client else "")
        except TokenRefused as refused:
            return Refusal(401, refused.reason, INVALID_TOKEN)
        except VerifierUnavailable as away:
            # Not all at once, when it is back.
            return Refusal(503, away.reason, retry_after=away.retry_after * random.uniform(1.0, 1.5))
        except Exception as error:
            self._report("The verifier", error)
            return Refusal(401, "verifier_failed", INVALID_TOKEN)

    async def _redeem(self, tickets: Tickets, scope: Scope, ticket: str) -> tuple[Principal, str] | Refusal:
        origin = headers.combined(scope["headers"], b"origin")
        site = headers.combined(scope["headers"], b"sec-fetch-site")
        try:
            token = await tickets.redeem(
                ticket,
                paths={scope["path"], path_within_mount(scope)},
                origin=None if origin is None else origin.decode("latin-1"),
                same_origin=site in (None, b"same-origin", b"none"),
            )
        except TokenRefused as refused:
            return Refusal(401, refused.reason, INVALID_TOKEN)
        except Exception as error:
            if not isinstance(error, StoreError):
                self._report("Tickets' store", error)
            return Refusal(503, "ticket_store", retry_after=STORE_RETRY)
        # Verified as if it came in the header: what became of it since the ticket was issued shows here.
        found = self.recall(Credential(token, HEADER)) or await self.verify(scope, token)
        if isinstance(found, Refusal):
            return found
        try:
            good = await tickets.still_good(found)
        except Exception as error:
            self._report("Tickets' revoked=", error)
            return Refusal(503, "revocation", retry_after=STORE_RETRY)
        if not good:
            return Refusal(401, "revoked", INVALID_TOKEN)
        self._observer.count("auth.ticket", reason="redeemed")
        return found, token

    def _report(self, what: str, error: Exception) -> None:
        # Without its text, which may quote the token.
        where = "".join(traceback.format_tb(error.__traceback__))
        logger.error("%s raised %s, which lets nobody in:\n%s", what, type(error).__qualname__, where)


def absent(scope: Scope) -> str:
    """Why there is no credential: the request has none, or one of another scheme than Bearer."""
    return "missing" if headers.get(scope["headers"], b"authorization") is None else "scheme"


def from_own_pages(scope: Scope) -> bool:
    """Whether a request that brings a cookie was made by a page of the same host, as far as a browser tells; where
    none does, whether it changes nothing."""
    given = scope["headers"]
    if any(len(headers.get_all(given, name)) > 1 for name in _SINGLE):
        return False
    found = {name.lower(): value for name, value in given}
    websocket = scope["type"] == "websocket"
    scheme = scope.get("scheme") or ("ws" if websocket else "http")
    relation = cross_origin.relate(found.get(b"origin"), found.get(b"host"), scheme, _NONE_LISTED)
    if relation is cross_origin.Relation.SCHEME:
        return True  # a proxy ends TLS, and nobody was told
    reason = cross_origin.decide(
        relation, None if websocket else scope["method"], found, lambda: True, absent="safe", navigations=True
    )
    return reason == cross_origin.ALLOWED
