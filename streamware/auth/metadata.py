"""What a client may know of a protected resource without a token (RFC 9728): above all, who issues the tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import cast
from urllib.parse import urlsplit

import msgspec

from ..exceptions import ConfigurationError

WELL_KNOWN = "/.well-known/oauth-protected-resource"

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_URL = re.compile(r"https?://[\x21\x23-\x5B\x5D-\x7E]+").fullmatch
_OWN = frozenset({"resource", "authorization_servers", "scopes_supported", "bearer_methods_supported", "resource_name"})


class ResourceMetadata:
    """The metadata of what ``AuthMiddleware`` protects; it serves them at their well-known path, and names their URL
    in its challenges, by which clients find out where to get a token (those of MCP do).

    :param resource: the URL that clients know the resource by, and that tokens should name as their audience: https,
        without query or fragment; http on this machine only.
    :param authorization_servers: the issuers whose tokens are accepted.
    :param scopes_supported: scopes that a client may ask for; ``None`` (default): those that the middleware asks for.
    :param resource_name: a name to show to people; ``None``: none.
    :param extra: any other member of RFC 9728, as ``resource_documentation``.
    """

    def __init__(
        self,
        resource: str,
        *,
        authorization_servers: Iterable[str],
        scopes_supported: Iterable[str] | None = None,
        resource_name: str | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self.resource = checked_url("ResourceMetadata", "resource", resource)
        self.authorization_servers = tuple(
            checked_url("ResourceMetadata", "authorization_servers", each)
            for each in _listed("authorization_servers", authorization_servers)
        )
        self.scopes_supported = None if scopes_supported is None else _listed("scopes_supported", scopes_supported)
        self.resource_name = resource_name
        self.extra = dict(extra or {})
        if _OWN & self.extra.keys():
            raise ConfigurationError.option("ResourceMetadata", "extra", extra, f"without {sorted(_OWN)}")
        try:
            msgspec.json.encode(self.extra)
        except (TypeError, ValueError) as error:
            raise ConfigurationError.option("ResourceMetadata", "extra", extra, "made of JSON values") from error

    @property
    def path(self) -> str:
        """Where it is served: the well-known segment stands before the resource's own path (RFC 9728, section 3.1)."""
        path = urlsplit(self.resource).path
        return WELL_KNOWN + ("" if path == "/" else path)

    @property
    def url(self) -> str:
        """The URL of the metadata."""
        parts = urlsplit(self.resource)
        return f"{parts.scheme}://{parts.netloc}{self.path}"

    def document(self, *, scopes: Iterable[str], methods: Iterable[str]) -> bytes:
        """The JSON document. ``scopes``: those that the middleware asks for; ``methods``: of RFC 6750, by which it
        takes tokens."""
        supported = sorted(scopes) if self.scopes_supported is None else list(self.scopes_supported)
        given: dict[str, object] = {
            "resource": self.resource,
            "authorization_servers": list(self.authorization_servers),
            "scopes_supported": supported,
            "bearer_methods_supported": list(methods),
            "resource_name": self.resource_name,
            **self.extra,
        }
        # A member without a value is left out (section 2).
        return msgspec.json.encode({name: value for name, value in given.items() if value not in (None, [])})


def checked_url(owner: str, option: str, given: object) -> str:
    """An https URL, checked; http for loopback only."""
    expected = "an https URL without query and fragment (http on a loopback host only)"
    if not isinstance(given, str) or not _URL(given):
        raise ConfigurationError.option(owner, option, given, expected)
    try:
        parts = urlsplit(given)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        host = None
    if "@" in given:
        raise ConfigurationError.option(owner, option, "…@" + given.rpartition("@")[2], expected)
    if not host or "?" in given or "#" in given or (given[:5] == "http:" and host not in _LOOPBACK):
        raise ConfigurationError.option(owner, option, given, expected)
    return given


def _listed(option: str, given: object) -> tuple[str, ...]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ConfigurationError.option("ResourceMetadata", option, given, "a list of strings")
    listed = tuple(cast("Iterable[str]", given))
    if not listed or not all(isinstance(each, str) for each in listed):
        raise ConfigurationError.option("ResourceMetadata", option, listed, "a list of strings, at least one")
    return listed
