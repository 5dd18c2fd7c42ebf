"""A worker of a test, whatever it is composed of: opened, closed, and checked at its end that nothing is left of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from streamware import CountingObserver, ResumeMiddleware
from streamware.middleware.base import Lifecycle
from streamware.testing import FakeClock, settle


class Composed:
    """``stage``: the app, whose ``runs`` the test writes; ``connections``: those to it; ``hooks``: what is opened with
    it; ``troubles``: what asyncio complained of. A clock that is given is others' as well."""

    resume: ResumeMiddleware
    hooks: Sequence[Lifecycle] = ()
    connections: list[Any]

    def __init__(self, stage: Any, clock: FakeClock | None) -> None:
        self.clock = clock or FakeClock()
        self.own_clock = clock is None
        self.observer = CountingObserver()
        self.stage = stage
        self.connections = []
        self.troubles: list[str] = []

    async def __aenter__(self) -> Self:
        self._tasks = asyncio.all_tasks()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.troubles.append(str(context)))
        for hook in self.hooks:
            await hook.startup()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for connection in self.connections:
            await connection.aclose()
        for run in self.stage.runs:
            if not run.over.is_set():
                run.begin(None)
        await settle()
        await self.close()
        await settle()
        if error is None:
            self.check()

    async def close(self) -> None:
        """Close what was composed."""
        for hook in self.hooks:
            await hook.shutdown()
        for hook in self.hooks:
            await hook.aclose()

    def check(self) -> None:
        """What must hold when everything has ended."""
        for connection in self.connections:
            connection.check()
            self.check_exception(connection)
        assert not self.troubles, self.troubles
        assert not self.resume._worker.producers
        if self.own_clock:
            assert self.clock.timers == 0, "timers are left behind"
            assert not (left := asyncio.all_tasks() - self._tasks), left

    def check_exception(self, connection: Any) -> None:
        """What may have reached the server."""
        assert connection.exception is None or connection.was_cancelled, connection.exception
