"""Starting once: requests with the same ``Idempotency-Key`` share one stream; and ``Prefer: respond-async``."""

from __future__ import annotations

import msgspec
import pytest

from streamware.streams.options import ASYNC_LINGER, CLAIM_WAIT, KEYED_BODY_BYTES
from streamware.testing import settle
from tests.middleware.resume_site import EVENTSOURCE, HOLD, READER, SSE, Site, SiteConnection, body, start, until

LONE = "0123456789abcdefghijkl"
ALICE = {"authorization": "Bearer alice"}
BOB = {"authorization": "Bearer bob"}


def ask(
    site: Site, key: str = LONE, *, question: bytes = b'{"q": 1}', path: str = "/chat", method: str = "POST",
    **more: str,
) -> SiteConnection:  # fmt: skip
    """A request with a key; ``more`` are headers."""
    given = READER | {"idempotency-key": key, "content-length": str(len(question))}
    given |= {name.replace("_", "-"): value for name, value in more.items()}
    return site.connect(path, method=method, headers=given, body=question)


# -- joining


async def test_a_second_request_with_the_key_joins_the_running_stream() -> None:
    async with Site() as site:
        first = ask(site)
        run = await site.run()
        await run.stream("1", "2")
        await first.events(2)
        second = ask(site)
        await second.events(2)
        await run.say("3")
        await run.end()
        await first.finished()
        await second.finished()
        assert first.data == second.data == ["1", "2", "3"]
        assert second.stream == first.stream
        assert run.got == b'{"q": 1}'
        assert site.runs == 1
        assert site.counted("resume.joined") == 1


async def test_it_joins_even_when_the_first_response_never_arrived() -> None:
    async with Site() as site:
        first = ask(site)
        run = await site.run()
        await until(lambda: run.got != b"")
        first.drop()
        await settle()
        second = ask(site)
        await run.stream("1")
        await run.end()
        await second.finished()
        assert second.data == ["1"]
        assert not first.started
        assert site.runs == 1


async def test_it_joins_a_finished_stream_and_gets_all_of_it() -> None:
    async with Site() as site:
        first = ask(site)
        run = await site.run()
        await run.stream("1", "2")
        await run.end()
        await first.finished()
        for _ in range(2):
            again = ask(site)
            await again.finished()
            assert again.data == ["1", "2"]
            assert again.complete
        assert site.runs == 1


async def test_a_duplicate_that_comes_before_the_first_has_started_waits_for_it() -> None:
    async with Site() as site:
        connections = [ask(site) for _ in range(4)]
        run = await site.run()
        await settle()
        assert not any(connection.started for connection in connections)
        await run.stream("1")
        await run.end()
        for connection in connections:
            await connection.finished()
            assert connection.data == ["1"]
        assert site.runs == 1


async def test_an_expired_stream_is_not_started_again() -> None:
    async with Site() as site:
        first = ask(site)
        run = await site.run()
        await run.stream("1")
        await run.end()
        await first.finished()
        await site.clock.advance(400)
        again = ask(site)
        await again.finished()
        assert again.status == 410
        assert msgspec.json.decode(again.body)["outcome"] == "done"
        assert site.runs == 1


async def test_the_key_is_forgotten_with_its_tombstone() -> None:
    async with Site() as site:
        first = ask(site)
        run = await site.run()
        await run.stream("1")
        await run.end()
        await first.finished()
        await site.clock.advance(400 + 86_400)
        again = ask(site)
        await (await site.run(2)).stream("2")
        assert (await again.event()).data == "2"


async def test_a_key_and_a_cursor_together_go_by_the_cursor() -> None:
    async with Site() as site:
        first = ask(site)
        run = await site.run()
        await run.stream("1", "2")
        await first.events(2)
        again = ask(site, last_event_id=first.at(1))
        assert (await again.event()).data == "2"
        await run.end()
        await again.finished()
        caught_up = ask(site, last_event_id=first.at(2))
        await caught_up.finished()
        assert caught_up.status == 204


async def test_a_trimmed_stream_is_not_joined_as_if_it_were_whole() -> None:
    async with Site(store={"max_log_bytes": 4096}) as site:
        first = ask(site)
        run = await site.run()
        await run.start()
        for _ in range(40):
            await run.put(body(b"data: %b\n\n" % (b"x" * 200)))
            await first.event()
        second = ask(site)
        await second.finished()
        assert second.status == 410
        assert msgspec.json.decode(second.body)["reason"] == "gap"
        assert site.runs == 1


# -- what a key counts within


async def test_another_body_under_the_same_key_is_422() -> None:
    async with Site() as site:
        first = ask(site)
        run = await site.run()
        await run.stream("1")
        await first.event()
        second = ask(site, question=b'{"q": 2}')
        await second.finished()
        assert second.status == 422
        assert second.header("content-type") == "application/problem+json"
        assert second.header("cache-control") == "no-store"
        assert site.runs == 1


async def test_another_body_is_422_while_the_first_is_still_starting() -> None:
    async with Site() as site:
        ask(site)
        await site.run()
        second = ask(site, question=b'{"q": 2}')
        await second.finished()
        assert second.status == 422


@pytest.mark.parametrize(
    "other",
    [
        {"path": "/chat/2"},
        {"path": "/chat?model=large"},
        {"method": "PUT"},
        {"key": LONE[::-1]},
    ],
)
async def test_a_key_counts_within_its_method_path_and_query(other: dict[str, str]) -> None:
    async with Site() as site:
        first = ask(site)
        await (await site.run()).stream("1")
        await first.event()
        second = ask(site, **other)
        await (await site.run(2)).stream("2")
        assert (await second.event()).data == "2"


async def test_a_key_counts_within_its_owner() -> None:
    async with Site() as site:
        connections = []
        for number, owner in enumerate([ALICE, BOB], 1):
            connection = ask(site, "1", **owner)
            await (await site.run(number)).stream(owner["authorization"])
            await connection.event()
            connections.append(connection)
        again = ask(site, "1", **BOB)
        assert (await again.event()).data == "Bearer bob"
        assert again.stream == connections[1].stream
        assert site.runs == 2


async def test_two_anonymous_callers_with_one_short_key_do_not_meet() -> None:
    """``Idempotency-Key: 1`` from A and from B: B must not read A's answer."""
    async with Site() as site:
        a = ask(site, "1")
        await (await site.run(1)).stream("for a")
        await a.event()
        b = ask(site, "1")
        await (await site.run(2)).stream("for b")
        assert (await b.event()).data == "for b"
        assert a.stream != b.stream
        assert a.data == ["for a"]


@pytest.mark.parametrize(("length", "runs"), [(21, 2), (22, 1)])
async def test_without_an_owner_only_keys_of_22_characters_count(length: int, runs: int) -> None:
    async with Site() as site:
        ask(site, "k" * length)
        await (await site.run(1)).stream("1")
        second = ask(site, "k" * length)
        await settle()
        assert site.runs == runs
        if runs == 1:
            assert (await second.event()).data == "1"


async def test_a_key_too_long_to_be_one_is_ignored() -> None:
    async with Site() as site:
        for number in (1, 2):
            connection = ask(site, "k" * 5000)
            await (await site.run(number)).stream("1")
            await connection.event()


# -- bounds


async def test_a_body_too_large_to_hold_reaches_the_app_as_it_comes() -> None:
    """An upload must not break because its client sends a key."""
    async with Site() as site:
        headers = READER | {"idempotency-key": LONE, "transfer-encoding": "chunked"}
        connection = site.connect(method="POST", headers=headers, body=None)
        part = b"x" * (KEYED_BODY_BYTES // 4)
        for _ in range(4):
            connection.send_body(part, more=True)
        await settle()
        assert site.runs == 0, "so much is held to be compared"
        connection.send_body(b"y", more=True)
        run = await site.run()
        await until(lambda: len(run.got) == KEYED_BODY_BYTES + 1)
        connection.send_body(b"z")
        await until(lambda: run.got[-2:] == b"yz")
        await run.put(start([(b"content-type", b"application/json")]), body(b"{}", False), None)
        await connection.finished()
        assert connection.status == 200


@pytest.mark.parametrize(
    ("length", "beginning", "status"), [(2, b"x", 200), (2, b"y", 422), (3, b"x", 422), (None, b"x", 422)]
)
async def test_of_a_body_too_large_to_hold_its_beginning_and_length_are_compared(
    length: int | None, beginning: bytes, status: int
) -> None:
    async with Site() as site:
        upload = beginning + b"x" * KEYED_BODY_BYTES

        def headers(more: int | None) -> dict[str, str]:
            stated = {} if more is None else {"content-length": str(KEYED_BODY_BYTES + more)}
            return READER | {"idempotency-key": LONE} | (stated or {"transfer-encoding": "chunked"})

        first = site.connect(method="POST", headers=headers(2), body=b"x" + upload[1:] + b"1")
        await (await site.run()).stream("1")
        await first.event()
        second = site.connect(method="POST", headers=headers(length), body=upload + b"2" * ((length or 2) - 1))
        await until(lambda: second.started)
        assert second.status == status
        assert site.runs == 1


async def test_a_body_in_parts_reaches_the_app_whole_and_compares_alike() -> None:
    async with Site() as site:
        headers = READER | {"idempotency-key": LONE, "transfer-encoding": "chunked"}
        first = site.connect(method="POST", headers=headers, body=None)
        for part in (b"ab", b"cd", b""):
            first.send_body(part, more=part != b"")
        run = await site.run()
        await until(lambda: run.got == b"abcd")
        await run.stream("1")
        second = site.connect(method="POST", headers=headers, body=b"abcd")
        assert (await second.event()).data == "1"


async def test_a_duplicate_waits_bounded_then_gets_409() -> None:
    async with Site() as site:
        first = ask(site)
        run = await site.run()
        second = ask(site)
        await site.clock.advance(CLAIM_WAIT - 0.1)
        assert not second.started
        await site.clock.advance(0.2)
        await second.finished()
        assert second.status == 409
        assert second.header("retry-after") is not None
        assert second.header("content-type") == "application/problem+json"
        await run.stream("1")
        await first.event()
        third = ask(site)
        assert (await third.event()).data == "1"
        assert site.runs == 1


async def test_an_eventsource_that_waits_in_vain_is_not_killed() -> None:
    """Any status but 200 would end it for good, and it is a refusal for now."""
    async with Site() as site:
        ask(site, method="GET", question=b"")
        await site.run()
        second = site.connect(headers=EVENTSOURCE | {"idempotency-key": LONE, "content-length": "0"})
        await site.clock.advance(CLAIM_WAIT + 1)
        await second.finished()
        assert second.status == 200
        assert second.body.startswith(b"retry: ")


async def test_a_duplicate_that_leaves_while_it_waits_leaves_nothing_behind() -> None:
    async with Site() as site:
        first = ask(site)
        run = await site.run()
        second = ask(site)
        await settle()
        second.drop()
        await run.stream("1")
        await run.end()
        await first.finished()
        await second.finished()


# -- when the first is no stream, or fails


async def test_where_the_first_is_no_stream_the_duplicate_goes_to_the_app() -> None:
    async with Site() as site:
        first = ask(site)
        run = await site.run()
        second = ask(site)
        await settle()
        assert site.runs == 1
        await run.put(start([(b"content-type", b"application/json")], status=401), body(b"{}", False), None)
        await first.finished()
        assert first.status == 401
        await (await site.run(2)).stream("2")
        assert (await second.event()).data == "2"
        third = ask(site)
        assert (await third.event()).data == "2"
        assert site.runs == 2


async def test_of_several_that_waited_one_at_a_time_goes_to_the_app() -> None:
    async with Site() as site:
        connections = [ask(site) for _ in range(4)]
        run = await site.run()
        await settle()
        await run.put(start([], status=503), body(b"", False), None)
        second = await site.run(2)
        await settle()
        assert site.runs == 2
        await second.stream("2")
        await second.end()
        for connection in connections[1:]:
            await connection.finished()
        assert sorted(connection.status for connection in connections) == [200, 200, 200, 503]
        assert site.runs == 2


async def test_where_the_first_raises_the_duplicate_goes_to_the_app() -> None:
    async with Site() as site:
        first = ask(site)
        run = await site.run()
        second = ask(site)
        await settle()
        run.begin(RuntimeError("boom"))
        with pytest.raises(RuntimeError, match="boom"):
            await first.finished()
        await (await site.run(2)).stream("2")
        assert (await second.event()).data == "2"


async def test_where_the_first_has_ids_of_its_own_the_duplicate_goes_to_the_app() -> None:
    async with Site() as site:
        first = ask(site)
        run = await site.run()
        await run.put(start(), body(b"id: 1\ndata: x\n\n"))
        await first.event()
        second = ask(site)
        await (await site.run(2)).put(start(), body(b"id: 1\ndata: y\n\n"))
        assert (await second.event()).data == "y"


async def test_where_own_ids_show_only_after_the_hold_the_key_is_free_again() -> None:
    async with Site() as site:
        first = ask(site)
        run = await site.run()
        await run.start()
        await site.clock.advance(HOLD)
        await run.put(body(b"id: 1\ndata: x\n\n"))
        await first.event()
        second = ask(site)
        await (await site.run(2)).put(start(), body(b"id: 1\ndata: y\n\n"))
        assert (await second.event()).data == "y"


async def test_a_stream_that_fails_after_its_start_is_joined_and_seen_to_be_cut() -> None:
    async with Site() as site:
        first = ask(site)
        run = await site.run()
        await run.stream("1")
        await first.event()
        run.begin(RuntimeError("boom"))
        await first.finished()
        assert not first.complete
        again = ask(site)
        await again.finished()
        assert again.data == ["1"]
        assert not again.complete
        assert site.runs == 1


async def test_a_stream_that_failed_before_its_first_event_is_not_joined_to_be_cut_again_and_again() -> None:
    async with Site() as site:
        first, run = await site.started(method="POST", headers=READER | {"idempotency-key": LONE}, body=b"")
        run.begin(RuntimeError("boom"))
        await first.finished()
        assert not first.complete
        again = site.connect(method="POST", headers=READER | {"idempotency-key": LONE}, body=b"")
        await again.finished()
        assert again.status == 410
        told = msgspec.json.decode(again.body)
        assert (told["reason"], told["outcome"]) == ("ended", "failed")
        like = site.connect(
            method="POST", headers=READER | {"idempotency-key": LONE, "prefer": "control-events"}, body=b""
        )
        await like.finished()
        assert like.controls == ["failed"], "it is told in band"
        assert site.runs == 1


async def test_an_upload_that_breaks_off_does_not_hold_the_key() -> None:
    async with Site() as site:
        first = site.connect(
            method="POST", headers=READER | {"idempotency-key": LONE, "content-length": "8"}, body=None
        )
        first.send_body(b'{"q"', more=True)
        await settle()
        first.drop()
        await first.finished()
        second = ask(site)
        await (await site.run()).stream("1")
        assert (await second.event()).data == "1"


async def test_a_first_request_that_is_cancelled_before_it_could_run_does_not_hold_the_key() -> None:
    for turns in range(12):
        async with Site() as site:
            first = ask(site)
            await settle(turns)
            first.cancel()
            await first.finished()
            second = ask(site)
            await settle()
            run = site.stage.runs[-1]
            await run.stream("1")
            await second.event()
            assert second.data == ["1"]


# -- respond-async


async def test_respond_async_gets_202_and_a_location_to_poll() -> None:
    async with Site() as site:
        first = site.connect(method="POST", headers={"accept": "*/*", "prefer": "respond-async"})
        run = await site.run()
        await settle()
        assert not first.started
        await run.stream("1")
        await first.finished()
        assert first.status == 202
        assert first.complete
        assert first.header("preference-applied") == "respond-async"
        assert first.header("cache-control") == "no-store"
        location = first.header("location")
        assert location is not None
        polled = site.connect("/chat" + location, headers={"accept": "application/json"})
        await polled.finished()
        answer = msgspec.json.decode(polled.body)
        assert [event["data"] for event in answer["events"]] == ["1"]
        assert answer["outcome"] is None
        await run.say("2")
        await run.end()
        rest = site.connect(f"/chat{location}&after={answer['cursor']}", headers={"accept": "application/json"})
        await rest.finished()
        assert msgspec.json.decode(rest.body)["outcome"] == "done"


@pytest.mark.parametrize("status", [401, 422, 200])
async def test_respond_async_does_not_hide_an_answer_that_is_no_stream(status: int) -> None:
    async with Site() as site:
        first = site.connect(headers={"prefer": "respond-async"})
        run = await site.run()
        await run.put(start([(b"content-type", b"application/json")], status=status), body(b"{}", False), None)
        await first.finished()
        assert first.status == status
        assert first.body == b"{}"


async def test_linger_counts_from_the_last_poll_and_never_less_than_a_poll_may_take() -> None:
    async with Site(linger=0) as site:
        first = site.connect(headers={"accept": "*/*", "prefer": "respond-async"})
        run = await site.run()
        await run.stream("1")
        await first.finished()
        location = first.header("location")
        await site.clock.advance(ASYNC_LINGER - 1)
        assert not run.disconnected.is_set()
        poll = site.connect(f"/chat{location}", headers={"accept": "application/json"})
        await poll.finished()
        assert poll.status == 200
        await site.clock.advance(ASYNC_LINGER - 1)
        assert not run.disconnected.is_set(), "a client that lives by polling comes back after each poll"
        await site.clock.advance(2)
        assert run.disconnected.is_set()


async def test_linger_counts_from_the_last_of_many_polls() -> None:
    async with Site(linger=30) as site:
        first = site.connect(headers={"accept": "*/*", "prefer": "respond-async"})
        run = await site.run()
        await run.stream("1")
        await first.finished()
        location = first.header("location")
        for _ in range(6):
            await site.clock.advance(25)
            poll = site.connect(f"/chat{location}", headers={"accept": "application/json"})
            await poll.finished()
            assert msgspec.json.decode(poll.body)["outcome"] is None
        assert not run.disconnected.is_set()


async def test_respond_async_with_a_key_joins_with_another_202() -> None:
    async with Site() as site:
        first = ask(site, prefer="respond-async")
        run = await site.run()
        await run.stream("1")
        await first.finished()
        second = ask(site, prefer="respond-async")
        await second.finished()
        assert (first.status, second.status) == (202, 202)
        assert first.header("location") == second.header("location")
        assert site.runs == 1


async def test_respond_async_is_not_applied_to_a_stream_with_the_apps_own_ids() -> None:
    async with Site() as site:
        first = site.connect(headers={"accept": "*/*", "prefer": "respond-async"})
        run = await site.run()
        await run.put(start(), body(b"id: 1\ndata: x\n\n", False), None)
        await first.finished()
        assert first.status == 200
        assert first.headers == list(SSE)
        assert first.data == ["x"]


async def test_respond_async_on_a_stream_whose_own_ids_show_only_after_the_hold_ends_it() -> None:
    """It was answered, and cannot be read by the stream's URL: the app is told that nobody is there."""
    async with Site() as site:
        first = site.connect(headers={"accept": "*/*", "prefer": "respond-async"})
        run = await site.run()
        await run.start()
        await site.clock.advance(HOLD)
        await first.finished()
        assert first.status == 202
        with pytest.raises(OSError, match="gone|ended"):
            await run.put(body(b"id: 1\ndata: x\n\n"))


async def test_a_client_of_respond_async_may_leave_before_the_answer() -> None:
    async with Site() as site:
        first = site.connect(headers={"accept": "*/*", "prefer": "respond-async"})
        run = await site.run()
        first.drop()
        await settle()
        await run.stream("1")
        await first.finished()
        assert not run.disconnected.is_set()
        assert first.sent_after_disconnect == []


# -- the first has left before its app has answered


@pytest.mark.parametrize("leave", ["drop", "cancel"])
@pytest.mark.parametrize("more", [{}, {"prefer": "respond-async"}])
async def test_an_answer_that_is_no_stream_reaches_nobody_whose_call_has_returned(
    leave: str, more: dict[str, str]
) -> None:
    async with Site() as site:
        first = ask(site, **more)
        run = await site.run()
        await until(lambda: run.got != b"")
        if leave == "drop":
            first.drop()
        else:
            first.cancel()
            await first.finished()
        await settle()
        run.begin(start([(b"content-type", b"application/json")]))
        run.begin(body(b"{}", False))
        run.begin(None)
        await until(run.over.is_set)
        await first.finished()
        assert first.violations == []
        second = ask(site)
        await (await site.run(2)).stream("2")
        assert (await second.event()).data == "2"


@pytest.mark.parametrize("leave", ["drop", "cancel"])
async def test_own_ids_reach_nobody_whose_call_has_returned(leave: str) -> None:
    async with Site() as site:
        first = ask(site)
        run = await site.run()
        await until(lambda: run.got != b"")
        if leave == "drop":
            first.drop()
        else:
            first.cancel()
            await first.finished()
        await settle()
        run.begin(start())
        run.begin(body(b"id: 1\ndata: x\n\n"))
        run.begin(body(b"id: 2\ndata: y\n\n", False))
        run.begin(None)
        await until(run.over.is_set)
        await first.finished()
        assert first.violations == []


async def test_a_server_that_cancels_a_call_whose_stream_has_the_apps_own_ids_cancels_the_app() -> None:
    for late in (False, True):
        async with Site() as site:
            first = site.connect()
            run = await site.run()
            await run.start()
            if late:
                await site.clock.advance(HOLD)
            await run.put(body(b"id: 1\ndata: x\n\n"))
            await first.event()
            first.cancel()
            await first.finished()
            await until(run.over.is_set)
            assert run.cancelled


async def test_respond_async_lets_an_exception_before_the_start_through() -> None:
    async with Site() as site:
        first = site.connect(headers={"accept": "*/*", "prefer": "respond-async"})
        run = await site.run()
        run.begin(RuntimeError("boom"))
        with pytest.raises(RuntimeError, match="boom"):
            await first.finished()


async def test_streams_started_by_respond_async_count_as_detached() -> None:
    async with Site(max_detached=2, linger=None) as site:
        for number in (1, 2, 3):
            first = site.connect(f"/{number}", headers={"accept": "*/*", "prefer": "respond-async"})
            await (await site.run(number)).stream("1")
            await first.finished()
        assert [run.disconnected.is_set() for run in site.stage.runs] == [True, False, False]
