"""What the servers that run us can do, told from the scope they give (measured; see docs/servers.md)."""

from __future__ import annotations

from ..types import Scope


def cuts_visibly(scope: Scope) -> bool:
    """Whether returning without a final body ends the connection, and so tells the client that something is missing.

    uvicorn, hypercorn's HTTP/1.1 and granian do. daphne (no ``spec_version``) and hypercorn's HTTP/2 leave the
    connection open for ever; what is not known is treated like them. Over HTTP/1.0 the end of the connection is the
    proper end of a body without a length (RFC 9112 §6.3), so nobody cuts there; granian calls it "1".
    """
    if not _states_version(scope):
        return False
    version = str(scope.get("http_version", ""))
    return version == "1.1" or (_is_granian(scope) and not version.startswith("1"))


def accepts_without_limit(scope: Scope) -> bool:
    """Whether ``send`` never waits for a client that does not read: daphne, and hypercorn's HTTP/2."""
    if not _states_version(scope):
        return True
    return not str(scope.get("http_version", "")).startswith("1") and not _is_granian(scope)


def spec_version(scope: Scope) -> tuple[int, ...]:
    """The version of the ASGI specification that the server states for this scope; (2, 0) where it states none."""
    about: dict[str, str] = scope.get("asgi") or {}
    stated = about.get("spec_version", "2.0")
    return tuple(int(part) for part in stated.split(".") if part.isdigit())


def takes_any_close_code(scope: Scope) -> bool:
    """Whether a WebSocket may be closed with any code; daphne raises for all but 1000 and 3000 to 4999. What is not
    known is treated like it."""
    return _states_version(scope)


def _states_version(scope: Scope) -> bool:
    return "spec_version" in (scope.get("asgi") or {})


def _is_granian(scope: Scope) -> bool:
    return "http.response.pathsend" in (scope.get("extensions") or {})
