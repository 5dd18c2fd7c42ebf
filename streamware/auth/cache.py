"""What was verified of late, by the SHA-256 of the token.

Rules:

1. Nothing is remembered past ``exp``, nor for longer than ``ttl``, nor for more tokens than ``capacity``: the one that
   was not asked for the longest goes first.
2. No token is kept, only its hash. What was refused is remembered in a cache of its own (``RefusedCache``), so that a
   flood of forged tokens pushes no good one out.
3. Two clocks: ``ttl`` runs on the monotonic one, ``exp`` on the wall's, for either may stand still or jump.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256

from .claims import Verified
from .principal import Principal
from .token import MAX_TOKEN

INFINITY = float("inf")


def token_hash(token: str) -> bytes:
    """The SHA-256 of a token; of whatever text, for nothing is known of it yet."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


class VerifiedCache:
    """Verified tokens. ``now``: monotonic seconds; ``wall``: seconds since 1970. ``ttl`` 0 remembers nothing."""

    __slots__ = ("_capacity", "_entries", "_now", "_ttl", "_wall")

    def __init__(self, capacity: int, ttl: float, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self._capacity = capacity
        self._ttl = ttl
        self._now = now
        self._wall = wall
        self._entries: OrderedDict[bytes, tuple[float, float, Verified]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def recall(self, token: str) -> Principal | None:
        """A new principal of a token that is remembered."""
        # A token over the cap was never verified; hashing it would only take time.
        return self.find(token_hash(token)) if len(token) <= MAX_TOKEN else None

    def find(self, digest: bytes) -> Principal | None:
        """The same by the token's hash."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        if self._now() >= entry[0] or self._wall() >= entry[1]:
            del self._entries[digest]
            return None
        self._entries.move_to_end(digest)
        return entry[2].principal()

    def remember(self, verified: Verified) -> None:
        """Keep it for as long as rule 1 allows."""
        if self._ttl <= 0 or (verified.expires_at is not None and verified.expires_at <= self._wall()):
            return
        expires_at = INFINITY if verified.expires_at is None else verified.expires_at
        self._entries[verified.token_hash] = (self._now() + self._ttl, expires_at, verified)
        self._entries.move_to_end(verified.token_hash)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def forget(self, digest: bytes) -> None:
        """Let it be verified anew."""
        self._entries.pop(digest, None)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()


class RefusedCache:
    """Tokens that were refused, and why."""

    __slots__ = ("_capacity", "_entries", "_now", "_ttl")

    def __init__(self, capacity: int, ttl: float, now: Callable[[], float]) -> None:
        self._capacity = capacity
        self._ttl = ttl
        self._now = now
        self._entries: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def reason(self, digest: bytes) -> str | None:
        """Why the token of this hash was refused of late."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        if self._now() >= entry[0]:
            del self._entries[digest]
            return None
        return entry[1]

    def remember(self, digest: bytes, reason: str) -> None:
        if self._ttl <= 0:
            return
        # In the order of their end, for all live equally long: what goes first ends first.
        self._entries.pop(digest, None)
        self._entries[digest] = (self._now() + self._ttl, reason)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        self._entries.clear()
