"""Throttle outside Resume: reads never cost what a start costs, and a lease is the stream's, not the connection's."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest

from streamware import CountingObserver, Middleware, ResumeMiddleware, Stack, ThrottleMiddleware
from streamware.testing import Connection, settle
from streamware.types import ASGIApp, Receive, Scope, Send
from streamware.wire.cursor import new_stream_id
from streamware.wire.denial import Denial, deny
from tests.middleware.resume_site import EVENTSOURCE, HOLD, READER, SSE, Site, body, start, until

KEYED = READER | {"idempotency-key": "0123456789abcdefghijkl"}
FORGED = f"{new_stream_id('abcdef')}.5"  # as good as any that anybody can make up


class Throttled(Site):
    """A site whose Resume stands within a throttle."""

    def __init__(self, *, resume: dict[str, Any] | None = None, **options: Any) -> None:
        self.counts = CountingObserver()

        def around(app: ASGIApp) -> ASGIApp:
            self.throttle = ThrottleMiddleware(app, observer=self.counts, clock=self.clock, **options)
            return self.throttle

        super().__init__(around=around, **(resume or {}))

    def check(self) -> None:
        assert len(self.throttle._desk.leases) == 0
        super().check()

    async def __aexit__(self, *error: Any) -> None:
        for connection in self.connections:
            await connection.aclose()
        for run in self.stage.runs:
            if not run.over.is_set():
                run.begin(None)
        await settle()
        if error[0] is None:
            await self.throttle.aclose()
        await super().__aexit__(*error)

    def refused(self, reason: str) -> int:
        return self.counts.counts.get(("throttle.refused", reason), 0)


async def status(connection: Connection) -> int:
    await connection.start()
    return connection.status


async def test_resumes_polls_and_stops_are_not_charged_as_starts():
    async with Throttled(limits="1/minute", resume={"heeds": True}) as site:
        first, run = await site.started("1", "2")
        cursor = first.at(1)
        for _ in range(5):
            first.drop()
            await settle()
            first = site.connect(cursor=cursor)
            assert (await first.events(1))[0].data == "2"
        poll = site.connect(first.own_url, headers={"accept": "application/json"})
        assert await status(poll) == 200
        follow = site.connect(first.own_url)
        assert await status(follow) == 200
        assert await status(site.connect()) == 429
        stop = site.connect(first.own_url, method="DELETE")
        assert await status(stop) == 204
        await until(run.over.is_set)
        assert site.runs == 1


async def test_reads_have_limits_of_their_own():
    async with Throttled(limits="9/minute", reads="2/minute") as site:
        first, run = await site.started("1")
        answers = [site.connect(cursor=first.at(0)) for _ in range(3)]
        statuses = [await status(answer) for answer in answers]
        assert statuses == [200, 200, 429]
        assert answers[0].header("ratelimit") == '"2/minute";r=1;t=60'
        assert site.refused("reads") == 1
        soft = site.eventsource(more={"last-event-id": first.at(0)})
        await soft.finished()
        assert soft.body.startswith(b"retry: ")
        assert await status(site.connect(first.own_url, method="DELETE")) == 429
        await run.end()


@pytest.mark.parametrize("headers", [{"last-event-id": FORGED}, {"last-event-id": "x"}, {"idempotency-key": "k"}])
async def test_what_only_looks_like_a_read_is_charged_as_a_start_before_the_app_is_run(headers: dict[str, str]):
    async with Throttled(limits="1/minute") as site:
        _, run = await site.started()
        for accept in (READER, EVENTSOURCE, {"accept": "*/*"}):
            answer = site.connect(headers=accept | headers)
            await answer.finished()
            assert answer.status in (410, 429) or answer.body.startswith(b"retry: ")
        assert site.runs == 1
        await run.end()


async def test_a_cursor_nobody_knows_starts_anew_at_the_price_of_a_start():
    async with Throttled(limits="1/minute") as site:
        answer = site.eventsource(more={"last-event-id": FORGED})
        run = await site.run()
        await run.stream("1")
        await answer.events(1)
        assert answer.header("ratelimit") == '"1/minute";r=0;t=61'
        refused = site.eventsource(more={"last-event-id": FORGED})
        await refused.finished()
        assert refused.body.startswith(b"retry: ")
        assert site.runs == 1
        assert site.refused("rate") == 1
        await run.end()


async def test_joining_by_key_costs_a_read_and_the_first_a_start():
    async with Throttled(limits="1/minute", reads="10/minute") as site:
        first = site.connect(headers=KEYED, method="POST")
        run = await site.run()
        await run.stream("1")
        await first.events(1)
        for _ in range(3):
            joined = site.connect(headers=KEYED, method="POST")
            await joined.events(1)
            assert joined.stream == first.stream
        assert await status(site.connect(headers=KEYED | {"idempotency-key": "x" * 22}, method="POST")) == 429
        assert site.runs == 1
        await run.end()


async def test_a_key_that_was_refused_is_free_again():
    async with Throttled(limits="1/minute") as site:
        other, other_run = await site.started()
        refused = site.connect(headers=KEYED, method="POST", body=b"q")
        assert await status(refused) == 429
        await site.clock.advance(70)
        await other_run.end()
        retried = site.connect(headers=KEYED, method="POST", body=b"q")
        run = await site.run(2)
        await run.stream("1")
        await retried.events(1)
        assert retried.status == 200
        await run.end()
        assert other.status == 200


async def test_a_detached_stream_keeps_its_lease_to_its_outcome():
    async with Throttled(concurrent=1) as site:
        first, run = await site.started("1")
        first.drop()
        await settle()
        assert await status(site.connect()) == 429
        resumed = site.connect(cursor=first.at(1))
        await run.say("2")
        await resumed.events(1)
        assert await status(site.connect()) == 429

        await run.end()
        await resumed.finished()

        _, second = await site.started("a")
        assert site.runs == 2
        await second.end()


async def test_a_slow_reader_of_a_stream_that_has_ended_holds_no_lease():
    async with Throttled(concurrent=1) as site:
        first, run = await site.started("1")
        first.stall()
        await run.say("2", "3")
        await run.end()
        _, second = await site.started("a")
        await second.end()
        first.unstall()
        await first.finished()
        assert first.data == ["1", "2", "3"]


@pytest.mark.parametrize("way", ["stopped", "lingered", "failed", "returned", "passed", "own ids"])
async def test_whatever_way_a_stream_ends_its_lease_is_free(way: str):
    async with Throttled(concurrent=1) as site:
        if way == "passed":
            first = site.connect()
            run = await site.run()
            await run.put(start([(b"content-type", b"text/plain")]), body(b"x"))
            await first.receive_body(until=1)
        elif way == "own ids":
            first = site.connect()
            run = await site.run()
            await run.put(start(SSE), body(b"id: 7\ndata: x\n\n"))
            await first.events(1)
        else:
            first, run = await site.started("1")
        assert await status(site.connect()) == 429
        if way == "stopped":
            assert await status(site.connect(first.own_url, method="DELETE")) == 204
        elif way == "lingered":
            first.drop()
            await site.clock.advance(31)
        elif way == "failed":
            run.begin(ConnectionResetError("x"))
        elif way == "returned":
            await run.put(None)
        else:
            await run.end()
        await settle()

        second = site.connect()
        run = await site.run(2)
        assert site.refused("concurrent") == 1
        await run.stream("a")
        await run.end()
        await second.finished()
        assert second.status == 200


async def test_a_start_without_a_reader_holds_its_lease_too():
    async with Throttled(concurrent=1) as site:
        accepted = site.connect(headers=READER | {"prefer": "respond-async"}, method="POST")
        run = await site.run()
        await run.stream("1")
        assert await status(accepted) == 202
        await accepted.finished()
        assert await status(site.connect()) == 429
        stream = msgspec.json.decode(accepted.body)["stream"]
        await run.end()
        poll = site.connect(f"/chat{stream}", headers={"accept": "application/json"})
        assert await status(poll) == 200
        _, second = await site.started("a")
        await second.end()


async def test_a_client_that_leaves_before_the_start_holds_its_lease_only_while_the_app_runs():
    async with Throttled(concurrent=1) as site:
        first = site.connect()
        run = await site.run()
        first.drop()
        await settle()
        await until(run.disconnected.is_set)
        await run.put(None)
        await settle()
        _, second = await site.started("a")
        await second.end()


async def test_two_throttles_ask_one_after_the_other_and_both_hold():
    counts = CountingObserver()
    async with Site() as site:
        inner = ThrottleMiddleware(site.resume, concurrent=1, clock=site.clock, observer=counts, name="inner")
        site.app = outer = ThrottleMiddleware(
            inner, concurrent=2, limits="9/minute", key="ip", clock=site.clock, name="outer"
        )
        first, run = await site.started("1")
        first.drop()
        await settle()
        assert await status(site.connect()) == 429
        assert counts.counts == {("throttle.refused", "concurrent"): 1}
        assert (len(outer._desk.leases), len(inner._desk.leases)) == (1, 1)
        await run.end()
        assert (len(outer._desk.leases), len(inner._desk.leases)) == (0, 0)
        await outer.aclose()
        await inner.aclose()


async def test_in_a_stack_it_is_told_as_well():
    async with Site() as site:
        counts = CountingObserver()
        stack = Stack(
            site.stage,
            middleware=[
                Middleware(ThrottleMiddleware, limits="1/minute", concurrent=1, observer=counts, clock=site.clock),
                Middleware(ResumeMiddleware, store=site.store, clock=site.clock),
            ],
        )
        site.app = stack
        first, run = await site.started("1")
        for _ in range(3):
            resumed = site.connect(cursor=first.at(0))
            assert (await resumed.events(1))[0].data == "1"
            resumed.drop()
        assert await status(site.connect()) == 429
        first.drop()
        await settle()
        await run.end()
        throttle, resume = stack._own
        assert isinstance(throttle, ThrottleMiddleware)
        assert isinstance(resume, ResumeMiddleware)
        assert len(throttle._desk.leases) == 0
        await resume.aclose()


async def test_without_resume_within_a_cursor_buys_nothing():
    calls: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    throttle = ThrottleMiddleware(app, limits="1/minute")
    for expected in (200, 429):
        async with Connection(throttle, headers={"last-event-id": FORGED}) as connection:
            await connection.finished()
            assert connection.status == expected
    assert len(calls) == 1


async def test_paths_that_resume_leaves_alone_are_started_at_the_full_price():
    async with Throttled(limits="1/minute", resume={"exclude": ["/plain"]}) as site:
        first = site.connect("/plain", cursor=FORGED)
        run = await site.run()
        await run.put(start([], 200), body(b"", False), None)
        await first.finished()
        assert await status(site.connect("/plain", cursor=FORGED)) == 429
        assert site.runs == 1


async def test_where_requests_are_changed_on_their_way_to_resume_all_are_starts_after_the_first(
    caplog: pytest.LogCaptureFixture,
):
    async with Site() as site:

        class Rewriting:
            """Takes away what Resume would have gone by."""

            def __init__(self, app: ASGIApp) -> None:
                self.app = app

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                headers = [line for line in scope["headers"] if line[0] != b"last-event-id"]
                await self.app({**scope, "headers": headers}, receive, send)

        site.app = throttle = ThrottleMiddleware(Rewriting(site.resume), limits="1/minute", clock=site.clock)
        for n, expected in ((1, 200), (2, 200), (3, 429)):
            answer = site.connect(headers={"accept": "*/*"}, cursor=FORGED)
            if expected == 200:
                run = await site.run(n)
                await run.put(start([], 200), body(b"", False), None)
            await answer.finished()
            assert answer.status == expected
        assert site.runs == 2
        assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
        await throttle.aclose()


@pytest.mark.parametrize("answered", [302, 401, 503])
async def test_a_request_that_is_refused_on_its_way_to_resume_changes_nothing_and_costs_a_start(
    caplog: pytest.LogCaptureFixture, answered: int
):
    async with Site() as site:

        class Refusing:
            """Lets nobody in who has no key; it stands within the throttle, and outside of Resume."""

            def __init__(self, app: ASGIApp) -> None:
                self.app = app

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                if (b"x-key", b"1") in scope["headers"]:
                    await self.app(scope, receive, send)
                else:
                    await send(start([], answered))
                    await send(body(b"", False))

        site.app = throttle = ThrottleMiddleware(Refusing(site.resume), limits="2/minute", clock=site.clock)
        first, run = await site.started("1", headers=READER | {"x-key": "1"})
        cursor = first.at(0)
        refused = [site.connect(cursor=FORGED) for _ in range(4)]
        assert [await status(each) for each in refused] == [answered] * 4
        for _ in range(3):  # reads are still known as such
            answer = site.connect(headers=READER | {"x-key": "1"}, cursor=cursor)
            assert (await answer.events(1))[0].data == "1"
            answer.drop()
            await settle()
        assert await status(site.connect(headers=READER | {"x-key": "1"})) == 429  # two starts have been charged
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        await run.end()
        await throttle.aclose()


async def test_a_refusal_of_ours_on_the_way_to_resume_changes_nothing_and_costs_nothing():
    """As by a drain, which answers an EventSource with 200 and the end."""
    async with Site() as site:

        async def draining(scope: Scope, receive: Receive, send: Send) -> None:
            await deny(scope, send, Denial(503, "Draining"), soft=True)

        draining_app: Any = draining
        draining_app.app = site.resume
        site.app = throttle = ThrottleMiddleware(draining_app, limits="2/minute", clock=site.clock)
        for _ in range(4):
            answer = site.eventsource(more={"last-event-id": FORGED})
            await answer.finished()
            assert answer.status == 200
        assert throttle._telling.of("/")
        assert len(throttle.storage) == 0  # type: ignore[arg-type]
        await throttle.aclose()


async def test_a_foreign_middleware_that_tries_again_is_a_request_each_time():
    async with Throttled(limits="9/minute", concurrent=1) as site:
        throttle = site.throttle

        async def twice(scope: Scope, receive: Receive, send: Send) -> None:
            async def nowhere(message: object) -> None:
                return None

            await throttle(scope, receive, nowhere)
            await throttle(scope, receive, send)

        site.app = twice
        connection = site.connect(headers={"accept": "*/*"})
        for n in (1, 2):
            run = await site.run(n)
            await run.put(start([], 200), body(b"", False), None)
        await connection.finished()
        assert connection.header("ratelimit") == '"9/minute";r=7;t=60'
        await site.clock.advance(HOLD)
