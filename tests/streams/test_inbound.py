"""The client's side of a call, on servers that differ: one ``receive`` at a time, none after the end, nothing lost."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Generator
from typing import Any

import pytest

from streamware.streams.inbound import UNREAD_BYTES, Inbound, has_no_body
from streamware.testing import settle
from streamware.types import Message, Scope
from tests.streams.receiving import DISCONNECT, LENGTH, Server, part, post, taken

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
