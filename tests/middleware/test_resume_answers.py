"""What a cursor gets: every row of the design's table, for an EventSource and for everybody else."""

from __future__ import annotations

import logging

import msgspec
import pytest

from streamware import MemoryStore
from streamware.testing import FakeClock, settle
from streamware.wire.cursor import new_stream_id
from tests.middleware.resume_site import EVENTSOURCE, HOLD, READER, Site, SiteConnection, body, plain

LIKE = pytest.param(EVENTSOURCE, id="eventsource")
OTHER = pytest.param(READER, id="other")
BOTH = pytest.mark.parametrize("headers", [LIKE, OTHER])


async def problem(connection: SiteConnection) -> dict[str, object]:
    """The problem that refuses the request, checked for what all of them have."""
    await connection.finished()
    assert connection.header("content-type") == "application/problem+json"
    assert connection.header("cache-control") == "no-store"
    assert "last-event-id" in (connection.header("vary") or "").lower()
    found: dict[str, object] = msgspec.json.decode(connection.body)
    assert found["status"] == connection.status
    return found


async def no_content(connection: SiteConnection) -> None:
    """The answer is 204, whole and not to be cached."""
    await connection.finished()
    assert connection.status == 204
    assert connection.body == b""
    assert connection.complete
    assert connection.header("cache-control") == "no-store"
    assert "last-event-id" in (connection.header("vary") or "").lower()


# -- a cursor of a running or finished log


@BOTH
async def test_events_after_the_cursor_then_the_live_tail(headers: dict[str, str]) -> None:
    async with Site() as site:
        first, run = await site.started("1", "2", "3", headers=headers)
        first.drop()
        await run.say("4")
        again = site.connect(headers=headers, cursor=first.at(1))
        await again.events(3)
        await run.say("5", "6")
        await run.end()
        await again.finished()
        assert again.status == 200
        assert again.complete
        assert again.data == ["2", "3", "4", "5", "6"]
        assert again.controls == []
        assert site.runs == 1


@BOTH
async def test_a_finished_log_is_replayed_to_its_end(headers: dict[str, str]) -> None:
    async with Site() as site:
        first, run = await site.started("1", "2", headers=headers)
        first.drop()
        await run.say("3")
        await run.end()
        again = site.connect(headers=headers, cursor=first.at(1))
        await again.finished()
        assert again.data == ["2", "3"]
        assert again.complete


async def test_a_replay_is_byte_identical() -> None:
    sent = [
        b"data: a\n\n",
        b"event: x\r\ndata: b\r\ndata:\tc\r\n\r\n",
        b": inside\ndata: d\xff\xfe\n\n",
        b"data\n\n",
        b"unknown: field\ndata: e\n\n",
        b"retry: 5\n\n",
    ]
    async with Site() as site:
        first = site.connect()
        run = await site.run()
        await run.start()
        await run.put(*map(body, sent))
        await run.end()
        await first.receive_body()
        again = site.connect(cursor=first.at(0))
        await again.receive_body()
        assert again.body == first.body
        assert plain(first.body) == b"".join(sent)


# -- not ours


@BOTH
@pytest.mark.parametrize(
    "cursor",
    ["42", "-1", "", "a\0b", "x" * 1_000_000, "swAAAAAA.1", "sw" + "é" * 28 + ".1", "swAAAAAA" + "x" * 22 + ".-1"],
)
async def test_a_cursor_that_is_not_ours_goes_to_the_app_untouched(headers: dict[str, str], cursor: str) -> None:
    async with Site() as site:
        connection = site.connect(headers=headers, cursor=cursor)
        run = await site.run()
        assert (b"last-event-id", cursor.encode("latin-1")) in run.scope["headers"]
        await run.stream("one")
        assert (await connection.event()).data == "one"
        assert connection.controls == []


# -- ours, of another store


async def test_an_eventsource_with_another_stores_cursor_starts_afresh_and_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    foreign = new_stream_id("OTHER0") + ".3"
    with caplog.at_level(logging.WARNING, "streamware.resume"):
        async with Site() as site:
            for number in (1, 2):
                connection = site.eventsource(cursor=foreign)
                await (await site.run(number)).stream("one")
                reset = await connection.event()
                assert reset.event == "streamware.reset"
                assert msgspec.json.decode(reset.data)["reason"] == "unknown"
                assert (await connection.event()).data == "one"
                assert connection.logged
            assert site.counted("resume.foreign_cursor") == 2
    assert len([record for record in caplog.records if "store that they share" in record.getMessage()]) == 1


async def test_others_with_another_stores_cursor_get_410_and_nothing_is_started() -> None:
    async with Site() as site:
        connection = site.connect(cursor=new_stream_id("OTHER0") + ".3")
        assert (await problem(connection))["reason"] == "unknown"
        assert connection.status == 410
        assert site.runs == 0
        assert site.counted("resume.foreign_cursor") == 1


async def test_two_workers_of_one_app_never_mix_up_their_streams() -> None:
    clock = FakeClock()
    async with Site(clock=clock) as one, Site(clock=clock) as two:
        first, _ = await one.started("1")
        first.drop()
        refused = two.connect(cursor=first.at(1))
        assert (await problem(refused))["reason"] == "unknown"
        stop = two.connect(first.own_url, method="DELETE")
        await stop.finished()
        assert stop.status == 404
        assert two.runs == 0


async def test_two_workers_that_share_a_store_serve_each_others_streams() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    async with Site(clock=clock, store=store) as one, Site(clock=clock, store=store) as two:
        first, run = await one.started("1", "2")
        first.drop()
        again = two.connect(cursor=first.at(1))
        await run.say("3")
        await run.end()
        await again.finished()
        assert again.data == ["2", "3"]
        assert two.runs == 0


# -- behind a gateway of ours


class Gateway:
    """Two Streamwares: the outer one is a gateway in front of the inner one's app."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.inner = Site(clock=self.clock)

        async def upstream(scope, receive, send):
            scope = {key: value for key, value in scope.items() if key != "streamware"}
            await self.inner.app(scope, receive, send)

        self.outer = Site(upstream, clock=self.clock)

    async def __aenter__(self) -> Gateway:
        await self.inner.__aenter__()
        await self.outer.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.outer.__aexit__(*error)
        await self.inner.__aexit__(*error)


@BOTH
async def test_a_gateway_lets_the_ids_of_a_streamware_further_in_through(headers: dict[str, str]) -> None:
    async with Gateway() as gateway:
        connection = gateway.outer.connect(headers=headers)
        run = await gateway.inner.run()
        await run.stream("1", "2")
        await connection.events(2)
        assert connection.stream in gateway.inner.store._logs
        assert len(gateway.outer.store) == 0
        connection.drop()
        await connection.finished()
        again = gateway.outer.connect(headers=headers, cursor=connection.at(1))
        await run.say("3")
        await run.end()
        await again.finished()
        assert again.data == ["2", "3"]
        assert gateway.inner.runs == 1


async def test_a_gateway_passes_reads_polls_and_stops_of_inner_streams_on() -> None:
    async with Gateway() as gateway:
        connection = gateway.outer.connect()
        run = await gateway.inner.run()
        await run.stream("1")
        await connection.event()
        reader = gateway.outer.connect(connection.own_url)
        assert (await reader.event()).data == "1"
        polled = gateway.outer.connect(connection.own_url, headers={"accept": "application/json"})
        await polled.finished()
        assert polled.status == 200
        stopped = gateway.outer.connect(connection.own_url, method="DELETE")
        await stopped.finished()
        assert stopped.status == 204
        await connection.finished()


@BOTH
async def test_a_gateway_knows_its_inner_store_by_any_one_of_its_streams(headers: dict[str, str]) -> None:
    async with Gateway() as gateway:
        direct, run = await gateway.inner.started("1", "2")
        direct.drop()
        other = gateway.outer.connect()
        await (await gateway.inner.run(2)).stream("x")
        await other.event()
        again = gateway.outer.connect(headers=headers, cursor=direct.at(1))
        assert (await again.event()).data == "2"
        assert again.controls == []
        assert gateway.inner.runs == 2
        await run.end()


async def test_behind_a_gateway_that_was_restarted_an_eventsource_still_resumes() -> None:
    async with Gateway() as gateway:
        direct, run = await gateway.inner.started("1", "2")
        direct.drop()
        again = gateway.outer.eventsource(cursor=direct.at(1))
        assert (await again.event()).data == "2"
        assert gateway.inner.runs == 1
        await run.end()


async def test_two_streamwares_in_one_process_that_share_a_store_do_not_lose_each_others_streams() -> None:
    """Once by mistake around an app whose one route has it already: its own tag is no inner one's."""
    from streamware import ResumeMiddleware

    async with Site() as site:
        inner = ResumeMiddleware(site.stage, store=site.store, clock=site.clock)

        async def app(scope, receive, send):
            scope = {key: value for key, value in scope.items() if key != "streamware"}
            await (inner if scope["path"] == "/inner" else site.stage)(scope, receive, send)

        site.resume.app = app
        nested, nested_run = await site.started("1", path="/inner")
        plain, plain_run = await site.started("1", "2", path="/plain")
        plain.drop()
        nested.drop()
        again = site.connect("/plain", cursor=plain.at(1))
        assert (await again.event()).data == "2"
        await nested_run.say("2")
        again = site.connect("/inner", cursor=nested.at(1))
        assert (await again.event()).data == "2"
        assert site.runs == 2
        await nested_run.end()
        await plain_run.end()
        await inner.aclose()


# -- another owner's, another path, another method


@BOTH
@pytest.mark.parametrize(
    "asked",
    [
        {"path": "/public"},
        {"method": "POST"},
        {"more": {"authorization": "Bearer mallory"}},
        {"more": {"authorization": ""}},
        {"path": "/chat/"},
    ],
)
async def test_another_owner_path_or_method_is_answered_as_unknown(
    headers: dict[str, str], asked: dict[str, object]
) -> None:
    async with Site() as site:
        alice = headers | {"authorization": "Bearer alice"}
        first, run = await site.started("secret", headers=alice)
        more = asked.get("more", {"authorization": "Bearer alice"})
        asked = {key: value for key, value in asked.items() if key != "more"}
        again = site.connect(headers=headers | more, cursor=first.at(0), **asked)
        if headers == EVENTSOURCE and asked.get("method", "GET") == "GET":
            other = await site.run(2)
            assert b"last-event-id" not in dict(other.scope["headers"])
            await other.stream("new")
            reset = await again.event()
            assert reset.event == "streamware.reset"
            assert msgspec.json.decode(reset.data) == {"reason": "unknown"}
            assert again.stream != first.stream
        else:
            assert (await problem(again))["reason"] == "unknown"
            assert again.status == 410
            assert site.runs == 1
        assert b"secret" not in again.body
        await run.end()


async def test_unknown_looks_the_same_whether_the_stream_exists_or_not() -> None:
    async with Site() as site:
        first, _ = await site.started("secret", headers=READER | {"authorization": "Bearer alice"})
        exists = site.connect(cursor=first.at(0))
        none = site.connect(cursor=new_stream_id(site.store.tag) + ".0")
        await exists.finished()
        await none.finished()
        assert exists.messages == none.messages


async def test_the_query_is_not_compared_since_tickets_change() -> None:
    async with Site() as site:
        first, _ = await site.started("1", "2", path="/chat?ticket=a")
        first.drop()
        again = site.connect("/chat?ticket=b", cursor=first.at(1))
        assert (await again.event()).data == "2"


async def test_a_posts_body_is_drained_and_ignored() -> None:
    async with Site() as site:
        first = site.connect(method="POST", body=b'{"q": 1}', headers=READER | {"content-length": "8"})
        run = await site.run()
        await run.stream("1", "2")
        await first.events(2)
        first.drop()
        again = site.connect(
            method="POST", body=None, cursor=first.at(1), headers=READER | {"transfer-encoding": "chunked"}
        )
        again.send_body(b"{" * 100_000, more=True)
        assert (await again.event()).data == "2"
        again.send_body(b"}" * 100_000, more=True)
        again.send_body(b"")
        await settle()
        assert again._requests == []
        again.drop()
        await again.finished()
        assert run.got == b'{"q": 1}'
        assert site.runs == 1


# -- caught up with the end


@BOTH
async def test_caught_up_and_done_is_204(headers: dict[str, str]) -> None:
    async with Site() as site:
        first, run = await site.started("1", "2", headers=headers)
        await run.end()
        await first.finished()
        await no_content(site.connect(headers=headers, cursor=first.at(2)))
        assert site.runs == 1


@BOTH
async def test_caught_up_and_stopped_is_204(headers: dict[str, str]) -> None:
    async with Site() as site:
        first, _ = await site.started("1", headers=headers)
        await site.connect(first.own_url, method="DELETE").finished()
        await first.finished()
        await no_content(site.connect(headers=headers, cursor=first.at(1)))


async def fail(site: Site, headers: dict[str, str], outcome: str) -> SiteConnection:
    """A stream that has said "1" and ended as ``outcome``, with nobody there."""
    first, run = await site.started("1", headers=headers)
    first.drop()
    await first.finished()
    if outcome == "failed":
        run.begin(RuntimeError("boom"))
        await run.over.wait()
    else:
        await site.clock.advance(30)
        await run.disconnected.wait()
        await run.put(None)
    await settle()
    return first


@pytest.mark.parametrize("outcome", ["failed", "interrupted"])
async def test_caught_up_and_incomplete_is_204_for_an_eventsource(outcome: str) -> None:
    async with Site() as site:
        first = await fail(site, EVENTSOURCE, outcome)
        await no_content(site.eventsource(cursor=first.at(1)))
        assert site.runs == 1


@pytest.mark.parametrize("outcome", ["failed", "interrupted"])
async def test_caught_up_and_incomplete_is_410_with_the_outcome_for_others(outcome: str) -> None:
    async with Site() as site:
        first = await fail(site, READER, outcome)
        found = await problem(site.connect(cursor=first.at(1)))
        assert found["status"] == 410
        assert found["outcome"] == outcome
        assert site.runs == 1


# -- expired


@BOTH
@pytest.mark.parametrize(("seq", "outcome"), [(0, "done"), (1, "done"), (2, "done"), (99, "done"), (1, "failed")])
async def test_after_the_ttl_nothing_starts_again(headers: dict[str, str], seq: int, outcome: str) -> None:
    """A laptop wakes up after the answer has ended and expired."""
    async with Site() as site:
        if outcome == "done":
            first, run = await site.started("1", "2", headers=headers)
            first.drop()
            await run.end()
        else:
            first = await fail(site, headers, outcome)
        await site.clock.advance(301)
        assert len(site.store) == 0
        again = site.connect(headers=headers, cursor=first.at(seq))
        if headers == EVENTSOURCE:
            await no_content(again)
        else:
            found = await problem(again)
            assert found["status"] == 410
            assert found["outcome"] == outcome
        assert site.runs == 1


@pytest.mark.parametrize("cursor_owner", ["Bearer alice", "Bearer mallory"])
async def test_a_tombstone_tells_its_owner_alone(cursor_owner: str) -> None:
    async with Site() as site:
        first, run = await site.started("1", headers=READER | {"authorization": "Bearer alice"})
        await run.end()
        await first.finished()
        await site.clock.advance(301)
        again = site.connect(headers=READER | {"authorization": cursor_owner}, cursor=first.at(1))
        found = await problem(again)
        assert found["outcome"] == ("done" if cursor_owner == "Bearer alice" else None)
        assert found["reason"] == ("expired" if cursor_owner == "Bearer alice" else "unknown")


async def test_once_its_tombstone_is_gone_a_stream_is_unknown() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        await run.end()
        await first.finished()
        await site.clock.advance(301 + 86_400)
        found = await problem(site.connect(cursor=first.at(1)))
        assert found["reason"] == "unknown"


# -- unknown


async def test_an_eventsource_with_an_unknown_cursor_starts_afresh_with_a_reset_first() -> None:
    async with Site() as site:
        connection = site.eventsource(cursor=new_stream_id(site.store.tag) + ".7")
        run = await site.run()
        assert b"last-event-id" not in dict(run.scope["headers"])
        await run.start()
        await site.clock.advance(HOLD)
        reset = await connection.event()
        assert (reset.event, msgspec.json.decode(reset.data), reset.id) == (
            "streamware.reset",
            {"reason": "unknown"},
            "",
        )
        await run.say("one")
        assert (await connection.event()).id == connection.at(1)


async def test_others_with_an_unknown_cursor_get_410_and_nothing_is_started() -> None:
    async with Site() as site:
        found = await problem(site.connect(cursor=new_stream_id(site.store.tag) + ".7"))
        assert found["status"] == 410
        assert found["reason"] == "unknown"
        assert site.runs == 0


async def test_on_expired_gone_never_starts_afresh() -> None:
    async with Site(on_expired={"/chat*": "gone"}) as site:
        await no_content(site.eventsource(cursor=new_stream_id(site.store.tag) + ".7"))
        assert site.runs == 0
        connection = site.eventsource("/feed", cursor=new_stream_id(site.store.tag) + ".7")
        await (await site.run()).stream("one")
        assert (await connection.event()).event == "streamware.reset"


# -- on_done


@BOTH
async def test_on_done_restart_calls_the_app_again_without_the_cursor(headers: dict[str, str]) -> None:
    """A feed that ends its response on purpose, and lives by EventSource's reconnect."""
    async with Site(on_done={"/feed": "restart"}) as site:
        first, run = await site.started("1", path="/feed", headers=headers)
        await run.end()
        await first.finished()
        again = site.connect("/feed", headers=headers, cursor=first.at(1))
        second = await site.run(2)
        assert b"last-event-id" not in dict(second.scope["headers"])
        await second.stream("2")
        await second.end()
        await again.finished()
        assert again.data == ["2"]
        assert again.controls == []
        assert again.stream != first.stream
        chat, run = await site.started("1", headers=headers)
        await run.end()
        await chat.finished()
        await no_content(site.connect(headers=headers, cursor=chat.at(1)))


@BOTH
async def test_on_done_restart_holds_after_the_ttl_as_well(headers: dict[str, str]) -> None:
    async with Site(on_done="restart") as site:
        first, run = await site.started("1", headers=headers)
        await run.end()
        await first.finished()
        await site.clock.advance(301)
        again = site.connect(headers=headers, cursor=first.at(1))
        await (await site.run(2)).stream("2")
        assert (await again.event()).data == "2"


async def test_on_done_restart_first_gives_what_is_left_of_the_ended_stream() -> None:
    async with Site(on_done="restart") as site:
        first, run = await site.started("1", "2", headers=EVENTSOURCE)
        first.drop()
        await run.end()
        again = site.eventsource(cursor=first.at(1))
        await again.finished()
        assert again.data == ["2"]
        assert site.runs == 1


@pytest.mark.parametrize("outcome", ["failed", "interrupted"])
async def test_with_on_done_restart_a_feed_that_was_cut_goes_on_and_says_so(outcome: str) -> None:
    """A laptop that sleeps for longer than linger, or an app that crashes: bare, the browser would be served afresh."""
    async with Site(on_done="restart") as site:
        first = await fail(site, EVENTSOURCE, outcome)
        again = site.eventsource(cursor=first.at(1))
        await (await site.run(2)).stream("2")
        reset = await again.event()
        assert (reset.event, msgspec.json.decode(reset.data)) == ("streamware.reset", {"reason": outcome})
        assert (await again.event()).data == "2"


async def test_with_on_done_restart_what_was_stopped_stays_stopped() -> None:
    async with Site(on_done="restart") as site:
        first, _ = await site.started("1", headers=EVENTSOURCE)
        await site.connect(first.own_url, method="DELETE", headers={}).finished()
        await no_content(site.eventsource(cursor=first.at(1)))
        await site.clock.advance(301)
        await no_content(site.eventsource(cursor=first.at(1)))


@pytest.mark.parametrize("outcome", ["failed", "interrupted"])
async def test_on_done_restart_does_not_hide_a_failure_from_others(outcome: str) -> None:
    async with Site(on_done="restart") as site:
        first = await fail(site, READER, outcome)
        found = await problem(site.connect(cursor=first.at(1)))
        assert found["outcome"] == outcome
        assert site.runs == 1


# -- trimmed


async def trimmed(site: Site) -> SiteConnection:
    """A stream whose log no longer holds its first events: they were sent to a reader."""
    first, run = await site.started(headers=EVENTSOURCE)
    for number in range(1, 41):
        await run.put(body(b"data: %d %b\n\n" % (number, b"x" * 200)))
        await first.event()
    log = site.store._logs[first.stream]
    assert log.first > 1
    return first


SMALL = {"max_log_bytes": 4096}


async def test_an_eventsource_with_a_trimmed_cursor_is_told_of_the_gap_and_gets_what_there_is() -> None:
    async with Site(store=SMALL) as site:
        first = await trimmed(site)
        earliest = site.store._logs[first.stream].first
        again = site.eventsource(cursor=first.at(1))
        reset = await again.event()
        assert reset.event == "streamware.reset"
        assert msgspec.json.decode(reset.data) == {"reason": "gap", "earliest": first.at(earliest - 1)}
        events = await again.events(40 - earliest + 1)
        assert [int(event.data.split()[0]) for event in events] == list(range(earliest, 41))
        assert site.counted("resume.gap", "gap") == 1


async def test_others_with_a_trimmed_cursor_get_410_with_the_earliest() -> None:
    async with Site(store=SMALL) as site:
        first = await trimmed(site)
        earliest = site.store._logs[first.stream].first
        found = await problem(site.connect(cursor=first.at(1)))
        assert found["status"] == 410
        assert found["reason"] == "gap"
        assert found["earliest"] == first.at(earliest - 1)
        again = site.connect(cursor=str(found["earliest"]))
        events = await again.events(40 - earliest + 1)
        assert int(events[0].data.split()[0]) == earliest


async def test_a_cursor_at_the_edge_of_what_is_kept_is_no_gap() -> None:
    async with Site(store=SMALL) as site:
        first = await trimmed(site)
        edge = site.store._logs[first.stream].first - 1
        again = site.connect(cursor=first.at(edge))
        await again.start()
        assert again.status == 200


# -- a client that is no browser, but wants control events

CONTROLLED = READER | {"prefer": "control-events"}


async def test_control_events_tell_a_post_of_a_gap_in_band_too() -> None:
    async with Site(store=SMALL) as site:
        first = site.connect(headers=CONTROLLED, method="POST")
        run = await site.run()
        await run.start()
        for number in range(1, 41):
            await run.put(body(b"data: %d %b\n\n" % (number, b"x" * 200)))
            await first.event()
        earliest = site.store._logs[first.stream].first
        again = site.connect(headers=CONTROLLED, method="POST", cursor=first.at(1))
        reset = await again.event()
        assert (reset.event, msgspec.json.decode(reset.data)["reason"]) == ("streamware.reset", "gap")
        assert len(await again.events(40 - earliest + 1)) > 3


async def test_control_events_tell_a_post_that_it_is_ahead_and_that_its_stream_has_failed() -> None:
    async with Site() as site:
        first, run = await site.started("1", headers=CONTROLLED, method="POST")
        again = site.connect(headers=CONTROLLED, method="POST", cursor=first.at(5))
        await site.clock.advance(1.1)
        assert msgspec.json.decode((await again.event()).data)["reason"] == "ahead"
        run.begin(None)
        await again.finished()
        assert again.controls == ["reset", "failed"]
        await no_content(site.connect(headers=CONTROLLED, method="POST", cursor=first.at(1)))


async def test_nothing_but_a_get_ever_starts_afresh() -> None:
    """A POST does something: with an unknown cursor it must not do it again."""
    async with Site() as site:
        again = site.connect(headers=CONTROLLED, method="POST", cursor=new_stream_id(site.store.tag) + ".1")
        assert (await problem(again))["reason"] == "unknown"
        assert again.status == 410
        assert site.runs == 0


# -- ahead


@BOTH
async def test_a_cursor_ahead_waits_for_the_log_to_reach_it(headers: dict[str, str]) -> None:
    async with Site() as site:
        first, run = await site.started("1", headers=headers)
        again = site.connect(headers=headers, cursor=first.at(2))
        await site.clock.advance(0.5)
        assert not again.started
        await run.say("2", "3")
        assert (await again.event()).data == "3"
        assert again.controls == []


async def test_an_eventsource_that_stays_ahead_is_told_and_goes_on_from_there() -> None:
    async with Site() as site:
        first, run = await site.started("1", headers=EVENTSOURCE)
        again = site.eventsource(cursor=first.at(999_999))
        await site.clock.advance(1.1)
        reset = await again.event()
        assert reset.event == "streamware.reset"
        assert msgspec.json.decode(reset.data)["reason"] == "ahead"
        await run.say("2")
        assert (await again.event()).data == "2"


async def test_others_that_stay_ahead_get_410() -> None:
    async with Site() as site:
        first, _ = await site.started("1")
        again = site.connect(cursor=first.at(999_999_999_999_999))
        await site.clock.advance(1.1)
        found = await problem(again)
        assert found["status"] == 410
        assert found["reason"] == "ahead"


async def test_ahead_of_a_log_that_has_ended_does_not_wait() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        await run.end()
        await first.finished()
        found = await problem(site.connect(cursor=first.at(5)))
        assert (found["reason"], found["outcome"]) == ("ahead", "done")
        await no_content(site.eventsource(cursor=first.at(5)))


async def test_a_log_that_ends_while_a_cursor_is_ahead_of_it_answers_at_once() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        other = site.connect(cursor=first.at(2))
        like = site.eventsource(cursor=first.at(2))
        await settle()
        await run.end()
        assert (await problem(other))["reason"] == "ahead"
        await no_content(like)
