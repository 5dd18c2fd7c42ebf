"""The client's side of a call, on servers that differ: one ``receive`` at a time, none after the end, nothing lost."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Generator
from typing import Any

import pytest

from streamware.streams.inbound import UNREAD_BYTES, Inbound, has_no_body
from streamware.testing import FakeClock, settle
from streamware.types import Message, Scope

DISCONNECT: Message = {"type": "http.disconnect"}


def part(body: bytes, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def post(**headers: str) -> Scope:
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "http_version": "1.1", "method": "POST", "headers": given}


LENGTH = post(content_length="10")


class Server:
    """A server's ``receive``, strict in what it may be asked: messages are sent by the test."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[Message]] = []
        self.sent: list[Message] = []
        self.asked = 0
        self.disconnected = False

    def send(self, *messages: Message) -> None:
        self.sent += messages
        while self.sent and self.waiting:
            self.waiting.pop(0).set_result(self.sent.pop(0))

    async def receive(self) -> Message:
        self.asked += 1
        assert not self.waiting, "a second receive() while one is under way"
        assert not self.disconnected, "a receive() after the disconnect: some servers block there for ever"
        if self.sent:
            await asyncio.sleep(0)
            message = self.sent.pop(0)
        else:
            future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
            self.waiting.append(future)
            try:
                message = await future
            finally:
                if future in self.waiting:
                    self.waiting.remove(future)
        self.disconnected = message["type"] == "http.disconnect"
        return message


async def taken(inbound: Inbound) -> list[Message]:
    await settle()
    messages = []
    while (message := inbound.take()) is not None:
        messages.append(message)
        await settle()
    return messages


# -- what is asked of the server, and when


async def test_nothing_is_asked_of_the_server_before_somebody_wants_it() -> None:
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    await settle()
    assert (server.asked, inbound.complete, inbound.gone, inbound.take()) == (0, False, False, None)


async def test_a_pull_asks_once_until_it_is_answered() -> None:
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    for _ in range(5):
        inbound.pull()
        await settle()
    assert server.asked == 1
    server.send(part(b"a"), part(b"b", False))
    assert await taken(inbound) == [part(b"a")]
    assert server.asked == 1, "no more than was asked for"
    assert not inbound.complete
    inbound.pull()
    assert await taken(inbound) == [part(b"b", False)]
    assert inbound.complete
    inbound.release()


async def test_while_it_watches_the_next_message_is_always_asked_for() -> None:
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    changes: list[bool] = []
    inbound.on_change = lambda: changes.append(inbound.gone)
    inbound.watch()
    server.send(part(b"a"), part(b"b", False))
    await settle()
    assert inbound.complete
    assert len(server.waiting) == 1
    server.send(DISCONNECT)
    await settle()
    assert inbound.gone
    assert changes == [False, False, True]
    assert await taken(inbound) == [part(b"a"), part(b"b", False)], "what arrived before is still there"
    inbound.pull()
    inbound.watch()
    await settle()
    assert not server.waiting


async def test_a_disconnect_is_final() -> None:
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    server.send(DISCONNECT)
    inbound.pull()
    await settle()
    for _ in range(3):
        inbound.pull()
        inbound.watch()
        await settle()
    assert (inbound.gone, inbound.error, server.asked) == (True, None, 1)


async def test_an_app_that_does_not_read_holds_an_upload_back() -> None:
    server = Server()
    inbound = Inbound(post(transfer_encoding="chunked"), server.receive)
    inbound.watch()
    for _ in range(100):
        server.send(part(b"x" * 10_000))
    await settle(1000)
    assert sum(len(message["body"]) for message in inbound.queue) < UNREAD_BYTES + 10_000
    assert not server.waiting
    arrived = len(inbound.queue)
    assert inbound.take() is not None
    await settle()
    assert len(inbound.queue) == arrived, "one went, the next came"
    inbound.release()


async def test_a_drop_is_noticed_behind_a_large_body_that_the_app_never_reads() -> None:
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    inbound.watch()
    server.send(part(b"x" * UNREAD_BYTES, False), DISCONNECT)
    await settle()
    assert inbound.complete
    assert inbound.gone


async def test_a_body_that_nobody_wants_is_drained_to_its_end() -> None:
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    inbound.drain()
    server.send(*[part(b"x" * 10_000) for _ in range(100)], part(b"", False))
    await settle(1000)
    assert inbound.complete
    assert inbound.take() is None
    server.send(DISCONNECT)
    await settle()
    assert inbound.gone


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


async def test_messages_of_types_that_are_not_known_pass() -> None:
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    server.send({"type": "http.request.new", "extra": 1}, part(b"", False))
    inbound.watch()
    assert await taken(inbound) == [{"type": "http.request.new", "extra": 1}, part(b"", False)]
    inbound.release()


async def test_a_body_message_without_its_optional_keys_is_the_last() -> None:
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    server.send({"type": "http.request"})
    inbound.pull()
    await settle()
    assert inbound.complete
    assert inbound.take() == {"type": "http.request"}


async def test_put_back_messages_come_first_and_in_order() -> None:
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    server.send(part(b"a"), part(b"b"), part(b"c", False))
    inbound.watch()
    await settle()
    first = [inbound.take(), inbound.take()]
    inbound.put_back([message for message in first if message is not None])
    assert await taken(inbound) == [part(b"a"), part(b"b"), part(b"c", False)]
    inbound.release()


# -- the end of the call


async def test_after_the_release_nothing_is_touched() -> None:
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    changes: list[bool] = []
    inbound.on_change = lambda: changes.append(True)
    inbound.watch()
    await settle()
    inbound.release()
    await settle()
    assert not server.waiting, "the receive() under way was ended"
    inbound.pull()
    inbound.watch()
    inbound.drain()
    server.send(part(b"late"))
    await settle()
    assert (server.asked, changes, inbound.gone, inbound.take()) == (1, [], False, None)


async def test_a_release_at_the_very_moment_of_an_error_swallows_it() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))

    async def receive() -> Message:
        raise RuntimeError("the server is done")

    inbound = Inbound(LENGTH, receive)
    inbound.pull()
    await asyncio.sleep(0)  # the receive() has raised, nobody has looked yet
    inbound.release()
    await settle()
    del inbound
    gc.collect()
    await settle()
    assert complaints == []


# -- servers


async def test_an_awaitable_need_not_be_a_coroutine() -> None:
    """Granian's is none."""

    class Plain:
        def __await__(self) -> Generator[Any, Any, Message]:
            yield from asyncio.sleep(0).__await__()
            return part(b"a", False)

    inbound = Inbound(LENGTH, Plain)
    inbound.pull()
    assert await taken(inbound) == [part(b"a", False)]


async def test_an_error_of_the_server_is_a_disconnect_that_is_kept() -> None:
    error = RuntimeError("broken")
    asked = 0

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        raise error

    inbound = Inbound(LENGTH, receive)
    changes: list[bool] = []
    inbound.on_change = lambda: changes.append(inbound.gone)
    inbound.watch()
    await settle()
    assert (inbound.gone, inbound.error, asked, changes) == (True, error, 1, [True])


async def test_a_receive_that_the_server_cancels_is_a_disconnect() -> None:
    """Else whoever waits for a message would wait for ever."""
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    changes: list[bool] = []
    inbound.on_change = lambda: changes.append(inbound.gone)
    inbound.watch()
    await settle()
    server.waiting[0].cancel()
    await settle()
    assert (inbound.gone, inbound.error, server.asked, changes) == (True, None, 1, [True])


@pytest.mark.parametrize("unread_first", [True, False])
async def test_a_disconnect_with_unread_body(unread_first: bool) -> None:
    """Hypercorn and daphne give the body that had arrived before they tell of the disconnect, the others do not."""
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    if unread_first:
        server.send(part(b"a", False))
    server.send(DISCONNECT)
    inbound.watch()
    await settle()
    assert inbound.gone
    assert inbound.complete is unread_first
    assert (inbound.take() is not None) is unread_first


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


async def test_a_body_over_the_limit_is_not_held() -> None:
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    server.send(*[part(b"x" * 50) for _ in range(10)])
    assert await asyncio.wait_for(inbound.body(100), 5) is None
    assert server.asked == 3
    assert await _at_the_limit() is not None


async def _at_the_limit() -> list[Message] | None:
    server = Server()
    server.send(part(b"x" * 100, False))
    return await asyncio.wait_for(Inbound(LENGTH, server.receive).body(100), 5)


async def test_a_large_body_is_read_whole_although_it_is_more_than_may_lie_unread() -> None:
    server = Server()
    inbound = Inbound(LENGTH, server.receive)
    server.send(*[part(b"x" * UNREAD_BYTES) for _ in range(5)], part(b"", False))
    body = await asyncio.wait_for(inbound.body(10 * UNREAD_BYTES), 5)
    assert body is not None
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


# -- heads that say enough


@pytest.mark.parametrize(
    ("scope", "none"),
    [
        (post(), True),
        (post(content_length="0"), True),
        (post(content_length=" 0 "), True),
        (post(content_length="1"), False),
        (post(transfer_encoding="chunked"), False),
        (post(content_length="0", transfer_encoding="chunked"), False),
        ({**post(), "http_version": "1.0"}, True),
        ({**post(), "http_version": "2"}, False),
        ({**post(content_length="0"), "http_version": "2"}, False),
        ({"type": "http", "http_version": "1.1"}, True),
        ({"type": "http"}, False),
    ],
)
def test_whether_the_head_alone_rules_a_body_out(scope: Scope, none: bool) -> None:
    assert has_no_body(scope) is none
    assert Inbound(scope, _never).complete is none


async def _never() -> Message:
    raise AssertionError("nobody asked")
