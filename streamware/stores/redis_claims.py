"""Idempotency keys in Redis: one hash a key, taken and settled by one script each.

A claim that has settled lives as long as its stream's log and tombstone; one that has not, for a day, and is abandoned
where its worker has no lease any more.
"""

from __future__ import annotations

from dataclasses import replace

from .base import Claim
from .redis_asking import Asking, Command
from .redis_layout import HeldKey, Keys
from .redis_pipe import pack
from .redis_replies import Reply
from .redis_scripts import CLAIM, SETTLE
from .redis_writer import Lives

#: How long a claim is held for a request that does not come to an answer, in ms.
UNSETTLED = 86_400_000
#: How long a claim that was given back may still be on its way, in ms.
LATE = 60_000


class Claims:
    """The claims that ``worker`` takes. ``held`` gets the keys by stream."""

    def __init__(self, asking: Asking, keys: Keys, worker: str, lives: Lives, held: dict[str, HeldKey]) -> None:
        self._asking = asking
        self._keys = keys
        self._worker = worker
        self._lives = lives
        self._held = held

    async def claim(self, key: str, fingerprint: bytes, stream: str) -> Claim:
        name = self._keys.claim(key)
        words = fingerprint, stream.encode(), self._worker.encode(), b"%d" % UNSETTLED
        claim = await self._look(Command(name, CLAIM.call((name,), *words)))
        if claim is None:
            raise ValueError("not a claim")
        if claim.won:
            self._held[stream] = HeldKey(name, fingerprint)
        return claim

    async def settle(self, key: str, stream: str, started: bool) -> None:
        name = self._keys.claim(key)
        alive = self._lives.running + self._lives.tombstone if started else LATE
        if not started:
            self._held.pop(stream, None)
        await self._asking.ask(Command(name, SETTLE.call((name,), stream.encode(), b"%d" % started, b"%d" % alive)))

    async def claimed(self, key: str) -> Claim | None:
        name = self._keys.claim(key)
        return await self._look(Command(name, pack(b"HMGET", name, b"f", b"s", b"w", b"d")))

    async def free(self, stream: str, name: bytes) -> None:
        """The stream is none: whoever comes with its key starts anew."""
        self._held.pop(stream, None)
        await self._asking.ask(Command(name, SETTLE.call((name,), stream.encode(), b"0", b"0")))

    async def _look(self, command: Command) -> Claim | None:
        """What ``command`` makes or finds of a claim. It is asked again where the holder has no lease: a worker that
        leaves gives its lease back when all else is done, so what then is not settled never will be."""
        dead = ""
        while True:
            claim, worker = _read((await self._asking.ask(command))[0])
            if claim is None or not claim.pending:
                return claim
            if worker == dead:
                return replace(claim, abandoned=True)
            if await self._lives_on(worker):
                return claim
            dead = worker

    async def _lives_on(self, worker: str) -> bool:
        lease = self._keys.lease(worker)
        return (await self._asking.ask(Command(lease, pack(b"EXISTS", lease))))[0] == 1


def _read(reply: Reply) -> tuple[Claim | None, str]:
    """A claim, if there is one, and the worker that took it."""
    match reply:
        case [None, *_]:
            return None, ""
        case [*won, bytes(fingerprint), bytes(stream), bytes(worker), bytes(settled)]:
            return Claim(won == [1], stream.decode(), fingerprint, settled == b"1"), worker.decode()
        case _:
            raise ValueError("not a claim")
