"""A thread with a connection of its own, on which one thing after another is done.

Rules:

1. What is asked for is done in order. What nobody waits for any more when its turn comes is not done.
2. The connection is opened by the first that needs it, and anew where another file stands at the path, or after an
   error that is not a matter of waiting: the file may have been repaired or replaced.
3. So many at most wait; more are refused. The thread holds up no exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from ..exceptions import StoreUnavailable
from .sqlite_file import identity, open_file, unavailable

T = TypeVar("T")

MAX_WAITING = 1000

_Job = tuple[Callable[[sqlite3.Connection], object], "asyncio.Future[object]"]


class Desk:
    """``on_open``: called on the thread with each new connection."""

    def __init__(
        self, name: str, path: Path, kind: str, on_open: Callable[[sqlite3.Connection], None] | None = None
    ) -> None:
        self._name = name
        self._path = path
        self._on_open = on_open
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"streamware-sqlite-{kind}", daemon=True)
        self._thread.start()

    async def do(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """``function``'s result.

        :raises StoreUnavailable: SQLite failed, or too many wait.
        """
        if self._closed or self._jobs.qsize() >= MAX_WAITING:
            raise StoreUnavailable(f"{self._name}: {'it was closed' if self._closed else 'too many wait'}")
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((function, future))  # type: ignore[arg-type]  # a Future is invariant, and this one is only set
        return await future

    def close(self) -> None:
        """Do what is waiting, then nothing more."""
        self._closed = True
        self._jobs.put(None)

    def join(self, timeout: float) -> None:
        """Wait for the thread to end; one that is stuck is interrupted. Blocks."""
        self._thread.join(timeout)
        connection = self._connection
        if self._thread.is_alive() and connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.interrupt()
            self._thread.join(timeout)

    # -- on the thread

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, future = job
            if future.cancelled():
                continue
            try:
                result, error = function(self._open()), None
            except (sqlite3.Error, OSError, ValueError, msgspec.MsgspecError) as failed:
                if not isinstance(failed, sqlite3.OperationalError) or not _waits(failed):
                    self._drop()
                result, error = None, unavailable(self._name, failed)
                error.__cause__ = failed
            except BaseException as failed:
                result, error = None, failed  # type: ignore[assignment]
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(_resolve, future, result, error)
            del function, future, result, error, job
        self._drop()

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and identity(self._path) != self._file:
            self._drop()  # what is written to a file that was removed, nobody will read
        if self._connection is None:
            made = open_file(self._path)
            try:
                self._file = identity(self._path)
                if self._on_open is not None:
                    self._on_open(made)
            except BaseException:
                made.close()
                raise
            self._connection = made
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _waits(error: sqlite3.OperationalError) -> bool:
    """It was another's turn, and the connection is good."""
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _resolve(future: asyncio.Future[object], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
