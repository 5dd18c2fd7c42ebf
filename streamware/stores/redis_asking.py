"""Asking the servers: commands go to the one that holds their key, and what it cannot answer becomes store trouble.

Rules:

1. A server of a cluster that does not hold a key names the one that does: that one is asked, and where the key has
   moved for good, the map of the cluster is read again. Keys that are on their way are waited for a little.
2. An error reply that says the server is not fit to serve is ``StoreUnavailable``. So is one that nobody expected: its
   text is not passed on, since servers quote arguments.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ..exceptions import StoreUnavailable
from .redis_nodes import Nodes, Pipes
from .redis_pipe import Pipe, pack
from .redis_replies import Reply, ServerError
from .redis_target import Address

#: How many callers may be waiting for answers; more wait for their turn.
IN_FLIGHT = 64

#: How often a key that is not where it was thought to be is looked for, and the pause in between, in s.
TURNS = 5
PAUSE = 0.03
#: Says to a server that what comes next is about a key that is on its way to it.
ASKING = pack(b"ASKING")

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
        replies: list[Reply] = [None] * len(commands)
        left = list(range(len(commands)))
        elsewhere: dict[int, Address] = {}
        async with self._turns:
            for turn in range(TURNS):
                left = await self._put(commands, left, replies, elsewhere, bearing)
                if not left:
                    return replies
                await self.look_again(turn)
        raise StoreUnavailable(f"{self.name}: keys are being moved between servers")

    async def look_again(self, turn: int) -> None:
        """Before the next turn at keys that were not where they were thought to be."""
        self.nodes.mistrust()
        if turn:
            await asyncio.sleep(PAUSE)

    async def _put(
        self,
        commands: Sequence[Command],
        places: Sequence[int],
        replies: list[Reply],
        elsewhere: dict[int, Address],
        bearing: frozenset[str],
    ) -> list[int]:
        """Fill in ``replies``; the places of commands whose keys are ``elsewhere`` are returned."""
        groups: dict[tuple[Address, bool], list[int]] = {}
        for place in places:
            there = elsewhere.pop(place, None)
            node = there or await self.nodes.locate(commands[place].key)
            groups.setdefault((node, there is not None), []).append(place)
        left: list[int] = []
        for (node, on_its_way), group in groups.items():
            pipe = await self.pipes.to(node)
            before = ASKING if on_its_way else b""
            packed = b"".join(before + commands[place].packed for place in group)
            each = 2 if on_its_way else 1
            got = await pipe.ask(packed, each * len(group), self.timeout)
            for place, reply in zip(group, got[each - 1 :: each], strict=True):
                if not isinstance(reply, ServerError) or reply.kind in bearing:
                    replies[place] = reply
                elif is_moved(reply):
                    left.append(place)
                    note_where(reply, place, elsewhere)
                else:
                    raise self.trouble(reply, pipe)
        return left

    def trouble(self, error: ServerError, pipe: Pipe) -> StoreUnavailable:
        """What an error reply means, for raising."""
        if error.kind in _UNFIT:
            pipe.drop()  # the next connection may find another server, or the same one fit
        said = f"{error.kind} {error.detail}" if error.kind in _PLAIN else f"an error: {error.kind}"
        return StoreUnavailable(f"{self.name} answered {said}")


def is_moved(reply: Reply) -> bool:
    """True where a server of a cluster says that another one has to be asked."""
    return isinstance(reply, ServerError) and reply.kind in _MOVED


def note_where(reply: Reply, place: int, elsewhere: dict[int, Address]) -> None:
    """Where a key is on its way to, if the server has told."""
    if isinstance(reply, ServerError) and reply.kind == "ASK":
        host, _, port = reply.detail.rpartition(" ")[2].rpartition(":")
        elsewhere[place] = host, int(port)
