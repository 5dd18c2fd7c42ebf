"""A compact JWS, taken apart before anything is believed of it (RFC 7515, RFC 7519, RFC 8725).

The one parser of tokens: what it returns is what the signature is checked over, so no second reading can differ.

Rules:

1. Size, alphabet and shape are looked at before anything is decoded, and everything decoded is canonical: there is one
   spelling of a token.
2. JSON is read strictly: UTF-8, no member twice, no NaN, no number too large for a float or a timer, no text that
   cannot be encoded, nesting bounded.
3. A header member that names a key, or changes what is signed or how, is refused where it stands, not ignored.
4. Whatever comes, ``TokenRefused`` is the only exception, and it holds nothing of the token.
"""

from __future__ import annotations

import json
import re
from binascii import a2b_base64
from collections.abc import Callable, Iterable
from typing import NoReturn, TypeAlias, cast

from .verifier import TokenRefused

#: What JSON can say.
JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"

#: Longest token that is looked at, in characters.
MAX_TOKEN = 8 * 1024
#: Longest header, in characters of the token.
MAX_HEADER = 1024
#: Longest ``kid``. It is a key of a dict and nothing else.
MAX_KID = 256
#: Deepest nesting of claims.
MAX_DEPTH = 24
#: Longest integer, in characters: larger ones overflow floats and timers.
MAX_DIGITS = 18

#: Members that are only allowed where an issuer's configuration says that they are to be ignored.
IGNORABLE = frozenset({"jku", "x5u", "x5c"})
#: Members that say nothing of how the token is verified (RFC 7515, section 4.1).
KNOWN = frozenset({"alg", "kid", "typ", "cty", "x5t", "x5t#S256"})
# ``jwk`` brings the attacker's key. ``b64`` is not for JWTs (RFC 7797, section 7). ``crit`` can name no extension that
# is understood here, and an empty one is forbidden. ``zip`` belongs to encryption.
_NEVER = frozenset({"jwk", "crit", "b64", "zip", "enc", "epk"})
_BANNED = _NEVER | IGNORABLE

_JWS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)", re.ASCII).fullmatch
_PADDING = (b"", None, b"==", b"=")
# The last character holds bits that stand for nothing: they have to be 0 (RFC 4648, section 3.5).
_LAST = ("", "", "AQgw", "AEIMQUYcgkosw048")
_STANDARD = bytes.maketrans(b"-_", b"+/")


class Compact:
    """A token in its parts. ``header`` and ``payload`` are not to be believed until ``signature`` has been checked over
    ``signed``; ``alg`` and ``kid`` are the header's, in the types that they must have."""

    __slots__ = ("alg", "header", "kid", "payload", "signature", "signed")

    def __init__(
        self, header: dict[str, JSON], alg: str, kid: str | None, payload: bytes, signed: bytes, signature: bytes
    ) -> None:
        self.header = header
        self.alg = alg
        self.kid = kid
        self.payload = payload
        self.signed = signed
        self.signature = signature


class TokenParser:
    """Takes tokens apart by one issuer's rules.

    :param algorithms: the values of ``alg`` that are looked at.
    :param max_header: longest header, in characters of the token.
    :param strict: refuse header members that are not registered for JWS.
    :param ignored: of ``IGNORABLE``, those that may stand in a header and are not looked at.
    """

    def __init__(
        self,
        algorithms: Iterable[str],
        *,
        max_header: int = MAX_HEADER,
        strict: bool = True,
        ignored: Iterable[str] = (),
    ) -> None:
        self._algorithms = frozenset(algorithms)
        self._max_header = max_header
        ignored = frozenset(ignored)
        self._plain = KNOWN | ignored
        self._banned = _BANNED - ignored
        self._strict = strict

    def parse(self, token: str) -> Compact:
        """The parts of ``token``.

        :raises TokenRefused: it is none that this issuer can have made.
        """
        if len(token) > MAX_TOKEN:
            raise TokenRefused("size")
        found = _JWS(token)
        if found is None:
            raise TokenRefused("encrypted" if token.count(".") == 4 else "malformed")
        head, body, tail = found.groups()
        if len(head) > self._max_header:
            raise TokenRefused("header_size")
        header = _read(decoded(head), "header")
        if not header.keys() <= self._plain:
            self._refuse_members(header)
        alg = header.get("alg")
        if alg.__class__ is not str or alg not in self._algorithms:
            raise TokenRefused("algorithm")
        kid = header.get("kid")
        if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID):
            raise TokenRefused("header")
        # ``str()``: for the type checker, which cannot see that ``alg`` is one.
        return Compact(header, str(alg), kid, decoded(body), token[: found.end(2)].encode("ascii"), decoded(tail))

    def _refuse_members(self, header: dict[str, JSON]) -> None:
        if not self._banned.isdisjoint(header):
            raise TokenRefused("header")
        if self._strict:
            # Microsoft Graph's tokens are signed over another nonce than they carry: nobody else can verify them.
            raise TokenRefused("nonce" if "nonce" in header else "header")


def claims_of(payload: bytes) -> dict[str, JSON]:
    """The claims in a payload whose signature is good.

    :raises TokenRefused: they are no JSON object, or one that no honest issuer makes.
    """
    return _read(payload, "claims")


def unverified_issuer(token: str) -> str | None:
    """What a token says of its issuer, for a look-up in a dict and nothing else: anybody can write it. None: it is no
    JWT, or names none."""
    if len(token) > MAX_TOKEN or (found := _JWS(token)) is None:
        return None
    try:
        issuer = _read(decoded(found[2]), "claims").get("iss")
    except TokenRefused:
        return None
    return issuer if isinstance(issuer, str) else None


def decoded(segment: str) -> bytes:
    """The bytes of a segment of the base64url alphabet.

    :raises TokenRefused: it is not how these bytes are written.
    """
    over = len(segment) & 3
    padding = _PADDING[over]
    if padding is None or (over and segment[-1] not in _LAST[over]):
        raise TokenRefused("malformed")
    return a2b_base64(segment.encode("ascii").translate(_STANDARD) + padding)


def read_json(data: bytes) -> JSON:
    """``data`` as JSON, by rule 2 of this module.

    :raises ValueError: it is not.
    :raises RecursionError: it is nested without end.
    """
    text = data.decode("utf-8")
    value = _decode(text)
    if text.count("[") + text.count("{") > MAX_DEPTH and _deeper(value, MAX_DEPTH):
        raise ValueError("nested too deeply")
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # lone surrogates cannot be
    return value


def _read(data: bytes, reason: str) -> dict[str, JSON]:
    try:
        value = read_json(data)
    except (ValueError, RecursionError):
        raise TokenRefused(reason) from None
    if not isinstance(value, dict):
        raise TokenRefused(reason)
    return value


def _once(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member twice")
    return members


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError("too large")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not -1e300 < value < 1e300:
        raise ValueError("too large")
    return value


def _constant(text: str) -> NoReturn:
    raise ValueError("no JSON number")


_decode = cast(
    "Callable[[str], JSON]",
    json.JSONDecoder(object_pairs_hook=_once, parse_int=_integer, parse_float=_float, parse_constant=_constant).decode,
)


def _deeper(value: JSON, levels: int) -> bool:
    """Whether ``value`` is nested deeper than ``levels``."""
    if not isinstance(value, dict | list):
        return False
    if not levels:
        return True
    members = value.values() if isinstance(value, dict) else value
    return any(_deeper(member, levels - 1) for member in members)
