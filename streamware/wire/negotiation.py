"""Which content coding a response gets, and what its head says then: RFC 9110 and RFC 9111, as pure functions.

1. A coding is sent only to a client that accepts it. ``*`` stands for gzip alone, the one coding that all clients
   decode. What is malformed was not said; where a coding is named twice, the lesser quality counts.
2. The client's qualities decide. Between equal ones, the server's own order; identity only where it is named with a
   quality above all others, or nothing else is acceptable: refusing a live endpoint would help nobody.
3. A response is looked at once, at its start. What must not be coded, or would not shrink, is left as it is.
4. Every response that another ``Accept-Encoding`` might have changed says so in ``Vary``, the uncoded one as well.
5. What describes the bytes of the identity variant does not outlive them: lengths, digests and ranges go, and a strong
   entity tag becomes a weak one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from ..types import RawHeaders
from . import headers as raw

GZIP, BROTLI, ZSTD = "gzip", "br", "zstd"

#: Streams by their media type alone: their start is never held back, their events leave one by one.
LIVE_TYPES = frozenset({
    b"text/event-stream", b"application/x-ndjson", b"application/ndjson", b"application/jsonl",
    b"application/json-seq",
})  # fmt: skip

#: Media types that shrink, beside all of ``text/`` and those with a structured syntax suffix below (RFC 6839).
SHRINKING = frozenset({
    b"application/ecmascript", b"application/graphql", b"application/javascript", b"application/json",
    b"application/msgpack", b"application/protobuf", b"application/rtf", b"application/sql", b"application/toml",
    b"application/vnd.apple.mpegurl", b"application/vnd.google.protobuf", b"application/vnd.ms-fontobject",
    b"application/wasm", b"application/x-javascript", b"application/x-protobuf", b"application/x-tar",
    b"application/x-www-form-urlencoded", b"application/x-yaml", b"application/xml", b"application/yaml",
    b"font/collection", b"font/otf", b"font/sfnt", b"font/ttf", b"image/bmp", b"image/vnd.microsoft.icon",
    b"image/x-icon", b"multipart/mixed",
}) | LIVE_TYPES  # fmt: skip
SUFFIXES = (b"+json", b"+xml", b"+yaml", b"+text", b"+cbor")

#: Header fields that are true of the identity variant only (RFC 9110 §14.3, RFC 9530, RFC 3230, RFC 2616 §14.15).
_OF_IDENTITY = frozenset({
    b"content-length", b"content-md5", b"digest", b"content-digest", b"repr-digest", b"accept-ranges",
})  # fmt: skip
_DIGESTS = (b"content-md5", b"digest", b"content-digest", b"repr-digest")

_QUALITY = re.compile(rb"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?").fullmatch  # RFC 9110 §12.4.2
_DIGITS = re.compile(rb"[0-9]{1,19}").fullmatch
_STRONG = re.compile(rb'"[^"]*"').fullmatch

ACCEPT_ENCODING = b"Accept-Encoding"


# -- the request


def asked(given: Iterable[tuple[bytes, bytes]]) -> tuple[bytes | None, bytes | None]:
    """``Accept-Encoding`` and ``Accept``, each with all its lines joined, in one pass: every request pays for it."""
    coding: bytes | None = None
    accept: bytes | None = None
    for name, value in given:
        if len(name) == 15 and name.lower() == b"accept-encoding":
            coding = value if coding is None else coding + b", " + value
        elif len(name) == 6 and name.lower() == b"accept":
            accept = value if accept is None else accept + b", " + value
    return coding, accept


def parse_accept_encoding(value: bytes) -> dict[str, float]:
    """Qualities by coding, in lower case, from all ``Accept-Encoding`` lines joined (RFC 9110 §12.5.3)."""
    accepted: dict[str, float] = {}
    for item in value.split(b","):
        coding, *parameters = (part.strip(b" \t") for part in item.split(b";"))
        quality = _quality(parameters)
        if not coding or quality is None:
            continue
        name = coding.decode("latin-1").lower()
        if name == "x-gzip":  # §8.4.1.3: the same
            name = GZIP
        accepted[name] = min(quality, accepted.get(name, 1.0))
    return accepted


def _quality(parameters: Iterable[bytes]) -> float | None:
    """The weight among an item's parameters, 1 where there is none; None for one that is malformed."""
    quality: float | None = None
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip(b" \t").lower() != b"q":
            continue
        value = value.strip(b" \t")
        if quality is not None or not _QUALITY(value):
            return None
        quality = float(value)
    return 1.0 if quality is None else quality


def choose_coding(accept_encoding: bytes | None, offered: Sequence[str]) -> str | None:
    """The coding to send, of those ``offered`` in the server's order of preference; None for identity.

    ``accept_encoding``: all lines joined. None, no header: any coding would be right, but nobody asked for one.
    """
    if not accept_encoding:
        return None
    accepted = parse_accept_encoding(accept_encoding)
    best, most = None, accepted.get("identity", 0.0)
    for coding in offered:
        quality = accepted.get(coding)
        if quality is None:
            quality = accepted.get("*", 0.0) if coding == GZIP else 0.0
        # Identity loses between equals: who names it beside a coding takes that as gladly.
        if quality and (quality > most or (best is None and quality == most)):
            best, most = coding, quality
    return best


# -- the response


class Kind(Enum):
    """What a response's start says of it. ``LEAVE``: not to be coded. ``UNCHANGED``: a 304. ``LIVE``: a stream.
    ``BODY``: to be coded if it is large enough, or turns out to be a stream."""

    LEAVE = "leave"
    UNCHANGED = "unchanged"
    LIVE = "live"
    BODY = "body"


class Look(NamedTuple):
    """``length``: what ``Content-Length`` states, None where it does not. ``cookie``: the response sets one.
    ``reason``: why one that would shrink is left as it is, for a counter."""

    kind: Kind
    length: int | None = None
    cookie: bool = False
    reason: str = ""


_LOOKED_AT = frozenset({
    b"content-type", b"content-length", b"content-encoding", b"content-range", b"set-cookie", b"cache-control",
})  # fmt: skip
_LEFT = Look(Kind.LEAVE)
_UNCHANGED = Look(Kind.UNCHANGED)


def look_at(status: int, given: RawHeaders, more_types: Collection[bytes] = ()) -> Look:
    """What a response's start says of it. ``more_types``: media types that shrink, beside those that are known to."""
    if status == 304:
        return _UNCHANGED
    if status < 200 or status in (204, 205, 206):
        return _LEFT
    media: bytes | None = None
    length: int | None = None
    cookie = False
    left = ""
    for name, value in given:
        name = name.lower()
        if name not in _LOOKED_AT:
            continue
        if name == b"content-type":
            media = raw.media_type(bytes(value)) if media is None else media
        elif name == b"content-length":
            length = int(value) if _DIGITS(value) else length
        elif name == b"content-encoding":
            left = "encoded"  # any value, ``identity`` too: it is how apps ask to be left alone
        elif name == b"content-range":
            return _LEFT
        elif name == b"set-cookie":
            cookie = True
        elif name == b"cache-control" and not left and _forbids(value):
            left = "no-transform"
    if media is None or not shrinks(media, more_types):
        return _LEFT
    if left:
        return Look(Kind.LEAVE, reason=left)
    return Look(Kind.LIVE if media in LIVE_TYPES and length is None else Kind.BODY, length, cookie)


def _forbids(cache_control: bytes) -> bool:
    """Whether the directives have ``no-transform`` among them (RFC 9111 §5.2.2.6)."""
    given = cache_control.lower()
    return b"no-transform" in given and b"no-transform" in raw.split_list(given)


def shrinks(media: bytes, more_types: Collection[bytes] = ()) -> bool:
    """Whether content of this media type, ``type/subtype`` in lower case, is worth coding."""
    return media.startswith(b"text/") or media in SHRINKING or media.endswith(SUFFIXES) or media in more_types


def varied(given: RawHeaders) -> RawHeaders:
    """The head of a response that might have been coded, and is not."""
    return raw.merge_vary(given, ACCEPT_ENCODING)


def coded(given: RawHeaders, coding: str, length: int | None = None) -> RawHeaders:
    """The head of a response that is coded. ``length``: of the coded body, where it is known already."""
    kept: RawHeaders = []
    for line in given:
        name = line[0].lower()
        if name == b"etag":
            line = (line[0], weak(line[1]))
        elif name in _OF_IDENTITY:
            continue
        kept.append(line)
    kept = varied(kept)
    kept.append((b"content-encoding", coding.encode()))
    if length is not None:
        kept.append((b"content-length", b"%d" % length))
    return kept


def unchanged(given: RawHeaders, if_none_match: bytes | None) -> RawHeaders:
    """The head of a 304 to a request that accepts codings. It has to carry the entity tag of the response that the
    client has (RFC 9110 §15.4.5), and the client tells which that is: the weak one, if ours was coded."""
    kept = varied(given)
    tag = raw.get(kept, b"etag")
    if tag is None or if_none_match is None or weak(tag) == tag or weak(tag) not in raw.split_list(if_none_match):
        return kept
    return raw.replaced(kept, b"etag", weak(tag))


def weak(tag: bytes) -> bytes:
    """An entity tag, weakened: coded anew each time, the bytes are equivalent and no more (RFC 9110 §8.8.1)."""
    return b"W/" + tag if _STRONG(tag) else tag


def without_digests(trailers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """The trailers of a response that is coded: the app's digests are of other bytes (RFC 9530 §6.5)."""
    return raw.without(trailers, *_DIGESTS)
