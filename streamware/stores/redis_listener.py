"""What wakes a worker: its inbox, the logs that it watches and what is announced to all, on one connection that
subscribes (one to each server, where a cluster shards its channels).

Rules:

1. A connection that was lost is made again, after 50 ms to 1 s, at random, so that not all workers come at once. Its
   channels are subscribed to anew, where they are by then, and then ``Resync`` says that messages may have been missed.
2. What cannot be read is passed over: a message is a hint, and a channel is open to anybody.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection

import msgspec

from ..exceptions import StoreUnavailable
from .backend import Announced, Appended, Report, Reported, Resync, Signal, StopAsked
from .redis_board import decode_notice
from .redis_layout import Keys, decode_news, decode_note
from .redis_line import Line
from .redis_nodes import Nodes
from .redis_target import Address

SHORTEST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


class Listener:
    """Listens for one worker."""

    def __init__(
        self, nodes: Nodes, keys: Keys, worker: str, on_signal: Callable[[Signal], None], timeout: float
    ) -> None:
        self._nodes = nodes
        self._keys = keys
        self._worker = worker
        self._on_signal = on_signal
        self._timeout = timeout
        self._name = f"streamware-{worker}-listen"
        self._inbox = keys.inbox(worker)
        self._streams: dict[bytes, str] = {}
        self._topics: dict[bytes, str] = {}
        self._lines: dict[Address, Line] = {}
        self._restoring: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen to the inbox. :raises StoreUnavailable: no connection could be made."""
        await self._listen({self._inbox})

    async def watch(self, stream: str) -> None:
        """:raises StoreUnavailable: the server has not confirmed it in time."""
        channel = self._keys.news(stream)
        self._streams[channel] = stream
        try:
            await self._listen({channel})
        except BaseException:
            self.unwatch(stream)
            raise

    def unwatch(self, stream: str) -> None:
        channel = self._keys.news(stream)
        self._streams.pop(channel, None)
        self._leave(channel)

    async def hear(self, topics: Collection[str]) -> None:
        """Hear what is announced under ``topics``, and no others.

        :raises StoreUnavailable: a server has not confirmed it in time; it is heard from when it does.
        """
        wanted = {self._keys.topic(topic): topic for topic in topics}
        before, self._topics = self._topics, wanted
        for channel in before.keys() - wanted.keys():
            self._leave(channel)
        await self._listen(set(wanted))

    def _leave(self, channel: bytes) -> None:
        for node, line in list(self._lines.items()):
            line.leave(channel)
            if not line.channels:
                del self._lines[node]
                line.close()

    async def aclose(self) -> None:
        restoring = list(self._restoring)
        for task in restoring:
            task.cancel()
        await asyncio.gather(*restoring, return_exceptions=True)
        lines, self._lines = self._lines, {}
        for line in lines.values():
            line.close()

    # -- within

    async def _listen(self, channels: set[bytes]) -> None:
        groups: dict[Address, set[bytes]] = {}
        for channel in channels:
            # Where channels are not sharded, every server hears all: the one of the inbox is as good as any.
            place = await self._nodes.locate(channel if self._nodes.sharded else self._inbox)
            groups.setdefault(place, set()).add(channel)
        for node, group in groups.items():
            line = self._lines.get(node)
            if line is None:
                line = self._lines[node] = Line(self._nodes, node, self._hear, self._lost)
            await line.join(group, self._name, self._timeout)

    def _lost(self, line: Line) -> None:
        if self._lines.get(line.node) is line:
            del self._lines[line.node]
        task = asyncio.get_running_loop().create_task(self._restore(set(line.channels)))
        self._restoring.add(task)
        task.add_done_callback(self._restoring.discard)

    async def _restore(self, channels: set[bytes]) -> None:
        pause = SHORTEST_PAUSE
        while True:
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(LONGEST_PAUSE, 2 * pause)
            self._nodes.mistrust()
            wanted = {channel for channel in channels if self._is_wanted(channel)}
            try:
                await self._listen(wanted)
                break
            except StoreUnavailable:
                continue
        self._on_signal(Resync())

    def _is_wanted(self, channel: bytes) -> bool:
        return channel == self._inbox or channel in self._streams or channel in self._topics

    def _hear(self, channel: bytes, message: bytes) -> None:
        try:
            stream = self._streams.get(channel)
            if stream is not None:
                self._on_signal(Appended(decode_news(stream, message)))
            elif (topic := self._topics.get(channel)) is not None:
                notice = decode_notice(message)
                if notice is not None and notice.worker != self._worker:  # that has told its own
                    self._on_signal(Announced(topic, notice.message))
            elif channel == self._inbox:
                note = decode_note(message)
                for asked in note.stops:
                    self._on_signal(StopAsked(asked))
                for told, readers, sent in note.reports:
                    self._on_signal(Reported(note.worker, Report(told, self._worker, readers, sent)))
        except (msgspec.MsgspecError, ValueError):
            return
