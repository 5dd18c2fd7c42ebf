"""``AuthMiddleware``: nobody reaches the app without a credential that was verified."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..auth.credentials import AuthCredentials
from ..auth.principal import Principal
from ..auth.verifier import TokenRefused, Verifier, VerifierUnavailable
from ..exceptions import ConfigurationError
from ..observe import NullObserver, Observer
from ..types import ASGIApp, Receive, Scope, Send
from ..wire import headers
from ..wire.denial import Denial, deny, deny_websocket
from .base import BaseMiddleware

logger = logging.getLogger("streamware.auth")


class AuthMiddleware(BaseMiddleware):
    """Verifies who asks, and leaves the principal in ``scope["user"]`` and what it may do in ``scope["auth"]``.

    :param verifier: tells whose token it is.
    :param realm: named in the challenge of a refusal.
    :param paths: glob patterns on the path within the mount; ``None`` touches every path.
    :param exclude: patterns of paths to leave alone, looked at after ``paths``.
    :param observer: gets the counter ``auth.refused``.
    """

    scope_types = frozenset({"http", "websocket"})

    def __init__(
        self,
        app: ASGIApp,
        *,
        verifier: Verifier,
        realm: str = "",
        paths: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(app, paths=paths, exclude=exclude)
        if not callable(getattr(verifier, "recall", None)) or not callable(getattr(verifier, "verify", None)):
            raise ConfigurationError.option("AuthMiddleware", "verifier", verifier, "a verifier, as JWTVerifier(…)")
        self._verifier = verifier
        self._realm = realm
        self._observer = NullObserver() if observer is None else observer

    async def startup(self) -> None:
        await self._verifier.startup()

    async def shutdown(self) -> None:
        return None

    async def aclose(self) -> None:
        await self._verifier.aclose()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS" and headers.is_preflight(scope):
            await self.app(scope, receive, send)
            return
        given = headers.get_all(scope["headers"], b"authorization")
        if not given:
            await self._refuse(scope, send, 401, "missing", b"")
            return
        scheme, _, value = given[0].partition(b" ")
        if len(given) > 1 or scheme.lower() != b"bearer":
            await self._refuse(scope, send, 400, "malformed", b"invalid_request")
            return
        token = value.strip().decode("latin-1")
        principal = self._verifier.recall(token)
        if principal is None:
            client = scope.get("client")
            try:
                principal = await self._verifier.verify(token, client=str(client[0]) if client else "")
            except TokenRefused as refused:
                await self._refuse(scope, send, 401, refused.reason, b"invalid_token")
                return
            except VerifierUnavailable as away:
                await self._refuse(scope, send, 503, away.reason, b"", away.retry_after)
                return
        scope = {**scope, "user": principal, "auth": AuthCredentials(principal)}
        await self._serve(scope, receive, send, principal)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, principal: Principal) -> None:
        """Run the app for one connection, whose principal is known and may do what it asks for."""
        await self.app(scope, receive, send)

    async def _refuse(
        self, scope: Scope, send: Send, status: int, reason: str, error: bytes, retry_after: float | None = None
    ) -> None:
        self._observer.count("auth.refused", reason=reason)
        challenge = b"Bearer" + (b' error="%s"' % error if error else b"")
        lines = () if status == 503 else ((b"www-authenticate", challenge),)
        denial = Denial(status, "Unauthorized", retry_after=retry_after, headers=lines)
        if scope["type"] == "websocket":
            await deny_websocket(scope, send, denial)
        else:
            await deny(scope, send, denial, soft=status == 503)
