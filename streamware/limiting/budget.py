"""What all connections under one token budget share: its ledger, its options, what clients are told of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..clock import sleep
from ..types import Clock
from ..wire.calibration import Calibration
from ..wire.denial import Denial
from ..wire.prompt import Asked
from ..wire.usage import BYTES_PER_TOKEN, Counts
from ..wire.usage_words import too_large
from .base import Limit, Taken
from .ledger import Ledger, Reservation
from .refusals import Refusals

logger = logging.getLogger("streamware.token_budget")

#: While it is paced, a stream asks whether there is more between so often and so seldom, in seconds.
SHORTEST_PAUSE = 0.05
LONGEST_PAUSE = 5.0


@dataclass(slots=True, kw_only=True)
class Budget(Refusals):
    """What all connections of one middleware share. ``on_exceeded``: "finish", "cut" or "pace"; ``path``: where an app
    says what it has used; ``reports``: whether a stream ends with what it used."""

    ledger: Ledger
    clock: Clock
    on_exceeded: str
    max_pause: float
    path: str | None
    reports: bool
    calibration: Calibration = field(default_factory=Calibration)

    def counts_of(self, asked: Asked | None) -> Counts:
        """The counts of an answer to ``asked``."""
        if asked is None:
            return Counts()
        return Counts(prompt=self.prompt_of(asked), factor=self.calibration.factor(f"out {asked.model}"))

    def prompt_of(self, asked: Asked) -> int:
        """The tokens of the prompt, by what was learned of the model."""
        return round(asked.prompt * self.calibration.factor(f"in {asked.model}"))

    def learn(self, asked: Asked | None, counts: Counts) -> None:
        """See how good the estimates were."""
        usage = counts.usage
        if asked is None or usage.estimated or not counts.recognised:
            return
        shown = usage.output if counts.reasoned else usage.output - usage.reasoning
        self.calibration.learn(f"out {asked.model}", counts.seen / BYTES_PER_TOKEN, shown)
        self.calibration.learn(f"in {asked.model}", asked.size / BYTES_PER_TOKEN, usage.input)

    def refused(self, taken: Taken, cost: int, limits: Sequence[Limit]) -> Denial | None:
        """The refusal of a request that would cost so much; None in shadow mode. Counted and logged either way."""
        if cost > min(limit.amount for limit in limits):
            return self.refusal(taken, "size", lambda later: too_large(style=self.style))
        return self.refusal(taken, "store" if taken.unknown else "budget")

    async def pause(self, reservation: Reservation, wanted: int) -> bool:
        """Wait until there is as much, for ``max_pause`` seconds at most."""
        left = self.max_pause
        while left > 0:
            wait = min(max(reservation.taken.wait, SHORTEST_PAUSE), LONGEST_PAUSE, left)
            left -= wait
            await sleep(self.clock, wait)
            before = reservation.granted
            if await reservation.extend(wanted):
                return True
            wanted -= reservation.granted - before
        return False
