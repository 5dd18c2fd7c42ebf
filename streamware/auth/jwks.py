"""The keys of an issuer, kept while they are good, and fetched so that neither an outage nor an attacker matters.

Rules:

1. One fetch at a time, in a task of its own: whoever waits for it may be cancelled, and it goes on for the others.
2. Keys are fresh for as long as the issuer says (``Cache-Control: max-age``), within bounds. Shortly before the end the
   next token sets off a fetch, and does not wait for it.
3. Keys that are no longer fresh are fetched before they are used. Where that fails, they are good for ``stale`` more
   seconds, and nobody waits for an issuer that is known to be away.
4. A token with a key's id that is unknown sets off a fetch, but not within ``cooldown`` of the last one that was made
   for such a token, or that failed: ten thousand forged ids cause one fetch a cooldown.
5. Nothing is fetched when a verifier is built, and start-up waits for nobody unless asked to.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from ..observe import Observer
from ..types import Clock
from .fetch import Fetch, FetchError, FetchRequest
from .token import JSON, Compact, read_json
from .verifier import TokenRefused, VerifierUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from .discovery import Discovery
    from .keys import Check, KeyRing, VerifyingKey

logger = logging.getLogger("streamware.auth")

MAX_JWKS = 256 * 1024
#: Seconds that keys are fresh for where the issuer does not say, and the least that it may say.
DEFAULT_AGE = 600.0
MIN_AGE = 60.0
#: Seconds after which the place of a key set is looked up anew.
PLACE_AGE = 86_400.0
#: No load takes longer, whatever stands behind it, in seconds.
LOAD_WITHIN = 30.0
_NEVER = float("-inf")

#: Loads the keys' document: (bytes, seconds that they are fresh for or None where that is not said).
Source = Callable[[], Awaitable[tuple[bytes, float | None]]]
#: Makes keys of it, and tells the observer of those that it leaves out.
Reader = Callable[[bytes], "list[VerifyingKey]"]


class Keys(Protocol):
    """Where a verifier finds keys."""

    def find(self, token: Compact) -> tuple[Check, ...]:
        """How the signature of ``token`` may be checked, as far as that can be told now; none: ``seek``."""
        ...

    async def seek(self, token: Compact) -> tuple[Check, ...]:
        """The same, where need be after a fetch.

        :raises TokenRefused: there is no such key.
        :raises VerifierUnavailable: whether there is one cannot be told.
        """
        ...

    async def startup(self, *, wait: bool) -> None:
        """Begin to fetch; ``wait`` for it.

        :raises VerifierUnavailable: waited in vain.
        """

    async def aclose(self) -> None:
        """End what is under way."""


class GivenKeys:
    """Keys that stand in the configuration."""

    def __init__(self, ring: KeyRing) -> None:
        self.find = ring.checks

    async def seek(self, token: Compact) -> tuple[Check, ...]:
        raise TokenRefused("key")

    async def startup(self, *, wait: bool) -> None:
        return None

    async def aclose(self) -> None:
        return None


class FetchedKeys:
    """Keys that are fetched by the rules of this module.

    :param source: loads the document; ``read`` makes keys of it, ``ring`` an index of them.
    :param cooldown: seconds between fetches that tokens with unknown keys set off, and after one that failed.
    :param max_age: seconds that keys are fresh for at most; ``stale``: that they are used beyond that in an outage.
    """

    def __init__(
        self,
        source: Source,
        read: Reader,
        ring: Callable[[list[VerifyingKey]], KeyRing],
        *,
        cooldown: float,
        max_age: float,
        stale: float,
        clock: Clock,
        observer: Observer,
        name: str,
    ) -> None:
        self._source = source
        self._read = read
        self._make_ring = ring
        self._cooldown = cooldown
        self._max_age = max_age
        self._stale = stale
        self._clock = clock
        self._observer = observer
        self._name = name
        self._ring: KeyRing | None = None
        self._refresh_at = self._fresh_until = self._stale_until = _NEVER
        # No fetch before: of any kind, and for an unknown key.
        self._retry_at = self._seek_at = _NEVER
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    def find(self, token: Compact) -> tuple[Check, ...]:
        now = self._clock.now()
        if now >= self._refresh_at:
            if self._must_wait(now):
                return ()
            self._begin(now)
        return () if self._ring is None else self._ring.checks(token)

    async def seek(self, token: Compact) -> tuple[Check, ...]:
        now = self._clock.now()
        waited = self._must_wait(now) and await self._fetched(now)
        if self._ring is None or self._clock.now() >= self._stale_until:
            raise self._unavailable()
        if checks := self._ring.checks(token):
            return checks
        if not waited and (self._running() or now >= self._seek_at) and await self._fetched(now):
            waited = True
            if checks := self._ring.checks(token):
                return checks
        if waited:
            self._seek_at = max(self._seek_at, now + self._cooldown)
        raise self._unavailable() if self._failing else TokenRefused("key")

    async def startup(self, *, wait: bool) -> None:
        now = self._clock.now()
        if now < self._fresh_until:
            return
        if not wait:
            self._begin(now)
            return
        await self._fetched(now)
        if self._ring is None:
            raise self._unavailable()

    async def aclose(self) -> None:
        task, self._task = self._task, None
        if task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait([task])

    # -- when

    def _must_wait(self, now: float) -> bool:
        if self._ring is None or now >= self._stale_until:
            return True
        return now >= self._fresh_until and not self._failing

    def _running(self) -> asyncio.Task[None] | None:
        task = self._task
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            return None
        return task

    def _begin(self, now: float) -> asyncio.Task[None] | None:
        """The fetch under way, or a new one; None where it is too early for one."""
        task = self._running()
        if task is None and now >= self._retry_at:
            task = self._task = asyncio.get_running_loop().create_task(self._load(), name="streamware-keys")
        return task

    async def _fetched(self, now: float) -> bool:
        """Wait for a fetch. False: it is too early for one."""
        task = self._begin(now)
        if task is None:
            return False
        await asyncio.wait([task])  # unlike ``await task``: who is cancelled here ends nothing for the others
        return True

    def _unavailable(self) -> VerifierUnavailable:
        return VerifierUnavailable("keys", max(1.0, self._retry_at - self._clock.now()))

    # -- the fetch

    async def _load(self) -> None:
        reason = "unexpected"
        try:
            async with asyncio.timeout(LOAD_WITHIN):
                document, age = await self._source()
            ring = self._make_ring(self._read(document))
        except FetchError as error:
            reason = error.reason
        except TimeoutError:
            reason = "timeout"
        except Exception as error:
            # Its type alone: what a client of somebody's own puts into the text is not known.
            logger.error("keys of %s: %s while loading", self._name, type(error).__name__)
        else:
            self._succeeded(ring, age)
            return
        self._failed(reason)

    def _succeeded(self, ring: KeyRing, age: float | None) -> None:
        now = self._clock.now()
        age = min(max(DEFAULT_AGE if age is None else age, MIN_AGE), self._max_age)
        self._ring = ring
        self._fresh_until = now + age
        self._stale_until = self._fresh_until + self._stale
        # Workers that were started together do not ask together.
        self._refresh_at = now + age * random.uniform(0.7, 0.9)
        self._retry_at = _NEVER
        self._observer.count("auth.keys_fetched")
        if self._failing:
            logger.info("keys of %s: there again", self._name)
        self._failing = False
        if not ring.count:
            logger.error("keys of %s: none of the set can be used; no token will verify", self._name)

    def _failed(self, reason: str) -> None:
        self._observer.count("auth.keys_failed", reason=reason)
        self._retry_at = self._clock.now() + self._cooldown
        if not self._failing:
            state = "no token can be verified" if self._ring is None else "going on with those that are there"
            logger.warning("keys of %s: not to be had (%s); %s", self._name, reason, state)
        self._failing = True


class FetchedSet:
    """The source of a key set on the web. ``place``: its URL, or the metadata that name it."""

    def __init__(self, fetch: Fetch, place: str | Discovery, *, timeout: float, clock: Clock) -> None:
        self._fetch = fetch
        self._place = place
        self._timeout = timeout
        self._clock = clock
        self._url = place if isinstance(place, str) else None
        self._found_at = _NEVER

    async def __call__(self) -> tuple[bytes, float | None]:
        if not isinstance(self._place, str) and (self._url is None or self._clock.now() >= self._found_at + PLACE_AGE):
            self._url = await self._place.endpoint("jwks_uri")
            self._found_at = self._clock.now()
        url = str(self._url)
        headers = {"accept": "application/jwk-set+json, application/json"}
        try:
            request = FetchRequest(url, headers=headers, max_bytes=MAX_JWKS, timeout=self._timeout)
            response = await self._fetch.fetch(request)
            if response.status != 200:
                raise FetchError("status")
            if len(response.body) > MAX_JWKS:
                raise FetchError("size")
        except Exception:
            if not isinstance(self._place, str):
                self._url = None  # it may have moved
            raise
        return response.body, max_age(response.headers)


class FileSet:
    """The source of keys in a file, which may be replaced while it is in use."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __call__(self) -> tuple[bytes, float | None]:
        try:
            return await asyncio.to_thread(self._path.read_bytes), MIN_AGE
        except OSError:
            raise FetchError("file") from None


def members_of(document: bytes) -> list[JSON]:
    """The members of a JWK Set (RFC 7517, section 5).

    :raises FetchError: it is none.
    """
    try:
        value = read_json(document)
    except (ValueError, RecursionError):
        raise FetchError("document") from None
    members = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(members, list):
        raise FetchError("document")
    return members


def max_age(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer is fresh for (RFC 9111); None where it does not say."""
    directives = [part.strip().lower() for part in headers.get("cache-control", "").split(",")]
    if "no-store" in directives or "no-cache" in directives:
        return 0.0
    for directive in directives:
        name, _, value = directive.partition("=")
        if name == "max-age" and value.strip('"').isdecimal() and len(value) < 12:
            return float(value.strip('"'))
    return None
