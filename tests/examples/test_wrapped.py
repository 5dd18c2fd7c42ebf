"""The four example apps, wrapped as ``examples/wrapped.py`` does it: a drop costs nothing, and each app ran once."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest

from examples import content, wrapped
from streamware import Stack
from streamware.streams.producer import TASK
from streamware.testing import Connection

WRAPPED = {
    "starlette": wrapped.starlette_wrapped,
    "fastapi": wrapped.fastapi_wrapped,
    "django": wrapped.django_wrapped,
    "bare": wrapped.bare_asgi_wrapped,
}


@pytest.fixture(params=WRAPPED)
def app(request: pytest.FixtureRequest) -> Stack:
    return WRAPPED[request.param]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_dropped_stream_goes_on_behind_the_last_event(app: Stack, method: str) -> None:
    run = str(uuid.uuid4())

    def connect(cursor: str | None = None) -> Connection:
        headers = {"host": "testserver", "content-type": "application/json"}
        if cursor is not None:
            headers["last-event-id"] = cursor
        if method == "POST":
            body = json.dumps({"n": 30, "delay": 0.005, "run": run}).encode()
            return Connection(app, method="POST", path="/generate", headers=headers, body=body)
        headers["accept"] = "text/event-stream"
        return Connection(app, path="/events", query=f"n=30&delay=0.005&run={run}".encode(), headers=headers)

    async with connect() as first:
        seen = await first.events(9)
        first.drop()
    async with connect(seen[-1].id) as second:
        rest = await second.events(21)
        await second.receive_body()
    async with connect(rest[-1].id) as third:
        await third.start()
    await ended()

    assert [event.data for event in seen + rest] == [data(i) for i in range(1, 31)]
    assert [event.event for event in seen + rest] == ["message" if i % 7 else "chapter" for i in range(1, 31)]
    assert third.status == 204
    async with Connection(app, path="/runs", headers={"host": "testserver"}) as asked:
        counted = json.loads(await asked.receive_body())
    assert counted["labels"][run] == 1


async def ended() -> None:
    """Wait until the apps have returned. Django's closes its response in a thread, behind its last byte; cut off there,
    by the end of the test's loop, it leaves the body of its request open."""
    running = [task for task in asyncio.all_tasks() if task.get_name() == TASK]
    if running:
        _, running_still = await asyncio.wait(running, timeout=5)
        assert not running_still


def data(i: int) -> str:
    """What an EventSource makes of event ``i``."""
    lines = content.event(i).decode().splitlines()
    return "\n".join(line.removeprefix("data: ") for line in lines if line.startswith("data: "))
