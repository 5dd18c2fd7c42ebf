"""A token budget on a WebSocket: each response of a connection is counted, and the connection ends with its budget."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from streamware import current_stream
from streamware.streams.gone import ClientGone
from streamware.testing import ConnectionEndedError, settle
from tests.middleware.budget_site import SocketSite
from tests.wire.provider_streams import FIXTURES, Fixture

REALTIME = [each for each in FIXTURES if "realtime" in each.name]


def response(number: int, words: int, usage: tuple[int, int] | None = None) -> list[bytes]:
    """The messages of one response: its words, and its end."""
    name = f"resp_{number}"
    reported = None if usage is None else {"input_tokens": usage[0], "output_tokens": usage[1]}
    kind = "response.output_text.delta"
    return [
        *[json.dumps({"type": kind, "response_id": name, "delta": "x" * 40}).encode() for _ in range(words)],
        json.dumps({"type": "response.done", "response": {"id": name, "usage": reported}}).encode(),
    ]


@pytest.mark.parametrize("fixture", REALTIME, ids=lambda fixture: fixture.name)
async def test_the_responses_of_a_connection_are_summed(fixture: Fixture):
    site = SocketSite(limits="100000/minute")
    site.parts = fixture.data.splitlines()
    async with site.socket() as socket:
        await socket.start()
        for part in site.parts:
            assert await socket.receive() == part.decode()
        socket.close()
        await socket.finished()
    await site.settled()

    assert await site.charged() == fixture.expected.total
    assert site.calls == 1


async def test_each_response_is_settled_at_its_end_and_a_silent_connection_holds_nothing():
    site = SocketSite(limits="10000/minute", slice_size=100)
    first = response(1, 3, (50, 20))
    site.parts = [*first, *response(2, 3, (60, 30))]
    site.gates[len(first)] = asyncio.Event()
    async with site.socket() as socket:
        for _ in first:
            await socket.receive()
        await site.settled()
        assert await site.charged() == 70
        site.gates[len(first)].set()
        for _ in range(4):
            await socket.receive()
        await site.settled()
        assert await site.charged() == 160
        socket.close()
        await socket.finished()
    await site.settled()

    assert await site.charged() == 160
    assert site.observer.counts["token_budget.used", "reported"] == 160


async def test_a_connection_that_lives_for_long_is_charged_in_the_windows_in_which_it_uses_something():
    site = SocketSite(limits="1000/minute", window="fixed")
    site.clock._now = 60_000.0
    first = response(1, 3, (500, 200))
    site.parts = [*first, *response(2, 3, (500, 250))]
    site.gates[len(first)] = asyncio.Event()
    async with site.socket() as socket:
        for _ in first:
            await socket.receive()
        await site.clock.advance(61)
        assert await site.charged() == 0
        site.gates[len(first)].set()
        for _ in range(4):
            await socket.receive()
        await site.settled()
        assert await site.charged() == 750
        socket.close()
        await socket.finished()


async def test_a_handshake_without_a_budget_is_refused():
    site = SocketSite(limits="1000/minute", slice_size=600)
    site.parts = []
    async with site.socket() as first:
        await first.start()
        async with site.socket() as second:
            with pytest.raises(ConnectionEndedError):
                await second.start()
        assert site.calls == 1
        first.close()
        await first.finished()
    await site.settled()

    assert site.observer.counts["token_budget.refused", "budget"] == 1
    assert await site.charged() == 0


@pytest.mark.parametrize(("limits", "code"), [("100/second", 1013), ("100/day", 1008)])
async def test_finish_closes_the_connection_behind_the_response_under_way(limits: str, code: int):
    site = SocketSite(limits=limits)
    first = response(1, 20, (50, 200))
    site.parts = [*first, *response(2, 3, (50, 20))]
    async with site.socket() as socket:
        received = [await socket.receive() for _ in range(len(first) + 1)]
        assert await socket.closing() == code
        await socket.finished()
    await site.settled()

    assert [json.loads(each)["type"] for each in received[-2:]] == ["response.done", "error"]
    assert json.loads(received[-1])["error"]["code"] == "rate_limit_exceeded"
    assert isinstance(site.raised, ClientGone)
    assert await site.debt() == 250


async def test_cut_closes_it_at_once():
    site = SocketSite(limits="100/day", on_exceeded="cut")
    site.parts = response(1, 20, (50, 200))
    async with site.socket() as socket:
        received = [await socket.receive() for _ in range(12)]
        assert await socket.closing() == 1008
        await socket.finished()
    await site.settled()

    assert [json.loads(each)["type"] for each in received[-2:]] == ["response.output_text.delta", "error"]
    assert await site.debt() == 110


async def test_an_app_that_waits_for_its_client_is_told_of_the_close():
    site = SocketSite(limits="100/minute")
    site.parts = response(1, 5, (50, 200))
    async with site.socket(server="daphne") as socket:
        for _ in range(7):
            await socket.receive()
        assert await socket.closing() == 4429
        await socket.finished()

    assert site.raised is None
    assert site.received == [{"type": "websocket.disconnect", "code": 4429, "reason": ""}]


async def test_shadow_mode_closes_nothing():
    site = SocketSite(limits="100/minute", enforce=False, on_exceeded="cut")
    site.parts = [*response(1, 5, (50, 200)), *response(2, 5, (50, 200))]
    async with site.socket() as socket:
        for _ in range(12):
            await socket.receive()
        socket.close()
        await socket.finished()
    await site.settled()

    assert await site.debt() == 500
    assert site.observer.counts["token_budget.would_exceed", "finish"] >= 1


async def test_what_the_app_says_counts():
    site = SocketSite(limits="1000/minute")

    def parts() -> Any:
        stream = current_stream()
        assert stream is not None
        stream.usage.add(33)
        yield b'{"type":"hello"}'

    site.parts = parts()
    async with site.socket() as socket:
        await socket.receive()
        socket.close()
        await socket.finished()
    await site.settled()

    assert await site.charged() == 33


async def test_cancelled_it_is_settled():
    site = SocketSite(limits="1000/minute")
    site.parts = response(1, 5)[:-1]
    async with site.socket() as socket:
        for _ in range(5):
            await socket.receive()
        socket.cancel()
        await settle()
    await site.settled()

    assert await site.charged() == 50


async def test_an_app_that_sends_from_several_tasks_is_charged_once_for_each_message():
    site = SocketSite(limits="10000/minute", slice_size=20)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        parts = [part.decode() for number in range(10) for part in response(number, 2, (3, 4))]
        await asyncio.gather(*(send({"type": "websocket.send", "text": part}) for part in parts))

    site.budget.app = app
    async with site.socket() as socket:
        for _ in range(30):
            await socket.receive()
        await socket.finished()
    await site.settled()

    assert await site.charged() == 70
