"""``OriginMiddleware``: who may ask from a browser, under which host, and over what.

This module reads a request's head once, asks ``wire/cross_origin.py`` and ``wire/transport.py``, and refuses or lets
pass; ``wire/cors.py`` writes what pages of other origins need to read an answer. Scheme and ``Host`` are those of the
scope, as ``ClientIPMiddleware`` has resolved them: no ``X-Forwarded-*`` is looked at here.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterable, Mapping
from functools import partial
from typing import Literal, cast

from ..checks import check, is_whole
from ..observe import NullObserver, Observer, OnceLog
from ..record import record_of
from ..streams.resource import PARAMETER
from ..types import ASGIApp, Message, RawHeaders, Receive, Scope, Send
from ..wire import cross_origin, transport
from ..wire import headers as raw
from ..wire.answer import answer
from ..wire.cors import Answers, CORSOptions
from ..wire.cross_origin import ACCEPTED, AUTHORIZATION, CERTIFICATE, COOKIE, Absent, Relation
from ..wire.denial import EVENT_STREAM, Denial, deny, deny_websocket
from ..wire.origins import HostSet, OriginSet
from ..wire.transport import HSTSOptions
from .base import BaseMiddleware

logger = logging.getLogger("streamware.origin")

#: So many combinations of scheme, host and origin are remembered, none longer than so many bytes.
REMEMBERED = 1024
REMEMBERED_BYTES = 512

#: Where one of these stands twice, nobody can say which of them the app would go by.
_SINGLE = (b"origin", b"host", b"sec-fetch-site")

_KINDS = (COOKIE, AUTHORIZATION, CERTIFICATE)
_NOT_ALLOWED = Denial(403, "The request may not come from here")
_INSECURE = Denial(403, "HTTPS is required")
_ADVISED = 16


_check = partial(check, "OriginMiddleware")


class OriginMiddleware(BaseMiddleware):
    """Refuses what pages of origins ask that are neither the server's own nor listed: HTTP, streams and WebSockets.

    See docs/middleware/origin.md for the rules and the reasons of refusals; in short, by option:

    :param allow: origins beside the server's own, as ``https://chat.example``; ``https://*.example.com`` is every
        host below ``example.com``, ``null`` pages without an origin, which get nothing by an ambient credential.
    :param hosts: values of ``Host`` that are answered, with a port or for any; ``*.example.com`` is every host below.
        ``None`` (default): any. For servers on a private address, against DNS rebinding.
    :param check: ``"all"`` (default) looks at every request: whether it starts a stream is known too late.
        ``"streams"``: at WebSockets, at methods that change something, and at requests that ask for a stream.
    :param navigations: let links of other sites lead here: top-level loads of pages by GET. ``True`` by default.
    :param absent: what becomes of an HTTP request that carries an ambient credential and neither ``Origin`` nor
        ``Sec-Fetch-Site``: ``"safe"`` (default) accepts GET and HEAD, for old browsers, and browsers without TLS, tell
        nothing there; ``"accept"`` any method; ``"refuse"`` none.
    :param ambient: kinds of credentials that a browser sends by itself: ``"cookie"``, ``"authorization"`` (its own
        schemes, as Basic), ``"certificate"`` (TLS client certificates, where the server tells of them). All by default.
    :param cookies: names of the cookies that are credentials; ``None`` (default): any cookie is.
    :param cors: answer preflights, and let pages of the origins in ``allow`` read responses: ``True``, or a
        ``CORSOptions``. ``None`` (default): leave both to the app.
    :param require_secure: refuse what does not come over TLS, as the scope's scheme says; pages are redirected.
        ``False`` by default.
    :param hsts: with ``require_secure``, tell browsers to use TLS only: ``True`` (default), an ``HSTSOptions``, or
        ``None``.
    :param secure_port: where pages are redirected to, 443 by default.
    :param paths: glob patterns on the path within the mount; ``None`` touches every path.
    :param exclude: patterns of paths to leave alone, looked at after ``paths``.
    :param observer: gets the counters ``origin.refused`` and ``origin.redirected``.
    :raises ConfigurationError: an option that cannot work.
    """

    scope_types = frozenset({"http", "websocket"})
    guards = True

    def __init__(
        self,
        app: ASGIApp,
        *,
        allow: Iterable[str] = (),
        hosts: Iterable[str] | None = None,
        check: Literal["all", "streams"] = "all",
        navigations: bool = True,
        absent: Absent = "safe",
        ambient: Iterable[str] = _KINDS,
        cookies: Iterable[str] | None = None,
        cors: bool | CORSOptions | None = None,
        require_secure: bool = False,
        hsts: bool | HSTSOptions | None = True,
        secure_port: int = 443,
        paths: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(app, paths=paths, exclude=exclude)
        name = type(self).__name__
        self._listed = OriginSet(name, "allow", allow)
        self._hosts = None if hosts is None else HostSet(name, "hosts", hosts)
        _check(check in ("all", "streams"), "check", check, '"all" or "streams"')
        _check(absent in ("safe", "accept", "refuse"), "absent", absent, '"safe", "accept" or "refuse"')
        _check(isinstance(navigations, bool), "navigations", navigations, "True or False")
        _check(isinstance(require_secure, bool), "require_secure", require_secure, "True or False")
        _check(cors is None or isinstance(cors, bool | CORSOptions), "cors", cors, "True, a CORSOptions, or None")
        _check(hsts is None or isinstance(hsts, bool | HSTSOptions), "hsts", hsts, "True, an HSTSOptions, or None")
        _check(require_secure or not isinstance(hsts, HSTSOptions), "hsts", hsts, "None without require_secure=True")
        _check(_is_port(secure_port), "secure_port", secure_port, "a port, 1 to 65535")
        kinds = _names("ambient", ambient, "a list of " + ", ".join(f'"{kind}"' for kind in _KINDS))
        _check(kinds <= {*_KINDS}, "ambient", ambient, "a list of " + ", ".join(f'"{kind}"' for kind in _KINDS))
        names = None if cookies is None else _names("cookies", cookies, "a list of names, or None for any cookie")
        self._all = check == "all"
        self._navigations = navigations
        self._absent: Absent = absent
        self._ambient = kinds
        self._cookies = None if names is None else frozenset(each.encode() for each in names)
        self._cors = Answers(CORSOptions() if cors is True else cors) if cors else None
        self._require_secure = require_secure
        self._hsts = (HSTSOptions() if hsts is True else hsts).line if require_secure and hsts else None
        self._secure_port = secure_port
        self._observer = NullObserver() if observer is None else observer
        self._advice = OnceLog(logger, capacity=_ADVISED)
        self._relations: dict[tuple[str, bytes | None, bytes | None], tuple[Relation, bool]] = {}

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        given: RawHeaders = scope.get("headers") or []
        found = dict(given)
        if len(found) != len(given) and any(len(raw.get_all(given, name)) > 1 for name in _SINGLE):
            return self._refuse(scope, send, "repeated")
        origin = found.get(b"origin")
        relation, host_is_good = Relation.ABSENT, True
        if origin is not None or self._hosts is not None:
            relation, host_is_good = self._related(scope, found.get(b"host"), origin)
        http: bool = scope["type"] == "http"
        inner = send
        if http and (self._cors is not None or self._hsts is not None):
            inner = self._writing(scope, send, origin if relation in _READERS else None)
        if not host_is_good:
            return self._refuse(scope, inner, "host")
        if self._require_secure and scope.get("scheme") not in transport.SECURE_SCHEMES:
            return self._insecure(scope, inner)
        if origin is not None and http and raw.is_preflight(scope):
            lines = None
            if self._cors is not None and relation in _READERS:
                lines = self._cors.preflight(given, origin)
            return self.app(scope, receive, inner) if lines is None else answer(scope, send, 204, lines)
        if relation not in ACCEPTED and (self._all or not http or _asks_for_stream(scope, found)):
            reason = cross_origin.decide(
                relation,
                scope["method"] if http else None,
                found,
                lambda: self._is_ambient(scope),
                absent=self._absent,
                navigations=self._navigations,
            )
            if reason:
                return self._refuse(scope, inner, reason)
        elif relation not in ACCEPTED:
            return self.app(scope, receive, inner)  # nobody has looked
        if (record := record_of(scope)) is not None:
            record.origin_checked = True
        return self.app(scope, receive, inner)

    def _is_ambient(self, scope: Scope) -> bool:
        given: RawHeaders = scope.get("headers") or []
        shown = _has_certificate(scope)
        return cross_origin.is_ambient(given, kinds=self._ambient, cookies=self._cookies, certificate=shown)

    def _related(self, scope: Scope, host: bytes | None, origin: bytes | None) -> tuple[Relation, bool]:
        """What the origin is to the server, and whether the host is one of its."""
        scheme: str = scope.get("scheme") or ("http" if scope["type"] == "http" else "ws")
        key = (scheme, host, origin)
        known = self._relations.get(key)
        if known is None:
            relation = cross_origin.relate(origin, host, scheme, self._listed)
            asked = cross_origin.own_origin(host, scheme)
            known = relation, self._hosts is None or (asked is not None and asked in self._hosts)
            if len(host or b"") + len(origin or b"") <= REMEMBERED_BYTES:
                if len(self._relations) >= REMEMBERED:
                    self._relations.clear()  # a client that makes them up costs the others one look each
                self._relations[key] = known
        return known

    def _writing(self, scope: Scope, send: Send, origin: bytes | None) -> Send:
        """``send``, with what is to stand in the head of every response. ``origin``: of a page that may read it."""
        cors = self._cors
        hsts = self._hsts if scope.get("scheme") in transport.SECURE_SCHEMES else None

        def write(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                lines: RawHeaders = list(message.get("headers") or ())
                if cors is not None:
                    lines = cors.unread(lines) if origin is None else cors.response(lines, origin)
                if hsts is not None:
                    lines = transport.with_hsts(lines, hsts)
                message = {**message, "headers": lines}
            return send(message)

        return write

    async def _insecure(self, scope: Scope, send: Send) -> None:
        location = None
        if scope["type"] == "http" and transport.asks_for_page(scope):
            location = transport.secure_location(scope, self._secure_port)
        if location is None:
            await self._refuse(scope, send, "insecure", _INSECURE)
            return
        self._observer.count("origin.redirected", reason="insecure")
        await answer(scope, send, 308, [(b"location", location), (b"cache-control", b"no-store")])

    async def _refuse(self, scope: Scope, send: Send, reason: str, denial: Denial = _NOT_ALLOWED) -> None:
        self._observer.count("origin.refused", reason=reason)
        logger.info("refused: %s", reason)
        if reason in _REMEDIES:
            # One that has passed the grammar, so nothing can be smuggled into a log by it.
            origin = (raw.get(scope["headers"], b"origin") or b"").decode("ascii", "replace")
            self._advice.warning(f"{reason} {origin}", _REMEDIES[reason], origin)
        if scope["type"] == "http":
            await deny(scope, send, denial)
        else:
            await deny_websocket(scope, send, denial)


#: The relations whose pages may read responses, and so get CORS headers.
_READERS = frozenset({Relation.LISTED, Relation.NULL_LISTED})

_REMEDIES = {
    "foreign": "requests from pages of %s are refused: if they are yours, add it to allow= of OriginMiddleware",
    "scheme": "requests from pages of %s are refused, since the scheme of the request is another: where a proxy ends "
    "TLS, let ClientIPMiddleware trust it, or add the origin to allow= of OriginMiddleware",
}


def _asks_for_stream(scope: Scope, found: dict[bytes, bytes]) -> bool:
    """Whether an HTTP request may start, read or change something, as far as can be told."""
    if scope["method"] not in cross_origin.SAFE_METHODS or b"last-event-id" in found or b"prefer" in found:
        return True
    accept = found.get(b"accept")
    if accept is not None and (EVENT_STREAM in accept.lower() or b"ndjson" in accept.lower()):
        return True
    return PARAMETER in (scope.get("query_string") or b"")


def _has_certificate(scope: Scope) -> bool:
    """Whether the client has shown a certificate, where the server has ASGI's TLS extension."""
    extensions: Mapping[str, object] = scope.get("extensions") or {}
    tls = extensions.get("tls")
    if not isinstance(tls, Mapping):
        return False
    told = cast("Mapping[str, object]", tls)
    return bool(told.get("client_cert_chain") or told.get("client_cert_name"))


def _names(option: str, given: object, expected: str) -> frozenset[str]:
    names: list[object] = []
    if isinstance(given, Iterable) and not isinstance(given, str | bytes):
        names = list(cast("Iterable[object]", given))
    else:
        _check(False, option, given, expected)
    good = all(isinstance(each, str) and raw.is_token(each.encode("utf-8", "replace")) for each in names)
    _check(good, option, names, expected)
    return frozenset(cast("list[str]", names))


def _is_port(value: object) -> bool:
    return is_whole(value) and value < 65536
