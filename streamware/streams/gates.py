"""What an outer middleware leaves in the record for whoever can tell a start from a read: gates.

A throttle further out sees a cursor, the address of a stream or an idempotency key, and cannot know whether the app
will be run for it. Resume knows. So a request that may be a read passes the throttle without being charged as a start,
and what runs the app asks its gates first. A gate is also told of a stream that may outlive its connection, for what is
counted at once belongs to the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

from ..record import record_of
from ..types import Scope
from ..wire.denial import Denial


class Gate(Protocol):
    """One for each request, and each throttle."""

    #: Set once the request has come to somebody who asks gates.
    seen: bool

    async def admit(self) -> Denial | None:
        """The app is to be run for this request: None, or why not. Later calls answer None."""
        ...

    def hold(self) -> None:
        """A stream has begun, which may outlive its connection."""

    def let_go(self) -> None:
        """It has come to its outcome. Harmless twice."""


def gates_of(scope: Scope) -> Sequence[Gate]:
    """The gates that ``scope``'s request has to pass, outermost first."""
    record = record_of(scope)
    return () if record is None else cast("Sequence[Gate]", record.gates)


async def admitted(scope: Scope) -> Denial | None:
    """None where every gate lets the app be run; else the answer of the first that does not."""
    for gate in gates_of(scope):
        denial = await gate.admit()
        if denial is not None:
            return denial
    return None
