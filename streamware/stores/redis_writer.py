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
from .records import encode_head
from .redis_asking import ASKING, TURNS, Asking, Command, is_moved, note_where
from .redis_events import id_line, pack_events
from .redis_layout import HeldKey, Keys, Packed
from .redis_pipe import Pipe, pack
from .redis_replies import Reply, ServerError
from .redis_scripts import KEEP, STEP
from .redis_target import Address

_OOM = frozenset({"OOM"})
_GONE = (Verdict.FENCED, Verdict.LOST)
_NONE = Written(Verdict.LOST)  # stands where there is no answer yet; told from all others by identity


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


class _Batch:
    """Entries under way. ``over``: the places of those whose logs are open no more; ``elsewhere``: where those are
    whose logs are on their way to another server."""

    __slots__ = ("answers", "elsewhere", "entries", "over")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.answers: list[Written] = [_NONE] * len(entries)
        self.over: list[int] = []
        self.elsewhere: dict[int, Address] = {}

    def unanswered(self) -> list[int]:
        return [place for place, answer in enumerate(self.answers) if answer is _NONE]


class Writer:
    """Writes the logs of ``worker``. ``held`` has their idempotency keys, by stream. Entries of up to ``inline`` bytes
    are announced with what is in them."""

    def __init__(
        self, asking: Asking, keys: Keys, worker: str, lives: Lives, held: dict[str, HeldKey], inline: int
    ) -> None:
        self._asking = asking
        self._keys = keys
        self._worker = worker
        self._lives = lives
        self._held = held
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
        batch = _Batch(entries)
        await self._round(batch, range(len(entries)), plainly=True)
        for turn in range(TURNS):
            again = batch.unanswered()
            if not again:
                break
            await self._asking.look_again(turn)
            await self._round(batch, again, plainly=False)
        if batch.unanswered():
            raise StoreUnavailable(f"{self._asking.name}: logs are being moved between servers")
        if batch.over:
            await self._end(batch)
        return batch.answers

    # -- one round: a pipeline to each server

    async def _round(self, batch: _Batch, places: Sequence[int], *, plainly: bool) -> None:
        nodes = self._asking.nodes
        if nodes.only is not None:
            await self._write_to(nodes.only, batch, places, plainly)
            return
        groups: dict[tuple[Address, bool], list[int]] = {}
        for place in places:
            there = batch.elsewhere.pop(place, None)
            node = there or await nodes.locate(self._keys.log(batch.entries[place].stream))
            groups.setdefault((node, there is not None), []).append(place)
        rounds = [
            self._write_to(node, batch, group, plainly, on_their_way) for (node, on_their_way), group in groups.items()
        ]
        # All of them are let come to their end: one server's trouble takes nothing from the others' logs.
        for result in await asyncio.gather(*rounds, return_exceptions=True):
            if result is not None:
                raise result

    async def _write_to(
        self, node: Address, batch: _Batch, places: Sequence[int], plainly: bool, on_their_way: bool = False
    ) -> None:
        """Write the entries at ``places`` and note the answers: first those that go plainly, two replies each, then
        those by way of the script, then what is to be trimmed. ``on_their_way``: their logs are, to this server."""
        pipe = await self._asking.pipes.to(node)
        entries, logs, largest = batch.entries, self._logs, self._inline
        plain: list[int] = []
        owns: list[_Own] = []
        others: list[int] = []
        trims: list[int] = []
        parts: list[bytes] = []
        for place in places:  # this loop is most of what an append costs
            entry = entries[place]
            own, events = logs.get(entry.stream), entry.events
            if (
                own is not None
                and own.pipe is pipe
                and plainly
                and events
                and entry.outcome is None
                and entry.head is None
                and own.last + 1 >= entry.first
            ):
                parts.append(own.packed.append(entry.first, events, 0 if own.silent else largest))
                plain.append(place)
                owns.append(own)
            else:
                others.append(place)
            if entry.trim and own is not None and entry.trim > own.trimmed:
                trims.append(place)
        before, each = (ASKING, 2) if on_their_way else (b"", 1)
        parts += [before + self._step(entries[place]) for place in others]
        parts += [logs[(entry := entries[place]).stream].packed.trim(min(entry.trim, entry.last)) for place in trims]
        count = 2 * len(plain) + each * len(others) + len(trims)
        replies = await pipe.ask(b"".join(parts), count, self._asking.timeout)
        nodes = self._asking.nodes
        deaf = nodes.only is None and not nodes.sharded  # only listeners at this server are told of
        at = 0
        for place, own in zip(plain, owns, strict=True):
            if replies[at].__class__ is bytes:
                entry = entries[place]
                own.last = max(own.last, entry.first + len(entry.events) - 1)
                own.silent = replies[at + 1] == 0 and not deaf
                batch.answers[place] = TAKEN
            else:
                own.pipe = None
                self._refused(replies[at], batch, place, pipe)
            at += 2
        for place in others:
            reply = replies[at + each - 1]
            note_where(reply, place, batch.elsewhere)
            self._note(batch, place, self._stepped(reply, entries[place], pipe), pipe)
            at += each
        for place in trims:
            if batch.answers[place] is TAKEN:
                logs[entries[place].stream].trimmed = entries[place].trim

    def _note(self, batch: _Batch, place: int, answer: Written | None, pipe: Pipe) -> None:
        """What the script said of an entry."""
        entry = batch.entries[place]
        own = self._logs.get(entry.stream)
        if answer is TAKEN:
            if own is None:
                packed = Packed(self._keys, entry.stream, self._asking.nodes.publish)
                own = self._logs[entry.stream] = _Own(packed)
            own.pipe = pipe
            own.last = max(own.last, entry.last)
        elif own is not None:
            own.pipe = None
        if answer is not None:
            batch.answers[place] = answer
            if answer.verdict in _GONE or (answer is TAKEN and entry.outcome is not None):
                batch.over.append(place)

    def _step(self, entry: Entry) -> bytes:
        held = self._held.get(entry.stream)
        claim = b"" if held is None else held.name
        return step(self._keys, entry, self._worker, self._lives, claim, self._asking.nodes.publish, self._inline)

    def _refused(self, reply: Reply, batch: _Batch, place: int, pipe: Pipe) -> None:
        """The script has to tell what became of it, perhaps of another server. :raises StoreUnavailable: trouble."""
        if is_moved(reply):
            note_where(reply, place, batch.elsewhere)
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
            held = self._held.get(stream)
            if held is not None:
                alive = b"%d" % (lives.running + lives.tombstone)
                words = stream.encode(), held.fingerprint, self._worker.encode(), alive
                commands.append(Command(held.name, KEEP.call((held.name,), *words)))
        await self._asking.ask(*commands, bearing=_OOM)  # the log itself will meet it, and tell

    async def _end(self, batch: _Batch) -> None:
        """These logs are open no more."""
        keys, tombstone = self._keys, b"%d" % self._lives.tombstone
        over = {batch.entries[place].stream: batch.answers[place] for place in batch.over}
        streams = [stream.encode() for stream in over]
        sets = keys.open(self._worker), keys.stop(self._worker)
        commands = [Command(key, pack(b"SREM", key, *streams)) for key in sets]
        ended = [stream for stream, answer in over.items() if answer is TAKEN]
        if ended:
            commands.append(Command(keys.ended, pack(b"RPUSH", keys.ended, *(stream.encode() for stream in ended))))
            commands.append(Command(keys.ended, pack(b"PEXPIRE", keys.ended, tombstone)))
        for stream in ended:
            held = self._held.get(stream)
            if held is not None:
                commands.append(Command(held.name, pack(b"PEXPIRE", held.name, tombstone)))
        await self._asking.ask(*commands, bearing=_OOM)
        for stream, answer in over.items():
            self.drop(stream)
            if answer is not LOST:  # that may be made again
                self._held.pop(stream, None)


def step(keys: Keys, entry: Entry, worker: str, lives: Lives, claim: bytes, publish: bytes, inline: int) -> bytes:
    """One entry by way of the script ``STEP``."""
    return STEP.call(
        (keys.log(entry.stream), keys.meta(entry.stream)),
        b"%d" % entry.first,
        b"%d" % entry.last,
        pack_events(id_line(entry.stream), entry.first, entry.events) if entry.events else b"",
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
