"""Every sequence of events that once broke a promise, and the test that shows what happens now.

The numbers are those of a hostile review of the design, as far as they are about HTTP resume. Each test named here is
in the file of this folder that is named before it; ``test_the_index_is_true`` looks for all of them. What has no
natural home elsewhere is below.

 1  the app's own login is further in: a logout, another user's cookie
        test_resume_owner.py: test_the_credential_decides,
        test_a_logout_ends_access_after_the_stream_has_ended_as_well
 2  two anonymous callers with one Idempotency-Key; another body, path or query
        test_resume_once.py: test_two_anonymous_callers_with_one_short_key_do_not_meet,
        test_another_body_under_the_same_key_is_422, test_a_key_counts_within_its_method_path_and_query,
        test_a_key_counts_within_its_owner, test_a_duplicate_waits_bounded_then_gets_409,
        test_where_the_first_is_no_stream_the_duplicate_goes_to_the_app
 3  an app that returns without a final body
        test_resume_ends.py: test_an_app_that_ends_without_a_final_body_is_a_visible_cut,
        test_an_app_that_ends_by_itself_while_its_worker_leaves_counts_as_interrupted
 4  a feed that ends its response on purpose
        test_resume_ends.py: test_an_eventsource_feed_that_ends_on_purpose_goes_on_with_on_done_restart;
        test_resume_answers.py: test_on_done_restart_calls_the_app_again_without_the_cursor
 5  soft refusals made further in, and empty answers
        test_resume_start.py: test_a_denial_of_ours_further_in_gets_no_log_no_id_and_no_primer,
        test_a_stream_that_ends_before_its_first_event_passes_through
 6  a wake-up after the ttl
        test_resume_answers.py: test_after_the_ttl_nothing_starts_again;
        test_resume_ends.py: test_an_evicted_log_leaves_its_tombstone
 7  several workers, or a restart, on the embedded store
        test_resume_answers.py: test_two_workers_of_one_app_never_mix_up_their_streams,
        test_an_eventsource_with_another_stores_cursor_starts_afresh_and_is_told,
        test_a_gateway_lets_the_ids_of_a_streamware_further_in_through;
        test_resume_resource.py: test_delete_of_an_unknown_stream_is_404
 8  Stop buttons that only close the connection
        test_resume_drop.py: test_linger_zero_tells_the_app_at_once, test_linger_by_path,
        test_over_max_detached_the_oldest_is_told, test_over_max_detached_per_owner_that_owners_oldest_is_told
 9  the order outside a Stack
        test_base.py: test_added_to_starlette_in_the_natural_order_it_is_refused
10  a cursor, or the stream's URL, on another path than the one that started it
        test_resume_answers.py: test_another_owner_path_or_method_is_answered_as_unknown,
        test_the_query_is_not_compared_since_tickets_change;
        test_resume_resource.py: test_anothers_stream_is_404_whatever_is_asked_of_it,
        test_paths_and_exclude_hold_for_the_streams_url_as_for_its_start
11  a cut at the worst moment of a rotation: of WebSocket sessions; for HTTP, a torn block
        test_resume_findings.py: test_a_cut_at_any_byte_loses_nothing
13  caching of partial logs, of 204, 404 and 410
        test_resume_start.py: test_the_head_of_a_logged_stream;
        test_resume_findings.py: test_every_answer_of_ours_is_not_to_be_cached
16  a cursor beyond the end
        test_resume_answers.py: test_a_cursor_ahead_waits_for_the_log_to_reach_it,
        test_an_eventsource_that_stays_ahead_is_told_and_goes_on_from_there, test_others_that_stay_ahead_get_410,
        test_ahead_of_a_log_that_has_ended_does_not_wait
17  zombie readers trim what nobody got
        test_resume_drop.py: test_a_server_that_accepts_without_limit_is_fed_at_a_pace,
        test_with_nobody_there_the_app_waits_at_the_logs_capacity_and_nothing_is_trimmed
18  oversize events
        test_resume_start.py: test_a_first_event_too_large_to_keep_lets_the_stream_through;
        test_resume_ends.py: test_an_event_too_large_to_keep_reaches_who_is_there_whole,
        test_a_resume_across_a_large_event_is_told_of_the_gap
22  stop within a second, with a sync iterator
        test_resume_resource.py: test_a_sync_iterator_is_stopped_at_its_next_item_and_its_log_at_once,
        test_appends_after_a_stop_are_refused
23  receive while detached; a drop in mid-upload; a drop before the start; a call that has returned
        test_resume_drop.py: test_a_drop_in_mid_upload_after_the_start_is_a_disconnect,
        test_a_drop_in_mid_upload_before_the_start_is_a_disconnect, test_a_drop_before_the_start_is_a_disconnect,
        test_with_a_key_or_respond_async_a_drop_before_the_start_is_a_detach,
        test_the_callers_cancellation_is_a_detach,
        test_receive_waits_while_detached_and_goes_on_waiting_after_a_resume
24  browsers that send no Sec-Fetch-Mode
        test_resume_start.py: test_who_counts_as_an_eventsource,
        test_nobody_but_an_eventsource_gets_blocks_without_data
25  clients that accept anything
        test_resume_start.py: test_a_request_that_cannot_use_a_log_gets_none,
        test_always_makes_requests_with_any_accept_candidates,
        test_a_stream_without_a_log_is_counted_and_the_remedy_logged_once_a_path
26  MCP
        test_resume_start.py: test_requests_of_mcp_are_left_alone,
        test_a_response_that_is_no_stream_of_ours_passes_through
28  who the same principal is
        test_resume_owner.py: test_the_principal_in_the_scope_decides,
        test_an_error_while_finding_out_who_asks_is_a_refusal
29  apps that are silent before their headers
        test_resume_start.py: test_early_start_begins_a_silent_response,
        test_after_an_early_start_an_answer_that_is_no_stream_is_told_in_band
30  hung apps
        test_resume_ends.py: test_a_hung_app_is_ended_as_failed, test_a_stream_over_its_duration_is_ended_as_failed
31  mounts and prefixes
        test_resume_resource.py: test_under_a_mount_the_relative_location_leads_back_to_the_stream,
        test_one_middleware_under_two_mounts_keeps_their_streams_apart
32  respond-async before the response is known
        test_resume_once.py: test_respond_async_does_not_hide_an_answer_that_is_no_stream,
        test_linger_counts_from_the_last_poll_and_never_less_than_a_poll_may_take
33  a store that is away
        test_resume_findings.py: test_with_the_store_away_new_streams_run_and_only_cursors_are_refused
34  the app's own ids, late
        test_resume_start.py: test_ids_that_come_late_are_removed_and_counted
35  a byte order mark behind our first bytes
        test_resume_start.py: test_a_byte_order_mark_is_gone_wherever_it_would_no_longer_be_first
36  compression further in
        test_resume_start.py: test_a_framework_that_compresses_leaves_the_stream_readable
38  readers without bound; one caller that fills the store
        test_resume_drop.py: test_the_newest_reader_is_never_refused_and_the_oldest_ends_visibly;
        test_resume_start.py: test_one_address_cannot_take_the_store_from_others
39  broken UTF-8 in a poll
        test_resume_resource.py:
        test_broken_utf_8_crosses_a_poll_as_replacement_characters_and_a_stream_as_it_is
"""

from __future__ import annotations

import gc
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from streamware import MemoryStore
from streamware.exceptions import StoreUnavailable
from streamware.streams.producer import Producer
from streamware.streams.reader import Reader
from streamware.testing import FakeClock, settle
from streamware.wire.cursor import new_stream_id
from streamware.wire.eventsource import Interpreter
from tests.middleware.resume_site import EVENTSOURCE, READER, Site, body, start

FINDINGS = {*range(1, 12), 13, *range(16, 19), *range(22, 27), *range(28, 37), 38, 39}


def test_the_index_is_true() -> None:
    here = Path(__file__).parent
    index = __doc__ or ""
    assert {int(number) for number in re.findall(r"^ ?(\d+)  ", index, re.MULTILINE)} == FINDINGS
    missing = []
    name = ""
    for word in re.findall(r"\btest_\w+(?:\.py)?", index.split("\n\n", 2)[2]):
        if word.endswith(".py"):
            name = word
        elif f"def {word}(" not in (here / name).read_text():
            missing.append(f"{name}: {word}")
    assert not missing, missing


# -- 11


async def test_a_cut_at_any_byte_loses_nothing() -> None:
    """Whatever part of the bytes has reached the browser, its next cursor is behind the last event that it has."""
    sent = "data: ä\n\nevent: x\r\ndata: 2\r\n\r\ndata: 3\rdata: 3\r\rdata: 4\n\n".encode()
    expected = [(event.event, event.data) for event in Interpreter().feed(sent)]
    for headers in (EVENTSOURCE, READER):
        async with Site() as site:
            first = site.connect(headers=headers)
            run = await site.run()
            await run.put(start(), body(sent, False), None)
            await first.finished()
            for cut in range(len(first.body) + 1):
                browser = Interpreter()
                got = browser.feed(first.body[:cut])
                browser.reconnect()
                cursor = browser.last_event_id or first.at(0)
                again = site.connect(headers=headers, cursor=cursor)
                await again.finished()
                if again.status == 200:
                    got += browser.feed(again.body)
                else:
                    assert again.status == 204
                assert [(event.event, event.data) for event in got] == expected, first.body[:cut]
            assert site.runs == 1


# -- 13


async def test_every_answer_of_ours_is_not_to_be_cached() -> None:
    async with Site() as site:
        first, run = await site.started("1", headers=READER | {"authorization": "Bearer a"})
        await run.end()
        await first.finished()
        unknown = new_stream_id(site.store.tag)
        mine = {"authorization": "Bearer a"}
        poll = {"accept": "application/json"}
        answers = [
            (200, site.connect(headers=READER | mine, cursor=first.at(0))),
            (204, site.connect(headers=READER | mine, cursor=first.at(1))),
            (204, site.eventsource(more=mine, cursor=first.at(1))),
            (410, site.connect(cursor=first.at(0))),
            (410, site.connect(cursor=f"{unknown}.1")),
            (200, site.connect(first.own_url, headers=poll | mine)),
            (404, site.connect(first.own_url, headers=poll)),
            (404, site.connect(f"/chat?_stream={unknown}")),
            (405, site.connect(first.own_url, method="PUT", headers=mine)),
            (204, site.connect(first.own_url, method="DELETE", headers=mine)),
            (404, site.connect(first.own_url, method="DELETE", headers={})),
        ]
        for status, connection in answers:
            await connection.finished()
            assert connection.status == status
            assert connection.header("cache-control") == "no-store"
            vary = (connection.header("vary") or "").lower()
            for name in ("accept", "last-event-id", "prefer", "authorization", "cookie", "origin"):
                assert name in vary
            assert connection.header("etag") is None


# -- 33


class AwayStore(MemoryStore):
    """A store that can be away, as a shared one can."""

    away = False

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("the store does not answer")

    async def create(self, *args: Any, **options: Any) -> Any:
        self._check()
        return await super().create(*args, **options)

    async def open(self, stream: str) -> Any:
        self._check()
        return await super().open(stream)

    async def stop(self, stream: str) -> bool:
        self._check()
        return await super().stop(stream)

    async def claim(self, *args: Any) -> Any:
        self._check()
        return await super().claim(*args)


async def test_with_the_store_away_new_streams_run_and_only_cursors_are_refused() -> None:
    clock = FakeClock()
    store = AwayStore(clock=clock)
    async with Site(store=store, clock=clock) as site:
        first, run = await site.started("1", headers=EVENTSOURCE)
        store.away = True
        await run.say("2")
        await first.event()
        fresh = site.connect("/fresh")
        await (await site.run(2)).stream("x")
        assert (await fresh.receive_body(b"data: x")).startswith(b"data: x")
        assert not fresh.logged
        like = site.eventsource(cursor=first.at(1))
        await like.finished()
        assert like.status == 200
        assert re.fullmatch(rb"retry: \d+\n\n", like.body)
        other = site.connect(cursor=first.at(1))
        await other.finished()
        assert other.status == 503
        assert other.header("retry-after") is not None
        for method, headers in (("GET", {"accept": "application/json"}), ("DELETE", {})):
            refused = site.connect(first.own_url, method=method, headers=headers)
            await refused.finished()
            assert refused.status == 503
            assert refused.header("retry-after") is not None
        assert site.runs == 2
        store.away = False
        again = site.eventsource(cursor=first.at(1))
        assert (await again.event()).data == "2"


@pytest.mark.parametrize("headers", [EVENTSOURCE, READER], ids=["eventsource", "other"])
async def test_with_the_store_away_a_key_starts_nothing_twice(headers: dict[str, str]) -> None:
    clock = FakeClock()
    store = AwayStore(clock=clock)
    async with Site(store=store, clock=clock) as site:
        store.away = True
        connection = site.connect(headers=headers | {"idempotency-key": "k" * 22})
        await connection.finished()
        assert connection.status == (200 if headers == EVENTSOURCE else 503)
        assert site.runs == 0


# -- nothing leaks


async def test_after_many_dropped_streams_and_their_ttl_all_is_as_it_was() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        for number in range(50):
            await send(body(b"data: %d\n\n" % number))
            await settle(2)
        await send(body(b"", False))

    async def storm(site: Site, streams: int) -> None:
        for number in range(streams):
            headers = (EVENTSOURCE if number % 2 else READER) | {"authorization": f"Bearer {number}"}
            connection = site.connect(f"/{number}", headers=headers)
            await connection.start()
            await settle(number % 7)
            connection.drop()
            await connection.finished()
            if number % 3 == 0:
                again = site.connect(f"/{number}", headers=headers, cursor=connection.at(0))
                await again.start()
                again.drop()
                await again.finished()
        site.connections.clear()
        await site.clock.advance(31)
        while site.resume._worker.producers:
            await settle()
        await site.clock.advance(301 + 86_400)
        await site.store.open("any")

    def streams() -> int:
        return sum(type(thing) in (Producer, Reader) for thing in gc.get_objects())

    async with Site(app) as site:
        gc.collect()
        others = streams()  # that failed tests hold on to
        tracemalloc.start()
        try:
            await storm(site, 300)  # tables grow to what is needed at a time, and stay so
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            await storm(site, 300)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert site.clock.timers == 0
        assert len(site.store) == 0
        assert site.store.size == 0
        assert streams() == others
        assert grown < 16 * 1024, f"{grown} bytes more after 300 streams"
