"""``Expiry``: what becomes of a connection whose token expires while it is open. Values and arithmetic, no timers.

Rules: no number that a token can carry breaks the arithmetic, and one that makes no sense ends the connection at once;
nothing lasts longer than a year.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from ..checks import check, is_number
from ..exceptions import ConfigurationError
from .tenure import INFINITY

OnExpiry = Literal["close", "warn", "ignore"]
_ACTIONS: tuple[OnExpiry, ...] = ("close", "warn", "ignore")

YEAR = 365 * 86_400.0

#: However far away the end is, no connection ends earlier than by so many seconds.
MOST_EARLY = 300.0


_check = partial(check, "Expiry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """What to do about streams and WebSockets whose token expires.

    :param action: ``"close"`` (default) ends them then; ``"warn"`` tells those clients that take control events some
        seconds before, and ends them then; ``"ignore"`` lets them run on, as most servers do.
    :param leeway: seconds that a connection may outlive its token, 30 by default, for clocks differ: not less than its
        verifier allows, or whoever comes back with a token that is just still good is ended again at once.
    :param max_age: seconds after which a connection ends however long its token lasts; ``None`` (default): none.
        It holds with ``"ignore"`` and for the anonymous as well.
    :param jitter: by up to this part of its time, and at most five minutes, each connection ends earlier, so that
        tokens that expire all at once do not bring all clients back at once. 0.03 by default; 0: none.
    :param warn_before: with ``"warn"``, seconds before the end at which clients are told, 30 by default.
    :param revalidate: seconds after which the verifier is asked about the token of an open connection again and again,
        so that a revoked one ends it; ``None`` (default): never. Each connection is asked about at another time, at
        most 8 at once and 100 a second in a worker. It can be told no sooner than the verifier's own cache forgets.
    :param messages: a WebSocket's client may send the text ``{"type": "streamware.authenticate", "token": "…"}``, which
        the app does not see, to go on with a new token. ``False`` by default: every text is the app's.
    :raises ConfigurationError: an option that cannot work.
    """

    action: OnExpiry = "close"
    leeway: float = 30.0
    max_age: float | None = None
    jitter: float = 0.03
    warn_before: float = 30.0
    revalidate: float | None = None
    messages: bool = False

    def __post_init__(self) -> None:
        _check(self.action in _ACTIONS, "action", self.action, '"close", "warn" or "ignore"')
        _check(is_number(self.leeway) and self.leeway >= 0, "leeway", self.leeway, "0 seconds or more")
        for option, value in (("max_age", self.max_age), ("revalidate", self.revalidate)):
            _check(value is None or (is_number(value) and value > 0), option, value, "greater than 0 seconds, or None")
        _check(is_number(self.jitter) and 0 <= self.jitter <= 0.5, "jitter", self.jitter, "from 0 to 0.5")
        _check(
            is_number(self.warn_before) and self.warn_before > 0,
            "warn_before",
            self.warn_before,
            "greater than 0 seconds",
        )
        _check(isinstance(self.messages, bool), "messages", self.messages, "True or False")

    def left(self, expires_at: float | None, age: float, wall: float, chance: float) -> float:
        """For how many seconds from now a connection may go on that is ``age`` seconds old; ``INFINITY``: for ever.

        :param expires_at: of its token, in seconds since 1970; None for never.
        :param wall: now, in seconds since 1970.
        :param chance: a random number from 0 to 1.
        """
        left = INFINITY
        if self.max_age is not None:
            left = self.max_age - age
        if expires_at is not None and self.action != "ignore":
            try:
                left = min(left, float(expires_at) + self.leeway - wall) if expires_at == expires_at else 0.0
            except OverflowError:  # an integer beyond all floats
                left = min(left, YEAR) if expires_at > 0 else 0.0
        if left == INFINITY and (expires_at is None or self.action == "ignore"):
            return left
        left = min(max(0.0, left), YEAR)
        return left - min(left * self.jitter * chance, MOST_EARLY)


def expiry_of(owner: str, given: object) -> Expiry:
    """The ``on_expiry`` option of ``owner``: an ``Expiry``, or its ``action`` alone."""
    if isinstance(given, Expiry):
        return given
    for action in _ACTIONS:
        if given == action:
            return Expiry(action=action)
    raise ConfigurationError.option(owner, "on_expiry", given, '"close", "warn", "ignore" or an Expiry')
