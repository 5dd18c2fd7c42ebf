"""Several Redis servers that belong together: a cluster of masters, a master with its replica and sentinels."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import redis

from tests.redis_server import PATIENCE, RedisServer, free_port

SLOTS = 16_384


class RedisCluster:
    """A cluster of ``count`` masters, each with its share of the slots. ``patience``: milliseconds after which a node
    that does not answer is taken for dead by the others; on a machine that is busy it may be but late."""

    def __init__(self, path: Path, count: int = 3, *, patience: int = 1000) -> None:
        self._stack = ExitStack()
        options = {
            "cluster_enabled": "yes",
            "cluster_node_timeout": str(patience),
            "cluster_require_full_coverage": "no",
        }
        self.nodes = [RedisServer(path, port=free_port(10_000), **options) for _ in range(count)]

    def __enter__(self) -> RedisCluster:
        for node in self.nodes:
            self._stack.enter_context(node)
        first = self.nodes[0]
        for index, node in enumerate(self.nodes):
            share = range(index * SLOTS // len(self.nodes), (index + 1) * SLOTS // len(self.nodes))
            node.run("CLUSTER", "ADDSLOTS", *share)
            node.run("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            if node is not first:
                node.run("CLUSTER", "MEET", "127.0.0.1", first.port)
        wait_until(lambda: all(_knows_all(node, len(self.nodes)) for node in self.nodes), "the cluster to form")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def holder(self, key: str) -> RedisServer:
        """The node that holds ``key``."""
        slot = int(str(self.nodes[0].run("CLUSTER", "KEYSLOT", key)))
        return self.nodes[next(i for i in range(len(self.nodes)) if slot < (i + 1) * SLOTS // len(self.nodes))]

    def move(self, key: str, to: RedisServer, *, only: tuple[str, ...] | None = None) -> None:
        """Move the slot of ``key``, with all that is in it, to another node; or ``only`` some of its keys, so that the
        slot is left on its way."""
        slot = int(str(self.nodes[0].run("CLUSTER", "KEYSLOT", key)))
        source, target = self.holder(key), to
        names = {node.port: str(node.run("CLUSTER", "MYID"), "ascii") for node in self.nodes}  # type: ignore[call-overload]
        target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source.port])
        source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target.port])
        keys = source.run("CLUSTER", "GETKEYSINSLOT", slot, 1000) if only is None else [*only]
        for name in keys if isinstance(keys, list) else []:
            source.run("MIGRATE", "127.0.0.1", target.port, name, 0, 5000)
        for node in (target, source, *self.nodes) if only is None else ():
            node.run("CLUSTER", "SETSLOT", slot, "NODE", names[target.port])


class SentinelGroup:
    """A master, a replica of it, and three sentinels that watch over them under the name ``main``."""

    def __init__(self, path: Path, **options: str) -> None:
        self._stack = ExitStack()
        self._path = path
        options = {"repl_diskless_sync_delay": "0", **options}
        self.master = RedisServer(path, **options)
        self.replica = RedisServer(path, replicaof=f"127.0.0.1 {self.master.port}", **options)
        self.sentinels: list[RedisServer] = []

    def __enter__(self) -> SentinelGroup:
        self._stack.enter_context(self.master)
        self._stack.enter_context(self.replica)
        wait_until(lambda: in_step(self.replica), "the replica to follow")
        watch = (
            f"monitor main 127.0.0.1 {self.master.port} 2\ndown-after-milliseconds main 500\nfailover-timeout main 2000"
        )
        for _ in range(3):
            sentinel = RedisServer(self._path, mode="--sentinel", sentinel=watch)
            self.sentinels.append(self._stack.enter_context(sentinel))
        wait_until(lambda: all(_sees_others(sentinel) for sentinel in self.sentinels), "the sentinels to meet")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return "redis+sentinel://" + ",".join(f"127.0.0.1:{node.port}" for node in self.sentinels) + "/main"


def wait_until(seen: object, what: str, seconds: float = PATIENCE) -> None:
    """Wait until ``seen()``; blocks."""
    assert callable(seen)
    give_up = time.monotonic() + seconds
    while not seen():
        if time.monotonic() > give_up:
            raise TimeoutError(f"no end in waiting for {what}")
        time.sleep(0.02)


def in_step(replica: RedisServer) -> bool:
    """Whether a replica is connected to its master."""
    return b"master_link_status:up" in raw_info(replica, "replication")


def is_master(server: RedisServer) -> bool:
    """Whether it is one now; a server that changes closes its connections."""
    try:
        return b"role:master" in raw_info(server, "replication")
    except redis.ConnectionError:
        return False


def raw_info(server: RedisServer, section: str) -> bytes:
    """What ``INFO`` answers, as it is."""
    with server.client() as client:
        client.response_callbacks.clear()
        answer = client.execute_command("INFO", section)
    assert isinstance(answer, bytes)
    return answer


def _knows_all(node: RedisServer, count: int) -> bool:
    with node.client() as client:
        client.response_callbacks.clear()
        info = client.execute_command("CLUSTER", "INFO")
        slots = client.execute_command("CLUSTER", "SLOTS")
    return b"cluster_state:ok" in info and b"cluster_slots_ok:16384" in info and len(slots) == count


def _sees_others(sentinel: RedisServer) -> bool:
    info = raw_info(sentinel, "sentinel")
    return b"status=ok" in info and b"slaves=1" in info and b"sentinels=3" in info
