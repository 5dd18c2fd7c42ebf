"""What is counted of a stream: the providers' own figures, whatever the splits, and an estimate where there is none."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware.wire.usage import MAX_RESPONSES, Counts, TokenUsage
from streamware.wire.usage_body import MAX_CARRY, EventBody, Kind, LineBody, TextBody, WholeBody, body_of
from streamware.wire.usage_formats import read, read_at
from tests.wire.provider_streams import FIXTURES, FOLDER, PROMPT, Fixture, estimated, reported

BY_NAME = pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: fixture.name)


def counted(fixture: Fixture, parts: list[bytes]) -> Counts:
    counts = Counts(prompt=PROMPT)
    body = fixture.body(counts)
    for part in parts:
        body.feed(part)
    body.finish()
    return counts


def test_every_fixture_is_in_the_table():
    assert {fixture.name for fixture in FIXTURES} == {file.name for file in FOLDER.iterdir()}


@BY_NAME
def test_the_count_of_a_stream_is_its_providers(fixture: Fixture):
    counts = counted(fixture, [fixture.data])

    assert counts.usage == fixture.expected
    assert counts.used == fixture.expected.total


@BY_NAME
def test_usage_that_is_split_over_two_messages_at_any_byte_counts_the_same(fixture: Fixture):
    data = fixture.data
    reports = [found.start() for found in re.finditer(rb"usage|eval_count|\"tokens\"", data)]
    last = reports[-1] if reports else len(data) // 2

    for at in range(max(0, last - 200), min(len(data), last + 400)):
        assert counted(fixture, [data[:at], data[at:]]).usage == fixture.expected, at


@given(data=st.data(), fixture=st.sampled_from(FIXTURES))
def test_any_split_counts_the_same(data: st.DataObject, fixture: Fixture):
    body = fixture.data
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=40)))
    parts = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]

    assert counted(fixture, parts).usage == fixture.expected


@given(fixture=st.sampled_from([each for each in FIXTURES if each.name.endswith(".sse")]), data=st.data())
def test_line_ends_comments_and_a_byte_order_mark_change_nothing(fixture: Fixture, data: st.DataObject):
    body = fixture.data.replace(b"\r\n", b"\n")
    body = body.replace(b"\n\n", b"\n\n: ping\n\nid: 7\nretry: 10\n\n", 2)
    end = data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    body = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + body.replace(b"\n", end)
    at = data.draw(st.integers(0, len(body)))

    assert counted(fixture, [body[:at], body[at:]]).usage == fixture.expected


@BY_NAME
def test_one_byte_at_a_time_counts_the_same(fixture: Fixture):
    assert counted(fixture, [bytes([byte]) for byte in fixture.data]).usage == fixture.expected


@given(
    data=st.binary(max_size=300), prefix=st.sampled_from([b"", b"data: ", b'data: {"choices":[', b'data: {"usage":'])
)
def test_no_bytes_whatever_make_it_raise(data: bytes, prefix: bytes):
    for make in (EventBody, LineBody, WholeBody):
        counts = Counts()
        body = make(counts)
        body.feed(prefix + data)
        body.finish()

        assert counts.used >= 0


JUNK = st.sampled_from([None, True, -1, 1e300, 10**30, "x", "7", [], [None], {}, [[]], {"text": 3}, [{"x": {}}]])


@given(data=st.data(), fixture=st.sampled_from(FIXTURES))
def test_no_json_whatever_makes_it_raise(data: st.DataObject, fixture: Fixture):
    """An event of a provider's in which one place, whichever, holds something else."""
    lines = [line.removeprefix(b"data: ") for line in fixture.data.splitlines()]
    event = json.loads(data.draw(st.sampled_from([line for line in lines if line[:1] == b"{" and line[-1:] == b"}"])))
    place = event
    while True:
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(JUNK)
            break
        place = place[key]
    counts = Counts()

    read(counts, json.dumps(event).encode())

    assert counts.used >= 0
    assert counts.errors == 0


# -- the rules of merging


def chunk(name: str, prompt: int | None, completion: int | None, finish: str | None = None, text: str = "") -> bytes:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 10**6}
    return json.dumps(
        {"id": name, "choices": [{"delta": {"content": text}, "finish_reason": finish}], "usage": usage}
    ).encode()


def after(*events: bytes) -> Counts:
    counts = Counts(prompt=PROMPT)
    for event in events:
        read(counts, event)
    return counts


def test_cumulative_values_take_the_place_of_those_before():
    assert after(chunk("a", 5, 1), chunk("a", 5, 7), chunk("a", 5, 9)).used == 14


def test_a_value_that_falls_back_or_is_missing_does_not_take_anything_away():
    assert after(chunk("a", 5, 9), chunk("a", None, 2), chunk("a", 0, None)).used == 14


def test_a_total_is_never_believed():
    assert after(chunk("a", 5, 9)).usage == reported(5, 9)


def test_responses_that_follow_each_other_are_summed():
    assert after(chunk("a", 5, 1), chunk("a", 5, 9, "stop"), chunk("b", 7, 1), chunk("b", 7, 3, "stop")).used == 24


def test_responses_that_come_one_among_the_other_are_summed():
    events = [chunk(name, 5, n) for n in range(1, 20) for name in ("a", "b", "c")]

    assert after(*events).used == 3 * (5 + 19)


def test_an_id_that_is_new_in_each_event_is_one_response():
    assert after(*[chunk(f"{n}", 5, n) for n in range(1, 200)], chunk("last", 5, 200, "stop")).used == 205


def test_an_event_without_an_id_belongs_to_the_response_under_way():
    assert after(chunk("a", 5, 1), chunk("", 5, 8)).used == 13


def test_more_responses_than_are_told_apart_are_still_summed():
    events = [chunk(f"{n}", 2, 3, "stop") for n in range(3 * MAX_RESPONSES)]

    assert after(*events).usage == reported(6 * MAX_RESPONSES, 9 * MAX_RESPONSES)


def test_two_answers_of_ollama_in_one_stream_are_summed():
    line = b'{"model":"m","done":true,"prompt_eval_count":4,"eval_count":6}'

    assert after(line, line).used == 20


def test_what_comes_after_a_report_is_estimated():
    usage = after(chunk("a", 5, 9, text="x" * 400), chunk("a", None, None, text="y" * 41)).usage

    assert usage == estimated(5, 9 + 11)


def test_a_report_takes_the_place_of_the_estimate_even_where_it_is_less():
    assert after(chunk("a", None, None, text="x" * 400), chunk("a", 5, 9)).used == 14


def test_text_counts_by_its_bytes_in_utf_8_with_arguments_and_reasoning():
    words = {
        "content": "灯台",  # 6
        "reasoning_content": "so",  # 2
        "refusal": "no",  # 2
    }
    call = {"tool_calls": [{"function": {"name": "add", "arguments": '{"n":1}'}}]}  # 3 + 9 as it is escaped

    counts = after(*(json.dumps({"id": "a", "choices": [{"delta": each}]}).encode() for each in (words, call)))

    assert counts.seen == 6 + 2 + 2 + 12
    assert counts.reasoned


def test_the_factor_of_a_model_is_applied_to_what_is_estimated():
    counts = Counts(factor=2.0)
    read(counts, chunk("a", 5, None, text="x" * 400))

    assert counts.used == 5 + 200


def test_nothing_but_unknown_events_is_counted_by_all_of_their_bytes():
    counts = Counts(prompt=10)
    body = EventBody(counts)
    body.feed(b'data: hello there\n\ndata: {"word":"x"}\n\ndata: [DONE]\n\n')
    body.finish()

    assert counts.usage == estimated(10, 6)  # 11 and 12 bytes
    assert not counts.recognised


def test_an_event_that_any_app_may_send_does_not_make_a_stream_a_known_one():
    counts = after(b'{"type":"ping"}', b'{"type":"error","error":{}}', b'{"kind":"word","w":"hello"}')

    assert not counts.recognised
    assert counts.used == PROMPT + 7


@pytest.mark.parametrize(
    "usage",
    [
        '{"prompt_tokens":5.0,"completion_tokens":9}',
        '{"prompt_tokens":"5","completion_tokens":9,"total_tokens":null}',
        '{"prompt_tokens":5,"completion_tokens":9,"prompt_tokens_details":[1]}',
        '{"prompt_tokens":5,"completion_tokens":9,"completion_tokens_details":{"reasoning_tokens":"many"}}',
        ' { "prompt_tokens" : 5 , "completion_tokens" : 9 } ',
    ],
)
def test_usage_of_other_types_is_read_leniently(usage: str):
    assert after(f'{{"id":"a","choices":[],"usage":{usage}}}'.encode()).usage == reported(5, 9)


def test_a_field_that_makes_no_sense_costs_only_itself():
    event = {"id": 7, "choices": [None, 3, {"delta": {"content": [{"type": "text", "text": "four"}]}}], "usage": "?"}

    assert after(json.dumps(event).encode()).seen == 4


@pytest.mark.parametrize("number", ["1e300", "-3", "99999999999999999999999", "9223372036854775807", "true", "null"])
def test_a_count_that_cannot_be_is_not_believed(number: str):
    event = f'{{"id":"a","choices":[],"usage":{{"prompt_tokens":{number},"completion_tokens":{number}}}}}'

    assert after(event.encode()).used == PROMPT


def test_what_cannot_be_decoded_is_counted_and_changes_nothing():
    counts = after(b"\xff\xfe", chunk("a", 5, 9), b'{"choices":[', b"{" * 5000, b"[DONE]")

    assert counts.usage == reported(5, 9)
    assert counts.errors == 2


def test_a_report_among_bare_words_covers_those_before_it_and_no_more():
    """Its user may have made the model say just that."""
    claimed = b'{"usage":{"prompt_tokens":0,"completion_tokens":0},"choices":[]}'
    assert after(b"x" * 400, claimed, b"y" * 400).usage == TokenUsage(0, 100, estimated=True)
    assert after(b"x" * 400, b'{"usage":{"prompt_tokens":7,"completion_tokens":90}}').usage == reported(7, 90)


# -- bodies


@pytest.mark.parametrize("said", [b'{"usage":{"prompt_tokens":0,"completion_tokens":0}}', b"[]", b"words", b"{"])
def test_plain_text_is_words_whatever_it_says(said: bytes):
    counts = Counts(prompt=5)
    kind, body = body_of(counts, [(b"content-type", b"text/plain; charset=utf-8")])
    assert body is not None
    body.feed(said)
    body.feed(b"x" * 2 * MAX_CARRY)
    body.finish()

    assert kind is Kind.WHOLE
    assert body.held is None
    assert counts.usage == estimated(5, -(-(len(said) + 2 * MAX_CARRY) // 4))
    assert counts.oversize == 0


def test_data_of_several_lines_is_one_event():
    counts = Counts()
    body = EventBody(counts)
    body.feed(b'event: x\ndata: {"id":"a","choices":[],\ndata:  "usage":{"prompt_tokens":5,\n')
    body.feed(b'data: "completion_tokens":9}}\n\n')

    assert counts.usage == reported(5, 9)


@pytest.mark.parametrize("split", [1, 70_000])
def test_an_event_of_the_largest_size_is_read_and_one_byte_more_is_not(split: int):
    event = chunk("a", 5, 9)
    for spare, expected in ((0, 14), (1, 0)):
        counts = Counts()
        body = EventBody(counts)
        padding = MAX_CARRY - len(event) - len(b"data: \n") + spare
        data = b"data: " + b" " * padding + event + b"\n\n"
        step = len(data) if split == 1 else split
        for at in range(0, len(data), step):
            body.feed(data[at : at + step])
        body.finish()

        assert counts.oversize == spare
        if not spare:
            assert counts.used == expected
        else:
            assert counts.usage.estimated


def test_what_follows_an_event_too_large_is_read():
    counts = Counts()
    body = EventBody(counts)
    body.feed(b"data: " + b"x" * MAX_CARRY)
    body.feed(b"x\n\ndata: " + chunk("a", 5, 9) + b"\n\n")

    assert counts.usage == reported(5, 9)


def test_a_line_and_a_body_too_large_are_estimated():
    for body, counts in ((LineBody(lines := Counts()), lines), (WholeBody(whole := Counts()), whole)):
        body.feed(b"x" * MAX_CARRY)
        body.feed(b"xxx")
        body.finish()

        assert counts.usage == estimated(0, MAX_CARRY // 4 + 1)
        assert counts.oversize == 1


@pytest.mark.parametrize(
    ("content_type", "coding", "kind", "made"),
    [
        (b"text/event-stream; charset=utf-8", None, Kind.EVENTS, EventBody),
        (b"Text/Event-Stream", b"identity", Kind.EVENTS, EventBody),
        (b"application/x-ndjson", None, Kind.LINES, LineBody),
        (b"application/json", b"", Kind.WHOLE, WholeBody),
        (b"application/vnd.api+json", None, Kind.WHOLE, WholeBody),
        (b"text/plain", None, Kind.WHOLE, TextBody),
        (b"text/event-stream", b"gzip", Kind.ENCODED, None),
        (b"application/json", b"br", Kind.ENCODED, None),
        (b"image/png", None, Kind.OTHER, None),
        (b"", None, Kind.OTHER, None),
    ],
)
def test_a_body_is_metered_as_its_headers_say(
    content_type: bytes, coding: bytes | None, kind: Kind, made: type[object] | None
):
    lines = [(b"Content-Type", content_type), *([] if coding is None else [(b"content-encoding", coding)])]

    found, body = body_of(Counts(), lines)

    assert found is kind
    assert body is None if made is None else type(body) is made


@pytest.mark.parametrize(
    ("parts", "held"),
    [
        ([b"data: x\n\n"], 0),
        ([b"data: x\n"], 8),
        ([b"data: x\n\nda"], 2),
        ([b"data: x", b"\n", b"\n"], 0),
        ([b"data: x\r\n\r\n: c"], 3),
        ([b"data: " + b"x" * MAX_CARRY], None),
    ],
)
def test_what_is_held_of_an_event_is_known(parts: list[bytes], held: int | None):
    body = EventBody(Counts())
    for part in parts:
        body.feed(part)

    assert body.held == held


@pytest.mark.parametrize("field", [b"dat1:", b"event", b"  id:", b"xxxxx"])
def test_json_of_another_field_is_no_event(field: bytes):
    counts = Counts()
    body = EventBody(counts)
    body.feed(b"data: 1\n\n")
    body.feed(field + chunk("a", 5, 9) + b"\n\n")

    assert not counts.recognised


def test_a_path_leads_to_a_number_or_to_an_object():
    for data, expected in ((b'{"m":{"t":7}}', 7), (b'{"m":{"t":{"input_tokens":3,"output_tokens":4}}}', 7)):
        counts = Counts(prompt=PROMPT)
        read_at(counts, data, ("m", "t"))

        assert counts.used == expected


def test_a_path_that_leads_nowhere_says_nothing():
    counts = Counts()
    for data in (b'{"m":3}', b'{"m":{"t":null}}', b"[]", b"{"):
        read_at(counts, data, ("m", "t"))

    assert not counts.recognised
    assert counts.usage == TokenUsage(0, counts.unknown // 4 + 1, estimated=True)
