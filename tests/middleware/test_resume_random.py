"""Random cuts against a model: whatever happens between them, a client has at the end what it would have had uncut.

An app sends a random event stream, cut into messages at random bytes. Clients drop, stall, lose the bytes in flight and
come back, and are thrown out by newer ones. Each reads as a browser does (``wire.eventsource.Interpreter``, which
shares no code with the framer) and goes on from the last event ID that it has. The model is the same reading of the
bare bytes. The app must have run once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from streamware import HeartbeatMiddleware
from streamware.testing import SERVERS, FakeClock, settle
from streamware.types import ASGIApp, Receive, Scope, Send
from streamware.wire.eventsource import Interpreter
from tests.middleware.resume_site import EVENTSOURCE, READER, Site, SiteConnection, as_uvicorn, body, start, until

#: ``make test`` runs a few hundred, the same each time; where this is set, so many, and others each time.
EXAMPLES = int(os.environ.get("STREAMWARE_RANDOM_EXAMPLES", "0"))

pytestmark = pytest.mark.timeout(300)  # a failure takes its time until it is as small as it can be

run_many = settings(
    max_examples=EXAMPLES or 300,
    derandomize=not EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


# -- what the app sends

VALUES = st.text('ab:é€\N{GRINNING FACE}{" ', max_size=6).map(lambda text: text.encode()) | st.sampled_from(
    [b"", b"[DONE]", b"\xff\xfe", b"id: 7", b"x" * 300]
)
LINES = st.one_of(
    VALUES.map(lambda value: b"data: " + value),
    VALUES.map(lambda value: b"data:" + value),
    st.sampled_from([b"data", b"event: token", b"event", b":", b": inside", b"unknown: x", b"retry: 9", b"data:  two"]),
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """One event, as a rule with data, with line ends of one kind; now and then a ping, or an extra blank line."""
    end = draw(ENDS)
    lines = draw(st.lists(LINES, max_size=4))
    if draw(st.integers(0, 9)):
        lines.append(b"data: " + draw(VALUES))
    else:
        lines.insert(0, b": ping")
    return end.join([*lines, b"", b""]) + (end if not draw(st.integers(0, 9)) else b"")


@st.composite
def bodies(draw: st.DrawFn) -> list[bytes]:
    """The messages of one body."""
    first = b"data: first\n\n"  # so that there is a stream: one that has no event passes through
    whole = b"".join([b"\xef\xbb\xbf" * draw(st.booleans()), first, *draw(st.lists(blocks(), max_size=12))])
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=16)))
    return [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


# -- what happens meanwhile


@dataclass(frozen=True)
class Act:
    """One thing that happens. ``client``: to whom; ``amount``: how much of it, in tenths."""

    what: str
    client: int
    amount: int


ACTS = st.lists(
    st.builds(
        Act,
        st.sampled_from(
            ["send", "send", "send", "connect", "connect", "drop", "drop", "cancel", "stall", "unstall", "turn", "wait"]
        ),
        st.integers(0, 2),
        st.integers(0, 10),
    ),
    max_size=30,
)


class Client:
    """One client of the stream, over as many connections as it takes."""

    def __init__(self, site: Site, like: bool, server: str, *, gaps: bool = False) -> None:
        self.site = site
        self.gaps = gaps  # it may be told of gaps, which it keeps as events named "reset"
        self.headers = EVENTSOURCE if like else READER
        self.server = server
        self.browser = Interpreter()
        self.got: list[tuple[str, str]] = []
        self.ids: list[int] = []
        self.connection: SiteConnection | None = None
        self.over = False  # it was told that there is no more
        self._read = 0

    def begin(self, path: str = "/chat") -> None:
        cursor = self.browser.last_event_id or None
        self.browser.reconnect()
        self._read = 0
        self.connection = self.site.connect(path, headers=self.headers, cursor=cursor, server=self.server)

    def connect(self, url: str) -> None:
        """Come (back), unless it is there or done. Without an id yet it has only the stream's own URL."""
        if self.connection is None and not self.over:
            self.begin("/chat" if self.browser.last_event_id else url)

    def read(self, tenths: int = 10) -> None:
        """Take in the bytes that have arrived, or some of them."""
        connection = self.connection
        if connection is None:
            return
        arrived = connection.body
        upto = self._read + (len(arrived) - self._read) * tenths // 10
        for event in self.browser.feed(arrived[self._read : upto]):
            if self.gaps and event.event == "streamware.reset":
                self.got.append(("reset", ""))
                continue
            assert not event.event.startswith("streamware."), event
            if event.event == "error" and self.headers == READER and self.server == "daphne":
                continue  # where a server cannot cut, others than EventSources are told so that they were thrown out
            self.got.append((event.event, event.data))
            assert event.id is not None
            self.ids.append(int(event.id.rpartition(".")[2]))
        self._read = upto
        if connection.started and connection.status == 204:
            self.over = True
        if connection.returned:
            assert connection.exception is None or connection.was_cancelled
            assert not connection.started or connection.status in (200, 204), connection.status
            self.connection = None

    def drop(self, tenths: int, *, cancel: bool = False) -> None:
        """Leave, or be thrown out by the server, with the rest of the bytes in flight lost."""
        connection = self.connection
        if connection is None or not connection.started:
            return
        self.read(tenths)
        if cancel:
            connection.cancel()
        else:
            connection.drop()
        self.connection = None


async def act(site: Site, clients: Sequence[Client], messages: list[bytes], one: Act, url: str) -> None:
    client = clients[one.client % len(clients)]
    run = site.stage.runs[0]
    match one.what:
        case "send":
            for _ in range(1 + one.amount // 3):
                if messages:
                    run.begin(body(messages.pop(0)))
        case "connect":
            client.connect(url)
        case "drop":
            client.drop(one.amount)
        case "cancel":
            client.drop(one.amount, cancel=True)
        case "stall" if client.connection is not None:
            client.connection.stall()
        case "unstall" if client.connection is not None:
            client.connection.unstall()
        case "turn":
            await settle(one.amount)
        case "wait":
            await site.clock.advance(one.amount)
        case _:
            pass
    for other in clients:
        other.read()


async def finish(site: Site, clients: Sequence[Client], messages: list[bytes], url: str) -> None:
    """Send the rest, and let every client read on until it is told that there is no more."""
    run = site.stage.runs[0]
    for message in messages:
        run.begin(body(message))
    run.begin(body(b"", False))
    run.begin(None)
    for client in clients:
        if client.connection is not None:
            client.connection.unstall()
        for _ in range(40):
            await settle(8)
            client.read()
            if client.over:
                break
            client.connect(url)
        assert client.over, (client.connection, client.browser.last_event_id)
    await until(run.over.is_set)


@run_many
@given(
    bodies(),
    ACTS,
    st.lists(st.booleans(), min_size=1, max_size=3),
    st.sampled_from(sorted(SERVERS)),
    st.sampled_from([200, 2000, 256 * 1024]),
    st.sampled_from([1, 2, 16]),
    st.sampled_from(["plain", "straight", "heartbeats", "both"]),
)
@example([b"data: first\n\ndata: 2\n\ndata: 3\n\n"], [Act("drop", 0, 5)], [True], "uvicorn", 200, 16, "both")
async def test_every_client_gets_the_uncut_stream_and_the_app_runs_once(
    messages: list[bytes],
    acts: list[Act],
    likes: list[bool],
    server: str,
    window: int,
    max_readers: int,
    outside: str,
) -> None:
    expected = [(event.event, event.data) for event in Interpreter().feed(b"".join(messages))]
    left = list(messages)
    clock = FakeClock()

    def around(app: ASGIApp) -> ASGIApp:
        if outside in ("heartbeats", "both"):
            app = HeartbeatMiddleware(app, interval=1, clock=clock)
        return as_uvicorn(app) if outside in ("straight", "both") else app

    async with Site(window=window, max_readers=max_readers, linger=None, clock=clock, around=around) as site:
        clients = [Client(site, like, server) for like in likes]
        clients[0].begin()
        run = await site.run()
        run.begin(start())
        while left and not clients[0].connection.started:
            run.begin(body(left.pop(0)))
            await settle()
        assert clients[0].connection is not None
        await clients[0].connection.start()
        url = clients[0].connection.own_url
        for one in acts:
            await act(site, clients, left, one, url)
        await finish(site, clients, left, url)
        for client in clients:
            assert client.got == expected
            assert client.ids == sorted(set(client.ids))
        assert site.runs == 1
        assert site.counted("resume.gap", "gap") == 0


LARGE = 250  # max_event_bytes, of which some events are larger


@st.composite
def large_bodies(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """The data of a body's events, each another, and its messages."""
    sizes = draw(st.lists(st.sampled_from([1, 10, 200, 300, 900, 3000]), max_size=8))
    data = [b"first", *(b"%d %b" % (number, b"x" * size) for number, size in enumerate(sizes))]
    whole = b"".join(b"data: %b\n\n" % one for one in data)
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=16)))
    return data, [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


@run_many
@given(
    large_bodies(),
    ACTS,
    st.integers(1, 3),
    st.sampled_from(sorted(SERVERS)),
    st.sampled_from([400, 256 * 1024]),
    st.sampled_from([2, 16]),
    st.booleans(),
)
async def test_only_events_too_large_to_keep_are_ever_missed_and_never_in_silence(
    sent: tuple[list[bytes], list[bytes]],
    acts: list[Act],
    count: int,
    server: str,
    window: int,
    max_readers: int,
    straight: bool,
) -> None:
    data, messages = sent
    left = list(messages)
    async with Site(
        window=window,
        max_readers=max_readers,
        max_event_bytes=LARGE,
        linger=None,
        around=as_uvicorn if straight else None,
    ) as site:
        clients = [Client(site, True, server, gaps=True) for _ in range(count)]
        clients[0].begin()
        run = await site.run()
        run.begin(start())
        while left and not clients[0].connection.started:
            run.begin(body(left.pop(0)))
            await settle()
        assert clients[0].connection is not None
        await clients[0].connection.start()
        url = clients[0].connection.own_url
        for one in acts:
            await act(site, clients, left, one, url)
        await finish(site, clients, left, url)
        for client in clients:
            got = [one.encode() for name, one in client.got if name != "reset"]
            told = [*client.got, ("end", "")]
            place = 0
            for number, one in enumerate(data):
                if place < len(got) and got[place] == one:
                    place += 1
                    continue
                assert len(one) + 7 > LARGE, f"event {number} was lost"
                assert place == len(got) or ("reset", "") in between(told, got, place), f"event {number}: in silence"
            assert place == len(got), "an event came twice, torn, or out of order"
        assert site.runs == 1


def between(told: list[tuple[str, str]], got: list[bytes], place: int) -> list[tuple[str, str]]:
    """What a client was told between its events number ``place - 1`` and ``place``."""
    places = [number for number, (name, _) in enumerate(told) if name != "reset"]
    return told[places[place - 1] + 1 if place else 0 : places[place]]


@run_many
@given(bodies(), ACTS, st.sampled_from(sorted(SERVERS)))
async def test_a_client_that_lives_by_polling_gets_the_same(
    messages: list[bytes], acts: list[Act], server: str
) -> None:
    expected = [(event.event, event.data) for event in Interpreter().feed(b"".join(messages))]
    left = list(messages)
    async with Site(linger=None) as site:
        first = site.connect(headers={"accept": "*/*", "prefer": "respond-async"}, server=server)
        run = await site.run()
        run.begin(start())
        while left and not first.started:
            run.begin(body(left.pop(0)))
            await settle()
        await first.finished()
        got: list[tuple[str, str]] = []
        cursor, outcome = "", None
        for one in [*acts, *[Act("rest", 0, 0)] * 40]:
            if one.what == "rest" and outcome is None:
                run.begin(body(left.pop(0)) if left else body(b"", False))
            elif one.what == "send" and left:
                run.begin(body(left.pop(0)))
            headers = {"accept": "application/json", "prefer": f"wait={one.amount}"}
            polled = site.connect(f"/chat{first.header('location')}&after={cursor}", headers=headers, server=server)
            await site.clock.advance(one.amount + 0.1)
            if one.what == "drop" and not polled.returned:
                polled.drop()
            await polled.finished()
            if not polled.started:
                continue
            if polled.status == 204:
                break
            answer = msgspec.json.decode(polled.body)
            got += [(event["event"], event["data"]) for event in answer["events"]]
            cursor, outcome = answer["cursor"], answer["outcome"]
            if outcome is not None:
                break
        assert outcome == "done"
        assert got == expected
        assert site.runs == 1


@run_many
@given(bodies(), ACTS, st.sampled_from(sorted(SERVERS)), st.sampled_from(["returns", "raises", "stops"]))
async def test_a_stream_that_breaks_off_gives_all_it_had_and_never_looks_whole(
    caplog: pytest.LogCaptureFixture, messages: list[bytes], acts: list[Act], server: str, end: str
) -> None:
    """The same, with an end that is none: each client has a prefix that is all of the finished events."""
    caplog.set_level(logging.CRITICAL, "streamware.resume")
    left = list(messages)
    async with Site(heeds=True, linger=None) as site:
        clients = [Client(site, False, server)]
        clients[0].begin()
        run = await site.run()
        run.begin(start())
        while left and not clients[0].connection.started:
            run.begin(body(left.pop(0)))
            await settle()
        assert clients[0].connection is not None
        await clients[0].connection.start()
        first = clients[0].connection
        for one in acts:
            if one.what not in ("cancel", "stall"):
                await act(site, clients, left, one, first.own_url)
        await settle()
        sent = b"".join(messages[: len(messages) - len(left)])
        expected = [(event.event, event.data) for event in Interpreter().feed(sent)]
        if end == "stops":
            stopped = site.connect(first.own_url, method="DELETE", headers={}, server=server)
            await stopped.finished()
            assert stopped.status == 204
        else:
            run.begin(None if end == "returns" else RuntimeError("boom"))
        await until(run.over.is_set)
        await settle()
        client = clients[0]
        whole = False
        for _ in range(40):
            connection = client.connection
            if connection is not None:
                await until(lambda: connection.returned)  # noqa: B023 - awaited in the same round
                arrived = connection.body
                if b"event: error" in arrived:
                    assert not first.server.coroutines or server == "daphne"
                    break
                whole = connection.complete and connection.status == 200
                if connection.status == 410:
                    assert end != "stops"
                    break
                client.read()
            if client.over or whole:
                break
            client.connect(first.own_url)
        else:
            pytest.fail("it comes back for ever")
        got = client.got
        if client.connection is not None and b"event: error" in client.connection.body:
            rest = client.connection.body[client._read :].partition(b"event: error")[0]
            got = got + [(event.event, event.data) for event in client.browser.feed(rest)]
        assert got == expected
        assert whole is False or end == "stops"
        assert site.runs == 1


KEYED = READER | {"idempotency-key": "k" * 22}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["ask", "ask", "ask", "stream", "answer", "own ids", "raise", "drop", "cancel", "turn", "wait"]
        ),
        st.integers(0, 5),
    ),
    max_size=20,
)


@run_many
@given(STEPS, st.sampled_from(sorted(SERVERS)))
async def test_however_requests_with_one_key_meet_no_two_of_them_run_at_once(
    caplog: pytest.LogCaptureFixture, steps: list[tuple[str, int]], server: str
) -> None:
    """The app answers some as streams and some otherwise, and raises; clients leave, or their calls are cancelled."""
    caplog.set_level(logging.CRITICAL, "streamware.resume")
    async with Site(linger=None) as site:
        streamed: list[int] = []
        asked: list[SiteConnection] = []
        answered: set[int] = set()

        async def open_runs() -> list[int]:
            await settle()
            runs = site.stage.runs
            undecided = [number for number in range(len(runs)) if number not in answered]
            assert len(undecided) + len(streamed) <= 1, "the app runs twice"
            return undecided

        for what, amount in [*steps, ("wait", 11), ("ask", 0), ("stream", 0)]:
            undecided = await open_runs()
            run = site.stage.runs[undecided[0]] if undecided else None
            if what == "ask":
                asked.append(site.connect(method="POST", headers=KEYED, server=server))
                await open_runs()
            elif what in ("drop", "cancel") and asked:
                connection = asked[amount % len(asked)]
                if what == "drop":
                    connection.drop()
                else:
                    connection.cancel()
                await settle()
                if run is not None and run.over.is_set():  # cancelled, or told, before it had answered
                    answered.add(undecided[0])
                elif run is not None and run.disconnected.is_set():
                    answered.add(undecided[0])
                    run.begin(None)
            elif what == "turn":
                await settle(amount)
            elif what == "wait":
                await site.clock.advance(amount)
            elif run is not None:
                answered.add(undecided[0])
                if what == "stream":
                    streamed.append(undecided[0])
                    run.begin(start())
                    run.begin(body(b"data: %d\n\n" % undecided[0], False))
                    run.begin(None)
                elif what == "answer":
                    run.begin(start([], 503))
                    run.begin(body(b"not now", False))
                    run.begin(None)
                elif what == "own ids":
                    run.begin(start())
                    run.begin(body(b"id: 1\ndata: own\n\n", False))
                    run.begin(None)
                elif what == "raise":
                    run.begin(RuntimeError("boom"))
        await open_runs()
        assert len(streamed) == 1
        for connection in asked:
            await until(lambda: connection.returned)  # noqa: B023 - awaited in the same round
            if connection.exception is None and connection.complete and connection.logged:
                assert connection.data == [str(streamed[0])]
            elif connection.started and connection.complete:
                assert connection.status in (409, 503) or connection.data == ["own"]
            if isinstance(connection.exception, RuntimeError):
                connection._task = None  # the app's own, before its response: as it would be bare
        last = site.connect(method="POST", headers=KEYED, server=server)
        await last.finished()
        assert last.data == [str(streamed[0])]


async def test_ten_drops_a_stream_on_a_busy_worker() -> None:
    """Many streams at once, each cut ten times, interleaved on one loop."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(scope["path"])
        await send(start())
        for number in range(40):
            await send(body(b"data: %b %d\n\n" % (scope["path"].encode(), number)))
            await settle(3)
        await send(body(b"", False))

    calls: list[str] = []
    async with Site(app) as site:
        clients = [Client(site, number % 2 == 0, sorted(SERVERS)[number % 4]) for number in range(60)]
        urls = [f"/{number}" for number in range(60)]
        for number, client in enumerate(clients):
            client.begin(urls[number])
        for turn in range(400):
            for number, client in enumerate(clients):
                client.read()
                if client.over:
                    continue
                if client.connection is None:
                    client.begin(urls[number])
                elif client.browser.last_event_id and (turn + number) % 17 == 0:
                    client.drop((turn * 7 + number) % 11)
            await settle(4)
            if all(client.over for client in clients):
                break
        for number, client in enumerate(clients):
            assert [data for _, data in client.got] == [f"/{number} {i}" for i in range(40)]
        assert sorted(calls) == sorted(urls)
