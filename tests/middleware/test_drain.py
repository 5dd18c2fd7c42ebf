"""Draining: who goes elsewhere when, who stays until the deadline, and how each of them ends."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from streamware import MemoryStore
from streamware.streams.drain import Phase
from streamware.testing import FakeClock, MessageOrderError, settle
from tests.middleware.drain_site import DEADLINE, GRACE, KINDS, RETRY, WAYS, Place, SharedStore
from tests.middleware.resume_site import EVENTSOURCE, READER, SSE, Run, SiteConnection, body, plain, start

RETRY_LINE = re.compile(rb"retry: (\d+)\n\n\Z")
LOGGED = ["eventsource", "script"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    kept: str = request.param
    return kept


# -- before grace is over


@pytest.mark.parametrize("kind", KINDS)
async def test_while_leaving_everything_is_served(way: str, kind: str) -> None:
    async with Place(way=way) as place:
        place.drain.leave()
        connection, run = await place.streaming(kind, "a")
        await run.end()
        await connection.receive_body()

        assert place.phase is Phase.LEAVING
        assert connection.status == 200
        assert connection.header("connection") is None
        assert connection.data == ["a"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_that_ends_within_grace_is_delivered_whole(way: str, kind: str) -> None:
    async with Place(way=way) as place:
        connection, run = await place.streaming(kind, "a")
        place.drain.drain()
        await place.clock.advance(GRACE - 1)
        await run.say("b")
        await run.end()
        await connection.receive_body()
        await connection.finished()

        assert connection.complete
        assert connection.data == ["a", "b"]
        assert connection.controls == []


# -- when grace is over


async def test_an_eventsource_is_sent_elsewhere_with_its_cursor_and_loses_nothing(way: str) -> None:
    clock = FakeClock()
    store = SharedStore(clock=clock)
    async with Place(way=way, clock=clock, store=store) as old, Place(way=way, clock=clock, store=store) as new:
        connection, run = await old.started("a", "b", headers=EVENTSOURCE)
        old.drain.drain()
        await clock.advance(GRACE)
        await connection.finished()
        assert connection.complete
        found = RETRY_LINE.search(connection.body)
        assert found is not None
        assert 500 * RETRY <= int(found[1]) <= 1500 * RETRY

        await run.say("c")  # the worker goes on producing
        again = new.connect(headers=EVENTSOURCE, cursor=connection.at(2))
        await again.event()
        await run.say("d")
        await run.end()
        await again.finished()

        assert connection.data + again.data == ["a", "b", "c", "d"]
        assert again.complete
        assert again.controls == []
        assert old.counted("resume.parted", "eventsource") == 1
        assert len(new.stage.runs) == 0


async def test_a_script_is_cut_visibly_and_loses_nothing(way: str) -> None:
    clock = FakeClock()
    store = SharedStore(clock=clock)
    async with Place(way=way, clock=clock, store=store) as old, Place(way=way, clock=clock, store=store) as new:
        connection, run = await old.started("a", headers=READER)
        old.drain.drain()
        await clock.advance(GRACE)
        await connection.finished()
        assert not connection.complete
        assert connection.data == ["a"]

        again = new.connect(headers=READER, cursor=connection.at(1))
        await run.say("b")
        await run.end()
        await again.finished()

        assert again.data == ["b"]
        assert old.counted("resume.parted", "cut") == 1


@pytest.mark.parametrize(("server", "http_version"), [("daphne", "1.1"), ("hypercorn", "2"), ("uvicorn", "1.0")])
async def test_where_the_server_cannot_cut_a_script_stays_until_the_deadline(
    way: str, server: str, http_version: str
) -> None:
    async with Place(way=way, heeds=True) as place:
        connection, run = await place.started("a", headers=READER, server=server, http_version=http_version)
        place.drain.drain()
        await place.clock.advance(DEADLINE - 0.1)
        await run.say("b")
        assert not connection.returned

        await place.clock.advance(0.1)
        await connection.finished()

        assert connection.complete
        assert connection.data[:2] == ["a", "b"]
        assert b"event: error\ndata: " in connection.body
        assert "streamware.interrupted" in connection.data[2]
        assert run.cancelled


@pytest.mark.parametrize("kind", LOGGED)
async def test_what_only_this_process_holds_stays_until_the_deadline(way: str, kind: str) -> None:
    clock = FakeClock()
    async with Place(way=way, clock=clock, store=MemoryStore(clock=clock)) as place:
        connection, run = await place.streaming(kind, "a")
        place.drain.drain()
        await clock.advance(DEADLINE - 0.1)
        await run.say("b")
        await run.end()
        await connection.receive_body()
        await connection.finished()

        assert connection.data == ["a", "b"]
        assert connection.complete


@pytest.mark.parametrize("kind", LOGGED)
async def test_at_the_deadline_what_only_this_process_holds_ends_as_interrupted(way: str, kind: str) -> None:
    clock = FakeClock()
    async with Place(way=way, heeds=True, clock=clock, store=MemoryStore(clock=clock)) as place:
        connection, run = await place.streaming(kind, "a")
        place.drain.drain()
        await clock.advance(DEADLINE)
        await connection.finished()

        assert run.cancelled
        if kind == "eventsource":
            assert connection.complete
            assert connection.controls == ["interrupted"]
        else:
            assert not connection.complete
        log = await place.store.open(connection.stream)
        assert log is not None
        assert log.outcome == "interrupted"
        assert place.counted("drain.cut_off", "stream") == 1
        assert place.phase is Phase.OVER


# -- streams without a log


@pytest.mark.parametrize("server", ["uvicorn", "daphne"])
async def test_a_stream_without_a_log_gets_an_error_event_at_the_deadline(way: str, server: str) -> None:
    async with Place(way=way) as place:
        connection, run = await place.started("a", headers=KINDS["unlogged"], server=server)
        place.drain.drain()
        await place.clock.advance(DEADLINE - 0.1)
        await run.say("b")
        await place.clock.advance(0.1)
        await run.disconnected.wait()
        await run.put(None)
        await connection.finished()

        assert connection.complete
        assert plain(connection.body).replace(b":\n", b"").startswith(b"data: a\n\ndata: b\n\nevent: error\ndata: {")
        assert connection.body.endswith(b"}\n\n")
        assert place.counted("drain.cut_off", "response") == 1


async def test_an_eventsource_with_the_apps_own_ids_is_told_in_a_way_that_it_understands(way: str) -> None:
    async with Place(way=way) as place:
        connection = place.connect(headers=EVENTSOURCE)
        run = await place.run()
        await run.start()
        await run.put(body(b"id: mine\ndata: a\n\n"))
        await connection.events(1)
        place.drain.drain()
        await place.clock.advance(DEADLINE)
        await run.disconnected.wait()
        assert isinstance(await run.begin(body(b"data: late\n\n")), OSError)
        await connection.finished()

        assert connection.complete
        assert connection.controls == ["interrupted"]
        assert b"retry: " in connection.body
        assert connection.data == ["a"]


async def amid_an_event_at_the_deadline(place: Place, **options: Any) -> tuple[SiteConnection, Run]:
    """A stream without a log that has sent "a" whole and then ``data: b``."""
    connection, run = await place.started("a", headers=KINDS["unlogged"], **options)
    await run.put(body(b"data: b"))
    place.drain.drain()
    await place.clock.advance(DEADLINE)
    return connection, run


async def test_an_event_under_way_at_the_deadline_is_finished_first(way: str) -> None:
    async with Place(way=way) as place:
        connection, run = await amid_an_event_at_the_deadline(place)
        assert not connection.complete
        await run.put(body(b"b\n\n"))
        assert isinstance(await run.begin(body(b"data: dropped\n\n")), OSError)
        await connection.finished()

        assert connection.complete
        assert b"data: bb\n\nevent: error\n" in connection.body
        assert b"dropped" not in connection.body


@pytest.mark.parametrize("server", ["uvicorn", "daphne"])
async def test_an_event_that_never_ends_is_not_waited_for(
    way: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamware.streams.farewell.PATIENCE", 0.05)
    async with Place(way=way) as place:
        connection, run = await amid_an_event_at_the_deadline(place, server=server)
        await run.disconnected.wait()
        await run.put(None)
        await connection.finished()

        assert connection.data == ["a"]
        assert b"event: error" not in connection.body
        assert connection.complete is (server == "daphne")


async def test_an_app_that_ends_by_itself_at_the_deadline_has_the_last_word(way: str) -> None:
    async with Place(way=way) as place:
        connection, run = await amid_an_event_at_the_deadline(place)
        await run.put(body(b"b\n\n", False), None)
        await connection.finished()

        assert connection.complete
        assert connection.body.endswith(b"data: bb\n\n")


async def test_ndjson_is_told_in_a_line(way: str) -> None:
    async with Place(way=way) as place:
        connection = place.connect(headers=KINDS["unlogged"])
        run = await place.run()
        await run.start([(b"content-type", b"application/x-ndjson")])
        await run.put(body(b'{"a":1}\n'))
        await connection.receive_body(5)
        place.drain.drain()
        await place.clock.advance(DEADLINE)
        await run.disconnected.wait()
        await run.put(None)
        await connection.finished()

        first, second, rest = connection.body.split(b"\n")
        assert (first, rest) == (b'{"a":1}', b"")
        assert second.startswith(b'{"error":{"type":"streamware.draining"')
        assert connection.complete


@pytest.mark.parametrize(("server", "told"), [("uvicorn", True), ("daphne", False)])
async def test_an_encoded_stream_is_cut_where_the_server_cuts(way: str, server: str, told: bool) -> None:
    async with Place(way=way) as place:
        connection = place.connect(headers=KINDS["unlogged"], server=server)
        run = await place.run()
        await run.start([*SSE, (b"content-encoding", b"gzip")])
        await run.put(body(b"xyz"))
        place.drain.drain()
        await place.clock.advance(DEADLINE)
        await settle()
        assert run.disconnected.is_set() is told
        await run.put(None)
        await connection.finished()

        assert not connection.complete
        assert connection.body == b"xyz"


async def test_other_responses_are_left_to_the_server(way: str) -> None:
    async with Place(way=way) as place:
        connection = place.connect(headers=KINDS["unlogged"])
        run = await place.run()
        await run.start([(b"content-type", b"application/octet-stream")])
        await run.put(body(b"xyz"))
        place.drain.drain()
        await place.clock.advance(DEADLINE + 100)
        await run.put(body(b"end", False), None)
        await connection.finished()

        assert connection.complete
        assert connection.body == b"xyzend"


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
async def test_an_app_that_does_nothing_but_send_is_told_by_that(way: str, spec_version: str) -> None:
    async with Place(way=way) as place:
        connection, run = await place.started("a", headers=KINDS["unlogged"], spec_version=spec_version)
        place.drain.drain()
        await place.clock.advance(DEADLINE)
        late = await run.begin(body(b"data: late\n\n"))
        await connection.finished()

        assert isinstance(late, OSError)
        assert connection.exception is None
        assert connection.complete


async def test_what_the_app_says_while_the_last_words_are_on_their_way_waits_for_them(way: str) -> None:
    async with Place(way=way) as place:
        connection, run = await place.started("a", headers=KINDS["unlogged"])
        place.drain.drain()
        await place.clock.advance(DEADLINE - 1)
        connection.stall()
        await place.clock.advance(1)
        await settle()
        late = run.begin(body(b"data: late\n\n"))
        await settle()
        assert not connection.returned  # which would have the server cut them off
        connection.unstall()
        assert isinstance(await asyncio.wait_for(late, 5), OSError)
        await connection.finished()

        assert connection.complete
        assert connection.exception is None
        assert b"event: error\n" in connection.body
        assert b"late" not in connection.body


async def test_what_an_app_says_after_its_own_end_is_the_servers_to_judge(way: str) -> None:
    async with Place(way=way) as place:
        connection, run = await amid_an_event_at_the_deadline(place)
        await run.put(body(b"b\n\n", False))
        late = await run.begin(body(b"data: late\n\n"))
        with pytest.raises(MessageOrderError):
            await connection.finished()
        connection.violations.clear()  # the app's own, passed on as it came
        place.connections.remove(connection)

        assert isinstance(late, MessageOrderError)
        assert connection.complete
        assert connection.body.endswith(b"data: bb\n\n")


async def test_a_client_that_does_not_read_is_not_waited_for(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamware.streams.farewell.PATIENCE", 0.05)
    async with Place(way=way) as place:
        connection, run = await place.started("a", headers=KINDS["unlogged"])
        connection.stall()
        blocked = run.begin(body(b"data: b\n\n"))
        place.drain.drain()
        await place.clock.advance(DEADLINE)
        await asyncio.wait_for(run.disconnected.wait(), 5)
        assert not blocked.done()
        connection.drop()
        await run.put(None)
        await connection.finished()


async def test_a_client_that_takes_not_even_a_heartbeat_is_not_waited_for(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamware.streams.farewell.PATIENCE", 0.05)
    async with Place(way=way) as place:
        connection, run = await place.started("a", headers=KINDS["unlogged"])
        connection.stall()
        place.drain.drain()
        await place.clock.advance(DEADLINE)
        await asyncio.wait_for(run.disconnected.wait(), 5)
        connection.drop()
        await run.put(None)
        await connection.finished()
        assert place.drain.drains.phase is Phase.OVER


# -- requests while draining


async def test_an_eventsource_is_refused_softly_while_draining(way: str) -> None:
    async with Place(way=way) as place:
        place.drain.drain()
        connection = place.connect(headers=EVENTSOURCE)
        await connection.finished()

        assert connection.status == 200
        assert RETRY_LINE.fullmatch(connection.body)
        assert connection.header("connection") == "close"
        assert not place.stage.runs
        assert place.counted("drain.refused", "eventsource") == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("asks", [READER, {"accept": "*/*", "prefer": "respond-async"}], ids=["accept", "prefer"])
async def test_other_requests_for_a_stream_are_sent_elsewhere_while_draining(
    way: str, method: str, asks: dict[str, str]
) -> None:
    async with Place(way=way) as place:
        place.drain.drain()
        connection = place.connect(headers=asks, method=method, body=b"x" * 100)
        await connection.finished()

        assert connection.status == 503
        assert 0 < int(connection.header("retry-after") or 0) <= 1.5 * RETRY
        assert connection.header("connection") == "close"
        assert not place.stage.runs
        assert place.counted("drain.refused", "stream") == 1


async def test_a_plain_request_is_served_while_draining_and_closes_its_connection(way: str) -> None:
    async with Place(way=way) as place:
        place.drain.drain()
        connection = place.connect(headers={"accept": "*/*"})
        run = await place.run()
        await run.put(start([(b"content-length", b"2"), (b"Connection", b"keep-alive")]), body(b"ok", False), None)
        await connection.finished()

        assert connection.status == 200
        assert [value for name, value in connection.headers if name.lower() == b"connection"] == [b"close"]


async def test_http2_has_no_connection_header(way: str) -> None:
    async with Place(way=way) as place:
        place.drain.drain()
        connection = place.connect(headers={"accept": "*/*"}, http_version="2")
        run = await place.run()
        await run.put(start([(b"content-length", b"2")]), body(b"ok", False), None)
        await connection.finished()

        assert connection.header("connection") is None


@pytest.mark.parametrize("kind", LOGGED)
async def test_a_stream_that_only_this_process_holds_can_still_be_resumed(way: str, kind: str) -> None:
    clock = FakeClock()
    async with Place(way=way, clock=clock, store=MemoryStore(clock=clock)) as place:
        connection, run = await place.streaming(kind, "a")
        place.drain.drain()
        connection.drop()
        await connection.finished()
        again = place.connect(headers=KINDS[kind], cursor=connection.at(1))
        await run.say("b")
        await run.end()
        await again.finished()

        assert again.data == ["b"]
        assert again.header("connection") == "close"


async def test_a_stream_in_a_shared_store_is_to_be_resumed_elsewhere(way: str) -> None:
    async with Place(way=way) as place:
        connection, run = await place.started("a", headers=READER)
        place.drain.drain()
        connection.drop()
        await connection.finished()
        again = place.connect(headers=READER, cursor=connection.at(1))
        await again.finished()
        assert again.status == 503
        await run.end()


async def test_stop_and_poll_work_while_draining(way: str) -> None:
    async with Place(way=way, heeds=True) as place:
        connection, run = await place.started("a", headers=READER)
        place.drain.drain()
        poll = place.connect(f"/chat?_stream={connection.stream}", headers={"accept": "application/json"})
        await poll.finished()
        assert poll.status == 200
        assert b'"cursor"' in poll.body
        stop = place.connect(f"/chat?_stream={connection.stream}", headers={}, method="DELETE")
        await stop.finished()
        assert stop.status == 204
        await run.over.wait()
        assert run.cancelled


async def test_a_poll_that_waits_is_answered_when_grace_is_over(way: str) -> None:
    async with Place(way=way) as place:
        connection, run = await place.started("a", headers=READER)
        waits = {"accept": "application/json", "prefer": "wait=50"}
        url = f"/chat?_stream={connection.stream}&after=1"
        poll = place.connect(url, headers=waits)
        await settle()
        place.drain.drain()
        await place.clock.advance(GRACE)
        await poll.finished()
        assert poll.status == 200
        assert b'"events":[]' in poll.body
        assert b'"outcome":null' in poll.body

        later = place.connect(url, headers=waits)
        await later.finished()
        assert later.status == 200
        assert later.header("connection") == "close"
        await run.end()
