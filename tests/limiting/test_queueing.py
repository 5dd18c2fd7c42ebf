"""Lines: bounded, in order, and left by those who leave."""

from __future__ import annotations

import asyncio

import pytest

from streamware.limiting.base import Taken
from streamware.limiting.queueing import Queue, Ticket
from streamware.testing import FakeClock, settle

FULL = Taken(False, full=True)


async def never() -> Taken:
    return FULL


async def test_all_lines_together_have_a_cap_as_well(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("streamware.limiting.queueing.MAX_WAITING", 20)
    clock = FakeClock()
    queue = Queue(5, 2.0, clock)

    waiting = [asyncio.ensure_future(queue.wait(f"{n % 10}", never, Ticket())) for n in range(60)]
    await settle()

    assert queue.waiting == 20
    assert sum(task.done() for task in waiting) == 40
    await clock.advance(2.0)
    answers = await asyncio.gather(*waiting)
    assert sum(answer is FULL for answer in answers) == 10  # the first of each line, which has asked
    assert sum(answer is None for answer in answers) == 50
    assert queue.waiting == 0
    assert not any(queue.has_line(f"{n}") for n in range(10))
    assert clock.timers == 0


async def test_only_the_first_of_a_line_asks():
    clock, asked = FakeClock(), 0

    async def ask() -> Taken:
        nonlocal asked
        asked += 1
        return FULL

    queue = Queue(5, 1.0, clock)
    waiting = [asyncio.ensure_future(queue.wait("a", ask, Ticket())) for _ in range(5)]
    await clock.advance(0.9)
    assert asked == 4
    await clock.advance(1.0)
    await asyncio.gather(*waiting)


async def test_what_is_freed_lets_one_in_at_once_and_the_next_is_first_then():
    clock, room = FakeClock(), 0

    async def ask() -> Taken:
        nonlocal room
        room -= 1
        return Taken(room >= 0, full=room < 0)

    queue = Queue(5, 60.0, clock)
    order: list[int] = []

    async def wait(n: int) -> None:
        await queue.wait("a", ask, Ticket())
        order.append(n)

    waiting = [asyncio.ensure_future(wait(n)) for n in range(3)]
    await settle()
    for expected in ([0], [0, 1], [0, 1, 2]):
        room = 1
        queue.freed("a")
        queue.freed("another")
        await settle()
        assert order == expected
    await asyncio.gather(*waiting)


async def test_a_ticket_that_is_given_back_is_no_place_in_line():
    queue, ticket = Queue(5, 60.0, FakeClock()), Ticket()
    ticket.leave()
    assert await queue.wait("a", never, ticket) is None
    assert queue.waiting == 0
