"""Starts real servers on loopback, each in a process of its own, and ends what it has started.

``SERVERS`` says how each one is called and what it can do; ``Server`` is one that runs. A server is ready when it
accepts a connection. Its output goes to a file, which a test may read. It is ended by its own pid: SIGTERM, then
SIGKILL for the group that it leads, so that no worker outlives it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil
import trustme

from tests.secrets import leaked

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN = 30.0
ENDS_WITHIN = 5.0
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to serve. ``cuts``: an app that fails gives the client a visible cut; elsewhere it must be told in band.
    ``bounded``: ``send`` waits for a client that does not read. ``streams_uploads``: the app is called before the
    request's body is complete. ``http2``: spoken over TLS, chosen by ALPN. ``workers``: processes, any of which may
    serve a connection."""

    name: str
    arguments: tuple[str, ...]
    http2: bool = False
    cuts: bool = True
    bounded: bool = True
    streams_uploads: bool = True
    workers: int = 1

    def command(self, app: str, port: int, pem: Path | None) -> list[str]:
        """The command line that serves ``app`` (``module:name``) on ``port``."""
        given = [part.format(app=app, port=port, pem=pem) for part in self.arguments]
        return [sys.executable, "-m", *given]


UVICORN = ("uvicorn", "{app}", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning")
HYPERCORN = ("hypercorn", "{app}", "--bind", "127.0.0.1:{port}", "--workers", "0", "--graceful-timeout", "0")

SERVERS = {
    kind.name: kind
    for kind in (
        Kind("uvicorn", (*UVICORN, "--loop", "uvloop", "--http", "httptools", "--timeout-graceful-shutdown", "1")),
        Kind("uvicorn-h11", (*UVICORN, "--loop", "asyncio", "--http", "h11", "--timeout-graceful-shutdown", "1")),
        Kind("hypercorn", HYPERCORN),
        Kind(
            "hypercorn-h2",
            (*HYPERCORN, "--certfile", "{pem}", "--keyfile", "{pem}"),
            http2=True,
            cuts=False,
            bounded=False,
        ),
        Kind(
            "daphne",
            ("daphne", "-b", "127.0.0.1", "-p", "{port}", "-v", "0", "{app}"),
            cuts=False,
            bounded=False,
            streams_uploads=False,
        ),
        Kind(
            "granian",
            ("granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning",
             "--workers-kill-timeout", "1", "{app}"),
        ),
    )
}  # fmt: skip

EXAMPLES = {name: f"examples.wrapped:{name}_wrapped" for name in ("starlette", "fastapi", "django", "bare_asgi")}

#: Every app on every server; uvicorn's other loop and parser with one of them.
PAIRS = [(kind, app) for kind in SERVERS for app in EXAMPLES if kind != "uvicorn-h11" or app == "starlette"]


class Certificates:
    """An authority made for this run, and a certificate of its for 127.0.0.1."""

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA()
        issued = self._authority.issue_cert("127.0.0.1")
        self.pem = directory / "server.pem"
        issued.private_key_and_cert_chain_pem.write_to_path(str(self.pem))

    def client_context(self) -> ssl.SSLContext:
        """What a client needs to trust the server and to ask for HTTP/2."""
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        context.set_alpn_protocols(["h2"])
        return context


class Server:
    """One server process that serves one app. A context manager; ``start`` and ``stop`` do the same by hand.
    ``environment``: what the app is told that way."""

    def __init__(self, kind: Kind, app: str, environment: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self.app = app
        self._environment = environment or {}
        self.port = 0
        self.tls: ssl.SSLContext | None = None
        self._directory = tempfile.TemporaryDirectory(prefix="streamware-server-")
        self._path = Path(self._directory.name)
        self._log = self._path / "output.log"
        self._running: subprocess.Popen[bytes] | None = None
        self._certificates = Certificates(self._path) if kind.http2 else None

    def __repr__(self) -> str:
        return f"<{self.kind.name} with {self.app} on port {self.port}>"

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._directory.cleanup()

    @property
    def pid(self) -> int:
        """Of the process that was started; a server's worker may be a child of it."""
        assert self._running is not None
        return self._running.pid

    @property
    def running(self) -> bool:
        return self._running is not None and self._running.poll() is None

    @property
    def log(self) -> str:
        """Everything that the server has written so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def complaints(self) -> str:
        """The output, if there is a traceback in it that is not known to be the server's own.

        hypercorn 0.18 looks up the stream of each DATA frame without a care (``protocol/h2.py``): where a connection
        dies while the frames of one read are handled, it writes two tracebacks that end in a ``KeyError``.
        """
        log = self.log
        known = len(re.findall(r"self\.streams\[event\.stream_id\]\.handle\(\n(?:[ |~^]*\n)?[ |]*KeyError: \d+\n", log))
        return log[-8000:] if log.count("Traceback") > 2 * known else ""

    def rss(self) -> int:
        """Resident bytes of the process and its children."""
        leader = psutil.Process(self.pid)
        return int(sum(one.memory_info().rss for one in (leader, *leader.children(recursive=True))))

    def cpu(self) -> float:
        """CPU seconds that the process and its children have used."""
        leader = psutil.Process(self.pid)
        return float(sum(sum(one.cpu_times()[:2]) for one in (leader, *leader.children(recursive=True))))

    def start(self) -> None:
        """Start it and wait until it accepts connections.

        :raises RuntimeError: it ended, or was not ready in time; its output is in the message.
        """
        for attempt in range(1, ATTEMPTS + 1):
            self.port = _free_port()
            if self._certificates is not None:
                self.tls = self._certificates.client_context()
            pem = self._certificates.pem if self._certificates is not None else None
            with self._log.open("ab") as output:
                self._running = subprocess.Popen(
                    self.kind.command(self.app, self.port, pem),
                    cwd=ROOT,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **self._environment},
                    start_new_session=True,
                )
            if self._accepts():
                return
            self.stop()  # somebody else may have taken the port in between
            if attempt == ATTEMPTS:
                raise RuntimeError(f"{self!r} did not start:\n{self.log[-4000:]}")

    def stop(self) -> None:
        """End it: SIGTERM, and what is left of its group by SIGKILL."""
        running, self._running = self._running, None
        if running is None:
            return
        if running.poll() is None:
            running.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(ENDS_WITHIN)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        # Daphne's access log is written from what it has read itself, which no middleware can change.
        if self.kind.name != "daphne" and (found := leaked(self.log)):
            raise AssertionError(f"what {self!r} has written holds secrets: {found}")

    def terminate(self) -> None:
        """Ask it to end, as an operator would, and leave it to it."""
        assert self._running is not None
        self._running.send_signal(signal.SIGTERM)

    def ended(self, within: float) -> float:
        """Wait for it to end by itself: after how many seconds it did.

        :raises subprocess.TimeoutExpired: it did not.
        """
        assert self._running is not None
        began = time.monotonic()
        self._running.wait(within)
        return time.monotonic() - began

    def _accepts(self) -> bool:
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            if not self.running:
                return False
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
                return True
            time.sleep(0.02)
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
