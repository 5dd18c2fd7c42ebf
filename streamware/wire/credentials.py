"""The credentials that a request shows: where they are found, and how they are taken out before anybody else sees them.

1. One request, one credential (RFC 6750, section 2): the same one in two places is fine, two that differ are refused,
   and so is a repeated ``Authorization``. A ticket is never the same as anything else.
2. Reading never raises anything but ``CredentialError``, whatever a request holds. Whether a credential is any good is
   not decided here.
3. What was taken from the subprotocols or from the query is taken out of both forms in which a scope has it.
4. Neither ``CredentialError`` nor any ``repr`` says what the credential is.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Sequence
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from ..types import RawHeaders, Scope
from . import headers as raw

#: A credential that is longer is none, in bytes. Verifiers may draw the line lower.
MAX_CREDENTIAL = 12 * 1024

#: The subprotocol whose successor in the list is the token.
MARKER = "bearer"
#: The subprotocol that holds a token itself, in base64url, as Kubernetes has it.
KUBERNETES = "base64url.bearer.authorization.k8s.io."

HEADER, COOKIE, SUBPROTOCOL, TICKET, QUERY = "header", "cookie", "subprotocol", "ticket", "query"

_SUBPROTOCOLS = b"sec-websocket-protocol"


class CredentialError(ValueError):
    """The request shows credentials in a way that cannot be read, or more than one. ``reason``: a short fixed word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Credential:
    """``text``: the token or ticket, any text of one byte a character. ``source``: where it was found."""

    __slots__ = ("source", "text")

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source

    @property
    def ambient(self) -> bool:
        """Whether a browser sends it by itself, also where another site's page makes it ask."""
        return self.source == COOKIE

    def __repr__(self) -> str:
        return f"Credential(…, {self.source!r})"


class Offer(NamedTuple):
    """What the subprotocols of a handshake hold: ``tokens``, the ``marker`` as the client wrote it, and the others."""

    tokens: tuple[str, ...]
    marker: str | None
    others: list[str]


class Parameters(NamedTuple):
    """What a query string holds: the credentials by parameter, and the rest, as it was."""

    found: dict[str, list[str]]
    rest: bytes


NO_OFFER = Offer((), None, [])
NO_PARAMETERS = Parameters({}, b"")


def authorization(headers: raw.Headers) -> str | None:
    """The bearer token of the ``Authorization`` header; None where there is none, or it is of another scheme.

    :raises CredentialError: ``repeated``, ``too_large``, or ``malformed``: a scheme without a token.
    """
    value = None
    for name, line in headers:
        if name == b"authorization":
            if value is not None:
                raise CredentialError("repeated")
            value = line
    if value is None:  # servers write names in lower case, as ASGI has it
        lines = raw.get_all(headers, b"authorization")
        if len(lines) > 1:
            raise CredentialError("repeated")
        if not lines:
            return None
        value = lines[0]
    scheme = value[:7]
    if scheme != b"Bearer " and scheme.lower() != b"bearer ":
        if value.strip(b" \t").lower() == b"bearer":
            raise CredentialError("malformed")
        return None
    token = value[7:].decode("latin-1").strip(" \t")
    if not token:
        raise CredentialError("malformed")
    if len(token) > MAX_CREDENTIAL:
        raise CredentialError("too_large")
    return token


def cookies(headers: raw.Headers, name: bytes) -> list[str]:
    """The values of all cookies of that name, in order; empty ones, as a logout leaves them, are none."""
    values: list[str] = []
    for jar in raw.get_all(headers, b"cookie"):
        for pair in jar.split(b";"):
            key, _, value = pair.partition(b"=")
            if key.strip(b" \t") == name:
                value = value.strip(b" \t")
                if len(value) > 1 and value[:1] == value[-1:] == b'"':
                    value = value[1:-1]
                if value:
                    values.append(value.decode("latin-1"))
    return values


def read_offer(subprotocols: Sequence[str]) -> Offer:
    """The credentials among the subprotocols that a client offers.

    :raises CredentialError: ``malformed``: a marker without a token, or what is no base64url; ``alone``: in the style
        of Kubernetes, but without a subprotocol that could be answered.
    """
    tokens: list[str] = []
    others: list[str] = []
    marker = None
    alone = False
    entries = iter(subprotocols)
    for entry in entries:
        if entry.lower() == MARKER:
            marker = entry
            token = next(entries, "")
            if not token:
                raise CredentialError("malformed")
            tokens.append(token)
        elif entry.lower().startswith(KUBERNETES):
            tokens.append(_from_base64url(entry[len(KUBERNETES) :]))
            alone = True
        else:
            others.append(entry)
    if alone and not others and marker is None:
        raise CredentialError("alone")
    return Offer(tuple(tokens), marker, others)


def harmless(subprotocols: Sequence[str]) -> str | None:
    """Of an offer, which may be unreadable, one that may be answered: neither is nor precedes a token, if there is one
    that does neither; else the marker. None where every one is a token."""
    marker = None
    entries = iter(subprotocols)
    for entry in entries:
        if entry.lower() == MARKER:
            marker = entry
            next(entries, None)
        elif not entry.lower().startswith(KUBERNETES):
            return entry
    return marker


def read_parameters(query: bytes, names: Collection[str]) -> Parameters:
    """The credentials in a query string, under any of ``names``, and the query without them."""
    found: dict[str, list[str]] = {}
    rest: list[bytes] = []
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        decoded = _from_query(name)
        if decoded in names:
            found.setdefault(decoded, []).append(_from_query(value))
        else:
            rest.append(part)
    return Parameters(found, b"&".join(rest)) if found else Parameters(found, query)


def one_of(credentials: Sequence[Credential]) -> Credential | None:
    """The one credential that all of these are; None where there are none.

    :raises CredentialError: ``several`` that differ, ``malformed`` for an empty one, or ``too_large``.
    """
    if not credentials:
        return None
    first = credentials[0]
    if not first.text:
        raise CredentialError("malformed")
    for other in credentials[1:]:
        if other.text != first.text or (other.source == TICKET) != (first.source == TICKET):
            raise CredentialError("several")
    if len(first.text) > MAX_CREDENTIAL:
        raise CredentialError("too_large")
    return first


def with_subprotocols(scope: Scope, others: list[str]) -> Scope:
    """``scope``, copied, which offers no subprotocols but ``others``."""
    headers: RawHeaders = raw.without(scope["headers"], _SUBPROTOCOLS)
    if others:
        headers.append((_SUBPROTOCOLS, ", ".join(others).encode("latin-1", "replace")))
    return {**scope, "subprotocols": others, "headers": headers}


def is_printable(text: str) -> bool:
    """Whether ``text`` is made of printable ASCII, as all tokens are that a header can carry (RFC 6750 allows less)."""
    return text.isascii() and text.isprintable() and " " not in text


def _from_base64url(text: str) -> str:
    try:
        # Without padding, which is no part of a subprotocol's name (RFC 7230, "token").
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise CredentialError("malformed") from None
    if not decoded or "=" in text or "+" in text or "/" in text:
        raise CredentialError("malformed")
    return decoded.decode("latin-1")


def _from_query(part: bytes) -> str:
    return unquote_to_bytes(part.replace(b"+", b" ")).decode("latin-1")
