"""The memory of one worker of a shared store: what its own logs may hold here until the store has them for good.

Logs get their capacity in steps, the sum is bounded, and one account holds at most its share. Unlike ``MemoryStore``'s,
a log that has ended leaves as soon as the store has it, so nothing needs to be evicted.
"""

from __future__ import annotations

from .memory_log import MemoryLog

FIRST_CAPACITY = 4096


class WorkerBudget:
    """A ``Budget`` over all local logs of one worker."""

    __slots__ = ("_accounts", "_max_bytes", "_share", "_starved", "size")

    def __init__(self, max_bytes: int, owner_share: float) -> None:
        self._max_bytes = max_bytes
        self._share = int(max_bytes * owner_share)
        self._accounts: dict[str, int] = {}
        self._starved: set[MemoryLog] = set()  # were refused bytes since the last were freed
        self.size = 0  # granted

    def admit(self, log: MemoryLog) -> bool:
        """Give a new log its first bytes; False where there are none."""
        first = min(FIRST_CAPACITY, log.max_bytes)
        if not self.grant(log, first):
            self._starved.discard(log)
            return False
        log.capacity = first
        return True

    def grant(self, log: MemoryLog, wanted: int) -> bool:
        more = wanted - log.capacity
        if self.size + more > self._max_bytes or self._accounts.get(log.head.account, 0) + more > self._share:
            self._starved.add(log)
            return False
        self._charge(log, more)
        return True

    def ended(self, log: MemoryLog) -> None:
        kept = min(log.capacity, log.size)
        self._charge(log, kept - log.capacity)
        log.capacity = kept
        self._relieve(log)

    def release(self, log: MemoryLog) -> None:
        """The log is no longer held here."""
        self._charge(log, -log.capacity)
        log.capacity = 0
        self._relieve(log)

    def _charge(self, log: MemoryLog, more: int) -> None:
        self.size += more
        account = log.head.account
        held = self._accounts.get(account, 0) + more
        if held > 0:
            self._accounts[account] = held
        else:
            self._accounts.pop(account, None)

    def _relieve(self, log: MemoryLog) -> None:
        """Bytes have become free: logs that were refused some may ask again."""
        self._starved.discard(log)
        starved, self._starved = self._starved, set()
        for other in starved:
            other.give_room()
