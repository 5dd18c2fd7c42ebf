"""Workers that drain, for tests: an app whose responses the test writes behind drain, heartbeats and Resume.

A ``Place`` is one worker on a ``FakeClock``, composed in one of the ways of ``WAYS``; several may share a store and a
clock. When it closes it checks that no timer, task or exception is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from streamware import DrainMiddleware, HeartbeatMiddleware, MemoryStore, Middleware, ResumeMiddleware, Stack
from streamware.middleware.base import Lifecycle, census
from streamware.streams.drain import Phase
from streamware.testing import FakeClock
from streamware.types import ASGIApp
from tests.middleware.composed import Composed
from tests.middleware.resume_site import EVENTSOURCE, READER, Run, SiteConnection, Stage

#: ``short``: a ``Stack`` on its short way; ``long``: as among other middleware of ours; ``mute``: without heartbeats;
#: ``nested``: without a ``Stack``, as frameworks do.
WAYS = ("short", "long", "mute", "nested")

GRACE, DEADLINE, RETRY = 10.0, 30.0, 4.0


class SharedStore(MemoryStore):
    """A store that the workers of a test share."""

    shared = True


class Place(Composed):
    """One worker. ``heeds``: as for a ``Stage``."""

    def __init__(
        self, app: ASGIApp | None = None, *, way: str = "short", clock: FakeClock | None = None,
        store: MemoryStore | None = None, resume: Mapping[str, Any] | None = None, heeds: bool = False, **drain: Any,
    ) -> None:  # fmt: skip
        super().__init__(Stage(heeds=heeds), clock)
        self.way = way
        self.store = SharedStore(clock=self.clock) if store is None else store
        inner = app or self.stage
        common: dict[str, Any] = {"clock": self.clock, "observer": self.observer}
        drained = {"grace": GRACE, "deadline": DEADLINE, "retry": RETRY, "signals": (), **common, **drain}
        resumed = {"store": self.store, **common, **(resume or {})}
        if way == "nested":
            self.resume = ResumeMiddleware(inner, **resumed)
            self.drain = DrainMiddleware(HeartbeatMiddleware(self.resume, interval=7, **common), **drained)
            self.app: ASGIApp = self.drain
            self.hooks: list[Lifecycle] = [self.drain, self.resume]
        else:
            beats = [] if way == "mute" else [Middleware(HeartbeatMiddleware, interval=7, **common)]
            listed = [Middleware(DrainMiddleware, **drained), *beats, Middleware(ResumeMiddleware, **resumed)]
            self.stack = Stack(inner, middleware=listed)
            (self.drain,) = [own for own in self.stack._own if isinstance(own, DrainMiddleware)]
            (self.resume,) = [own for own in self.stack._own if isinstance(own, ResumeMiddleware)]
            self.app = self.stack
            self.hooks = list(self.stack._hooks)

    async def close(self) -> None:
        await self.drain.aclose()
        await self.resume.aclose()

    def check(self) -> None:
        assert not self.drain.drains.responses
        assert not self.drain.drains.sockets
        assert not self.resume._worker.polls
        super().check()

    @property
    def phase(self) -> Phase:
        return self.drain.drains.phase

    def connect(
        self, path: str = "/chat", *, headers: Mapping[str, str] | Iterable[tuple[str, str]] = READER,
        cursor: str | None = None, **options: Any,
    ) -> SiteConnection:  # fmt: skip
        """Begin a request. ``cursor`` goes into ``Last-Event-ID``."""
        if self.way == "short":
            self.stack._family = census.made
        given = list(headers.items() if isinstance(headers, Mapping) else headers)
        if cursor is not None:
            given.append(("last-event-id", cursor))
        connection = SiteConnection(self.app, path=path, headers=given, **options)
        self.connections.append(connection)
        connection.open()
        return connection

    async def run(self, number: int = 1) -> Run:
        return await self.stage.run(number)

    async def started(self, *words: str, **options: Any) -> tuple[SiteConnection, Run]:
        """A stream that has said ``words`` to its first reader."""
        number = len(self.stage.runs) + 1
        connection = self.connect(**options)
        run = await self.run(number)
        await run.stream(*words)
        await connection.events(len(words))
        return connection, run

    async def streaming(self, kind: str, *words: str, **options: Any) -> tuple[SiteConnection, Run]:
        """The same, asked for by ``kind`` of client."""
        return await self.started(*words, headers=KINDS[kind], **options)

    def counted(self, name: str, reason: str = "") -> int:
        return self.observer.counts.get((name, reason), 0)


#: Clients: a browser's EventSource, a script that accepts event streams, one that gets one without asking for it.
KINDS: dict[str, dict[str, str]] = {"eventsource": EVENTSOURCE, "script": READER, "unlogged": {"accept": "*/*"}}
