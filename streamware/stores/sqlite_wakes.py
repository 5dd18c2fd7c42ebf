"""How the workers of one machine wake each other: a unix datagram socket for each, in a directory beside the file.

Rules:

1. A datagram is lost rather than waited for; what must not be lost is in the file.
2. The directory is open to its owner alone: whoever may write to these sockets may say how far readers are.
3. A socket that nobody listens to any more is removed by who finds it so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

SUFFIX = ".sock"
MAX_BYTES = 64 * 1024
#: So many datagrams are read in a row before others have their turn.
BURST = 100


class Wakes:
    """The socket of one worker. ``on_datagram`` is called on the loop."""

    def __init__(self, directory: Path, worker: str, on_datagram: Callable[[bytes], None]) -> None:
        self._directory = directory
        self._worker = worker
        self._on_datagram = on_datagram
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def listening(self) -> bool:
        """Others can wake this worker."""
        return self._socket is not None

    def open(self) -> bool:
        """Listen; False where that cannot be done here: no such sockets, too long a path, or a directory that is open
        to others."""
        if self._socket is not None:
            return True
        if not hasattr(socket, "AF_UNIX"):
            return False
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            made.setblocking(False)
            self._directory.mkdir(mode=0o700, exist_ok=True)
            found = self._directory.stat()
            if found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise OSError("somebody else could write to it")
            made.bind(os.fspath(self._path(self._worker)))
            loop = asyncio.get_running_loop()
            loop.add_reader(made, self._read)
        except (OSError, NotImplementedError):
            made.close()
            return False
        self._socket, self._loop = made, loop
        return True

    def close(self) -> None:
        """Listen no more."""
        made, self._socket = self._socket, None
        if made is not None and self._loop is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(made)
            made.close()
            with contextlib.suppress(OSError):
                self._path(self._worker).unlink()
            with contextlib.suppress(OSError):  # the last one puts the light out
                self._directory.rmdir()

    def others(self) -> list[str]:
        """The workers that can be woken."""
        try:
            names = os.listdir(self._directory)
        except OSError:
            return []
        found = [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)]
        return [name for name in found if name != self._worker]

    def send(self, worker: str, datagram: bytes) -> bool:
        """Send to a worker by name; False where it was not sent."""
        if self._socket is None or len(datagram) > MAX_BYTES:
            return False
        path = self._path(worker)
        try:
            self._socket.sendto(datagram, os.fspath(path))
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                path.unlink()
            return False
        except OSError:  # its queue is full, or it has gone
            return False
        return True

    def _path(self, worker: str) -> Path:
        return self._directory / f"{worker}{SUFFIX}"

    def _read(self) -> None:
        for _ in range(BURST):
            if self._socket is None:
                return
            try:
                datagram = self._socket.recv(MAX_BYTES)
            except OSError:
                return
            self._on_datagram(datagram)
