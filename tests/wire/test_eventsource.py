"""What an EventSource makes of bytes: the cases that browsers' own tests of the format cover, with values of ours.

Each body is read whole, in every split in two, byte by byte, and after Streamware has framed it and added ids.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware.wire.eventsource import Event, Interpreter, parse
from streamware.wire.sse import EventFramer, Piece, with_id, without_ids

BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"


@dataclass(frozen=True)
class Case:
    """``events``: (type, data, last event ID) as dispatched; ``last_id`` and ``retry``: what holds at the end."""

    body: str | bytes
    events: list[tuple[str, str, str]] = field(default_factory=list)
    last_id: str = ""
    retry: int | None = None

    @property
    def bytes(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else self.body.encode()


def messages(*data: str, last_id: str = "") -> list[tuple[str, str, str]]:
    return [("message", text, last_id) for text in data]


CASES = {
    # the byte order mark
    "bom": Case(BOM + "data: one\n\n" + BOM + "data: lost\n\ndata: three\n\n", messages("one", "three")),
    "bom-twice": Case(BOM + BOM + "data: lost\n\ndata: two\n\ndata: three\n\n", messages("two", "three")),
    "bom-only": Case(BOM),
    "bom-half": Case(b"\xef\xbbdata: lost\n\ndata: a\n\n", messages("a")),
    # comments
    "comments": Case(
        "data:a\n:\0\n:\r\ndata:b\n:" + "x" * 2048 + "\rdata:c\n:data:lost\r:\ndata:d\n\n", messages("a\nb\nc\nd")
    ),
    "comment-alone": Case(": ping\n\n:\n\n"),
    "comment-with-id": Case(":id: lost\ndata: a\n\n", messages("a")),
    # ends
    "data-before-final-empty-line": Case("retry:700\ndata:a\n\ndata:lost\n", messages("a"), retry=700),
    "data-before-the-end": Case("data:a\n\ndata:lost", messages("a")),
    "id-before-the-end": Case("id: 1\ndata:a\n\nid: 2\ndata:lost\n", messages("a", last_id="1"), "1"),
    "empty": Case(""),
    "only-blank-lines": Case("\n\r\r\n\n"),
    # data
    "field-data": Case("data:\n\ndata\ndata\n\ndata:end\n\n", messages("", "\n", "end")),
    "data-lines": Case("data: a\ndata:\ndata: c\n\n", messages("a\n\nc")),
    "data-with-colons": Case("data: a: b:c\n\n", messages("a: b:c")),
    "data-json": Case('data: {"id": "x"}\n\n', messages('{"id": "x"}')),
    # types
    "field-event": Case("event:e\ndata:a\n\ndata:b\n\n", [("e", "a", ""), ("message", "b", "")]),
    "field-event-empty": Case("event: \ndata:a\n\n", messages("a")),
    "event-last-wins": Case("event: e\nevent: f\ndata: a\n\n", [("f", "a", "")]),
    "event-emptied": Case("event: e\nevent\ndata: a\n\n", messages("a")),
    "event-without-data": Case("event: e\n\ndata: a\n\n", messages("a")),
    # ids
    "field-id": Case("id: 1\ndata: a\n\n", messages("a", last_id="1"), "1"),
    "field-id-kept": Case("id: 1\ndata: a\n\ndata: b\n\n", messages("a", "b", last_id="1"), "1"),
    "field-id-emptied": Case(
        "id: 1\ndata: a\n\nid\ndata: b\n\ndata: c\n\n", messages("a", last_id="1") + messages("b", "c")
    ),
    "field-id-alone": Case("id: 1\n\ndata: a\n\n", messages("a", last_id="1"), "1"),
    "field-id-null": Case("id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n", messages("a", "b", last_id="1"), "1"),
    "field-id-utf-8": Case("id: \N{SNOWMAN}\ndata: a\n\n", messages("a", last_id="\N{SNOWMAN}"), "\N{SNOWMAN}"),
    "field-id-spaces": Case("id:  1 \ndata: a\n\n", messages("a", last_id=" 1 "), " 1 "),
    # what is a field, and what only looks like one
    "field-parsing": Case(
        "data:\0\ndata:  2\rData:lost\ndata\0:lost\ndata:3\r\ndata :lost\nda-ta:lost\ndata\rdata:4\n\n",
        messages("\0\n 2\n3\n\n4"),
    ),
    "field-unknown": Case("data:a\n data:lost\ndata\ndatax:lost\njust text\ndata:b\n\n", messages("a\n\nb")),
    "field-case": Case("DATA: lost\nID: 1\ndata: a\n\n", messages("a")),
    "leading-space": Case("data:\ta\ndata: b\ndata:  c\ndata:d \n\n", messages("\ta\nb\n c\nd ")),
    # the reconnection time
    "field-retry": Case("retry:03000\ndata:a\n\n", messages("a"), retry=3000),
    "field-retry-bogus": Case("retry:3000\nretry:1000x\nretry: -5\nretry:1e3\ndata:a\n\n", messages("a"), retry=3000),
    "field-retry-empty": Case("retry:700\nretry\nretry:\ndata:a\n\n", messages("a"), retry=700),
    "field-retry-not-ascii": Case("retry: \N{ARABIC-INDIC DIGIT FIVE}\ndata:a\n\n", messages("a")),
    "field-retry-huge": Case("retry:" + "9" * 5000 + "\ndata:a\n\n", messages("a")),
    "field-retry-alone": Case("retry:50\n\n", retry=50),
    # line ends
    "newlines": Case("data:a\r\ndata\ndata:b\r\n\r\n", messages("a\n\nb")),
    "newlines-cr": Case("data:a\rdata:b\r\rdata:c\r\r", messages("a\nb", "c")),
    "newlines-mixed": Case("data:a\n\r\ndata:b\r\n\ndata:c\r\n\rdata:d\r\r\n", messages("a", "b", "c", "d")),
    "newlines-others": Case("data:a\x0b\x0c\x1c\x85\u2028b\n\n", messages("a\x0b\x0c\x1c\x85\u2028b")),
    # characters
    "null-character": Case("data:\0\n\n\n\ndata:a\0b\n\n", messages("\0", "a\0b")),
    "utf-8": Case("data:ok\N{LATIN SMALL LETTER E WITH ACUTE}\U0001f40d\n\n", messages("ok\xe9\U0001f40d")),
    "utf-8-broken": Case(b"data:a\xffb\xe2\x98\n\n", messages("a\ufffdb\ufffd")),
    "utf-8-broken-name": Case(b"dat\xff: lost\ndata: a\n\n", messages("a")),
}


def dispatched(events: list[Event]) -> list[tuple[str, str, str]]:
    return [(event.event, event.data, event.id or "") for event in events]


def check(case: Case, parts: list[bytes]) -> None:
    interpreter = Interpreter()
    events = [event for part in parts for event in interpreter.feed(part)]

    assert dispatched(events) == case.events
    assert interpreter.last_event_id == case.last_id
    assert interpreter.retry == case.retry


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_format(case: Case) -> None:
    check(case, [case.bytes])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_format_whatever_the_split(case: Case) -> None:
    body = case.bytes
    check(case, [body[at : at + 1] for at in range(len(body))])
    for at in range(min(len(body), 150)):
        check(case, [body[:at], body[at:]])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_format_is_the_same_with_ids_of_ours(case: Case) -> None:
    body = case.bytes
    for at in range(min(len(body), 150) + 1):
        framer = EventFramer(1 << 20)
        blocks = [block for part in (body[:at], body[at:]) for block in framer.feed(part)]
        assert not any(isinstance(block, Piece) for block in blocks)
        named = b"".join(
            with_id(without_ids(block), b"s.%d" % number)
            for number, block in enumerate(blocks, 1)
            if isinstance(block, bytes)
        )
        # A mark within the stream opens a line; in front of it here, it would be taken for the one that is stripped.
        interpreter = Interpreter()
        events = interpreter.feed(BOM.encode() + named)

        assert [(event.event, event.data) for event in events] == [event[:2] for event in case.events]
        assert interpreter.last_event_id == (f"s.{len(blocks)}" if blocks else "")
        assert all((event.id or "").startswith("s.") for event in events)


@given(st.binary(max_size=60) | st.text("data:i \r\n\0", max_size=60).map(str.encode), st.integers(0, 60))
def test_any_split_gives_the_same_events(body: bytes, cut: int) -> None:
    whole, split = Interpreter(), Interpreter()

    assert whole.feed(body) == split.feed(body[:cut]) + split.feed(body[cut:])
    assert (whole.last_event_id, whole.retry) == (split.last_event_id, split.retry)


def test_a_reconnect_keeps_the_id_and_drops_the_torn_block() -> None:
    interpreter = Interpreter()
    interpreter.feed(b"id: 1\ndata: a\n\nid: 2\ndata: torn")
    interpreter.reconnect()

    assert interpreter.last_event_id == "1"
    assert dispatched(interpreter.feed(BOM.encode() + b"data: b\n\n")) == [("message", "b", "1")]


def test_an_interpreter_can_begin_with_an_id() -> None:
    assert dispatched(Interpreter("7").feed(b"data: a\n\n")) == [("message", "a", "7")]


@pytest.mark.parametrize(
    ("block", "event"),
    [
        (b"data: a\ndata: b\nid: 1\n", Event("message", "a\nb", "1", None, True)),
        (b"event: e\r\nretry: 5\r\n", Event("e", "", None, 5, False)),
        (b"data\n", Event("message", "", None, None, True)),
        (b"id\n", Event("message", "", "", None, False)),
        (b": ping\n", Event("message", "", None, None, False)),
        (b"", Event("message", "", None, None, False)),
    ],
)
def test_parse_reads_one_block(block: bytes, event: Event) -> None:
    assert parse(block) == event
