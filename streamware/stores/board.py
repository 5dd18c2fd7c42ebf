"""What workers leave for one another beside logs: things that one of them may take, and announcements to all.

Rules that each store keeps:

1. ``take`` gives what ``put`` left to exactly one caller, in whichever worker, and to nobody once its time is over. (A
   Redis that fails over to a replica may have lost the last thing it was told, a ``take`` like everything else.)
2. An announcement reaches every listener of its topic in every worker that shares the store, the announcing worker
   too, soon; one that is away at the time may miss it. It is no log.
3. Nothing is kept without a cap and a time to live: all that was put and not yet taken is ``BOARD_BYTES`` at most in a
   ``MemoryStore`` or a ``SQLiteStore``, and what Redis has room for there.
4. What is put may be looked at by whoever may look into the store: it is the hash of a secret, never a secret. Nothing
   of it is logged. Shared stores hold keys and topics by their hashes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

#: The most that one ``put`` may leave: the claims of the largest token that is accepted, and some more.
MAX_VALUE = 16 * 1024
#: The most that one announcement may say.
MAX_MESSAGE = 4 * 1024
#: Bound on all that was put, with ``ITEM_BYTES`` for each item itself.
BOARD_BYTES = 16 * 1024 * 1024
ITEM_BYTES = 256


@runtime_checkable
class Board(Protocol):
    """A store's side of tickets and of ``disconnect``. Every ``Store`` of Streamware's is one as well; one of your own
    need not be."""

    async def start(self) -> None:
        """Open connections. Idempotent; called before the first use."""

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Leave ``value``, at most 16 KiB, under ``key`` for ``ttl`` seconds, in place of what was there.

        :raises StoreFull: there is no room.
        :raises StoreUnavailable: a shared store did not answer.
        :raises ValueError: ``value`` is larger, or ``ttl`` no number of seconds greater than 0.
        """

    async def take(self, key: str) -> bytes | None:
        """What was left under ``key``, which is gone from here on; None where there is nothing.

        :raises StoreUnavailable: a shared store did not answer: whether it was taken is unknown.
        """
        ...

    async def announce(self, topic: str, message: bytes) -> None:
        """Tell all listeners of ``topic``. At most 4 KiB.

        :raises StoreUnavailable: a shared store did not answer; listeners in this process have been told all the same.
        :raises ValueError: ``message`` is larger.
        """

    def listen(self, topic: str, hear: Callable[[bytes], None]) -> Callable[[], None]:
        """Call ``hear`` on the loop with each message announced under ``topic``, until what is returned is called.

        It may be called before ``start``; what other workers announce is heard from soon after that on. Whoever may
        write to the store may announce: a message is to be read with care.
        """
        ...


def check_item(value: bytes, ttl: float) -> None:
    """What may be put. :raises ValueError: this may not."""
    if len(value) > MAX_VALUE:
        raise ValueError(f"a value is at most {MAX_VALUE} bytes, not {len(value)}")
    if not 0 < ttl < math.inf:
        raise ValueError(f"a time to live is greater than 0 and finite, not {ttl}")


def check_message(message: bytes) -> None:
    """What may be announced. :raises ValueError: this may not."""
    if len(message) > MAX_MESSAGE:
        raise ValueError(f"a message is at most {MAX_MESSAGE} bytes, not {len(message)}")


def hashed(name: str) -> str:
    """A key or a topic as shared stores hold it: of one length, and telling nothing."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
