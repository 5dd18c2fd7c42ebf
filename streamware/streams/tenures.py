"""All connections of a worker whose time is limited, or whose holder may be disconnected.

Rules:

1. One timer of the clock's for all of them (``timers.py``), and one task, that lives only while connections are being
   ended. They are ended in slices, so that others get a turn however many end at once.
2. A verifier that is asked again and cannot tell changes nothing: the token was good, and its expiry holds anyway.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from ..clock import on_asyncio
from ..observe import Observer
from ..record import TENURE
from ..stores.board import Board
from ..types import ASGIApp, Clock, Receive, Scope, Send
from ..wire import sse
from .disconnects import Disconnects, Order
from .ending import AUTH_EXPIRED, AUTH_REFUSED, DISCONNECTED, Ending
from .expiry import Expiry
from .owner import named, who
from .revalidation import Asks, Revalidation
from .tenure import AGAIN, INFINITY, OVER, Holder, Party, Stops, Tenure
from .timers import Timers, of_this_loop
from .websocket_tenure import HeldSocket

logger = logging.getLogger("streamware.auth")

#: So many connections are ended before others get a turn.
SLICE = 64
#: Seconds after which an EventSource comes back, spread by a half either way; a page that hears of the end may be
#: faster.
RETRY = 3.0


class Tenures:
    """See the module. ``asks``: looks at a token again. ``codes``: what WebSockets are closed with in place of a usual
    code."""

    def __init__(
        self, expiry: Expiry, *, board: Board | None, asks: Asks, codes: Mapping[int, int], clock: Clock,
        observer: Observer, wall: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.expiry = expiry
        self._codes = codes
        self.disconnects = Disconnects(board, self._obey)
        self._clock = clock
        self._wall = wall
        self._observer = observer
        self._revalidation = Revalidation(asks, observer, renew=self.renew, end=self.end)
        self._of: dict[str, set[Tenure]] = {}
        self._stops: list[Stops] = []
        self._timers: Timers | None = None
        self._ending: deque[tuple[Party, Ending]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[object]] = set()

    async def startup(self) -> None:
        """Listen to other workers. Idempotent; begun with the first stream where nobody has.

        :raises StoreError: the board cannot be had.
        """
        await self.disconnects.startup()

    async def aclose(self) -> None:
        """Listen to nobody any more, and leave no task."""
        tasks = [*self._tasks, *self._revalidation.tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.disconnects.aclose()

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, holder: Holder, token: str) -> None:
        """Run ``app`` for a connection of ``holder``. ``scope`` is a copy, to be written to."""
        shown = "" if self.expiry.revalidate is None else token
        tenure = Tenure(self, scope, holder, shown, self.disconnects.epoch)
        scope[TENURE] = tenure
        try:
            if scope["type"] != "websocket":
                await app(scope, receive, send)
                return
            socket = HeldSocket(scope, receive, send, tenure, self if self.expiry.messages else None)
            try:
                await app(scope, socket.receive if not self.expiry.messages else socket.receive_others, socket.send)
            except Exception as error:
                if not socket.forgives(error):
                    raise
        finally:
            tenure.scope = OVER  # a cycle, of which every request would leave one to be collected
            if tenure.is_held:
                tenure.release()

    # -- as ``tenure.Term``

    def join(self, stops: Stops) -> None:
        if stops not in self._stops:
            self._stops.append(stops)

    def held(self, tenure: Tenure) -> None:
        holder = tenure.holder
        if not on_asyncio():
            return  # trio: nothing is ended there
        listening = self.disconnects.begin()  # a server without a lifespan, as daphne
        if listening is not None:
            self._spawn(listening)
        name = named(holder)
        if name is not None:
            tenure.who = who(name)
            self._of.setdefault(tenure.who, set()).add(tenure)
            if tenure.epoch != self.disconnects.epoch and self.disconnects.concerns(
                tenure.who, tenure.epoch, issued_at(holder)
            ):
                self.end(tenure, DISCONNECTED)
                return
        tenure.began = self._clock.now()
        self._set(tenure)

    def released(self, tenure: Tenure) -> None:
        if tenure.who:
            others = self._of.get(tenure.who, set())
            others.discard(tenure)
            if not others:
                self._of.pop(tenure.who, None)

    def due(self, tenure: Tenure) -> None:
        now = self._clock.now()
        if now >= tenure.ends:
            self.end(tenure, AUTH_EXPIRED)
            return
        if now >= tenure.warns:
            self._warn(tenure, now)
        if now >= tenure.checked:
            tenure.checked = now + self._pause()
            self._revalidation.ask(tenure)
        self._arm(tenure, now)

    # -- time

    def renew(self, tenure: Tenure, token: str | None = None) -> None:
        """Its holder has shown a newer ``token``, or the verifier says something new of the old one."""
        if token is not None and tenure.token:
            tenure.token = token
        if tenure.is_held and tenure.holder.expires_at != tenure.expires_at:
            self._set(tenure)

    async def reauthenticate(self, tenure: Tenure, token: str) -> bool | None:
        """Go on with a newer ``token``. False, and the connection is ended, where it is not good, or somebody else's;
        None, and nothing is changed, where the verifier cannot tell."""
        answer = await self._revalidation.answer(tenure, token)
        if answer is None:
            self._observer.count("auth.reauthenticated", reason="unavailable")
            return None
        refused = answer.renew(tenure.scope, tenure.holder)
        self._observer.count("auth.reauthenticated", reason=refused or "good")
        if refused:
            self.end(tenure, AUTH_REFUSED)
            return False
        self.renew(tenure, token)
        return True

    def keep(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run ``coroutine``, which nobody waits for."""
        self._spawn(coroutine)

    def left(self, tenure: Tenure) -> float:
        """Seconds that it may go on; ``INFINITY`` for ever."""
        return tenure.ends - self._clock.now()

    def _set(self, tenure: Tenure) -> None:
        now, expiry = self._clock.now(), self.expiry
        tenure.expires_at = tenure.holder.expires_at
        left = expiry.left(tenure.holder.expires_at, now - tenure.began, self._wall(), random.random())
        tenure.ends = now + left
        tenure.warns = tenure.ends - expiry.warn_before if expiry.action == "warn" else INFINITY
        if tenure.checked == INFINITY and expiry.revalidate is not None and tenure.token:
            tenure.checked = now + self._pause()
        self._arm(tenure, now)

    def _arm(self, tenure: Tenure, now: float) -> None:
        if tenure.timer is not None:
            tenure.timer.cancel()
            tenure.timer = None
        if tenure.next < INFINITY:
            self._timers = of_this_loop(self._timers, self._clock)
            tenure.timer = self._timers.call_later(max(0.0, tenure.next - now), tenure)

    def _pause(self) -> float:
        return INFINITY if self.expiry.revalidate is None else self.expiry.revalidate * random.uniform(0.75, 1.25)

    def _warn(self, tenure: Tenure, now: float) -> None:
        seconds = max(0, round(tenure.ends - now))
        said = tenure.warn(sse.control_event("auth-expiring", {"seconds": seconds}))
        tenure.warns = now + AGAIN if said is False else INFINITY
        if said:
            self._observer.count("auth.warned")

    # -- ends

    def end(self, tenure: Tenure, ending: Ending) -> None:
        """End the connection, soon."""
        if not tenure.is_held:
            return
        party = tenure.party
        tenure.release()
        if party is None:
            return
        self._observer.count("auth.ended", reason=ending.reason)
        code = self._codes.get(ending.code, ending.code)
        if code != ending.code:
            ending = replace(ending, code=code, code_allowed=code)
        self._ending.append((party, ending))
        if self._task is None or self._task.done():
            self._task = self._spawn(self._end_all())

    async def _end_all(self) -> None:
        taken = 0
        while self._ending:
            party, ending = self._ending.popleft()
            try:
                rest = party.dismiss(ending, round(1000 * RETRY * random.uniform(0.5, 1.5)))
            except Exception:  # the others are to be ended all the same
                logger.exception("a connection could not be ended")
            else:
                if rest is not None:
                    self._spawn(rest)
            taken += 1
            if not taken % SLICE:
                await asyncio.sleep(0)

    def _obey(self, order: Order) -> None:
        for tenure in list(self._of.get(order.who, ())):
            if order.concerns(issued_at(tenure.holder)):
                self.end(tenure, DISCONNECTED)
        if order.stop:
            stopped = sum(stops.stop_all_of(order.who) for stops in self._stops)
            if stopped:
                self._observer.count("auth.stopped", value=stopped)

    async def disconnect(self, holder: Holder, *, before: float | None, stop: bool) -> None:
        """End all connections of ``holder``, in every worker.

        :raises ValueError: it is nobody, or ``before`` is no moment.
        :raises StoreError: other workers may not have heard of it.
        """
        name = named(holder)
        if name is None:
            raise ValueError("nobody is named by a principal without a subject")
        if before is not None and not math.isfinite(before):
            raise ValueError(f"issued_before must be seconds since 1970, got {before!r}")
        await self.disconnects.announce(Order(who(name), before, stop))

    def _spawn(self, coroutine: Coroutine[Any, Any, object]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def issued_at(holder: Holder) -> float | None:
    """When its token was issued, in seconds since 1970; None where it does not say so in a way that can be used."""
    given = holder.claims.get("iat")
    return given if isinstance(given, int | float) and not isinstance(given, bool) else None
