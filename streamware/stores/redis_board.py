"""The board in Redis: what was left is a string that expires, what is announced a message on its topic's channel.

Rules:

1. ``GETDEL`` gives a string to one caller. It is sent once: one that is not answered may have taken it.
2. A message names the worker that it comes from, which has told its own listeners. A channel is open to anybody: what
   is too large or cannot be read is passed over.
"""

from __future__ import annotations

import msgspec

from .board import MAX_MESSAGE
from .redis_asking import Asking, Command
from .redis_layout import Keys
from .redis_pipe import pack
from .redis_replies import ServerError

_OOM = frozenset({"OOM"})
#: What a message may take with the name of its worker.
MOST = MAX_MESSAGE + 256


class Notice(msgspec.Struct, array_like=True, frozen=True):
    """One announcement."""

    worker: str
    message: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Notice).decode


class RedisBoard:
    """The board as ``worker`` uses it. Listening to it is the listener's."""

    def __init__(self, asking: Asking, keys: Keys, worker: str) -> None:
        self._asking = asking
        self._keys = keys
        self._worker = worker

    async def put(self, key: str, value: bytes, ttl: float) -> bool:
        name = self._keys.item(key)
        life = b"%d" % max(1, int(ttl * 1000))
        (reply,) = await self._asking.ask(Command(name, pack(b"SET", name, value, b"PX", life)), bearing=_OOM)
        return not isinstance(reply, ServerError)

    async def take(self, key: str) -> bytes | None:
        name = self._keys.item(key)
        (reply,) = await self._asking.ask(Command(name, pack(b"GETDEL", name)))
        return reply if isinstance(reply, bytes) else None

    async def announce(self, topic: str, message: bytes) -> None:
        channel = self._keys.topic(topic)
        notice = _encode(Notice(self._worker, message))
        await self._asking.ask(Command(channel, pack(self._asking.nodes.publish, channel, notice)))


def decode_notice(data: bytes) -> Notice | None:
    """What was announced; None where it is too large. :raises msgspec.MsgspecError: it is no announcement."""
    if len(data) > MOST:
        return None
    notice = _decode(data)
    return notice if len(notice.message) <= MAX_MESSAGE else None
