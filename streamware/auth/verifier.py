"""What every verifier of tokens keeps to.

Rules:

1. Any text may come as a token, and only two exceptions leave: ``TokenRefused`` and ``VerifierUnavailable``. A caller
   that shows nothing valid can never cause another.
2. Neither of them, nor anything logged, carries the token, a claim or a key.
"""

from __future__ import annotations

from typing import Protocol

from .principal import Principal


class TokenRefused(Exception):
    """The token is not to be believed. ``reason``: a short fixed word for counters and logs (``expired``,
    ``signature``, ``issuer`` …), never told to the client, who hears ``invalid_token`` whatever it is."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class VerifierUnavailable(Exception):
    """Whether the token is good cannot be told now: keys or introspection are out of reach. ``reason``: as above;
    ``retry_after``: seconds after which another try may do."""

    def __init__(self, reason: str, retry_after: float = 5.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class Verifier(Protocol):
    """Tells whose token it is. ``JWTVerifier``, ``IntrospectionVerifier`` or one of your own."""

    def recall(self, token: str) -> Principal | None:
        """The principal of a token that was verified of late and is still good, without waiting: a new object each
        time. None: ``verify`` has to tell."""
        ...

    async def verify(self, token: str, *, client: str = "") -> Principal:
        """The principal of a token. ``client``: the address that it came from, by which failures may be limited.

        :raises TokenRefused: it is not good.
        :raises VerifierUnavailable: that cannot be told now.
        """
        ...

    async def startup(self) -> None:
        """Open connections, begin to fetch. Idempotent, and not required before the first use."""

    async def aclose(self) -> None:
        """Release everything. Idempotent; ``startup`` may follow."""
