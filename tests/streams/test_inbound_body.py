"""Request bodies that are read ahead of the app, or that nobody wants."""

from __future__ import annotations

import asyncio

import pytest

from streamware.streams.inbound import UNREAD_BYTES, Inbound
from streamware.testing import FakeClock, settle
from streamware.types import Message
from tests.streams.receiving import DISCONNECT, LENGTH, Server, part, post, taken

# -- reading the body ahead of the app


async def test_the_whole_body_message_by_message() -> None:
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    reading = asyncio.ensure_future(inbound.body(100))
    await settle()
    messages = [part(b"a"), part(b""), part(b"b", False)]
    for message in messages:
        server.send(message)
        await settle()
    assert await reading == messages
    assert server.asked == 3, "nothing behind the body was asked for"
    assert inbound.on_change is None


async def test_of_a_body_over_the_limit_no_more_is_taken() -> None:
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    messages = [part(b"x" * 50) for _ in range(10)]
    server.send(*messages, part(b"", False))
    body = await asyncio.wait_for(inbound.body(100), 5)
    assert body == messages[:3]
    assert server.asked == 3
    inbound.put_back(body)
    assert [inbound.take() for _ in body] == body


async def test_a_large_body_is_read_whole_although_it_is_more_than_may_lie_unread() -> None:
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    server.send(*[part(b"x" * UNREAD_BYTES) for _ in range(5)], part(b"", False))
    body = await asyncio.wait_for(inbound.body(10 * UNREAD_BYTES), 5)
    assert len(body) == 6
    inbound.put_back(body)
    assert await taken(inbound) == body


async def test_a_client_that_leaves_in_its_upload_ends_the_reading() -> None:
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    server.send(part(b"a"), DISCONNECT)
    assert await asyncio.wait_for(inbound.body(100), 5) == [part(b"a")]
    assert inbound.gone
    assert not inbound.complete


async def test_who_gives_up_reading_loses_no_message() -> None:
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    reading = asyncio.ensure_future(inbound.body(100))
    await settle()
    reading.cancel()
    await settle()
    server.send(part(b"a", False))
    assert await taken(inbound) == [part(b"a", False)]
    assert server.asked == 1


# -- bodies that nobody wants


@pytest.mark.parametrize("last", [part(b"", False), DISCONNECT])
async def test_a_discarded_body_is_waited_for_to_its_end_or_the_clients(last: Message) -> None:
    server, clock = Server(), FakeClock()
    inbound = Inbound(LENGTH, server.receive)
    changes: list[bool] = []
    before = inbound.on_change = lambda: changes.append(True)
    server.send(part(b"x" * 10_000))
    inbound.pull()
    await settle()
    discarding = asyncio.ensure_future(inbound.discard(clock, 1.0))
    server.send(part(b"x" * 100_000))
    await settle()
    assert not discarding.done()
    server.send(last)
    await asyncio.wait_for(discarding, 5)
    assert inbound.take() is None
    assert (inbound.complete, inbound.gone) == (last is not DISCONNECT, last is DISCONNECT)
    assert (inbound.on_change, clock.timers) == (before, 0)
    assert len(changes) == 3, "who looked before still hears of everything"
    inbound.release()


async def test_a_body_that_does_not_come_is_not_waited_for_for_ever() -> None:
    server, clock = Server(), FakeClock()
    inbound = Inbound(LENGTH, server.receive)
    discarding = asyncio.ensure_future(inbound.discard(clock, 1.0))
    await clock.advance(0.9)
    assert not discarding.done()
    await clock.advance(0.2)
    await asyncio.wait_for(discarding, 5)
    assert (inbound.complete, inbound.gone, clock.timers) == (False, False, 0)
    inbound.release()


async def test_nothing_is_waited_for_where_there_is_no_body() -> None:
    server, clock = Server(), FakeClock()
    await asyncio.wait_for(Inbound(post(), server.receive).discard(clock, 1.0), 5)
    assert (server.asked, clock.timers) == (0, 0)
