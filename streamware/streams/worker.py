"""The producers and readers of this worker: who runs, who runs with no reader, and how they end with it.

While the worker drains, nothing counts against the bounds on apps without a reader: their readers were sent away on
purpose, and come back elsewhere. What bounds them then is the drain's deadline.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from ..stores.base import LogReader, Outcome
from ..types import Scope
from ..wire import headers
from ..wire.cursor import parse_cursor, stream_tag
from .direct import Ticks
from .drain import Terms
from .ending import DRAINING
from .options import CANCEL_AFTER, CANCEL_WAIT, Options
from .owner import who as who_is
from .response import STREAM_PARAMETER

if TYPE_CHECKING:
    from .producer import Producer
    from .reader import Reader

INNER_TAGS = 64


class Worker:
    """``leaving``: set once this worker is on its way out, so that streams cut short now count as interrupted.
    ``terms``: of the drain that it is in. ``parting``: its readers are sent elsewhere, where they can be. ``over``: its
    time is up. ``polls``: the places in logs of the long polls that wait.
    ``inner_tags``: store tags seen in streams with ids of another Streamware further in (we are its gateway)."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.producers: set[Producer] = set()
        self.inner_tags: set[str] = set()
        self.leaving = False
        self.terms: Terms | None = None
        self.parting = False
        self.over = False
        self.polls: set[LogReader] = set()
        self.ticks = Ticks()
        self._detached: OrderedDict[Producer, None] = OrderedDict()
        self._detached_of: dict[str, OrderedDict[Producer, None]] = {}
        self._readers: dict[str, tuple[Reader, ...]] = {}
        self._kept: set[asyncio.Task[None]] = set()

    @property
    def detached(self) -> int:
        """How many apps produce with no reader."""
        return len(self._detached)

    def learn_inner_tag(self, tag: str) -> None:
        """Remember the tag of a Streamware further in, whose cursors are to be passed on."""
        if len(self.inner_tags) < INNER_TAGS:
            self.inner_tags.add(tag)

    def keep(self, task: asyncio.Task[None]) -> None:
        """Hold on to a short task that nobody waits for."""
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    # -- detached producers: bounded per worker and per owner

    def detach(self, producer: Producer) -> None:
        """``producer`` has lost its last reader. Over a bound, the one that has been without for longest is told."""
        self._detached[producer] = None
        if self.terms is not None:
            return
        options = self._options
        if producer.identity.known:
            own = self._detached_of.setdefault(producer.identity.account, OrderedDict())
            own[producer] = None
            if len(own) > options.max_detached_per_owner:
                options.observer.count("resume.abandoned", reason="max_detached_per_owner")
                self._abandon(next(iter(own)))
        if len(self._detached) > options.max_detached:
            options.observer.count("resume.abandoned", reason="max_detached")
            self._abandon(next(iter(self._detached)))

    def _abandon(self, producer: Producer) -> None:
        self.attach(producer)  # at once, for one that is already told of it no longer counts, however long it takes
        producer.abandon()

    def attach(self, producer: Producer) -> None:
        """``producer`` has a reader again, or has ended."""
        if self._detached.pop(producer, producer) is None:
            account = producer.identity.account
            own = self._detached_of.get(account)
            if own is not None:
                own.pop(producer, None)
                if not own:
                    del self._detached_of[account]

    # -- readers: bounded per stream, the newest wins

    def enter(self, reader: Reader) -> None:
        """``reader`` begins to follow its log; over the bound the oldest is ended."""
        stream = reader.log.stream
        readers = (*self._readers.get(stream, ()), reader)
        if len(readers) > self._options.max_readers:
            self._options.observer.count("resume.reader_ended", reason="max_readers")
            oldest, *others = readers
            self._readers[stream] = tuple(others)
            oldest.evict()
        else:
            self._readers[stream] = readers
        if self.parting:
            asyncio.get_running_loop().call_soon(self._send_away, reader)

    def leave(self, reader: Reader) -> None:
        """``reader`` has ended."""
        stream = reader.log.stream
        left = tuple(other for other in self._readers.pop(stream, ()) if other is not reader)
        if left:
            self._readers[stream] = left

    # -- drain: as ``drain.Party``

    def drain(self, terms: Terms) -> None:
        self.leaving = True
        self.terms = terms

    def stay(self) -> None:
        self.leaving = self.parting = self.over = False
        self.terms = None

    def part(self) -> Iterator[None]:
        self.parting = True
        for reader in [reader for readers in list(self._readers.values()) for reader in readers]:
            self._send_away(reader)
            yield
        if self._options.store.shared:
            for place in list(self.polls):  # they are answered with what there is: nothing, and the cursor to go on
                place.close()

    def _send_away(self, reader: Reader) -> None:
        if self.terms is None or not self.terms.concerns(reader.scope):
            return
        if self.over:
            if reader.log.outcome is None:
                reader.end(DRAINING)
        elif reader.may_part:
            reader.part(self.terms.retry())

    @property
    def patience(self) -> float:
        """The least seconds to linger, whatever an app's own are: readers that were sent away come back elsewhere."""
        return self.terms.left() if self.terms is not None and self.parting else 0.0

    def cut_off(self) -> Iterator[None]:
        terms = self.terms
        if terms is None:
            return
        self.over = True
        for producer in list(self.producers):
            if terms.concerns(producer.scope) and producer.give_up():
                yield
        for reader in [reader for readers in list(self._readers.values()) for reader in readers]:
            if terms.concerns(reader.scope) and reader.log.outcome is None:  # another worker goes on producing it
                reader.end(DRAINING)
                yield

    def is_needed(self, scope: Scope) -> bool:
        store = self._options.store
        if store.shared:
            return False
        given = scope.get("headers") or ()
        cursor = parse_cursor(headers.combined(given, b"last-event-id"))
        if cursor is not None:
            return cursor.tag == store.tag
        if headers.get(given, b"idempotency-key") is not None:
            return True
        stream = parse_qs(scope.get("query_string", b"").decode("latin-1")).get(STREAM_PARAMETER, [""])[0]
        return bool(stream) and stream_tag(stream) == store.tag

    async def run_out(self) -> None:
        while tasks := [
            producer.task
            for producer in self.producers
            if producer.task is not None and (self._options.store.shared or producer.is_read)
        ]:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)  # ``producers`` is told by the tasks' callbacks

    # -- as ``tenure.Stops``

    def stop_all_of(self, who: str) -> int:
        stopped = 0
        for producer in list(self.producers):
            principal = producer.identity.principal
            if principal is not None and who_is(principal) == who and producer.log is not None:
                producer.stop()
                stopped += 1
        return stopped

    # -- the end

    async def shutdown(self) -> None:
        """End what still runs: nobody can read it here any more. Waits at most ``CANCEL_AFTER`` for the apps that were
        told, and ``CANCEL_WAIT`` for those that were cancelled."""
        self.leaving = True
        tasks: list[asyncio.Task[None]] = []
        for producer in list(self.producers):
            producer.end(Outcome.INTERRUPTED)
            if producer.task is not None:
                tasks.append(producer.task)
        if tasks:
            _, going_on = await asyncio.wait(tasks, timeout=CANCEL_AFTER)
            for task in going_on:
                if not task.cancelling():  # told only: the others are about to end
                    task.cancel()
            if going_on:
                await asyncio.wait(going_on, timeout=CANCEL_WAIT)
        if self._kept:  # what is to be told to the store, before that is closed
            await asyncio.wait(self._kept.copy(), timeout=CANCEL_WAIT)
