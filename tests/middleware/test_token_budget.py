"""``TokenBudgetMiddleware``: what is reserved, what is counted and charged, and what becomes of a stream over it."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from streamware import (
    ConfigurationError,
    MemoryLimitStorage,
    ThrottleMiddleware,
    TokenBudgetMiddleware,
    current_stream,
)
from streamware.streams.gone import ClientGone
from streamware.testing import Connection, FakeClock, settle
from streamware.types import Receive, Scope, Send
from tests.middleware.budget_site import CHAT, KEY, SSE, Site, chunk, words
from tests.wire.provider_streams import FIXTURES, PROMPT, Fixture

PROMPT_OF = {"model": "m", "messages": [{"content": "x" * 4 * PROMPT}], "max_tokens": 100}


# -- what is charged


@pytest.mark.parametrize(
    "fixture", [each for each in FIXTURES if "realtime" not in each.name], ids=lambda fixture: fixture.name
)
async def test_what_is_settled_is_what_the_provider_says(fixture: Fixture):
    site = Site(limits="100000/minute", usage_path=fixture.path)
    site.headers = [(b"content-type", fixture.media_type)]
    data = fixture.data
    site.parts = [data[at : at + 97] for at in range(0, len(data), 97)]

    connection = await site.ask(json=PROMPT_OF)

    assert await site.charged() == fixture.expected.total
    assert connection.body == data
    basis = "estimated" if fixture.expected.estimated else "reported"
    assert site.observer.counts["token_budget.used", basis] == fixture.expected.total


async def test_a_reservation_holds_the_prompt_and_the_answer_that_was_asked_for_until_the_end():
    site = Site()
    site.gates[0] = asyncio.Event()
    async with site.connection(json={**CHAT, "max_tokens": 300}) as connection:
        await connection.start()

        assert await site.charged() == 10 + 300
        site.gates[0].set()
        await connection.finished()
    await site.settled()

    assert await site.charged() == 10 + 5


@pytest.mark.parametrize(
    ("asked", "reserved"),
    [
        ({}, 512),
        ({"max_tokens": 1, "max_completion_tokens": 200}, 200),
        ({"max_output_tokens": 77}, 77),
        ({"max_tokens": 100, "n": 3}, 300),
        ({"options": {"num_predict": 60}}, 60),
        ({"generationConfig": {"maxOutputTokens": 61, "candidateCount": 2}}, 122),
        ({"max_tokens": 10**6}, 700),
        ({"max_tokens": -5}, 512),
        ({"max_tokens": "many", "n": [3]}, 512),
        ({"max_tokens": 1, "n": 10**8}, 128),
    ],
)
async def test_the_answer_is_reserved_as_the_request_says_within_bounds(asked: dict[str, Any], reserved: int):
    site = Site(limits="100000/minute", max_reserve=700)
    site.gates[0] = asyncio.Event()
    async with site.connection(json={**CHAT, **asked}) as connection:
        await connection.start()

        assert await site.charged() == 10 + reserved
        site.gates[0].set()
        await connection.finished()


async def test_the_app_gets_the_very_messages_of_the_request():
    site = Site()
    body = json.dumps(CHAT).encode()
    async with site.connection(body=None) as connection:
        connection.send_body(body[:20], more=True)
        connection.send_body(b"", more=True)
        connection.send_body(body[20:])
        await connection.finished()

    assert [message["body"] for message in site.received] == [body[:20], b"", body[20:]]


async def test_no_more_of_a_request_is_read_ahead_than_the_bound_and_the_app_gets_all_of_it():
    site = Site(max_body=1000)
    async with site.connection(body=None) as connection:
        for _ in range(5):
            connection.send_body(b"x" * 400, more=True)
        await settle()
        assert site.calls == 1  # after three of them
        connection.send_body(b"end")
        await connection.finished()

    assert b"".join(message["body"] for message in site.received) == b"x" * 2000 + b"end"


async def test_a_request_that_is_no_json_is_not_read_ahead():
    site = Site()
    async with site.connection(body=None, headers={"content-type": "multipart/form-data; boundary=x"}) as connection:
        connection.send_body(b"part", more=True)
        await settle()
        assert site.calls == 1
        connection.send_body(b"end")
        await connection.finished()


async def test_a_request_that_no_limit_is_for_is_not_read_ahead():
    site = Site(limits={"/v1/*": "1000/minute"})
    async with site.connection(path="/upload", body=None) as connection:
        connection.send_body(b'{"part":', more=True)
        await settle()
        assert site.calls == 1
        connection.send_body(b"1}")
        await connection.finished()


async def test_a_client_that_leaves_in_the_middle_of_its_request_is_not_charged():
    site = Site()
    async with site.connection(body=None) as connection:
        connection.send_body(b'{"messages"', more=True)
        await settle()
        connection.drop()
        await asyncio.wait([connection._opened()])
    await site.settled()

    assert [message["type"] for message in site.received] == ["http.request", "http.disconnect"]
    assert await site.charged() == 0


async def test_a_failed_answer_is_not_charged():
    site = Site()
    site.status, site.headers = 503, [(b"content-type", b"application/json")]
    site.parts = [b'{"error":{"message":"overloaded"}}']
    await site.ask()

    assert await site.charged() == 0
    assert site.observer.counts["token_budget.used", "none"] == 0


async def test_an_app_that_fails_before_it_answers_is_not_charged():
    site = Site()

    def fail() -> None:
        raise ValueError("no such model")

    site.before = fail
    async with site.connection() as connection:
        with pytest.raises(ValueError, match="no such model"):
            await connection.finished()
    await site.settled()

    assert await site.charged() == 0


async def test_an_app_that_fails_in_the_middle_is_charged_for_what_it_sent():
    site = Site()

    def parts() -> Any:
        yield words(30)
        raise ValueError("broken")

    site.parts = parts()
    async with site.connection() as connection:
        with pytest.raises(ValueError, match="broken"):
            await connection.finished()
    await site.settled()

    assert await site.charged() == 40


async def test_an_answer_that_is_no_models_is_not_charged():
    site = Site()
    site.headers = [(b"content-type", b"application/json")]
    site.parts = [json.dumps({"data": ["m"] * 1000}).encode()]
    await site.ask(method="GET", body=b"", headers={})

    assert await site.charged() == 0


async def test_an_answer_to_a_models_request_that_says_nothing_is_estimated():
    site = Site()
    site.headers = [(b"content-type", b"application/json")]
    site.parts = [json.dumps({"answer": "x" * 386}).encode()]  # 400 bytes
    await site.ask()

    assert await site.charged() == 10 + 100


async def test_a_picture_is_not_taken_for_words():
    site = Site()
    site.headers = [(b"content-type", b"image/png")]
    site.parts = [b"x" * 10_000]
    await site.ask()

    assert await site.charged() == 10


async def test_an_encoded_stream_is_charged_as_it_was_reserved():
    site = Site()
    site.headers = [*SSE, (b"content-encoding", b"gzip")]
    body = gzip.compress(words(100))
    site.parts = [body]
    connection = await site.ask(json={**CHAT, "max_tokens": 200})

    assert connection.body == body
    assert await site.charged() == 210
    assert site.observer.counts["token_budget.used", "reserved"] == 210


async def test_what_is_learned_of_a_model_goes_into_the_next_estimate():
    site = Site(limits="1000000/minute")
    for _ in range(30):
        site.parts = [words(100), chunk("", usage=(20, 200))]  # twice as many as four bytes each
        await site.ask(json=PROMPT_OF)
    before = await site.charged()
    site.parts = [words(100)]
    await site.ask(json=PROMPT_OF)

    assert await site.charged() - before == pytest.approx(20 + 200, abs=2)


# -- refusals


async def test_what_does_not_fit_is_refused_and_costs_nothing():
    site = Site(limits="1000/minute")
    site.gates[0] = asyncio.Event()
    async with site.connection(json={**CHAT, "max_tokens": 900}) as first:
        await first.start()
        second = await site.ask_refused(json={**CHAT, "max_tokens": 100})

        assert second.status == 429
        assert second.header("retry-after") is not None
        assert second.header("ratelimit-policy") == '"1000/minute";q=1000;qu="tokens";w=60'
        assert json.loads(second.body)["violated-policies"] == ["1000/minute"]
        assert site.calls == 1
        assert await site.charged() == 910
        site.gates[0].set()
        await first.finished()
    assert site.observer.counts["token_budget.refused", "budget"] == 1


@pytest.mark.parametrize(("style", "found"), [("openai", "rate_limit_exceeded"), ("anthropic", "rate_limit_error")])
async def test_a_refusal_has_the_shape_that_sdks_read(style: Any, found: str):
    site = Site(limits="5/day", body=style)
    refused = await site.ask_refused()

    assert refused.status == 429
    error = json.loads(refused.body)["error"]
    assert found in (error["type"], error.get("code"))
    assert refused.header("x-should-retry") == "false"


async def test_openais_sdk_is_told_that_it_is_tokens_of_which_there_are_no_more():
    site = Site(limits="100/minute", body="openai")
    site.parts = [words(200)]
    await site.ask()
    refused = await site.ask_refused()

    assert json.loads(refused.body)["error"]["type"] == "tokens"
    assert json.loads(refused.body)["error"]["message"].startswith("Rate limit exceeded")


async def test_a_prompt_larger_than_the_whole_budget_is_refused_for_good():
    site = Site(limits="9/minute")
    refused = await site.ask_refused()

    assert refused.status == 429
    assert refused.header("retry-after") is None
    assert refused.header("x-should-retry") == "false"
    assert site.observer.counts["token_budget.refused", "size"] == 1


async def test_an_answer_larger_than_the_whole_budget_is_reserved_as_far_as_that_goes():
    site = Site(limits="100/minute")
    connection = await site.ask(json={**CHAT, "max_tokens": 5000})

    assert connection.status == 200


async def test_an_eventsource_is_refused_softly():
    site = Site(limits="1000/minute", reserve=900)
    site.gates[0] = asyncio.Event()
    eventsource = {"accept": "text/event-stream", "cache-control": "no-cache"}
    async with site.connection() as first:
        await first.start()
        second = await site.ask_refused(method="GET", body=b"", headers=eventsource)

        assert second.status == 200
        assert second.body.startswith(b"retry: ")
        site.gates[0].set()
        await first.finished()


async def test_a_key_that_cannot_be_told_is_refused_and_none_is_not_limited():
    def key(scope: Scope) -> str | None:
        if scope["path"] == "/broken":
            raise LookupError
        return None

    site = Site(limits="5/minute", key=key)

    assert (await site.ask_refused(path="/broken")).status == 403
    assert (await site.ask()).status == 200


async def test_shadow_mode_refuses_and_cuts_nothing_and_counts_what_would_have_been():
    site = Site(limits="100/minute", enforce=False, on_exceeded="cut", reserve=60)
    site.parts = [words(80)] * 3
    for _ in range(2):
        connection = await site.ask()
        assert connection.body == words(80) * 3
        assert connection.header("ratelimit") is None

    counts = site.observer.counts
    assert counts["token_budget.would_refuse", "budget"] == 1
    assert counts["token_budget.would_exceed", "finish"] == 2
    assert ("token_budget.cut", "chat") not in counts
    assert await site.debt() == 2 * 250


async def test_limits_by_path_by_plan_and_by_model():
    site = Site(
        limits={"/a": {"default": "600/minute", "pro": "5000/minute"}, "*": None},
        models={"tiny-*": "700/minute"},
        plan=lambda scope: dict(scope["headers"]).get(b"plan", b"").decode(),
    )
    policies = []
    for path, plan, model in (("/a", "", "m"), ("/a", "pro", "m"), ("/b", "pro", "m"), ("/b", "", "tiny-1")):
        headers = {"content-type": "application/json", "plan": plan}
        connection = await site.ask(path=path, headers=headers, json={**CHAT, "model": model})
        policies.append((connection.header("ratelimit-policy") or "").partition(";")[0])

    assert policies == ['"600/minute"', '"5000/minute"', "", '"700/minute"']


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (json.dumps({**CHAT, "model": "dear"}).encode("utf-16"), "application/json"),
        (json.dumps({**CHAT, "model": "dear", "top_p": float("nan")}).encode(), "application/json"),
        (b" " * 1100 + json.dumps({**CHAT, "model": "dear"}).encode(), "application/json"),
        (b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\ndear\r\n--x--', "multipart/form-data"),
    ],
)
async def test_a_request_that_hides_its_model_comes_under_the_limits_of_all(body: bytes, media_type: str):
    site = Site(limits=None, models={"dear": "100/minute", "d*": "1000/minute"}, reserve=60, max_body=1000)
    site.gates[0] = asyncio.Event()
    ask = {"body": body, "headers": {"content-type": media_type}}
    async with site.connection(**ask) as first:
        await first.start()
        policies = first.header("ratelimit-policy")
        assert (await site.ask_refused(**ask)).status == 429
        site.gates[0].set()
        await first.finished()

    assert (policies or "").count("qu=") == 2


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_json_is_read_whatever_its_type_says(media_type: str | None):
    site = Site(limits="1000/minute", models={"dear": "100/minute"})
    headers = {} if media_type is None else {"content-type": media_type}
    connection = await site.ask(json={**CHAT, "model": "dear"}, headers=headers)

    assert connection.header("ratelimit-policy") == '"100/minute";q=100;qu="tokens";w=60'


async def test_what_names_no_model_or_has_no_body_is_hidden_from_nobody():
    site = Site(limits="1000/minute", models={"dear": "100/minute"})
    for given in ({"json": {"a": 1}}, {"method": "GET", "body": b""}):
        connection = await site.ask(**given)
        assert connection.header("ratelimit-policy") == '"1000/minute";q=1000;qu="tokens";w=60'


async def test_tokens_are_never_counted_as_requests_though_both_have_one_name():
    storage = MemoryLimitStorage()
    site = Site(limits="1000/minute", storage=storage, name="chat")
    throttle = ThrottleMiddleware(
        site.outermost, limits="1000/minute", storage=storage, name="chat", key=lambda scope: "all"
    )
    site.outermost = throttle
    for requests in (1, 2):
        await site.ask()
        assert sorted(counter.current for counter in storage._counters.values()) == [requests, 15 * requests]


async def test_preflights_and_heads_pass_uncounted():
    site = Site(limits="1/minute")
    preflight = {"origin": "https://a.example", "access-control-request-method": "POST"}

    assert (await site.ask(method="OPTIONS", headers=preflight, body=b"")).status == 200
    site.parts = []
    assert (await site.ask(method="HEAD", headers={}, body=b"")).status == 200
    assert await site.charged() == 0


# -- in the head and at the end


async def test_the_head_says_what_is_left_after_the_reservation():
    site = Site()
    connection = await site.ask(json={**CHAT, "max_tokens": 190})

    assert connection.header("ratelimit-policy") == '"1000/minute";q=1000;qu="tokens";w=60'
    assert connection.header("ratelimit") == '"1000/minute";r=800;t=60'


@pytest.mark.parametrize("prefer", ["control-events", ""])
async def test_the_end_says_what_was_used_when_that_is_asked_for(prefer: str):
    site = Site(report=True)
    site.parts = [words(5), chunk("", usage=(12, 7)), b"data: [DONE]\n\n"]
    connection = await site.ask(headers={"content-type": "application/json", "prefer": prefer})

    told = b'{"input_tokens":12,"output_tokens":7,"total_tokens":19,"estimated":false,"remaining":981}'
    if prefer:
        assert connection.body.endswith(b"[DONE]\n\nevent: streamware.usage\ndata: " + told + b"\n\n")
    else:
        assert connection.body.endswith(b"[DONE]\n\n: usage " + told + b"\n")


async def test_the_end_says_it_also_where_it_is_cut_off():
    site = Site(limits="100/minute", on_exceeded="cut", report=True)
    site.parts = [words(80)] * 3
    connection = await site.ask()

    *_, last, rest = connection.body.split(b"\n\n")
    told, error = last.split(b"\n")
    used = {"input_tokens": 10, "output_tokens": 160, "total_tokens": 170, "estimated": True, "remaining": 0}
    assert json.loads(told.removeprefix(b": usage ")) == used
    assert b"rate_limit_exceeded" in error
    assert rest == b""
    assert await site.debt() == 170


async def test_nothing_is_said_inside_of_an_event():
    site = Site(report=True)
    site.parts = [words(5), b"data: unfinished"]

    assert (await site.ask()).body.endswith(b"data: unfinished")


async def test_nothing_is_added_to_a_body_of_a_stated_length():
    site = Site(report=True)
    site.headers = [*SSE, (b"content-length", b"%d" % len(words(5)))]
    site.parts = [words(5)]

    assert (await site.ask()).body == words(5)


# -- over the budget


async def test_finish_lets_a_stream_go_on_and_charges_all_of_it():
    site = Site(limits="100/minute")
    site.parts = [words(80)] * 5
    connection = await site.ask()

    assert connection.body == words(80) * 5
    assert await site.debt() == 410
    assert site.observer.counts["token_budget.exceeded", "finish"] == 1
    assert (await site.ask_refused()).status == 429


DIALECTS = {
    "chat": (words(30), b'data: {"error":{"message":"'),
    "anthropic": (
        b'event: content_block_delta\n'
        b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"' + b"x" * 120 + b'"}}\n\n',
        b'event: error\ndata: {"type":"error","error":{"type":"rate_limit_error","message":"',
    ),
    "responses": (
        b'event: response.output_text.delta\n'
        b'data: {"type":"response.output_text.delta","delta":"' + b"x" * 120 + b'"}\n\n',
        b'event: error\ndata: {"type":"error","code":"rate_limit_exceeded","message":"',
    ),
    "gemini": (
        b'data: {"candidates":[{"content":{"parts":[{"text":"' + b"x" * 120 + b'"}]}}]}\r\n\r\n',
        b'data: {"error":{"code":429,"message":"',
    ),
    "": (b"data: " + b"x" * 120 + b"\n\n", b'event: error\ndata: {"error":{"message":"'),
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_cut_ends_a_stream_behind_a_whole_event_in_its_providers_shape_and_properly(dialect: str):
    event, error = DIALECTS[dialect]
    site = Site(limits="100/minute", on_exceeded="cut")
    site.parts = [event] * 10
    connection = await site.ask()

    body, _, end = connection.body.partition(error)
    assert body == event * 4  # the fourth is beyond it, and has been made and paid for
    assert end.endswith(b"\n\n")
    assert connection.complete
    assert site.sent == 4
    assert isinstance(site.raised, ClientGone)
    assert site.observer.counts["token_budget.cut", dialect] == 1
    assert await site.debt() == pytest.approx(130, abs=1)


async def test_cut_ends_lines_with_a_line():
    line = b'{"model":"m","message":{"content":"' + b"x" * 120 + b'"},"done":false}\n'
    site = Site(limits="100/minute", on_exceeded="cut")
    site.headers = [(b"content-type", b"application/x-ndjson")]
    site.parts = [line * 4 + line[:20], line[20:]]
    connection = await site.ask()

    lines = connection.body.splitlines(keepends=True)
    assert lines[:-1] == [line] * 4
    assert list(json.loads(lines[-1])) == ["error"]


async def test_cut_waits_for_the_end_of_an_event_that_has_begun_to_leave():
    site = Site(limits="100/minute", on_exceeded="cut")
    event = words(20)
    site.parts = [event * 4 + event[:9], event[9:30], event[30:50], event[50:] + event[:7], event[7:]]
    connection = await site.ask()

    assert connection.body.startswith(event * 5 + b'data: {"error"')


@pytest.mark.parametrize("listens", [True, False])
async def test_an_app_that_was_cut_off_is_told_by_both_signals(listens: bool):
    site = Site(limits="100/minute", on_exceeded="cut")
    site.listens = listens
    site.gates[5] = asyncio.Event()
    site.parts = [words(30)] * 10
    async with site.connection() as connection:
        await connection.receive_body()
        await settle()
        assert site.sent == 4
        await connection.finished()

    assert isinstance(site.raised, ClientGone)
    if listens:
        assert site.received[-1] == {"type": "http.disconnect"}


async def test_starlette_ends_its_stream_when_it_is_cut_off():
    ended = asyncio.Event()

    async def produce() -> Any:
        try:
            while True:
                yield words(30)
                await asyncio.sleep(0)
        finally:
            ended.set()

    async def chat(request: Any) -> StreamingResponse:
        assert (await request.json())["model"] == "m"
        return StreamingResponse(produce(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/", chat, methods=["POST"])])
    budget = TokenBudgetMiddleware(app, limits="100/minute", on_exceeded="cut", key=lambda scope: "all")
    body = json.dumps(CHAT).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    async with Connection(budget, method="POST", body=body, headers=headers) as connection:
        await connection.finished()
        await asyncio.wait_for(ended.wait(), 5)

    assert b"rate_limit_exceeded" in connection.body
    await budget.aclose()


@pytest.mark.parametrize("extra", [(b"content-length", b"1404"), (b"content-encoding", b"gzip")])
async def test_a_body_of_a_stated_length_or_an_encoded_one_is_never_cut(extra: tuple[bytes, bytes]):
    site = Site(limits="100/minute", on_exceeded="cut")
    site.headers = [*SSE, extra]
    site.parts = [words(60)] * 4
    assert len(words(60)) * 4 == 1404

    assert (await site.ask()).body == words(60) * 4


async def test_a_whole_answer_is_never_cut():
    site = Site(limits="100/minute", on_exceeded="cut")
    site.headers = [(b"content-type", b"application/json")]
    site.parts = [b'{"id":"c","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":900}}', b" " * 1000]
    connection = await site.ask()

    assert len(connection.body) > 1000
    assert await site.debt() == 910


async def test_a_stream_that_reports_more_at_its_end_than_there_was_is_not_cut_behind_it():
    site = Site(limits="100/minute", on_exceeded="cut")

    async def ask(*parts: bytes) -> bytes:
        site.parts = parts
        return (await site.ask()).body

    parts = (words(5), chunk("", usage=(10, 400)) + b"data: [DONE]\n\n")

    assert b"rate_limit_exceeded" in await ask(*parts)  # in mid-stream nobody knows that it is the last
    assert await site.debt() == 410


async def test_pace_holds_a_stream_back_until_there_is_more_and_cuts_it_in_the_end():
    site = Site(limits="100/minute", on_exceeded="pace", max_pause=200.0, window="fixed", slice_size=30)
    site.clock._now = 60_000.0
    part = words(60)
    site.parts = [part] * 4
    async with site.connection(json={**CHAT, "max_tokens": 1}) as connection:
        await connection.receive_body(len(part))
        await site.clock.advance(59)
        assert connection.body == part  # the second does not fit any more
        await site.clock.advance(2)
        assert connection.body == part * 3  # 30 that were missing, and 60
        await site.clock.advance(57)
        assert connection.body == part * 3
        await site.clock.advance(6)
        await connection.finished()
    await site.settled()

    assert connection.body == part * 4
    assert site.observer.counts["token_budget.exceeded", "pace"] == 1
    assert site.clock.timers == 0


async def test_a_pause_has_an_end():
    site = Site(limits="100/hour", on_exceeded="pace", max_pause=30.0)
    site.parts = [words(60)] * 3
    async with site.connection() as connection:
        await connection.receive_body(len(words(60)))
        await site.clock.advance(31)
        await connection.finished()

    assert b"rate_limit_exceeded" in connection.body


async def test_a_stream_that_is_held_back_is_ended_by_its_clients_leaving():
    site = Site(limits="100/hour", on_exceeded="pace")
    site.parts = [words(60)] * 3
    async with site.connection() as connection:
        await connection.receive_body(len(words(60)))
        connection.cancel()
        await connection.finished()
    await site.settled()

    assert await site.debt() == 130
    assert site.clock.timers == 0


async def test_slices_are_taken_as_they_are_used_and_what_is_left_of_them_given_back():
    site = Site(limits="10000/minute", slice_size=100, reserve=20)
    site.gates[3] = asyncio.Event()
    site.parts = [words(30)] * 4
    async with site.connection() as connection:
        await connection.receive_body(3 * len(words(30)))
        await settle()
        assert await site.charged() == 130  # 30, and a slice
        site.gates[3].set()
        await connection.finished()
    await site.settled()

    assert await site.charged() == 130
    site.parts = [words(3)]
    await site.ask()
    assert await site.charged() == 143


# -- exactly once


async def run_and_cancel(site: Site, count: int, cancel: Any) -> None:
    site.parts = [words(5)]
    site.gates[0] = asyncio.Event()
    site.gates[1] = asyncio.Event()
    site.parts = [words(5), words(5)]
    started = asyncio.Event()
    running = 0

    async def one() -> None:
        nonlocal running

        async def send(message: Any) -> None:
            nonlocal running
            if message.get("body"):
                running += 1
                if running == count:
                    started.set()

        body = [{"type": "http.request", "body": json.dumps(CHAT).encode(), "more_body": False}]

        async def receive() -> Any:
            if body:
                return body.pop()
            return await asyncio.get_running_loop().create_future()

        scope = {"type": "http", "method": "POST", "path": "/", "http_version": "1.1",
                 "headers": [(b"content-type", b"application/json"), (b"content-length", b"9")]}  # fmt: skip
        await site.budget(scope, receive, send)

    site.gates[0].set()
    await cancel(one, count, started)
    await site.settled()


async def by_asyncio_twice(one: Any, count: int, started: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(one()) for _ in range(count)]
    await started.wait()
    for task in tasks:
        task.cancel()
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)


async def by_a_scope_of_anyio(one: Any, count: int, started: asyncio.Event) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(one)
        await started.wait()
        group.cancel_scope.cancel()


@pytest.mark.parametrize("cancel", [by_asyncio_twice, by_a_scope_of_anyio])
async def test_three_hundred_streams_that_are_cancelled_together_settle_three_hundred(cancel: Any):
    site = Site(limits="1000000/minute")

    await run_and_cancel(site, 300, cancel)

    assert site.calls == 300
    assert await site.charged() == 300 * 15
    assert site.observer.counts["token_budget.used", "estimated"] == 300 * 15


async def test_a_client_that_leaves_is_charged_for_what_was_made():
    site = Site()
    site.listens = True
    site.gates[1] = asyncio.Event()
    site.parts = [words(50), words(50)]
    async with site.connection() as connection:
        await connection.receive_body(len(words(50)))
        connection.drop()
        await settle()
        assert site.received[-1] == {"type": "http.disconnect"}
        connection.cancel()
        await connection.finished()
    await site.settled()

    assert await site.charged() == 60


async def test_a_client_that_leaves_before_the_answer_has_begun_pays_for_its_prompt():
    site = Site()
    hold = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await hold.wait()

    site.budget.app = app
    async with site.connection() as connection:
        await settle()
        connection.cancel()
        await connection.finished()
    await site.settled()

    assert await site.charged() == 10


async def test_settled_late_it_is_settled_in_the_window_that_it_was_reserved_in():
    site = Site(limits="1000/minute", window="fixed")
    site.clock._now = 60_000.0
    site.gates[0] = asyncio.Event()
    async with site.connection(json={**CHAT, "max_tokens": 500}) as connection:
        await connection.start()
        await site.clock.advance(61)
        site.gates[0].set()
        await connection.finished()
    await site.settled()

    assert await site.charged() == 0  # no credit of 495


async def test_at_the_end_of_the_worker_what_is_to_be_settled_is():
    site = Site()
    async with site.connection() as connection:
        await connection.finished()
        await site.budget.aclose()

    assert await site.charged() == 15
    assert len(site.budget._ledger.settler) == 0


# -- what the app says


async def test_what_the_app_says_takes_the_place_of_what_was_read():
    site = Site()
    site.parts = [words(100), chunk("", usage=(10, 100))]

    def say() -> None:
        stream = current_stream()
        assert stream is not None
        assert stream.cursor == ""
        stream.usage.add(40)
        stream.usage.add(2)

    site.before = say
    await site.ask()

    assert await site.charged() == 42
    assert site.observer.counts["token_budget.used", "app"] == 42
    assert current_stream() is None


async def test_what_the_app_says_ends_its_stream_as_well():
    site = Site(limits="100/minute", on_exceeded="cut")
    site.parts = [b"data: a\n\n"] * 5

    def say() -> None:
        stream = current_stream()
        assert stream is not None
        stream.usage.add(101)

    site.before = say

    assert b"rate_limit_exceeded" in (await site.ask()).body


async def test_an_app_may_stop_its_stream_without_a_log():
    site = Site()

    def parts() -> Any:
        yield words(5)
        stream = current_stream()
        assert stream is not None
        stream.stop()
        yield words(5)

    site.parts = parts()
    connection = await site.ask()

    assert connection.body == words(5)
    assert connection.complete


# -- as a middleware


async def test_other_scopes_and_messages_pass_untouched():
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": SSE, "trailers": True})
            await send({"type": "http.response.debug", "info": {}})
            await send({"type": "http.response.body", "body": words(5)})
            await send({"type": "http.response.trailers", "headers": [], "more_trailers": False})

    budget = TokenBudgetMiddleware(app, limits="1000/minute", paths=["/chat"])
    for kind in ("lifespan", "mystery"):
        scope = {"type": kind}
        await budget(scope, None, None)  # type: ignore[arg-type]
        assert seen.pop() is scope
    scope = {"type": "http", "method": "GET", "path": "/other", "headers": []}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    await budget(scope, receive, send)
    assert seen.pop() is scope
    sent.clear()
    await budget({**scope, "path": "/chat"}, receive, send)
    assert [message["type"].rpartition(".")[2] for message in sent] == ["start", "debug", "body", "trailers"]


async def test_connections_do_not_count_for_each_other():
    site = Site(limits="100000/minute")
    site.parts = [words(5)] * 20

    connections = [site.connection() for _ in range(20)]
    for connection in connections:
        connection.open()
    await asyncio.gather(*(connection.finished() for connection in connections))
    await site.settled()

    assert await site.charged() == 20 * 110


@pytest.mark.parametrize(
    "options",
    [
        {"limits": None},
        {"limits": "often"},
        {"limits": {"pro": "5/minute"}},
        {"models": ["m"]},
        {"models": {"": "5/minute"}},
        {"on_exceeded": "stop"},
        {"reserve": 0},
        {"reserve": True},
        {"reserve": 5000},
        {"max_reserve": -1},
        {"slice_size": 0},
        {"max_pause": 0},
        {"max_body": 0},
        {"usage_path": "a..b"},
        {"usage_path": 3},
        {"report": "yes"},
        {"enforce": 1},
        {"body": "html"},
        {"on_store_error": "retry"},
        {"expected_workers": 0},
        {"window": "rolling"},
        {"plan": "pro"},
        {"key": "user"},
        {"name": ""},
        {"retry": 0},
    ],
)
def test_a_wrong_option_is_refused_when_it_is_built(options: dict[str, Any]):
    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    with pytest.raises(ConfigurationError, match="TokenBudgetMiddleware"):
        TokenBudgetMiddleware(app, **{"limits": "5/minute", **options})


async def test_json_of_starlette_is_read_after_it_was_read_ahead():
    async def echo(request: Any) -> JSONResponse:
        return JSONResponse({"got": await request.json(), "usage": {"input_tokens": 3, "output_tokens": 4}})

    app = Starlette(routes=[Route("/", echo, methods=["POST"])])
    clock = FakeClock()
    budget = TokenBudgetMiddleware(app, limits="1000/minute", key=lambda scope: "all", clock=clock)
    body = json.dumps(CHAT).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    async with Connection(budget, method="POST", body=body, headers=headers) as connection:
        await connection.finished()
    await budget._ledger.settler.drain()

    assert json.loads(connection.body)["got"] == CHAT
    limits = budget._limits({}, "/")  # type: ignore[misc]
    assert (await budget.storage.take(KEY, limits, (0,))).standings[0].remaining == 993
