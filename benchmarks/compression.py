"""What compressing a live stream costs and saves, with a flush behind every event: here, and in two peers.

Streams are like OpenAI's (one token an event, 305 bytes) and Anthropic's (some tokens an event, 126 bytes), their text
being the English of Python's own reference. Each variant is a process of its own, in two forms. Over bare ASGI, with
no socket: size, memory, and the CPU that the middleware adds to the app alone. Under uvicorn: the CPU of all, which is
what a service pays; a compressor with small tables leaves more of the processor's caches to the others. Memory is that
of open streams that have had 500 events each; "at rest" are those that were silent for longer than ``rest_after``.

Run as a module, it is such a process: it serves, or answers what it is asked on its standard input, line by line.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .load import END, HOST, Lost
from .measure import BARE, OURS, Figure, Settings, in_turn
from .servers import SERVER_CPU, cpu_of, pin

TITLE = "Compression of live streams, flushed at every event"

STARLETTE, GZIP, DEFAULT = "Starlette's GZip", "starlette-compress, gzip", "starlette-compress"
SMALL, ZSTD, REST = "streamware, window=11", "streamware, zstd", "streamware, at rest"
VARIANTS = (OURS, SMALL, ZSTD, STARLETTE, GZIP, DEFAULT)
PEERS = (STARLETTE, GZIP)
KINDS = ("OpenAI-style", "Anthropic-style")
#: What the streams are to be reduced to, in percent: nineteen times, and seven times.
SIZES = {"OpenAI-style": 100 / 19, "Anthropic-style": 100 / 7}
COST, MEMORY = 4.0, 40.0
#: What a browser sends.
BROWSER = b"gzip, deflate, br, zstd"
STREAMS = (500, 800, 1200, 3000, 500, 800, 1200, 3000)
OPEN = 150
#: The one of them that is served.
SERVED = 3


async def run(settings: Settings) -> list[Figure]:
    figures = []
    for kind in KINDS:
        figures += [await size(kind), await cost(settings, kind), *await memory(settings, kind)]
    return [*figures, *await served(settings)]


async def size(kind: str) -> Figure:
    """One round: it is the same each time."""
    values = {}
    for variant in VARIANTS:
        with Worker(variant) as worker:
            values[variant] = [100 / worker.ask("size", kind)]
    base = min(PEERS, key=lambda peer: values[peer])
    note = "times smaller: " + ", ".join(f"{variant} {100 / each[0]:.1f}" for variant, each in values.items())
    return Figure(
        f"{kind}, size", "%", values, {OURS: 1 / 0.9}, note=note, base=base, bounds={OURS: round(SIZES[kind], 2)}
    )


async def cost(settings: Settings, kind: str) -> Figure:
    workers = {variant: Worker(variant) for variant in VARIANTS}
    values: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    order = list(VARIANTS)
    try:
        for number in range(settings.rounds_of(11) + 1):
            for variant in order:
                taken = workers[variant].ask("cost", kind)
                if number:  # the first is for warming up
                    values[variant].append(taken)
            order.append(order.pop(0))
    finally:
        for worker in workers.values():
            worker.close()
    base = min(PEERS, key=lambda peer: statistics.median(values[peer]))
    return Figure(f"{kind}, CPU added to the app", "µs an event", values, base=base, bounds={OURS: COST})


async def served(settings: Settings) -> list[Figure]:
    """One stream after another, each event in a tick of the loop of its own, to a client that reads all at once."""
    times = settings.pick(3, 1)
    figures = []
    with contextlib.ExitStack() as stack:
        servers = {each or BARE: stack.enter_context(Served(each, settings.loops[0])) for each in ("", *VARIANTS)}
        for number, kind in enumerate(KINDS):

            async def visit(server: Served, number: int = number) -> float:
                before = cpu_of(server.pid)
                await asyncio.to_thread(drain, server.port, number, times)
                return (cpu_of(server.pid) - before) / (times * STREAMS[SERVED]) * 1e6

            values = await in_turn(servers, settings.rounds_of(11), visit)  # type: ignore[arg-type, type-var]
            base = min(PEERS, key=lambda peer: statistics.median(values[peer]))
            label = f"{kind}, CPU of all, {settings.loops[0]}"
            figures.append(Figure(label, "µs an event", values, {OURS: 1.0}, base=base))
    return figures


def drain(port: int, number: int, times: int) -> None:
    head = f"GET /{number}/{times} HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: {BROWSER.decode()}\r\n"
    with socket.create_connection((HOST, port)) as connection:
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
        came, tail = 0, b""
        while data := connection.recv(1 << 20):
            came += len(data)
            tail = (tail + data)[-5:]
    if tail != END:
        raise Lost(f"the stream ended after {came} bytes")


async def memory(settings: Settings, kind: str) -> list[Figure]:
    """A process for each, since none gives back all that it had."""
    values: dict[str, list[float]] = {variant: [] for variant in (*VARIANTS, REST)}
    for _ in range(settings.rounds_of(3)):
        alone = held("", kind)
        for variant in values:
            values[variant].append(held(variant, kind) - alone)
    base = min(PEERS, key=lambda peer: statistics.median(values[peer]))
    gzip = {variant: each for variant, each in values.items() if variant != DEFAULT}
    default = {variant: values[variant] for variant in (OURS, DEFAULT)}
    return [
        Figure(f"{kind}, memory", "KB a stream", gzip, {OURS: round(1 / 3, 3)}, base=base, bounds={OURS: MEMORY}),
        Figure(f"{kind}, memory, as a browser asks", "KB a stream", default, {OURS: 1 / 50}, base=DEFAULT),
    ]


def held(variant: str, kind: str) -> float:
    with Worker(variant) as worker:
        return worker.ask("memory", kind)


class Worker:
    """The process of one variant. A context manager."""

    def __init__(self, variant: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.compression", variant],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, what: str, kind: str) -> float:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        print(what, kind, file=self._child.stdin, flush=True)
        return float(self._child.stdout.readline())

    def close(self) -> None:
        self._child.communicate()


class Served:
    """The process of one variant, under uvicorn. A context manager."""

    def __init__(self, variant: str, loop: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.compression", variant, loop],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
        assert self._child.stdout is not None
        self.port = int(self._child.stdout.readline())
        self.pid = self._child.pid

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()


# -- in the process of a variant


def tokens() -> list[str]:
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))
    text = re.sub(r" +", " ", re.sub(r'[*=^"~-]{3,}', "", text))
    text = re.sub(r"(?<!\n)\n(?!\n)", " ", text)
    return re.findall(r" ?[A-Za-z]{1,7}|\s*\S{1,3}|\n+", text)


def stream(kind: str, seed: int, count: int, words: list[str]) -> list[bytes]:
    chance = random.Random(seed)
    at = chance.randrange(len(words) - 4 * count)
    name = "chatcmpl-" + "".join(chance.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJ0123456789", k=29))
    events = []
    for _ in range(count):
        if kind == "OpenAI-style":
            choice = {"index": 0, "delta": {"content": words[at]}, "logprobs": None, "finish_reason": None}
            chunk = {
                "id": name,
                "object": "chat.completion.chunk",
                "created": 1764000000 + seed,
                "model": "gpt-4o-mini-2024-07-18",
                "service_tier": "default",
                "system_fingerprint": "fp_560af6e559",
                "choices": [choice],
                "usage": None,
            }
            at += 1
            events.append(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n")
        else:
            taken = chance.choice((1, 2, 2, 3, 3, 4))
            delta = {"type": "text_delta", "text": "".join(words[at : at + taken])}
            chunk = {"type": "content_block_delta", "index": 0, "delta": delta}
            at += taken
            data = json.dumps(chunk, separators=(",", ":")).encode()
            events.append(b"event: content_block_delta\ndata: " + data + b"\n\n")
    return events


def wrapped(variant: str, app: Any) -> Any:
    """``app`` in the middleware of the variant. What a variant does not need is not imported into its process."""
    if not variant:
        return app
    if variant == STARLETTE:
        from starlette.middleware.gzip import GZipMiddleware

        return GZipMiddleware(app, exclude_content_types=())
    if variant in (GZIP, DEFAULT):
        from starlette_compress import CompressMiddleware

        return CompressMiddleware(app) if variant == DEFAULT else CompressMiddleware(app, zstd=False, brotli=False)
    from streamware import CompressionMiddleware

    if variant == SMALL:
        return CompressionMiddleware(app, window=11)
    if variant == ZSTD:
        return CompressionMiddleware(app, live_codings=["zstd"])
    return CompressionMiddleware(app, rest_after=0.2 if variant == REST else 60.0)


SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": [(b"accept-encoding", BROWSER)]}
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}


def playing(events: list[bytes], took: list[float], *, then: asyncio.Event | None = None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": list(START["headers"])})  # type: ignore[call-overload]
        began = time.process_time()
        for event in events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        took.append(time.process_time() - began)
        if then is not None:
            await then.wait()

    return app


async def silent() -> Any:
    await asyncio.Event().wait()


async def measured_size(variant: str, streams: list[list[bytes]]) -> float:
    raw = coded = 0

    async def send(message: Any) -> None:
        nonlocal coded
        coded += len(message.get("body", b""))

    for events in streams:
        raw += sum(map(len, events))
        await wrapped(variant, playing(events, []))(SCOPE, silent, send)
    return raw / coded


async def measured_cost(variant: str, streams: list[list[bytes]]) -> float:
    async def send(message: Any) -> None:
        pass

    events = streams[SERVED]
    with_it: list[float] = []
    alone: list[float] = []
    for _ in range(3):
        await playing(events, alone)(SCOPE, silent, send)
        await wrapped(variant, playing(events, with_it))(SCOPE, silent, send)
    return (min(with_it) - min(alone)) / len(events) * 1e6


async def measured_memory(variant: str, streams: list[list[bytes]]) -> float:
    async def send(message: Any) -> None:
        pass

    took: list[float] = []
    leave = asyncio.Event()
    app = wrapped(variant, playing(streams[0], took, then=leave))
    await wrapped(variant, playing(streams[0], took))(SCOPE, silent, send)  # loads what is loaded late
    before = resident()
    tasks = [asyncio.ensure_future(app(SCOPE, silent, send)) for _ in range(OPEN)]
    while len(took) <= OPEN:
        await asyncio.sleep(0.01)
    if variant == REST:
        while app.options.rest.awake:
            await asyncio.sleep(0.05)
    after = resident()
    leave.set()
    await asyncio.gather(*tasks)
    return (after - before) / OPEN / 1000


def resident() -> int:
    gc.collect()
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def serve(variant: str, loop: str, words: list[str]) -> None:
    import uvicorn

    streams = [stream(kind, SERVED, STREAMS[SERVED], words) for kind in KINDS]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        number, times = map(int, scope["path"].strip("/").split("/"))
        await send({**START, "headers": list(START["headers"])})  # type: ignore[call-overload]
        for _ in range(times):
            for event in streams[number]:
                await send({"type": "http.response.body", "body": event, "more_body": True})
                await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind((HOST, 0))
    listener.listen()
    print(listener.getsockname()[1], flush=True)
    options: dict[str, Any] = {"loop": loop, "log_level": "warning", "access_log": False, "lifespan": "off"}
    uvicorn.Server(uvicorn.Config(wrapped(variant, app), **options)).run(sockets=[listener])


def main() -> None:
    pin(SERVER_CPU)
    variant, words = sys.argv[1], tokens()
    if len(sys.argv) > 2:
        serve(variant, sys.argv[2], words)
        return
    asked = {"size": measured_size, "cost": measured_cost, "memory": measured_memory}
    made: dict[str, list[list[bytes]]] = {}
    for line in sys.stdin:
        what, kind = line.split()
        if kind not in made:
            made[kind] = [stream(kind, seed, count, words) for seed, count in enumerate(STREAMS)]
        print(asyncio.run(asked[what](variant, made[kind])), flush=True)


if __name__ == "__main__":
    main()
