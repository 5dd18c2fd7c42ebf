"""Draining at awkward moments: before a response has begun, in the middle of an event, with bounds that are full, with
clients that leave; and what it must never do."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware as StarletteMiddleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from streamware import MemoryStore, StoreFull
from streamware.stores.base import Head, ProducerLog
from streamware.streams.drain import Phase
from streamware.testing import FakeClock, settle
from streamware.types import ASGIApp
from tests.middleware.drain_site import DEADLINE, GRACE, KINDS, WAYS, Place, SharedStore
from tests.middleware.resume_site import EVENTSOURCE, HOLD, READER, body


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    kept: str = request.param
    return kept


# -- before the response is known to be a stream


@pytest.mark.parametrize("kind", ["eventsource", "script"])
async def test_a_stream_that_begins_after_grace_goes_elsewhere_at_once(way: str, kind: str) -> None:
    clock = FakeClock()
    store = SharedStore(clock=clock)
    async with Place(way=way, clock=clock, store=store) as old, Place(way=way, clock=clock, store=store) as new:
        connection = old.connect(headers=KINDS[kind])
        run = await old.run()
        old.drain.drain()
        await clock.advance(GRACE)
        await run.start()
        await clock.advance(HOLD)
        await connection.finished()
        assert connection.data == []
        assert connection.complete is (kind == "eventsource")

        await run.say("a")
        again = new.connect(headers=KINDS[kind], cursor=connection.at(0))
        await again.event()
        await run.end()
        await again.finished()
        assert again.data == ["a"]
        assert not new.stage.runs


@pytest.mark.parametrize("started", [False, True], ids=["no start", "held back"])
async def test_a_request_that_is_undecided_at_the_deadline_is_sent_elsewhere(way: str, started: bool) -> None:
    async with Place(way=way, heeds=True) as place:
        connections = [place.connect(headers=EVENTSOURCE), place.connect(headers=READER)]
        runs = [await place.run(1), await place.run(2)]
        place.drain.drain()
        await place.clock.advance(DEADLINE - HOLD / 2)
        if started:
            for run in runs:
                await run.start()
        await place.clock.advance(HOLD / 2)
        for connection in connections:
            await connection.finished()

        assert [connection.status for connection in connections] == [200, 503]
        assert connections[0].body.startswith(b"retry: ")
        assert all(run.cancelled for run in runs)


async def test_a_log_that_is_made_just_at_the_deadline_is_taken_back(way: str) -> None:
    clock = FakeClock()
    making, go_on = asyncio.Event(), asyncio.Event()

    class Slow(MemoryStore):
        async def create(self, stream: str, head: Head, *, window: int) -> ProducerLog:
            log = await super().create(stream, head, window=window)
            making.set()
            await go_on.wait()
            return log

    store = Slow(clock=clock)
    async with Place(way=way, heeds=True, clock=clock, store=store) as place:
        connection = place.connect(headers=READER)
        run = await place.run()
        await run.start()
        place.drain.drain()
        await clock.advance(HOLD)
        await making.wait()
        await clock.advance(DEADLINE)
        go_on.set()
        await connection.finished()

        assert connection.status == 503
        assert run.cancelled
        await settle()
        assert len(store) == 0


async def test_an_app_that_will_not_be_cancelled_does_not_hold_the_refusal_up(way: str) -> None:
    async def stubborn(scope: object, receive: object, send: object) -> None:
        for _ in range(3):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)
            else:
                return

    async with Place(stubborn, way=way) as place:
        connection = place.connect(headers=READER)
        await settle()
        place.drain.drain()
        await place.clock.advance(DEADLINE)
        for task in [producer.task for producer in place.resume._worker.producers]:
            assert task is not None
            task.cancel()
            await settle()
            task.cancel()
        await connection.finished()
        assert connection.status == 503


# -- large events


@pytest.mark.parametrize("kind", ["eventsource", "script"])
async def test_an_event_too_large_for_the_log_is_not_torn(way: str, kind: str) -> None:
    async with Place(way=way, resume={"max_event_bytes": 100}) as place:
        connection, run = await place.streaming(kind, "a")
        await run.put(body(b"data: " + b"x" * 200))
        await connection.receive_body(lambda data: data.endswith(b"xxx"))
        place.drain.drain()
        await place.clock.advance(GRACE)
        assert not connection.returned
        await run.put(body(b"y" * 200))
        assert not connection.returned
        await run.put(body(b"\n\n"))
        await connection.finished()

        assert connection.data[-1] == "x" * 200 + "y" * 200
        assert connection.complete is (kind == "eventsource")
        await run.end()


@pytest.mark.parametrize("kind", ["eventsource", "script"])
async def test_a_large_event_that_never_ends_is_cut_at_the_deadline(way: str, kind: str) -> None:
    async with Place(way=way, resume={"max_event_bytes": 100}) as place:
        connection, run = await place.streaming(kind, "a")
        await run.put(body(b"data: " + b"x" * 200))
        await connection.receive_body(lambda data: data.endswith(b"xxx"))
        place.drain.drain()
        await place.clock.advance(DEADLINE)
        await connection.finished()

        assert connection.data == ["a"]
        assert b"retry: " not in connection.body.partition(b"xxx")[2]


# -- readers, bounds, lingering


async def test_all_readers_of_a_stream_go(way: str) -> None:
    async with Place(way=way) as place:
        first, run = await place.started("a", headers=EVENTSOURCE)
        second = place.connect(headers=READER, cursor=first.at(0))
        third = place.connect(headers=EVENTSOURCE, cursor=first.at(1))
        await second.event()
        await third.start()
        place.drain.drain()
        await place.clock.advance(GRACE)
        for connection in (first, second, third):
            await connection.finished()

        assert [connection.complete for connection in (first, second, third)] == [True, False, True]
        assert not run.over.is_set()
        await run.end()


async def test_an_app_goes_on_without_readers_whatever_linger_says(way: str) -> None:
    async with Place(way=way, heeds=True, resume={"linger": 0}) as place:
        connection, run = await place.started("a", headers=EVENTSOURCE)
        place.drain.drain()
        await place.clock.advance(GRACE)
        await connection.finished()
        await place.clock.advance(DEADLINE - GRACE - 0.5)
        assert not run.over.is_set()
        assert not run.disconnected.is_set()
        await place.clock.advance(1)
        assert run.cancelled


async def test_readers_that_were_sent_away_count_against_no_bound(way: str) -> None:
    async with Place(way=way, resume={"max_detached": 2, "max_detached_per_owner": 1}) as place:
        streams = [await place.started("a", headers=EVENTSOURCE) for _ in range(5)]
        place.drain.drain()
        await place.clock.advance(GRACE)
        for connection, run in streams:
            await connection.finished()
            assert not run.disconnected.is_set()
        assert place.counted("resume.abandoned", "max_detached") == 0
        for _, run in streams:
            await run.end()


async def test_a_client_in_the_middle_of_its_upload_is_not_sent_away(way: str) -> None:
    async with Place(way=way) as place:
        connection = place.connect(headers={**READER, "content-length": "10"}, method="POST", body=None)
        run = await place.run()
        connection.send_body(b"12345", more=True)
        await run.stream("a")
        await connection.events(1)
        place.drain.drain()
        await place.clock.advance(GRACE)
        assert not connection.returned
        connection.send_body(b"67890")
        await run.say("b")
        await run.end()
        await connection.finished()

        assert connection.data == ["a", "b"]
        assert run.got == b"1234567890"


async def test_what_is_pending_goes_out_once(way: str) -> None:
    """A reader whose client has stalled: what it was being sent is not lost, and not sent again."""
    clock = FakeClock()
    store = SharedStore(clock=clock)
    async with Place(way=way, clock=clock, store=store) as old, Place(way=way, clock=clock, store=store) as new:
        connection, run = await old.started("a", headers=EVENTSOURCE)
        connection.stall()
        await run.say("b", "c")
        old.drain.drain()
        await clock.advance(GRACE)
        assert not connection.returned
        connection.unstall()
        await connection.finished()
        got = connection.data
        again = new.connect(headers=EVENTSOURCE, cursor=connection.at(len(got)))
        await run.end()
        await again.finished()
        assert got + again.data == ["a", "b", "c"]


async def test_a_stream_that_the_store_has_no_room_for_stays_until_the_deadline(way: str) -> None:
    clock = FakeClock()

    class Full(SharedStore):
        async def create(self, stream: str, head: Head, *, window: int) -> ProducerLog:
            raise StoreFull("full")

    async with Place(way=way, clock=clock, store=Full(clock=clock)) as place:
        connection, run = await place.started("a", headers=READER)
        place.drain.drain()
        await clock.advance(GRACE)
        await run.say("b")
        assert not connection.returned
        await clock.advance(DEADLINE - GRACE)
        await run.disconnected.wait()
        await run.put(None)
        await connection.finished()
        assert connection.complete
        assert b"event: error\n" in connection.body


async def test_a_stream_that_began_for_us_and_then_had_ids_of_its_own_is_ended_as_one_without_a_log(way: str) -> None:
    async with Place(way=way) as place:
        connection = place.connect(headers=READER)
        run = await place.run()
        await run.start()
        await place.clock.advance(HOLD)
        await run.put(body(b"id: mine\ndata: a\n\n"))
        await connection.events(1)
        place.drain.drain()
        await place.clock.advance(DEADLINE)
        await asyncio.wait_for(run.disconnected.wait(), 5)
        await run.put(None)
        await connection.finished()
        assert connection.complete
        assert b"event: error\n" in connection.body


# -- clients and servers that do things meanwhile


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0.0, GRACE, DEADLINE])
async def test_a_client_that_leaves_in_the_same_moment_gets_nothing_more(way: str, kind: str, at: float) -> None:
    async with Place(way=way) as place:
        connection, run = await place.streaming(kind, "a")
        place.drain.drain()
        if at:
            await place.clock.advance(at - 0.001)
        if not connection.returned:
            connection.drop()
        await place.clock.advance(0.001)
        if kind == "unlogged":
            await run.put(None)
        await connection.finished()
        if not run.over.is_set():
            await run.put(None)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_cancels_meanwhile_finds_nothing_left(way: str, kind: str) -> None:
    async with Place(way=way) as place:
        connection, run = await place.streaming(kind, "a")
        place.drain.drain()
        await place.clock.advance(GRACE / 2)
        connection.cancel()
        await connection.finished()
        assert connection.was_cancelled
        if not run.over.is_set():
            await run.put(None)


async def test_a_second_drain_changes_nothing(way: str) -> None:
    async with Place(way=way) as place:
        connection, run = await place.started("a", headers=EVENTSOURCE)
        place.drain.drain()
        await place.clock.advance(GRACE / 2)
        place.drain.drain()
        place.drain.leave()
        await place.clock.advance(GRACE / 2)
        await connection.finished()
        assert connection.complete
        assert place.counted("drain.phase", "draining") == 1
        assert place.counted("drain.phase", "leaving") == 0
        await run.end()


async def test_paths_that_are_not_selected_are_left_alone(way: str) -> None:
    async with Place(way=way, paths=["/chat"]) as place:
        other, run = await place.started("a", headers=EVENTSOURCE, path="/other")
        unlogged, second = await place.started("a", headers=KINDS["unlogged"], path="/other")
        place.drain.drain()
        await place.clock.advance(DEADLINE + 1)
        new = place.connect("/other", headers=KINDS["unlogged"])
        third = await place.run(3)
        await third.stream("x")
        await third.end()
        await new.finished()
        assert new.header("connection") is None
        await run.say("b")
        await run.end()
        await second.end()
        await other.finished()
        await unlogged.finished()
        assert other.data == ["a", "b"]
        assert unlogged.complete


async def test_a_worker_that_is_started_anew_serves(way: str) -> None:
    async with Place(way=way) as place:
        place.drain.drain()
        await place.clock.advance(DEADLINE)
        assert place.phase is Phase.OVER
        for hook in place.hooks:
            await hook.aclose()
        for hook in place.hooks:
            await hook.startup()
        assert place.phase is Phase.SERVING
        connection, run = await place.started("a", headers=READER)
        await place.clock.advance(DEADLINE)
        await run.say("b")
        await run.end()
        await connection.finished()
        assert connection.data == ["a", "b"]
        assert connection.header("connection") is None


# -- when it is over


@pytest.mark.parametrize("kind", ["eventsource", "script"])
async def test_when_it_is_over_what_was_kept_can_still_be_read_but_nothing_begins(way: str, kind: str) -> None:
    clock = FakeClock()
    always = {"always": ["/chat"]}
    async with Place(way=way, clock=clock, store=MemoryStore(clock=clock), resume=always) as place:
        connection, _ = await place.streaming(kind, "a", "b")
        place.drain.drain()
        await clock.advance(DEADLINE)
        await connection.finished()

        again = place.connect(headers=KINDS[kind], cursor=connection.at(1))
        await again.finished()
        assert again.data == ["b"]
        assert again.controls == (["interrupted"] if kind == "eventsource" else [])

        late = place.connect(headers={"accept": "application/json"})
        await late.finished()
        assert late.status == 503
        assert len(place.stage.runs) == 1


# -- frameworks


def starlette_app(*, pure: bool) -> ASGIApp:
    """A stream of Starlette's that never ends, behind a middleware of its own that pumps messages, unless ``pure``."""

    async def events() -> AsyncIterator[str]:
        for number in itertools.count():
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.001)

    async def stream(request: Request) -> Response:
        return StreamingResponse(events(), media_type="text/event-stream")

    async def pump(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    middleware = [] if pure else [StarletteMiddleware(BaseHTTPMiddleware, dispatch=pump)]
    return Starlette(routes=[Route("/chat", stream)], middleware=middleware)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
@pytest.mark.parametrize("pure", [True, False], ids=["alone", "pumped"])
async def test_starlettes_streams_end_without_an_error(way: str, kind: str, spec_version: str, pure: bool) -> None:
    clock = FakeClock()
    app = starlette_app(pure=pure)
    async with Place(app, way=way, clock=clock, store=MemoryStore(clock=clock)) as place:
        connection = place.connect(headers=KINDS[kind], spec_version=spec_version)
        await connection.events(3)
        place.drain.drain()
        await clock.advance(DEADLINE)
        await connection.finished()
        if kind == "unlogged":
            assert b"event: error\n" in connection.body
