"""``ThrottleMiddleware`` over WebSockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamware import CountingObserver, ThrottleMiddleware
from streamware.testing import FakeClock, WebSocketConnection, check_order, settle
from streamware.types import Message, Receive, Scope, Send


class Echo:
    """Sends back what it gets; keeps what it was told at the end."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.ends: list[Message] = []
        self.errors: list[Exception] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "websocket.connect":
                await send({"type": "websocket.accept"})
            elif message["type"] == "websocket.receive":
                self.got.append(message.get("text") or "")
                await send({"type": "websocket.send", "text": f"echo {message.get('text')}"})
            else:
                self.ends.append(message)
                try:
                    await send({"type": "websocket.send", "text": "late"})
                except Exception as error:
                    self.errors.append(error)
                    raise
                return


class Place:
    def __init__(self, app: Any = None, **options: Any) -> None:
        self.clock = FakeClock()
        self.observer = CountingObserver()
        self.app = app or Echo()
        self.throttle = ThrottleMiddleware(check_order(self.app), clock=self.clock, observer=self.observer, **options)
        self.sockets: list[WebSocketConnection] = []

    async def __aenter__(self) -> Place:
        return self

    async def __aexit__(self, *error: object) -> None:
        for socket in self.sockets:
            await socket.aclose()
        await settle()
        if error[0] is None:
            for socket in self.sockets:
                socket.check()
            assert len(self.throttle._desk.leases) == 0
        await self.throttle.aclose()

    def connect(self, **options: Any) -> WebSocketConnection:
        socket = WebSocketConnection(self.throttle, **options)
        self.sockets.append(socket)
        socket.open()
        return socket

    async def accepted(self, **options: Any) -> WebSocketConnection:
        socket = self.connect(**options)
        await socket.start()
        return socket


async def test_connections_are_counted_and_refused_by_a_response_where_the_server_can():
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async with Place(limits="2/minute") as place:
        for _ in range(2):
            await place.accepted()
        socket = place.connect()
        assert await socket.closing() is None
        assert not socket.accepted
        assert place.observer.counts["throttle.refused", "rate"] == 1

        await place.throttle(socket.scope, asyncio.Event().wait, send)  # type: ignore[arg-type]

    assert sent[0]["type"] == "websocket.http.response.start"
    assert sent[0]["status"] == 429
    assert b"retry-after" in dict(sent[0]["headers"])


async def test_elsewhere_they_are_refused_before_the_accept():
    async with Place(limits="1/minute") as place:
        await place.accepted(server="daphne")
        socket = place.connect(server="daphne")
        assert await socket.closing() == 1000
        assert not socket.accepted


@pytest.mark.parametrize(
    ("server", "limits", "code"),
    [("uvicorn", "1/second", 1013), ("uvicorn", "1/hour", 1008), ("daphne", "1/second", 4429)],
)
async def test_browsers_can_be_let_in_to_be_told_why(server: str, limits: str, code: int):
    async with Place(limits=limits, websocket_refusal="close") as place:
        await place.accepted(server=server)
        socket = place.connect(server=server)
        assert await socket.closing() == code
        assert socket.accepted
        assert socket.close_reason == "Rate limit exceeded"
        assert len(place.app.got) == 0


async def test_a_browser_that_offers_subprotocols_is_answered_with_one_or_it_would_not_hear_why():
    async with Place(limits="1/second", websocket_refusal="close") as place:
        await place.accepted()
        for offered, answered in ((["chat", "v2"], "chat"), (["bearer", "secret"], "bearer")):
            socket = place.connect(subprotocols=offered)
            assert await socket.closing() == 1013
            assert socket.subprotocol == answered


async def test_a_client_that_left_before_its_refusal_is_not_let_in_for_it():
    async with Place(limits="1/minute", websocket_refusal="close") as place:
        await place.accepted()
        sent: list[Message] = []

        async def gone() -> Message:
            return {"type": "websocket.disconnect", "code": 1005}

        async def send(message: Message) -> None:
            sent.append(message)

        await place.throttle(place.sockets[0].scope, gone, send)
        assert sent == []


async def test_so_many_sockets_at_once():
    async with Place(concurrent=1) as place:
        first = await place.accepted()
        refused = place.connect()
        await refused.closing()
        assert not refused.accepted
        first.drop()
        await settle()
        await place.accepted()


async def test_messages_over_the_limit_close_the_connection_and_the_app_is_told():
    async with Place(messages="2/second") as place:
        socket = await place.accepted()
        for n in range(5):
            socket.send(str(n))
        assert await socket.closing() == 1013
        assert socket.close_reason == "too many messages"
        await settle()

        assert place.app.got == ["0", "1"]
        assert place.app.ends == [{"type": "websocket.disconnect", "code": 1013, "reason": ""}]
        assert isinstance(place.app.errors[0], OSError)
        assert socket.returned
        assert place.observer.counts["throttle.refused", "messages"] == 1


@pytest.mark.parametrize(("server", "code"), [("uvicorn", 1008), ("daphne", 4429), ("hypercorn", 1008)])
async def test_the_code_says_how_long_it_takes_as_far_as_the_server_lets_it(server: str, code: int):
    async with Place(messages="1/hour") as place:
        socket = await place.accepted(server=server)
        socket.send("a")
        socket.send("b")
        assert await socket.closing() == code


async def test_or_they_are_answered_and_the_connection_goes_on():
    async with Place(messages="2/second", message_refusal='{"type":"error"}') as place:
        socket = await place.accepted()
        for n in range(4):
            socket.send(str(n))
        got = [await socket.receive() for _ in range(4)]
        await place.clock.advance(2)
        socket.send("4")

        assert got == ["echo 0", "echo 1", '{"type":"error"}', '{"type":"error"}']
        assert await socket.receive() == "echo 4"
        assert place.app.got == ["0", "1", "4"]


async def test_messages_of_one_client_count_together_whatever_its_sockets():
    async with Place(messages="2/second", message_refusal="no") as place:
        one, two = await place.accepted(), await place.accepted()
        one.send("1")
        two.send("2")
        await settle()
        two.send("3")
        assert [await one.receive(), await two.receive(), await two.receive()] == ["echo 1", "echo 2", "no"]


async def test_in_shadow_mode_messages_pass():
    async with Place(messages="1/second", enforce=False) as place:
        socket = await place.accepted()
        socket.send("1")
        socket.send("2")
        assert [await socket.receive(), await socket.receive()] == ["echo 1", "echo 2"]
        assert place.observer.counts == {("throttle.would_refuse", "messages"): 1}


async def sent_by_each(place: Place, socket: WebSocketConnection, seconds: float) -> list[int]:
    """How many messages have come by the start of each of four turns of so many ``seconds``."""
    counts: list[int] = []
    for _ in range(4):
        await settle()
        counts.append(socket.pending)
        await place.clock.advance(seconds)
    return counts


async def test_what_the_app_sends_goes_out_at_its_pace_and_whole():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for n in range(4):
            await send({"type": "websocket.send", "bytes": b"%d" % n * 500})
        await send({"type": "websocket.close", "code": 1000})

    async with Place(app, bytes_per_second=1000) as place:
        socket = await place.accepted()
        assert await sent_by_each(place, socket, 0.5) == [1, 2, 3, 4]
        assert [len(await socket.receive()) for _ in range(4)] == [500] * 4
        assert await socket.closing() == 1000


async def test_messages_that_are_sent_from_several_tasks_keep_the_pace_as_well():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.gather(*(send({"type": "websocket.send", "text": str(n)}) for n in range(4)))
        await send({"type": "websocket.close", "code": 1000})

    async with Place(app, events_per_second=1) as place:
        socket = await place.accepted()
        assert await sent_by_each(place, socket, 1) == [1, 2, 3, 4]
        assert [await socket.receive() for _ in range(4)] == ["0", "1", "2", "3"]


async def test_an_answer_waits_for_a_message_of_the_apps_that_is_being_sent():
    sent: list[str] = []
    go = asyncio.Event()

    async def send(message: Message) -> None:
        sent.append(f"begin {message.get('text')}")
        if message.get("text") == "slow":
            await go.wait()
        sent.append(f"end {message.get('text')}")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(send({"type": "websocket.send", "text": "slow"}))
        await asyncio.sleep(0)
        while (await receive())["type"] != "websocket.disconnect":
            pass
        await sending

    messages: list[Message] = [{"type": "websocket.receive", "text": "x"}] * 2

    async def receive() -> Message:
        if messages:
            return messages.pop()
        return {"type": "websocket.disconnect", "code": 1000}

    throttle = ThrottleMiddleware(app, messages="1/hour", message_refusal="no")
    scope: Scope = {"type": "websocket", "path": "/", "headers": [], "client": ("192.0.2.1", 1)}
    task = asyncio.ensure_future(throttle(scope, receive, send))
    await settle()
    go.set()
    await task
    assert sent == ["begin slow", "end slow", "begin no", "end no"]


async def test_errors_of_the_app_are_its_own():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError

    throttle = ThrottleMiddleware(app, messages="1/hour", concurrent=1)
    scope: Scope = {"type": "websocket", "path": "/", "headers": [], "client": None}
    with pytest.raises(LookupError):
        await throttle(scope, asyncio.Event().wait, asyncio.Event().wait)  # type: ignore[arg-type]
    assert len(throttle._desk.leases) == 0
    await throttle.aclose()


async def test_who_cannot_be_told_apart_is_not_let_in():
    def broken(scope: Scope) -> str:
        raise KeyError

    async with Place(limits="1/minute", key=broken) as place:
        socket = place.connect()
        await socket.closing()
        assert not socket.accepted


async def test_whose_limits_they_are_is_asked_once_for_a_connection():
    asked: list[Scope] = []

    def key(scope: Scope) -> str:
        asked.append(scope)
        return "a"

    async with Place(limits="9/minute", messages="9/minute", key=key) as place:
        await place.accepted()
        assert len(asked) == 1
