"""The chat on a cluster of this machine: a Redis, two workers, a balancer. ``make demo-cluster`` runs this file.

python -m examples.cluster.serve             the chat at 127.0.0.1:8000
python -m examples.cluster.serve --workers 3

A key in the terminal restarts the worker that serves the answer, as a deploy does, or kills it. All that was started is
ended by its process id, at Ctrl-C, at SIGTERM, or when the terminal closes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

from examples.chat import voice

from .balancer import Backend, Balancer
from .redis_server import RedisServer
from .terminal import keys
from .worker import READINESS

ROOT = Path(__file__).resolve().parents[2]
STARTS_WITHIN = 30.0
ENDS_WITHIN = 3.0
MAX_WORKERS = 16

TRY = """
  The chat is at {url}, on {workers} workers with a Redis at {redis}

  In the page: ask, and while the answer arrives press here

    r    to restart the worker that serves it, as a deploy does
    k    to kill that worker (kill -9); what it was writing itself ends as interrupted
    s    to see who is there
    q    to end the demo; Ctrl-C does as well

  In a shell, an answer of one worker that is read on at another:

    curl -iN '{url}/chat?q=hello' -H 'Accept: text/event-stream'
    curl -iN '{url}/chat' -H 'Accept: text/event-stream' -H 'Last-Event-ID: THE-LAST-id-YOU-SAW'
"""


class Worker:
    """One worker process and its place behind the balancer."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, backend: Backend) -> None:
        self.name = name
        self.process = process
        self.backend = backend

    @property
    def pid(self) -> int:
        return self.process.pid


class Cluster:
    """Workers behind a balancer. ``say`` is told what happens, a line each."""

    def __init__(self, balancer: Balancer, redis: str, *, pace: float, say: Callable[[str], None]) -> None:
        self.workers: dict[str, Worker] = {}
        self._balancer = balancer
        self._redis = redis
        self._pace = pace
        self._say = say
        self._generations: dict[str, int] = {}
        self._leaving: set[Worker] = set()
        self._processes: set[asyncio.subprocess.Process] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, place: str) -> Worker:
        """Start a worker at ``place``, "A" say; it is called after it and how often there was one: A1, A2, ….

        :raises RuntimeError: it did not start.
        """
        generation = self._generations[place] = self._generations.get(place, 0) + 1
        name = f"{place}{generation}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "examples.cluster.worker", "--name", name),
            *("--redis", self._redis, "--pace", str(self._pace)),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,  # closes when this process is gone, however it went
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is ours alone
        )
        self._processes.add(process)
        line = await process.stdout.readline() if process.stdout is not None else b""
        if not line:
            raise RuntimeError(f"worker {name} did not start")
        worker = Worker(name, process, self._balancer.add(name, int(line)))
        self.workers[place] = worker
        self._keep(self._watch(place, worker))
        async with asyncio.timeout(STARTS_WITHIN):
            await self._balancer.until(worker.backend)
        self._say(f"{name} is ready, process {worker.pid}")
        return worker

    async def restart(self, place: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Put a new worker in the place of the one there, and end that by ``number``."""
        old = self.workers[place]
        self._leaving.add(old)
        if number is signal.SIGTERM:  # a deploy starts the new one first
            await self.start(place)
        self._say(f"{old.name} gets {number.name}")
        with contextlib.suppress(ProcessLookupError):
            old.process.send_signal(number)
        if number is not signal.SIGTERM:
            await self.start(place)

    def serving(self) -> str:
        """The place of the worker that has sent something last."""
        return max(self.workers, key=lambda place: self.workers[place].backend.spoke)

    async def aclose(self) -> None:
        """End every worker, by its pid."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await asyncio.gather(*map(end, self._processes))

    def press(self, key: str, leave: Callable[[], None]) -> None:
        """What a key of the terminal does."""
        match key:
            case "r":
                self._keep(self.restart(self.serving()))
            case "k":
                self._keep(self.restart(self.serving(), signal.SIGKILL))
            case "s":
                for worker in (*self.workers.values(), *self._leaving):
                    self._say(f"{worker.name}, process {worker.pid}: {worker.backend.connections} connections")
            case "q":
                leave()

    def _keep(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._told(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _told(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (OSError, RuntimeError, TimeoutError) as failure:
            self._say(f"that failed: {str(failure) or type(failure).__name__}")

    async def _watch(self, place: str, worker: Worker) -> None:
        code = await worker.process.wait()
        self._processes.discard(worker.process)
        self._balancer.remove(worker.backend)
        self._say(f"{worker.name} has ended ({signal.Signals(-code).name if code < 0 else code})")
        if worker in self._leaving:
            self._leaving.discard(worker)
        else:  # nobody asked for it
            await self.start(place)


async def end(process: asyncio.subprocess.Process) -> None:
    """Wait for a process that was asked to end, and kill it where it does not."""
    try:
        async with asyncio.timeout(ENDS_WITHIN):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def say(line: str) -> None:
    print(f"  {line}", flush=True)


async def serve(front: socket.socket, workers: int, pace: float) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, over.set)
    with RedisServer() as redis:
        async with Balancer(front, path=READINESS) as balancer:
            cluster = Cluster(balancer, redis.url, pace=pace, say=say)
            try:
                starting = asyncio.gather(*(cluster.start(chr(ord("A") + i)) for i in range(workers)))
                ended = asyncio.create_task(over.wait())
                await asyncio.wait((starting, ended), return_when=asyncio.FIRST_COMPLETED)
                if not over.is_set():
                    await starting
                    url = f"http://127.0.0.1:{balancer.port}"
                    print(TRY.format(url=url, workers=workers, redis=redis.url), flush=True)
                    with keys(lambda key: cluster.press(key, over.set)):
                        await ended
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
            finally:
                await cluster.aclose()


def main() -> None:
    asked = argparse.ArgumentParser(description="Serves the example chat at 127.0.0.1, on several workers.")
    asked.add_argument("--port", type=int, default=8000)
    asked.add_argument("--workers", type=int, default=2, choices=range(1, MAX_WORKERS + 1), metavar="N")
    asked.add_argument("--pace", type=float, default=voice.WORDS_PER_SECOND, help="words a second")
    given = asked.parse_args()
    try:
        front = socket.create_server(("127.0.0.1", given.port))
    except OSError as failure:
        raise SystemExit(
            f"127.0.0.1:{given.port} cannot be had ({failure.strerror}); try another: make demo-cluster PORT=8001"
        ) from None
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(front, given.workers, given.pace))


if __name__ == "__main__":
    main()
