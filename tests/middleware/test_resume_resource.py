"""The stream's own URL: read it as an event stream, poll it as JSON, stop it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import msgspec
import pytest

from streamware.testing import settle
from streamware.wire.cursor import new_stream_id
from tests.middleware.resume_site import EVENTSOURCE, HOLD, READER, Site, SiteConnection, body, start, until

JSON = {"accept": "application/json"}


def poll(site: Site, url: str, *, wait: int | None = None, **options: object) -> SiteConnection:
    """A poll of the stream's URL."""
    headers = JSON if wait is None else JSON | {"prefer": f"wait={wait}"}
    return site.connect(url, headers=headers, **options)


async def answer(connection: SiteConnection) -> dict:
    """What the poll brought, checked for what all of them have."""
    await connection.finished()
    assert connection.status == 200
    assert connection.header("content-type") == "application/json"
    assert connection.header("cache-control") == "no-store"
    assert "last-event-id" in (connection.header("vary") or "").lower()
    return msgspec.json.decode(connection.body)


def data(polled: dict) -> list[str]:
    return [event["data"] for event in polled["events"]]


async def stop(site: Site, url: str, **options: object) -> int:
    """DELETE; the status."""
    connection = site.connect(url, method="DELETE", headers=options.pop("headers", {}), **options)
    await connection.finished()
    assert connection.header("cache-control") == "no-store"
    return connection.status


# -- as an event stream


@pytest.mark.parametrize("headers", [READER, EVENTSOURCE])
async def test_the_streams_url_reads_it_from_the_beginning(headers: dict[str, str]) -> None:
    async with Site() as site:
        first, run = await site.started("1", "2")
        reader = site.connect(first.own_url, headers=headers)
        await reader.events(2)
        await run.say("3")
        await run.end()
        await reader.finished()
        assert reader.data == ["1", "2", "3"]
        assert reader.stream == first.stream
        assert reader.header("content-type") == "text/event-stream"
        assert site.runs == 1


async def test_a_stream_without_events_yet_can_be_read() -> None:
    async with Site() as site:
        first, run = await site.started()
        reader = site.connect(first.own_url)
        await reader.start()
        await run.say("1")
        assert (await reader.event()).data == "1"


@pytest.mark.parametrize("given", ["header", "after cursor", "after number"])
async def test_where_to_read_on_from_is_said_by_header_or_query(given: str) -> None:
    async with Site() as site:
        first, _ = await site.started("1", "2", "3")
        if given == "header":
            reader = site.connect(first.own_url, cursor=first.at(1))
        else:
            reader = site.connect(f"{first.own_url}&after={first.at(1) if given == 'after cursor' else 1}")
        assert [event.data for event in await reader.events(2)] == ["2", "3"]


async def test_an_eventsources_own_header_counts_before_the_urls_after() -> None:
    """It goes on asking with the URL that it was made with."""
    async with Site() as site:
        first, _ = await site.started("1", "2", "3")
        reader = site.eventsource(f"{first.own_url}&after=1", cursor=first.at(2))
        assert (await reader.event()).data == "3"


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "9" * 400, "%00", "swAAAAAA.1"])
async def test_an_after_that_is_no_place_is_as_none(after: str) -> None:
    async with Site() as site:
        first, _ = await site.started("1")
        reader = site.connect(f"{first.own_url}&after={after}")
        assert (await reader.event()).data == "1"


async def test_a_preflight_of_the_streams_url_reaches_the_apps_own_cors() -> None:
    async with Site() as site:
        first, _ = await site.started("1")
        asked = {"origin": "https://a.example", "access-control-request-method": "DELETE"}
        connection = site.connect(first.own_url, method="OPTIONS", headers=asked)
        run = await site.run(2)
        await run.put(start([(b"access-control-allow-methods", b"DELETE")]), body(b"", False), None)
        await connection.finished()
        assert connection.header("access-control-allow-methods") == "DELETE"


async def test_a_head_of_the_streams_url_is_its_gets_head() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        connection = site.connect(first.own_url, method="HEAD")
        await connection.finished()
        assert connection.status == 200
        assert connection.header("content-type") == "text/event-stream"
        assert connection.body == b""
        assert connection.complete
        unknown = site.connect(f"/chat?_stream={new_stream_id(site.store.tag)}", method="HEAD")
        await unknown.finished()
        assert (unknown.status, unknown.body) == (404, b"")
        assert not run.disconnected.is_set()
        assert site.runs == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_other_methods_are_405(method: str) -> None:
    async with Site() as site:
        first, _ = await site.started("1")
        connection = site.connect(first.own_url, method=method, body=b"x")
        await connection.finished()
        assert connection.status == 405
        assert {"GET", "DELETE"} <= set((connection.header("allow") or "").replace(" ", "").split(","))
        assert site.runs == 1


async def test_a_caught_up_reader_of_an_ended_stream_gets_204() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        await run.end()
        await first.finished()
        for headers in (READER, EVENTSOURCE):
            reader = site.connect(f"{first.own_url}&after=1", headers=headers)
            await reader.finished()
            assert reader.status == 204


async def test_nothing_is_ever_started_on_a_streams_url() -> None:
    async with Site(on_done="restart") as site:
        first, run = await site.started("1")
        await run.end()
        await first.finished()
        for connection in (
            site.eventsource(f"{first.own_url}&after=1"),
            site.eventsource(f"/chat?_stream={new_stream_id(site.store.tag)}"),
            site.eventsource(f"/chat?_stream={new_stream_id(site.store.tag)}", cursor=first.at(1)),
        ):
            await connection.finished()
        await site.clock.advance(400)
        await site.eventsource(first.own_url).finished()
        assert site.runs == 1


async def test_a_query_that_only_looks_like_a_streams_goes_to_the_app() -> None:
    async with Site() as site:
        urls = ["/chat?_stream=", "/chat?_stream=x", "/chat?my_stream=" + new_stream_id("AAAAAA"), "/chat?_stream=sw.."]
        for number, url in enumerate(urls, 1):
            connection = site.connect(url)
            await (await site.run(number)).stream("1")
            await connection.event()


# -- as a long poll


async def test_a_poll_brings_what_there_is_and_the_cursor_to_go_on_from() -> None:
    async with Site() as site:
        first, run = await site.started("1", "2")
        await run.put(body(b"event: token\ndata: a\ndata: b\n\n"))
        await first.event()
        polled = await answer(poll(site, first.own_url))
        assert polled == {
            "events": [
                {"id": first.at(1), "event": "message", "data": "1"},
                {"id": first.at(2), "event": "message", "data": "2"},
                {"id": first.at(3), "event": "token", "data": "a\nb"},
            ],
            "cursor": first.at(3),
            "outcome": None,
        }
        rest = await answer(poll(site, f"{first.own_url}&after={polled['cursor']}"))
        assert rest == {"events": [], "cursor": first.at(3), "outcome": None}


async def test_a_poll_waits_for_the_first_event_as_long_as_it_prefers() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        waiting = poll(site, f"{first.own_url}&after=1", wait=25)
        await site.clock.advance(10)
        assert not waiting.started
        await run.say("2")
        assert data(await answer(waiting)) == ["2"]


async def test_pings_do_not_end_a_polls_wait() -> None:
    """Else a client that lives by polling would ask again at each of them."""
    async with Site() as site:
        first, run = await site.started("1")
        waiting = poll(site, f"{first.own_url}&after=1", wait=25)
        for _ in range(5):
            await site.clock.advance(1)
            await run.put(body(b": ping\n\n"), body(b"retry: 5000\n\n"))
        assert not waiting.started
        await run.say("2")
        assert data(await answer(waiting)) == ["2"]


async def test_a_poll_is_given_the_events_behind_a_block_without_data() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        await run.put(body(b"retry: 5000\n\n"))
        await run.say("2")
        await first.event()
        polled = await answer(poll(site, f"{first.own_url}&after=1"))
        assert data(polled) == ["2"]
        assert polled["cursor"] == polled["events"][0]["id"]


@pytest.mark.parametrize("wait", [None, 25])
async def test_a_poll_with_nothing_but_blocks_without_data_before_it_ends_in_time(wait: int | None) -> None:
    async with Site() as site:
        first, run = await site.started("1")
        await run.put(body(b"retry: 5000\n\n"), body(b"event: token\n\n"))
        polled = poll(site, f"{first.own_url}&after=1", wait=wait)
        await site.clock.advance(0 if wait is None else wait + 1)
        assert await answer(polled) == {"events": [], "cursor": first.at(3), "outcome": None}


async def test_a_poll_that_waited_in_vain_says_so() -> None:
    async with Site() as site:
        first, _ = await site.started("1")
        waiting = poll(site, f"{first.own_url}&after=1", wait=25)
        await site.clock.advance(24)
        assert not waiting.started
        await site.clock.advance(2)
        assert await answer(waiting) == {"events": [], "cursor": first.at(1), "outcome": None}


async def test_no_poll_waits_for_ever() -> None:
    async with Site() as site:
        first, _ = await site.started("1")
        waiting = poll(site, f"{first.own_url}&after=1", wait=10**9)
        await site.clock.advance(61)
        assert (await answer(waiting))["events"] == []


@pytest.mark.parametrize(
    "prefer", ["wait=x", "wait=-5", "wait=1.5", "wait", "wait=" + "9" * 5000, "handling=strict, ; ,"]
)
async def test_a_strange_preference_hangs_nobody(prefer: str) -> None:
    async with Site() as site:
        first, _ = await site.started("1")
        connection = site.connect(f"{first.own_url}&after=1", headers=JSON | {"prefer": prefer})
        await site.clock.advance(61)
        assert (await answer(connection))["events"] == []


async def test_a_poll_tells_the_end_with_the_last_of_the_events() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        await run.say("2")
        await run.end()
        await first.finished()
        assert await answer(poll(site, f"{first.own_url}&after=1")) == {
            "events": [{"id": first.at(2), "event": "message", "data": "2"}],
            "cursor": first.at(2),
            "outcome": "done",
        }


@pytest.mark.parametrize("outcome", ["done", "stopped", "failed"])
async def test_a_poll_that_waits_is_told_of_the_end_at_once(outcome: str) -> None:
    async with Site() as site:
        first, run = await site.started("1")
        waiting = poll(site, f"{first.own_url}&after=1", wait=25)
        await settle()
        if outcome == "done":
            await run.end()
        elif outcome == "stopped":
            assert await stop(site, first.own_url) == 204
        else:
            run.begin(RuntimeError("boom"))
        assert await answer(waiting) == {"events": [], "cursor": first.at(1), "outcome": outcome}


async def test_a_client_can_live_by_polling_alone() -> None:
    async with Site() as site:
        started = site.connect(headers={"accept": "*/*", "prefer": "respond-async"}, method="POST")
        run = await site.run()
        await run.stream("0")
        await started.finished()
        url, got, cursor = f"/chat{started.header('location')}", [], ""
        for number in range(1, 10):
            polled = await answer(poll(site, f"{url}&after={cursor}", wait=25))
            got += data(polled)
            cursor = polled["cursor"]
            await run.say(str(number))
        await run.end()
        polled = await answer(poll(site, f"{url}&after={cursor}", wait=25))
        assert got + data(polled) == [str(number) for number in range(10)]
        assert polled["outcome"] == "done"


async def test_a_large_log_is_polled_in_batches_and_the_end_is_told_with_the_last() -> None:
    async with Site() as site:
        first, run = await site.started("0")
        for number in range(1, 300):
            await run.put(body(b"data: %d %b\n\n" % (number, b"x" * 1000)))
        await run.end()
        await first.finished()
        got, cursor, polls = [], first.at(0), 0
        while True:
            polled = await answer(poll(site, f"{first.own_url}&after={cursor}"))
            got += [int(text.split()[0]) for text in data(polled)]
            cursor = polled["cursor"]
            polls += 1
            if polled["outcome"] is not None:
                break
        assert got == list(range(300))
        assert polls > 2


async def test_broken_utf_8_crosses_a_poll_as_replacement_characters_and_a_stream_as_it_is() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        await run.put(body(b"data: a\xffb\n\n"))
        await first.event()
        assert data(await answer(poll(site, f"{first.own_url}&after=1"))) == ["a�b"]
        reader = site.connect(f"{first.own_url}&after=1")
        await reader.event()
        assert b"a\xffb" in reader.body


@pytest.mark.parametrize("rest", [b"data: ha", b"event: x\ndata: ha", b"data: ha\n"])
async def test_a_poll_brings_no_unfinished_event_as_no_event_stream_does(rest: bytes) -> None:
    async with Site() as site:
        first, run = await site.started("1")
        await run.put(body(rest, False), None)
        await first.finished()
        polled = await answer(poll(site, first.own_url))
        assert data(polled) == ["1"]
        assert polled["cursor"] == first.at(2)
        assert polled["outcome"] == "done"


async def test_polls_of_ndjson_bring_its_lines() -> None:
    async with Site(media_types=["application/x-ndjson"]) as site:
        first = site.connect(headers={"accept": "application/x-ndjson"})
        run = await site.run()
        await run.start([(b"content-type", b"application/x-ndjson")])
        await run.put(body(b'{"a": 1}\n{"a": 2}\n'))
        await first.receive_body(b"2}\n")
        polled = await answer(poll(site, first.own_url))
        assert data(polled) == ['{"a": 1}', '{"a": 2}']
        assert [event["id"] for event in polled["events"]] == [first.at(1), first.at(2)]


async def test_a_poll_behind_what_is_kept_is_410() -> None:
    async with Site(store={"max_log_bytes": 4096}) as site:
        first, run = await site.started("0")
        for _ in range(40):
            await run.put(body(b"data: %b\n\n" % (b"x" * 200)))
            await first.event()
        gone = poll(site, first.own_url)
        await gone.finished()
        assert gone.status == 410
        earliest = msgspec.json.decode(gone.body)["earliest"]
        assert len((await answer(poll(site, f"{first.own_url}&after={earliest}")))["events"]) > 3


async def test_a_poll_of_an_expired_stream_is_told_how_it_ended() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        await run.end()
        await first.finished()
        await site.clock.advance(301)
        gone = poll(site, first.own_url)
        await gone.finished()
        assert gone.status == 410
        assert msgspec.json.decode(gone.body)["outcome"] == "done"


async def test_a_poll_whose_client_leaves_ends_and_reads_nothing() -> None:
    async with Site(linger=30) as site:
        first, run = await site.started("1")
        waiting = poll(site, f"{first.own_url}&after=1", wait=25)
        await settle()
        first.drop()
        await site.clock.advance(20)
        waiting.drop()
        await waiting.finished()
        await site.clock.advance(29)
        assert not run.disconnected.is_set()
        await site.clock.advance(2)
        assert run.disconnected.is_set()


# -- stop


async def test_delete_stops_the_app_and_what_was_produced_stays_readable() -> None:
    async with Site(heeds=True) as site:
        first, run = await site.started("1", "2")
        assert await stop(site, first.own_url) == 204
        await until(run.over.is_set)
        assert run.cancelled
        await first.finished()
        assert first.complete
        again = site.connect(cursor=first.at(1))
        await again.finished()
        assert again.data == ["2"]
        assert again.complete
        assert site.counted("resume.ended", "stopped") == 1


async def test_delete_again_is_204_again() -> None:
    async with Site() as site:
        first, _ = await site.started("1")
        assert [await stop(site, first.own_url) for _ in range(3)] == [204, 204, 204]
        await site.clock.advance(301)
        assert await stop(site, first.own_url) == 204


async def test_delete_of_a_finished_stream_changes_nothing() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        await run.end()
        await first.finished()
        assert await stop(site, first.own_url) == 204
        polled = await answer(poll(site, first.own_url))
        assert polled["outcome"] == "done"


async def test_delete_of_an_unknown_stream_is_404() -> None:
    async with Site() as site:
        assert await stop(site, f"/chat?_stream={new_stream_id(site.store.tag)}") == 404
        assert await stop(site, f"/chat?_stream={new_stream_id('OTHER0')}") == 404
        assert site.runs == 0


async def test_appends_after_a_stop_are_refused() -> None:
    async with Site(heeds=True) as site:
        first, run = await site.started("1")

        async def stubborn() -> None:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                for _ in range(3):
                    try:
                        await run.send(body(b"data: late\n\n"))
                    except OSError:
                        late.append("refused")
                raise

        late: list[str] = []
        run.begin(stubborn)
        await settle()
        assert await stop(site, first.own_url) == 204
        await until(run.over.is_set)
        assert late == ["refused"] * 3
        assert (await answer(poll(site, first.own_url)))["cursor"] == first.at(1)


async def test_a_detached_stream_can_be_stopped() -> None:
    async with Site(heeds=True, linger=None) as site:
        first, run = await site.started("1")
        first.drop()
        await first.finished()
        assert await stop(site, first.own_url) == 204
        await until(lambda: site.resume._worker.detached == 0)
        assert run.cancelled


async def test_a_stream_that_waits_for_room_can_be_stopped() -> None:
    async with Site(window=1000) as site:
        first, run = await site.started("1")
        first.stall()
        for _ in range(30):
            run.begin(body(b"data: %b\n\n" % (b"x" * 100)))
        await settle()
        assert await stop(site, first.own_url) == 204
        await until(run.over.is_set)
        first.unstall()
        await first.finished()
        assert first.complete


async def test_an_app_that_swallows_its_cancellation_does_not_keep_the_log_open() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        go_on = asyncio.Event()

        async def stubborn() -> None:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                await go_on.wait()

        run.begin(stubborn)
        await settle()
        assert await stop(site, first.own_url) == 204
        await first.finished()
        assert (await answer(poll(site, first.own_url)))["outcome"] == "stopped"
        go_on.set()
        await settle()


async def test_a_sync_iterator_is_stopped_at_its_next_item_and_its_log_at_once() -> None:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    release = threading.Event()
    made: list[int] = []

    def words() -> Iterator[str]:
        for number in range(1000):
            made.append(number)
            yield f"data: {number}\n\n"
            if number == 1:
                release.wait(5)

    async def feed(request: Request) -> StreamingResponse:
        return StreamingResponse(words(), media_type="text/event-stream")

    async with Site(Starlette(routes=[Route("/chat", feed)])) as site:
        try:
            first = site.connect()
            await first.events(2)
            began = time.monotonic()
            assert await stop(site, first.own_url) == 204
            await first.finished()
            assert first.complete
            assert time.monotonic() - began < 1
        finally:
            release.set()
        async with asyncio.timeout(5):
            while site.resume._worker.producers:
                await asyncio.sleep(0.005)
        assert first.data == ["0", "1"]
        assert len(made) <= 4
        polled = await answer(poll(site, first.own_url))
        assert (data(polled), polled["outcome"]) == (["0", "1"], "stopped")


# -- whose, and where


@pytest.mark.parametrize("asked", [{"path": "/other"}, {"headers": {"authorization": "Bearer bob"}}, {"headers": {}}])
@pytest.mark.parametrize("way", ["read", "poll", "stop"])
async def test_anothers_stream_is_404_whatever_is_asked_of_it(asked: dict, way: str) -> None:
    async with Site() as site:
        alice = {"authorization": "Bearer alice"}
        first, run = await site.started("secret", headers=READER | alice)
        url = first.own_url.replace("/chat", asked.get("path", "/chat"))
        headers = asked.get("headers", alice)
        if way == "stop":
            assert await stop(site, url, headers=headers) == 404
        else:
            connection = site.connect(url, headers=headers | (READER if way == "read" else JSON))
            await connection.finished()
            assert connection.status == 404
            assert b"secret" not in connection.body
            unknown = site.connect(
                f"/chat?_stream={new_stream_id(site.store.tag)}", headers=READER if way == "read" else JSON
            )
            await unknown.finished()
            assert unknown.messages == connection.messages
        assert not run.over.is_set()


async def test_its_owner_may_read_poll_and_stop_a_stream_that_a_post_has_started() -> None:
    async with Site() as site:
        alice = {"authorization": "Bearer alice"}
        first, _ = await site.started("1", headers=READER | alice, method="POST")
        reader = site.connect(first.own_url, headers=READER | alice)
        assert (await reader.event()).data == "1"
        assert data(await answer(site.connect(first.own_url, headers=JSON | alice))) == ["1"]
        assert await stop(site, first.own_url, headers=alice) == 204


async def test_under_a_mount_the_relative_location_leads_back_to_the_stream() -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    async with Site(always=["/chat*"], linger={"/chat": 12.0}) as site:
        site.app = Starlette(routes=[Mount("/mounted", app=site.resume)])
        first, run = await site.started("1", path="/mounted/chat", headers={"accept": "*/*"})
        reader = site.connect(first.own_url)
        assert (await reader.event()).data == "1"
        elsewhere = site.connect(first.own_url.replace("/mounted", "/mounted/mounted"))
        await elsewhere.finished()
        assert elsewhere.status == 404
        first.drop()
        reader.drop()
        await site.clock.advance(11)
        assert not run.disconnected.is_set()
        await site.clock.advance(2)
        assert run.disconnected.is_set()


async def test_one_middleware_under_two_mounts_keeps_their_streams_apart() -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    async with Site() as site:
        site.app = Starlette(routes=[Mount("/a", app=site.resume), Mount("/b", app=site.resume)])
        first, _ = await site.started("1", path="/a/chat")
        other = site.connect("/b/chat", cursor=first.at(0))
        await other.finished()
        assert other.status == 410
        assert await stop(site, first.own_url.replace("/a/", "/b/")) == 404
        assert await stop(site, first.own_url) == 204


async def test_paths_and_exclude_hold_for_the_streams_url_as_for_its_start() -> None:
    async with Site(paths=["/chat*"], exclude=["/chat/raw*"]) as site:
        first, _ = await site.started("1", path="/chat/1")
        assert first.logged
        reader = site.connect(first.own_url)
        await reader.event()
        for number, path in enumerate(["/feed", "/chat/raw"], 2):
            passed = site.connect(f"{path}?_stream={first.stream}")
            run = await site.run(number)
            await run.stream("raw")
            assert (await passed.event()).data == "raw"
            assert not passed.logged


async def test_a_held_back_stream_is_no_stream_yet() -> None:
    async with Site() as site:
        first = site.connect()
        run = await site.run()
        await run.start()
        assert len(site.store) == 0
        await site.clock.advance(HOLD)
        await first.start()
        assert len(site.store) == 1
