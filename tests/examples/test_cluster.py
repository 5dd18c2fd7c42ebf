"""``make demo-cluster`` as a person uses it: a terminal whose keys restart workers, and a client that is none the
wiser. The page does the same in a real browser, in ``test_cluster_page.py``."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from examples.chat import voice

ROOT = Path(__file__).resolve().parents[2]
QUESTION = "Who kept the light?"
WORDS = voice.words(QUESTION)
EVENTSOURCE = {"accept": "text/event-stream", "cache-control": "no-cache"}


class Demo:
    """The running demo. ``url`` of its chat; ``lines``: what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.url = ""
        self.lines: list[str] = []

    def press(self, key: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(key.encode())

    async def says(self, pattern: str) -> str:
        """Wait until it says so."""
        assert self.process.stdout is not None
        async with asyncio.timeout(40):
            while True:
                line = (await self.process.stdout.readline()).decode()
                assert line, f"the demo ended: {self.lines}"
                self.lines.append(line)
                if found := re.search(pattern, line):
                    return found[0]

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@asynccontextmanager
async def cluster(*options: str) -> AsyncIterator[Demo]:
    """The demo, once it is ready to be asked. What it started has to be gone when it is."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "examples.cluster.serve", "--port", "0", *options,
        cwd=ROOT, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    demo = Demo(process)
    started: list[psutil.Process] = []
    try:
        demo.url = await demo.says(r"http://127\.0\.0\.1:\d+")
        await demo.says("Last-Event-ID")
        yield demo
    finally:
        if process.returncode is None:
            started = demo.children()
            process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            said, _ = await process.communicate()
        demo.lines += said.decode().splitlines()
    assert process.returncode == 0, demo.lines
    assert [child for child in started if child.is_running()] == []
    assert "Traceback" not in "".join(demo.lines), demo.lines


@dataclass
class Listener:
    """What an EventSource does with one answer of the chat. ``workers``: who served it, in turn."""

    text: str = ""
    cursor: str = ""
    workers: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    over: bool = False

    async def listen(self, http: httpx.AsyncClient, url: str, until: int = sys.maxsize) -> None:
        """Connect and reconnect until so many words have come, or the answer is over."""
        while not self.over and len(self.numbers) < until:
            headers = {**EVENTSOURCE, **({"last-event-id": self.cursor} if self.cursor else {})}
            try:
                async with http.stream("GET", f"{url}/chat", params={"q": QUESTION}, headers=headers) as answer:
                    if answer.status_code == 204:
                        self.over = True
                        return
                    assert answer.status_code == 200
                    self.workers.append(answer.headers["x-served-by"])
                    await self.read(answer, until)
            except httpx.TransportError:
                continue

    async def read(self, answer: httpx.Response, until: int) -> None:
        event: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line:
                name, _, value = line.partition(":")
                event[name] = value.removeprefix(" ")
                continue
            self.cursor = event.get("id", self.cursor)
            if "data" in event:
                self.take(event)
                if self.over or len(self.numbers) >= until:
                    return
            event = {}

    def take(self, event: dict[str, str]) -> None:
        kind = event.get("event", "message")
        self.events.append(kind)
        if kind in ("message", "done"):
            self.numbers.append(int(event["id"].rpartition(".")[2]))
        if kind == "message":
            self.text += json.loads(event["data"])["text"]
        self.over = kind in ("done", "streamware.interrupted")

    @property
    def whole(self) -> bool:
        return self.text == "".join(WORDS) and self.numbers == list(range(1, len(WORDS) + 2))


async def test_an_answer_goes_on_while_its_worker_is_restarted() -> None:
    async with cluster("--pace", "120") as demo, httpx.AsyncClient(timeout=30) as http:
        listener = Listener()
        await listener.listen(http, demo.url, until=40)
        listening = asyncio.create_task(listener.listen(http, demo.url))
        demo.press("r")
        await demo.says("gets SIGTERM")
        async with asyncio.timeout(50):
            await listening

    assert listener.whole
    assert set(listener.events) == {"message", "done"}


@pytest.mark.soak
async def test_a_worker_that_only_reads_an_answer_can_be_killed() -> None:
    async with cluster("--pace", "60") as demo, httpx.AsyncClient(timeout=30) as http:
        listener = Listener()
        await listener.listen(http, demo.url, until=40)
        writes = listener.workers[0]
        listening = asyncio.create_task(listener.listen(http, demo.url))
        async with asyncio.timeout(10):
            while len(listener.numbers) < 80:  # it speaks, so it is who is killed
                await asyncio.sleep(0.01)
        reads = listener.workers[-1]  # round-robin: the other one
        demo.press("k")
        killed = await demo.says(r"\w+ gets SIGKILL")
        async with asyncio.timeout(50):
            await listening

    assert reads != writes
    assert killed == f"{reads} gets SIGKILL"
    assert listener.whole


@pytest.mark.soak
async def test_the_answer_of_a_worker_that_is_killed_ends_as_interrupted() -> None:
    async with cluster("--pace", "60") as demo, httpx.AsyncClient(timeout=30) as http:
        listener = Listener()
        await listener.listen(http, demo.url, until=40)
        demo.press("k")
        await demo.says(f"{listener.workers[0]} gets SIGKILL")
        async with asyncio.timeout(25):
            await listener.listen(http, demo.url)

    assert listener.over
    assert listener.events[-1] == "streamware.interrupted" or listener.cursor
    assert "".join(WORDS).startswith(listener.text)
    assert listener.numbers == list(range(1, len(listener.numbers) + 1))


async def test_curl_can_read_on_at_another_worker() -> None:
    async with cluster("--pace", "400") as demo:
        curl = await asyncio.create_subprocess_exec(
            "curl", "-isN", f"{demo.url}/chat?q=hello", "-H", "Accept: text/event-stream",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert curl.stdout is not None
        async with asyncio.timeout(20):
            head = (await curl.stdout.readuntil(b"\r\n\r\n")).decode().lower()
            data = b""
            while data.count(b"\nid: ") < 20:
                data += await curl.stdout.read(4096)
        curl.kill()
        await curl.wait()
        last = re.findall(rb"\nid: (\S+)\n\n", data)[-1].decode()
        served = set(re.findall(r"x-served-by: (\S+)", head))
        for _ in range(2):
            again = await asyncio.create_subprocess_exec(
                "curl", "-isN", f"{demo.url}/chat", "-H", "Accept: text/event-stream", "-H", f"Last-Event-ID: {last}",
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            async with asyncio.timeout(20):
                told = (await again.communicate())[0].decode()
            served |= set(re.findall(r"x-served-by: (\S+)", told.lower()))
            numbers = [int(number) for number in re.findall(r"\nid: \S+\.(\d+)\n", told)]
            first = int(last.rpartition(".")[2])
            assert numbers == list(range(first + 1, len(voice.words("hello")) + 2))

    assert served == {"a1", "b1"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
async def test_it_ends_all_that_it_started(number: signal.Signals) -> None:
    async with cluster() as demo:
        started = demo.children()
        os.kill(demo.process.pid, number)
        async with asyncio.timeout(20):
            await demo.process.wait()

    assert len(started) == 3  # two workers and the Redis
    assert not any(child.is_running() for child in started)


async def test_workers_end_when_the_demo_is_killed() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "examples.cluster.serve", "--port", "0",
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    demo = Demo(process)
    await demo.says("Last-Event-ID")
    children = demo.children()
    process.kill()
    await process.communicate()

    redis = [child for child in children if child.name() in ("redis-server", "valkey-server")]
    for left in redis:  # has no parent to listen to
        left.kill()
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, 15)
    assert alive == []


async def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "examples.cluster.serve", "--port", str(taken.getsockname()[1]),
            cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        told, _ = await process.communicate()

    assert process.returncode == 1
    assert "make demo-cluster PORT=" in told.decode()
    assert "Traceback" not in told.decode()
