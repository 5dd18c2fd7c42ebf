"""Signals are heard before the handler that was there, which is called all the same, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from streamware.streams.signals import Chained, Listener
from streamware.testing import settle

SIGNAL = signal.SIGUSR1


class Server:
    """A handler as servers have it."""

    def __init__(self) -> None:
        self.got: list[int] = []

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.got.append(signum)


@pytest.fixture
def server() -> Iterator[Server]:
    handler = Server()
    before = signal.signal(SIGNAL, handler)
    yield handler
    signal.signal(SIGNAL, before)


async def test_it_is_heard_and_goes_on_to_the_server(server: Server) -> None:
    heard: list[str] = []
    listener = Listener(lambda: heard.append("heard"))
    assert listener.listen(SIGNAL)

    os.kill(os.getpid(), SIGNAL)
    await settle()

    assert heard == ["heard"]
    assert server.got == [SIGNAL]
    listener.close()
    assert signal.getsignal(SIGNAL) is server


async def test_several_that_listen_share_one_handler(server: Server) -> None:
    heard: list[int] = []
    listeners = [Listener(lambda number=number: heard.append(number)) for number in (1, 2)]  # type: ignore[misc]
    for listener in listeners:
        assert listener.listen(SIGNAL)
    handler = signal.getsignal(SIGNAL)
    assert isinstance(handler, Chained)
    assert handler.old is server

    os.kill(os.getpid(), SIGNAL)
    await settle()
    listeners[0].close()
    assert signal.getsignal(SIGNAL) is handler
    os.kill(os.getpid(), SIGNAL)
    await settle()
    listeners[1].close()

    assert heard == [1, 2, 2]
    assert server.got == [SIGNAL] * 2
    assert signal.getsignal(SIGNAL) is server


async def test_whoever_has_come_after_us_stays(server: Server) -> None:
    listener = Listener(lambda: None)
    listener.listen(SIGNAL)
    ours = signal.getsignal(SIGNAL)
    later = Server()
    signal.signal(SIGNAL, later)

    listener.close()
    assert signal.getsignal(SIGNAL) is later
    assert callable(ours)
    ours(SIGNAL, None)  # as the later one would, that goes on to us

    assert server.got == [SIGNAL]


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
async def test_a_signal_that_nobody_handles_keeps_its_default(handler: signal.Handlers) -> None:
    before = signal.signal(SIGNAL, handler)
    try:
        listener = Listener(lambda: None)
        assert not listener.listen(SIGNAL)
        assert signal.getsignal(SIGNAL) is handler
        listener.close()
        assert signal.getsignal(SIGNAL) is handler
    finally:
        signal.signal(SIGNAL, before)


async def test_in_another_thread_nothing_is_touched(server: Server) -> None:
    async def elsewhere() -> bool:
        listener = Listener(lambda: None)
        heard = listener.listen(SIGNAL)
        listener.close()
        return heard

    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(elsewhere())))
    thread.start()
    await asyncio.to_thread(thread.join)

    assert results == [False]
    assert signal.getsignal(SIGNAL) is server


def test_a_loop_that_is_closed_keeps_the_signal_from_nobody(server: Server) -> None:
    async def listen() -> Listener:
        listener = Listener(lambda: None)
        assert listener.listen(SIGNAL)
        return listener

    listener = asyncio.run(listen())
    os.kill(os.getpid(), SIGNAL)

    assert server.got == [SIGNAL]
    listener.close()
    assert signal.getsignal(SIGNAL) is server
