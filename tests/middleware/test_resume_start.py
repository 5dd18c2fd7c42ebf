"""Which requests and responses get a log, and what the bytes of a logged stream look like."""

from __future__ import annotations

import gzip
import logging
import re
from contextvars import ContextVar
from typing import Any

import msgspec
import pytest

from streamware import ConfigurationError, CurrentStream, current_stream
from streamware.testing import Connection
from streamware.types import Message, Receive, Scope, Send
from streamware.wire.denial import Denial, deny
from streamware.wire.headers import split_list
from tests.middleware.resume_site import EVENTSOURCE, HOLD, READER, SSE, Site, body, plain, start

LONE_KEY = "k" * 22


# -- requests


@pytest.mark.parametrize(
    "headers",
    [
        {"accept": "text/event-stream"},
        {"accept": "Text/Event-Stream"},
        {"accept": "application/json, text/event-stream"},
        {"accept": "text/html;q=0.1, text/event-stream;q=0.5, */*"},
        {"accept": "*/*", "idempotency-key": LONE_KEY},
        {"accept": "*/*", "prefer": "respond-async, wait=1"},
        {"accept": "*/*", "last-event-id": "swAAAAAA" + "x" * 22 + ".3", "prefer": "control-events"},
    ],
)
async def test_a_request_that_can_use_a_log_gets_one(headers: dict[str, str]) -> None:
    async with Site() as site:
        connection = site.connect(headers=headers)
        run = await site.run()
        await run.stream("one")
        await connection.start()
        assert site.counted("resume.started") == 1
        assert connection.header("content-location") or connection.header("location")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"accept": "*/*"},
        {"accept": "text/*"},
        {"accept": "application/json"},
        {"accept": "text/event-stream;q=0"},
        {"accept": "text/event-streams"},
        {"accept": "application/json", "prefer": "return=minimal"},
    ],
)
async def test_a_request_that_cannot_use_a_log_gets_none(headers: dict[str, str]) -> None:
    async with Site() as site:
        connection = site.connect(headers=headers)
        run = await site.run()
        await run.stream("one")
        await run.end()
        assert await connection.receive_body() == b"data: one\n\n"
        assert connection.headers == list(SSE)
        assert len(site.store) == 0


async def test_always_makes_requests_with_any_accept_candidates() -> None:
    async with Site(always=["/v1/*"]) as site:
        for number, (path, logged) in enumerate([("/v1/chat/completions", True), ("/v2/chat", False)], 1):
            connection = site.connect(path, method="POST", headers={"accept": "application/json"}, body=b"{}")
            await (await site.run(number)).stream("one")
            await connection.receive_body(b"one")
            assert connection.logged is logged


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
async def test_a_method_without_a_stream_passes_through(method: str) -> None:
    async with Site() as site:
        connection = site.connect(method=method)
        run = await site.run()
        await run.put(start(), body(b"", False), None)
        await connection.finished()
        assert connection.headers == list(SSE)


@pytest.mark.parametrize("name", ["mcp-session-id", "mcp-protocol-version"])
async def test_requests_of_mcp_are_left_alone(name: str) -> None:
    async with Site() as site:
        connection = site.connect(method="POST", headers=READER | {name: "1"})
        run = await site.run()
        await run.stream("one")
        await run.end()
        assert await connection.receive_body() == b"data: one\n\n"
        assert connection.headers == list(SSE)


async def test_what_takes_no_part_runs_in_the_callers_task_with_the_callers_own_receive() -> None:
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([scope["headers"], receive])
        await send(start([]))
        await send(body(b"", False))

    async with Site(app) as site:
        given: list[object] = []

        async def server(scope: Scope, receive: Receive, send: Send) -> None:
            given.extend([scope["headers"], receive])
            await site.resume(scope, receive, send)

        async with Connection(server, headers={"accept": "*/*"}) as connection:
            await connection.finished()
    assert all(mine is theirs for mine, theirs in zip(seen, given, strict=True))


async def test_the_apps_scope_has_no_accept_encoding_so_that_it_does_not_hide_its_events() -> None:
    async with Site() as site:
        site.connect(headers=READER | {"accept-encoding": "gzip, br"})
        first = await site.run(1)
        site.connect(headers={"accept": "*/*", "accept-encoding": "gzip"})
        second = await site.run(2)
        assert [name for name, _ in first.scope["headers"]] == [b"host", b"accept"]
        assert (b"accept-encoding", b"gzip") in second.scope["headers"]


async def test_a_framework_that_compresses_leaves_the_stream_readable() -> None:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    async def feed(request: Request) -> StreamingResponse:
        async def words():
            for number in range(100):
                yield f"data: {number}\n\n"

        return StreamingResponse(words(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/chat", feed)], middleware=[Middleware(GZipMiddleware, minimum_size=1)])
    async with Site(app) as site:
        connection = site.connect(headers=READER | {"accept-encoding": "gzip"})
        await connection.receive_body()
        assert connection.logged
        assert connection.data == [str(number) for number in range(100)]


# -- responses


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(start([(b"content-type", b"application/json")]), id="another media type"),
        pytest.param(start([]), id="no media type"),
        pytest.param(start(status=201), id="another status"),
        pytest.param(start(status=401), id="a refusal"),
        pytest.param(start([*SSE, (b"content-encoding", b"gzip")]), id="encoded"),
        pytest.param(start([*SSE, (b"mcp-session-id", b"1")]), id="MCP's session"),
        pytest.param(start([*SSE, (b"mcp-protocol-version", b"1")]), id="MCP's version"),
        pytest.param(start([(b"content-type", b"application/x-ndjson")]), id="NDJSON where it is not listed"),
    ],
)
async def test_a_response_that_is_no_stream_of_ours_passes_through(answer: Message) -> None:
    async with Site() as site:
        connection = site.eventsource()
        run = await site.run()
        await run.put(answer, body(b"data: one\n\n"))
        await connection.receive_body(b"one\n\n")
        assert connection.messages[:2] == [answer, body(b"data: one\n\n")]
        await run.end()
        await connection.finished()
        assert len(site.store) == 0


async def test_a_response_with_trailers_passes_through() -> None:
    async with Site() as site:
        connection = site.connect()
        run = await site.run()
        trailers = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": False}
        sent = [start(trailers=True), body(b"data: one\n\n"), body(b"", False), trailers]
        await run.put(*sent, None)
        await connection.finished()
        assert connection.messages == sent


async def test_a_body_that_was_compressed_all_the_same_is_left_alone_and_counted() -> None:
    packed = gzip.compress(b"data: one\n\n")
    async with Site() as site:
        connection = site.connect()
        run = await site.run()
        await run.put(start([*SSE, (b"content-encoding", b"gzip")]), body(packed, False), None)
        await connection.finished()
        assert connection.body == packed
        assert site.counted("resume.passed", "content_encoding") == 1


async def test_a_denial_of_ours_further_in_gets_no_log_no_id_and_no_primer() -> None:
    async def budget(scope: Scope, receive: Receive, send: Send) -> None:
        await deny(scope, send, Denial(429, "Over budget", retry_after=7.0), soft=True)

    async with Site(budget) as site:
        connection = site.eventsource()
        await connection.finished()
        assert connection.status == 200
        assert connection.body == b"retry: 7000\n\n"
        assert not connection.logged
        assert len(site.store) == 0


@pytest.mark.parametrize("sent", [b"", b"retry: 500\n\n", b": nothing\n\n", b"\n\n"])
async def test_a_stream_that_ends_before_its_first_event_passes_through(sent: bytes) -> None:
    async with Site() as site:
        connection = site.eventsource()
        run = await site.run()
        await run.start()
        await run.put(body(sent), body(b"", False), None)
        await connection.finished()
        assert connection.body == sent
        assert not connection.logged
        assert len(site.store) == 0


async def test_a_stream_without_a_log_is_counted_and_the_remedy_logged_once_a_path(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "streamware.resume"):
        async with Site() as site:
            for number, path in enumerate(["/a", "/a", "/b"], 1):
                connection = site.connect(path, headers={"accept": "*/*"})
                run = await site.run(number)
                await run.stream("one")
                await run.end()
                await connection.finished()
            assert site.counted("resume.unlogged", "accept") == 3
    advice = [record.getMessage() for record in caplog.records]
    assert len(advice) == 2
    assert "always=['/a']" in advice[0]
    assert "always=['/b']" in advice[1]


@pytest.mark.parametrize(
    ("method", "headers"),
    [("HEAD", {"accept": "*/*"}), ("GET", {"accept": "*/*", "mcp-protocol-version": "2025-11-25"})],
    ids=["HEAD", "MCP"],
)
async def test_no_remedy_is_offered_where_there_is_none(
    method: str, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever these accepted, they would get no log."""
    with caplog.at_level(logging.WARNING, "streamware.resume"):
        async with Site() as site:
            connection = site.connect(method=method, headers=headers)
            run = await site.run()
            await run.stream("one")
            await run.end()
            await connection.finished()
            assert site.counted("resume.unlogged", "accept") == 0
    assert not caplog.records


async def test_ndjson_is_logged_where_it_is_listed() -> None:
    async with Site(media_types=["text/event-stream", "application/x-ndjson"]) as site:
        connection = site.connect(headers={"accept": "application/x-ndjson"})
        run = await site.run()
        await run.start([(b"content-type", b"application/x-ndjson")])
        await run.put(body(b'{"a": 1}\n{"a"'), body(b": 2}\n"))
        await connection.receive_body(b"2}\n")
        assert connection.body == b'{"a": 1}\n{"a": 2}\n'
        connection.drop()
        await run.put(body(b'{"a": 3}\n'))
        again = site.connect(headers={"accept": "application/x-ndjson"}, cursor=connection.at(1))
        await run.end()
        assert await again.receive_body() == b'{"a": 2}\n{"a": 3}\n'


@pytest.mark.parametrize("headers", [EVENTSOURCE, {"accept": "application/x-ndjson", "prefer": "control-events"}])
async def test_control_events_are_for_event_streams_whoever_asks(headers: dict[str, str]) -> None:
    lines = [(b"content-type", b"application/x-ndjson")]
    async with Site(media_types=["text/event-stream", "application/x-ndjson"], store={"max_log_bytes": 4096}) as site:
        first = site.connect(headers=headers)
        run = await site.run()
        await run.start(lines)
        said = [b'{"a": "%b"}\n' % (b"x" * 200) for _ in range(40)]
        for line in said:
            await run.put(body(line))
            await first.receive_body(line)
        joined = site.connect(f"{first.own_url}&after=39", headers=headers)
        await joined.receive_body(said[-1])
        trimmed = site.connect(headers=headers, cursor=first.at(1))
        await trimmed.finished()
        await run.put(None)
        for connection in (first, joined):
            await connection.finished()
            assert not connection.complete
        caught_up = site.connect(headers=headers, cursor=first.at(40))
        await caught_up.finished()
        assert first.body == b"".join(said)
        assert joined.body == said[-1]
        assert trimmed.status == caught_up.status == 410


# -- heads


async def test_the_head_of_a_logged_stream() -> None:
    async with Site() as site:
        connection = site.connect()
        run = await site.run()
        await run.start(
            [
                (b"Content-Type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"max-age=60, no-transform, public"),
                (b"vary", b"Accept-Language"),
                (b"content-length", b"5000"),
                (b"x-accel-buffering", b"yes"),
                (b"set-cookie", b"seen=1"),
            ]
        )
        await run.say("one")
        await connection.event()
        assert re.fullmatch(r"\?_stream=sw[A-Za-z0-9]{6}[A-Za-z0-9_-]{22}", connection.header("content-location") or "")
        assert connection.header("content-type") == "text/event-stream; charset=utf-8"
        assert connection.header("x-accel-buffering") == "no"
        assert connection.header("content-length") is None
        assert connection.header("set-cookie") == "seen=1"
        cache = {part.strip() for part in (connection.header("cache-control") or "").split(",")}
        assert cache == {"no-store", "no-transform"}
        vary = b", ".join(value for name, value in connection.headers if name.lower() == b"vary").lower()
        assert set(split_list(vary)) == {
            b"accept-language", b"accept", b"last-event-id", b"prefer", b"authorization", b"cookie", b"origin",
        }  # fmt: skip


async def test_later_readers_get_the_apps_head_but_no_cookies_and_no_cors() -> None:
    async with Site(replay_headers=["X-Model"]) as site:
        connection = site.connect()
        run = await site.run()
        await run.start(
            [
                *SSE,
                (b"Set-Cookie", b"session=alice"),
                (b"access-control-allow-origin", b"https://a.example"),
                (b"x-request-id", b"7"),
                (b"X-Model", b"large"),
                (b"x-other", b"1"),
                (b"cache-control", b"no-transform"),
            ]
        )
        await run.say("one")
        await connection.event()
        connection.drop()
        again = site.connect(cursor=connection.at(0))
        await again.event()
        assert again.status == 200
        assert again.header("x-request-id") == "7"
        assert again.header("x-model") == "large"
        assert again.header("content-location") == connection.header("content-location")
        assert again.header("vary") == connection.header("vary")
        assert "no-transform" in (again.header("cache-control") or "")
        for name in ("set-cookie", "access-control-allow-origin", "x-other"):
            assert again.header(name) is None


# -- bytes


async def test_the_id_is_the_last_line_of_its_block_and_leaves_in_one_send_with_it() -> None:
    async with Site() as site:
        connection, run = await site.started("one")
        await run.put(body(b"event: token\ndata: two\ndata: lines\n\n"))
        await connection.event()
        cursor = connection.at(2).encode()
        assert connection.chunks[-1] == b"event: token\ndata: two\ndata: lines\nid: " + cursor + b"\n\n"
        assert all(chunk.endswith(b"\n\n") for chunk in connection.chunks)


async def test_retry_stands_in_the_first_block_with_jitter() -> None:
    seen = set()
    async with Site(retry=2.0) as site:
        for number in range(1, 9):
            connection = site.connect(f"/{number}")
            run = await site.run(number)
            await run.stream("one", "two")
            await connection.events(2)
            found = re.findall(rb"retry: (\d+)", connection.body)
            assert len(found) == 1
            assert re.match(rb"data: one\n(retry: \d+\n)id: [^\n]+\n\n", connection.body)
            seen.add(int(found[0]))
    assert all(1000 <= milliseconds <= 3000 for milliseconds in seen)
    assert len(seen) > 1


async def test_the_apps_own_retry_is_kept() -> None:
    async with Site() as site:
        connection = site.connect()
        run = await site.run()
        await run.start()
        await run.put(body(b"retry: 77\ndata: one\n\n"))
        await connection.event()
        assert re.findall(rb"retry: (\d+)", connection.body) == [b"77"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
async def test_lines_end_as_the_apps_own_do(end: bytes) -> None:
    sent = end.join([b"event: a", b"data: one", b"", b"data: two", b"", b"data: three", b"", b""])
    async with Site() as site:
        connection = site.connect()
        run = await site.run()
        await run.start()
        await run.put(body(sent), body(b"", False), None)
        await connection.receive_body()
        assert connection.data == ["one", "two", "three"]
        assert plain(connection.body) == sent
        ids = [line for line in connection.body.split(end) if line.startswith(b"id: ")]
        assert ids == [b"id: " + connection.at(seq).encode() for seq in (1, 2, 3)]


async def test_events_are_events_however_the_app_cuts_them_into_messages() -> None:
    sent = "data: ä\r\ndata: ö\r\n\r\nevent: x\ndata: 2\n\n: ping\n\ndata: 3\n\n".encode()
    async with Site() as site:
        connection = site.connect()
        run = await site.run()
        await run.start()
        await run.put(*(body(sent[i : i + 1]) for i in range(len(sent))))
        await run.end()
        await connection.receive_body()
        assert connection.data == ["ä\nö", "2", "3"]


async def test_an_eventsource_gets_an_id_as_soon_as_the_response_is_known_to_be_a_stream() -> None:
    async with Site() as site:
        connection = site.eventsource()
        run = await site.run()
        await run.start()
        assert not connection.started
        await site.clock.advance(HOLD)
        await connection.start()
        assert connection.body == b"id: " + connection.at(0).encode() + b"\n\n"
        connection.drop()
        again = site.eventsource(cursor=connection.at(0))
        await run.say("one")
        assert (await again.event()).data == "one"
        assert site.runs == 1


@pytest.mark.parametrize(
    ("headers", "method"),
    [
        (READER, "GET"),
        (EVENTSOURCE, "POST"),
        (EVENTSOURCE | {"sec-fetch-mode": "navigate"}, "GET"),
        (EVENTSOURCE | {"accept": "text/event-stream, */*"}, "GET"),
        (READER | {"cache-control": "no-store"}, "GET"),
    ],
)
async def test_nobody_but_an_eventsource_gets_blocks_without_data(headers: dict[str, str], method: str) -> None:
    async with Site() as site:
        connection = site.connect(headers=headers, method=method)
        run = await site.run()
        await run.start()
        await site.clock.advance(HOLD)
        await connection.start()
        assert connection.body == b""
        await run.say("one")
        await connection.event()
        assert connection.body.startswith(b"data: one\n")


@pytest.mark.parametrize(
    ("headers", "method"),
    [
        (EVENTSOURCE, "GET"),
        ({name: value for name, value in EVENTSOURCE.items() if name != "sec-fetch-mode"}, "GET"),
        (READER | {"prefer": "control-events"}, "POST"),
        (READER | {"cache-control": "max-age=0, no-cache"}, "GET"),
    ],
)
async def test_who_counts_as_an_eventsource(headers: dict[str, str], method: str) -> None:
    async with Site() as site:
        connection = site.connect(headers=headers, method=method)
        run = await site.run()
        await run.start()
        await site.clock.advance(HOLD)
        await connection.receive_body(b".0\n\n")


async def test_a_byte_order_mark_is_gone_wherever_it_would_no_longer_be_first() -> None:
    async with Site() as site:
        connection = site.eventsource()
        run = await site.run()
        await run.start()
        await site.clock.advance(HOLD)
        await run.put(body(b"\xef"), body(b"\xbb\xbfdata: o"), body(b"ne\n\n"))
        assert (await connection.event()).data == "one"
        assert b"\xef\xbb\xbf" not in connection.body


async def test_the_apps_pings_lose_their_blank_line_once_ids_are_in_use() -> None:
    async with Site() as site:
        connection, run = await site.started("one")
        await run.put(body(b": ping\n\n"), body(b"data: two\n\n: ping - 2\r\n\r\ndata: three\n\n"))
        await connection.events(2)
        assert b": ping\n\n" not in connection.body
        assert b"\r\n\r\n" not in connection.body
        assert connection.data == ["one", "two", "three"]
        assert b": ping\n" in connection.body


async def test_pings_before_the_first_event_reach_the_first_reader_and_no_log() -> None:
    async with Site() as site:
        connection = site.connect()
        run = await site.run()
        await run.start()
        await run.put(body(b": hello\n\n"))
        await run.say("one")
        await connection.event()
        assert connection.body.startswith(b": hello\ndata: one\n")
        again = site.connect(cursor=connection.at(0))
        await again.event()
        assert b"hello" not in again.body


async def test_other_messages_of_the_app_reach_its_server() -> None:
    hint = {"type": "http.response.early_hint", "links": []}
    async with Site() as site:
        connection = site.connect()
        run = await site.run()
        await run.put(hint)
        await run.stream("one")
        await connection.event()
        assert connection.messages[0] == hint


# -- apps with ids of their own


async def test_a_stream_with_the_apps_own_ids_passes_through_as_if_resume_were_absent() -> None:
    async with Site() as site:
        connection = site.eventsource(cursor="41")
        run = await site.run()
        assert (b"last-event-id", b"41") in run.scope["headers"]
        sent = [start(), body(b": hi\n\n"), body(b"id: 42\ndata: one\n\n"), body(b"data: two\n\n")]
        await run.put(*sent)
        await connection.receive_body(b"two\n\n")
        assert connection.messages == sent
        assert site.counted("resume.passed", "app_ids") == 1
        connection.drop()
        await run.disconnected.wait()
        await run.put(None)
        assert len(site.store) == 0


async def test_own_ids_that_come_after_the_hold_pass_through_as_well() -> None:
    async with Site() as site:
        connection = site.connect()
        run = await site.run()
        await run.start()
        await site.clock.advance(HOLD)
        await connection.start()
        stream = connection.stream
        await run.put(body(b"id: 42\ndata: one\n\n"), body(b"id: 43\ndata: two\n\n: ping\n\n"))
        await connection.receive_body(b"ping\n\n")
        assert connection.body == b"id: 42\ndata: one\n\nid: 43\ndata: two\n\n: ping\n\n"
        assert len(site.store) == 0
        gone = site.connect(cursor=f"{stream}.0")
        await gone.start()
        assert gone.status == 410
        connection.drop()
        await run.disconnected.wait()
        await run.put(None)


async def test_an_eventsource_whose_stream_turns_out_to_have_own_ids_comes_back_with_the_apps() -> None:
    async with Site() as site:
        connection = site.eventsource()
        run = await site.run()
        await run.start()
        await site.clock.advance(HOLD)
        await run.put(body(b"id: 42\ndata: one\n\n"))
        assert (await connection.event()).id == "42"
        await run.end()
        await connection.finished()
        assert connection.complete


async def test_a_client_that_is_gone_when_own_ids_show_is_a_disconnect() -> None:
    async with Site() as site:
        connection = site.connect()
        run = await site.run()
        await run.start()
        await site.clock.advance(HOLD)
        await connection.start()
        connection.drop()
        await connection.finished()
        with pytest.raises(OSError, match="gone"):
            await run.put(body(b"id: 42\ndata: one\n\n"))


async def test_app_ids_replace_takes_such_a_stream_over() -> None:
    async with Site(app_ids="replace") as site:
        connection = site.connect()
        run = await site.run()
        await run.start()
        await run.put(body(b"id: 42\nevent: a\ndata: one\n\n"), body(b"data: two\nid: 43\n\n"))
        events = await connection.events(2)
        assert [event.id for event in events] == [connection.at(1), connection.at(2)]
        assert plain(connection.body) == b"event: a\ndata: one\n\ndata: two\n\n"
        assert site.counted("resume.app_id_removed", "replaced") == 2


async def test_ids_that_come_late_are_removed_and_counted() -> None:
    async with Site() as site:
        connection, run = await site.started("connected")
        await run.put(body(b"id: 7\ndata: two\n\n"), body(b"data: three\n\n"))
        events = await connection.events(2)
        assert [event.id for event in events] == [connection.at(2), connection.at(3)]
        assert b"id: 7" not in connection.body
        assert site.counted("resume.app_id_removed", "late") == 1


# -- bounds at the start


async def test_a_first_event_too_large_to_keep_lets_the_stream_through() -> None:
    large = b"data: " + b"x" * 5000 + b"\n\n"
    async with Site(max_event_bytes=1000) as site:
        connection = site.connect()
        run = await site.run()
        await run.start()
        await run.put(*(body(large[i : i + 512]) for i in range(0, len(large), 512)))
        await run.say("two")
        await run.end()
        assert await connection.receive_body() == large + b"data: two\n\n"
        assert site.counted("resume.passed", "oversize_event") == 1


async def test_a_full_store_lets_streams_through_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    store = {"max_bytes": 8192, "max_log_bytes": 4096, "owner_share": 1.0}
    with caplog.at_level(logging.WARNING, "streamware.resume"):
        async with Site(store=store) as site:
            for number in range(1, 5):
                connection = site.connect(f"/{number}")
                run = await site.run(number)
                await run.stream("one")
                await connection.receive_body(b"one\n")
                assert connection.logged is (number <= 2)
            assert site.counted("resume.passed", "store_full") == 2
    assert len(caplog.records) == 1


async def test_one_address_cannot_take_the_store_from_others() -> None:
    store = {"max_bytes": 16384, "max_log_bytes": 4096, "owner_share": 0.5}
    async with Site(store=store) as site:
        logged = []
        for number in range(1, 5):
            client = ("10.0.0.9", 1) if number == 4 else ("10.0.0.1", number)
            connection = site.connect(f"/{number}", scope={"client": client})
            run = await site.run(number)
            await run.stream("one")
            await connection.receive_body(b"one\n")
            logged.append(connection.logged)
        assert logged == [True, True, False, True]


# -- early start


async def test_early_start_begins_a_silent_response() -> None:
    async with Site(early_start=10.0) as site:
        connection = site.eventsource()
        run = await site.run()
        await site.clock.advance(9.9)
        assert not connection.started
        await site.clock.advance(0.2)
        await connection.start()
        assert connection.status == 200
        assert connection.header("content-type") == "text/event-stream"
        assert connection.body == b"id: " + connection.at(0).encode() + b"\n\n"
        await run.stream("one")
        assert (await connection.event()).data == "one"
        await run.end()
        await connection.finished()
        assert connection.complete


@pytest.mark.parametrize("status", [401, 500, 200])
async def test_after_an_early_start_an_answer_that_is_no_stream_is_told_in_band(status: int) -> None:
    async with Site(early_start=10.0) as site:
        connection = site.connect()
        run = await site.run()
        await site.clock.advance(10.1)
        await run.put(
            start([(b"content-type", b"text/plain")], status=status), body(b"not "), body(b"you", False), None
        )
        event = await connection.event()
        assert event.event == "error"
        assert msgspec.json.decode(event.data) == {"status": status, "body": "not you"}
        await connection.finished()


async def test_after_an_early_start_a_client_can_come_back() -> None:
    async with Site(early_start=10.0) as site:
        connection = site.eventsource()
        run = await site.run()
        await site.clock.advance(10.1)
        await connection.start()
        connection.drop()
        await connection.finished()
        await run.stream("one", "two")
        again = site.eventsource(cursor=connection.at(0))
        assert [event.data for event in await again.events(2)] == ["one", "two"]
        assert not run.disconnected.is_set()
        assert site.runs == 1


async def test_an_app_that_raises_after_an_early_start_is_a_visible_cut() -> None:
    async with Site(early_start=10.0) as site:
        connection = site.connect()
        run = await site.run()
        await site.clock.advance(10.1)
        await connection.start()
        run.begin(RuntimeError("boom"))
        await connection.finished()
        assert not connection.complete


async def test_without_early_start_a_silent_app_is_waited_for() -> None:
    async with Site() as site:
        connection = site.eventsource()
        run = await site.run()
        await site.clock.advance(3600)
        assert not connection.started
        await run.stream("one")
        await connection.event()


async def test_own_ids_after_an_early_start_reach_the_connection_as_they_are() -> None:
    async with Site(early_start=10.0) as site:
        connection = site.eventsource()
        run = await site.run()
        await site.clock.advance(10.1)
        await connection.start()
        await run.start()
        await run.put(body(b"id: 7\ndata: one\n\n"), body(b"id: 8\ndata: two\n\n", False), None)
        await connection.finished()
        assert [(event.id, event.data) for event in connection.pending_events] == [("7", "one"), ("8", "two")]
        assert len(site.store) == 0


async def test_an_early_start_that_a_full_store_refuses_waits_for_the_app() -> None:
    async with Site(early_start=10.0, store={"max_bytes": 4096, "max_log_bytes": 4096, "owner_share": 1.0}) as site:
        await site.started("1", path="/other")
        connection = site.connect()
        run = await site.run(2)
        await site.clock.advance(10.1)
        await run.put(start(status=401), body(b"no", False), None)
        await connection.finished()
        assert (connection.status, connection.body) == (401, b"no")


async def test_an_early_start_whose_app_sends_its_first_event_in_parts() -> None:
    async with Site(early_start=10.0) as site:
        connection = site.connect()
        run = await site.run()
        await site.clock.advance(10.1)
        await connection.start()
        await run.start()
        await run.put(body(b": hi\n\nda"), body(b"ta: one\n"), body(b"\ndata: two\n\n"))
        await run.end()
        await connection.finished()
        assert connection.data == ["one", "two"]


async def test_ndjson_after_an_early_start_is_told_in_band() -> None:
    """The head that went out early said event stream."""
    async with Site(early_start=10.0, media_types=["text/event-stream", "application/x-ndjson"]) as site:
        connection = site.connect()
        run = await site.run()
        await site.clock.advance(10.1)
        await run.put(start([(b"content-type", b"application/x-ndjson")]), body(b'{"a": 1}\n', False), None)
        event = await connection.event()
        assert event.event == "error"
        assert msgspec.json.decode(event.data)["body"] == '{"a": 1}\n'
        await connection.finished()


# -- the app's surroundings


async def test_the_app_runs_in_the_callers_context() -> None:
    """What an outer middleware has put into context variables (a request id, a trace) is there."""
    request_id: ContextVar[str] = ContextVar("request_id", default="none")
    found: list[str] = []

    def around(app: Any) -> Any:
        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            request_id.set("7")
            await app(scope, receive, send)

        return call

    async def look() -> None:
        found.append(request_id.get())

    async with Site(around=around) as site:
        connection = site.connect()
        run = await site.run()
        await run.put(look)
        await run.stream("1")
        connection.drop()
        await run.put(look)
    assert found == ["7", "7"]


# -- current_stream()


async def test_an_app_can_ask_for_its_stream() -> None:
    found: list[CurrentStream | None] = []

    async def ask() -> None:
        found.append(current_stream())

    async with Site(linger=12.0) as site:
        connection = site.connect()
        run = await site.run()
        await run.put(ask)
        await run.stream("one", "two")
        await connection.events(2)
        current = found[0]
        assert current is not None
        assert current.cursor == connection.at(2)
        assert current.linger == 12.0
        current.usage.add(3)
        current.usage.add(4)
        assert current.usage.total == 7
        with pytest.raises(ValueError, match="-1"):
            current.usage.add(-1)
    assert current_stream() is None


async def test_an_app_can_stop_its_own_stream() -> None:
    async def stop() -> None:
        current = current_stream()
        assert current is not None
        current.stop()

    async with Site(heeds=True) as site:
        connection, run = await site.started("one")
        run.begin(stop)
        await connection.finished()
        assert connection.complete
        assert run.over.is_set()
        again = site.connect(cursor=connection.at(1))
        await again.finished()
        assert again.status == 204


async def test_an_app_can_change_how_long_its_stream_lingers() -> None:
    async def leave_at_once() -> None:
        current = current_stream()
        assert current is not None
        current.linger = 0

    async with Site(linger=None) as site:
        connection, run = await site.started("one")
        await run.put(leave_at_once)
        connection.drop()
        await run.disconnected.wait()


async def test_there_is_no_stream_where_no_log_can_be() -> None:
    found: list[CurrentStream | None] = []

    async def ask() -> None:
        found.append(current_stream())

    async with Site() as site:
        connection = site.connect(headers={"accept": "*/*"})
        run = await site.run()
        await run.put(ask, start([]), body(b"", False), None)
        await connection.finished()
    assert found == [None]


# -- options


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("linger", -1),
        ("linger", "30"),
        ("linger", {"/a": -1}),
        ("retry", 0),
        ("window", 0),
        ("window", True),
        ("max_event_bytes", -5),
        ("max_readers", 0),
        ("max_detached", 0),
        ("on_done", "again"),
        ("on_done", {"/feed": "again"}),
        ("on_expired", "stop"),
        ("app_ids", "keep"),
        ("early_start", 0),
        ("stall_timeout", float("nan")),
        ("max_duration", "1h"),
        ("media_types", "text/event-stream"),
        ("media_types", []),
        ("always", "/v1/*"),
        ("owner", "alice"),
        ("owner_cookies", "session"),
        ("replay_headers", [1]),
    ],
)
async def test_a_wrong_option_says_what_would_be_right(option: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=option):
        Site(**{option: value})
