"""What all connections under one token budget share: its ledger, its options, what clients are told of it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ..observe import Observer
from ..types import Clock
from ..wire import ratelimit
from ..wire.calibration import Calibration
from ..wire.denial import Denial
from ..wire.prompt import Asked
from ..wire.ratelimit import Balance, Policy, Style
from ..wire.usage import BYTES_PER_TOKEN, Counts
from ..wire.usage_words import too_large
from .admission import JITTER
from .base import Limit, Taken
from .ledger import Ledger, Reservation

logger = logging.getLogger("streamware.token_budget")

#: While it is paced, a stream asks whether there is more between so often and so seldom, in seconds.
SHORTEST_PAUSE = 0.05
LONGEST_PAUSE = 5.0
MAX_LINES = 1000


#: By the ids of limits: these themselves, so that they keep their ids, and their line.
Lines: TypeAlias = dict[tuple[int, ...], tuple[tuple[Limit, ...], tuple[bytes, bytes]]]


@dataclass(slots=True)
class Budget:
    """What all connections of one middleware share. ``on_exceeded``: "finish", "cut" or "pace"; ``path``: where an app
    says what it has used; ``reports``: whether a stream ends with what it used; ``tells``: whether a response begins
    with what there is."""

    ledger: Ledger
    observer: Observer
    clock: Clock
    on_exceeded: str
    max_pause: float
    path: str | None
    reports: bool
    style: Style
    enforce: bool
    retry: float
    tells: bool
    calibration: Calibration = field(default_factory=Calibration)
    policies: Lines = field(default_factory=Lines)

    def count(self, name: str, reason: str = "", value: int = 1) -> None:
        """Count something."""
        self.observer.count(f"token_budget.{name}", reason=reason, value=value)

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

    def lines(self, taken: Taken) -> tuple[tuple[bytes, bytes], ...]:
        """What a response says of the limits, in its head."""
        standings = taken.standings
        if not standings or not self.tells:
            return ()
        limits = tuple([each.limit for each in standings])
        ids = tuple([id(limit) for limit in limits])
        known = self.policies.get(ids)
        if known is None:
            if len(self.policies) >= MAX_LINES:
                self.policies.clear()
            line = ratelimit.policy_line(Policy(each.name, each.amount, each.window, "tokens") for each in limits)
            known = self.policies[ids] = (limits, line)
        balances = [Balance(each.limit.name, each.remaining, each.reset) for each in standings]
        return known[1], ratelimit.balance_line(balances)

    def refused(self, taken: Taken, cost: int, limits: Sequence[Limit]) -> Denial | None:
        """The refusal of a request that would cost so much; None in shadow mode. Counted and logged either way."""
        reason = "store" if taken.away and not taken.local else "budget"
        if cost > min(limit.amount for limit in limits):
            reason = "size"
        self.count("refused" if self.enforce else "would_refuse", reason)
        violated = [standing.limit.name for standing in taken.standings if standing.wait > 0]
        logger.info("%s: %s %s", "refused" if self.enforce else "would be refused", reason, ", ".join(violated))
        if not self.enforce:
            return None
        jitter = 1 + JITTER * random.random()
        if reason == "store":
            return ratelimit.cannot_tell(self.retry * jitter, style=self.style)
        if reason == "size":
            return too_large(style=self.style)
        return ratelimit.refused(violated, taken.wait * jitter, style=self.style, lines=self.lines(taken))

    async def pause(self, reservation: Reservation, wanted: int) -> bool:
        """Wait until there is as much, for ``max_pause`` seconds at most."""
        left = self.max_pause
        while left > 0:
            wait = min(max(reservation.taken.wait, SHORTEST_PAUSE), LONGEST_PAUSE, left)
            left -= wait
            await self._sleep(wait)
            before = reservation.granted
            if await reservation.extend(wanted):
                return True
            wanted -= reservation.granted - before
        return False

    async def _sleep(self, seconds: float) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.clock.call_later(seconds, lambda: None if over.done() else over.set_result(None))
        try:
            await over
        finally:
            timer.cancel()
