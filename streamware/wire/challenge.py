"""The challenge of a refusal (RFC 6750, section 3, and RFC 9728, section 5.1), and the refusal itself.

A refusal says to the client which of the standard's errors it is, in words that are the same for every cause, and to
the operator its reason. Nothing of a request is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from ..exceptions import ConfigurationError
from .denial import Denial

INVALID_REQUEST = "invalid_request"
INVALID_TOKEN = "invalid_token"
INSUFFICIENT_SCOPE = "insufficient_scope"

#: The codes that WebSockets are closed with that are accepted to be refused, by the status that HTTP would have.
CLOSE_CODES: Mapping[int, int] = {400: 4400, 401: 3000, 403: 3003, 503: 4503}

#: By status: the title and detail of the problem, and the description in the challenge.
_TEXTS = {
    400: ("Bad Request", "The request must show exactly one access token, in one of the ways that are accepted here."),
    401: ("Unauthorized", "The access token is not valid: it may be malformed, expired or revoked."),
    403: ("Forbidden", "The access token does not allow this."),
    429: ("Too Many Requests", "Too many tickets are waiting to be used."),
    503: ("Service Unavailable", "Whether the access token is valid cannot be told at the moment."),
}
_NO_TOKEN = "An access token is needed."
_CROSS_SITE = "Another site must not make this request with the cookies of this one."


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nobody is let in. ``reason``: for counters and logs; ``error``: the code of RFC 6750, "" where the request
    shows no credential, or where it is not the credential's fault; ``scopes``: that would be needed."""

    status: int
    reason: str
    error: str = ""
    scopes: tuple[str, ...] = ()
    retry_after: float | None = None

    @property
    def description(self) -> str:
        """What the client is told, in words."""
        if not self.error and self.status in (401, 403):
            return _NO_TOKEN if self.status == 401 else _CROSS_SITE
        return _TEXTS[self.status][1]

    def denial(self, realm: str, resource_metadata: str = "") -> Denial:
        """The answer, with the challenge that its status has."""
        lines: tuple[tuple[bytes, bytes], ...] = ()
        if self.status == 401 or self.error:
            lines = ((b"www-authenticate", self.challenge(realm, resource_metadata)),)
        extra: dict[str, str | int | None] = {}
        if self.error:
            extra["error"] = self.error
        if self.error == INSUFFICIENT_SCOPE:
            extra["scope"] = " ".join(self.scopes)
        title = _TEXTS[self.status][0]
        return Denial(self.status, title, self.description, self.retry_after, headers=lines, extra=extra)

    def challenge(self, realm: str, resource_metadata: str = "") -> bytes:
        """The value of ``WWW-Authenticate``."""
        given = {
            "realm": realm,
            "error": self.error,
            "error_description": self.description if self.error else "",
            "scope": " ".join(self.scopes),
            "resource_metadata": resource_metadata,
        }
        parameters = ", ".join(f"{name}={quoted(value)}" for name, value in given.items() if value)
        return f"Bearer {parameters}".encode("latin-1", "replace")


def quoted(value: str) -> str:
    """``value`` as a quoted string (RFC 9110, section 5.6.4)."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def close_codes_of(owner: str, given: object) -> Mapping[int, int]:
    """The option ``close_codes`` of ``owner``, over the defaults."""
    # Others daphne does not let an app close with.
    expected = "a mapping of 400, 401, 403 or 503 to codes from 3000 to 4999"
    if given is None:
        return CLOSE_CODES
    if not isinstance(given, Mapping):
        raise ConfigurationError.option(owner, "close_codes", given, expected)
    codes = cast("Mapping[object, object]", given)
    checked = {
        status: code
        for status, code in codes.items()
        if isinstance(status, int) and status in CLOSE_CODES and isinstance(code, int) and 3000 <= code <= 4999
    }
    if len(checked) != len(codes):
        raise ConfigurationError.option(owner, "close_codes", codes, expected)
    return {**CLOSE_CODES, **checked}
