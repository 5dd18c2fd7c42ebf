"""A token that expires in the middle of a stream: what each kind of client gets, and what goes on."""

from __future__ import annotations

import asyncio
import gc
import re
import weakref

import pytest

from streamware import AuthMiddleware, Expiry, HeartbeatMiddleware, Middleware, Stack
from streamware.testing import FakeClock, settle
from tests.middleware.auth_site import KINDS, LIFE, WAYS, AuthConnection, Chat, Desk, Worker
from tests.middleware.resume_site import EVENTSOURCE, READER, body, plain, start

SERVERS = ["uvicorn", "hypercorn", "daphne", "granian"]
CUTTING = [server for server in SERVERS if server != "daphne"]
RETRY = re.compile(rb"retry: (\d+)\nevent: streamware\.auth-expired\n")
WARN = Expiry(action="warn", leeway=0, jitter=0, warn_before=30)
IGNORE = Expiry(action="ignore", leeway=0, jitter=0)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    kept: str = request.param
    return kept


# -- close, with a log


@pytest.mark.parametrize("server", SERVERS)
async def test_an_eventsource_is_told_and_ended_with_its_cursor(way: str, server: str) -> None:
    async with Worker(way=way) as worker:
        connection, run = await worker.streaming("eventsource", worker.desk.issue(), "a", "b", server=server)
        await worker.clock.advance(LIFE - 1)
        assert not connection.returned
        await worker.clock.advance(1)
        await connection.finished()

        assert connection.complete
        assert connection.data == ["a", "b"]
        assert connection.controls == ["auth-expired"]
        found = RETRY.search(connection.body)
        assert found is not None
        assert 1500 <= int(found[1]) <= 4500
        last = connection._all_events()[-1]
        assert last.data == f'{{"reason":"auth-expired","cursor":"{connection.at(2)}"}}'
        assert not run.over.is_set()
        assert worker.counted("auth.ended", "auth-expired") == 1
        assert worker.counted("resume.cut", "auth-expired") == 1


@pytest.mark.parametrize("server", CUTTING)
async def test_a_script_is_cut_visibly(way: str, server: str) -> None:
    async with Worker(way=way) as worker:
        connection, run = await worker.streaming("script", worker.desk.issue(), "a", server=server)
        await worker.clock.advance(LIFE)
        await connection.finished()

        assert not connection.complete
        assert connection.data == ["a"]
        assert connection.controls == []
        assert not run.over.is_set()


@pytest.mark.parametrize(("server", "http_version"), [("daphne", "1.1"), ("hypercorn", "2"), ("uvicorn", "1.0")])
async def test_where_the_server_cannot_cut_a_script_gets_an_error_event(
    way: str, server: str, http_version: str
) -> None:
    async with Worker(way=way) as worker:
        connection, run = await worker.streaming(
            "script", worker.desk.issue(), "a", server=server, http_version=http_version
        )
        await worker.clock.advance(LIFE)
        await connection.finished()

        assert connection.complete
        assert connection.data[0] == "a"
        assert '"type":"streamware.auth-expired"' in connection.data[1]
        assert connection._all_events()[-1].event == "error"
        assert not run.over.is_set()


@pytest.mark.parametrize("kind", ["eventsource", "script"])
async def test_the_stream_goes_on_and_a_fresh_token_reads_on_with_nothing_lost(way: str, kind: str) -> None:
    async with Worker(way=way) as worker:
        connection, run = await worker.streaming(kind, worker.desk.issue(), "a", "b")
        await worker.clock.advance(LIFE)
        await connection.finished()
        await run.say("c")
        again = worker.connect(worker.desk.issue(), headers=KINDS[kind], cursor=connection.at(2))
        await run.say("d")
        await run.end()
        await again.finished()

        assert connection.data + again.data == ["a", "b", "c", "d"]
        assert again.complete
        assert again.controls == []
        assert len(worker.stage.runs) == 1


async def test_a_resume_by_another_user_is_answered_as_unknown(way: str) -> None:
    async with Worker(way=way) as worker:
        connection, run = await worker.streaming("script", worker.desk.issue("ann"), "a")
        cursor = connection.at(1)
        for stranger in (worker.desk.issue("bob"), worker.desk.issue("ann", issuer="https://other.example")):
            other = worker.connect(stranger, cursor=cursor)
            await other.finished()
            assert other.status == 410
            assert b'"reason":"unknown"' in other.body
            own_url = worker.connect(stranger, path=connection.own_url)
            await own_url.finished()
            assert own_url.status == 404
        again = worker.connect(worker.desk.issue("ann"), cursor=cursor)
        await run.say("b")
        await run.end()
        await again.finished()
        assert again.data == ["b"]
        assert len(worker.stage.runs) == 1


async def test_an_expired_token_resumes_nothing(way: str) -> None:
    async with Worker(way=way) as worker:
        token = worker.desk.issue()
        connection, run = await worker.streaming("script", token, "a")
        await worker.clock.advance(LIFE)
        await connection.finished()
        again = worker.connect(token, cursor=connection.at(1))
        await again.finished()
        assert again.status == 401
        await run.end()


async def test_an_event_that_is_said_at_the_same_moment_is_in_the_log_or_on_the_wire(way: str) -> None:
    async with Worker(way=way) as worker:
        connection, run = await worker.streaming("script", worker.desk.issue(), "a")
        await worker.clock.advance(LIFE - 0.001)
        saying = [run.begin(body(b"data: %d\n\n" % number)) for number in range(10)]
        await worker.clock.advance(0.001)
        await asyncio.gather(*saying)
        await connection.finished()
        seen = len(connection.data)
        again = worker.connect(worker.desk.issue(), cursor=connection.at(seen))
        await run.end()
        await again.finished()
        assert connection.data + again.data == ["a", *map(str, range(10))]


async def test_an_event_too_large_for_the_log_is_cut_in_the_middle(way: str) -> None:
    async with Worker(way=way, resume={"max_event_bytes": 100}) as worker:
        connection, run = await worker.streaming("eventsource", worker.desk.issue(), "a")
        await run.put(body(b"data: " + b"x" * 200))
        await connection.receive_body(lambda got: got.endswith(b"x" * 200) or b"x" * 100 in got)
        await worker.clock.advance(LIFE)
        await connection.finished()
        assert not connection.complete
        assert connection.controls == []


# -- close, without a log


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("encoding", ["sse", "ndjson"])
async def test_a_response_without_a_log_gets_an_error_and_its_app_is_told(way: str, server: str, encoding: str) -> None:
    async with Worker(way=way) as worker:
        connection = worker.connect(worker.desk.issue(), headers=KINDS["unlogged"], server=server)
        run = await worker.stage.run()
        if encoding == "sse":
            await run.stream("a")
            said = b"data: a\n\n"
        else:
            said = b'{"n":1}\n'
            await run.put(start([(b"content-type", b"application/x-ndjson")]), body(said))
        await worker.clock.advance(LIFE)
        await asyncio.wait_for(run.disconnected.wait(), 5)
        await run.put(None)
        await connection.finished()

        assert connection.complete
        rest = plain(connection.body).replace(b":\n", b"").removeprefix(said)
        message = b'{"error":{"type":"streamware.auth-expired","message":"'
        assert rest.startswith(b"event: error\ndata: " + message if encoding == "sse" else message)
        assert rest.endswith(b"}\n\n" if encoding == "sse" else b"}\n")
        assert worker.counted("auth.ended", "auth-expired") == 1


async def test_an_eventsource_without_a_log_is_told(way: str) -> None:
    headers = {**EVENTSOURCE}
    async with Worker(way=way, resume={"exclude": ["/plain"]}) as worker:
        connection = worker.connect(worker.desk.issue(), path="/plain", headers=headers)
        run = await worker.stage.run()
        await run.stream("a")
        await worker.clock.advance(LIFE)
        await asyncio.wait_for(run.disconnected.wait(), 5)
        await run.put(None)
        await connection.finished()
        assert connection.controls == ["auth-expired"]
        assert connection._all_events()[-1].data == '{"reason":"auth-expired"}'
        assert connection.complete


async def test_an_app_in_the_middle_of_an_event_gets_to_end_it(way: str) -> None:
    async with Worker(way=way) as worker:
        connection = worker.connect(worker.desk.issue(), headers=KINDS["unlogged"])
        run = await worker.stage.run()
        await run.start()
        await run.put(body(b"data: be"))
        await worker.clock.advance(LIFE)
        await run.put(body(b"gun\n\n"))
        await asyncio.wait_for(run.disconnected.wait(), 5)
        await run.put(None)
        await connection.finished()
        assert connection.data[0] == "begun"
        assert "auth-expired" in connection.data[1]


@pytest.mark.parametrize("composed", [way for way in WAYS if way != "packed"])
@pytest.mark.parametrize("server", SERVERS)
async def test_an_encoded_response_without_a_log_is_ended_before_its_encoding_is_complete(
    composed: str, server: str
) -> None:
    async with Worker(way=composed) as worker:
        connection = worker.connect(worker.desk.issue(), headers=KINDS["unlogged"], server=server)
        run = await worker.stage.run()
        await run.put(start([(b"content-type", b"text/event-stream"), (b"content-encoding", b"br")]), body(b"\x01\x02"))
        await worker.clock.advance(LIFE)
        await asyncio.wait_for(run.disconnected.wait(), 5)
        await run.put(None)
        await connection.finished()
        assert connection.chunks[:1] == [b"\x01\x02"]
        assert b"".join(connection.chunks) == b"\x01\x02"
        assert connection.complete is (server == "daphne")


@pytest.mark.parametrize("composed", [way for way in WAYS if way != "packed"])
async def test_an_app_that_goes_on_sending_while_its_encoded_response_is_ended_is_told(composed: str) -> None:
    async with Worker(way=composed) as worker:
        connection = worker.connect(worker.desk.issue(), headers=KINDS["unlogged"], server="daphne")
        run = await worker.stage.run()
        await run.put(start([(b"content-type", b"text/event-stream"), (b"content-encoding", b"br")]), body(b"\x01\x02"))
        connection.stall()
        await worker.clock.advance(LIFE)
        await settle()
        late = run.begin(body(b"\x03"))
        await settle()
        connection.unstall()
        assert isinstance(await asyncio.wait_for(late, 5), OSError)
        await connection.finished()
        assert b"".join(connection.chunks) == b"\x01\x02"
        assert connection.complete


@pytest.mark.parametrize("given", [
    [(b"content-type", b"text/plain")],
    [(b"content-type", b"text/event-stream"), (b"content-length", b"100")],
], ids=["plain", "of a length"])  # fmt: skip
async def test_what_is_no_stream_is_left_alone_and_costs_no_timer(given: list[tuple[bytes, bytes]]) -> None:
    async with Worker(way="mute") as worker:
        connection = worker.connect(worker.desk.issue(), headers=KINDS["unlogged"])
        run = await worker.stage.run()
        await run.put(start(given), body(b"x" * 50))
        assert worker.clock.timers == 0
        await worker.clock.advance(2 * LIFE)
        await run.put(body(b"x" * 50, False), None)
        await connection.finished()
        assert connection.complete
        assert connection.body == b"x" * 100


async def test_a_stream_that_ends_before_its_token_leaves_no_timer(way: str) -> None:
    async with Worker(way=way) as worker:
        for kind in KINDS:
            connection, run = await worker.streaming(kind, worker.desk.issue(), "a")
            await run.end()
            await connection.finished()
            assert connection.complete
        await worker.clock.advance(2 * LIFE)
        assert worker.observer.total("auth.ended") == 0


async def test_a_client_that_takes_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamware.streams.farewell.PATIENCE", 0.05)
    async with Worker() as worker:
        connection, run = await worker.streaming("unlogged", worker.desk.issue(), "a")
        other, _ = await worker.streaming("eventsource", worker.desk.issue(), "a")
        connection.stall()
        await worker.clock.advance(LIFE)
        await other.finished()
        await asyncio.wait_for(run.disconnected.wait(), 5)
        connection.drop()
        await run.put(None)
        await connection.finished()


# -- warn


async def test_an_eventsource_is_warned_and_then_ended(way: str) -> None:
    async with Worker(way=way, expiry=WARN) as worker:
        connection, run = await worker.streaming("eventsource", worker.desk.issue(), "a")
        await worker.clock.advance(LIFE - 30)
        assert connection.controls == ["auth-expiring"]
        assert connection._all_events()[-1].data == '{"seconds":30}'
        assert not connection.returned
        await run.say("b")
        await worker.clock.advance(30)
        await connection.finished()
        assert connection.controls == ["auth-expiring", "auth-expired"]
        assert connection.data == ["a", "b"]
        assert worker.counted("auth.warned") == 1
        assert worker.counted("heartbeat.sent", "event") == 0


@pytest.mark.parametrize("kind", ["script", "unlogged"])
async def test_others_are_not_warned_but_ended(way: str, kind: str) -> None:
    async with Worker(way=way, expiry=WARN) as worker:
        connection, run = await worker.streaming(kind, worker.desk.issue(), "a")
        await worker.clock.advance(LIFE - 1)
        assert plain(connection.body).replace(b":\n", b"") == b"data: a\n\n"
        assert worker.counted("auth.warned") == 0
        await worker.clock.advance(1)
        run.begin(None)
        await connection.finished()
        assert connection.controls == []


async def test_a_client_that_asks_for_control_events_is_warned() -> None:
    async with Worker(expiry=WARN) as worker:
        headers = {"accept": "*/*", "prefer": "control-events"}
        connection, _ = await worker.started(worker.desk.issue(), "a", headers=headers, method="POST")
        await worker.clock.advance(LIFE - 30)
        assert connection.controls[-1:] == ["auth-expiring"]


@pytest.mark.parametrize("path", ["/plain", "/chat"])
async def test_lines_are_not_warned_of_in_events(way: str, path: str) -> None:
    listed = {"exclude": ["/plain"], "media_types": ["text/event-stream", "application/x-ndjson"]}
    async with Worker(way=way, expiry=WARN, resume=listed) as worker:
        connection = worker.connect(worker.desk.issue(), path=path, headers=EVENTSOURCE)
        run = await worker.stage.run()
        await run.put(start([(b"content-type", b"application/x-ndjson")]), body(b'{"n":1}\n'))
        await worker.clock.advance(LIFE - 1)
        assert connection.body == b'{"n":1}\n'
        assert worker.counted("auth.warned") == 0
        await worker.clock.advance(1)
        run.begin(None)
        await connection.finished()


async def test_a_warning_waits_for_the_end_of_an_event(way: str) -> None:
    async with Worker(way=way, expiry=WARN, resume={"exclude": ["/plain"]}) as worker:
        connection = worker.connect(worker.desk.issue(), path="/plain", headers=EVENTSOURCE)
        run = await worker.stage.run()
        await run.start()
        await run.put(body(b"data: be"))
        await worker.clock.advance(LIFE - 25)
        assert connection.controls == []
        await run.put(body(b"gun\n\n"))
        await worker.clock.advance(1)
        assert connection.data == ["begun"]
        assert connection.controls == ["auth-expiring"]
        assert 23 <= int(connection._all_events()[-1].data[11:-1]) <= 25


async def test_a_token_that_is_about_to_expire_is_warned_of_at_once() -> None:
    async with Worker(expiry=WARN) as worker:
        connection, _ = await worker.streaming("eventsource", worker.desk.issue(life=10), "a")
        await worker.clock.advance(0.5)
        assert connection.controls == ["auth-expiring"]
        await worker.clock.advance(9.5)
        await connection.finished()


# -- ignore, max_age, jitter


@pytest.mark.parametrize("kind", KINDS)
async def test_ignored_expiry_ends_nothing(way: str, kind: str) -> None:
    async with Worker(way=way, expiry=IGNORE) as worker:
        connection, run = await worker.streaming(kind, worker.desk.issue(), "a")
        await worker.clock.advance(10 * LIFE)
        await run.say("b")
        await run.end()
        await connection.finished()
        assert connection.data == ["a", "b"]
        assert connection.complete


@pytest.mark.parametrize("life", [None, 10 * LIFE])
async def test_nothing_lasts_longer_than_max_age(life: float | None) -> None:
    for action in ("close", "ignore"):
        async with Worker(expiry=Expiry(action=action, max_age=60, jitter=0)) as worker:
            connection, _ = await worker.streaming("eventsource", worker.desk.issue(life=life), "a")
            await worker.clock.advance(59)
            assert not connection.returned
            await worker.clock.advance(1)
            await connection.finished()
            assert connection.controls == ["auth-expired"]


async def test_the_leeway_is_granted() -> None:
    async with Worker(expiry=Expiry(leeway=20, jitter=0)) as worker:
        connection, _ = await worker.streaming("eventsource", worker.desk.issue(), "a")
        await worker.clock.advance(LIFE + 19)
        assert not connection.returned
        await worker.clock.advance(1)
        await connection.finished()


async def test_tokens_that_expire_all_at_once_end_spread_over_the_jitter() -> None:
    async with Worker(expiry=Expiry(leeway=0, jitter=0.1)) as worker:
        streams = [await worker.streaming("eventsource", worker.desk.issue(f"u{n}"), "a") for n in range(100)]
        await worker.clock.advance(0.9 * LIFE - 1)
        assert not any(connection.returned for connection, _ in streams)
        ended = []
        for _ in range(10):
            await worker.clock.advance(0.01 * LIFE + 0.1)
            ended.append(sum(connection.returned for connection, _ in streams))
        assert ended[-1] == 100
        assert all(0 < step < 100 for step in ended[1:8])


async def test_one_timer_is_enough_for_all_connections() -> None:
    async with Worker(way="mute") as worker:
        for number in range(50):
            await worker.streaming("eventsource", worker.desk.issue(life=100 + number), "a")
        assert worker.clock.timers == 1
        tasks = len(asyncio.all_tasks())
        await worker.clock.advance(50)
        assert len(asyncio.all_tasks()) == tasks


async def test_a_token_without_expiry_costs_no_timer() -> None:
    async with Worker(way="mute") as worker:
        await worker.streaming("eventsource", worker.desk.issue(life=None), "a")
        assert worker.clock.timers == 0


async def test_a_client_that_leaves_first_is_forgotten() -> None:
    async with Worker(way="mute", resume={"linger": 0}) as worker:
        connection, run = await worker.streaming("script", worker.desk.issue(), "a")
        connection.drop()
        await connection.finished()
        await asyncio.wait_for(run.disconnected.wait(), 5)
        await run.put(None)
        await worker.clock.advance(LIFE)
        assert not worker.auth._tenures._of
        assert worker.observer.total("auth.ended") == 0


@pytest.mark.parametrize("kind", ["plain", "unlogged"])  # a producer is a cycle in itself
async def test_what_a_request_leaves_is_given_back_without_a_collection(kind: str) -> None:
    async with Worker(way="mute", resume={"linger": 0}) as worker:
        kept: list[weakref.ref[object]] = []
        connection = worker.connect(worker.desk.issue(), headers=KINDS.get(kind, {}))
        run = await worker.stage.run()
        gc.collect()
        gc.disable()
        try:
            kept.append(weakref.ref(run.scope["user"]))
            if kind == "plain":
                await run.put(start([(b"content-length", b"0")]), body(b"", False), None)
            else:
                await run.stream("a")
                await run.end()
            await connection.finished()
            worker.stage.runs.clear()
            del run
            await settle()
            assert [ref() for ref in kept] == [None]
        finally:
            gc.enable()


def test_one_look_at_a_response_does_for_all_that_stand_in_a_stack() -> None:
    looks = {way: not Worker(way=way).auth.delegated for way in WAYS}
    assert looks == {"full": False, "mute": False, "beats": False, "lone": True, "nested": True, "packed": False}


def test_where_those_within_look_at_some_paths_only_auth_looks_itself() -> None:
    verifier = Desk(FakeClock())
    stack = Stack(
        Chat(),
        middleware=[
            Middleware(AuthMiddleware, verifier=verifier),
            Middleware(HeartbeatMiddleware, paths=["/events"]),
        ],
    )
    (auth,) = [own for own in stack._own if isinstance(own, AuthMiddleware)]
    assert not auth.delegated


# -- who is anonymous


async def test_the_anonymous_are_not_ended_but_by_age() -> None:
    for max_age in (None, 60.0):
        async with Worker(expiry=Expiry(max_age=max_age, jitter=0), optional=["/open"]) as worker:
            connection = AuthConnection(worker.app, path="/open", headers=READER)
            worker.connections.append(connection)
            connection.open()
            run = await worker.stage.run()
            await run.stream("a")
            await worker.clock.advance(100)
            assert connection.returned is (max_age is not None)


# -- WebSockets


@pytest.mark.parametrize("server", SERVERS)
async def test_a_websocket_is_closed_and_the_app_told(way: str, server: str) -> None:
    chat = Chat()
    async with Worker(chat, way=way) as worker:
        async with worker.websocket(worker.desk.issue(), server=server) as connection:
            await connection.start()
            connection.send("hello")
            assert await connection.receive() == "hello"
            await worker.clock.advance(LIFE)
            assert await connection.closing() == 3000
            assert connection.close_reason == "token expired"
            await connection.finished()
        assert chat.got[-1]["type"] == "websocket.disconnect"
        assert chat.got[-1]["code"] == 3000
        assert worker.counted("auth.ended", "auth-expired") == 1


async def test_the_close_code_is_the_one_that_refusals_have() -> None:
    async with (
        Worker(Chat(), close_codes={401: 4401}) as worker,
        worker.websocket(worker.desk.issue()) as connection,
    ):
        await connection.start()
        await worker.clock.advance(LIFE)
        assert await connection.closing() == 4401
        await connection.finished()


async def test_a_websocket_that_is_not_accepted_yet_is_left_alone() -> None:
    go = asyncio.Event()

    async def app(scope: object, receive: object, send: object) -> None:
        await receive()  # type: ignore[operator]  # ASGI's
        await go.wait()
        await send({"type": "websocket.close", "code": 1000})  # type: ignore[operator]  # ASGI's

    async with Worker(app) as worker, worker.websocket(worker.desk.issue()) as connection:
        await settle()
        await worker.clock.advance(LIFE)
        assert not connection.closed
        go.set()
        await connection.closing()
        await connection.finished()


async def test_other_policies_on_websockets() -> None:
    for expiry, closed in ((IGNORE, False), (WARN, True)):
        chat = Chat()
        async with Worker(chat, expiry=expiry) as worker, worker.websocket(worker.desk.issue()) as connection:
            await connection.start()
            await worker.clock.advance(LIFE)
            assert connection.closed is closed
            assert connection.pending == 0
            connection.close()
            await connection.finished()


# -- arithmetic


@pytest.mark.parametrize(
    ("expires_at", "left"),
    [
        (int("9" * 4000), 365 * 86400.0),
        (-int("9" * 4000), 0.0),
        (float("inf"), 365 * 86400.0),
        (float("nan"), 0.0),
        (1e300, 365 * 86400.0),
        (-1.0, 0.0),
        (2000.0, 1000.0),
        (None, float("inf")),
    ],
)
def test_no_expiry_breaks_the_arithmetic(expires_at: float | None, left: float) -> None:
    assert Expiry(leeway=0, jitter=0).left(expires_at, 0.0, 1000.0, 0.5) == left


async def test_a_token_of_a_thousand_years_is_streamed_under() -> None:
    async with Worker(way="mute") as worker:
        connection, run = await worker.streaming("eventsource", worker.desk.issue(life=4e10), "a")
        assert worker.clock.timers == 1
        await run.end()
        await connection.finished()


def test_the_random_spread_only_makes_ends_earlier() -> None:
    policy = Expiry(leeway=0, jitter=0.05)
    assert policy.left(2000.0, 0.0, 1000.0, 0.0) == 1000.0
    assert policy.left(2000.0, 0.0, 1000.0, 1.0) == 950.0
    assert policy.left(1e6, 0.0, 0.0, 1.0) == 1e6 - 300
