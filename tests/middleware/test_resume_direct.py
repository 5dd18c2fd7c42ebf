"""Events that the app's own ``send`` hands straight to a reader that has nothing else to do: the reader must not be
able to tell, the app must never wait for a client, and no other task's ``send`` is ever cut off."""

from __future__ import annotations

import asyncio

import pytest

from streamware.middleware.heartbeat import HeartbeatMiddleware
from streamware.testing import FakeClock, settle
from streamware.types import ASGIApp, Message, Receive, Scope, Send
from tests.middleware.resume_site import EVENTSOURCE, READER, Site, UvicornCycle, as_uvicorn, body, start, until

LIKE_OR_NOT = pytest.mark.parametrize("headers", [EVENTSOURCE, READER], ids=["eventsource", "other"])


@LIKE_OR_NOT
async def test_one_event_a_tick_arrives_before_the_apps_send_returns(headers: dict[str, str]) -> None:
    async with Site(around=as_uvicorn) as site:
        first, run = await site.started("1", headers=headers)
        await settle()
        arrived = []

        async def send_one() -> None:
            await run.send(body(b"data: x\n\n"))
            arrived.append(first.body.count(b"data: x"))

        for _ in range(3):
            await run.put(send_one)
            await settle()
        await run.end()
        await first.finished()
        assert arrived == [1, 2, 3], "no event of these was handed over: the way is not taken at all"
        assert first.data == ["1", "x", "x", "x"]


async def test_a_burst_within_one_tick_stays_in_order() -> None:
    async with Site(around=as_uvicorn) as site:
        first, run = await site.started("0")

        async def burst() -> None:
            for number in range(1, 101):
                await run.send(body(b"data: %d\n\n" % number))

        await settle()
        await run.put(burst)
        await run.say("101")
        await run.end()
        await first.finished()
        assert first.data == [str(number) for number in range(102)]
        assert len(first.chunks) < 20


async def test_events_one_a_tick_then_a_burst_then_one_a_tick_stay_in_order() -> None:
    async with Site(around=as_uvicorn) as site:
        first, run = await site.started("0")
        number = 0

        async def mixed() -> None:
            nonlocal number
            for size in (1, 1, 1, 1, 1, 5, 1, 1, 30, 1, 1, 1, 1, 1, 1, 20, 1):
                for _ in range(size):
                    number += 1
                    await run.send(body(b"data: %d\n\n" % number))
                await asyncio.sleep(0)

        await run.put(mixed)
        await run.end()
        await first.finished()
        assert first.data == [str(n) for n in range(number + 1)]


async def test_a_client_that_does_not_read_holds_neither_the_app_nor_another_reader() -> None:
    async with Site(around=as_uvicorn, window=100_000) as site:
        zombie, run = await site.started("0")
        await settle()
        zombie.stall()
        for number in range(1, 50):
            await run.say(str(number))
            await settle(2)
        again = site.connect(cursor=zombie.at(1))
        assert [event.data for event in await again.events(49)] == [str(number) for number in range(1, 50)]
        zombie.unstall()
        await zombie.events(49)
        assert zombie.data == [str(number) for number in range(50)]


@pytest.mark.parametrize("leave", ["drop", "cancel"])
async def test_a_client_that_leaves_while_a_handed_over_send_is_blocked_loses_nothing(leave: str) -> None:
    async with Site(around=as_uvicorn) as site:
        first, run = await site.started("1")
        await settle()
        first.stall()
        await run.say("2")
        await settle()
        await run.say("3")
        if leave == "drop":
            first.drop()
        else:
            first.cancel()
        await first.finished()
        assert not run.cancelled
        assert not run.disconnected.is_set()
        again = site.connect(cursor=first.at(1))
        assert [event.data for event in await again.events(2)] == ["2", "3"]


async def test_a_stop_while_a_handed_over_send_is_blocked_does_not_break_it_off() -> None:
    async with Site(around=as_uvicorn, heeds=True) as site:
        first, run = await site.started("1")
        await settle()
        first.stall()
        await run.say("2")
        await settle()
        stop = site.connect(first.own_url, method="DELETE", headers={})
        await stop.finished()
        assert stop.status == 204
        await until(run.over.is_set)
        first.unstall()
        await first.finished()
        assert first.data == ["1", "2"]
        assert first.complete


async def test_no_send_is_made_to_a_client_that_is_known_to_be_gone() -> None:
    async with Site(around=as_uvicorn) as site:
        first, run = await site.started("1")
        await settle()
        await run.say("2")
        first.drop()
        await settle(4)
        await run.say("3", "4")
        await first.finished()
        assert first.sent_after_disconnect == []
        again = site.connect(cursor=first.at(2))
        assert [event.data for event in await again.events(2)] == ["3", "4"]


async def test_what_the_send_raises_is_the_connections_and_not_the_apps() -> None:
    """Neither an error of the server's, nor the message that met it, is lost on the app's side."""
    async with Site() as site:
        broken = False

        class Failing(UvicornCycle):
            __module__ = UvicornCycle.__module__

            async def send(self, message: Message) -> None:
                if broken:
                    raise OSError("reset by peer")
                await super().send(message)

        async def around(scope: Scope, receive: Receive, send: Send) -> None:
            await site.resume(scope, receive, Failing(send).send)

        site.app = around
        first, run = await site.started("1")
        await settle()
        broken = True
        await run.say("2")
        await run.say("3")
        await first.finished()
        assert not run.disconnected.is_set()
        broken = False
        again = site.connect(cursor=first.at(1))
        assert [event.data for event in await again.events(2)] == ["2", "3"]


async def test_pings_and_events_keep_their_order() -> None:
    async with Site(around=as_uvicorn) as site:
        first, run = await site.started("1")
        await settle()
        for number in range(2, 20):
            await run.put(body(b": ping %d\n\n" % number), body(b"data: %d\n\n" % number))
            await settle(number % 4)
        await run.end()
        await first.finished()
        assert first.data == [str(number) for number in range(1, 20)]
        for number in range(2, 20):
            assert first.body.find(b": ping %d\n" % number) < first.body.find(b"data: %d\n" % number) + 40


async def test_large_events_between_handed_over_ones_keep_their_order() -> None:
    async with Site(around=as_uvicorn, max_event_bytes=1000) as site:
        first, run = await site.started("1")
        await settle()
        await run.say("2")
        await settle()
        await run.put(body(b"data: " + b"x" * 3000), body(b"y\n\n"))
        await run.say("4")
        await settle()
        await run.say("5")
        await run.end()
        await first.finished()
        assert first.data == ["1", "2", "x" * 3000 + "y", "4", "5"]


async def test_a_second_reader_that_comes_between_gets_every_event_once() -> None:
    for turns in range(8):
        async with Site(around=as_uvicorn) as site:
            first, run = await site.started("0")
            await settle()
            await run.say("1")
            await settle(turns)
            second = site.connect(first.own_url)
            for number in range(2, 12):
                await run.say(str(number))
                await settle(turns % 3)
            first.drop()
            await run.say("12", "13")
            await run.end()
            await second.finished()
            assert second.data == [str(number) for number in range(14)]


async def test_events_that_were_handed_over_are_trimmed_like_any_that_were_sent() -> None:
    async with Site(around=as_uvicorn, store={"max_log_bytes": 4096}) as site:
        first, run = await site.started("0")
        for _ in range(200):
            await run.put(body(b"data: %b\n\n" % (b"x" * 200)))
            await settle(2)
        await first.events(200)
        log = site.store._logs[first.stream]
        assert log.first > 100
        assert site.store.size <= 4096


async def test_the_window_counts_what_was_handed_over_and_is_blocked() -> None:
    async with Site(around=as_uvicorn, window=2000) as site:
        first, run = await site.started("0")
        await settle()
        first.stall()
        waited = False
        for _ in range(100):
            sent = run.begin(body(b"data: %b\n\n" % (b"x" * 100)))
            await settle(8)
            waited = not sent.done()
            if waited:
                break
        assert waited
        first.unstall()
        await settle()
        assert sent.done()


async def test_the_app_never_sends_in_the_name_of_a_server_that_is_not_known() -> None:
    """Its ``send`` may keep state by task: an outer middleware's context variables, a lock, a cancel scope."""
    tasks: set[object] = set()

    def around(app):
        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            async def spy(message: Message) -> None:
                tasks.add(asyncio.current_task())
                await send(message)

            await app(scope, receive, spy)

        return call

    async with Site(around=around) as site:
        first, run = await site.started("1")
        for number in range(20):
            await run.say(str(number))
            await settle(3)
        await first.events(20)
        assert tasks == {first._task}


async def test_a_handover_to_the_apps_own_ids_reaches_the_connection_whole() -> None:
    async with Site(around=as_uvicorn) as site:
        first = site.eventsource()
        run = await site.run()
        await run.put(start())
        await site.clock.advance(0.1)
        await run.put(body(b"id: 7\ndata: one\n\n"), body(b"id: 8\ndata: two\n\n", False), None)
        await first.finished()
        assert [(event.id, event.data) for event in first.pending_events] == [("7", "one"), ("8", "two")]


# -- with heartbeats on the way

INTERVAL = 15.0


async def test_a_heartbeat_comes_an_interval_behind_the_last_event_that_was_handed_over() -> None:
    clock = FakeClock()

    def beating(app: ASGIApp) -> ASGIApp:
        return as_uvicorn(HeartbeatMiddleware(app, interval=INTERVAL, clock=clock))

    async with Site(around=beating, clock=clock) as site:
        first, run = await site.started("1")
        await settle()
        await clock.advance(INTERVAL - 1)
        await run.say("2")
        await clock.advance(INTERVAL - 1)
        assert b":\n" not in first.body, "it was not silent for an interval"
        await clock.advance(1.5)
        assert first.body.endswith(b"\n\n:\n")
        await run.say("3")
        await run.end()
        await first.finished()
        assert first.data == ["1", "2", "3"]


async def test_a_heartbeat_waits_while_a_handed_over_event_is_still_being_sent() -> None:
    clock = FakeClock()

    def beating(app: ASGIApp) -> ASGIApp:
        return as_uvicorn(HeartbeatMiddleware(app, interval=INTERVAL, clock=clock))

    async with Site(around=beating, clock=clock) as site:
        first, run = await site.started("1")
        await settle()
        first.stall()
        await run.say("2")
        await clock.advance(3 * INTERVAL)
        first.unstall()
        await settle()
        assert first.body.count(b":\n") == 0, "backpressure is not silence"
        await run.end()
        await first.finished()
        assert first.data == ["1", "2"]
