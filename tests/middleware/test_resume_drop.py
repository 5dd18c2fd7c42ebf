"""What a drop does to the app: nothing while somebody may come back, and both of ASGI's signals once nobody will."""

from __future__ import annotations

import asyncio

import pytest

from streamware.testing import SERVERS, settle
from streamware.types import Message, Receive, Scope, Send
from tests.middleware.resume_site import EVENTSOURCE, HOLD, READER, Site, body, start, until

ALL_SERVERS = pytest.mark.parametrize("server", sorted(SERVERS))
POST = {"method": "POST", "headers": READER | {"content-length": "10"}}
KEYED = {"method": "POST", "headers": READER | {"content-length": "10", "idempotency-key": "k" * 22}}
ASYNC = {"method": "POST", "headers": READER | {"content-length": "10", "prefer": "respond-async"}}


# -- linger


@ALL_SERVERS
async def test_an_app_does_not_notice_a_drop_for_linger_seconds(server: str) -> None:
    async with Site(linger=30) as site:
        first, run = await site.started("1", server=server)
        first.drop()
        await first.finished()
        await site.clock.advance(29.9)
        await run.say("2")
        assert not run.disconnected.is_set()
        await site.clock.advance(0.2)
        assert run.disconnected.is_set()
        assert site.counted("resume.abandoned", "linger") == 1


async def test_both_signals_of_a_disconnect_come_together() -> None:
    async with Site(linger=30) as site:
        first, run = await site.started("1")
        first.drop()
        await site.clock.advance(30)
        assert run.disconnected.is_set()
        with pytest.raises(OSError, match="gone|ended"):
            await run.say("2")
        again = site.connect(cursor=first.at(0))
        await again.finished()
        assert again.data == ["1"]
        assert not again.complete


async def test_an_app_that_never_listens_is_told_by_its_send() -> None:
    async with Site(linger=30, listens=False) as site:
        first, run = await site.started("1")
        first.drop()
        await site.clock.advance(29)
        await run.say("2")
        await site.clock.advance(2)
        with pytest.raises(OSError, match="gone|ended"):
            await run.say("3")


async def test_an_app_that_waits_for_room_is_told_too() -> None:
    async with Site(linger=30, window=1000, store={"max_log_bytes": 8192}) as site:
        first, run = await site.started("1")
        first.drop()
        await fill(site)
        await site.clock.advance(31)
        await until(run.over.is_set)
        assert isinstance(run.error, OSError)


async def test_linger_zero_tells_the_app_at_once() -> None:
    async with Site(linger=0) as site:
        first, run = await site.started("1")
        first.drop()
        await run.disconnected.wait()
        assert site.clock.now() < 1001


async def test_linger_none_never_tells_the_app() -> None:
    async with Site(linger=None) as site:
        first, run = await site.started("1")
        first.drop()
        await site.clock.advance(7 * 86_400)
        assert not run.disconnected.is_set()
        await run.say("2")
        await run.end()
        again = site.connect(cursor=first.at(1))
        await again.finished()
        assert again.data == ["2"]


async def test_linger_by_path() -> None:
    async with Site(linger={"/stop*": 0, "/work/*": None}) as site:
        for number, (path, seconds, told) in enumerate(
            [("/stop-me", 0, True), ("/work/1", 10_000, False), ("/chat", 29, False), ("/chat", 31, True)], 1
        ):
            first = site.connect(path)
            run = await site.run(number)
            await run.stream("1")
            await first.event()
            first.drop()
            await site.clock.advance(seconds)
            assert run.disconnected.is_set() is told, path


async def test_a_reader_that_comes_back_calls_linger_off_and_its_drop_begins_it_anew() -> None:
    async with Site(linger=30) as site:
        first, run = await site.started("1")
        first.drop()
        await site.clock.advance(25)
        second = site.connect(cursor=first.at(1))
        await second.start()
        await site.clock.advance(100)
        assert not run.disconnected.is_set()
        second.drop()
        await site.clock.advance(29)
        assert not run.disconnected.is_set()
        await site.clock.advance(2)
        assert run.disconnected.is_set()


async def test_linger_counts_from_the_last_of_several_readers() -> None:
    async with Site(linger=30) as site:
        first, run = await site.started("1")
        second = site.connect(first.own_url)
        await second.event()
        first.drop()
        await site.clock.advance(60)
        assert not run.disconnected.is_set()
        second.drop()
        await site.clock.advance(31)
        assert run.disconnected.is_set()


# -- before the response has started, and in mid-upload


@ALL_SERVERS
async def test_a_drop_before_the_start_is_a_disconnect(server: str) -> None:
    async with Site() as site:
        connection = site.connect(server=server)
        run = await site.run()
        connection.drop()
        await run.disconnected.wait()
        await run.put(None)
        await connection.finished()
        assert len(site.store) == 0


@ALL_SERVERS
async def test_a_drop_in_mid_upload_before_the_start_is_a_disconnect(server: str) -> None:
    async with Site() as site:
        connection = site.connect(**POST, body=None, server=server)
        run = await site.run()
        connection.send_body(b"12345", more=True)
        await until(lambda: run.got == b"12345")
        connection.drop()
        await run.disconnected.wait()
        await run.put(None)
        await connection.finished()


@ALL_SERVERS
async def test_a_drop_in_mid_upload_after_the_start_is_a_disconnect(server: str) -> None:
    """Nobody could finish that upload, so the app is not kept waiting for it."""
    async with Site() as site:
        connection = site.connect(**POST, body=None, server=server)
        run = await site.run()
        connection.send_body(b"12345", more=True)
        await run.stream("1")
        await connection.event()
        connection.drop()
        await run.disconnected.wait()
        with pytest.raises(OSError, match="gone|ended"):
            await run.say("2")
        await connection.finished()


@pytest.mark.parametrize("listens", [True, False])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("server", ["hypercorn", "granian"])
async def test_over_http_2_a_request_whose_head_does_not_say_that_it_has_no_body_is_detached_too(
    server: str, method: str, listens: bool
) -> None:
    async with Site(listens=listens) as site:
        first, run = await site.started("1", method=method, server=server, http_version="2")
        first.drop()
        await first.finished()
        await site.clock.advance(10)
        await run.say("2")
        assert not run.disconnected.is_set()
        again = site.connect(cursor=first.at(1), method=method, server=server, http_version="2")
        assert (await again.event()).data == "2"


@pytest.mark.parametrize("server", sorted(SERVERS))
@pytest.mark.parametrize("size", [10, 60_000, 1_000_000])
async def test_a_drop_is_a_detach_for_an_app_that_never_read_its_whole_body(server: str, size: int) -> None:
    """The client has sent all of it, so it can come back."""
    async with Site(listens=False) as site:
        headers = READER | {"content-length": str(size)}
        first, run = await site.started("1", method="POST", headers=headers, body=b"x" * size, server=server)
        await settle()
        first.drop()
        await first.finished()
        await run.say("2")
        again = site.connect(method="POST", headers=headers, body=b"x" * size, cursor=first.at(1), server=server)
        assert (await again.event()).data == "2"
        assert site.runs == 1


async def test_an_upload_that_goes_on_after_the_start_reaches_the_app_whole() -> None:
    async with Site() as site:
        connection = site.connect(**POST, body=None)
        run = await site.run()
        await run.stream("1")
        await connection.event()
        connection.send_body(b"12345", more=True)
        await run.say("2")
        connection.send_body(b"67890")
        await until(lambda: run.got == b"1234567890")
        connection.drop()
        await settle()
        assert not run.disconnected.is_set()


@pytest.mark.parametrize("asked", [KEYED, ASYNC])
async def test_with_a_key_or_respond_async_a_drop_before_the_start_is_a_detach(asked: dict) -> None:
    async with Site(linger=30) as site:
        connection = site.connect(**asked, body=b"1234567890")
        run = await site.run()
        await until(lambda: run.got == b"1234567890")
        connection.drop()
        await site.clock.advance(20)
        assert not run.disconnected.is_set()
        await run.stream("1")
        await run.end()
        await connection.finished()
        if asked is KEYED:
            again = site.connect(**asked, body=b"1234567890")
            await again.finished()
            assert again.data == ["1"]
            assert site.runs == 1


@pytest.mark.parametrize("asked", [KEYED, ASYNC])
async def test_with_a_key_or_respond_async_linger_holds_before_the_start_too(asked: dict) -> None:
    async with Site(linger=30) as site:
        connection = site.connect(**asked, body=b"1234567890")
        run = await site.run()
        await until(lambda: run.got == b"1234567890")
        connection.drop()
        await site.clock.advance(61)
        assert run.disconnected.is_set()
        await run.put(None)
        await connection.finished()


@pytest.mark.parametrize("asked", [KEYED, ASYNC])
async def test_a_key_does_not_make_an_unfinished_upload_resumable(asked: dict) -> None:
    async with Site() as site:
        connection = site.connect(**asked, body=None)
        connection.send_body(b"12345", more=True)
        await settle()
        connection.drop()
        await connection.finished() if asked is KEYED else await settle()
        if site.runs:
            run = await site.run()
            await run.disconnected.wait()
            await run.put(None)
            await connection.finished()
        assert len(site.store) == 0


async def test_a_drop_while_the_response_is_held_back_for_its_first_event_leaves_nothing_behind() -> None:
    async with Site() as site:
        connection = site.connect()
        run = await site.run()
        await run.start()
        connection.drop()
        await run.disconnected.wait()
        await run.put(None)
        await connection.finished()


# -- the server's cancellation


@ALL_SERVERS
async def test_the_callers_cancellation_is_a_detach(server: str) -> None:
    async with Site() as site:
        first, run = await site.started("1", server=server)
        first.cancel()
        await first.finished()
        await run.say("2")
        assert not run.disconnected.is_set()
        again = site.connect(cursor=first.at(1), server=server)
        assert (await again.event()).data == "2"


@ALL_SERVERS
async def test_the_callers_cancellation_before_the_start_cancels_the_app(server: str) -> None:
    async with Site() as site:
        connection = site.connect(server=server)
        run = await site.run()
        connection.cancel()
        await connection.finished()
        assert run.cancelled


async def test_the_callers_cancellation_before_the_start_is_a_detach_with_a_key() -> None:
    async with Site() as site:
        connection = site.connect(**KEYED, body=b"1234567890")
        run = await site.run()
        connection.cancel()
        await connection.finished()
        assert not run.cancelled
        await run.stream("1")
        again = site.connect(**KEYED, body=b"1234567890")
        assert (await again.event()).data == "1"
        assert site.runs == 1


async def test_a_cancellation_while_the_stream_is_announced_leaves_nothing_behind() -> None:
    for turns in range(12):
        async with Site() as site:
            connection = site.connect()
            run = await site.run()
            await run.start()
            run.begin(body(b"data: 1\n\n"))
            await settle(turns)
            connection.cancel()
            await connection.finished()
            await settle()


async def test_a_drop_at_any_turn_of_the_loop_leaves_nothing_behind() -> None:
    for turns in range(30):
        async with Site(linger=5) as site:
            connection = site.eventsource()
            await settle(turns)
            if site.runs:
                run = await site.run()
                run.begin(start())
                run.begin(body(b"data: 1\n\n"))
                await settle(turns // 2)
            connection.drop()
            await settle()
            for run in site.stage.runs:
                run.begin(body(b"data: 2\n\n"))
            await site.clock.advance(6)
            for run in site.stage.runs:
                assert run.disconnected.is_set()


# -- how many may run detached


async def detached(site: Site, number: int, **options: object) -> None:
    """One more stream that nobody reads."""
    connection = site.connect(f"/{number}", **options)
    run = await site.run(number)
    await run.stream("1")
    await connection.event()
    connection.drop()
    await connection.finished()


async def test_over_max_detached_the_oldest_is_told() -> None:
    async with Site(max_detached=2, linger=None) as site:
        for number in (1, 2, 3):
            await detached(site, number)
            await site.clock.advance(1)
        assert [run.disconnected.is_set() for run in site.stage.runs] == [True, False, False]
        assert site.counted("resume.abandoned", "max_detached") == 1
        assert site.resume._worker.detached == 2


async def test_a_stream_that_is_read_again_does_not_count_as_detached() -> None:
    async with Site(max_detached=1, linger=None) as site:
        await detached(site, 1)
        (producer,) = site.resume._worker.producers
        again = site.connect("/1", headers={"accept": "*/*"}, cursor=f"{producer.stream}.0")
        await again.event()
        await detached(site, 2)
        assert [run.disconnected.is_set() for run in site.stage.runs] == [False, False]


async def test_over_max_detached_per_owner_that_owners_oldest_is_told() -> None:
    alice = READER | {"authorization": "Bearer alice"}
    bob = READER | {"authorization": "Bearer bob"}
    async with Site(max_detached_per_owner=2, linger=None) as site:
        for number, headers in enumerate([bob, alice, alice, bob, alice], 1):
            await detached(site, number, headers=headers)
        assert [run.disconnected.is_set() for run in site.stage.runs] == [False, True, False, False, False]
        assert site.counted("resume.abandoned", "max_detached_per_owner") == 1


async def test_an_ended_stream_does_not_count_as_detached() -> None:
    async with Site(max_detached=1, linger=None) as site:
        for number in (1, 2, 3):
            await detached(site, number)
            await (await site.run(number)).end()
            await settle()
        assert site.counted("resume.abandoned", "max_detached") == 0
        assert site.resume._worker.detached == 0


# -- how many may read


@pytest.mark.parametrize("headers", [EVENTSOURCE, READER])
async def test_the_newest_reader_is_never_refused_and_the_oldest_ends_visibly(headers: dict[str, str]) -> None:
    async with Site(max_readers=2) as site:
        first, run = await site.started("1", headers=headers)
        second = site.connect(headers=headers, cursor=first.at(0))
        third = site.connect(headers=headers, cursor=first.at(0))
        await second.event()
        await third.event()
        await first.finished()
        assert not first.complete
        await run.say("2")
        await second.event()
        await third.event()
        assert second.data == third.data == ["1", "2"]
        assert not run.disconnected.is_set()
        assert site.counted("resume.reader_ended", "max_readers") == 1


@pytest.mark.parametrize("server", ["daphne", "hypercorn2"])
async def test_where_a_server_cannot_cut_a_superseded_reader_gets_an_error_event_and_the_end(server: str) -> None:
    options = {"server": "daphne"} if server == "daphne" else {"server": "hypercorn", "http_version": "2"}
    async with Site(max_readers=1) as site:
        first, _ = await site.started("1", **options)
        second = site.connect(cursor=first.at(0), **options)
        await second.event()
        await first.finished()
        assert first.complete
        assert [event.event for event in first.pending_events] == ["error"]


# -- what the app sees while it is detached


async def test_receive_waits_while_detached_and_goes_on_waiting_after_a_resume() -> None:
    async with Site(listens=False) as site:
        first, run = await site.started("1")
        waiting: list[Message] = []

        async def listen() -> None:
            waiting.append(await run.receive())  # the request
            waiting.append(await run.receive())

        run.begin(listen)
        await settle()
        assert len(waiting) == 1
        first.drop()
        await settle()
        again = site.connect(cursor=first.at(0))
        await again.event()
        await settle()
        assert len(waiting) == 1
        again.drop()
        await site.clock.advance(31)
        assert [message["type"] for message in waiting] == ["http.request", "http.disconnect"]


async def test_an_app_that_asks_now_and_then_whether_its_client_is_gone_is_told_when_linger_is_over() -> None:
    """Starlette's ``is_disconnected`` gives up its ``receive`` at the first wait: no message may be lost by that."""
    from starlette.requests import Request

    async with Site(listens=False) as site:
        first = site.connect(method="POST", body=b"question", headers=READER | {"content-length": "8"})
        run = await site.run()
        request = Request(run.scope, run.receive)
        answers: list[object] = []

        async def ask() -> None:
            answers.append(await request.is_disconnected())

        async def read() -> None:
            answers.append(await request.body())

        await run.put(read, ask, ask)
        await run.stream("1")
        await run.put(ask, ask)
        await first.event()
        first.drop()
        await first.finished()
        await site.clock.advance(20)
        await run.put(ask, ask)
        await site.clock.advance(20)
        await run.put(ask)
        assert answers == [b"question", *[False] * 6, True]


async def test_an_app_that_polls_for_its_client_before_the_start_is_told() -> None:
    from starlette.requests import Request

    async with Site(listens=False) as site:
        connection = site.connect()
        run = await site.run()
        request = Request(run.scope, run.receive)
        answers: list[bool] = []

        async def ask() -> None:
            answers.append(await request.is_disconnected())

        await run.put(ask)
        await settle()
        await run.put(ask)
        connection.drop()
        await settle()
        await run.put(ask, ask)
        assert answers[:2] == [False, False]
        assert answers[-1] is True
        await run.put(None)
        await connection.finished()


@ALL_SERVERS
async def test_a_disconnect_is_told_again_to_an_app_that_asks_again(server: str) -> None:
    async with Site(listens=False) as site:
        connection = site.connect(server=server)
        run = await site.run()
        connection.drop()
        got: list[str] = []

        async def listen() -> None:
            for _ in range(4):
                got.append((await run.receive())["type"])

        await run.put(listen, None)
        assert got[-2:] == ["http.disconnect", "http.disconnect"]
        await connection.finished()


async def test_after_the_final_body_receive_says_disconnect() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        await run.put(body(b"", False))
        await run.disconnected.wait()
        await first.finished()
        await run.put(None)


async def test_an_app_goes_on_after_its_final_body_in_its_own_time() -> None:
    """Starlette's background tasks run there: the client's call does not wait, and nothing is cut off."""
    done = asyncio.Event()

    async def clean_up() -> None:
        await asyncio.sleep(0)
        done.set()

    async with Site() as site:
        first, run = await site.started("1")
        await run.put(body(b"", False))
        await first.finished()
        assert first.complete
        await run.put(clean_up, None)
        assert done.is_set()


# -- backpressure


async def fill(site: Site, number: int = 1, size: int = 100) -> int:
    """Let the app send until it has to wait; how many events that took."""
    run = await site.run(number)
    for count in range(1, 10_000):
        sent = run.begin(body(b"data: %b\n\n" % (b"x" * size)))
        await settle(8)
        if not sent.done():
            return count
    raise AssertionError("nothing held the app back")


async def test_the_app_waits_when_it_is_a_window_ahead_of_its_only_reader() -> None:
    async with Site(window=2000) as site:
        first, _ = await site.started("1")
        first.stall()
        count = await fill(site)
        assert 10 <= count <= 30
        first.unstall()
        await first.events(count)


async def test_the_app_is_held_back_by_the_foremost_reader_never_by_a_slow_one() -> None:
    async with Site(window=2000) as site:
        slow, run = await site.started("1")
        fast = site.connect(cursor=slow.at(1))
        await fast.start()
        slow.stall()
        for _ in range(200):
            await run.put(body(b"data: %b\n\n" % (b"x" * 100)))
        await fast.events(200)
        fast.stall()
        assert await fill(site) <= 30
        fast.unstall()
        slow.unstall()
        await slow.events(200)


async def test_a_reader_that_stalls_for_good_never_holds_its_successor_back() -> None:
    async with Site(window=2000) as site:
        zombie, run = await site.started("1")
        zombie.stall()
        count = await fill(site)
        again = site.connect(cursor=zombie.at(1))
        await again.events(count)
        for _ in range(100):
            await run.put(body(b"data: %b\n\n" % (b"x" * 100)))
        await again.events(100)


async def test_with_nobody_there_the_app_waits_at_the_logs_capacity_and_nothing_is_trimmed() -> None:
    async with Site(store={"max_log_bytes": 8192}, window=1000) as site:
        first, run = await site.started("0")
        first.drop()
        await first.finished()
        count = await fill(site, size=200)
        assert 25 <= count <= 45
        again = site.connect(cursor=first.at(1))
        await again.events(count)
        await run.say("last")
        assert (await again.event()).data == "last"
        assert again.controls == []


async def test_a_blocked_send_of_a_client_that_leaves_loses_nothing() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        first.stall()
        await run.say("2", "3")
        await settle()
        first.drop()
        await first.finished()
        again = site.connect(cursor=first.at(1))
        assert [event.data for event in await again.events(2)] == ["2", "3"]


@pytest.mark.parametrize("options", [{"server": "daphne"}, {"server": "hypercorn", "http_version": "2"}])
async def test_a_server_that_accepts_without_limit_is_fed_at_a_pace(options: dict[str, str]) -> None:
    """A dead phone "receives" everything there: what it has not seen must still fit into the log."""
    async with Site(store={"max_log_bytes": 8192}, window=1024) as site:
        first, run = await site.started("0", **options)
        orders = [run.begin(body(b"data: %b\n\n" % (b"x" * 200))) for _ in range(400)]
        await settle(2000)
        taken = len(first.body)
        assert 8192 - 1024 <= taken <= 8192 + 2 * 1024
        assert sum(order.done() for order in orders) * 250 <= taken + 2 * 8192
        for _ in range(10):
            await site.clock.advance(15)
        assert taken + 5 * 1024 <= len(first.body) <= taken + 12 * 1024
        first.drop()
        await site.clock.advance(31)
        await until(run.over.is_set)
        assert isinstance(run.error, OSError)


async def test_a_server_with_backpressure_is_not_paced() -> None:
    async with Site(store={"max_log_bytes": 8192}, window=1024) as site:
        first, run = await site.started("0")
        for _ in range(200):
            await run.put(body(b"data: %b\n\n" % (b"x" * 200)))
        await first.events(200)


# -- the server's receive and send


@ALL_SERVERS
async def test_drop_and_resume_on_every_server(server: str) -> None:
    async with Site() as site:
        first, run = await site.started("1", "2", server=server, headers=EVENTSOURCE)
        first.drop()
        await first.finished()
        await run.say("3")
        assert first.sent_after_disconnect == []
        second = site.eventsource(cursor=first.at(2), server=server)
        await second.events(1)
        await run.say("4")
        await second.event()
        second.drop()
        await second.finished()
        await run.say("5")
        await run.end()
        third = site.eventsource(cursor=first.at(4), server=server)
        await third.finished()
        assert [first.data, second.data, third.data] == [["1", "2"], ["3", "4"], ["5"]]
        assert site.runs == 1


async def test_no_send_is_made_once_the_client_is_known_to_be_gone() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        first.drop()
        await settle()
        await run.say("2", "3")
        await run.end()
        await first.finished()
        assert first.sent_after_disconnect == []


@pytest.mark.parametrize("kind", [OSError, RuntimeError])
async def test_a_server_whose_send_raises_after_the_start_is_a_drop(kind: type[Exception]) -> None:
    async with Site() as site:
        raised: list[str] = []

        def around(scope: Scope, receive: Receive, send: Send):
            async def failing(message: Message) -> None:
                if message["type"] == "http.response.body" and b"broken" in message.get("body", b""):
                    raised.append("once")
                    raise kind("reset by peer")
                await send(message)

            return site.resume(scope, receive, failing)

        site.app = around
        first, run = await site.started("1")
        await run.put(body(b"data: broken\n\n"))
        await first.finished()
        assert raised == ["once"]
        assert not run.disconnected.is_set()
        site.app = site.resume
        again = site.connect(cursor=first.at(1))
        assert (await again.event()).data == "broken"
        await site.clock.advance(100)
        again.drop()
        await site.clock.advance(31)
        assert run.disconnected.is_set()


async def test_a_server_whose_receive_raises_before_the_start_raises_in_the_app() -> None:
    async with Site(listens=False) as site:
        error = RuntimeError("a broken request")

        async def around(scope: Scope, receive: Receive, send: Send) -> None:
            async def failing() -> Message:
                raise error

            await site.resume(scope, failing, send)

        site.app = around
        connection = site.connect()
        run = await site.run()
        with pytest.raises(RuntimeError, match="a broken request"):
            await run.put(run.receive)
        with pytest.raises(RuntimeError, match="a broken request"):
            await connection.finished()


async def test_a_server_whose_receive_raises_after_the_start_is_a_drop() -> None:
    async with Site(listens=False) as site:
        broken: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        async def around(scope: Scope, receive: Receive, send: Send) -> None:
            async def failing() -> Message:
                return await broken

            await site.resume(scope, failing, send)

        site.app = around
        first, run = await site.started("1")
        broken.set_exception(RuntimeError("a broken connection"))
        await first.finished()
        site.app = site.resume
        await run.say("2")
        again = site.connect(cursor=first.at(1))
        assert (await again.event()).data == "2"


async def test_an_app_that_sends_without_pause_lets_its_reader_have_turns() -> None:
    async with Site(window=10_000) as site:

        async def flood() -> None:
            for _ in range(20_000):
                await site.stage.runs[0].send(body(b"data: x\n\n"))

        first, run = await site.started("1")
        flooding = run.begin(flood)
        turns = 0
        while not flooding.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns > 50
        assert len(first.body) > 500_000


async def test_a_hold_that_is_over_sends_the_start() -> None:
    async with Site() as site:
        connection = site.connect()
        run = await site.run()
        await run.start()
        await site.clock.advance(HOLD)
        await connection.start()
        connection.drop()
        await connection.finished()
        await run.say("1")
        again = site.connect(cursor=connection.at(0))
        assert (await again.event()).data == "1"
