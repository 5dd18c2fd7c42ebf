"""The lists that decide which addresses are let in, while they change: loaded, watched, and swapped.

Rules:

1. Requests read ``current``, one object: they see the old lists or the new ones, never one of each.
2. A load that fails changes nothing; it is counted, and logged with what is wrong.
3. There is never more than one load. Who asks while one is under way gets the next, for that one may have read what is
   old by now; all who wait share it. It belongs to none of them: it goes on where one is cancelled.
4. A file is read anew once it has changed and then stood still from one look to the next: what is written bit by bit
   must not be read half. One that was read and found wrong is not read again before it changes.
5. After ``aclose`` there is no task and no timer. Without a lifespan nothing needs to be closed: between two looks
   there is only a timer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from ..observe import Observer
from ..types import Clock, TimerHandle
from ..wire.addresses import NO_ADDRESS, AddressSet, number_of_client
from .address_sources import ListError, Source, Stamp, Thread, stamp_of

T = TypeVar("T")

logger = logging.getLogger("streamware.ip_allowlist")

#: So many addresses are remembered with what came of them.
KNOWN = 4096
ADDRESS_LENGTH = 64  # with a zone, which has no limit of its own
#: Seconds after a first load that failed before a request sets off another.
RETRY = 5.0


class Lists:
    """What is allowed and what is denied; None for a list that was not given. Immutable, but for what it remembers."""

    __slots__ = ("_known", "allow", "deny")

    def __init__(self, allow: AddressSet | None, deny: AddressSet | None) -> None:
        self.allow = allow
        self.deny = deny
        self._known: dict[str, str | None] = {}

    def refusal(self, client: Any) -> str | None:  # Any: whatever a server has put in the scope
        """Why the client of that ``scope["client"]`` is not let in, ``unknown``, ``denied`` or ``not_allowed``; None
        where it is."""
        try:
            host = client[0]
            known = self._known.get(host, "")
        except (TypeError, LookupError):
            return "unknown"
        if known != "":
            return known
        number = number_of_client(client)
        if number == NO_ADDRESS:
            return "unknown"
        refusal = None
        if self.deny is not None and self.deny.has(number):
            refusal = "denied"
        elif self.allow is not None and not self.allow.has(number):
            refusal = "not_allowed"
        if len(host) <= ADDRESS_LENGTH:
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[host] = refusal
        return refusal


class AddressLists:
    """See the module. ``current``: None until they were loaded. ``poll``: seconds between two looks at files;
    ``interval``: between two loads whether or not anything has changed; None for never."""

    def __init__(
        self, allow: Source | None, deny: Source | None, *, poll: float | None, interval: float | None,
        timeout: float, clock: Clock, observer: Observer,
    ) -> None:  # fmt: skip
        self._allow = allow
        self._deny = deny
        sources = [source for source in (allow, deny) if source is not None]
        #: They are values, all of them.
        self.fixed = all(source.given is not None for source in sources)
        self.current: Lists | None = None
        if self.fixed:
            self.current = Lists(None if allow is None else allow.given, None if deny is None else deny.given)
        #: Changes are looked out for, or were; nothing is left to be done at a first request.
        self.opened = self.fixed
        self._paths = [source.path for source in sources if source.path is not None]
        self._poll = poll if self._paths else None
        self._interval = None if self.fixed else interval
        self._clock = clock
        self._observer = observer
        self._timeout = timeout
        # One each, for they may be at it at once.
        self._load_thread = Thread(timeout)
        self._look_thread = Thread(timeout)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: asyncio.Task[bool] | None = None
        self._waiting: asyncio.Task[bool] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timers: dict[str, TimerHandle] = {}
        self._read: list[Stamp] = []  # of the files, when they were last read
        self._seen: list[Stamp] = []  # when they were last looked at
        self._failure: ListError | None = None
        self._failed_at: float | None = None

    # -- opening and closing

    async def open(self) -> None:
        """Load them, and look out for changes from here on.

        :raises ListError: they cannot be had.
        """
        if not self.fixed:
            if not await self.reload():
                raise self._failure or ListError("timeout", "it was closed while it was read")
            self._watch()

    async def ready(self) -> bool:
        """Whether there are lists; loaded now, where nothing has opened them: not every server has a lifespan. On trio,
        where Starlette's test client may run an app, there are none."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if self.current is None:
            if self._failed_at is not None and self._clock.now() - self._failed_at < RETRY:
                return False
            task = self._running if self._running is not None and loop is self._loop else self._asked()
            await asyncio.wait({task})
        if self.current is not None and not self.opened:
            self._watch()
        return self.current is not None

    async def aclose(self) -> None:
        """Leave nothing behind. What is being read is read for nothing; who waits for it is told that it failed."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        tasks = {task for task in self._tasks if task.get_loop() is asyncio.get_running_loop()}
        self._running = self._waiting = None
        self._failed_at = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self._timeout)  # a function of somebody's may not let itself be cancelled

    # -- loading

    async def reload(self) -> bool:
        """Load them anew, and say whether that went well."""
        if self.fixed:
            return True
        task = self._asked()
        await asyncio.wait({task})
        return not task.cancelled() and task.result()

    def _asked(self) -> asyncio.Task[bool]:
        """A load that has yet to begin."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # the loop that it was on may be gone, with all that ran there
            self._loop = loop
            self._running = self._waiting = None
            self._tasks.clear()
        if self._waiting is not None:
            return self._waiting
        task = self._spawn(self._load_after(self._running))
        if self._running is None:
            self._running = task
        else:
            self._waiting = task
        return task

    async def _load_after(self, before: asyncio.Task[bool] | None) -> bool:
        task = asyncio.current_task()
        if before is not None:
            await asyncio.wait({before})
            if self._waiting is task:
                self._running, self._waiting = self._waiting, None
        try:
            return await self._load()
        finally:
            if self._running is task:
                self._running = None

    async def _load(self) -> bool:
        try:
            # Before it is read: what is written in between is a change.
            self._read = self._seen = await self._stamps(self._load_thread)
            allow = None if self._allow is None else await self._allow.load()
            deny = None if self._deny is None else await self._deny.load()
        except ListError as error:
            self._failure = error
            self._failed_at = self._clock.now()
            self._observer.count("ip_allowlist.reload_failed", reason=error.reason)
            kept = "the lists stay as they were" if self.current is not None else "nobody is let in"
            cause = error.__cause__ if error.reason == "raised" else None
            logger.error("IPAllowlistMiddleware: %s; %s", error, kept, exc_info=cause)
            return False
        self.current = Lists(allow, deny)
        self._failed_at = None
        self._observer.count("ip_allowlist.reloaded")
        return True

    # -- looking out for changes

    def _watch(self) -> None:
        self.opened = True
        self._set("poll", self._poll, self._look)
        self._set("interval", self._interval, self._load_again)

    def _set(self, name: str, delay: float | None, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do ``work``, and again, until it is closed."""
        if name in self._timers:
            self._timers[name].cancel()
        if delay is None:
            return

        def due() -> None:
            self._spawn(again())

        async def again() -> None:
            try:
                await work()
            finally:
                if name in self._timers:  # not closed
                    self._set(name, delay, work)

        self._timers[name] = Context().run(self._clock.call_later, delay, due)

    async def _look(self) -> None:
        try:
            now = await self._stamps(self._look_thread)
        except ListError:  # the file system does not answer; nor would it if the files were read
            return
        if now != self._read and now == self._seen:
            await self.reload()
        else:
            self._seen = now

    async def _load_again(self) -> None:
        await self.reload()

    async def _stamps(self, thread: Thread) -> list[Stamp]:
        return await thread.run(lambda: [stamp_of(path) for path in self._paths]) if self._paths else []

    def _spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        # In no context: the request that opened it must not be kept, nor seen, for ever.
        task = asyncio.get_running_loop().create_task(coroutine, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
