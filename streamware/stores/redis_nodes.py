"""The servers of a target, and connections to them: which one holds a key, and how it is reached.

Rules:

1. redis-py makes every connection, with its TLS, credentials and database; without retries, since what to do about a
   server that does not answer is decided above.
2. A master that sentinels name is asked whether it is one before it is used: a name may be stale for a while.
3. Nothing here goes on by itself: who uses a connection that was lost asks for another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, cast

from ..exceptions import StoreUnavailable
from .redis_pipe import Dialled, Pipe, pack
from .redis_replies import Reply, ServerError
from .redis_target import Address, Target

Message = Callable[[Reply], None]

#: The one server of a target that has one.
THE_NODE: Address = ("", 0)


class Nodes(Protocol):
    """The servers of one target. Serves one event loop."""

    @property
    def sharded(self) -> bool:
        """True where a channel belongs to the server that holds the key of that name (sharded pub/sub)."""
        ...

    @property
    def publish(self) -> bytes:
        """The word for publishing on such a channel."""
        ...

    @property
    def only(self) -> Address | None:
        """The one server that there is; None where there are several."""
        ...

    async def locate(self, key: bytes) -> Address:
        """The server that holds ``key``. :raises StoreUnavailable: it cannot be found out."""
        ...

    async def dial(self, node: Address, client_name: str, on_message: Message | None = None) -> Pipe:
        """A new connection to a server. :raises StoreUnavailable: there is none to be had."""
        ...

    def mistrust(self) -> None:
        """A server said that it does not hold what it was thought to hold: look again."""


def nodes_of(target: Target, timeout: float) -> Nodes:
    """The servers of ``target``; connecting and every answer may take ``timeout`` seconds."""
    if target.is_cluster:
        from .redis_cluster import ClusterNodes

        return ClusterNodes(target, timeout)
    return SingleNode(target, timeout)


class SingleNode:
    """One server, found by its address or by asking sentinels at each connection."""

    sharded = False
    publish = b"PUBLISH"
    only = THE_NODE

    def __init__(self, target: Target, timeout: float) -> None:
        self._target = target
        self._timeout = timeout

    async def locate(self, key: bytes) -> Address:
        return THE_NODE

    async def dial(self, node: Address, client_name: str, on_message: Message | None = None) -> Pipe:
        target = self._target
        if not target.service:
            return await dial(target, {}, client_name, self._timeout, on_message)
        host, port = await find_master(target, self._timeout)
        pipe = await dial(target, {"host": host, "port": port}, client_name, self._timeout)
        role = (await pipe.ask(pack(b"ROLE"), 1, self._timeout))[0]
        if not isinstance(role, list) or role[0] != b"master":
            pipe.drop()
            raise StoreUnavailable(f"{target.name}: the sentinels name {host}:{port}, which is no master")
        pipe.listen(on_message)
        return pipe

    def mistrust(self) -> None:
        return None


async def dial(
    target: Target, where: Mapping[str, object], client_name: str, timeout: float, on_message: Message | None = None
) -> Pipe:
    """Connect to the server at ``where``, or at the target's own address.

    :raises StoreUnavailable: it could not be done, or not in time.
    """
    from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

    options: dict[str, Any] = {
        **target.options,
        **where,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "client_name": client_name,
        "protocol": 2,  # every server speaks it, and a message on it looks like a reply
    }
    kind = UnixDomainSocketConnection if "path" in options else SSLConnection if target.tls else Connection
    pipe = Pipe(target.name)
    await pipe.take_over(cast("Dialled", kind(**options)), timeout)
    pipe.listen(on_message)
    return pipe


async def find_master(target: Target, timeout: float) -> Address:
    """The address of the master, from the first sentinel that knows it.

    :raises StoreUnavailable: none does.
    """
    asked = pack(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", target.service.encode())
    sentinels = Target(target.name, "", {**target.sentinel_options, "db": 0}, _sentinels_use_tls(target))
    reason: StoreUnavailable | None = None
    for host, port in target.seeds:
        pipe: Pipe | None = None
        try:
            pipe = await dial(sentinels, {"host": host, "port": port}, "streamware-sentinel", timeout / 2)
            found = (await pipe.ask(asked, 1, timeout / 2))[0]
        except StoreUnavailable as error:
            reason = error
            continue
        finally:
            if pipe is not None:
                pipe.drop()
        match found:
            case [bytes(name), bytes(number)]:
                return name.decode(), int(number)
            case ServerError():
                reason = StoreUnavailable(f"{target.name}: sentinel {host}:{port} answered {found.kind}")
            case _:
                pass
    raise StoreUnavailable(f"{target.name}: no sentinel knows the master") from reason


def _sentinels_use_tls(target: Target) -> bool:
    return any(name.startswith("ssl_") for name in target.sentinel_options)


class Pipes:
    """One connection to each server, made when it is first wanted and again when it was lost. ``on_made`` is awaited
    with each new one before it is used, and told whether it takes the place of one that was lost."""

    def __init__(
        self, nodes: Nodes, client_name: str, on_made: Callable[[Pipe, bool], Awaitable[None]] | None = None
    ) -> None:
        self._nodes = nodes
        self._client_name = client_name
        self._on_made = on_made
        self._pipes: dict[Address, Pipe] = {}
        self._making: dict[Address, asyncio.Task[Pipe]] = {}

    async def to(self, node: Address) -> Pipe:
        """The connection to ``node``. :raises StoreUnavailable: there is none to be had."""
        pipe = self._pipes.get(node)
        if pipe is not None and not pipe.lost:
            return pipe
        making = self._making.get(node)
        if making is None:  # whoever else wants it waits for the same attempt
            making = self._making[node] = asyncio.get_running_loop().create_task(self._make(node))
            making.add_done_callback(lambda done: self._made(node, done))
        return await asyncio.shield(making)

    async def _make(self, node: Address) -> Pipe:
        pipe = await self._nodes.dial(node, self._client_name)
        try:
            if self._on_made is not None:
                await self._on_made(pipe, node in self._pipes)
        except BaseException:
            pipe.drop()
            raise
        self._pipes[node] = pipe
        return pipe

    def _made(self, node: Address, making: asyncio.Task[Pipe]) -> None:
        del self._making[node]
        if not making.cancelled():
            making.exception()  # whoever waited has been told

    async def aclose(self) -> None:
        making = list(self._making.values())
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)
        pipes, self._pipes = self._pipes, {}
        for pipe in pipes.values():
            pipe.drop()
