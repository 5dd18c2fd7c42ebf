"""Workers of a fleet: server processes behind the balancer of ``examples/cluster``, restarted, recycled and killed.

``KINDS`` says how each server is called so that it drains. A worker is ended by its own pid; whatever is left of the
process group that it leads is killed with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from examples.cluster.balancer import Backend, Balancer
from tests.fleet.app import DRAIN, READINESS
from tests.servers.client import fetch
from tests.servers.launch import Certificates

ROOT = Path(__file__).resolve().parents[2]
#: What the servers' own tracebacks are known by, once in each: uvicorn's and hypercorn's of a call whose connection is
#: broken by them, and hypercorn's of a client that had something on its way when its TLS connection was closed.
KNOWN = (
    "CancelledError: Task cancelled, timeout graceful shutdown exceeded",
    "Exception in callback StreamReaderProtocol.connection_made",
    "APPLICATION_DATA_AFTER_CLOSE_NOTIFY",
)
READY_WITHIN = 40.0
ATTEMPTS = 3
#: A worker that was told to leave is gone in so many seconds: the drain's deadline, and some more.
LEAVES_WITHIN = 50.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to serve. ``cuts``: a stream can be cut visibly; where not, only EventSources can be moved. ``asked``: it
    ends at once when it gets a signal, so it is asked to drain, and gets the signal when what it produced is over.
    ``limit``: what is added for workers, two behind one port, that are replaced by their server after so many requests,
    and whose connections it breaks a second later where it can be told to; empty where it cannot do that."""

    name: str
    arguments: tuple[str, ...]
    http2: bool = False
    cuts: bool = True
    asked: bool = False
    limit: tuple[str, ...] = ()

    def command(self, port: int, pem: Path | None, requests: int | None) -> list[str]:
        given = self.arguments if requests is None else (*self.arguments, *self.limit)
        values = {"app": "tests.fleet.app:application", "port": port, "pem": pem, "requests": requests}
        return [sys.executable, "-m", *(part.format(**values) for part in given)]


_HYPERCORN = ("hypercorn", "{app}", "--bind", "127.0.0.1:{port}", "--graceful-timeout", "40")

KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "uvicorn",
            ("uvicorn", "{app}", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning",
             "--timeout-graceful-shutdown", "40"),
            limit=("--workers", "2", "--limit-max-requests", "{requests}", "--limit-max-requests-jitter", "40",
                   "--timeout-graceful-shutdown", "1"),
        ),
        Kind(
            "gunicorn",
            ("gunicorn", "{app}", "--bind", "127.0.0.1:{port}", "--worker-class", "uvicorn_worker.UvicornWorker",
             "--log-level", "warning", "--graceful-timeout", "40", "--timeout", "60"),
            limit=("--workers", "2", "--max-requests", "{requests}", "--max-requests-jitter", "40"),
        ),
        Kind(
            "hypercorn",
            (*_HYPERCORN, "--workers", "0"),
            limit=("--workers", "2", "--max-requests", "{requests}", "--max-requests-jitter", "40",
                   "--graceful-timeout", "1"),
        ),
        Kind(
            "hypercorn-h2",
            (*_HYPERCORN, "--workers", "0", "--certfile", "{pem}", "--keyfile", "{pem}"),
            http2=True,
            cuts=False,
        ),
        Kind("daphne", ("daphne", "-b", "127.0.0.1", "-p", "{port}", "-v", "0", "{app}"), cuts=False, asked=True),
        Kind(
            "granian",
            ("granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning",
             "--workers-kill-timeout", "40", "{app}"),
        ),
    )
}  # fmt: skip


@dataclass
class Worker:
    """One server process. ``log``: the file that it writes to."""

    process: asyncio.subprocess.Process
    backend: Backend
    log: Path

    def pids(self) -> set[int]:
        """Of the process and its children, for a server's worker may be one."""
        with contextlib.suppress(psutil.NoSuchProcess):
            leader = psutil.Process(self.process.pid)
            return {leader.pid, *(child.pid for child in leader.children(recursive=True))}
        return {self.process.pid}

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    async def end(self) -> None:
        self.kill()
        await self.process.wait()


@dataclass(frozen=True)
class Front:
    """Where clients connect: what ``tests.servers.client`` needs to know of a server."""

    port: int
    kind: Kind
    tls: ssl.SSLContext | None = None


class Fleet:
    """Workers of one kind with one store, and the balancer before them."""

    def __init__(self, kind: Kind, directory: Path, store: str, balancer: Balancer) -> None:
        self.kind = kind
        self.balancer = balancer
        self.workers: list[Worker] = []
        #: The pids of those that were killed, whose streams may end as interrupted.
        self.killed: set[int] = set()
        self.ledger = directory / "ledger"
        #: Seconds from SIGTERM to the process's end, of each restart.
        self.leaving: list[float] = []
        self._directory = directory
        self._started = 0
        self._all: list[Worker] = []
        self._certificates = Certificates(directory) if kind.http2 else None
        self._environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "FLEET_STORE": store,
            "FLEET_LEDGER": str(self.ledger),
        }
        tls = self._certificates.client_context() if self._certificates is not None else None
        self.front = Front(balancer.port, kind, tls)

    async def start(self, *, requests: int | None = None) -> Worker:
        """Start one more worker, and wait until it gets connections.

        :raises RuntimeError: it was not ready in time; its output is in the message.
        """
        pem = self._certificates.pem if self._certificates is not None else None
        tls = None
        if self._certificates is not None:
            tls = self._certificates.client_context()
            tls.set_alpn_protocols(["http/1.1"])
        log = self._directory / f"worker-{self._started}.log"
        for _ in range(ATTEMPTS):  # somebody else may take the port in between
            self._started += 1
            log = self._directory / f"worker-{self._started}.log"
            port = _free_port()
            with log.open("wb") as output:
                process = await asyncio.create_subprocess_exec(
                    *self.kind.command(port, pem, requests),
                    cwd=ROOT,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=asyncio.subprocess.STDOUT,
                    env=self._environment,
                    start_new_session=True,
                )
            worker = Worker(process, self.balancer.add(self.kind.name, port, tls=tls), log)
            self._all.append(worker)
            ready = asyncio.create_task(self.balancer.until(worker.backend))
            gone = asyncio.create_task(process.wait())
            await asyncio.wait((ready, gone), timeout=READY_WITHIN, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            if ready.done():
                self.workers.append(worker)
                return worker
            ready.cancel()
            self.balancer.remove(worker.backend)
            await worker.end()
        raise RuntimeError(f"{self.kind.name} did not start:\n{log.read_text(errors='replace')[-4000:]}")

    async def restart(self, old: Worker) -> None:
        """As a deploy does: SIGTERM to a worker and, while it leaves, another one in its place.

        :raises TimeoutError: it did not leave in time.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        self.workers.remove(old)
        starting = asyncio.create_task(self.start())
        try:
            async with asyncio.timeout(LEAVES_WITHIN):
                if self.kind.asked:
                    await self._ask_to_drain(old)
                old.process.send_signal(signal.SIGTERM)
                await old.process.wait()
        finally:
            await starting
        self.leaving.append(clock() - began)
        self.balancer.remove(old.backend)
        await old.end()

    async def _ask_to_drain(self, old: Worker) -> None:
        """Wait until a worker has drained. As ``Ledger`` has it: a line each for a call's beginning and its end."""
        status, _, pid = await fetch(Front(old.backend.port, self.kind), "GET", DRAIN)  # type: ignore[arg-type]
        assert status == 200, status
        while True:
            lines = [line.split(" ") for line in self.ledger.read_text().splitlines()]
            own = [what for _, what, by, _ in lines if by == pid.decode()]
            if 2 * own.count("begun") == len(own):
                return
            await asyncio.sleep(0.2)

    async def kill(self, old: Worker) -> None:
        """``kill -9`` to a worker and all of its children, and another one in its place."""
        self.workers.remove(old)
        self.killed |= old.pids()
        await old.end()
        self.balancer.remove(old.backend)
        await self.start()

    def complaints(self) -> list[str]:
        """The ends of the logs that have a traceback in them which is not known to be the server's own."""
        texts = [worker.log.read_text(errors="replace") for worker in self._all]
        return [text[-3000:] for text in texts if text.count("Traceback") > sum(map(text.count, KNOWN))]

    async def aclose(self) -> None:
        for worker in self._all:
            await worker.end()


@asynccontextmanager
async def fleet(kind: str | Kind, store: str, workers: int = 2, *, requests: int | None = None) -> AsyncIterator[Fleet]:
    """So many workers behind a balancer; with ``requests`` one server whose workers live for so many."""
    kind = KINDS[kind] if isinstance(kind, str) else kind
    front = socket.create_server(("127.0.0.1", 0), backlog=1024)
    with tempfile.TemporaryDirectory(prefix="streamware-fleet-") as directory:
        async with Balancer(front, path=READINESS, interval=0.1 if requests is None else 1.0) as balancer:
            made = Fleet(kind, Path(directory), store, balancer)
            try:
                for _ in range(workers if requests is None else 1):
                    await made.start(requests=requests)
                yield made
            finally:
                await made.aclose()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
