"""The producers of this worker: who runs, who runs with no reader, and how they end with it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from ..stores.base import Outcome
from .direct import Ticks
from .options import CANCEL_WAIT, Options

if TYPE_CHECKING:
    from .producer import Producer
    from .reader import Reader

INNER_TAGS = 64


class Worker:
    """``leaving``: set once this worker is on its way out, so that streams cut short now count as interrupted.
    ``inner_tags``: store tags seen in streams with ids of another Streamware further in (we are its gateway)."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.producers: set[Producer] = set()
        self.inner_tags: set[str] = set()
        self.leaving = False
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

    def leave(self, reader: Reader) -> None:
        """``reader`` has ended."""
        stream = reader.log.stream
        left = tuple(other for other in self._readers.pop(stream, ()) if other is not reader)
        if left:
            self._readers[stream] = left

    # -- the end

    async def shutdown(self) -> None:
        """End what still runs: nobody can read it here any more. Waits at most ``CANCEL_WAIT`` for the apps."""
        self.leaving = True
        tasks: list[asyncio.Task[None]] = []
        for producer in list(self.producers):
            producer.end(Outcome.INTERRUPTED)
            if producer.task is not None:
                tasks.append(producer.task)
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_WAIT)
