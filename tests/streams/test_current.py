"""What an app may ask of its own stream."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from streamware.streams.current import CurrentStream, Usage, current_stream, set_current_stream


class Producing:
    """As a producer: a cursor that moves, and a count of the stops."""

    def __init__(self, *cursors: str) -> None:
        self.cursors = iter(cursors)
        self.stops = 0

    @property
    def cursor(self) -> str:
        return next(self.cursors)

    def stop(self) -> None:
        self.stops += 1


def test_outside_a_stream_there_is_none() -> None:
    assert contextvars.Context().run(current_stream) is None


async def test_it_follows_the_context_of_its_app_and_no_other() -> None:
    stream = CurrentStream(Producing(), 30.0)

    async def app() -> CurrentStream | None:
        set_current_stream(stream)
        return await asyncio.create_task(_asks())

    assert await asyncio.create_task(app()) is stream
    assert await asyncio.create_task(_asks()) is None


async def _asks() -> CurrentStream | None:
    return current_stream()


def test_the_cursor_is_asked_for_anew_and_stop_is_passed_on() -> None:
    producing = Producing("", "s.1", "s.2")
    stream = CurrentStream(producing, None)
    assert [stream.cursor for _ in range(3)] == ["", "s.1", "s.2"]
    stream.stop()
    assert producing.stops == 1
    assert stream.linger is None
    stream.linger = 5.0
    assert stream.linger == 5.0


def test_usage_grows_and_never_shrinks() -> None:
    usage = Usage()
    usage.add(3)
    usage.add(0)
    usage.add(4)
    assert usage.total == 7
    with pytest.raises(ValueError, match="usage only grows, got -1"):
        usage.add(-1)
    assert usage.total == 7


def test_a_misspelt_attribute_is_an_error() -> None:
    stream = CurrentStream(Producing(), None)
    with pytest.raises(AttributeError):
        stream.lingers = 3  # type: ignore[attr-defined]  # the point of the test
