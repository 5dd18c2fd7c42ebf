"""A server's ``receive`` for tests of ``Inbound``: strict in what it may be asked."""

from __future__ import annotations

import asyncio

from streamware.streams.inbound import Inbound
from streamware.testing import settle
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
