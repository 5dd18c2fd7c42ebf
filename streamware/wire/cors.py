"""CORS, the Fetch standard's protocol by which a server lets pages of other origins ask and read: its answers to
preflights, and the headers of its responses.

1. An origin is answered by itself, never by ``*``: responses to requests with credentials could not be read otherwise.
   So every response depends on ``Origin``, also the one to a request that has none, and says so in ``Vary``.
2. There is one answer to each question. Where a response has lines about the origin already, these take their place;
   what an app lets scripts read stays readable.
3. A preflight that asks for more than is known here is not refused but left to the app.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from ..exceptions import ConfigurationError
from ..types import RawHeaders
from . import headers as raw
from .headers import is_token
from .origins import NULL

#: What requests to streams may carry, and what the Fetch standard safelists for short values only.
ALLOWED_HEADERS = (
    "Accept", "Accept-Language", "Authorization", "Content-Language", "Content-Type", "Idempotency-Key",
    "Last-Event-ID", "Prefer",
)  # fmt: skip
ALLOWED_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

#: What Streamware's answers tell scripts by headers.
EXPOSED_HEADERS = ("Content-Location", "Location", "RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate")

_PREFLIGHT_VARY: tuple[bytes, ...] = (b"Origin", b"Access-Control-Request-Method", b"Access-Control-Request-Headers")
_MAX_AGE = 86_400.0
_REMEMBERED = 256
_REMEMBERED_BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class CORSOptions:
    """What pages of the allowed origins may ask for and read.

    :param allow_headers: names of request headers beside the usual: what CORS safelists, ``Authorization``,
        ``Idempotency-Key``, ``Last-Event-ID`` and ``Prefer``.
    :param allow_methods: methods, those of ``fetch`` that are in use by default.
    :param expose_headers: names of response headers that scripts may read, beside those that Streamware sets:
        ``Content-Location``, ``Location``, ``RateLimit``, ``RateLimit-Policy``, ``Retry-After``, ``WWW-Authenticate``.
    :param credentials: whether cookies go along, ``True`` by default: the origins are listed one by one, and an
        ``EventSource`` has no other way to say who it is. Never for the origin ``null``.
    :param max_age: seconds that a browser may keep the answer to a preflight, 600 by default; ``None``: its own five.
    :param private_network: whether pages of public sites may ask a server in a private network, where a browser asks
        first by ``Access-Control-Request-Private-Network``. ``False`` by default.
    """

    allow_headers: Iterable[str] = ()
    allow_methods: Iterable[str] = ALLOWED_METHODS
    expose_headers: Iterable[str] = ()
    credentials: bool = True
    max_age: float | None = 600.0
    private_network: bool = False

    def __post_init__(self) -> None:
        for option in ("allow_headers", "allow_methods", "expose_headers"):
            object.__setattr__(self, option, _names(option, getattr(self, option)))
        for option in ("credentials", "private_network"):
            if not isinstance(getattr(self, option), bool):
                raise ConfigurationError.option("CORSOptions", option, getattr(self, option), "True or False")
        age: object = self.max_age
        if age is not None and (isinstance(age, bool) or not isinstance(age, int | float) or not 0 <= age <= _MAX_AGE):
            raise ConfigurationError.option("CORSOptions", "max_age", age, f"0 to {_MAX_AGE:.0f} seconds, or None")


class Answers:
    """What is said to pages under one set of options. Made once, used for every request."""

    __slots__ = (
        "_exposed", "_headers", "_joined", "_methods", "_of_credentials", "_of_preflight", "_private_network",
        "_varies",
    )  # fmt: skip

    def __init__(self, options: CORSOptions) -> None:
        headers = [*ALLOWED_HEADERS, *options.allow_headers]
        exposed = [*EXPOSED_HEADERS, *options.expose_headers]
        self._headers = frozenset(name.lower().encode() for name in headers)
        self._methods = frozenset(name.encode() for name in options.allow_methods)
        self._exposed = [name.encode() for name in exposed]
        self._joined = b", ".join(self._exposed)
        self._varies: dict[bytes, bool] = {}  # a service has few different values of Vary
        self._private_network = options.private_network
        self._of_credentials: RawHeaders = (
            [(b"access-control-allow-credentials", b"true")] if options.credentials else []
        )
        self._of_preflight: RawHeaders = [
            (b"access-control-allow-methods", ", ".join(options.allow_methods).encode()),
            (b"access-control-allow-headers", ", ".join(headers).encode()),
        ]
        if options.max_age is not None:
            self._of_preflight.append((b"access-control-max-age", b"%d" % options.max_age))

    def preflight(self, given: RawHeaders, origin: bytes) -> RawHeaders | None:
        """The headers of the answer to a preflight from an allowed origin; None where it asks for more than that."""
        if raw.get(given, b"access-control-request-method") not in self._methods:
            return None
        wanted = raw.combined(given, b"access-control-request-headers") or b""
        if not self._headers.issuperset(raw.split_list(wanted.lower())):
            return None
        lines = [*self._of_origin(origin), *self._of_preflight]
        vary: list[bytes] = list(_PREFLIGHT_VARY)
        if raw.get(given, b"access-control-request-private-network") is not None:
            vary.append(b"Access-Control-Request-Private-Network")
            if self._private_network:
                lines.append((b"access-control-allow-private-network", b"true"))
        return [*lines, (b"vary", b", ".join(vary))]

    def response(self, given: RawHeaders, origin: bytes) -> RawHeaders:
        """The headers of a response, for a page of an allowed origin."""
        kept: RawHeaders = []
        own = exposed = self._exposed
        for line in given:
            name = line[0].lower()
            if name == b"access-control-expose-headers":
                known = {each.lower() for each in exposed}
                exposed = exposed + [each for each in raw.split_list(line[1]) if each.lower() not in known]
            elif name not in (b"access-control-allow-origin", b"access-control-allow-credentials"):
                kept.append(line)
        kept += self._of_origin(origin)
        kept.append((b"access-control-expose-headers", self._joined if exposed is own else b", ".join(exposed)))
        return self.unread(kept)

    def unread(self, given: RawHeaders) -> RawHeaders:
        """The headers of a response that no page of another origin reads: it depends on the origin all the same."""
        found = False
        for name, value in given:
            if len(name) == 4 and name.lower() == b"vary":
                found = True
                varies = self._varies.get(value)
                if varies is None:
                    varies = not {b"origin", b"*"}.isdisjoint(raw.split_list(value.lower()))
                    if len(self._varies) < _REMEMBERED and len(value) < _REMEMBERED_BYTES:
                        self._varies[value] = varies
                if varies:
                    return given
        return raw.merge_vary(given, b"Origin") if found else [*given, (b"vary", b"Origin")]

    def _of_origin(self, origin: bytes) -> RawHeaders:
        allowed = (b"access-control-allow-origin", origin)
        return [allowed] if origin == NULL else [allowed, *self._of_credentials]


def _names(option: str, given: object) -> tuple[str, ...]:
    expected = "a list of names, as ['X-Request-ID']" if option != "allow_methods" else "a list of methods, as ['GET']"
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ConfigurationError.option("CORSOptions", option, given, expected)
    names = tuple(cast("Iterable[object]", given))
    for name in names:
        if name == "*":
            # With credentials, "*" is a name like any other.
            raise ConfigurationError.option("CORSOptions", option, name, "names one by one: * means nothing here")
        if not isinstance(name, str) or not is_token(name.encode("utf-8", "replace")):
            raise ConfigurationError.option("CORSOptions", option, name, expected)
    return cast("tuple[str, ...]", names)
