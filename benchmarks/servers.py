"""The server processes: one app in three variants, each under uvicorn in a process of its own.

``starlette``: the app bare, its event streams being ``StreamingResponse``s. ``streamware``: the very same app inside
``wrap``: drain, heartbeats and Resume. ``sse-starlette``: its ``EventSourceResponse``, with ids.

Run as a module, it is such a process: it serves until its standard input is closed, and prints the port that it got.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import random
from types import TracebackType
from typing import Any, Self

VARIANTS = ("starlette", "streamware", "sse-starlette")
#: The least that anything in Python could do: each event gets an id and is kept, and that is all (``Numbered``).
FLOOR = "numbered"

#: What the apps send, over and over: each holds one "{", for the client to count. As an event, 219 bytes.
PAYLOADS = [f'{{"n":{number:07d},"text":"{"x" * 187}"}}' for number in range(1024)]
#: Seconds that one server's streams are active while those of the others are silent.
TURN = 0.2
#: Where the server and the client run, on machines that have two processors.
SERVER_CPU, CLIENT_CPU = 0, 1


def pin(cpu: int) -> None:
    """Keep this process on one processor, where there are several and the system can."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > cpu:
        os.sched_setaffinity(0, {cpu})


def turn_at(later: float = 0.0) -> int:
    """The number of the turn, the same in all processes of a machine."""
    return int((time.monotonic() + later) / TURN)


def until_turn(turn: int, of: int) -> float:
    """Seconds until the next that is ``turn`` modulo ``of`` begins."""
    here = turn_at()
    return (here + 1 + (turn - here - 1) % of) * TURN - time.monotonic()


def build(variant: str, store: str) -> Any:
    """The app of one variant. What a variant does not need is not imported into its process: memory is measured.
    ``store``: the URL of a Redis or the path of a file, for Streamware; none: a ``MemoryStore``.

    Its streams: ``/burst`` never gives way, ``/live`` gives way to the loop after each event, ``/paced`` sends ``rate``
    events a second, ``/timed`` as well, each with the time of its making, ``/turns`` as well, but only in its ``turn``
    of every ``of``, ``/idle`` sends one event and then nothing.
    """
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    if variant == "sse-starlette":
        from sse_starlette import EventSourceResponse, ServerSentEvent

        def event(payload: str, number: int) -> Any:
            return ServerSentEvent(payload, id=str(number))

        def answer(events: AsyncIterator[Any]) -> Response:
            return EventSourceResponse(events)
    else:

        def event(payload: str, number: int) -> Any:
            return f"data: {payload}\n\n"

        def answer(events: AsyncIterator[Any]) -> Response:
            return StreamingResponse(events, media_type="text/event-stream")

    async def burst(count: int, rate: float) -> AsyncIterator[Any]:
        for number in range(count):
            yield event(PAYLOADS[number & 1023], number)

    async def live(count: int, rate: float) -> AsyncIterator[Any]:
        for number in range(count):
            yield event(PAYLOADS[number & 1023], number)
            await asyncio.sleep(0)

    async def paced(count: int, rate: float) -> AsyncIterator[Any]:
        for number in range(count):
            yield event(PAYLOADS[number & 1023], number)
            await asyncio.sleep(1 / rate)

    async def turns(count: int, rate: float, turn: int, of: int) -> AsyncIterator[Any]:
        for number in range(count):
            yield event(PAYLOADS[number & 1023], number)
            await asyncio.sleep(1 / rate if turn_at(1 / rate) % of == turn else until_turn(turn, of) + random() / rate)

    async def timed(count: int, rate: float) -> AsyncIterator[Any]:
        for number in range(count):
            yield event(f"{time.monotonic_ns():020d}{PAYLOADS[number & 1023][20:]}{{", number)
            await asyncio.sleep(1 / rate)

    async def idle(count: int, rate: float) -> AsyncIterator[Any]:
        yield event(PAYLOADS[0], 0)
        await asyncio.Event().wait()

    kinds = {"burst": burst, "live": live, "paced": paced, "timed": timed, "idle": idle}

    async def stream(request: Request) -> Response:
        query = request.query_params
        count, rate = int(query.get("count", 1)), float(query.get("rate", 1))
        if request.path_params["kind"] == "turns":
            return answer(turns(count, rate, int(query["turn"]), int(query["of"])))
        return answer(kinds[request.path_params["kind"]](count, rate))

    async def plain(request: Request) -> Response:
        return PlainTextResponse("hello world")

    app = Starlette(routes=[Route("/plain", plain), Route("/{kind}", stream)])
    if variant == FLOOR:
        return Numbered(app)
    if variant != "streamware":
        return app
    from streamware import wrap

    return wrap(app, store=opened(store))


def opened(store: str) -> Any:
    if not store:
        return None
    if "://" in store:
        from streamware import RedisStore

        return RedisStore(store)
    from streamware import SQLiteStore

    return SQLiteStore(store)


class Numbered:
    """An app whose events get ids and are kept: no framing, no log that anybody could read, no resume. What it costs no
    wrapper that makes streams resumable can do without."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        kept: list[bytes] = []

        async def number(message: Any) -> None:
            body = message.get("body")
            if body:
                body = b"%bid: %032d.%d\n\n" % (body[:-1], 0, len(kept) + 1)
                kept.append(body)
                message = {"type": "http.response.body", "body": body, "more_body": True}
            await send(message)

        await self.app(scope, receive, number if scope["type"] == "http" else send)


class ServerProcess:
    """One variant being served. A context manager."""

    def __init__(self, variant: str, loop: str, store: str = "") -> None:
        self.variant = variant
        command = [sys.executable, "-m", "benchmarks.servers", variant, loop, store]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent
        )
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"the server of {variant} did not start")
        self.port = int(line)
        self.pid = self._child.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not asked to end in good order: streams that linger, and ten thousand connections, would take their time.
        self._child.kill()
        self._child.communicate()

    def cpu(self) -> float:
        """Seconds of CPU that the process has used, user and system."""
        return cpu_of(self.pid)

    def memory(self) -> int:
        """Bytes of it that are resident."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_of(pid: int) -> float:
    """User and system time of all threads, by the scheduler's own clock where there is one: the other has ticks of
    10 ms."""
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except FileNotFoundError:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=(*VARIANTS, FLOOR))
    parser.add_argument("loop", choices=("uvloop", "asyncio"))
    parser.add_argument("store")
    options = parser.parse_args()
    import uvicorn

    pin(SERVER_CPU)
    # With its protocol named, as servers that bind by themselves do: else asyncio leaves Nagle's algorithm on.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    config = uvicorn.Config(
        build(options.variant, options.store),
        loop=options.loop,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=600,
    )
    server = uvicorn.Server(config)

    def leave() -> None:
        sys.stdin.buffer.read()
        os._exit(0)  # the one who measures is gone

    threading.Thread(target=leave, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
