"""The options that several verifiers share, checked alike."""

from __future__ import annotations

import math
from collections.abc import Iterable
from ipaddress import ip_address
from typing import cast
from urllib.parse import urlsplit

from ..checks import is_number, is_text, is_whole
from ..exceptions import ConfigurationError


def seconds(owner: str, option: str, received: object, *, least: float = 0.0, most: float = math.inf) -> float:
    """A duration of ``least`` to ``most``."""
    expected = f"{least:g} seconds or more" if most == math.inf else f"{least:g} to {most:g} seconds"
    if not is_number(received) or not least <= received <= most:
        raise ConfigurationError.option(owner, option, received, expected)
    return float(received)


def count(owner: str, option: str, received: object, *, least: int = 1) -> int:
    """A whole number of at least ``least``."""
    if not is_whole(received, least):
        raise ConfigurationError.option(owner, option, received, f"a whole number of at least {least}")
    return received


def text(owner: str, option: str, received: object, expected: str = "text that is not empty") -> str:
    """Text, not empty."""
    if not is_text(received):
        raise ConfigurationError.option(owner, option, received, expected)
    return received


def names(owner: str, option: str, received: object, expected: str = "a list of names") -> frozenset[str]:
    """One name, or several; none is an error."""
    if isinstance(received, str):
        received = [received]
    if isinstance(received, bytes) or not isinstance(received, Iterable):
        raise ConfigurationError.option(owner, option, received, expected)
    given = list(cast("Iterable[object]", received))
    if not given or not all(isinstance(name, str) and name for name in given):
        raise ConfigurationError.option(owner, option, given, expected)
    return frozenset(str(name) for name in given)


def ordered(owner: str, option: str, received: object, expected: str) -> tuple[str, ...]:
    """As ``names``, in the order given."""
    given = list(cast("Iterable[str]", received)) if isinstance(received, Iterable) else []
    checked = names(owner, option, received if isinstance(received, str) else given, expected)
    return tuple(checked) if isinstance(received, str) else tuple(dict.fromkeys(given))


def web_address(owner: str, option: str, received: object, *, insecure: bool) -> str:
    """A URL that may be fetched: ``https``; ``http`` only where ``insecure``, and only on this machine.

    :raises ConfigurationError: it is another. The text holds nothing of a URL with a password.
    """
    expected = "an https:// URL without user, password or fragment"
    if not isinstance(received, str) or not may_fetch(received, insecure=insecure):
        shown = received if isinstance(received, str) and "@" not in received else "…"
        raise ConfigurationError.option(owner, option, shown, expected)
    return received


def may_fetch(url: str, *, insecure: bool) -> bool:
    """Whether ``url`` is one that tokens and keys may be asked for at."""
    if not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or "@" in parts.netloc or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and insecure and is_loopback(host))


def is_loopback(host: str) -> bool:
    """Whether ``host`` names this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def shown(url: str) -> str:
    """``url`` as logs may have it: without a query."""
    return url.partition("?")[0]
