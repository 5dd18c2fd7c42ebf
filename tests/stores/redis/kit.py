"""What the tests of the Redis back end share: back ends on a server of the tests' own, and looks into that server."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence

from streamware.stores.backend import Appended, Entry, Signal, State, Verdict
from streamware.stores.base import Head, Outcome
from streamware.stores.redis_backend import RedisBackend
from streamware.stores.redis_layout import INLINE_BYTES
from streamware.stores.redis_target import target_of
from streamware.wire.cursor import new_stream_id
from tests.redis_server import RedisServer

HEAD = Head("owner", "client:a", "/chat", "POST", 200, ((b"content-type", b"text/event-stream"),), "text/event-stream")
LEASE = 12.0


class Worker:
    """One worker's back end, and the signals that it was given."""

    def __init__(self, backend: RedisBackend, name: str) -> None:
        self.backend = backend
        self.name = name
        self.signals: list[Signal] = []

    async def connect(self, lease: float = LEASE) -> Worker:
        await self.backend.connect(self.name, lease, self.signals.append)
        return self

    async def begin(self, *events: bytes | None) -> str:
        """A new log with ``events``; its stream."""
        stream = new_stream_id(self.backend.tag)
        assert await self.write(stream, 1, *events, head=HEAD) is Verdict.TAKEN
        return stream

    async def write(
        self, stream: str, first: int, *events: bytes | None, head: Head | None = None, outcome: Outcome | None = None
    ) -> Verdict:
        (written,) = await self.backend.write([Entry(stream, first, events, head=head, outcome=outcome)])
        return written.verdict

    async def all_of(self, stream: str, after: int = 0) -> Sequence[bytes | None]:
        page = await self.backend.read(stream, after)
        assert page is not None
        return page.events

    async def found(self, stream: str) -> State:
        state = await self.backend.state(stream)
        assert isinstance(state, State)
        return state

    def heard(self, stream: str) -> list[Entry]:
        return [
            signal.entry for signal in self.signals if isinstance(signal, Appended) and signal.entry.stream == stream
        ]


class Place:
    """A prefix of its own on one server, for the workers of one test."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.prefix = f"t{secrets.token_hex(6)}:"
        self.workers: list[Worker] = []

    def backend(
        self,
        *,
        ttl: float = 300.0,
        tombstone_ttl: float = 1000.0,
        max_tombstones: int = 100,
        timeout: float = 2.0,
        inline: int = INLINE_BYTES,
        url: str = "",
    ) -> RedisBackend:
        return RedisBackend(
            target_of("RedisStore", "url", url or self.server.url),
            prefix=self.prefix,
            ttl=ttl,
            tombstone_ttl=tombstone_ttl,
            max_tombstones=max_tombstones,
            timeout=timeout,
            inline=inline,
        )

    async def worker(self, name: str = "", *, lease: float = LEASE, **options: float) -> Worker:
        made = Worker(self.backend(**options), name or f"w{len(self.workers)}")  # type: ignore[arg-type]
        self.workers.append(made)
        return await made.connect(lease)

    async def aclose(self) -> None:
        for worker in self.workers:
            await worker.backend.aclose()

    # -- looks into the server

    def keys(self) -> dict[str, int]:
        """All keys of this place, with the ms that each has to live; -1 where it has no expiry."""
        with self.server.client() as client:
            names = client.keys(f"{self.prefix}*")
            return {name.decode().removeprefix(self.prefix): client.pttl(name) for name in names}

    def pass_time(self, seconds: float) -> None:
        """Let every key be as near to its expiry as it will be after ``seconds``."""
        for name, left in self.keys().items():
            key = self.prefix + name
            if left >= 0:
                rest = left - int(seconds * 1000)
                self.server.run("PEXPIRE", key, rest) if rest > 0 else self.server.run("DEL", key)

    def connections(self) -> list[str]:
        """The names of all connections to the server, but for the look itself."""
        text = self.server.run("CLIENT", "LIST")
        lines = text if isinstance(text, list) else str(text, "ascii").splitlines()  # type: ignore[call-overload]
        names = [word for line in lines for word in str(line).split() if word.startswith("name=streamware-")]
        return sorted(name.removeprefix("name=streamware-") for name in names)


async def until(seen: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until ``seen()`` is true."""
    give_up = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < give_up, "it did not come"
        await asyncio.sleep(0.005)
