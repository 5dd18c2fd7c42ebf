"""For how long one connection may go on: as long as what it was authenticated with holds.

Whoever authenticates stands outside of what transforms bodies, so it cannot end a response itself. It leaves a
``Tenure`` in the scope; whoever is further in and can end the connection holds on to it. Rules:

1. A request pays for one small object. Only a response that proves to be a stream, and a WebSocket that is accepted, is
   held: listed, and timed if its time is limited.
2. The innermost that holds it ends it. Where a log is read, it is the reader that ends, never the log.
3. What happened to the holder between its request and the beginning of its stream counts as if the stream had begun.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, Protocol

from ..types import Scope
from .ending import Ending
from .timers import Timer

INFINITY = float("inf")

#: Seconds after which a warning that could not be put between two events is tried again.
AGAIN = 0.5


class Holder(Protocol):
    """Who asks, as far as streams care: ``auth.principal.Principal`` is one."""

    issuer: str
    subject: str
    expires_at: float | None
    claims: Mapping[str, object]


class Party(Protocol):
    """What can end a connection in its app's place."""

    def dismiss(self, ending: Ending, retry: int) -> Coroutine[Any, Any, object] | None:
        """End it. What is returned is to be awaited, in a task. ``retry``: milliseconds after which an EventSource is
        to come back."""
        ...


class Warns(Party, Protocol):
    """One that can also say something beforehand."""

    def warn(self, event: bytes) -> bool:
        """Say it, if its client can take it. False: not now, try again."""
        ...


class Stops(Protocol):
    """Runs streams that outlive connections."""

    def stop_all_of(self, who: str) -> int:
        """Stop what ``who`` has started; how many."""
        ...


class Term(Protocol):
    """All tenures of a worker, as one of them needs to know them: ``tenures.Tenures``."""

    def join(self, stops: Stops) -> None:
        """``stops`` has streams of holders that go on without a connection."""

    def held(self, tenure: Tenure) -> None:
        """It is a stream, or an open WebSocket."""

    def released(self, tenure: Tenure) -> None:
        """It was, and is no longer."""

    def due(self, tenure: Tenure) -> None:
        """The time has come for which its timer was set."""


class Tenure:
    """One connection's. ``holder``, ``token``: who asks, and with what; "" where the verifier is not to be asked again.
    ``epoch``: of the disconnects when the request came. Once it is held: ``who``, by which disconnects know the holder,
    "" for nobody; ``began``, ``ends``, ``warns``, ``checked``: when it was, when it ends, when its client is warned,
    and when its token is looked at again."""

    __slots__ = (
        "_connection", "_reader", "began", "checked", "ends", "epoch", "holder", "is_held", "scope", "term", "timer",
        "token", "warns", "who",
    )  # fmt: skip

    def __init__(self, term: Term, scope: Scope, holder: Holder, token: str, epoch: int) -> None:
        self.term = term
        self.scope = scope
        self.holder = holder
        self.token = token
        self.epoch = epoch
        self.is_held = False
        self._connection: Warns | None = None
        self._reader: Party | None = None

    def hold(self, connection: Warns) -> None:
        """``connection`` can end it. Called from the outside in: the last counts."""
        self._connection = connection
        self._begin()

    def follow(self, reader: Party | None) -> None:
        """``reader`` follows a log over the connection; None: no longer."""
        self._reader = reader
        if reader is not None:
            self._begin()

    def _begin(self) -> None:
        if not self.is_held:
            self.is_held = True
            self.timer: Timer | None = None
            self.who = ""
            self.began = 0.0
            self.ends = self.warns = self.checked = INFINITY
            self.term.held(self)

    def release(self) -> None:
        """The call has ended. Harmless where it was never held, and twice."""
        if self.is_held:
            self.is_held = False
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None
            self.term.released(self)

    def fire(self) -> None:
        """Its timer has."""
        self.timer = None
        if self.is_held:
            self.term.due(self)

    @property
    def next(self) -> float:
        """When something is to be done about it."""
        return min(self.ends, self.warns, self.checked)

    def dismiss(self, ending: Ending, retry: int) -> Coroutine[Any, Any, object] | None:
        """End the connection, as ``Party`` says."""
        party = self._connection if self._reader is None else self._reader
        return None if party is None else party.dismiss(ending, retry)

    def warn(self, event: bytes) -> bool:
        """As ``Warns`` says."""
        return self._connection is None or self._connection.warn(event)
