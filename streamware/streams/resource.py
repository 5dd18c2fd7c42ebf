"""The stream's own URL, ``{path}?_stream={stream}``: read it as SSE, poll it as JSON, stop it by DELETE.

It is the path that started the stream plus one parameter, so every rule by path holds for it too. A stream that is
unknown, another owner's, or was started on another path is answered alike: 404.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import parse_qs

import msgspec

from ..exceptions import StoreUnavailable
from ..stores.base import Log, Tombstone
from ..types import Message, RawHeaders, Scope
from ..wire import headers, sse
from ..wire.answer import answer_messages
from ..wire.cursor import Cursor, is_stream_id, parse_cursor
from ..wire.denial import Denial, no_content
from .answer import Answer, Follow, Gone, NoContent
from .asked import is_event_stream
from .call import Call
from .options import MAX_WAIT
from .reader import Reader
from .response import EVENT_STREAM, STREAM_PARAMETER, VARY, later_start, stream_location


class PolledEvent(msgspec.Struct):
    """One event as a poll tells it. ``id`` is its cursor; broken UTF-8 in ``data`` becomes U+FFFD."""

    id: str
    event: str
    data: str


class Poll(msgspec.Struct):
    """The body of a poll's answer. Ask again behind ``cursor`` while ``outcome`` is null."""

    events: list[PolledEvent]
    cursor: str
    outcome: str | None


PARAMETER = STREAM_PARAMETER.encode() + b"="

#: A preflight is the app's own to answer; what else there may be, a stream has no use for.
METHODS = frozenset({"GET", "HEAD", "DELETE", "POST", "PUT", "PATCH"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to a stream's own URL. ``after``: the cursor given, by header or else by ``?after=``; None if absent or
    not a cursor of this stream."""

    stream: str
    after: Cursor | None


def asked_for(scope: Scope) -> Asked | None:
    """What ``scope`` asks of a stream's own URL; None where it is not one."""
    query: bytes = scope.get("query_string", b"")
    if not query or PARAMETER not in query or scope["method"] not in METHODS:
        return None
    try:
        fields = parse_qs(query.decode("latin-1"), max_num_fields=1000)
    except ValueError:
        return None
    streams = fields.get(STREAM_PARAMETER, [])
    if len(streams) != 1 or not is_stream_id(streams[0]):
        return None
    stream = streams[0]
    after = parse_cursor(headers.combined(scope.get("headers") or (), b"last-event-id"))
    if after is None or after.stream != stream:
        given = fields.get("after", [""])[0]
        after = parse_cursor(f"{stream}.{given}" if given.isascii() and given.isdigit() else given)
    return Asked(stream, after if after is not None and after.stream == stream else None)


def wants_poll(scope: Scope) -> bool:
    """Whether JSON is asked for rather than an event stream."""
    accept = headers.combined(scope.get("headers") or (), b"accept")
    return headers.names_media_type(accept, b"application/json") and not headers.names_media_type(accept, EVENT_STREAM)


def wait_of(prefer: dict[str, str]) -> float:
    """The seconds that ``Prefer: wait`` asks for, within bounds; 0 where it asks for none."""
    given = prefer.get("wait", "")
    return min(float(given), MAX_WAIT) if given.isascii() and given.isdigit() else 0.0


async def serve(call: Call, asked: Asked) -> Reader | None:
    """Answer a request to a stream's own URL; with a reader to be run, where it is to be followed."""
    method = call.scope["method"]
    if method not in ("GET", "HEAD", "DELETE"):
        await call.deny(Denial(405, "Streams can be read and stopped", headers=((b"allow", b"DELETE, GET, HEAD"),)))
        return None
    try:
        found = await call.find(asked.stream, any_method=True)
        if found is None:
            await call.deny(Denial(404, "No such stream"))
        elif method == "DELETE":
            await stop(call, asked.stream)
        elif method == "HEAD" and not isinstance(found, Tombstone):
            end: Message = {"type": "http.response.body", "body": b"", "more_body": False}
            await call.answer([later_start(asked.stream, found.head), end])
        else:
            return await read(call, asked, found)
    except StoreUnavailable:
        await call.store_is_away()
    return None


async def stop(call: Call, stream: str) -> None:
    """DELETE: 204, and again 204."""
    call.inbound.drain()
    await call.options.store.stop(stream)
    call.options.observer.count("resume.stop")
    await call.answer(no_content(call.scope))


async def read(call: Call, asked: Asked, found: Log | Tombstone) -> Reader | None:
    """GET: as SSE, or as a poll. A poll is told of the outcome in its body, so it never gets 204."""
    after = asked.after.seq if asked.after is not None else 0
    log = None if isinstance(found, Tombstone) else found
    call.request = call.request.about(log)
    if wants_poll(call.scope):
        call.request = replace(call.request, eventsource_like=False)
        if log is not None and log.first - 1 <= after <= log.last:
            await poll(call, log, after)
            return None
    decision: Answer = Follow(0) if log is not None and after == log.last == 0 else await call.decide(after, found)
    if isinstance(decision, Follow) and log is not None and wants_poll(call.scope):
        await poll(call, log, decision.after)
        return None
    if not isinstance(decision, Follow | Gone):  # on its own URL nothing starts afresh
        decision = NoContent()
    return await call.give(decision, log, asked.stream)


async def poll(call: Call, log: Log, after: int) -> None:
    """Answer with what there is behind ``after``, waiting for the first of it as long as ``Prefer: wait`` says."""
    inbound, options = call.inbound, call.options
    wait = wait_of(headers.parse_prefer(headers.get_all(call.scope["headers"], b"prefer")))
    if call.worker.parting and options.store.shared:  # whoever asks again, asks another worker
        wait = 0.0
    place = log.reader(after)
    call.worker.polls.add(place)
    timer = None
    inbound.on_change = lambda: place.close() if inbound.gone else None
    inbound.drain()
    try:
        if wait > 0:
            timer = options.clock.call_later(wait, place.close)
        polled: list[PolledEvent] = []
        last, told = after, False
        while not polled and not told:  # an app's own pings, and blocks without data, end no wait
            if wait <= 0 and log.last <= last and log.outcome is None:
                break
            batch = await place.read()
            if batch is None:
                break
            behind = batch.last - len(batch.events)
            if batch.gap:
                await call.give(Gone("gap", log.outcome, behind + 1), log, log.stream)
                return
            last, told = batch.last, batch.outcome is not None
            polled = told_events(log, behind, batch.events)
        outcome = log.outcome if log.outcome is not None and last == log.last else None  # told with the last event only
        body = msgspec.json.encode(Poll(polled, f"{log.stream}.{last}", outcome))
        options.observer.count("resume.polled")
        await call.answer(json_answer(call, 200, body, [(b"content-location", stream_location(log.stream))]))
    finally:
        if timer is not None:
            timer.cancel()
        call.worker.polls.discard(place)
        place.close()


def told_events(log: Log, behind: int, logged: Iterable[bytes]) -> list[PolledEvent]:
    """Events as a poll tells them, the first of which is the next one ``behind``."""
    tell = polled_event if is_event_stream(log) else polled_line
    told = (tell(event, f"{log.stream}.{seq}") for seq, event in enumerate(logged, behind + 1))
    return [event for event in told if event is not None]


def polled_event(wire: bytes, cursor: str) -> PolledEvent | None:
    """One event of an event stream; None where an EventSource makes none of it: of a block without data, and of the
    unfinished rest of a body."""
    if wire[-2:] not in (b"\n\n", b"\r\r") and wire[-4:] != b"\r\n\r\n":
        return None
    event = sse.parse(wire)
    return PolledEvent(cursor, event.event, event.data) if event.has_data else None


def polled_line(wire: bytes, cursor: str) -> PolledEvent:
    """One line."""
    return PolledEvent(cursor, "", wire.decode("utf-8", "replace").rstrip("\r\n"))


def json_answer(call: Call, status: int, body: bytes, more: RawHeaders) -> list[Message]:
    """A JSON response of our own: never cached, and varying by all that it depends on."""
    head: RawHeaders = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), *more]
    return answer_messages(call.scope, status, headers.merge_vary(head, *VARY), body)


async def accepted(call: Call, stream: str) -> None:
    """202 to a start by ``Prefer: respond-async`` (RFC 7240 §4.1), once the response has proved to be a stream."""
    location = stream_location(stream)
    body = msgspec.json.encode({"stream": location.decode(), "cursor": f"{stream}.0"})
    for message in json_answer(call, 202, body, [(b"location", location), (b"preference-applied", b"respond-async")]):
        if not call.inbound.gone:
            await call.send(message)
