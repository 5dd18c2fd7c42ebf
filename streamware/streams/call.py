"""One request that takes part: what belongs to it, and the ways in which it can be answered with a log."""

from __future__ import annotations

from dataclasses import dataclass

from ..paths import path_within_mount
from ..stores.base import Log, Tombstone
from ..types import ASGIApp, Message, Scope, Send
from ..wire import headers, sse
from ..wire.denial import Denial, deny, no_content
from .answer import Answer, Await, Follow, Gone, NoContent, answer
from .asked import Request
from .inbound import Inbound
from .options import AHEAD_WAIT, DISCARD_WAIT, Options
from .owner import Identity
from .reader import Reader
from .response import gone_denial, later_start
from .worker import Worker


@dataclass(slots=True)
class Call:
    """One call of the middleware, by a request that takes part."""

    app: ASGIApp
    scope: Scope
    send: Send
    inbound: Inbound
    request: Request
    identity: Identity
    options: Options
    worker: Worker

    @property
    def path(self) -> str:
        """The path that options go by."""
        return path_within_mount(self.scope)

    def without(self, name: bytes) -> None:
        """Take a header from what the app will see."""
        left = headers.without(self.scope["headers"], name)
        if len(left) < len(self.scope["headers"]):
            self.scope = {**self.scope, "headers": left}

    async def find(self, stream: str, *, any_method: bool = False) -> Log | Tombstone | None:
        """What is known of ``stream``, if this request may know of it: its owner's, on its path and by its method.
        Anything else is unknown, and looks it.

        :raises StoreUnavailable: a shared store did not answer.
        """
        found = await self.options.store.open(stream)
        if found is None:
            return None
        about = found if isinstance(found, Tombstone) else found.head
        if about.path != self.scope["path"] or not (any_method or about.method == self.scope["method"]):
            return None
        return found if self.identity.owns(about.owner, stream) else None

    async def decide(self, seq: int, found: Log | Tombstone | None) -> Answer:
        """What a cursor at ``seq`` gets, after waiting a moment for a log that it is ahead of."""
        waited = False
        while True:
            decision = answer(
                seq,
                found,
                eventsource_like=self.request.eventsource_like,
                may_restart=self.scope["method"] == "GET",
                on_done=self.options.on_done[self.path],
                on_expired=self.options.on_expired[self.path],
                waited=waited,
            )
            if not isinstance(decision, Await):
                return decision
            if found is not None and not isinstance(found, Tombstone):
                await found.reach(decision.seq, AHEAD_WAIT)
            waited = True

    async def give(self, decision: Follow | NoContent | Gone, log: Log | None, stream: str) -> Reader | None:
        """Answer with what was decided about ``stream``; with a reader to be run, where it is to be followed."""
        observer = self.options.observer
        if isinstance(decision, Follow) and log is not None:
            preface = b""
            if decision.reset is not None:
                observer.count("resume.gap", reason=decision.reset)
                earliest = f"{stream}.{decision.after}"
                preface = sse.control_event("reset", {"reason": decision.reset, "earliest": earliest})
            reader = self.reader(log, decision.after, later_start(stream, log.head), preface)
            if not self.request.eventsource_like and log.last > decision.after:
                behind = await reader.gap()
                if behind is not None:  # before a byte is sent: afterwards it could only be cut, again and again
                    reader.leave()
                    return await self.give(Gone("gap", log.outcome, behind), None, stream)
            observer.count("resume.resumed")
            inbound = self.inbound
            inbound.on_change = lambda: reader.gone() if inbound.gone else None
            inbound.drain()
            return reader
        if isinstance(decision, Gone):
            observer.count("resume.gone", reason=decision.reason)
            await self.deny(gone_denial(decision, stream))
        else:
            observer.count("resume.no_content")
            await self.answer(no_content(self.scope))
        return None

    def reader(self, log: Log, after: int, start: Message, preface: bytes) -> Reader:
        """This connection, as a reader of ``log`` behind event ``after``. It is in the log's list from here on: run it,
        or let it leave."""
        return Reader(
            self.scope,
            self.send,
            self.inbound,
            log,
            after,
            start,
            preface,
            eventsource_like=self.request.eventsource_like,
            options=self.options,
            worker=self.worker,
        )

    async def answer(self, messages: list[Message]) -> None:
        """Send a whole answer of our own in the app's place, unless the client has left."""
        await self.inbound.discard(self.options.clock, DISCARD_WAIT)
        for message in messages:
            if not self.inbound.gone:
                await self.send(message)

    async def deny(self, denial: Denial, *, soft: bool = False) -> None:
        """Refuse the request."""
        await self.inbound.discard(self.options.clock, DISCARD_WAIT)
        if not self.inbound.gone:
            await deny(self.scope, self.send, denial, soft=soft)

    async def store_is_away(self) -> None:
        """Refuse it for now: without the store nobody can say what it is to get, and nothing must start twice."""
        self.options.observer.count("resume.refused", reason="store_unavailable")
        denial = Denial(503, "The stream store is away", retry_after=self.options.retry)
        await self.deny(denial, soft=self.scope["method"] == "GET")
