"""``AuthMiddleware``: nobody reaches the app without a credential that was verified, and the app sees no credential
that came in a URL or a subprotocol.

Where credentials stand in a request is known to ``wire/credentials.py``, what a refusal says to ``wire/challenge.py``,
whose token it is to a verifier. This module brings them together for one connection.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from ..auth.again import Again
from ..auth.credentials import AuthCredentials
from ..auth.endpoints import MetadataEndpoint, TicketEndpoint
from ..auth.gate import Gate, absent
from ..auth.metadata import ResourceMetadata, checked_url
from ..auth.principal import AnonymousPrincipal, Principal
from ..auth.requirements import Requirements
from ..auth.several import one_verifier
from ..auth.tickets import Tickets
from ..auth.verifier import Verifier
from ..checks import check
from ..clock import LoopClock
from ..observe import NullObserver, Observer
from ..paths import path_within_mount, patterns
from ..record import record_of, tenure_of
from ..stores.board import Board
from ..streams.expiry import Expiry, OnExpiry, expiry_of
from ..streams.inbound import Inbound, has_no_body
from ..streams.pulse import looks_only
from ..streams.refusal import refuse
from ..streams.tenure import OVER, Tenure
from ..streams.tenures import Tenures
from ..types import ASGIApp, Clock, Message, Receive, Scope, Send
from ..wire import credentials, headers
from ..wire.challenge import CLOSE_CODES, INVALID_REQUEST, INVALID_TOKEN, Refusal, close_codes_of
from ..wire.credentials import Credential, CredentialError, Offer, Parameters
from ..wire.denial import WebSocketReject, deny, reject_websocket
from .base import BaseMiddleware, WatchingMiddleware

logger = logging.getLogger("streamware.auth")

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_REALM = re.compile(r"[\x20-\x7E]+")
_WAYS = ("auto", "http", "accept-close")


_check = partial(check, "AuthMiddleware")


class AuthMiddleware(WatchingMiddleware):
    """Verifies who asks, and leaves the principal in ``scope["user"]`` and what it may do in ``scope["auth"]``.

    :param verifier: tells whose token it is, as ``JWTVerifier``.
    :param verifiers: several, asked in turn, in place of ``verifier``: each sees the tokens that those before refuse.
    :param scopes: that a token must have, all of them; or such lists by glob pattern on the path within the mount, of
        which the first match counts. A list is not asked for on optional paths.
    :param optional: patterns of paths where nobody has to show a credential. A bad one is refused there too.
    :param anonymous: makes the principal of who has shown none; ``AnonymousPrincipal`` by default.
    :param cookie: the name of a cookie that holds a token. It needs an ``OriginMiddleware`` outside; without one, only
        pages of the same host are served. ``None`` (default): none.
    :param subprotocol: whether a WebSocket may bring its token as a subprotocol, ``bearer, <token>`` or
        ``base64url.bearer.authorization.k8s.io.<token in base64url>``: the two ways a browser's script has.
    :param query: the name of a query parameter that holds a token. URLs are logged and kept in many places, so RFC 9700
        forbids this; ``None`` (default): none.
    :param tickets: lets pages use a ticket that is good once in place of a token in a URL: ``Tickets(store)``.
    :param ws_reject: how a WebSocket is refused: ``"http"``, by an HTTP response, where the server can;
        ``"accept-close"``, by a close right after the accept, whose code a browser's script can see; ``"auto"``
        (default): the latter where an ``Origin`` says that a browser asks.
    :param close_codes: the codes of such closes by status, in place of 400: 4400, 401: 3000, 403: 3003, 503: 4503.
    :param realm: named in challenges, ``api`` by default.
    :param resource_metadata: named in challenges, and served at its well-known path: a ``ResourceMetadata``; or the URL
        of what is served elsewhere. ``None`` (default): neither.
    :param on_expiry: what becomes of a stream or WebSocket whose token expires: ``"close"`` (default), ``"warn"``,
        ``"ignore"``, or an ``Expiry`` that says more.
    :param board: tells other workers whom to ``disconnect``: any store that they share. ``None`` (default): that of
        ``tickets``, else this worker only.
    :param paths: glob patterns on the path within the mount; ``None`` touches every path.
    :param exclude: patterns of paths to leave alone, looked at after ``paths``.
    :param observer: gets the counters ``auth.refused``, ``auth.ticket``, ``auth.ended``, ``auth.warned``,
        ``auth.reauthenticated``, ``auth.revalidated`` and ``auth.stopped``.
    :param clock: tells the time; ``None``: the event loop's.
    :raises ConfigurationError: an option that cannot work.
    """

    scope_types = frozenset({"http", "websocket"})
    guards = True

    def __init__(
        self,
        app: ASGIApp,
        *,
        verifier: Verifier | None = None,
        verifiers: Iterable[Verifier] | None = None,
        scopes: Iterable[str] | Mapping[str, Iterable[str]] = (),
        optional: Iterable[str] = (),
        anonymous: Callable[[], Principal] = AnonymousPrincipal,
        cookie: str | None = None,
        subprotocol: bool = True,
        query: str | None = None,
        tickets: Tickets | None = None,
        ws_reject: WebSocketReject = "auto",
        close_codes: Mapping[int, int] | None = None,
        realm: str = "api",
        resource_metadata: ResourceMetadata | str | None = None,
        paths: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        on_expiry: OnExpiry | Expiry = "close",
        board: Board | None = None,
        observer: Observer | None = None,
        clock: Clock | None = None,
    ) -> None:
        name = type(self).__name__
        own = [tickets.path] if isinstance(tickets, Tickets) else []
        own += [resource_metadata.path] if isinstance(resource_metadata, ResourceMetadata) else []
        selected = patterns(name, "paths", paths)
        if selected is not None:
            selected += tuple(glob.escape(path) for path in own)
        super().__init__(app, paths=selected, exclude=exclude)
        for path in own:
            _check(path in self.selection, "exclude", exclude, f"without {path!r}, which it answers itself")
        requirements = Requirements(name, scopes, optional)
        _check(callable(anonymous), "anonymous", anonymous, "a class or function without arguments")
        _check(cookie is None or _matches(_NAME, cookie), "cookie", cookie, "the name of a cookie, or None")
        _check(isinstance(subprotocol, bool), "subprotocol", subprotocol, "True or False")
        _check(query is None or _matches(_NAME, query), "query", query, "the name of a parameter, or None")
        _check(tickets is None or isinstance(tickets, Tickets), "tickets", tickets, "a Tickets(store), or None")
        self._ticket = None if tickets is None else tickets.parameter
        _check(query is None or query != self._ticket, "query", query, "another parameter than that of tickets")
        _check(ws_reject in _WAYS, "ws_reject", ws_reject, 'one of "auto", "http" and "accept-close"')
        _check(_matches(_REALM, realm), "realm", realm, "some printable ASCII")
        self._cookie = None if cookie is None else cookie.encode("ascii")
        self._subprotocol = subprotocol
        self._parameters = frozenset(each for each in (query, self._ticket) if each is not None)
        self._ws_reject: WebSocketReject = ws_reject
        self._close_codes = close_codes_of(name, close_codes)
        self._realm = realm
        self._observer = observer = NullObserver() if observer is None else observer
        self._tickets = tickets
        self._issuing = None if tickets is None else TicketEndpoint(tickets, observer)
        self._metadata_url = ""
        self._metadata: MetadataEndpoint | None = None
        self._metadata_path = ""
        if isinstance(resource_metadata, ResourceMetadata):
            methods = ["header"] if query is None else ["header", "query"]
            document = resource_metadata.document(scopes=requirements.named, methods=methods)
            self._metadata_url, self._metadata_path = resource_metadata.url, resource_metadata.path
            self._metadata = MetadataEndpoint(document)
        elif resource_metadata is not None:
            self._metadata_url = checked_url(name, "resource_metadata", resource_metadata)
        #: The scopes that every path asks for alike; None: ``judge`` has to look.
        self._everywhere = requirements.everywhere
        self._clock = clock = LoopClock() if clock is None else clock
        self._gate = Gate(
            verifier=one_verifier(name, verifier, verifiers),
            requirements=requirements,
            tickets=tickets,
            anonymous=anonymous,
            observer=observer,
        )
        self._tenures = Tenures(
            expiry_of(name, on_expiry),
            board=tickets.board if board is None and tickets is not None else board,
            asks=Again(self._gate),
            codes={CLOSE_CODES[status]: self._close_codes[status] for status in (401, 403)},
            clock=clock,
            observer=observer,
        )
        self.options = looks_only(set(), clock=clock, observer=observer)

    # -- those who are in

    def let_in(self, scope: Scope) -> bool:
        """Whether the connection of ``scope`` has come through here, and is open."""
        tenure = tenure_of(scope)
        return isinstance(tenure, Tenure) and tenure.term is self._tenures and tenure.scope is not OVER

    async def disconnect(self, principal: Principal, *, issued_before: float | None = None, stop: bool = False) -> None:
        """End all streams and WebSockets of ``principal``, by its issuer and subject, in every worker that shares the
        ``board``. Its token is as good as it was: revoke it, or its clients come back with it.

        :param issued_before: in seconds since 1970; only connections whose token was issued before then are ended, or
            does not say when. ``None`` (default): all.
        :param stop: stop what its streams produce as well, as by DELETE on their URLs; else they go on for as long as
            their ``linger`` says.
        :raises ValueError: ``principal`` is nobody.
        :raises StoreError: other workers may not have heard of it. Here all were ended.
        """
        await self._tenures.disconnect(principal, before=issued_before, stop=stop)

    async def reauthenticate(self, scope: Scope, token: str) -> Principal:
        """Let the connection of ``scope`` go on with a newer ``token``, to which its end moves. The principal in the
        scope is changed in place, and returned.

        :raises TokenRefused: it is not good, another principal's, or does not allow what the path asks for. The
            connection goes on as it was.
        :raises VerifierUnavailable: that cannot be told now. The connection goes on as it was.
        :raises ValueError: ``scope`` has not come through here, or its connection has ended.
        """
        tenure = tenure_of(scope)
        if not isinstance(tenure, Tenure) or not self.let_in(scope):
            raise ValueError("the scope has not come through this AuthMiddleware, or its connection has ended")
        principal = await Again(self._gate).renew(tenure.scope, tenure.holder, token)
        self._observer.count("auth.reauthenticated", reason="good")
        self._tenures.renew(tenure, token)
        return principal

    # -- lifecycle

    async def startup(self) -> None:
        await self._gate.verifier.startup()
        if self._tickets is not None:
            await self._tickets.startup()
        await self._tenures.startup()

    async def shutdown(self) -> None:
        return None  # nothing of its own runs

    async def aclose(self) -> None:
        await self._tenures.aclose()
        if self._tickets is not None:
            await self._tickets.aclose()
        await self._gate.verifier.aclose()

    def encloses(self, within: Sequence[BaseMiddleware]) -> None:
        # One look at a response does for all, and whoever has it further in can write what is compressed further out.
        self.delegated = any(isinstance(inner, WatchingMiddleware) and inner.looks_everywhere for inner in within)

    @property
    def needs_record(self) -> bool:
        return self._cookie is not None or bool(self._parameters)

    # -- one connection

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        http: bool = scope["type"] == "http"
        parameters = credentials.NO_PARAMETERS
        if self._parameters and (query := scope.get("query_string")):
            parameters = credentials.read_parameters(query, self._parameters)
            if parameters.found:
                _redact(scope, parameters.rest)
                send = _unstored(send) if http else send
        if http:
            if self._metadata is not None and path_within_mount(scope) == self._metadata_path:
                await self._metadata(scope, receive, send)
                return
            if scope["method"] == "OPTIONS" and headers.is_preflight(scope):
                nobody = self._gate.anonymous()
                await self.app({**scope, "user": nobody, "auth": AuthCredentials(nobody)}, receive, send)
                return
        offer = credentials.NO_OFFER
        try:
            token = credentials.authorization(scope["headers"])
            if not http and self._subprotocol and (offered := scope.get("subprotocols")):
                offer = credentials.read_offer(offered)
            if self._cookie is None and not offer.tokens and not parameters.found:
                credential = None if token is None else Credential(token, credentials.HEADER)
            else:
                credential = self._shown(scope, token, offer, parameters)
        except CredentialError as error:
            await self._refuse(scope, receive, send, _unreadable(error))
            return

        gate = self._gate
        principal = None if credential is None else gate.recall(credential)
        shown = "" if credential is None else credential.text
        if principal is None:
            found = await gate.identify(scope, credential)
            if isinstance(found, Refusal):
                await self._refuse(scope, receive, send, found)
                return
            principal, shown = found
        needed = self._everywhere
        refusal = None
        if needed is None or self._cookie is not None or not needed <= principal.scopes:
            refusal = gate.judge(scope, principal, credential)
        if refusal is None and self._issuing is not None and http and path_within_mount(scope) == self._issuing.path:
            refusal = await self._issue(self._issuing, scope, receive, send, principal, credential)
            if refusal is None:
                return
        if refusal is not None:
            await self._refuse(scope, receive, send, refusal)
            return

        if offer.tokens:
            scope = credentials.with_subprotocols(scope, offer.others)
            send = send if offer.marker is None else _answering(send, offer.marker)
        # What an outer middleware left there, of another user say, is gone.
        scope = {**scope, "user": principal, "auth": AuthCredentials(principal)}
        app = self.look_out if http and not self.delegated else self.app
        await self._tenures.serve(app, scope, receive, send, principal, shown)

    def _shown(self, scope: Scope, token: str | None, offer: Offer, parameters: Parameters) -> Credential | None:
        """The one credential of the request, wherever it stands."""
        shown = [] if token is None else [Credential(token, credentials.HEADER)]
        if self._cookie is not None:
            found = credentials.cookies(scope["headers"], self._cookie)
            shown += [Credential(each, credentials.COOKIE) for each in found]
        shown += [Credential(each, credentials.SUBPROTOCOL) for each in offer.tokens]
        for name, values in parameters.found.items():
            source = credentials.TICKET if name == self._ticket else credentials.QUERY
            shown += [Credential(each, source) for each in values]
        return credentials.one_of(shown)

    async def _issue(
        self,
        endpoint: TicketEndpoint,
        scope: Scope,
        receive: Receive,
        send: Send,
        principal: Principal,
        credential: Credential | None,
    ) -> Refusal | None:
        if credential is None:
            return Refusal(401, absent(scope))
        if credential.source != credentials.HEADER:
            return Refusal(400, "ticket_needs_header", INVALID_REQUEST)
        return await endpoint(scope, receive, send, principal, credential.text)

    # -- refusals

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
        self._observer.count("auth.refused", reason=refusal.reason)
        logger.info("%s %r refused: %s", scope["type"], scope["path"], refusal.reason)
        denial = refusal.denial(self._realm, self._metadata_url)
        # The client may leave meanwhile, of which some servers tell by raising.
        with contextlib.suppress(OSError):
            if scope["type"] == "websocket":
                subprotocol = credentials.harmless(scope.get("subprotocols") or ())
                code = self._close_codes[refusal.status]
                await reject_websocket(
                    scope, receive, send, denial, how=self._ws_reject, code=code, subprotocol=subprotocol
                )
                return
            soft = refusal.status == 503
            if has_no_body(scope):
                await deny(scope, send, denial, soft=soft)
                return
            await refuse(scope, Inbound(scope, receive), send, denial, self._clock, soft=soft)


def _unreadable(error: CredentialError) -> Refusal:
    if error.reason == "too_large":
        return Refusal(401, error.reason, INVALID_TOKEN)
    return Refusal(400, error.reason, INVALID_REQUEST)


def _redact(scope: Scope, query: bytes) -> None:
    """Take the credentials out of the query in place, also where the server will look: servers write their access logs
    from the very scope that they made."""
    scope["query_string"] = query
    record = record_of(scope)
    if record is not None and record.server_scope is not None:
        record.server_scope["query_string"] = query


def _unstored(send: Send) -> Send:
    """``send``, whose answer no cache keeps: it belongs to a URL that held a credential."""

    async def write(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": headers.no_store(message.get("headers") or ())}
        await send(message)

    return write


def _answering(send: Send, marker: str) -> Send:
    """``send``, which accepts with the subprotocol ``marker`` where the app names none: browsers fail a connection that
    offered some and got none."""

    async def accept(message: Message) -> None:
        if message["type"] == "websocket.accept" and not message.get("subprotocol"):
            message = {**message, "subprotocol": marker}
        await send(message)

    return accept


def _matches(pattern: re.Pattern[str], given: object) -> bool:
    return isinstance(given, str) and pattern.fullmatch(given) is not None
