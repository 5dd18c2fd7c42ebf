"""Apps that misbehave, or are out of the ordinary, on every server: a clear answer, never a hang."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets

import pytest

from examples import content
from tests.servers.apps import wide_event
from tests.servers.client import EVENTSOURCE, FETCH, Headers, Http1, ask, fetch, until
from tests.servers.http2 import Http2
from tests.servers.launch import Server
from tests.servers.reading import Reading, follow, follow_until
from tests.servers.wire import Cut, How, Wire

BROWSERS_AND_SCRIPTS = {"eventsource": EVENTSOURCE, "fetch": FETCH}


async def runs_of(server: Server, run: str) -> int:
    return int(json.loads((await fetch(server, "GET", "/runs"))[2])["labels"].get(run, 0))


@pytest.mark.parametrize("how", ["return", "raise"])
async def test_a_script_sees_that_a_failed_stream_is_not_whole(special: Server, how: str) -> None:
    reading = Reading()

    async with ask(special, "GET", f"/fails?n=3&how={how}", headers=FETCH) as got:
        async with asyncio.timeout(5):
            complete = await follow(got, reading)

    told = [event.event for event in reading.events]
    if special.kind.cuts:
        assert not complete
        assert told == ["message"] * 3
        assert bytes(reading.body) == content.body(3)
    else:
        assert complete
        assert told == ["message"] * 3 + ["error"]
        assert json.loads(reading.events[-1].data)["error"]["type"] == "streamware.failed"


@pytest.mark.parametrize("special", ["uvicorn", "uvicorn-h11", "hypercorn", "daphne", "granian"], indirect=True)
@pytest.mark.parametrize("client", BROWSERS_AND_SCRIPTS)
async def test_an_app_whose_head_the_server_refuses_does_not_go_on(special: Server, client: str) -> None:
    run = secrets.token_hex(8)
    status = 500
    with contextlib.suppress(Cut):  # how some of them refuse it
        async with (
            asyncio.timeout(5),
            ask(special, "GET", f"/broken-head?run={run}", headers=BROWSERS_AND_SCRIPTS[client]) as got,
        ):
            status = got.status

    if status == 200:  # others mend it
        await fetch(special, "DELETE", f"/broken-head{got.headers['content-location']}")
    else:
        assert status == 500
    await until(lambda: runs_of(special, f"{run} ended"), 1)


@pytest.mark.parametrize("special", ["uvicorn", "uvicorn-h11", "hypercorn", "daphne", "granian"], indirect=True)
@pytest.mark.parametrize("how", ["return", "raise"])
async def test_a_failed_stream_does_not_look_whole_over_http_1_0(special: Server, how: str) -> None:
    """The end of a body without a length is the end of the connection there, so that a cut cannot be seen. It is what
    nginx speaks to what is behind it, unless it is told otherwise."""
    wire = await Wire.connect(special)
    await wire.write(f"GET /fails?n=3&how={how} HTTP/1.0\r\naccept: text/event-stream\r\n\r\n".encode())
    received = b""
    async with asyncio.timeout(5):
        while data := await wire.read():
            received += data
    await wire.aclose()

    assert received.count(b"\nid: ") == 3
    assert b'event: error\ndata: {"error":{"type":"streamware.failed"' in received


@pytest.mark.parametrize("how", ["return", "raise"])
async def test_an_eventsource_is_told_that_a_stream_has_failed_and_is_not_kept_coming(
    special: Server, how: str
) -> None:
    reading, target = Reading(), f"/fails?n=3&how={how}&run={secrets.token_hex(8)}"

    async with ask(special, "GET", target, headers=EVENTSOURCE) as got:
        async with asyncio.timeout(5):
            await follow(got, reading)
    late, _, _ = await fetch(special, "GET", target, headers=(*EVENTSOURCE, ("last-event-id", reading.cursor)))

    assert bytes(reading.body) == content.body(3)
    assert [control.event for control in reading.controls] == ["streamware.failed"]
    assert late == 204
    assert await runs_of(special, target.rpartition("=")[2]) == 1


async def test_a_failed_stream_can_be_resumed_up_to_where_it_failed(special: Server) -> None:
    reading, target = Reading(), "/fails?n=4"
    async with ask(special, "GET", target, headers=FETCH) as got:
        await follow_until(got, reading, 1)
        got.cut("rst")
    cursor = reading.cursor

    again, headers = Reading(), (*FETCH, ("last-event-id", cursor))
    async with ask(special, "GET", target, headers=headers) as got:
        async with asyncio.timeout(5):
            complete = await follow(got, again)
    caught_up, _, body = await fetch(special, "GET", target, headers=(*FETCH, ("last-event-id", f"{reading.stream}.4")))

    first = int(cursor.rpartition(".")[2])
    assert bytes(again.body).startswith(content.body(4)[len(content.body(first)) :])
    assert complete is not special.kind.cuts
    assert caught_up == 410
    assert json.loads(body)["outcome"] == "failed"


@pytest.mark.parametrize("client", BROWSERS_AND_SCRIPTS)
async def test_silence_is_filled_with_heartbeats(special: Server, client: str) -> None:
    reading = Reading()

    async with ask(special, "GET", "/silent?seconds=0.9", headers=BROWSERS_AND_SCRIPTS[client]) as got:
        complete = await follow(got, reading)

    assert complete
    assert reading.heartbeats >= 2
    assert bytes(reading.body) == content.body(2)


async def test_heartbeats_never_tear_an_event(special: Server) -> None:
    reading = Reading()

    async with ask(special, "GET", "/half?seconds=0.9", headers=FETCH) as got:
        complete = await follow(got, reading)

    assert complete
    assert bytes(reading.body) == content.body(2)


async def test_heartbeats_are_in_no_log(special: Server) -> None:
    reading, target = Reading(), "/silent?seconds=0.5"
    async with ask(special, "GET", target, headers=EVENTSOURCE) as got:
        await follow(got, reading)

    replayed = Reading()
    location = target + "&" + got.headers["content-location"][1:]
    async with ask(special, "GET", location, headers=EVENTSOURCE) as got:
        assert await follow(got, replayed)

    assert reading.heartbeats >= 1
    assert replayed.heartbeats == 0
    assert replayed.body == reading.body


async def test_a_drop_before_the_first_event_resumes(special: Server) -> None:
    """The app thinks for half a second: an EventSource has its cursor before that, drops, and comes back twice."""
    run = secrets.token_hex(8)
    reading, target = Reading(), f"/mute?seconds=0.5&run={run}"
    for _ in range(2):
        headers = (*EVENTSOURCE, ("last-event-id", reading.cursor)) if reading.cursor else EVENTSOURCE
        async with ask(special, "GET", target, headers=headers) as got:
            while not reading.cursor:
                data = await got.read()
                assert data
                reading.feed(data)
            got.cut("rst")
        reading.reconnect()

    async with ask(special, "GET", target, headers=(*EVENTSOURCE, ("last-event-id", reading.cursor))) as got:
        complete = await follow(got, reading)

    assert complete
    assert reading.cursor.endswith(".1")
    assert bytes(reading.body) == content.body(1)
    assert await runs_of(special, run) == 1


@pytest.mark.parametrize("client", BROWSERS_AND_SCRIPTS)
async def test_a_stream_with_ids_of_its_own_is_left_alone(special: Server, client: str) -> None:
    status, headers, body = await fetch(special, "GET", "/own-ids?n=5", headers=BROWSERS_AND_SCRIPTS[client])

    assert status == 200
    assert body == b"".join(f"id: mine-{i}\ndata: {i}\n\n".encode() for i in range(1, 6))
    assert "content-location" not in headers


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_events_torn_over_messages_are_put_together(special: Server, size: int) -> None:
    reading = Reading()

    async with ask(special, "GET", f"/torn?n=40&size={size}", headers=FETCH) as got:
        complete = await follow(got, reading)

    assert complete
    assert bytes(reading.body) == content.body(40)
    assert (reading.lost, reading.repeated, reading.last) == (0, 0, 40)


async def test_events_of_10_mb_arrive(special: Server) -> None:
    size = 10_000_000

    status, _, body = await fetch(special, "GET", f"/wide?n=2&size={size}", headers=FETCH)

    assert status == 200
    assert body == wide_event(1, size) + wide_event(2, size)


async def test_more_than_a_log_holds_goes_through_a_reader_that_keeps_up(special: Server) -> None:
    # A server that takes everything is fed what a log can hold, and then at a pace: its client may be gone.
    n, size = 200 if special.kind.bounded else 70, 100_000
    reading = Reading()

    async with ask(special, "GET", f"/wide?n={n}&size={size}", headers=EVENTSOURCE) as got:
        complete = await follow(got, reading)

    assert complete
    assert (len(reading.events), reading.lost, reading.repeated) == (n, 0, 0)
    assert bytes(reading.body) == b"".join(wide_event(i, size) for i in range(1, n + 1))


async def test_a_client_that_stops_reading_gets_the_rest_when_it_goes_on(special: Server) -> None:
    n, size = 60, 100_000
    reading = Reading()

    async with ask(special, "GET", f"/wide?n={n}&size={size}", headers=EVENTSOURCE) as got:
        await follow_until(got, reading, 1)
        status, _, _ = await fetch(special, "GET", "/plain")  # the server goes on meanwhile
        complete = await follow(got, reading)

    assert status == 200
    assert complete
    assert (len(reading.events), reading.lost, reading.repeated) == (n, 0, 0)


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "keyed"])
async def test_a_client_that_drops_in_mid_upload_starts_nothing(special: Server, how: How, keyed: bool) -> None:
    """The app is told, as it would be bare: nobody could ever finish that request."""
    run = secrets.token_hex(8)
    headers = (*FETCH, ("idempotency-key", secrets.token_urlsafe(24))) if keyed else FETCH
    wire = await Wire.connect(special)
    connection = Http2(wire) if special.kind.http2 else Http1(wire)
    if isinstance(connection, Http2):
        await connection.begin("POST", f"/upload?run={run}", headers, b"x" * 100, end=False)
    else:
        await connection.begin("POST", f"/upload?run={run}", headers, b"x" * 10_000, part=1000)
    # With a key the whole body is waited for before the app is called; some servers always do that.
    called = not keyed and special.kind.streams_uploads
    try:
        if called:
            await until(lambda: runs_of(special, run + " called"), 1)
    finally:
        wire.cut(how)
        await connection.aclose()

    if called:
        await until(lambda: runs_of(special, run + " left"), 1)
    status, _, body = await fetch(special, "POST", f"/upload?run={run}", headers=headers, body=b"y" * 10_000)
    assert status == 200
    assert b"10000" in body
    assert await runs_of(special, run + " read") == 1


HOSTILE: dict[str, Headers] = {
    "long": (("last-event-id", "x" * 60_000),),
    "negative": (("last-event-id", "-1"),),
    "not ascii": (("last-event-id", "\u00e9\u00ff"),),
    "two": (("last-event-id", "a"), ("last-event-id", "b")),
    "unknown preference": (("prefer", "shouting=on, wait=abc;;=, =x"),),
    "empty": (("last-event-id", ""),),
}


@pytest.mark.parametrize("given", HOSTILE)
async def test_nonsense_in_headers_is_passed_on_and_breaks_nothing(special: Server, given: str) -> None:
    reading = Reading()
    try:
        async with ask(special, "GET", "/events?n=3", headers=(*FETCH, *HOSTILE[given])) as got:
            status = got.status
            complete = await follow(got, reading)
    except Cut:  # the server itself may refuse so much
        assert given == "long"
        return

    if status == 200:
        assert complete
        assert bytes(reading.body) == content.body(3)
    else:
        assert given == "long"
        assert status in (400, 413, 431)


@pytest.mark.parametrize("special", ["hypercorn-h2"], indirect=True)
async def test_one_of_many_responses_of_a_connection_can_break_off(special: Server) -> None:
    """RST_STREAM for every second of them: the others go on, and the broken ones resume over the same connection."""
    connection = Http2(await Wire.connect(special))
    target = "/events?n=30&delay=0.005"
    exchanges = [await connection.begin("GET", target, EVENTSOURCE) for _ in range(10)]
    readings = [Reading() for _ in exchanges]

    async def read(number: int) -> None:
        reading, exchange = readings[number], exchanges[number]
        if number % 2:
            await follow_until(exchange, reading, 3)
            await exchange.reset()
            reading.reconnect()
            exchange = await connection.begin("GET", target, (*EVENTSOURCE, ("last-event-id", reading.cursor)))
        assert await follow(exchange, reading)

    await asyncio.gather(*(read(number) for number in range(len(exchanges))))
    await connection.aclose()

    for reading in readings:
        assert bytes(reading.body) == content.body(30)
        assert (reading.lost, reading.repeated) == (0, 0)


@pytest.mark.parametrize("special", ["hypercorn-h2"], indirect=True)
async def test_a_connection_that_is_told_to_go_away_loses_nothing(special: Server) -> None:
    reading, target = Reading(), "/events?n=30&delay=0.005"
    connection = Http2(await Wire.connect(special))
    await follow_until(await connection.begin("GET", target, EVENTSOURCE), reading, 3)

    await connection.goaway()
    reading.reconnect()
    async with ask(special, "GET", target, headers=(*EVENTSOURCE, ("last-event-id", reading.cursor))) as got:
        assert await follow(got, reading)

    assert bytes(reading.body) == content.body(30)
    assert (reading.lost, reading.repeated) == (0, 0)


@pytest.mark.parametrize("special", ["hypercorn-h2"], indirect=True)
async def test_what_is_answered_early_disturbs_no_other_response_of_its_connection(special: Server) -> None:
    """hypercorn tears the connection down where a response has ended before its request's body was taken."""
    first, reading, headers = Reading(), Reading(), (*FETCH, ("content-type", "text/plain"))
    async with ask(special, "POST", "/upload", headers=headers, body=b"x" * 1000) as got:
        assert await follow(got, first)
    connection = Http2(await Wire.connect(special))
    going_on = await connection.begin("GET", "/events?n=40&delay=0.02", EVENTSOURCE)

    statuses = []
    for _ in range(10):
        for cursor in (f"{first.stream}.0", f"{first.stream}.1", f"{first.stream[:-4]}AAAA.1"):
            answered = await connection.begin("POST", "/upload", (*headers, ("last-event-id", cursor)), b"x" * 1000)
            await answered.head()
            await follow(answered, Reading())
            statuses.append(answered.status)
    complete = await follow(going_on, reading)
    await connection.aclose()

    assert statuses == [200, 204, 410] * 10
    assert complete
    assert bytes(reading.body) == content.body(40)
    assert "KeyError" not in special.log
