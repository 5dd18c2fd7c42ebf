"""Letting one request in: what it takes from its limits, the lease that it holds, and how it is refused.

Rules:

1. A request is charged once, whoever asks for it: at the throttle's own door, or, where it may be a read, by the gate
   that it carries to whoever can tell.
2. A lease is held by the stream where there is one, and by the call where there is none.
3. Refusals say what a client needs to come back in time; why is counted under a fixed word.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from ..wire import ratelimit
from ..wire.denial import Denial
from .base import Lease, Limit, Taken
from .guard import Guard
from .leases import Leases
from .queueing import Queue, Ticket
from .refusals import Refusals

logger = logging.getLogger("streamware.throttle")


@dataclass(slots=True, kw_only=True)
class Desk(Refusals):
    """What all admissions of one middleware share."""

    guard: Guard
    leases: Leases
    queue: Queue | None
    lease_seconds: float

    def refused(self, taken: Taken, most: int, reason: str) -> Denial | None:
        """The refusal; None in shadow mode. Counted and logged either way."""
        if taken.unknown:
            return self.refusal(taken, "store")
        if taken.full:
            return self.refusal(
                taken, "concurrent", lambda later: ratelimit.too_many_at_once(most, later, style=self.style)
            )
        return self.refusal(taken, reason)

    def refuse_waiting(self, *, gone: bool) -> Denial:
        """The refusal of who found no place in line, or did not come to its head in time; nobody hears it where the
        client is ``gone``."""
        if not gone:
            self.count("refused", "queue")
            logger.info("refused: queue")
        return ratelimit.too_many_waiting(self.later(), style=self.style)


class Admission:
    """One request, from its coming in to the end of its stream. It is the gate (``streams/gates.py``) of its throttle.

    ``key``: whose limits they are. ``taken``: the last answer, of which the response tells. ``seen``: it has come to
    somebody who asks gates. ``status``: of the response, 0 before it begins, where somebody wants to know.
    """

    __slots__ = (
        "_asked", "_by_stream", "_desk", "_lease", "_limits", "_most", "_place", "key", "seen", "status", "taken",
    )  # fmt: skip

    def __init__(self, desk: Desk, key: str, limits: Sequence[Limit], most: int | None, place: str) -> None:
        self._desk = desk
        self.key = key
        self._limits = limits
        self._most = most
        self._place = place
        self._lease: Lease | None = None
        self._asked = False
        self._by_stream = False
        self.seen = False
        self.status = 0
        self.taken: Taken | None = None

    @property
    def has_lease(self) -> bool:
        """Whether there is something that a stream may hold."""
        return self._lease is not None

    async def read(self, limits: Sequence[Limit]) -> Denial | None:
        """Let in a request that may be a read. It may still have to be admitted."""
        if not limits:
            return None
        taken = self.taken = await self._desk.guard.take(self.key, limits, (1,) * len(limits))
        return None if taken.allowed else self._desk.refused(taken, 0, "reads")

    async def admit(self, ticket: Ticket | None = None) -> Denial | None:
        """Let in a request that starts something. ``ticket``: of whoever waits, to be told if the client leaves."""
        if self._asked:
            return None
        self._asked = True
        limits, desk = self._limits, self._desk
        if not limits and self._most is None:
            return None
        lease = None
        if self._most is not None:
            lease = Lease(self._place, secrets.token_hex(8), self._most, desk.lease_seconds)
        costs = (1,) * len(limits)
        queue = desk.queue
        taken: Taken | None
        try:
            if queue is None or not desk.enforce:
                taken = await desk.guard.take(self.key, limits, costs, lease)
            else:
                taken = await self._wait(queue, limits, costs, lease, ticket or Ticket())
        except BaseException:
            if lease is not None:
                desk.leases.give_up(self.key, lease)
            raise
        if taken is None:
            return desk.refuse_waiting(gone=ticket is not None and ticket.gone)
        if not taken.allowed:
            self.taken = None  # the refusal tells itself
            if lease is not None and taken.away:
                desk.leases.give_up(self.key, lease)
            return desk.refused(taken, self._most or 0, "rate")
        self.taken = taken
        if lease is not None:
            self._lease = lease
            desk.leases.hold(self.key, lease)
        return None

    async def charge(self) -> None:
        """Take what a start costs, after the event, as far as there is any."""
        if not self._asked and self._limits:
            self._asked = True
            await self._desk.guard.take(self.key, self._limits, (1,) * len(self._limits))

    async def _wait(
        self, queue: Queue, limits: Sequence[Limit], costs: Sequence[int], lease: Lease | None, ticket: Ticket
    ) -> Taken | None:
        guard, key = self._desk.guard, self.key
        taken: Taken | None = None
        if not queue.has_line(key):
            taken = await guard.take(key, limits, costs, lease)
            if taken.allowed or taken.unknown:
                return taken
        waited = await queue.wait(key, lambda: guard.take(key, limits, costs, lease), ticket)
        return taken if waited is None else waited

    # -- what it holds

    def hold(self) -> None:
        self._by_stream = True
        if self._lease is not None:  # given back meanwhile, where its call ended before its stream began
            self._desk.leases.hold(self.key, self._lease)

    def let_go(self) -> None:
        if self._lease is not None:
            self._desk.leases.give_back(self.key, self._lease)

    def finish(self) -> None:
        """The call has ended. A stream that goes on keeps the lease."""
        if not self._by_stream:
            self.let_go()
