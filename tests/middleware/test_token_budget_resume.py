"""A token budget within Resume: the stream is charged, not its connections."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from typing import Any

import pytest

from streamware import (
    DrainMiddleware,
    MemoryLimitStorage,
    MemoryStore,
    Middleware,
    ResumeMiddleware,
    Stack,
    TokenBudgetMiddleware,
    current_stream,
)
from streamware.testing import Connection, ConnectionEndedError, settle
from tests.middleware.budget_site import Site, chunk, words

READER = {"accept": "text/event-stream", "content-type": "application/json"}
END = (chunk("", usage=(12, 333)), b"data: [DONE]\n\n")


def within_resume(**options: Any) -> Site:
    return Site(outside=lambda budget: ResumeMiddleware(budget, **options), limits="100000/minute")


def cursor_of(body: bytes) -> str:
    found = re.findall(rb"^id: (\S+)\n\n", body, re.MULTILINE)
    return found[-1].decode() if found else ""


@pytest.mark.parametrize("seed", range(10))
async def test_random_cuts_reconnects_and_second_readers_charge_nothing(seed: int):
    chance = random.Random(seed)
    site = within_resume()
    site.yields = True
    site.parts = [words(3)] * 60 + list(END)
    cursor = ""
    others: list[Connection] = []
    for _ in range(chance.randint(2, 6)):
        headers = {**READER, **({"last-event-id": cursor} if cursor else {})}
        async with site.connection(headers=headers) as connection:
            with contextlib.suppress(ConnectionEndedError):  # it may have all of it already
                await connection.receive_body(lambda body: len(cursor_of(body)) > 0)
            for _ in range(chance.randint(0, 30)):
                await asyncio.sleep(0)
            connection.drop()
        cursor = cursor_of(connection.body) or cursor
        if chance.random() < 0.5:
            others.append(site.connection(headers={**READER, "last-event-id": cursor}))
            others[-1].open()
    last = await site.ask(headers={**READER, "last-event-id": cursor})
    for other in others:
        await other.aclose()

    assert last.status in (200, 204)
    assert site.calls == 1
    assert await site.charged() == 345
    assert site.observer.counts["token_budget.used", "reported"] == 345
    replay = await site.ask(headers={**READER, "last-event-id": re.sub(r"\d+$", "1", cursor)})
    assert replay.body.endswith(b"\n\n")
    assert b"[DONE]" in replay.body
    assert site.calls == 1
    assert await site.charged() == 345


async def test_a_poll_and_a_join_charge_nothing():
    site = within_resume()
    site.parts = [words(3), *END]
    headers = {**READER, "idempotency-key": "0123456789abcdefghijkl"}
    first = await site.ask(headers=headers)
    again = await site.ask(headers=headers)
    location = first.header("content-location")
    assert location is not None
    poll = await site.ask(
        method="GET", body=b"", path="/", query=location.lstrip("?"), headers={"accept": "application/json"}
    )

    assert first.body.count(b"[DONE]") == again.body.count(b"[DONE]") == 1
    assert poll.status == 200
    assert site.calls == 1
    assert await site.charged() == 345


async def test_a_stream_without_a_reader_is_charged_for_all_that_it_makes():
    site = within_resume()
    site.gates[1] = asyncio.Event()
    site.parts = [words(3), *END]
    async with site.connection(headers=READER) as connection:
        await connection.receive_body(b"id: ")
        connection.drop()
    site.gates[1].set()
    await settle()
    await site.settled()

    assert await site.charged() == 345


async def test_a_stream_that_is_stopped_is_charged_for_what_it_made():
    site = within_resume()
    site.gates[1] = asyncio.Event()
    site.parts = [words(30), *END]
    async with site.connection(headers=READER) as connection:
        await connection.receive_body(b"id: ")
        location = connection.header("content-location")
        assert location is not None
        stop = await site.ask(method="DELETE", body=b"", query=location.lstrip("?"), headers={})
        await connection.finished()
    await site.settled()

    assert stop.status == 204
    assert isinstance(site.raised, asyncio.CancelledError)
    assert await site.charged() == 40


async def test_a_stream_that_is_cut_off_ends_its_log_and_its_readers():
    site = Site(outside=ResumeMiddleware, limits="100/minute", on_exceeded="cut")
    site.parts = [words(30)] * 10
    first = await site.ask(headers=READER)
    replay = await site.ask(headers={**READER, "last-event-id": re.sub(r"\d+$", "1", cursor_of(first.body))})

    assert first.body.count(b"rate_limit_exceeded") == replay.body.count(b"rate_limit_exceeded") == 1
    assert site.calls == 1
    assert await site.debt() == 130


async def test_what_the_app_says_is_said_to_resumes_own_stream():
    site = within_resume()
    cursors = []

    def say() -> None:
        stream = current_stream()
        assert stream is not None
        cursors.append(stream)
        stream.usage.add(77)

    site.before = say
    await site.ask(headers=READER)

    assert await site.charged() == 77
    assert cursors[0].linger == 30.0  # Resume's


async def test_what_still_runs_at_the_end_of_a_worker_is_settled_before_it_is_over():
    storage = MemoryLimitStorage()
    site = Site(limits="100000/minute", storage=storage)
    site.gates[1] = asyncio.Event()
    site.parts = [words(30), *END]
    stack = Stack(
        site.app,
        middleware=[
            Middleware(DrainMiddleware, grace=0, deadline=0.2, signals=()),
            Middleware(ResumeMiddleware, store=MemoryStore()),
            Middleware(TokenBudgetMiddleware, limits="100000/minute", key=lambda scope: "all", storage=storage),
        ],
    )
    site.outermost = stack
    orders: asyncio.Queue[Any] = asyncio.Queue()
    answers: asyncio.Queue[Any] = asyncio.Queue()
    lifespan = asyncio.ensure_future(stack({"type": "lifespan", "asgi": {}}, orders.get, answers.put))
    orders.put_nowait({"type": "lifespan.startup"})
    assert (await answers.get())["type"] == "lifespan.startup.complete"
    async with site.connection(headers=READER) as connection:
        await connection.receive_body(b"id: ")
        connection.drop()
    orders.put_nowait({"type": "lifespan.shutdown"})
    assert (await answers.get())["type"] == "lifespan.shutdown.complete"
    await lifespan

    assert await site.charged() == 40
