"""A worker's lease: one key that expires, renewed on a thread that an app which blocks the loop does not block.

The thread has an event loop of its own, run for as long as a renewal takes: so TLS, sentinels and clusters are reached
as they are everywhere else.
"""

from __future__ import annotations

import asyncio
import threading

from .redis_asking import Asking, Command
from .redis_layout import Keys
from .redis_nodes import Pipes, nodes_of
from .redis_pipe import pack
from .redis_target import Target


class Lease:
    """The lease of ``worker``, which holds for ``ttl`` seconds; what else is kept of a worker, for ``keep`` ms."""

    def __init__(self, target: Target, keys: Keys, worker: str, ttl: float, keep: int, timeout: float) -> None:
        self._target = target
        self._keys = keys
        self._worker = worker
        self._ttl = ttl
        self._keep = keep
        self._timeout = min(timeout, ttl / 3)
        self._one_at_a_time = threading.Lock()
        self._runner: asyncio.Runner | None = None
        self._asking: Asking | None = None

    def commands(self) -> list[Command]:
        """What renews the lease, and names the worker to those who sweep."""
        keys, lease = self._keys, self._keys.lease(self._worker)
        return [
            Command(lease, pack(b"SET", lease, b"1", b"PX", b"%d" % (self._ttl * 1000))),
            Command(keys.workers, pack(b"SADD", keys.workers, self._worker.encode())),
            Command(keys.workers, pack(b"PEXPIRE", keys.workers, b"%d" % self._keep)),
        ]

    def renew(self) -> None:
        """Blocks until it is done. :raises StoreUnavailable: it could not be done, or not in time."""
        with self._one_at_a_time:
            if self._runner is None:
                self._runner = asyncio.Runner()
            self._runner.run(self._renew())

    async def _renew(self) -> None:
        if self._asking is None:
            nodes = nodes_of(self._target, self._timeout)
            pipes = Pipes(nodes, f"streamware-{self._worker}-lease")
            self._asking = Asking(self._target.name, nodes, pipes, self._timeout)
        await self._asking.ask(*self.commands())

    def close(self) -> None:
        """Release the connection. Blocks no longer than a renewal that is under way."""
        with self._one_at_a_time:
            runner, self._runner = self._runner, None
            asking, self._asking = self._asking, None
            if runner is not None:
                if asking is not None:
                    runner.run(asking.pipes.aclose())
                runner.close()
