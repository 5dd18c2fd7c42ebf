"""Asking the servers: commands go to the one that holds their key, and what it cannot answer becomes store trouble.

Rules:

1. A server that says it does not hold the key (a cluster that has moved it) is asked about only once: the map of the
   cluster is read again, and the command goes to the next.
2. An error reply that says the server is not fit to serve is ``StoreUnavailable``. So is one that nobody expected: its
   text is not passed on, since servers quote arguments.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ..exceptions import StoreUnavailable
from .redis_nodes import Nodes, Pipes
from .redis_pipe import Pipe
from .redis_replies import Reply, ServerError
from .redis_target import Address

#: How many callers may be waiting for answers; more wait for their turn.
IN_FLIGHT = 64

_MOVED = {"MOVED", "ASK", "TRYAGAIN"}
# Said by a server that will not do until another takes its place, or that has forgotten what a new connection tells it.
_UNFIT = {"READONLY", "MASTERDOWN", "LOADING", "CLUSTERDOWN", "NOAUTH", "NOSCRIPT"}
# Whose text is the server's own, whatever was asked.
_PLAIN = {"OOM", "MISCONF", "NOREPLICAS", "NOPERM", "BUSY", *_UNFIT}


@dataclass(frozen=True, slots=True)
class Command:
    """One packed command, with one reply, about one key."""

    key: bytes
    packed: bytes


class Asking:
    """One set of connections, one to each server, for commands of one kind."""

    def __init__(self, name: str, nodes: Nodes, pipes: Pipes, timeout: float) -> None:
        self.name = name
        self.nodes = nodes
        self.pipes = pipes
        self.timeout = timeout
        self._turns = asyncio.Semaphore(IN_FLIGHT)

    async def ask(self, *commands: Command, bearing: frozenset[str] = frozenset()) -> list[Reply]:
        """One reply for each command. Those to one server go in one piece, in order. An error is among the replies only
        where its kind is one of ``bearing``.

        :raises StoreUnavailable: some of it could not be done, or not in time; whether it was is unknown.
        """
        async with self._turns:
            replies: list[Reply] = [None] * len(commands)
            moved = await self._put(list(enumerate(commands)), replies, bearing)
            if moved:
                self.nodes.mistrust()
                moved = await self._put(moved, replies, bearing)
        if moved:
            raise StoreUnavailable(f"{self.name}: keys are being moved between servers")
        return replies

    async def _put(
        self, commands: list[tuple[int, Command]], replies: list[Reply], bearing: frozenset[str]
    ) -> list[tuple[int, Command]]:
        """Fill in ``replies``; the commands that their server sent elsewhere are returned."""
        groups: dict[Address, list[tuple[int, Command]]] = {}
        for item in commands:
            groups.setdefault(await self.nodes.locate(item[1].key), []).append(item)
        moved: list[tuple[int, Command]] = []
        for node, group in groups.items():
            pipe = await self.pipes.to(node)
            got = await pipe.ask(b"".join(command.packed for _, command in group), len(group), self.timeout)
            for item, reply in zip(group, got, strict=True):
                if not isinstance(reply, ServerError) or reply.kind in bearing:
                    replies[item[0]] = reply
                elif is_moved(reply):
                    moved.append(item)
                else:
                    raise self.trouble(reply, pipe)
        return moved

    def trouble(self, error: ServerError, pipe: Pipe) -> StoreUnavailable:
        """What an error reply means, for raising."""
        if error.kind in _UNFIT:
            pipe.drop()  # the next connection may find another server, or the same one fit
        said = f"{error.kind} {error.detail}" if error.kind in _PLAIN else f"an error: {error.kind}"
        return StoreUnavailable(f"{self.name} answered {said}")


def is_moved(reply: Reply) -> bool:
    """True where a server of a cluster says that another one has to be asked."""
    return isinstance(reply, ServerError) and reply.kind in _MOVED
