"""The servers of a Redis Cluster: which one holds a key, by the cluster's own map.

The map is read from any server that answers, those last seen first, and again whenever a server says that it does not
hold what it was asked for; reading it is shared by all who want it at once.
"""

from __future__ import annotations

import asyncio
import random

from ..exceptions import StoreUnavailable
from .redis_nodes import Message, dial
from .redis_pipe import Pipe, pack
from .redis_replies import Reply, ServerError
from .redis_target import Address, Target

SLOTS = 16_384
#: How many servers are asked for the map before it is given up for this time.
ASKED = 4


class ClusterNodes:
    """The masters of one cluster."""

    only = None

    def __init__(self, target: Target, timeout: float) -> None:
        from redis.crc import key_slot

        self.sharded = False
        self._target = target
        self._timeout = timeout
        self._slot_of = key_slot
        self._map: list[Address] = []
        self._seen: list[Address] = []
        self._reading: asyncio.Task[list[Address]] | None = None
        self._knows_sharding = False

    @property
    def publish(self) -> bytes:
        return b"SPUBLISH" if self.sharded else b"PUBLISH"

    async def locate(self, key: bytes) -> Address:
        found = self._map
        if not found:
            if self._reading is None:
                self._reading = asyncio.get_running_loop().create_task(self._read())
                self._reading.add_done_callback(self._read_it)
            found = await asyncio.shield(self._reading)  # not from ``_map``: it may be mistrusted again by now
        node = found[self._slot_of(key)]
        if not node[0]:
            raise StoreUnavailable(f"{self._target.name}: no server has the slot of a key")
        return node

    async def dial(self, node: Address, client_name: str, on_message: Message | None = None) -> Pipe:
        where = {"host": node[0], "port": node[1]}
        return await dial(self._target, where, client_name, self._timeout, on_message)

    def mistrust(self) -> None:
        self._map = []

    # -- within

    async def _read(self) -> list[Address]:
        known = random.sample(self._seen, len(self._seen)) + list(self._target.seeds)
        reason: StoreUnavailable | None = None
        for node in list(dict.fromkeys(known))[:ASKED]:
            pipe: Pipe | None = None
            try:
                pipe = await self.dial(node, "streamware-map")
                slots, channels = await pipe.ask(
                    pack(b"CLUSTER", b"SLOTS") + pack(b"COMMAND", b"INFO", b"SPUBLISH"), 2, self._timeout
                )
                found = self._take(node, slots)
            except StoreUnavailable as error:
                reason = error
                continue
            finally:
                if pipe is not None:
                    pipe.drop()
            if not self._knows_sharding:  # and what was once chosen stays
                self._knows_sharding = True
                self.sharded = isinstance(channels, list) and isinstance(channels[0], list)
            return found
        raise StoreUnavailable(f"{self._target.name}: no server tells where the keys are") from reason

    def _read_it(self, done: asyncio.Task[list[Address]]) -> None:
        self._reading = None
        if not done.cancelled():
            done.exception()  # whoever waited has been told

    def _take(self, asked: Address, slots: Reply) -> list[Address]:
        if isinstance(slots, ServerError) or not isinstance(slots, list):
            raise StoreUnavailable(f"{self._target.name}: {asked[0]}:{asked[1]} is no server of a cluster")
        found: list[Address] = [("", 0)] * SLOTS
        for entry in slots:
            match entry:
                case [int(first), int(last), [host, int(port), *_], *_]:
                    # A server that does not know its own name is the one that was asked.
                    name = host.decode() if isinstance(host, bytes) and host else asked[0]
                    found[first : last + 1] = [(name, port)] * (last + 1 - first)
                case _:
                    pass
        self._seen = [node for node in dict.fromkeys(found) if node[0]]
        if not self._seen:
            raise StoreUnavailable(f"{self._target.name}: the cluster has no slots")
        self._map = found
        return found
