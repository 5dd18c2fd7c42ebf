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
            taken = await self.guard._ask(asking)
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

        if await self.guard._ask(settle) is None:
            raise StoreUnavailable("the storage of limits is away")


class Reservation:
    """Of one stream. ``granted``: tokens that it may use before it has to ask for more. ``taken``: the last answer."""

    __slots__ = ("_claims", "_closed", "_key", "_ledger", "_limits", "granted", "taken")

    def __init__(self, ledger: Ledger, key: str, limits: Sequence[Limit]) -> None:
        self._ledger = ledger
        self._key = key
        self._limits = limits
        self._claims: list[tuple[Claim | None, int]] = []  # with what each covers; None: nobody's, it was let through
        self._closed = False
        self.granted = 0
        self.taken = Taken(True)

    async def begin(self, cost: int, *, force: bool) -> None:
        """Take ``cost``, or nothing."""
        ledger, guard = self._ledger, self._ledger.guard
        claim = self._new(local=False)
        taken = await ledger.ask(claim, lambda: claim.reserve(cost, force=force))
        if taken is not None:
            if taken.allowed or force:
                self._claims.append((claim, 0))
        elif guard._local is not None:
            local = self._new(local=True)
            taken = guard._instead(await local.reserve(cost, force=force), 0)
            if taken.allowed or force:
                self._claims.append((local, 0))
        else:
            taken = guard._instead(None, 0)
            if taken.allowed:
                self._claims.append((None, cost))
        self.taken = taken
        if taken.allowed:
            self.granted += cost

    async def extend(self, wanted: int) -> bool:
        """Take at least ``wanted`` more. False: there is not as much."""
        ledger = self._ledger
        most, share = max(ledger.slice, wanted), ledger.share
        while True:
            taken = await self._take(most, share)
            self.taken = taken
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
        settler = self._ledger.settler
        charged: list[tuple[Claim, int]] = []
        for claim, covers in self._claims:
            share = min(used, claim.granted if claim is not None else covers)
            used -= share
            if claim is not None:
                charged.append((claim, share))
        # What is beyond all that was taken goes to where it is counted for all workers, if it is counted anywhere.
        for place in range(len(charged) - 1, -1, -1):
            claim, share = charged[place]
            if used and (place == 0 or not self._is_local(claim)):
                share, used = share + used, 0
            settler.put(claim, share)

    async def _take(self, most: int, share: int) -> Taken:
        guard = self._ledger.guard
        claim = next(
            (each for each, _ in reversed(self._claims) if each is not None and not self._is_local(each)), None
        )
        is_new = claim is None
        asked = claim or self._new(local=False)
        if is_new:
            taken = await self._ledger.ask(asked, lambda: asked.extend(most, share=share))
        elif guard.storage.shared:
            taken = await guard._ask(lambda: asked.extend(most, share=share))
        else:
            taken = await asked.extend(most, share=share)
        if taken is not None:
            if is_new:
                self._claims.append((asked, 0))
            return taken
        if guard._local is None:
            self._claims.append((None, most if guard.policy == "allow" else 0))
            return guard._instead(None, most if guard.policy == "allow" else 0)
        local = next((each for each, _ in reversed(self._claims) if each is not None and self._is_local(each)), None)
        if local is None:
            local = self._new(local=True)
            self._claims.append((local, 0))
        return guard._instead(await local.extend(most, share=1), 0)

    def _new(self, *, local: bool) -> Claim:
        guard = self._ledger.guard
        name = secrets.token_hex(12)
        if local and guard._local is not None:
            return PlainClaim(guard._local, self._key, guard._share(self._limits), name)
        return claim_of(guard.storage, self._key, self._limits, name)

    def _is_local(self, claim: Claim) -> bool:
        return isinstance(claim, PlainClaim) and not claim.shared and self._ledger.guard.storage.shared
