"""Only over TLS: what is secure, where a page that was asked for without it is to be had, and HSTS (RFC 6797).

A redirect is for who has typed an address or followed an old link. A call by a script or a program is never redirected:
it has sent its credentials in the clear by then, and is to find out.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from ..exceptions import ConfigurationError
from ..types import RawHeaders, Scope
from . import headers as raw
from .origins import parse_host

SECURE_SCHEMES = frozenset({"https", "wss"})

_YEAR = 31_536_000.0
_MOST = 10 * _YEAR
# What RFC 3986 allows in a path, with the percent signs that are there already; what else there is gets escaped.
_PATH = "/%:@!$&'()*+,;=-._~"
_QUERY = _PATH + "?"


@dataclass(frozen=True, slots=True, kw_only=True)
class HSTSOptions:
    """What browsers are told to remember: to ask this host over TLS only.

    :param max_age: seconds, a year by default; 0 makes browsers forget. It cannot be taken back from a browser that
        does not come again.
    :param include_subdomains: hosts below this one as well. ``False`` by default: they may be somebody else's.
    :param preload: consent to be put on browsers' built-in list, which takes ``include_subdomains`` and a year.
    """

    max_age: float = _YEAR
    include_subdomains: bool = False
    preload: bool = False

    def __post_init__(self) -> None:
        age: object = self.max_age
        if isinstance(age, bool) or not isinstance(age, int | float) or not 0 <= age <= _MOST:
            raise ConfigurationError.option("HSTSOptions", "max_age", age, f"0 to {_MOST:.0f} seconds")
        for option in ("include_subdomains", "preload"):
            if not isinstance(getattr(self, option), bool):
                raise ConfigurationError.option("HSTSOptions", option, getattr(self, option), "True or False")
        if self.preload and not (self.include_subdomains and self.max_age >= _YEAR):
            expected = f"False, unless include_subdomains is True and max_age at least {_YEAR:.0f}"
            raise ConfigurationError.option("HSTSOptions", "preload", True, expected)

    @property
    def line(self) -> tuple[bytes, bytes]:
        """The header."""
        value = f"max-age={int(self.max_age)}"
        value += "; includeSubDomains" if self.include_subdomains else ""
        value += "; preload" if self.preload else ""
        return b"strict-transport-security", value.encode()


def with_hsts(given: RawHeaders, line: tuple[bytes, bytes]) -> RawHeaders:
    """``given`` with the header, unless the app has set its own: browsers heed the first only."""
    return list(given) if raw.get(given, line[0]) is not None else [*given, line]


def asks_for_page(scope: Scope) -> bool:
    """Whether a browser loads a page by this HTTP request, as far as can be told: without TLS they leave
    ``Sec-Fetch-Mode`` out, save on loopback."""
    given: RawHeaders = scope.get("headers") or []
    if scope["method"] not in ("GET", "HEAD") or raw.get(given, b"authorization") is not None:
        return False
    mode = raw.get(given, b"sec-fetch-mode")
    if mode is not None:
        return mode == b"navigate"
    if raw.get(given, b"origin") is not None:  # navigations by GET have none
        return False
    return raw.names_media_type(raw.combined(given, b"accept"), b"text/html")


def secure_location(scope: Scope, port: int) -> bytes | None:
    """The same URL over TLS; None where the request does not tell a host or a path that could stand in it."""
    hosts = raw.get_all(scope.get("headers") or (), b"host")
    asked = parse_host(hosts[0], "http") if len(hosts) == 1 else None
    path: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass").replace(b"%", b"%25")
    if asked is None or not path.startswith(b"/"):
        return None
    query: bytes = scope.get("query_string") or b""
    url = str(asked._replace(scheme="https", port=port)) + quote(path, safe=_PATH)
    return (url + ("?" + quote(query, safe=_QUERY) if query else "")).encode("ascii")
