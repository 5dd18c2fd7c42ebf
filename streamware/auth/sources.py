"""Where a ``JWTVerifier`` takes its keys from, by its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..checks import check
from ..observe import Observer
from ..types import Clock
from . import options
from .discovery import Discovery
from .fetch import Fetch, FetchError, HTTPFetch
from .given import Given, given_keys, keys_in_file
from .jwks import FetchedKeys, FetchedSet, FileSet, GivenKeys, Keys, Reader, Source, members_of
from .keys import SYMMETRIC, BadKey, KeyRing, VerifyingKey, fetched_keys


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """What decides how keys are fetched: the options of the verifier, checked."""

    owner: str
    issuer: str
    algorithms: frozenset[str]
    cooldown: float
    max_age: float
    stale: float
    timeout: float
    insecure: bool
    clock: Clock
    observer: Observer


def keys_of(
    given: KeyOptions,
    jwks: str | Path | Mapping[str, object] | None,
    key: Given | None,
    metadata: str | None,
    fetch: Fetch | None,
) -> tuple[Keys, HTTPFetch | None]:
    """The keys, and the client that is theirs alone, to be closed with them.

    :raises ConfigurationError: they cannot be had that way.
    """
    owner, algorithms = given.owner, given.algorithms
    if key is not None:
        return GivenKeys(KeyRing(given_keys(owner, "key", key, algorithms), algorithms)), None
    if isinstance(jwks, Mapping):
        return GivenKeys(KeyRing(given_keys(owner, "jwks", jwks, algorithms), algorithms)), None
    if isinstance(jwks, Path):
        given_keys(owner, "jwks", jwks, algorithms)  # what is wrong with it now shall be said now
        return _kept(given, FileSet(jwks), lambda document: _of_file(document, algorithms), str(jwks)), None

    check(owner, not algorithms <= SYMMETRIC, "key", None, "the secret: one that is fetched would be known to all")
    if jwks is not None:
        name = options.web_address(owner, "jwks", jwks, insecure=given.insecure)
    else:
        name = given.issuer
        expected = "an https:// URL, or keys have to be given by jwks or key"
        check(owner, options.may_fetch(name, insecure=given.insecure), "issuer", name, expected)
        if metadata is not None:
            options.web_address(owner, "metadata", metadata, insecure=given.insecure)
    own: HTTPFetch | None = None
    if fetch is None:
        fetch = own = HTTPFetch(insecure=given.insecure)
    place: str | Discovery = name
    if jwks is None:
        place = Discovery(name, fetch, url=metadata, insecure=given.insecure, timeout=given.timeout)

    def read(document: bytes) -> list[VerifyingKey]:
        return fetched_keys(
            members_of(document),
            algorithms,
            lambda reason: given.observer.count("auth.key_skipped", reason=reason),
        )

    source = FetchedSet(fetch, place, timeout=given.timeout, clock=given.clock)
    return _kept(given, source, read, options.shown(name)), own


def _kept(given: KeyOptions, source: Source, read: Reader, name: str) -> FetchedKeys:
    return FetchedKeys(
        source,
        read,
        lambda keys: KeyRing(keys, given.algorithms),
        cooldown=given.cooldown,
        max_age=given.max_age,
        stale=given.stale,
        clock=given.clock,
        observer=given.observer,
        name=name,
    )


def _of_file(document: bytes, algorithms: frozenset[str]) -> list[VerifyingKey]:
    try:
        return keys_in_file(document, algorithms)
    except BadKey as bad:
        raise FetchError(bad.reason) from None
