"""Writing a worker's logs: one batch for all of them, one pipeline to each server.

Rules:

1. The common entry, more events for a log that is known to be as it should, is one ``XADD`` under an id made of its
   last seq. Redis refuses it where the log has gone, has ended, or has the entry already.
2. Everything else goes through the script ``STEP``, which looks at the log first: the first entry, the last, one that
   only keeps the log, and every log's first on a new connection, since the server may have lost what it had
   acknowledged. So does an entry that Redis refused: the script tells why.
3. The worker's set of open logs names a log before it exists, and until it has ended.
4. The payload is announced only where somebody listened the last time: who comes later reads what was not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ..exceptions import StoreUnavailable
from .backend import LOST, TAKEN, Entry, Verdict, Written
from .base import Outcome
from .records import encode_events, encode_head
from .redis_asking import Asking, Command, is_moved
from .redis_layout import Keys, Packed
from .redis_pipe import Pipe, pack
from .redis_replies import Reply, ServerError
from .redis_scripts import STEP
from .redis_target import Address

_OOM = frozenset({"OOM"})


@dataclass(frozen=True)
class Lives:
    """How long things are kept, in ms: a running log that nobody writes to, an ended one, its tombstone counted from
    the same moment, and what of a worker is not its lease."""

    running: int
    ended: int
    tombstone: int
    worker: int = 86_400_000


class _Own:
    """A log of this worker. ``pipe``: the connection on which it was last seen to hold all up to ``last``; ``silent``:
    nobody listened the last time."""

    __slots__ = ("last", "packed", "pipe", "silent", "trimmed")

    def __init__(self, packed: Packed) -> None:
        self.packed = packed
        self.pipe: Pipe | None = None
        self.last = 0
        self.trimmed = 0
        self.silent = True


class _Item:
    """One entry under way. ``plain``: it may go as an ``XADD`` of its own. ``answer``: None while there is none."""

    __slots__ = ("answer", "entry", "last", "own", "plain")

    def __init__(self, entry: Entry, own: _Own) -> None:
        self.entry = entry
        self.own = own
        self.last = entry.first + len(entry.events) - 1
        self.plain = bool(entry.events) and entry.head is None and entry.outcome is None
        self.answer: Written | None = None


class Writer:
    """Writes the logs of ``worker``. ``claims`` has the names of idempotency keys by stream. Entries of up to
    ``inline`` bytes are announced with what is in them."""

    def __init__(
        self, asking: Asking, keys: Keys, worker: str, lives: Lives, claims: dict[str, bytes], inline: int
    ) -> None:
        self._asking = asking
        self._keys = keys
        self._worker = worker
        self._lives = lives
        self._claims = claims
        self._inline = inline
        self._logs: dict[str, _Own] = {}
        self._named: set[str] = set()  # in the store's set of open logs, as far as is known

    def is_running(self, stream: str) -> bool:
        """The store was seen to hold the log, open, and it is written here."""
        return stream in self._logs

    def is_named(self, stream: str) -> bool:
        """It is ours, and known to be open, or is about to be."""
        return stream in self._named

    def drop(self, stream: str) -> None:
        """The log is none of ours any more."""
        self._logs.pop(stream, None)
        self._named.discard(stream)

    async def write(self, entries: Sequence[Entry]) -> list[Written]:
        """One answer for each entry. :raises StoreUnavailable: some of them may not have been written."""
        await self._keep([entry.stream for entry in entries if entry.head or not (entry.events or entry.outcome)])
        logs = self._logs
        items = [_Item(entry, logs.get(entry.stream) or self._new(entry.stream)) for entry in entries]
        await self._round(items)
        again = [item for item in items if item.answer is None]
        if again:
            for item in again:
                item.plain = False
            await self._round(again)
        answers = [item.answer for item in items if item.answer is not None]
        if len(answers) < len(entries):
            raise StoreUnavailable(f"{self._asking.name}: logs are being moved between servers")
        await self._end([item for item in items if _is_over(item)])
        return answers

    # -- one round: a pipeline to each server

    async def _round(self, items: list[_Item]) -> None:
        nodes = self._asking.nodes
        if nodes.only is not None:
            await self._write_to(nodes.only, items)
            return
        groups: dict[Address, list[_Item]] = {}
        for item in items:
            groups.setdefault(await nodes.locate(self._keys.log(item.entry.stream)), []).append(item)
        # All of them are let come to their end: one server's trouble takes nothing from the others' logs.
        for result in await asyncio.gather(*map(self._write_to, groups, groups.values()), return_exceptions=True):
            if result is not None:
                raise result

    async def _write_to(self, node: Address, items: list[_Item]) -> None:
        """Write ``items`` and fill in their answers: first the plain ones, two replies each, then those by way of the
        script, then what is to be trimmed."""
        pipe = await self._asking.pipes.to(node)
        largest = self._inline
        plain: list[_Item] = []
        others: list[_Item] = []
        trims: list[bytes] = []
        parts: list[bytes] = []
        for item in items:
            own, entry = item.own, item.entry
            if item.plain and own.pipe is pipe and own.last + 1 >= entry.first:
                plain.append(item)
                events = encode_events(entry.events)
                inline = b"" if own.silent or len(events) > largest else events
                parts.append(own.packed.append(item.last, events, inline))
            else:
                others.append(item)
            if entry.trim > own.trimmed:
                trims.append(own.packed.trim(min(entry.trim, item.last)))
        parts += [self._step(item.entry) for item in others]
        parts += trims
        count = 2 * len(plain) + len(others) + len(trims)
        replies = await pipe.ask(b"".join(parts), count, self._asking.timeout)
        nodes = self._asking.nodes
        deaf = nodes.only is None and not nodes.sharded  # only listeners at this server are told of
        for item, reply, listeners in zip(plain, replies[::2], replies[1::2], strict=False):
            own = item.own
            if reply.__class__ is bytes:
                item.answer = TAKEN
                own.silent = listeners == 0 and not deaf
                own.last = max(own.last, item.last)
            else:
                own.pipe = None
                self._refused(reply, pipe)
        for item, reply in zip(others, replies[2 * len(plain) :], strict=False):
            item.answer = self._stepped(reply, item.entry, pipe)
            own = item.own
            if item.answer is TAKEN:
                self._logs[item.entry.stream] = own
                own.pipe = pipe
                own.last = max(own.last, item.last)
            else:
                own.pipe = None
        if trims:
            for item in items:
                if item.answer is TAKEN:
                    item.own.trimmed = max(item.own.trimmed, item.entry.trim)

    def _new(self, stream: str) -> _Own:
        return _Own(Packed(self._keys, stream, self._asking.nodes.publish))

    def _step(self, entry: Entry) -> bytes:
        claim = self._claims.get(entry.stream, b"")
        return step(self._keys, entry, self._worker, self._lives, claim, self._asking.nodes.publish, self._inline)

    def _refused(self, reply: Reply, pipe: Pipe) -> None:
        """The script has to tell what became of it, perhaps of another server. :raises StoreUnavailable: trouble."""
        if is_moved(reply):
            self._asking.nodes.mistrust()
        elif isinstance(reply, ServerError) and not str(reply).startswith("ERR The ID specified in XADD is equal"):
            raise self._asking.trouble(reply, pipe)

    def _stepped(self, reply: Reply, entry: Entry, pipe: Pipe) -> Written | None:
        """None: another server has to be asked."""
        match reply:
            case [b"taken", *_]:
                return TAKEN
            case [b"fenced", int(top), bytes(outcome)]:
                return Written(Verdict.FENCED, top, Outcome(outcome.decode()))
            case [b"lost", *_]:
                return LOST
            case [b"behind", int(top), _]:
                return Written(Verdict.BEHIND, top)
            case ServerError() if is_moved(reply):
                self._asking.nodes.mistrust()
                return None
            case ServerError() if reply.kind == "OOM" and entry.head is not None:
                return Written(Verdict.FULL)
            case ServerError():
                raise self._asking.trouble(reply, pipe)
            case _:
                raise StoreUnavailable(f"{self._asking.name} answered a script with what is no answer")

    # -- what else goes with it

    async def _keep(self, streams: list[str]) -> None:
        """Name the logs among the worker's open ones, and keep their idempotency keys."""
        if not streams:
            return
        self._named.update(streams)
        lives, open_logs = self._lives, self._keys.open(self._worker)
        commands = [
            Command(open_logs, pack(b"SADD", open_logs, *(stream.encode() for stream in streams))),
            Command(open_logs, pack(b"PEXPIRE", open_logs, b"%d" % lives.worker)),
        ]
        for stream in streams:
            claim = self._claims.get(stream)
            if claim is not None:
                commands.append(Command(claim, pack(b"PEXPIRE", claim, b"%d" % (lives.running + lives.tombstone))))
        await self._asking.ask(*commands, bearing=_OOM)  # the log itself will meet it, and tell

    async def _end(self, items: list[_Item]) -> None:
        """These logs are open no more."""
        if not items:
            return
        keys, streams = self._keys, [item.entry.stream.encode() for item in items]
        commands = [
            Command(key, pack(b"SREM", key, *streams)) for key in (keys.open(self._worker), keys.stop(self._worker))
        ]
        ended = [item.entry.stream for item in items if item.answer is TAKEN]
        if ended:
            commands.append(Command(keys.ended, pack(b"RPUSH", keys.ended, *(stream.encode() for stream in ended))))
            commands.append(Command(keys.ended, pack(b"PEXPIRE", keys.ended, b"%d" % self._lives.tombstone)))
        for stream in ended:
            claim = self._claims.get(stream)
            if claim is not None:
                commands.append(Command(claim, pack(b"PEXPIRE", claim, b"%d" % self._lives.tombstone)))
        await self._asking.ask(*commands, bearing=_OOM)
        for item in items:
            self.drop(item.entry.stream)
            if item.answer is not LOST:  # that may be made again
                self._claims.pop(item.entry.stream, None)


def step(keys: Keys, entry: Entry, worker: str, lives: Lives, claim: bytes, publish: bytes, inline: int) -> bytes:
    """One entry by way of the script ``STEP``."""
    return STEP.call(
        (keys.log(entry.stream), keys.meta(entry.stream)),
        b"%d" % entry.first,
        b"%d" % entry.last,
        encode_events(entry.events) if entry.events else b"",
        b"" if entry.head is None else encode_head(entry.head),
        worker.encode(),
        b"%d" % entry.gap,
        b"" if entry.outcome is None else entry.outcome.value.encode(),
        b"%d" % entry.unfinished,
        b"%d" % lives.running,
        b"%d" % lives.ended,
        b"%d" % lives.tombstone,
        claim,
        publish,
        keys.news(entry.stream),
        b"%d" % inline,
    )


def _is_over(item: _Item) -> bool:
    answer = item.answer
    return answer is not None and (
        answer.verdict in (Verdict.FENCED, Verdict.LOST) or (answer is TAKEN and item.entry.outcome is not None)
    )
