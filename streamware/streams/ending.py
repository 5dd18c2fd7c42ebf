"""Why a connection is ended in its app's place, and what its client is told: for drain, expiry and disconnects alike.

Rules:

1. What is said last never looks complete: an EventSource, that comes back after any end, gets a control event, which
   other clients would choke on; they get an ``error`` event, or a line of NDJSON.
2. Fixed words only. Nothing of a request, a user or a token is in them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from ..types import Scope
from ..wire import sse
from ..wire.denial import is_eventsource_like
from .response import error_block
from .servers import takes_any_close_code


@dataclass(frozen=True, slots=True)
class Ending:
    """One reason. ``reason``: for counters, and for programs, as ``streamware.{reason}``. ``text``: for people.
    ``event``: the control event for an EventSource. ``code``, ``close_reason``: of a WebSocket's close;
    ``code_allowed``: where the server raises for that code. ``spares``: an encoded response that the server cannot cut
    is left to run on, rather than ended in the middle of what its client decodes."""

    reason: str
    text: str
    event: str
    code: int
    code_allowed: int
    close_reason: str
    spares: bool = False

    def close_code(self, scope: Scope) -> int:
        """The code for one WebSocket."""
        return self.code if takes_any_close_code(scope) else self.code_allowed

    @property
    def error(self) -> dict[str, dict[str, str]]:
        """What programs are told."""
        return {"error": {"type": f"streamware.{self.reason}", "message": self.text}}

    def control_event(self, retry: int, cursor: str = "") -> bytes:
        """What an EventSource is told: to come back in ``retry`` milliseconds, why it was ended, and the cursor behind
        the last event of a stream that can be read on."""
        told = {"reason": self.reason, "cursor": cursor} if cursor else {"reason": self.reason}
        return b"retry: %d\n" % retry + sse.control_event(self.event, told)

    def last_words(self, scope: Scope, retry: int, *, lines: bool) -> bytes:
        """What the client of a response without a log is told. ``lines``: it is NDJSON."""
        if lines:
            return msgspec.json.encode(self.error) + b"\n"
        if is_eventsource_like(scope):
            return self.control_event(retry)
        return error_block(self.error) + b"\n"


#: Of the private codes the nearest to HTTP's 503: daphne raises for 1012.
RESTART_CODE_ALLOWED = 4503

DRAINING = Ending(
    reason="draining",
    text="The stream did not complete: its server is being replaced.",
    event="interrupted",
    code=1012,
    code_allowed=RESTART_CODE_ALLOWED,
    close_reason="service restart",
    spares=True,  # the process is about to end anyway
)

AUTH_EXPIRED = Ending(
    reason="auth-expired",
    text="The stream did not complete: the token that it was asked for with holds no longer.",
    event="auth-expired",
    code=3000,  # Unauthorized
    code_allowed=3000,
    close_reason="token expired",
)

AUTH_REFUSED = replace(AUTH_EXPIRED, reason="auth-refused", close_reason="token refused")

DISCONNECTED = Ending(
    reason="disconnected",
    text="The stream did not complete: its user was disconnected.",
    event="disconnected",
    code=3003,  # Forbidden: with the same login it is no use to come back
    code_allowed=3003,
    close_reason="disconnected",
)

SUPERSEDED = Ending(
    reason="superseded",
    text="The stream did not complete: superseded.",
    event="interrupted",
    code=4409,
    code_allowed=4409,
    close_reason="superseded",
)
