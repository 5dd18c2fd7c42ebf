"""Pacing: on time, whole, and every byte as the app sent it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamware.limiting.pacing import GRAIN, MAX_DELAY, Pace, PacedResponse, Paces
from streamware.testing import FakeClock, settle
from streamware.types import Message

SSE = b"text/event-stream"


class Paced:
    """A response whose ``send`` is paced; what leaves is kept with the time at which it left."""

    def __init__(
        self, kind: bytes = SSE, *, events: float | None = None, octets: float | None = None, coding: bytes = b""
    ) -> None:
        self.clock = FakeClock(0.0)
        self.left: list[tuple[float, bytes]] = []
        self.messages: list[Message] = []
        self.response = PacedResponse(Pace(events, octets, self.clock), self._take)
        self.headers = [(b"content-type", kind), *([(b"content-encoding", coding)] if coding else [])]

    async def _take(self, message: Message) -> None:
        self.messages.append(message)
        if message["type"] == "http.response.body":
            self.left.append((round(self.clock.now(), 3), message["body"]))

    async def run(self, *bodies: bytes) -> list[tuple[float, bytes]]:
        async def app() -> None:
            await self.response.send({"type": "http.response.start", "status": 200, "headers": self.headers})
            for body in bodies:
                await self.response.send({"type": "http.response.body", "body": body, "more_body": True})
            await self.response.send({"type": "http.response.body", "body": b"", "more_body": False})

        task = asyncio.ensure_future(app())
        while not task.done():
            await self.clock.advance(1000.0)  # every timer at its own time, also those that are set on the way
        await task
        return self.left[:-1] if self.left[-1][1] == b"" else self.left


def event(n: int) -> bytes:
    return b"data: %d\n\n" % n


async def test_events_leave_one_by_one_at_their_rate():
    paced = Paced(events=10)
    left = await paced.run(*map(event, range(5)))

    assert [body for _, body in left] == [event(n) for n in range(5)]
    assert [at for at, _ in left] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=2 * GRAIN)


async def test_a_message_of_several_events_is_parted_between_them():
    left = await Paced(events=10).run(event(1) + event(2) + b"data: 3\r\n\r\n" + event(4)[:4], event(4)[4:])

    assert [body for _, body in left] == [event(1), event(2), b"data: 3\r\n\r\n", event(4)[:4], event(4)[4:]]
    assert [at for at, _ in left] == pytest.approx([0, 0.1, 0.2, 0.3, 0.3], abs=2 * GRAIN)


async def test_what_is_due_together_leaves_together():
    left = await Paced(events=10_000).run(b"".join(map(event, range(100))))

    assert b"".join(body for _, body in left) == b"".join(map(event, range(100)))
    assert len(left) <= 10


async def test_comments_and_heartbeats_are_free():
    left = await Paced(events=1).run(event(1), b":\n", b": ping\n\n", b": a\n: b\n\n", b"\n")
    assert [at for at, _ in left] == [0.0] * 5


async def test_a_comment_ahead_of_an_event_makes_that_no_cheaper():
    left = await Paced(events=10).run(b":\ndata: 1\n\n", b":\ndata: 2\n\n")
    assert [at for at, _ in left] == pytest.approx([0, 0.1], abs=2 * GRAIN)


async def test_bytes_of_events_are_paced_and_no_event_is_split():
    big = b"data: " + b"x" * 992 + b"\n\n"
    left = await Paced(octets=10_000).run(big + big + big)

    assert [body for _, body in left] == [big, big, big]
    assert [at for at, _ in left] == pytest.approx([0, 0.1, 0.2], abs=2 * GRAIN)


async def test_a_plain_body_is_paced_in_slices_and_by_bytes_only():
    body = bytes(range(256)) * 40
    left = await Paced(b"text/plain", octets=20_480).run(body)

    assert b"".join(part for _, part in left) == body
    assert len(left) == 10
    assert left[-1][0] == pytest.approx(0.45, abs=0.02)
    assert await Paced(b"text/plain", events=1).run(b"a", b"b") == [(0, b"a"), (0, b"b")]


async def test_lines_are_the_events_of_ndjson():
    left = await Paced(b"application/x-ndjson; charset=utf-8", events=10).run(b'{"a":1}\n{"a":2}\n')
    assert [body for _, body in left] == [b'{"a":1}\n', b'{"a":2}\n']


async def test_what_is_encoded_is_never_split_and_each_message_counts():
    left = await Paced(coding=b"gzip", events=10).run(event(1) + event(2), b"\x1f\x8b")
    assert [body for _, body in left] == [event(1) + event(2), b"\x1f\x8b"]
    assert left[1][0] == pytest.approx(0.1, abs=2 * GRAIN)


async def test_nothing_waits_longer_than_proxies_do():
    left = await Paced(octets=10).run(b"data: " + b"x" * 1000 + b"\n\n", event(2))
    assert left[1][0] <= MAX_DELAY + 1


async def test_what_it_does_not_know_passes():
    paced = Paced(events=1, octets=1)
    message: Message = {"type": "http.response.pathsend", "path": "/x"}
    await paced.response.send(message)
    assert paced.messages[0] is message


async def test_a_message_that_needs_no_parting_is_the_apps_own():
    paced = Paced(events=1)
    await paced.response.send({"type": "http.response.start", "status": 200, "headers": paced.headers})
    message: Message = {"type": "http.response.body", "body": event(1), "more_body": True, "x": 1}
    await paced.response.send(message)
    assert paced.messages[1] is message


blocks = st.lists(
    st.sampled_from(
        [b"data: a\n\n", b"data: b\r\n\r\n", b"data: c\r\r", b": c\n\n", b":\n", b"id: 1\ndata: d\ndata: e\n\n"]
    )
)


@settings(deadline=None)
@given(blocks, st.lists(st.integers(1, 20)), st.sampled_from([(5.0, None), (None, 50.0), (7.0, 40.0)]))
def test_every_byte_leaves_once_in_order_and_the_end_is_told_once(
    parts: list[bytes], cuts: Sequence[int], rates: tuple[float | None, float | None]
):
    whole = b"".join(parts)
    bodies: list[bytes] = []
    rest = whole
    for size in cuts:
        bodies.append(rest[:size])
        rest = rest[size:]
    bodies.append(rest)

    async def run() -> Paced:
        paced = Paced(events=rates[0], octets=rates[1])
        task = asyncio.ensure_future(paced.run(*bodies))
        await task
        return paced

    paced = asyncio.run(run())

    sent = [message for message in paced.messages if message["type"] == "http.response.body"]
    assert b"".join(message["body"] for message in sent) == whole
    assert [message["more_body"] for message in sent] == [True] * (len(sent) - 1) + [False]


@settings(deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=12), st.sampled_from([2.0, 10.0]))
def test_no_more_events_leave_than_the_rate_allows(counts: list[int], rate: float):
    bodies = [b"".join(event(n) for n in range(count)) for count in counts]
    left = asyncio.run(Paced(events=rate).run(*bodies))

    sent = 0
    for at, body in left:
        sent += body.count(b"\n\n")
        assert sent <= (at + 2 * GRAIN) * rate + 1


async def test_those_that_share_a_pace_take_turns_and_keep_it_together():
    clock = FakeClock(0.0)
    paces = Paces(10, None, clock, together=True)
    left: list[tuple[float, str]] = []

    async def app(name: str) -> None:
        async def take(message: Message) -> None:
            if message.get("body"):
                left.append((round(clock.now(), 2), name))

        response = PacedResponse(paces.of("a"), take)
        await response.send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", SSE)]})
        for n in range(4):
            await response.send({"type": "http.response.body", "body": event(n), "more_body": True})

    tasks = [asyncio.ensure_future(app(name)) for name in "xyz"]
    await settle()
    while not all(task.done() for task in tasks):
        await clock.advance(0.05)
    assert [at for at, _ in left] == pytest.approx([n / 10 for n in range(12)], abs=0.051)
    for at in (1, 4, 7):  # the first had two under way before the others began
        assert {name for _, name in left[at : at + 3]} == {"x", "y", "z"}


async def test_paces_are_shared_by_key_and_only_as_long_as_there_are_connections():
    paces = Paces(1, None, FakeClock(), together=True)
    held = [paces.of(f"{n % 10}") for n in range(100)]
    assert len(paces) == 10
    assert held[3] is held[13]
    assert paces.of(None) is not paces.of(None)
    del held
    assert len(paces) == 0
    apart = Paces(1, None, FakeClock(), together=False)
    assert apart.of("a") is not apart.of("a")


async def test_with_any_number_of_them_nothing_waits_longer_than_proxies_do():
    clock = FakeClock(0.0)
    pace = Paces(0.1, None, clock, together=True).of("a")
    left: list[float] = []

    async def pay() -> None:
        await pace.pay(1, 0)
        left.append(clock.now())

    tasks = [asyncio.ensure_future(pay()) for _ in range(20)]
    await settle()
    await clock.advance(MAX_DELAY)
    assert len(left) == 20
    assert clock.timers == 0
    await asyncio.gather(*tasks)
