"""Whether a request may be served by where it comes from: ``Origin``, ``Host``, ``Sec-Fetch-*``, and its credentials.

1. An ``Origin`` that is there must be the server's own or a listed one, whatever else the request carries.
2. Where there is none, ``Sec-Fetch-Site`` speaks for it: a page cannot set either of them.
3. Where there is neither, no page of another site asked, or a browser did that tells neither. Then it depends on
   whether the request carries a credential that a browser sends by itself, an *ambient* one: on a WebSocket, which
   every browser opens with an ``Origin``, that is refused.
4. ``null`` is an origin that every site can have, so even where it is listed it never goes with an ambient credential.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Literal

from ..types import RawHeaders
from . import headers as raw
from .origins import NULL, PAGE_SCHEMES, Origin, OriginSet, parse_host, parse_origin

Absent = Literal["safe", "accept", "refuse"]

#: Why a request is refused, beside ``host`` and ``insecure``. The empty string: it is not.
ALLOWED = ""

#: The methods that change nothing (RFC 9110, section 9.2.1).
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

COOKIE, AUTHORIZATION, CERTIFICATE = "cookie", "authorization", "certificate"

#: Schemes of HTTP authentication whose credentials a browser keeps, and sends by itself.
_BROWSERS_OWN = frozenset({b"basic", b"digest", b"negotiate", b"ntlm"})

_TRUSTED_SITES = frozenset({b"same-origin", b"none"})
_OTHER_SITES = {b"same-site": "same_site", b"cross-site": "cross_site"}


class Relation(Enum):
    """What a request's ``Origin`` is to the server."""

    ABSENT = "absent"
    OWN = "own"
    LISTED = "listed"
    NULL = "null"
    NULL_LISTED = "null, listed"
    SCHEME = "scheme"  # the own host and port, or their defaults, under another scheme
    FOREIGN = "foreign"
    MALFORMED = "malformed"


#: May be served as they stand.
ACCEPTED = frozenset({Relation.OWN, Relation.LISTED})

_REASONS = {
    Relation.NULL: "null",
    Relation.SCHEME: "scheme",
    Relation.FOREIGN: "foreign",
    Relation.MALFORMED: "malformed",
}


def relate(origin: bytes | None, host: bytes | None, scheme: str, listed: OriginSet) -> Relation:
    """What the one ``Origin`` line is to a server that is asked as ``host`` by a request of this ``scheme``."""
    if origin is None:
        return Relation.ABSENT
    if origin == NULL:
        return Relation.NULL_LISTED if listed.null else Relation.NULL
    parsed = parse_origin(origin)
    if parsed is None:
        return Relation.MALFORMED
    if parsed in listed:
        return Relation.LISTED
    own = own_origin(host, scheme)
    if own is None:
        return Relation.FOREIGN
    if parsed == own:
        return Relation.OWN
    if parsed.scheme != own.scheme and host is not None and parse_host(host, parsed.scheme) == parsed:
        return Relation.SCHEME
    return Relation.FOREIGN


def own_origin(host: bytes | None, scheme: str) -> Origin | None:
    """The origin of the pages that are served under ``Host``; None where that cannot be told."""
    page_scheme = PAGE_SCHEMES.get(scheme)
    return None if host is None or page_scheme is None else parse_host(host, page_scheme)


def decide(
    relation: Relation,
    method: str | None,
    found: Mapping[bytes, bytes],
    ambient: Callable[[], bool],
    *,
    absent: Absent,
    navigations: bool,
) -> str:
    """Why the request is refused, as a word for counters and logs; ``ALLOWED`` where it is not.

    ``method``: None for a WebSocket. ``found``: its headers. ``ambient``: tells whether it carries an ambient
    credential, and is asked only where that decides. ``absent``: what becomes of an HTTP request that carries one and
    says nothing of where it comes from: accepted by ``safe`` methods only, accepted, or refused. ``navigations``: links
    of other sites may lead here.
    """
    if relation in ACCEPTED:
        return ALLOWED
    if relation is not Relation.ABSENT:
        if relation is Relation.NULL_LISTED:
            return "null" if ambient() else ALLOWED
        return _REASONS[relation]
    site = found.get(b"sec-fetch-site")
    if site is not None and site not in _TRUSTED_SITES:
        if navigations and site in _OTHER_SITES and navigates(method, found):
            return ALLOWED
        return _OTHER_SITES.get(site, "malformed")
    if method is not None and (site is not None or absent == "accept" or (absent == "safe" and method in SAFE_METHODS)):
        return ALLOWED
    return "missing" if ambient() else ALLOWED


def navigates(method: str | None, found: Mapping[bytes, bytes]) -> bool:
    """Whether a browser loads a page at the top level by this request, which changes nothing."""
    return (
        method in ("GET", "HEAD")
        and found.get(b"sec-fetch-mode") == b"navigate"
        and found.get(b"sec-fetch-dest") == b"document"
    )


def is_ambient(
    given: RawHeaders, *, kinds: frozenset[str], cookies: frozenset[bytes] | None, certificate: bool
) -> bool:
    """Whether the request carries a credential of one of these ``kinds`` that a browser sends by itself, and none that
    it does not. ``cookies``: the names that count, None for all. ``certificate``: there is one of the client's."""
    for value in raw.get_all(given, b"authorization"):
        scheme, _, credential = value.strip().partition(b" ")
        if scheme.lower() not in _BROWSERS_OWN:
            if credential:
                # No page can make a browser send this without a preflight, nor on a WebSocket at all: whoever sent
                # it without an Origin is no page, and its cookies are its own.
                return False
        elif AUTHORIZATION in kinds:
            return True
    if certificate and CERTIFICATE in kinds:
        return True
    if COOKIE not in kinds:
        return False
    jars = raw.get_all(given, b"cookie")
    if cookies is None:
        return any(jars)
    return any(
        pair.partition(b"=")[0].strip() in cookies for jar in jars for pair in jar.replace(b",", b";").split(b";")
    )
