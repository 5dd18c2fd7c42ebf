"""``ThrottleMiddleware`` over HTTP: what is let in, what is refused and how, and what passes by."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from streamware import ConfigurationError, CountingObserver, MemoryLimitStorage, Middleware, Stack, ThrottleMiddleware
from streamware.auth.principal import Principal
from streamware.limiting.queueing import LOOK_EVERY
from streamware.middleware.base import BaseMiddleware
from streamware.testing import Connection, FakeClock, check_order, settle
from streamware.types import Message, Receive, Scope, Send

EVENTSOURCE = {"accept": "text/event-stream", "cache-control": "no-cache"}


class App:
    """Answers at once, or when ``release`` is called; knows how many are within."""

    def __init__(self, *, holds: bool = False) -> None:
        self.calls: list[Scope] = []
        self.within = self.most = 0
        self.bodies: list[bytes] = []
        self._holds = holds
        self._released: asyncio.Queue[None] = asyncio.Queue()

    def release(self, times: int = 1) -> None:
        for _ in range(times):
            self._released.put_nowait(None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls.append(scope)
        self.within += 1
        self.most = max(self.most, self.within)
        try:
            if self._holds:
                await self._released.get()
            body, more = b"", True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message.get("body", b"")
                more = message.get("more_body", False)
            self.bodies.append(body)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
            await send({"type": "http.response.body", "body": b"hello", "more_body": False})
        finally:
            self.within -= 1


class Place:
    """A throttle around an app, on a clock of the test's."""

    def __init__(self, *, holds: bool = False, **options: Any) -> None:
        self.clock = FakeClock()
        self.observer = CountingObserver()
        self.app = App(holds=holds)
        self.throttle = ThrottleMiddleware(check_order(self.app), clock=self.clock, observer=self.observer, **options)
        self.connections: list[Connection] = []

    async def __aenter__(self) -> Place:
        self._tasks = asyncio.all_tasks()
        return self

    async def __aexit__(self, *error: object) -> None:
        for connection in self.connections:
            await connection.aclose()
        if error[0] is None:
            for connection in self.connections:
                connection.check()
            assert len(self.throttle._desk.leases) == 0
            await self.throttle.aclose()
            assert self.clock.timers == 0
            assert not asyncio.all_tasks() - self._tasks

    def connect(self, path: str = "/", **options: Any) -> Connection:
        connection = Connection(self.throttle, path=path, **options)
        self.connections.append(connection)
        connection.open()
        return connection

    async def ask(self, path: str = "/", **options: Any) -> Connection:
        connection = self.connect(path, **options)
        await connection.finished()
        return connection

    async def statuses(self, times: int, path: str = "/", **options: Any) -> list[int]:
        return [(await self.ask(path, **options)).status for _ in range(times)]

    def counted(self, name: str, reason: str = "") -> int:
        return self.observer.counts.get((name, reason), 0)


def client(host: str) -> dict[str, Any]:
    return {"scope": {"client": (host, 1)}}


async def test_over_the_limit_is_429_and_the_app_hears_nothing_of_it():
    async with Place(limits="3/minute") as place:
        assert await place.statuses(5) == [200, 200, 200, 429, 429]
        assert len(place.app.calls) == 3
        assert place.counted("throttle.refused", "rate") == 2
        await place.clock.advance(61)
        assert (await place.ask()).status == 200


async def test_responses_tell_of_the_limits_and_keep_their_own_headers():
    async with Place(limits=["3/minute", "100/day"]) as place:
        first = await place.ask()
        await place.statuses(2)
        refused = await place.ask()

    assert first.header("ratelimit-policy") == '"3/minute";q=3;w=60, "100/day";q=100;w=86400'
    assert first.header("ratelimit") == '"3/minute";r=2;t=60, "100/day";r=99;t=86400'
    assert first.header("x-own") == "1"
    assert first.body == b"hello"
    assert refused.header("ratelimit") == '"3/minute";r=0;t=61, "100/day";r=97;t=86400'
    assert 61 <= int(refused.header("retry-after") or 0) <= 68
    assert refused.header("x-should-retry") == "false"
    assert json.loads(refused.body)["violated-policies"] == ["3/minute"]


async def test_headers_may_be_left_out():
    async with Place(limits="3/minute", send_headers=False) as place:
        response = await place.ask()
        assert response.header("ratelimit") is None
        assert response.headers == [(b"x-own", b"1")]


async def test_a_refused_request_uses_up_nothing():
    async with Place(limits="2/minute; 6/hour") as place:
        await place.statuses(50)
        await place.clock.advance(121)
        assert await place.statuses(3) == [200, 200, 429]
        await place.clock.advance(121)
        assert await place.statuses(3) == [200, 200, 429]
        await place.clock.advance(121)
        refused = await place.ask()
        assert json.loads(refused.body)["violated-policies"] == ["6/hour"]


async def test_an_eventsource_is_refused_so_that_it_comes_back():
    async with Place(limits="1/minute") as place:
        await place.ask()
        refused = await place.ask(headers=EVENTSOURCE)

        assert refused.status == 200
        assert refused.header("content-type") == "text/event-stream"
        assert refused.body.startswith(b"retry: ")
        assert refused.body.count(b"\n") == 2


async def test_the_rest_of_a_refused_upload_is_taken_before_the_answer():
    async with Place(limits="1/minute") as place:
        await place.ask()
        refused = place.connect(method="POST", headers={"content-length": "4"}, body=None)
        refused.send_body(b"ab", more=True)
        await settle()
        assert not refused.started
        refused.send_body(b"cd")
        await refused.finished()
        assert refused.status == 429


@pytest.mark.parametrize(("style", "member"), [("problem", "title"), ("openai", "error"), ("anthropic", "error")])
async def test_refusals_have_the_shape_that_is_asked_for(style: str, member: str):
    async with Place(limits="1/minute", body=style) as place:
        await place.ask()
        assert member in json.loads((await place.ask()).body)


# -- whose limits they are


async def test_each_client_has_its_own_and_an_ipv6_network_is_one_client():
    async with Place(limits="1/minute", key="ip") as place:
        for host in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"):
            assert await place.statuses(2, **client(host)) == [200, 429]
        assert await place.statuses(1, **client("2001:db8::ffff")) == [429]


async def test_a_principal_is_one_client_wherever_it_comes_from():
    async with Place(limits="1/minute") as place:
        for n, expected in ((1, 200), (2, 429)):
            scope = {"client": (f"192.0.2.{n}", 1), "user": Principal(issuer="i", subject="ada")}
            assert (await place.ask(scope=scope)).status == expected
        assert await place.statuses(1, **client("192.0.2.1")) == [200]


async def test_a_function_may_exempt():
    def who(scope: Scope) -> str | None:
        return None if scope["path"] == "/health" else "all"

    async with Place(limits="1/minute", key=who) as place:
        assert await place.statuses(3, "/health") == [200] * 3
        assert await place.statuses(2, "/x") == [200, 429]
        assert (await place.ask("/health")).header("ratelimit") is None


async def test_who_cannot_be_told_apart_is_not_let_in(caplog: pytest.LogCaptureFixture):
    def broken(scope: Scope) -> str:
        raise KeyError("secret")

    async with Place(limits="1/minute", key=broken) as place:
        refused = await place.ask()
        assert refused.status == 403
        assert b"secret" not in refused.body
        assert place.app.calls == []
        assert place.counted("throttle.refused", "key") == 1


async def test_paths_and_plans():
    limits = {"/chat": {"default": "1/minute", "pro": "3/minute"}, "/free": None, "*": "2/minute"}

    def plan(scope: Scope) -> str:
        value: str = scope["user"].claims["plan"]
        return value

    async with Place(limits=limits, plan=plan) as place:
        for name, allowed in (("basic", 1), ("pro", 3)):
            scope = {"user": Principal(issuer="i", subject=name, claims={"plan": name})}
            assert await place.statuses(4, "/chat", scope=scope) == [200] * allowed + [429] * (4 - allowed)
            assert await place.statuses(3, "/other", scope=scope) == [200, 200, 429]
            assert await place.statuses(5, "/free", scope=scope) == [200] * 5


async def test_two_of_them_on_one_storage_count_apart_unless_they_have_one_name():
    storage = MemoryLimitStorage()
    app = App()
    one = ThrottleMiddleware(app, limits="1/minute", storage=storage, paths=["/a"])
    two = ThrottleMiddleware(app, limits="1/minute", storage=storage, paths=["/b"])
    three = ThrottleMiddleware(app, limits="1/minute", storage=storage, paths=["/a"], name="x")
    four = ThrottleMiddleware(app, limits="1/minute", storage=storage, paths=["/b"], name="x")

    async def status(throttle: ThrottleMiddleware, path: str) -> int:
        async with Connection(throttle, path=path) as connection:
            await connection.finished()
            return connection.status

    assert [await status(one, "/a"), await status(two, "/b")] == [200, 200]
    assert [await status(three, "/a"), await status(four, "/b")] == [200, 429]
    assert one.storage is storage


# -- what passes by


async def test_preflights_are_not_counted():
    preflight = {"origin": "https://a.example", "access-control-request-method": "POST"}
    async with Place(limits="1/minute", concurrent=1) as place:
        for _ in range(3):
            assert (await place.ask(method="OPTIONS", headers=preflight)).status == 200
        assert await place.statuses(2, method="OPTIONS") == [200, 429]


@pytest.mark.parametrize("kind", ["lifespan", "something"])
async def test_other_scopes_and_paths_get_the_very_objects_that_came_in(kind: str):
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend((scope, receive, send))

    async def receive() -> Message:
        return {"type": "x"}

    async def send(message: Message) -> None:
        return None

    throttle = ThrottleMiddleware(app, limits="1/minute", events_per_second=1, paths=["/only"])
    for scope in ({"type": kind}, {"type": "http", "path": "/other", "method": "GET", "headers": []}):
        if kind != "lifespan" or scope["type"] == "http":
            seen.clear()
            await throttle(scope, receive, send)
            assert [each is given for each, given in zip(seen, (scope, receive, send), strict=True)] == [True] * 3


async def test_the_servers_scope_is_never_changed():
    async with Place(limits="5/minute", concurrent=2) as place:
        connection = place.connect()
        before = dict(connection.scope)
        await connection.finished()
        assert connection.scope == before
        assert place.app.calls[0] is not connection.scope


async def test_unknown_messages_pass_and_errors_of_the_app_are_its_own():
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.debug", "info": {}})
        raise LookupError("mine")

    async def send(message: Message) -> None:
        sent.append(message)

    throttle = ThrottleMiddleware(app, limits="1/minute", concurrent=1, events_per_second=1, observer=None)
    scope = {"type": "http", "path": "/", "method": "GET", "headers": [], "client": ("192.0.2.1", 1)}
    with pytest.raises(LookupError):
        await throttle(scope, lambda: asyncio.sleep(0, {"type": "http.disconnect"}), send)
    assert sent == [{"type": "http.response.debug", "info": {}}]
    assert len(throttle._desk.leases) == 0
    await throttle.aclose()


async def test_in_shadow_mode_nothing_is_refused_and_all_is_counted():
    async with Place(limits="1/minute", concurrent=1, holds=True, enforce=False) as place:
        place.connect()
        await settle()
        other = place.connect()
        await settle()
        place.app.release(2)
        await other.finished()

        assert other.status == 200
        assert other.header("ratelimit") is None
        assert place.counted("throttle.would_refuse", "rate") == 1
        assert place.counted("throttle.refused", "rate") == 0


# -- at once


async def test_so_many_at_once_and_no_more():
    async with Place(concurrent=2, holds=True) as place:
        first, second = place.connect(), place.connect()
        await settle()
        refused = await place.ask()
        elsewhere = place.connect(**client("192.0.2.9"))
        await settle()
        assert place.app.within == 3
        assert refused.status == 429
        assert json.loads(refused.body)["violated-policies"] == ["concurrent"]
        assert place.counted("throttle.refused", "concurrent") == 1

        place.app.release()
        await first.finished()
        third = place.connect()
        await settle()
        assert place.app.within == 3
        place.app.release(3)
        for connection in (second, third, elsewhere):
            await connection.finished()
            assert connection.status == 200


async def test_refused_for_being_too_many_uses_up_no_rate():
    async with Place(limits="2/minute", concurrent=1, holds=True) as place:
        held = place.connect()
        await settle()
        assert await place.statuses(5) == [429] * 5
        place.app.release(2)
        await held.finished()
        assert (await place.ask()).status == 200


async def test_three_hundred_cancelled_together_free_three_hundred():
    async with Place(concurrent=300, holds=True) as place:
        running = [place.connect() for _ in range(300)]
        await settle()
        assert place.app.within == 300
        assert (await place.ask()).status == 429

        for connection in running:
            connection.cancel()
        await settle()

        assert place.app.within == 0
        again = [place.connect() for _ in range(300)]
        await settle()
        assert place.app.within == 300
        place.app.release(300)
        for connection in again:
            await connection.finished()


async def test_leases_are_renewed_while_they_are_held_and_by_one_timer():
    async with Place(concurrent=2, lease=30, holds=True) as place:
        held = [place.connect(), place.connect()]
        await settle()
        for _ in range(20):
            await place.clock.advance(10)
            assert place.clock.timers == 1
            assert (await place.ask()).status == 429
        assert place.counted("throttle.lapsed") == 0
        place.app.release(2)
        for connection in held:
            await connection.finished()


async def test_what_may_run_at_once_may_differ_by_path():
    async with Place(concurrent={"/a": 1, "/b": None, "*": 2}, holds=True) as place:
        held = [place.connect(path) for path in ("/a", "/b", "/b", "/b", "/c", "/c")]
        await settle()
        assert place.app.within == 6
        assert await place.statuses(1, "/a") == [429]
        assert await place.statuses(1, "/c") == [429]
        place.app.release(6)
        for connection in held:
            await connection.finished()


# -- waiting in line


async def test_who_waits_gets_its_turn_in_the_order_of_coming():
    async with Place(concurrent=1, queue=3, holds=True) as place:
        held = place.connect("/0")
        waiting = []
        for n in (1, 2, 3):
            await settle()
            waiting.append(place.connect(f"/{n}", method="POST", body=b"body %d" % n))
        await settle()
        full = await place.ask("/4")
        assert full.status == 429
        assert place.counted("throttle.refused", "queue") == 1
        assert "violated-policies" not in json.loads(full.body)
        for connection in (held, *waiting):
            assert place.app.within == 1
            place.app.release()
            await connection.finished()
            assert connection.status == 200

        assert [scope["path"] for scope in place.app.calls] == ["/0", "/1", "/2", "/3"]
        assert place.app.bodies[1:] == [b"body 1", b"body 2", b"body 3"]
        assert place.app.most == 1


async def test_nobody_waits_longer_than_it_may():
    async with Place(concurrent=1, queue=3, queue_timeout=2, holds=True) as place:
        held = place.connect()
        await settle()
        waiting = place.connect()
        await settle()
        await place.clock.advance(1.9)
        assert not waiting.started
        await place.clock.advance(0.2)
        await waiting.finished()
        assert waiting.status == 429
        place.app.release()
        await held.finished()
        assert place.throttle._desk.queue is not None
        assert place.throttle._desk.queue.waiting == 0


async def test_a_rate_is_waited_for_where_that_is_short():
    async with Place(limits="1/second", queue=5, queue_timeout=3) as place:
        assert (await place.ask()).status == 200
        waiting = [place.connect() for _ in range(2)]
        await place.clock.advance(2.5)
        for connection in waiting:
            await connection.finished()
        assert [connection.status for connection in waiting] == [200, 200]

    async with Place(limits="1/minute", queue=5, queue_timeout=3) as place:
        assert await place.statuses(2) == [200, 429]  # at once: it would not come in time


async def test_who_leaves_the_line_makes_room_and_starts_nothing():
    async with Place(concurrent=1, queue=1, holds=True) as place:
        held = place.connect("/0")
        await settle()
        leaves = place.connect("/1")
        await settle()
        leaves.drop()
        await settle()
        stays = place.connect("/2")
        await settle()
        assert not stays.started
        place.app.release(2)
        await held.finished()
        await stays.finished()
        assert stays.status == 200
        assert [scope["path"] for scope in place.app.calls] == ["/0", "/2"]


async def test_who_is_cancelled_in_line_makes_room():
    async with Place(concurrent=1, queue=1, holds=True) as place:
        held = place.connect()
        await settle()
        place.connect().cancel()
        await settle()
        stays = place.connect()
        await settle()
        place.app.release(2)
        await held.finished()
        await stays.finished()
        assert stays.status == 200


async def test_the_first_in_line_looks_now_and_then_whether_another_worker_made_room():
    storage = MemoryLimitStorage()
    async with Place(concurrent=1, queue=1, storage=storage, name="x", holds=True) as place:
        other = ThrottleMiddleware(App(holds=True), concurrent=1, storage=storage, name="x")
        held = Connection(other)
        held.open()
        await settle()
        waiting = place.connect()
        await settle()
        held.cancel()
        await settle()
        assert place.app.within == 0
        await place.clock.advance(LOOK_EVERY)
        assert place.app.within == 1
        place.app.release()
        await waiting.finished()
        await held.aclose()
        await other.aclose()


async def test_an_app_that_listens_hears_of_the_leaving_after_it_waited():
    async with Place(concurrent=1, queue=1, holds=True) as place:
        held = place.connect()
        await settle()
        waiting = place.connect(method="POST", headers={"content-length": "9"}, body=None)
        await settle()
        place.app.release(2)
        await held.finished()
        await settle()
        waiting.send_body(b"part", more=True)
        await settle()
        waiting.drop()
        await settle()
        assert place.app.within == 0


# -- pacing


async def test_what_one_client_gets_at_once_may_share_its_pace():
    async with Place(bytes_per_second=1, pace_together=True, key="ip", holds=True) as place:
        ends: dict[str, float] = {}
        for name, host in (("a", "192.0.2.1"), ("b", "192.0.2.1"), ("c", "192.0.2.2")):
            place.connect("/" + name, **client(host))
        await settle()
        place.app.release(3)
        began = place.clock.now()
        while len(ends) < 3:
            await place.clock.advance(1)
            for connection in place.connections:
                if connection.body:
                    ends.setdefault(connection.scope["path"], place.clock.now())
        assert ends["/a"] == ends["/c"]  # of five bytes each, in one message
        assert ends["/a"] <= began + 1
        assert ends["/b"] == began + 5

        def broken(scope: Scope) -> str:
            raise LookupError

        async with Place(bytes_per_second=1, pace_together=True, key=broken) as other:
            assert (await other.ask()).status == 403
            assert (await Place(bytes_per_second=1000, key=broken).ask()).status == 200


@pytest.mark.parametrize(("pace", "left"), [("bytes_per_second", {"x": {}}), ("events_per_second", None)])
async def test_where_bytes_are_paced_no_server_sends_files_by_itself(pace: str, left: dict[str, Any] | None):
    given = {"http.response.pathsend": {}, "http.response.zerocopysend": {}, "x": {}}
    options: dict[str, Any] = {pace: 1000}
    async with Place(**options) as place:
        connection = await place.ask(scope={"extensions": given})
        assert place.app.calls[0]["extensions"] == (given if left is None else left)
        assert connection.scope["extensions"] == given
        assert len(given) == 3


async def test_pacing_slows_the_app_down():
    clock = FakeClock()
    sent: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for n in range(5):
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % n, "more_body": True})
            sent.append(clock.now())
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    throttle = ThrottleMiddleware(app, events_per_second=2, clock=clock)
    async with Connection(throttle) as connection:
        connection.open()
        await clock.advance(1000)
        await connection.finished()

    assert connection.body == b"".join(b"data: %d\n\n" % n for n in range(5))
    assert [at - sent[0] for at in sent] == [0, 0.5, 1, 1.5, 2]
    assert connection.header("ratelimit") is None


# -- options, order, lifecycle


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"limits": "x"},
        {"limits": "1/minute", "reads": "x"},
        {"messages": 5},
        {"concurrent": 0},
        {"events_per_second": 0},
        {"events_per_second": 0.01},
        {"bytes_per_second": 0.5},
        {"bytes_per_second": float("inf")},
        {"limits": "1/minute", "key": "user"},
        {"limits": "1/minute", "plan": "pro"},
        {"limits": "1/minute", "window": "rolling"},
        {"limits": "1/minute", "storage": "memcached://x"},
        {"limits": "1/minute", "storage": 5},
        {"limits": "1/minute", "name": ""},
        {"limits": "1/minute", "lease": 0},
        {"limits": "1/minute", "queue": 0},
        {"limits": "1/minute", "queue": True},
        {"limits": "1/minute", "queue_timeout": 0},
        {"limits": "1/minute", "on_store_error": "ignore"},
        {"limits": "1/minute", "expected_workers": 0},
        {"limits": "1/minute", "enforce": 1},
        {"limits": "1/minute", "body": "xml"},
        {"limits": "1/minute", "send_headers": None},
        {"limits": "1/minute", "retry": -1},
        {"limits": "1/minute", "websocket_refusal": "drop"},
        {"limits": "1/minute", "message_refusal": ""},
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any]):
    with pytest.raises(ConfigurationError):
        ThrottleMiddleware(App(), **options)


class AuthMiddleware(BaseMiddleware):
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class CompressionMiddleware(AuthMiddleware):
    """In the place of the real one, which another test has."""


def stack(*middleware: Middleware) -> Callable[[], object]:
    return lambda: Stack(App(), middleware=middleware)


def test_by_address_it_may_stand_before_anybody_is_authenticated_and_paces_within_compression():
    auth, compression = Middleware(AuthMiddleware), Middleware(CompressionMiddleware)
    by_ip = Middleware(ThrottleMiddleware, limits="1/minute", key="ip")
    by_user = Middleware(ThrottleMiddleware, limits="1/minute")
    pace = Middleware(ThrottleMiddleware, events_per_second=5)

    stack(by_ip, auth, by_user, compression, pace)()
    stack(by_ip, auth, compression)()
    stack(auth, by_ip)()
    for wrong in ((by_user, auth), (compression, by_user), (compression, by_ip), (by_user, by_user)):
        with pytest.raises(ConfigurationError):
            stack(*wrong)()


async def test_it_opens_and_closes_with_the_lifespan_and_serves_twice():
    async with Place(limits="2/minute", concurrent=1) as place:
        for _ in range(2):
            await place.throttle.startup()
            assert (await place.ask()).status == 200
            await place.throttle.shutdown()
            await place.throttle.aclose()


def test_on_trio_it_steps_aside():
    import trio

    calls: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(scope["type"])

    async def nothing(*_: object) -> Any:
        return None

    throttle = ThrottleMiddleware(app, limits="1/minute", concurrent=1)

    async def main() -> None:
        for _ in range(3):
            await throttle({"type": "http", "path": "/", "method": "GET", "headers": []}, nothing, nothing)

    trio.run(main)
    assert calls == ["http"] * 3
