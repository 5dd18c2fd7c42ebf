"""One connection that subscribes: channels are joined and left on it, until it is lost.

Rules:

1. A channel is joined once the server has confirmed it: what is published from then on is heard.
2. Confirmations are counted: that of a joining that was given up says nothing about the next one, nor does that of a
   leaving that was asked for say that the server has moved the channel.
3. A server that is silent is found out by a ping, and the connection given up.
4. ``on_death`` is called once, when the connection was lost, or the server will have no more to do with a channel.
   Nothing is made again here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection

from ..exceptions import StoreUnavailable
from .redis_nodes import Nodes
from .redis_pipe import Pipe, pack
from .redis_replies import Reply
from .redis_target import Address

PING_EVERY = 2.0
#: Channels named in one command.
AT_ONCE = 250


class Line:
    """A connection to ``node``. ``hear`` is given channel and message."""

    def __init__(
        self, nodes: Nodes, node: Address, hear: Callable[[bytes, bytes], None], on_death: Callable[[Line], None]
    ) -> None:
        self.node = node
        self.channels: set[bytes] = set()
        self._nodes = nodes
        self._hear = hear
        self._on_death: Callable[[Line], None] | None = on_death
        self._letter = b"S" if nodes.sharded else b""
        self._pipe: Pipe | None = None
        self._asked: set[bytes] = set()  # what was said of them last is that they are subscribed to
        self._joining: Counter[bytes] = Counter()  # confirmations that are still to come
        self._leaving: Counter[bytes] = Counter()
        self._waiting: dict[bytes, list[asyncio.Future[None]]] = {}
        self._heard = True
        self._dead = False
        self._pings: asyncio.TimerHandle | None = None
        self._connecting = asyncio.Lock()

    async def join(self, channels: Collection[bytes], client_name: str, timeout: float) -> None:
        """Hear what is published on ``channels``. :raises StoreUnavailable: not confirmed in time."""
        self.channels.update(channels)
        async with self._connecting:
            pipe = self._pipe
            if pipe is None and not self._dead:
                pipe = await self._nodes.dial(self.node, client_name, self._receive)
                if self._dead:  # closed in the meantime
                    pipe.drop()
                else:
                    self._pipe = pipe
                    pipe.on_lost = self._die
                    self._ping()
        if pipe is None or pipe.lost:
            raise StoreUnavailable("the connection that subscribes was lost")
        wanted = [channel for channel in channels if channel not in self._asked]
        self._asked.update(wanted)
        self._joining.update(wanted)
        at_once = 1 if self._letter else AT_ONCE  # sharded ones of several slots are refused in one command
        for at in range(0, len(wanted), at_once):
            pipe.tell(pack(self._letter + b"SUBSCRIBE", *wanted[at : at + at_once]))
        try:
            async with asyncio.timeout(timeout):
                for channel in channels:
                    await self._confirmation(channel)
        except TimeoutError as error:
            self._die()
            raise StoreUnavailable(f"{pipe.name}: no subscription within {timeout:g} s") from error

    def leave(self, channel: bytes) -> None:
        self.channels.discard(channel)
        if channel in self._asked and self._pipe is not None:
            self._asked.discard(channel)
            self._leaving[channel] += 1
            self._pipe.tell(pack(self._letter + b"UNSUBSCRIBE", channel))

    def close(self) -> None:
        self._on_death = None
        self._die()

    # -- within

    async def _confirmation(self, channel: bytes) -> None:
        if self._dead:
            raise StoreUnavailable("the connection that subscribes was lost")
        if channel not in self._joining:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(channel, []).append(waiter)
        try:
            await waiter
        finally:
            waiting = self._waiting.get(channel, [])
            if waiter in waiting:
                waiting.remove(waiter)
                if not waiting:
                    del self._waiting[channel]

    def _ping(self) -> None:
        pipe = self._pipe
        if pipe is None or pipe.lost:
            return
        if not self._heard:
            self._die()
            return
        self._heard = False
        pipe.tell(pack(b"PING"))
        self._pings = asyncio.get_running_loop().call_later(PING_EVERY, self._ping)

    def _receive(self, message: Reply) -> None:
        self._heard = True
        match message:
            case [b"message" | b"smessage", bytes(channel), bytes(data)]:
                self._hear(channel, data)
            case [b"subscribe" | b"ssubscribe", bytes(channel), _]:
                if _is_last(self._joining, channel):
                    for waiter in self._waiting.pop(channel, ()):
                        if not waiter.done():
                            waiter.set_result(None)
            case [b"unsubscribe" | b"sunsubscribe", bytes(channel), _] if channel in self._leaving:
                _is_last(self._leaving, channel)
            case [b"sunsubscribe", bytes(channel), _] if channel in self.channels:
                self._die()  # the cluster has moved it
            case [*_] | bytes():  # answers to pings
                pass
            case _:  # an error: this server is not the one to ask, or not fit
                self._die()

    def _die(self) -> None:
        self._dead = True
        if self._pings is not None:
            self._pings.cancel()
        if self._pipe is not None:
            self._pipe.on_lost = None
            self._pipe.drop()
        waiting, self._waiting = self._waiting, {}
        for waiter in [waiter for waiters in waiting.values() for waiter in waiters]:
            if not waiter.done():
                waiter.set_exception(StoreUnavailable("the connection that subscribes was lost"))
        on_death, self._on_death = self._on_death, None
        if on_death is not None:
            on_death(self)


def _is_last(expected: Counter[bytes], channel: bytes) -> bool:
    """One of the confirmations that were ``expected`` of ``channel`` has come; whether no more are."""
    expected[channel] -= 1
    if expected[channel] > 0:
        return False
    del expected[channel]
    return True
