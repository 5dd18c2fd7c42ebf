"""How streams end, and how their readers can tell: only a final body is an end that looks complete."""

from __future__ import annotations

import asyncio
import logging

import msgspec
import pytest

from streamware import Middleware, ResumeMiddleware, Stack
from streamware.testing import settle
from streamware.wire.eventsource import Interpreter
from tests.middleware.resume_site import EVENTSOURCE, HOLD, READER, Site, SiteConnection, body, until

#: Servers where returning without a final body cuts the connection, and those where it would hang.
CUTS = [
    {"server": "uvicorn"},
    {"server": "hypercorn"},
    {"server": "granian"},
    {"server": "granian", "http_version": "2"},
]
CANNOT = [
    {"server": "daphne"},
    {"server": "hypercorn", "http_version": "2"},
    {"server": "uvicorn", "http_version": "1.0"},
    {"server": "granian", "http_version": "1"},
]


def named(options: list[dict[str, str]]) -> list[object]:
    return [pytest.param(one, id=" ".join(one.values())) for one in options]


async def outcome(site: Site, first: SiteConnection) -> str | None:
    """What a poll says of it."""
    polled = site.connect(first.own_url, headers={"accept": "application/json"})
    await polled.finished()
    found: str | None = msgspec.json.decode(polled.body)["outcome"]
    return found


async def fail(site: Site, how: str) -> None:
    """The app of the first run ends without its final body."""
    run = site.stage.runs[0]
    if how == "raises":
        run.begin(RuntimeError("boom"))
    else:
        run.begin(None)
    await until(run.over.is_set)
    await settle()


HOW = pytest.mark.parametrize("how", ["raises", "returns"])


# -- counted


@pytest.mark.parametrize(
    ("way", "reason"),
    [("ends", "done"), ("whole", "done"), ("raises", "failed"), ("returns", "failed"), ("stopped", "stopped"),
     ("left", "interrupted"), ("shut down", "interrupted"), ("hung", "stall_timeout")],
)  # fmt: skip
async def test_each_stream_is_counted_once_by_how_it_ended(way: str, reason: str) -> None:
    async with Site(heeds=way == "stopped", linger=1.0, stall_timeout=60.0) as site:
        first = site.connect()
        run = await site.run()
        await run.start()
        await run.put(body(b"data: 1\n\n", way != "whole"))
        await first.event()
        if way == "ends":
            await run.end()
        elif way == "whole":
            await run.put(None)
        elif way in ("raises", "returns"):
            await fail(site, way)
        elif way == "stopped":
            await site.store.stop(first.stream)
        elif way == "left":
            first.drop()
            await settle()
            await site.clock.advance(1.5)
            run.begin(None)
        elif way == "shut down":
            await site.resume.shutdown()
        else:
            await site.clock.advance(61)
            await site.clock.advance(61)
        await until(run.over.is_set)
        await until(lambda: not site.resume._worker.producers)
        assert site.counted("resume.started") == 1
        assert {key: n for key, n in site.observer.counts.items() if key[0] == "resume.ended"} == {
            ("resume.ended", reason): 1
        }


async def test_a_stream_that_is_taken_back_for_its_own_ids_has_not_ended() -> None:
    async with Site() as site:
        first = site.connect()
        run = await site.run()
        await run.start()
        await site.clock.advance(HOLD)
        await run.put(body(b"id: mine\ndata: 1\n\n"), body(b"", False), None)
        await first.finished()
        assert site.observer.total("resume.ended") == 0


# -- done


async def test_a_final_body_is_done() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        await run.put(body(b"data: 2\n\n", False))
        await first.finished()
        assert first.complete
        assert first.data == ["1", "2"]
        assert await outcome(site, first) == "done"
        await run.put(None)


async def test_a_whole_stream_in_one_message_is_logged_and_done() -> None:
    async with Site() as site:
        first = site.eventsource()
        run = await site.run()
        await run.start()
        await run.put(body(b"data: 1\n\ndata: 2\n\n", False), None)
        await first.finished()
        assert first.data == ["1", "2"]
        caught_up = site.eventsource(cursor=first.at(2))
        await caught_up.finished()
        assert caught_up.status == 204


# -- failed


@HOW
@pytest.mark.parametrize("options", named(CUTS))
async def test_an_app_that_ends_without_a_final_body_is_a_visible_cut(how: str, options: dict[str, str]) -> None:
    """sse-starlette returns like that on SIGTERM: the answer must not look whole."""
    async with Site() as site:
        first, _ = await site.started("1", **options)
        await fail(site, how)
        await first.finished()
        assert first.data == ["1"]
        assert not first.complete
        assert await outcome(site, first) == "failed"


@HOW
@pytest.mark.parametrize("options", named(CANNOT))
async def test_where_the_server_cannot_cut_it_is_an_error_event_and_the_end(how: str, options: dict[str, str]) -> None:
    async with Site() as site:
        first, _ = await site.started("1", **options)
        await fail(site, how)
        await first.finished()
        assert first.complete
        assert first.data[0] == "1"
        assert first.pending_events[-1].event == "error"
        assert "failed" in first.pending_events[-1].data
        assert first.pending_events[-1].id == first.at(1), "it moves no cursor"


@HOW
@pytest.mark.parametrize("options", named(CUTS + CANNOT))
async def test_an_eventsource_is_told_in_band_and_its_return_is_204(how: str, options: dict[str, str]) -> None:
    async with Site() as site:
        first, _ = await site.started("1", headers=EVENTSOURCE, **options)
        await fail(site, how)
        await first.finished()
        assert first.complete
        assert first.controls == ["failed"]
        again = site.eventsource(cursor=first.at(1), **options)
        await again.finished()
        assert again.status == 204
        assert site.runs == 1


async def test_an_exception_of_the_app_after_the_start_is_logged_and_never_reaches_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR, "streamware.resume"):
        async with Site() as site:
            first, _ = await site.started("1")
            await fail(site, "raises")
            await first.finished()
            assert first.exception is None
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["boom"]


async def test_an_exception_before_the_start_reaches_the_server_as_it_would_bare() -> None:
    async with Site() as site:
        connection = site.connect()
        run = await site.run()
        run.begin(RuntimeError("boom"))
        with pytest.raises(RuntimeError, match="boom"):
            await connection.finished()
        assert not connection.started


async def test_an_app_that_returns_before_its_first_event_passes_through_as_it_would_bare() -> None:
    async with Site() as site:
        connection = site.connect()
        run = await site.run()
        await run.start()
        await run.put(None)
        await connection.finished()
        assert connection.started
        assert not connection.complete
        assert len(site.store) == 0


async def test_an_app_that_was_told_of_the_disconnect_may_raise_it_in_peace(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "streamware.resume"):
        async with Site(linger=1) as site:
            first, run = await site.started("1")
            first.drop()
            await site.clock.advance(2)
            run.begin(body(b"data: 2\n\n"))
            await until(run.over.is_set)
            await settle()
    assert caplog.records == []


@pytest.mark.parametrize("end", ["final", "returns", "raises"])
async def test_a_reader_that_comes_after_a_detached_app_has_ended_gets_all_of_it_and_the_right_end(end: str) -> None:
    async with Site() as site:
        first, run = await site.started("1")
        first.drop()
        await run.say("2", "3")
        if end == "final":
            await run.end()
        else:
            await fail(site, end)
        again = site.connect(cursor=first.at(1))
        await again.finished()
        assert again.data == ["2", "3"]
        assert again.complete is (end == "final")


# -- stall_timeout and max_duration


async def test_a_hung_app_is_ended_as_failed() -> None:
    async with Site(stall_timeout=60) as site:
        first, run = await site.started("1")
        await site.clock.advance(55)
        assert not run.over.is_set()
        await run.say("2")
        await site.clock.advance(40)
        assert not run.over.is_set()
        await site.clock.advance(40)
        assert run.cancelled
        await first.finished()
        assert not first.complete
        assert await outcome(site, first) == "failed"
        assert site.counted("resume.ended", "stall_timeout") == 1


async def test_an_app_that_waits_for_its_reader_is_not_hung() -> None:
    async with Site(stall_timeout=60, window=1000) as site:
        first, run = await site.started("1")
        first.stall()
        sent = [run.begin(body(b"data: %b\n\n" % (b"x" * 100))) for _ in range(50)]
        await site.clock.advance(600)
        assert not run.over.is_set()
        first.unstall()
        await first.events(50)
        assert all(order.done() for order in sent)


async def test_pings_are_no_progress() -> None:
    async with Site(stall_timeout=60) as site:
        first, run = await site.started("1")
        for _ in range(10):
            await site.clock.advance(10)
            if not run.over.is_set():
                run.begin(body(b": ping\n\n"))
        assert run.cancelled
        await first.finished()


async def test_a_stream_over_its_duration_is_ended_as_failed() -> None:
    async with Site(max_duration=100) as site:
        first, run = await site.started("1", headers=EVENTSOURCE)
        for _ in range(9):
            await site.clock.advance(10)
            await run.say("x")
        assert not run.over.is_set()
        await site.clock.advance(11)
        assert run.cancelled
        await first.finished()
        assert first.controls == ["failed"]
        assert site.counted("resume.ended", "max_duration") == 1


async def test_the_duration_of_an_early_start_counts_too() -> None:
    async with Site(max_duration=100, early_start=5) as site:
        first = site.eventsource()
        run = await site.run()
        await site.clock.advance(5)
        await first.start()
        await site.clock.advance(101)
        assert run.cancelled
        await first.finished()


async def test_a_stall_after_an_early_start_counts_too() -> None:
    async with Site(stall_timeout=60, early_start=5) as site:
        first = site.connect()
        run = await site.run()
        await site.clock.advance(5)
        await first.start()
        await site.clock.advance(80)
        assert run.cancelled
        await first.finished()
        assert not first.complete


# -- large events


LARGE = b"data: " + b"y" * 5000 + b"\n\n"


async def in_parts(site: Site, size: int = 512, parts: int | None = None) -> None:
    run = site.stage.runs[0]
    cut = [LARGE[i : i + size] for i in range(0, len(LARGE), size)]
    for part in cut[:parts]:
        await run.put(body(part))


async def test_an_event_too_large_to_keep_reaches_who_is_there_whole() -> None:
    async with Site(max_event_bytes=1000) as site:
        first, run = await site.started("1")
        await in_parts(site)
        await run.say("3")
        events = await first.events(2)
        assert [event.data for event in events] == ["y" * 5000, "3"]
        assert [event.id for event in events] == [first.at(2), first.at(3)]


async def test_a_resume_across_a_large_event_is_told_of_the_gap() -> None:
    async with Site(max_event_bytes=1000) as site:
        first, run = await site.started("1", headers=EVENTSOURCE)
        await in_parts(site)
        await run.say("3")
        await first.events(2)
        first.drop()
        like = site.eventsource(cursor=first.at(1))
        assert [(await like.event()).event, (await like.event()).data] == ["streamware.reset", "3"]
        other = site.connect(cursor=first.at(1))
        await other.finished()
        assert other.data == []
        assert not other.complete or other.status == 410
        behind = site.connect(cursor=first.at(2))
        assert (await behind.event()).data == "3"


async def test_a_poll_across_a_large_event_is_410_with_the_place_behind_it() -> None:
    async with Site(max_event_bytes=1000) as site:
        first, run = await site.started("1")
        await in_parts(site)
        await run.say("3")
        await first.events(2)
        polled = site.connect(f"{first.own_url}&after=1", headers={"accept": "application/json"})
        await polled.finished()
        assert polled.status == 410
        earliest = msgspec.json.decode(polled.body)["earliest"]
        rest = site.connect(f"{first.own_url}&after={earliest}", headers={"accept": "application/json"})
        await rest.finished()
        assert rest.status == 200
        assert [event["data"] for event in msgspec.json.decode(rest.body)["events"]] == ["3"]


@pytest.mark.parametrize("headers", [READER, EVENTSOURCE])
async def test_a_large_event_in_the_same_message_as_the_first_reaches_who_is_there(headers: dict[str, str]) -> None:
    async with Site(max_event_bytes=1000) as site:
        first = site.connect(headers=headers)
        run = await site.run()
        await run.start()
        await run.put(body(b"data: 1\n\n" + LARGE + b"data: 3\n\n", False), None)
        await first.finished()
        assert first.data == ["1", "y" * 5000, "3"]
        assert first.controls == []


async def test_an_eventsource_whose_stream_ends_in_a_large_event_is_told_and_then_told_to_stop() -> None:
    async with Site(max_event_bytes=1000) as site:
        first, run = await site.started("1", headers=EVENTSOURCE)
        first.drop()
        await first.finished()
        await run.put(body(LARGE, False), None)
        browser = Interpreter(first.at(1))
        seen = []
        for _ in range(4):
            again = site.eventsource(cursor=browser.last_event_id)
            await again.finished()
            if again.status == 204:
                break
            browser.reconnect()
            seen += [event.event for event in browser.feed(again.body)]
        assert seen == ["streamware.reset"]
        assert again.status == 204
        other = site.connect(cursor=first.at(1))
        await other.finished()
        assert other.status == 410
        caught_up = site.connect(cursor=first.at(2))
        await caught_up.finished()
        assert caught_up.status == 204


async def test_a_client_dropped_in_the_middle_of_a_large_event_does_not_believe_that_it_has_it() -> None:
    async with Site(max_event_bytes=1000) as site:
        first, run = await site.started("1", headers=EVENTSOURCE)
        await in_parts(site, parts=5)
        await settle()
        browser = Interpreter()
        browser.feed(first.body)
        first.drop()
        assert browser.last_event_id == first.at(1)
        again = site.eventsource(cursor=browser.last_event_id)
        for start_at in range(5 * 512, len(LARGE), 512):
            await run.put(body(LARGE[start_at : start_at + 512]))
        await run.say("3")
        assert [(await again.event()).event, (await again.event()).data] == ["streamware.reset", "3"]


@pytest.mark.parametrize("options", named(CUTS + CANNOT))
@pytest.mark.parametrize("headers", [READER, EVENTSOURCE])
async def test_a_stop_in_the_middle_of_a_large_event_completes_no_torn_event(
    headers: dict[str, str], options: dict[str, str]
) -> None:
    async with Site(heeds=True, max_event_bytes=1000) as site:
        first, run = await site.started("1", headers=headers, **options)
        await in_parts(site, parts=5)
        await settle()
        stop = site.connect(first.own_url, method="DELETE", headers={})
        await stop.finished()
        assert stop.status == 204
        await until(run.over.is_set)
        await first.finished()
        assert first.data == ["1"]
        again = site.connect(headers=headers, cursor=first.at(1))
        await again.finished()
        assert again.data == []
        assert site.runs == 1


async def test_a_slow_reader_of_large_events_is_cut_off_and_the_fast_one_gets_them_whole() -> None:
    async with Site(max_event_bytes=1000, window=2000) as site:
        slow, run = await site.started("1")
        fast = site.connect(cursor=slow.at(1))
        await fast.start()
        slow.stall()
        await in_parts(site)
        await run.say("3")
        assert [event.data for event in await fast.events(2)] == ["y" * 5000, "3"]
        slow.unstall()
        await slow.finished()
        assert not slow.complete
        assert slow.data == ["1"]


async def test_a_stalled_reader_does_not_hold_the_next_one_back_during_a_large_event() -> None:
    async with Site(max_event_bytes=1000) as site:
        dead, run = await site.started("1")
        dead.stall()
        await run.say("2")
        await settle()
        run.begin(body(LARGE))
        run.begin(body(b"data: 4\n\n"))
        await settle()
        again = site.eventsource(cursor=dead.at(2))
        assert [(await again.event()).event, (await again.event()).data] == ["streamware.reset", "4"]
        dead.unstall()
        await dead.receive_body(b"data: 4\n")
        assert dead.data == ["1", "2", "y" * 5000, "4"]


async def test_large_lines_of_ndjson_reach_who_is_there_whole() -> None:
    async with Site(max_event_bytes=1000, media_types=["application/x-ndjson"]) as site:
        first = site.connect(headers={"accept": "application/x-ndjson"})
        run = await site.run()
        await run.start([(b"content-type", b"application/x-ndjson")])
        large = b'{"a": "' + b"y" * 5000 + b'"}\n'
        await run.put(body(b'{"a": 1}\n'), body(large[:3000]), body(large[3000:]), body(b'{"a": 2}\n', False), None)
        await first.finished()
        assert first.body == b'{"a": 1}\n' + large + b'{"a": 2}\n'


@pytest.mark.parametrize("large", [False, True])
async def test_a_last_line_of_ndjson_without_its_newline_is_a_line(large: bool) -> None:
    async with Site(max_event_bytes=1000, media_types=["application/x-ndjson"]) as site:
        first = site.connect(headers={"accept": "application/x-ndjson"})
        run = await site.run()
        await run.start([(b"content-type", b"application/x-ndjson")])
        await run.put(body(b'{"a": 1}\n'))
        await first.receive_body(b"1}\n")
        last = b'{"a": "%b"}' % (b"y" * (5000 if large else 5))
        await run.put(body(last[:900]), body(last[900:], False), None)
        await first.finished()
        assert first.body == b'{"a": 1}\n' + last
        assert first.complete
        again = site.connect(headers={"accept": "application/x-ndjson"}, cursor=first.at(1))
        await again.finished()
        assert (again.status, again.body) == (200, last) if not large else again.status == 410
        caught_up = site.connect(headers={"accept": "application/x-ndjson"}, cursor=first.at(2))
        await caught_up.finished()
        assert caught_up.status == 204


# -- interrupted


@pytest.mark.parametrize("headers", [READER, EVENTSOURCE])
async def test_at_shutdown_running_streams_end_as_interrupted(headers: dict[str, str]) -> None:
    async with Site() as site:
        first, run = await site.started("1", headers=headers)
        detached = site.connect("/2", headers=headers)
        second = await site.run(2)
        await second.stream("x")
        await detached.event()
        detached.drop()
        await site.resume.shutdown()
        assert run.cancelled
        assert second.cancelled
        await first.finished()
        assert first.complete is (headers == EVENTSOURCE)
        assert first.controls == (["interrupted"] if headers == EVENTSOURCE else [])
        again = site.connect(headers=headers, cursor=first.at(1))
        await again.finished()
        assert again.status == (204 if headers == EVENTSOURCE else 410)
        if headers == READER:
            assert msgspec.json.decode(again.body)["outcome"] == "interrupted"


async def test_an_app_that_ends_by_itself_while_its_worker_leaves_counts_as_interrupted() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        site.resume._worker.leaving = True
        await run.put(None)
        await first.finished()
        assert not first.complete
        again = site.connect(cursor=first.at(1))
        await again.finished()
        assert msgspec.json.decode(again.body)["outcome"] == "interrupted"


async def test_an_app_that_does_not_end_cannot_hold_the_shutdown_up_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamware.streams.worker.CANCEL_WAIT", 0.05)
    async with Site() as site:
        first, run = await site.started("1")
        release = asyncio.Event()

        async def stubborn() -> None:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

        run.begin(stubborn)
        await settle()
        async with asyncio.timeout(2):
            await site.resume.shutdown()
        await first.finished()
        release.set()
        run.begin(None)
        await until(lambda: not site.resume._worker.producers)


async def test_the_lifespan_ends_streams_before_the_apps_own_shutdown() -> None:
    """The app's pools stay open until its streams have ended."""
    said: list[str] = []
    site = Site()

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                said.append(message["type"])
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        try:
            await site.stage(scope, receive, send)
        finally:
            said.append("stream over")

    stack = Stack(app, middleware=[Middleware(ResumeMiddleware, store=site.store, clock=site.clock)])
    inbox: asyncio.Queue[dict[str, object]] = asyncio.Queue()
    outbox: asyncio.Queue[dict[str, object]] = asyncio.Queue()
    lifespan = asyncio.ensure_future(stack({"type": "lifespan", "asgi": {"version": "3.0"}}, inbox.get, outbox.put))
    inbox.put_nowait({"type": "lifespan.startup"})
    assert (await asyncio.wait_for(outbox.get(), 5))["type"] == "lifespan.startup.complete"
    async with SiteConnection(stack, path="/chat", headers=READER) as first:
        await (await site.run()).stream("1")
        await first.event()
        inbox.put_nowait({"type": "lifespan.shutdown"})
        assert (await asyncio.wait_for(outbox.get(), 5))["type"] == "lifespan.shutdown.complete"
        await first.finished()
        assert not first.complete
    await asyncio.wait_for(lifespan, 5)
    assert said == ["lifespan.startup", "stream over", "lifespan.shutdown"]


# -- ttl and tombstones


async def test_a_finished_log_can_be_read_for_its_ttl() -> None:
    async with Site(store={"ttl": 50.0}) as site:
        first, run = await site.started("1", "2")
        await run.end()
        await first.finished()
        await site.clock.advance(49)
        again = site.connect(cursor=first.at(1))
        await again.finished()
        assert again.data == ["2"]
        await site.clock.advance(2)
        gone = site.connect(cursor=first.at(1))
        await gone.finished()
        assert gone.status == 410


async def test_a_reader_in_the_middle_of_a_log_that_expires_gets_all_of_it() -> None:
    async with Site(store={"ttl": 5.0}) as site:
        first, run = await site.started("0")
        first.stall()
        for number in range(1, 500):
            await run.put(body(b"data: %d %b\n\n" % (number, b"x" * 300)))
        await run.end()
        await site.clock.advance(60)
        assert len(site.store) == 0
        first.unstall()
        await first.finished()
        assert [int(text.split()[0]) for text in first.data] == list(range(500))
        assert first.complete


async def test_an_evicted_log_leaves_its_tombstone() -> None:
    """A full store drops finished logs first: what they were must not start again."""
    async with Site(store={"max_bytes": 3 * 4096, "max_log_bytes": 4096, "owner_share": 1.0}) as site:
        logged = []
        for number in range(1, 7):
            connection = site.connect(f"/{number}")
            run = await site.run(number)
            await run.stream("1")
            await run.end()
            await connection.finished()
            assert connection.logged
            logged.append(connection)
        assert len(site.store) <= 3
        again = site.connect("/1", cursor=logged[0].at(0))
        await again.finished()
        assert again.status == 410
        assert msgspec.json.decode(again.body)["outcome"] == "done"
        like = site.eventsource("/1", cursor=logged[0].at(0))
        await like.finished()
        assert like.status == 204
        assert site.runs == 6


async def test_after_the_ttl_and_the_tombstones_nothing_is_left() -> None:
    async with Site(store={"ttl": 10.0, "tombstone_ttl": 20.0}) as site:
        for number in range(1, 51):
            connection = site.connect(headers=READER | {"idempotency-key": "k" * 22 + str(number)}, method="POST")
            run = await site.run(number)
            await run.stream("1")
            await connection.event()
            connection.drop()
            if number % 2:
                await run.end()
        await site.clock.advance(31)
        for run in site.stage.runs:
            if not run.over.is_set():
                await run.put(None)
        await site.clock.advance(60)
        await site.store.open("x")
        store = site.store
        assert (len(store), store.size) == (0, 0)
        assert not store._claims
        assert not store._keys
        assert not store._tombstones
        assert not store._accounts
        assert site.clock.timers == 0


# -- a feed that ends on purpose


async def test_an_eventsource_feed_that_ends_on_purpose_goes_on_with_on_done_restart() -> None:
    """Such a feed lives by the browser's reconnect: three responses, each with its own events."""
    async with Site(on_done={"/feed": "restart"}) as site:
        got: list[str] = []
        cursor = None
        for number in range(1, 4):
            connection = site.eventsource("/feed", cursor=cursor)
            run = await site.run(number)
            await run.stream(f"{number}.a", f"{number}.b")
            await run.end()
            await connection.finished()
            assert connection.status == 200
            assert connection.controls == []
            got += connection.data
            browser = Interpreter(cursor or "")
            browser.feed(connection.body)
            cursor = browser.last_event_id
        assert got == ["1.a", "1.b", "2.a", "2.b", "3.a", "3.b"]


async def test_a_drop_in_mid_response_of_such_a_feed_is_resumed_all_the_same() -> None:
    async with Site(on_done={"/feed": "restart"}) as site:
        first, run = await site.started("1", path="/feed", headers=EVENTSOURCE)
        first.drop()
        await run.say("2")
        again = site.eventsource("/feed", cursor=first.at(1))
        await run.say("3")
        await run.end()
        await again.finished()
        assert again.data == ["2", "3"]
        assert site.runs == 1


async def test_without_the_option_a_short_feed_whose_reader_comes_back_is_counted() -> None:
    """So that whoever runs such a feed learns why it fell silent."""
    async with Site() as site:
        first, run = await site.started("1", headers=EVENTSOURCE)
        await run.end()
        await first.finished()
        again = site.eventsource(cursor=first.at(1))
        await again.finished()
        assert again.status == 204
        assert site.counted("resume.no_content") == 1


async def test_a_response_that_ended_before_its_first_event_starts_anew() -> None:
    """The primer may have gone out before that was known: its cursor is answered as if it never had."""
    async with Site() as site:
        first, run = await site.started(headers=EVENTSOURCE)
        await run.end()
        await first.finished()
        again = site.eventsource(cursor=first.at(0))
        second = await site.run(2)
        await second.stream("1")
        assert (await again.event()).data == "1"
