"""Origins and hosts: their serialised form only, read to values that compare exactly, and the lists of them in options.

1. An origin is what RFC 6454, section 6.2, writes and the Fetch standard has browsers send: scheme, host, and the port
   where it is not the scheme's own. No userinfo, no path, not even a slash: whatever else there is, it is no origin.
2. Two spellings of one origin are one value: case is folded, a scheme's own port is left out or written, IPv6 addresses
   have many forms. Two origins are never one value: scheme, host and port all count, and a trailing dot does.
3. A ``Host`` is read by the same grammar (RFC 9110, section 7.2), with the scheme of its request.
4. Reading never raises. An option that cannot be read does, with what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from ..exceptions import ConfigurationError

#: What a browser sends as the origin of a page that has none: a sandboxed frame, a ``data:`` URL, a local file.
NULL = b"null"

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

#: The scheme of the pages that a server serves, by the scheme of the request.
PAGE_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}

_HOST = rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_.\-]{1,254})"
_PORT = rb"(?::([1-9][0-9]{0,4}))?"
_ORIGIN = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]{0,31})://" + _HOST + _PORT).fullmatch
_AUTHORITY = re.compile(_HOST + _PORT).fullmatch
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*").fullmatch
_MAX_PORT = 65535


class Origin(NamedTuple):
    """Scheme and host in lower case. ``port``: None where the scheme has none of its own and none was given."""

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        """Serialised, as a browser sends it."""
        own = self.port is None or self.port == DEFAULT_PORTS.get(self.scheme)
        return f"{self.scheme}://{self.host}" + ("" if own else f":{self.port}")


def parse_origin(value: bytes) -> Origin | None:
    """The value of one ``Origin`` line; None for what is none in serialised form, ``null`` included."""
    found = _ORIGIN(value)
    if found is None:
        return None
    scheme = found[1].decode("ascii").lower()
    return _origin(scheme, found[2], found[3])


def parse_host(value: bytes, scheme: str) -> Origin | None:
    """The origin that is asked, by one ``Host`` line and the scheme of the pages there; None for a malformed one."""
    found = _AUTHORITY(value)
    return None if found is None else _origin(scheme, found[1], found[2])


def _origin(scheme: str, raw_host: bytes, raw_port: bytes | None) -> Origin | None:
    own = DEFAULT_PORTS.get(scheme)
    host = _host(raw_host.decode("ascii").lower(), numbers_are_addresses=own is not None)
    port = own if raw_port is None else int(raw_port)
    if host is None or (port is not None and port > _MAX_PORT):
        return None
    return Origin(scheme, host, port)


def _host(text: str, *, numbers_are_addresses: bool) -> str | None:
    if text.startswith("["):
        try:
            return f"[{IPv6Address(text[1:-1])}]"
        except ValueError:
            return None
    labels = text.removesuffix(".").split(".")
    if len(text.removesuffix(".")) > 253 or not all(0 < len(label) <= 63 for label in labels):
        return None
    # To browsers a host that ends in a number is an IPv4 address, which they write in one way only (WHATWG URL,
    # "ends in a number"): 127.1, 0x7f.0.0.1 and 010.0.0.1 are never sent.
    if numbers_are_addresses and _NUMBER(labels[-1]):
        try:
            return str(IPv4Address(text))
        except ValueError:
            return None
    return text


class OriginSet:
    """The origins that an option lists: exact ones, ``null``, and ``https://*.example.com`` for every host below
    ``example.com``, by one or more labels, but not ``example.com`` itself."""

    __slots__ = ("_below", "exact", "null")

    def __init__(self, owner: str, option: str, given: object) -> None:
        exact: set[Origin] = set()
        below: dict[tuple[str, int | None], tuple[str, ...]] = {}
        self.null = False
        for entry in _entries(owner, option, given, "a list of origins, as ['https://chat.example']"):
            if entry == "null":
                self.null = True
                continue
            pattern = parse_origin(_ascii(entry.replace("://*.", "://", 1)))
            if pattern is None or pattern.scheme in ("ws", "wss"):
                raise ConfigurationError.option(owner, option, _shown(entry), _advice(entry))
            if "://*." not in entry:
                exact.add(pattern)
            elif not _may_have_subdomains(pattern.host):
                expected = "https://*. and a domain of two labels or more, or http://*.localhost"
                raise ConfigurationError.option(owner, option, entry, expected)
            else:
                place = (pattern.scheme, pattern.port)
                below[place] = (*below.get(place, ()), f".{pattern.host}")
        self.exact = frozenset(exact)
        self._below = below

    def __contains__(self, origin: Origin) -> bool:
        if origin in self.exact:
            return True
        if not self._below:
            return False
        suffixes = self._below.get((origin.scheme, origin.port))
        return suffixes is not None and origin.host.endswith(suffixes)


class HostSet:
    """The hosts that an option lists: with a port, only that one counts; without, any. ``*.example.com`` is every host
    below ``example.com``."""

    __slots__ = ("_below", "_exact")

    def __init__(self, owner: str, option: str, given: object) -> None:
        exact: set[tuple[str, int | None]] = set()
        below: dict[int | None, tuple[str, ...]] = {}
        expected = "a list of hosts, each with or without a port, as ['api.example', 'localhost:8000', '[::1]']"
        entries = _entries(owner, option, given, expected)
        if not entries:
            raise ConfigurationError.option(owner, option, given, f"{expected}, or None to accept any")
        for entry in entries:
            # With a scheme that has no port of its own, that of an entry stays as it was written.
            found = parse_host(_ascii(entry.removeprefix("*.")), "host")
            host = None if found is None else _host(found.host, numbers_are_addresses=True)
            if found is None or host is None or (entry.startswith("*.") and not _may_have_subdomains(host)):
                raise ConfigurationError.option(owner, option, _shown(entry), expected)
            if entry.startswith("*."):
                below[found.port] = (*below.get(found.port, ()), f".{host}")
            else:
                exact.add((host, found.port))
        self._exact = frozenset(exact)
        self._below = below

    def __contains__(self, asked: Origin) -> bool:
        _, host, port = asked
        if (host, None) in self._exact or (host, port) in self._exact:
            return True
        return any(host.endswith(self._below.get(each, ())) for each in (None, port)) if self._below else False


def _entries(owner: str, option: str, given: object, expected: str) -> list[str]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ConfigurationError.option(owner, option, given, expected)
    entries = list(cast("Iterable[object]", given))
    for entry in entries:
        if not isinstance(entry, str):
            raise ConfigurationError.option(owner, option, entry, expected)
    return cast("list[str]", entries)


def _may_have_subdomains(host: str) -> bool:
    """False for addresses and for top-level domains, below which everybody is."""
    labels = host.split(".")
    return host == "localhost" or (len(labels) > 1 and labels[-1] != "" and not _NUMBER(labels[-1]) and host[0] != "[")


def _ascii(text: str) -> bytes:
    return text.encode("ascii", "replace")  # "?" stands in no origin


def _shown(entry: str) -> str:
    """``entry`` without a password that may be in it."""
    return "…@" + entry.rpartition("@")[2] if "@" in entry else entry


def _advice(entry: str) -> str:
    """What the entry was meant to be, as far as that can be told."""
    if entry in ("*", "https://*", "http://*"):
        return "origins one by one, or below one domain as 'https://*.example.com': any origin cannot be allowed"
    try:
        parts = urlsplit(entry if "://" in entry else f"https://{entry}")
        host = (parts.hostname or "").encode("idna").decode("ascii")
        host = f"[{host}]" if ":" in host else host
        scheme = PAGE_SCHEMES.get(parts.scheme, parts.scheme)
        meant = parse_origin(_ascii(f"{scheme}://{host}" + (f":{parts.port}" if parts.port else "")))
    except ValueError:  # UnicodeError is one
        meant = None
    form = "scheme, host and, where it is not the scheme's own, port"
    return f"{form}, as {str(meant) if meant is not None else 'https://chat.example'!r}"
