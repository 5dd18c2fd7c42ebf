"""Reservations of tokens: what a stream may use is taken before it is used, and put right once, at its end.

Rules:

1. All that is used was granted before, but for what a storage that is away, or a policy, lets run on; that is charged
   at the end, so that it is missing afterwards.
2. While the storage is away, ``on_store_error`` decides about what begins. What runs goes on, whatever it says.
3. What was taken from this worker's own counters meanwhile, or let through, is not charged to the storage as well.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence

from ..exceptions import StoreUnavailable
from ..observe import Observer
from ..types import Clock
from .base import Limit, Taken
from .claims import Claim, PlainClaim, claim_of
from .guard import Guard
from .settler import Settler

#: Of what is left a stream takes one in so many parts, beside its slice, for each worker that may ask as well.
SHARE = 2


class Ledger:
    """What all reservations of one middleware share. ``slice_size``: how much a stream takes at a time."""

    def __init__(self, guard: Guard, *, slice_size: int, workers: int, clock: Clock, observer: Observer) -> None:
        self.guard = guard
        self.slice = slice_size
        self.share = SHARE * workers if guard.storage.shared else 1
        self.settler = Settler(self._settle, waits=guard.storage.shared, clock=clock, observer=observer)

    async def reserve(self, key: str, limits: Sequence[Limit], cost: int, *, force: bool) -> Reservation:
        """Take ``cost``; ``taken`` of the reservation says whether that was allowed. ``force``: it can be used even
        where it was not."""
        reservation = Reservation(self, key, limits)
        await reservation.begin(cost, force=force)
        return reservation

    async def ask(self, claim: Claim, ask: Callable[[], Awaitable[Taken]]) -> Taken | None:
        """What the storage answers, None where it does not. ``claim``: the first of a reservation's that asks, to be
        undone if nobody hears of the answer."""
        if not self.guard.storage.shared:
            return await ask()
        asked = False

        def asking() -> Awaitable[Taken]:
            nonlocal asked
            asked = True
            return ask()

        taken: Taken | None = None
        try:
            taken = await self.guard.ask(asking)
        finally:
            if taken is None and asked:
                self.settler.put(claim, 0)
        return taken

    async def _settle(self, claim: Claim, used: int) -> None:
        if isinstance(claim, PlainClaim) and not claim.shared:
            await claim.settle(used)
            return

        async def settle() -> bool:
            await claim.settle(used)
            return True

        if await self.guard.ask(settle) is None:
            raise StoreUnavailable("the storage of limits is away")


class Reservation:
    """Of one stream. ``granted``: tokens that it may use before it has to ask for more. ``taken``: the last answer."""

    __slots__ = ("_claim", "_closed", "_free", "_key", "_ledger", "_limits", "_local", "granted", "taken")

    def __init__(self, ledger: Ledger, key: str, limits: Sequence[Limit]) -> None:
        self._ledger = ledger
        self._key = key
        self._limits = limits
        self._claim: Claim | None = None
        self._local: Claim | None = None  # in this worker's own counters, while the storage was away
        self._free = 0  # tokens that were let through
        self._closed = False
        self.granted = 0
        self.taken = Taken(True)

    async def begin(self, cost: int, *, force: bool) -> None:
        """Take ``cost``, or nothing."""
        guard = self._ledger.guard
        claim = self._new()
        taken = await self._ledger.ask(claim, lambda: claim.reserve(cost, force=force))
        if taken is not None:
            self._claim = claim if taken.allowed or force else None
        elif (local := self._new_local()) is not None:
            # All of a worker's share is as much as it can give: more than that would be refused for ever.
            cost = min(cost, *(limit.amount for limit in guard.local_limits(self._limits)))
            taken = guard.instead(await local.reserve(cost, force=force), 0)
            self._local = local if taken.allowed or force else None
        else:
            taken = guard.instead(None, cost)
            self._free += taken.granted
        self.taken = taken
        if taken.allowed:
            self.granted += cost

    async def extend(self, wanted: int) -> bool:
        """Take at least ``wanted`` more. False: there is not as much."""
        most, share = max(self._ledger.slice, wanted), self._ledger.share
        while True:
            taken = self.taken = await self._take(most, share)
            self.granted += taken.granted
            wanted -= taken.granted
            if wanted <= 0:
                return True
            if taken.away:  # what runs goes on
                self.lend(most)
                return True
            if share == 1:
                return False
            most, share = wanted, 1  # the others' share, then, as far as it goes

    def lend(self, more: int) -> None:
        """Go on without: it is charged at the end."""
        self.granted += more

    def close(self, used: int) -> None:
        """It has come to its end: have it settled. Once."""
        if self._closed:
            return
        self._closed = True
        elsewhere = self._free
        local, settler = self._local, self._ledger.settler
        if self._claim is None:
            if local is not None:
                settler.put(local, max(0, used - elsewhere))
            return
        rest = max(0, used - self._claim.granted)
        if local is not None:
            share = min(rest, local.granted)
            rest -= share
            settler.put(local, share)
        # What is beyond all that was taken is charged where it counts for all workers.
        settler.put(self._claim, min(used, self._claim.granted) + max(0, rest - elsewhere))

    async def _take(self, most: int, share: int) -> Taken:
        guard = self._ledger.guard
        claim = self._claim
        taken: Taken | None
        if claim is None:
            new = self._new()
            taken = await self._ledger.ask(new, lambda: new.extend(most, share=share))
            self._claim = None if taken is None else new
        elif guard.storage.shared:
            taken = await guard.ask(lambda: claim.extend(most, share=share))
        else:
            taken = await claim.extend(most, share=share)
        if taken is not None:
            return taken
        if self._local is None:
            self._local = self._new_local()
        if self._local is not None:
            return guard.instead(await self._local.extend(most, share=1), 0)
        taken = guard.instead(None, most)
        self._free += taken.granted
        return taken

    def _new(self) -> Claim:
        return claim_of(self._ledger.guard.storage, self._key, self._limits, secrets.token_hex(12))

    def _new_local(self) -> Claim | None:
        guard = self._ledger.guard
        if guard.local is None:
            return None
        return PlainClaim(guard.local, self._key, guard.local_limits(self._limits), secrets.token_hex(12))
