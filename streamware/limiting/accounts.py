"""Whose limits they are, what they are, and where they are kept: the options that every limiting middleware has,
checked alike, and what is made of them."""

from __future__ import annotations

from ..checks import check, is_text
from ..clock import LoopClock
from ..observe import NullObserver, Observer
from ..paths import PathSelection
from ..types import Clock
from ..wire.ratelimit import STYLES
from .guard import Guard
from .keys import Key, key_function
from .rules import Limits, Plan, Rule, Rules
from .storages import Storage, storage_of


class Accounts:
    """Those of one middleware. ``owner``: its class; ``counters``: opens the names of what it counts. Without a
    ``name`` the limits' counters are named by ``key`` and by the paths that are ``selected``. ``unit``: what they
    count; those of another unit never meet, whatever their names.

    :raises ConfigurationError: an option that cannot work.
    """

    def __init__(
        self, owner: str, counters: str, *, key: Key, plan: Plan | None, window: str, storage: Storage,
        name: str | None, selected: PathSelection, unit: str = "", on_store_error: str,
        expected_workers: int, body: str, observer: Observer | None, clock: Clock | None,
    ) -> None:  # fmt: skip
        check(owner, window in ("sliding", "fixed"), "window", window, '"sliding" or "fixed"')
        check(owner, body in STYLES, "body", body, "one of " + ", ".join(map(repr, STYLES)))
        check(owner, plan is None or callable(plan), "plan", plan, "a function of the scope, or None")
        if name is None:
            paths = ("|".join(each or ()) for each in (selected.paths, selected.exclude))
            name = ":".join([key if isinstance(key, str) else "own", *paths])
        check(owner, is_text(name), "name", name, "a text")
        self._owner = owner
        self._plan = plan
        self._fixed = window == "fixed"
        #: Opens the names of the limits' counters.
        self.name = f"{name} {unit}" if unit else name
        #: Whose limits a request comes under; None: nobody's.
        self.key = key_function(owner, key)
        self.clock = LoopClock() if clock is None else clock
        self.observer = NullObserver() if observer is None else observer
        now = None if clock is None else clock.now
        #: Where the limits are kept.
        self.storage = storage_of(storage, now)
        self._owned = self.storage is not storage
        self.guard = Guard(
            owner,
            self.storage,
            on_store_error=on_store_error,
            expected_workers=expected_workers,
            clock=self.clock,
            observer=self.observer,
            counters=counters,
            now=now,
        )

    def rule(self, option: str, given: Limits, counter: str = "") -> Rule | None:
        """What an option says of each request; None where it limits nothing. ``counter``: behind the common name."""
        return Rules(self._owner, option, f"{self.name}{counter}", fixed=self._fixed, plan=self._plan).rule(given)

    async def start(self) -> None:
        """Open the storage."""
        await self.storage.start()

    async def aclose(self) -> None:
        """Close the storage, where it was made here."""
        if self._owned:
            await self.storage.aclose()
