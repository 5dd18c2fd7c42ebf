"""What is told of limits: to clients by refusals and by header lines, to operators by counters and the log."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from ..observe import Observer
from ..wire import ratelimit
from ..wire.denial import Denial
from ..wire.ratelimit import Balance, Policy, Style
from .base import Limit, Taken

#: Added to what a refused client is told to wait, up to this part of it: else all come back at once.
JITTER = 0.1
#: Policies whose header line is kept.
MAX_LINES = 1000

#: By the ids of limits: these themselves, so that they keep their ids, and their line.
Lines: TypeAlias = dict[tuple[int, ...], tuple[tuple[Limit, ...], tuple[bytes, bytes]]]


@dataclass(slots=True, kw_only=True)
class Refusals:
    """``counters``: opens the names of the middleware's counters, as that of its logger. ``retry``: seconds after which
    to come again where nobody knows. ``enforce``: False refuses nothing. ``unit``: of the limits, "" for requests.
    ``tells``: whether there are header lines."""

    counters: str
    observer: Observer
    style: Style
    retry: float
    enforce: bool
    unit: str = ""
    tells: bool = True
    _policies: Lines = field(default_factory=Lines)

    def count(self, name: str, reason: str = "", value: int = 1) -> None:
        """Count something."""
        self.observer.count(f"{self.counters}.{name}", reason=reason, value=value)

    def refusal(self, taken: Taken, reason: str, make: Callable[[float], Denial] | None = None) -> Denial | None:
        """The refusal; None in shadow mode. Counted and logged either way. ``make``: for another than that a limit is
        used up, out of the seconds after which to come again."""
        self.count("refused" if self.enforce else "would_refuse", reason)
        violated = [standing.limit.name for standing in taken.standings if standing.wait > 0]
        logging.getLogger(f"streamware.{self.counters}").info(
            "%s: %s %s", "refused" if self.enforce else "would be refused", reason, ", ".join(violated)
        )
        if not self.enforce:
            return None
        if reason == "store":
            return ratelimit.cannot_tell(self.later(), style=self.style)
        if make is not None:
            return make(self.later())
        wait = taken.wait * _jitter()
        return ratelimit.refused(violated, wait, style=self.style, lines=self.lines(taken), unit=self.unit)

    def later(self) -> float:
        """Seconds after which to come again where nobody knows."""
        return self.retry * _jitter()

    def lines(self, taken: Taken) -> tuple[tuple[bytes, bytes], ...]:
        """What a response says of the limits, in its head."""
        standings = taken.standings
        if not standings or not self.tells:
            return ()
        # What was asked for may fit before the window ends: ``Retry-After`` is not to come before ``t``.
        balances = [
            Balance(each.limit.name, each.remaining, each.reset if each.wait <= 0 else min(each.reset, each.wait))
            for each in standings
        ]
        return self._policy_line(tuple([each.limit for each in standings])), ratelimit.balance_line(balances)

    def _policy_line(self, limits: tuple[Limit, ...]) -> tuple[bytes, bytes]:
        # By identity, for to hash limits takes longer than to write them.
        ids = tuple([id(limit) for limit in limits])
        known = self._policies.get(ids)
        if known is None:
            if len(self._policies) >= MAX_LINES:
                self._policies.clear()
            line = ratelimit.policy_line(Policy(each.name, each.amount, each.window, self.unit) for each in limits)
            known = self._policies[ids] = (limits, line)
        return known[1]


def _jitter() -> float:
    return 1 + JITTER * random.random()
