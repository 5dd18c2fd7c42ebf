"""Whose limits they are: the key that a request is counted under.

A key is never written anywhere as it is: storages hash it, and nothing of it is logged. Keys of different kinds never
meet, for each begins with its kind. Whatever requests say, a key is short: a long one is known by its hash, for memory
keeps many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeAlias

from ..exceptions import ConfigurationError
from ..streams.owner import principal_of
from ..types import Scope
from ..wire import headers
from ..wire.addresses import client_of

#: What ``key=`` may be: one of the names below, or a function that returns the key, or None for "not limited".
Key: TypeAlias = str | Callable[[Scope], str | None]

_KNOWN_ADDRESSES = 4096
#: Longer texts are known by their hashes.
LONGEST = 128


def key_function(owner: str, given: Key) -> Callable[[Scope], str | None]:
    """The function that ``key=`` names.

    :raises ConfigurationError: it names none.
    """
    if callable(given):
        function = given

        def own(scope: Scope) -> str | None:
            key = function(scope)
            if key is not None and not isinstance(key, str):
                raise TypeError(f"key= returned {type(key).__name__}, it must return a string or None")
            return None if key is None else _of("own", key)

        return own
    try:
        return _NAMED[given]
    except (KeyError, TypeError):
        expected = f"one of {', '.join(map(repr, _NAMED))}, or a function of the scope"
        raise ConfigurationError.option(owner, "key", given, expected) from None


def _of(kind: str, text: str) -> str:
    """The key of ``text``."""
    if len(text) <= LONGEST:
        return f"{kind}:{text}"
    return f"{kind}-hash:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def by_principal(scope: Scope) -> str:
    """Who is authenticated, Streamware's, Django's or Starlette's user; where nobody is, the client's address."""
    principal = principal_of(scope)
    return by_ip(scope) if principal is None else _of("principal", principal)


def by_token(scope: Scope) -> str:
    """The API token, as a hash: several of one user count apart. Without one, the client's address."""
    known: object = getattr(scope.get("user"), "token_hash", b"")
    if isinstance(known, bytes) and known:
        return f"token:{known.hex()}"
    scheme, _, token = (headers.get(scope.get("headers") or (), b"authorization") or b"").partition(b" ")
    token = token.strip()
    if scheme.lower() != b"bearer" or not token:
        return by_ip(scope)
    return f"token:{hashlib.sha256(token).hexdigest()}"


def by_ip(scope: Scope) -> str:
    """The client's address, as ``ClientIPMiddleware`` or the server has it; of IPv6 its first 64 bits. All without one
    (a Unix socket) are one client."""
    client = scope.get("client")
    host = str(client[0]) if client else ""
    key = _addresses.get(host)
    if key is None:
        key = f"ip:{client_of(host)}"
        if len(_addresses) >= _KNOWN_ADDRESSES:
            _addresses.clear()
        _addresses[host] = key
    return key


_addresses: dict[str, str] = {}


_NAMED: dict[str, Callable[[Scope], str | None]] = {"principal": by_principal, "token": by_token, "ip": by_ip}
