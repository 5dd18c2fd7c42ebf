"""Every example app on every server: streams arrive whole, survive what happens to connections, and can be stopped."""

from __future__ import annotations

import asyncio
import json
import random
import secrets

import pytest

from examples import content
from tests.servers.asking import KINDS, Request, runs_of
from tests.servers.client import EVENTSOURCE, ask, begin, fetch, whole
from tests.servers.launch import Server
from tests.servers.reading import Reading, follow, follow_until
from tests.servers.wire import Cut


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_arrives_whole_and_in_order(server: Server, kind: str) -> None:
    request, reading = Request(kind, 60), Reading()

    async with ask(server, request.method, request.target, headers=request.headers(), body=request.body) as got:
        complete = await follow(got, reading)

    assert got.status == 200
    assert got.headers["content-type"].startswith("text/event-stream")
    assert got.headers["content-location"] == f"?_stream={reading.stream}"
    assert got.headers["cache-control"] == "no-store"
    assert complete
    assert bytes(reading.body) == content.body(60)
    assert (reading.lost, reading.repeated, reading.last) == (0, 0, 60)
    assert reading.retry is not None


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_dropped_again_and_again_is_resumed_until_it_is_whole(server: Server, kind: str) -> None:
    request, reading = Request(kind, 40, delay=0.002), Reading()
    draw = random.Random(f"{server.kind.name} {server.app} {kind}")

    async with ask(server, request.method, request.target, headers=request.headers(), body=request.body) as got:
        await follow_until(got, reading, 1)
        got.cut("rst")
    for how in ("rst", "fin", "close"):
        reading.reconnect()
        cut_after = draw.randrange(300, 2500)
        try:
            async with ask(
                server,
                request.method,
                request.target,
                headers=request.headers(reading.cursor),
                body=request.body,
                cut_after=cut_after,
                how=how,
            ) as got:
                await follow(got, reading)
        except Cut:
            pass
    complete = False
    while not complete:
        reading.reconnect()
        async with ask(
            server, request.method, request.target, headers=request.headers(reading.cursor), body=request.body
        ) as got:
            assert got.status in (200, 204)
            complete = await follow(got, reading)
    late, _, _ = await fetch(
        server, request.method, request.target, headers=request.headers(reading.cursor), body=request.body
    )

    assert bytes(reading.body) == content.body(40)
    assert (reading.lost, reading.repeated) == (0, 0)
    assert late == 204
    assert await runs_of(server, request.run) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_can_be_read_at_its_own_url(server: Server, kind: str) -> None:
    request, reading = Request(kind, 20, delay=0.005), Reading()

    async with ask(server, request.method, request.target, headers=request.headers(), body=request.body) as got:
        await follow_until(got, reading, 2)
        location = request.path + got.headers["content-location"]
        got.cut("rst")
    reading.reconnect()
    headers = (*EVENTSOURCE, ("last-event-id", reading.cursor))
    async with ask(server, "GET", location, headers=headers) as got:
        complete = await follow(got, reading)

    assert got.status == 200
    assert complete
    assert bytes(reading.body) == content.body(20)
    assert (reading.lost, reading.repeated) == (0, 0)
    assert await runs_of(server, request.run) == 1


async def test_a_stream_can_be_polled(server: Server) -> None:
    request, reading = Request("post", 12, delay=0.03), Reading()
    async with ask(server, request.method, request.target, headers=request.headers(), body=request.body) as got:
        await follow_until(got, reading, 1)
        location = request.path + got.headers["content-location"]
        got.cut("rst")

    data = [event.data for event in reading.events]
    cursor, outcome, polls = reading.cursor, None, 0
    while outcome is None:
        headers = (("accept", "application/json"), ("prefer", "wait=5"), ("last-event-id", cursor))
        status, _, body = await fetch(server, "GET", location, headers=headers)
        assert status == 200
        polled = json.loads(body)
        data += [event["data"] for event in polled["events"]]
        cursor, outcome, polls = polled["cursor"], polled["outcome"], polls + 1

    uncut = Reading()
    uncut.feed(content.body(12))
    assert data == [event.data for event in uncut.events]
    assert outcome == "done"
    assert polls > 1
    assert await runs_of(server, request.run) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_delete_stops_a_stream(server: Server, kind: str) -> None:
    request, reading = Request(kind, 100_000, delay=0.01), Reading()
    async with ask(server, request.method, request.target, headers=request.headers(), body=request.body) as got:
        await follow_until(got, reading, 2)
        location = request.path + got.headers["content-location"]

        first, _, _ = await fetch(server, "DELETE", location)
        async with asyncio.timeout(2):
            complete = await follow(got, reading)
    second, _, _ = await fetch(server, "DELETE", location)
    unknown, _, _ = await fetch(server, "DELETE", location[:-4] + "AAAA")
    replayed = Reading()
    async with ask(server, "GET", location, headers=EVENTSOURCE) as got:
        await follow(got, replayed)
    late, _, _ = await fetch(
        server, request.method, request.target, headers=request.headers(reading.cursor), body=request.body
    )

    assert (first, second, unknown) == (204, 204, 404)
    assert complete
    assert replayed.body == reading.body
    assert late == 204


async def test_an_eventsource_that_drops_before_its_first_event_gets_all_of_them(server: Server) -> None:
    request, reading = Request("eventsource", 15, delay=0.002), Reading()
    async with ask(server, request.method, request.target, headers=request.headers()) as got:
        first = await got.read()
        got.cut("rst")
    primer = first[: first.index(b"\n\n") + 2]
    reading.feed(primer)

    assert reading.cursor.endswith(".0")
    reading.reconnect()
    async with ask(server, request.method, request.target, headers=request.headers(reading.cursor)) as got:
        complete = await follow(got, reading)

    assert complete
    assert bytes(reading.body) == content.body(15)
    assert await runs_of(server, request.run) == 1


@pytest.mark.parametrize("kind", ["fetch", "post"])
async def test_a_repeated_idempotency_key_joins_the_stream_it_started(server: Server, kind: str) -> None:
    request = Request(kind, 15, delay=0.005).with_headers(("idempotency-key", secrets.token_urlsafe(24)))
    lost = await begin(server, request.method, request.target, headers=request.headers(), body=request.body)
    lost.cut("fin")  # its response never arrives
    await lost.aclose()

    async def read() -> Reading:
        reading = Reading()
        async with ask(server, request.method, request.target, headers=request.headers(), body=request.body) as got:
            assert got.status == 200
            assert await follow(got, reading)
        return reading

    one, two = await asyncio.gather(read(), read())
    three = await read()

    assert bytes(one.body) == bytes(two.body) == bytes(three.body) == content.body(15)
    assert one.stream == two.stream == three.stream
    assert await runs_of(server, request.run) == 1


async def test_another_body_under_the_same_key_is_refused(server: Server) -> None:
    key = ("idempotency-key", secrets.token_urlsafe(24))
    first = Request("post", 3).with_headers(key)
    other = Request("post", 4).with_headers(key)

    status, _, _ = await fetch(server, "POST", "/generate", headers=first.headers(), body=first.body)
    refused, _, _ = await fetch(server, "POST", "/generate", headers=other.headers(), body=other.body)

    assert (status, refused) == (200, 422)
    assert await runs_of(server, other.run) == 0


async def test_a_start_can_be_answered_at_once_and_polled(server: Server) -> None:
    request = Request("post", 8, delay=0.01).with_headers(("prefer", "respond-async"))

    status, headers, body = await fetch(server, "POST", request.target, headers=request.headers(), body=request.body)
    cursor, outcome, count = json.loads(body)["cursor"], None, 0
    while outcome is None:
        polling = (("accept", "application/json"), ("prefer", "wait=5"), ("last-event-id", cursor))
        polled = json.loads((await fetch(server, "GET", request.path + headers["location"], headers=polling))[2])
        cursor, outcome, count = polled["cursor"], polled["outcome"], count + len(polled["events"])

    assert status == 202
    assert headers["preference-applied"] == "respond-async"
    assert (outcome, count) == ("done", 8)
    assert await runs_of(server, request.run) == 1


@pytest.mark.parametrize("kind", ["eventsource", "post"])
async def test_an_unknown_cursor_is_told_so(server: Server, kind: str) -> None:
    request, reading = Request(kind, 5), Reading()
    async with ask(server, request.method, request.target, headers=request.headers(), body=request.body) as got:
        await follow(got, reading)
    forged = reading.stream[:-4] + "AAAA.3"

    again = Reading()
    async with ask(
        server, request.method, request.target, headers=request.headers(forged), body=request.body
    ) as answered:
        if kind == "eventsource":
            await follow(answered, again)
        else:
            await whole(answered)

    if kind == "eventsource":
        assert answered.status == 200
        assert [control.event for control in again.controls] == ["streamware.reset"]
        assert bytes(again.body) == content.body(5)
    else:
        assert answered.status == 410
    assert await runs_of(server, request.run) == (2 if kind == "eventsource" else 1)


async def test_a_request_that_is_no_stream_is_the_apps_own(server: Server) -> None:
    status, headers, body = await fetch(server, "GET", "/plain", headers=EVENTSOURCE)

    assert status == 200
    assert json.loads(body) == {"plain": True, "words": content.WORDS}
    assert "content-location" not in headers


async def test_a_storm_of_drops_loses_no_stream(server: Server) -> None:
    """200 connections, opened and cut at once, each at a byte of its own."""
    draw = random.Random(server.kind.name + server.app)
    gate = asyncio.Semaphore(50)  # as many handshakes at once as a client's own file and CPU limits allow

    async def drop(request: Request, cut_after: int) -> Reading:
        reading = Reading()
        try:
            async with (
                gate,
                ask(
                    server,
                    request.method,
                    request.target,
                    headers=request.headers(),
                    body=request.body,
                    cut_after=cut_after,
                    how=draw.choice(["rst", "fin"]),
                ) as got,
            ):
                await follow(got, reading)
        except Cut:
            pass
        return reading

    async def resume(request: Request, reading: Reading) -> None:
        reading.reconnect()
        async with (
            gate,
            ask(
                server, request.method, request.target, headers=request.headers(reading.cursor), body=request.body
            ) as got,
        ):
            assert await follow(got, reading)

    requests = [Request(draw.choice(KINDS), 12, delay=0.001) for _ in range(200)]
    readings = await asyncio.gather(*(drop(request, draw.randrange(1200)) for request in requests))
    status, _, _ = await fetch(server, "GET", "/plain")
    begun = [(request, reading) for request, reading in zip(requests, readings, strict=True) if reading.cursor]
    await asyncio.gather(*(resume(request, reading) for request, reading in begun))

    assert status == 200
    assert len(begun) > 50
    for _, reading in begun:
        assert bytes(reading.body) == content.body(12)
        assert (reading.lost, reading.repeated) == (0, 0)
    assert server.running
