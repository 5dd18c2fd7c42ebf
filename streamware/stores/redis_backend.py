"""``RedisBackend``: the port of the shared stores, over Redis or Valkey.

Each worker has three connections (on a cluster, to each server) and no more, however many logs and readers: one that
writes, one that asks, one that listens; and for its lease one on the lease's own thread.

Rules:

1. What is about one log is decided by Redis in one step, so that any worker may ask for it at any time.
2. Every key has an expiry from the moment it exists. Nothing is ever looked for with ``KEYS`` or ``SCAN``.
3. A lease is a key that expires; whoever finds a worker without one may end its logs, and the fence in each log sees to
   it that this worker, should it live, learns of it at its next write.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from ..exceptions import StoreUnavailable
from .backend import Entry, Page, Report, Resync, Signal, State, Written
from .base import Claim, Outcome, Tombstone
from .redis_asking import Asking, Command
from .redis_board import RedisBoard
from .redis_claims import Claims
from .redis_layout import INLINE_BYTES, HeldKey, Keys, Note, encode_note, note_of
from .redis_lease import Lease
from .redis_listener import Listener
from .redis_nodes import Nodes, Pipes, nodes_of
from .redis_pages import Pages
from .redis_pipe import Pipe, pack
from .redis_replies import ServerError
from .redis_scripts import load
from .redis_target import Target
from .redis_writer import Lives, Writer, step

#: How long a running log is kept that nobody writes to, and how often it is written to at least.
RUNNING = 3600.0
KEEP_EVERY = 300.0
#: How often a watched log is read that nothing is heard of.
LOOK_EVERY = 1.0
#: How long it is remembered that somebody asked for a stop, in ms; he goes on without an answer long before.
STOP_ASKED = 60_000
#: What a server goes by from its start to its end, and how many of these are remembered.
RUN_ID = re.compile(rb"run_id:\w+")
RUNS = 256
#: At most so many orphans are found, and tombstones cleared, at once.
AT_ONCE = 100


class RedisBackend:
    """A ``Backend`` over one target; ``ttl`` and ``tombstone_ttl`` as ``RedisStore`` has them, ``timeout`` for each
    connection and each answer. Entries of up to ``inline`` bytes are passed on to who listens before Redis has
    acknowledged them."""

    keep_every: float | None = KEEP_EVERY
    look_every: float | None = LOOK_EVERY
    forgetful = True

    def __init__(
        self,
        target: Target,
        *,
        prefix: str,
        ttl: float,
        tombstone_ttl: float,
        max_tombstones: int,
        timeout: float,
        inline: int = INLINE_BYTES,
    ) -> None:
        self.name = target.name
        self.tag = _tag(f"{target.identity} {prefix}")
        self._target = target
        self._keys = Keys(prefix)
        self._lives = Lives(int(RUNNING * 1000), int(ttl * 1000), int((ttl + tombstone_ttl) * 1000))
        self._max_tombstones = max_tombstones
        self._timeout = timeout
        self._inline = inline
        self._worker = ""
        self._held: dict[str, HeldKey] = {}  # by stream
        self._open: _Connected | None = None
        self._lease: Lease | None = None

    # -- connections

    async def connect(self, worker: str, lease_ttl: float, on_signal: Callable[[Signal], None]) -> None:
        await self._disconnect()
        self._worker = worker
        if self._lease is None:
            self._lease = Lease(self._target, self._keys, worker, lease_ttl, self._lives.worker, self._timeout)
        lease = self._lease
        made = _Connected(
            self._target, self._keys, worker, self._lives, self._held, on_signal, self._timeout, self._inline
        )
        try:
            await made.listener.start()
            await made.asking.ask(*lease.commands())
        except BaseException:
            await made.aclose()
            raise
        self._open = made

    async def aclose(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:  # first of all, for a renewal that is under way would take it anew
            await asyncio.to_thread(lease.close)
        if self._open is not None:
            name = self._keys.lease(self._worker)
            with suppress(StoreUnavailable):
                await self._open.asking.ask(Command(name, pack(b"DEL", name)))
        await self._disconnect()

    async def _disconnect(self) -> None:
        made, self._open = self._open, None
        if made is not None:
            await made.aclose()

    @property
    def _now(self) -> _Connected:
        if self._open is None:
            raise StoreUnavailable(f"{self.name}: not connected")
        return self._open

    # -- logs

    async def write(self, entries: Sequence[Entry]) -> Sequence[Written]:
        if not entries:  # asked whether it takes writes: this one it refuses where it refuses any
            workers = self._keys.workers
            await self._now.writing.ask(Command(workers, pack(b"SADD", workers, self._worker.encode())))
            return []
        return await self._now.writer.write(entries)

    async def read(self, stream: str, after: int) -> Page | None:
        return await self._now.pages.read(stream, after)

    async def state(self, stream: str) -> State | Tombstone | None:
        return await self._now.pages.state(stream)

    async def end(self, stream: str, outcome: Outcome) -> Outcome | None:
        keys, asking, lives = self._keys, self._now.asking, self._lives
        log, meta = keys.log(stream), keys.meta(stream)
        entry = Entry(stream, 0, outcome=outcome)
        reply, said = await asking.ask(
            Command(log, step(keys, entry, self._worker, lives, b"", asking.nodes.publish, self._inline)),
            Command(meta, pack(b"HMGET", meta, b"w", b"k")),
        )
        said_worker, key = said if isinstance(said, list) else (None, None)
        # Of a log that has expired nobody knows whose it was, but who found it among that worker's.
        found = self._now.found.pop(stream, "")
        worker = said_worker.decode() if isinstance(said_worker, bytes) else found
        commands: list[Command] = []
        if worker:
            sets = keys.open(worker), keys.stop(worker)
            commands += [Command(name, pack(b"SREM", name, stream.encode())) for name in sets]
        kept = b"%d" % lives.tombstone
        match reply:
            case [b"taken", *_]:
                commands.append(Command(keys.ended, pack(b"RPUSH", keys.ended, stream.encode())))
                commands.append(Command(keys.ended, pack(b"PEXPIRE", keys.ended, kept)))
                if isinstance(key, bytes) and key:
                    commands.append(Command(key, pack(b"PEXPIRE", key, kept)))
                stands: Outcome | None = outcome
            case [b"fenced", _, bytes(was)]:
                stands = Outcome(was.decode())
            case _:
                stands = None
        if commands:
            await asking.ask(*commands)
        return stands

    async def forget(self, stream: str) -> None:
        made, keys = self._now, self._keys
        meta = keys.meta(stream)
        worker, key = await self._worker_and_key(stream)
        commands = [Command(meta, pack(b"DEL", keys.log(stream), meta)), self._announce_gone(stream)]
        sets = {keys.open(worker), keys.open(self._worker)}
        commands += [Command(name, pack(b"SREM", name, stream.encode())) for name in sets]
        # On the connection that writes: behind what is on its way there.
        await made.writing.ask(*commands)
        made.writer.drop(stream)
        made.pages.forget(stream)
        if key:
            await made.claims.free(stream, key)

    async def tidy(self) -> None:
        """Clear the oldest tombstones where there are too many."""
        made, ended = self._now, self._keys.ended
        count = (await made.asking.ask(Command(ended, pack(b"LLEN", ended))))[0]
        over = min(AT_ONCE, count - self._max_tombstones) if isinstance(count, int) else 0
        if over > 0:
            streams = (await made.asking.ask(Command(ended, pack(b"LPOP", ended, b"%d" % over))))[0]
            for stream in streams if isinstance(streams, list) else []:
                if isinstance(stream, bytes):
                    await self._clear(stream.decode())

    # -- other workers

    async def watch(self, stream: str) -> None:
        await self._now.listener.watch(stream)

    async def unwatch(self, stream: str) -> None:
        self._now.listener.unwatch(stream)

    async def tell(self, reports: Sequence[Report]) -> None:
        owners: dict[str, list[Report]] = {}
        for report in reports:
            owners.setdefault(report.owner, []).append(report)
        notes = [self._message(owner, note_of(self._worker, told)) for owner, told in owners.items()]
        if notes:
            await self._now.asking.ask(*notes)

    async def ask_stop(self, stream: str, owner: str) -> None:
        stop = self._keys.stop(owner)
        await self._now.asking.ask(
            Command(stop, pack(b"SADD", stop, stream.encode())),
            Command(stop, pack(b"PEXPIRE", stop, b"%d" % STOP_ASKED)),
            self._message(owner, encode_note(Note(self._worker, stops=(stream,)))),
        )

    async def asked(self) -> Sequence[str]:
        made, stop = self._now, self._keys.stop(self._worker)
        members = (await made.asking.ask(Command(stop, pack(b"SMEMBERS", stop))))[0]
        named = (
            [member.decode() for member in members if isinstance(member, bytes)] if isinstance(members, list) else []
        )
        return [stream for stream in named if made.writer.is_running(stream)]

    # -- leases

    def renew(self) -> None:
        lease = self._lease
        if lease is None:
            raise StoreUnavailable(f"{self.name}: not connected")
        lease.renew()

    async def orphans(self) -> Sequence[str]:
        asking, keys = self._now.asking, self._keys
        self._now.found.clear()
        members = (await asking.ask(Command(keys.workers, pack(b"SMEMBERS", keys.workers))))[0]
        workers = (
            [member.decode() for member in members if isinstance(member, bytes)] if isinstance(members, list) else []
        )
        strays = await self._strays()
        others = [worker for worker in workers if worker != self._worker]
        if not others or len(strays) == AT_ONCE:
            return strays
        leases = await asking.ask(*(Command(name, pack(b"EXISTS", name)) for name in map(keys.lease, others)))
        dead = [worker for worker, lease in zip(others, leases, strict=True) if lease == 0][:AT_ONCE]
        if not dead:
            return strays
        some = b"%d" % AT_ONCE
        left = await asking.ask(*(Command(name, pack(b"SRANDMEMBER", name, some)) for name in map(keys.open, dead)))
        found = strays
        gone: list[bytes] = []
        for worker, logs in zip(dead, left, strict=True):
            named = [log.decode() for log in logs if isinstance(log, bytes)] if isinstance(logs, list) else []
            found += named
            self._now.found.update(dict.fromkeys(named, worker))
            if not named:
                gone.append(worker.encode())
        if gone:
            await asking.ask(Command(keys.workers, pack(b"SREM", keys.workers, *gone)))
        return found[:AT_ONCE]

    # -- idempotency keys

    async def claim(self, key: str, fingerprint: bytes, stream: str) -> Claim:
        return await self._now.claims.claim(key, fingerprint, stream)

    async def settle(self, key: str, stream: str, started: bool) -> None:
        await self._now.claims.settle(key, stream, started)

    async def claimed(self, key: str) -> Claim | None:
        return await self._now.claims.claimed(key)

    # -- what workers leave for one another

    async def put(self, key: str, value: bytes, ttl: float) -> bool:
        return await self._now.board.put(key, value, ttl)

    async def take(self, key: str) -> bytes | None:
        return await self._now.board.take(key)

    async def announce(self, topic: str, message: bytes) -> None:
        await self._now.board.announce(topic, message)

    async def listen(self, topics: Collection[str]) -> None:
        await self._now.listener.hear(topics)

    # -- within

    async def _strays(self) -> list[str]:
        """Logs that are open in this worker's name and that it does not produce: a server that took another's place had
        not heard of their end. Looked for after each new connection."""
        made, name = self._now, self._keys.open(self._worker)
        if made.is_new:
            made.is_new = False
            members = (await made.asking.ask(Command(name, pack(b"SMEMBERS", name))))[0]
            named = [log.decode() for log in members if isinstance(log, bytes)] if isinstance(members, list) else []
            made.strays = dict.fromkeys(stream for stream in named if not made.writer.is_named(stream))
        some = list(made.strays)[:AT_ONCE]
        if not some:
            return []
        packed = pack(b"SMISMEMBER", name, *(stream.encode() for stream in some))
        left = (await made.asking.ask(Command(name, packed)))[0]
        for stream, still in zip(some, left if isinstance(left, list) else [], strict=True):
            if still != 1:
                del made.strays[stream]
        left_open = [stream for stream in some if stream in made.strays]
        made.found.update(dict.fromkeys(left_open, self._worker))
        return left_open

    def _announce_gone(self, stream: str) -> Command:
        """Tell who watches a log that it is no more: it is not to be taken for one that comes again."""
        news = self._keys.news(stream)
        return Command(news, pack(self._now.asking.nodes.publish, news, b"0!0" + Outcome.INTERRUPTED.value.encode()))

    def _message(self, worker: str, note: bytes) -> Command:
        inbox = self._keys.inbox(worker)
        return Command(inbox, pack(self._now.asking.nodes.publish, inbox, note))

    async def _worker_and_key(self, stream: str) -> tuple[str, bytes]:
        meta = self._keys.meta(stream)
        said = (await self._now.asking.ask(Command(meta, pack(b"HMGET", meta, b"w", b"k"))))[0]
        worker, key = said if isinstance(said, list) else (None, None)
        held = self._held.get(stream)
        name = key if isinstance(key, bytes) and key else b"" if held is None else held.name
        return worker.decode() if isinstance(worker, bytes) else self._worker, name

    async def _clear(self, stream: str) -> None:
        """An ended log and its tombstone go before their time."""
        _, key = await self._worker_and_key(stream)
        meta = self._keys.meta(stream)
        await self._now.asking.ask(Command(meta, pack(b"DEL", self._keys.log(stream), meta)))
        if key:
            await self._now.claims.free(stream, key)


class _Connected:
    """What a backend has while it is connected."""

    def __init__(
        self,
        target: Target,
        keys: Keys,
        worker: str,
        lives: Lives,
        held: dict[str, HeldKey],
        on_signal: Callable[[Signal], None],
        timeout: float,
        inline: int,
    ) -> None:
        self._timeout = timeout
        self._on_signal = on_signal
        self._runs: dict[bytes, None] = {}  # servers that were met, as they have run since their start
        nodes: Nodes = nodes_of(target, timeout)
        self.asking = Asking(target.name, nodes, Pipes(nodes, f"streamware-{worker}-ask", self._teach), timeout)
        self.writing = Asking(target.name, nodes, Pipes(nodes, f"streamware-{worker}-write", self._teach), timeout)
        self.listener = Listener(nodes, keys, worker, on_signal, timeout)
        self.writer = Writer(self.writing, keys, worker, lives, held, inline)
        self.pages = Pages(self.asking, keys)
        self.board = RedisBoard(self.asking, keys, worker)
        self.claims = Claims(self.asking, keys, worker, lives, held)
        self.is_new = True  # the server at the other end may have taken another's place
        self.strays: dict[str, None] = {}
        self.found: dict[str, str] = {}  # orphans that were found last, and whose they were

    async def _teach(self, pipe: Pipe, again: bool) -> None:
        """Make a server know the scripts; and us, where it is not the one that was there before, that it may lack what
        that one had. A connection that was closed for having nothing to do is no reason to doubt."""
        self.is_new = True
        packed, count = load()
        *replies, info = await pipe.ask(packed + pack(b"INFO", b"server"), count + 1, self._timeout)
        for reply in replies:
            if isinstance(reply, ServerError):
                raise self.asking.trouble(reply, pipe)
        run = RUN_ID.search(info) if isinstance(info, bytes) else None  # not everybody may ask
        if again and (run is None or run[0] not in self._runs):
            self._on_signal(Resync())
        if run is not None:
            self._runs[run[0]] = None
            if len(self._runs) > RUNS:
                del self._runs[next(iter(self._runs))]

    async def aclose(self) -> None:
        await self.listener.aclose()
        await self.asking.pipes.aclose()
        await self.writing.pipes.aclose()


def _tag(identity: str) -> str:
    """Six letters or digits out of what identifies a store."""
    return hashlib.sha256(identity.encode()).hexdigest()[:6]
