"""Disconnecting a user: every stream and WebSocket of theirs, in every worker, and nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from streamware import AnonymousPrincipal, ConfigurationError, Middleware, Principal, ResumeMiddleware, Stack
from streamware.exceptions import StoreUnavailable
from streamware.streams import disconnects
from streamware.streams.disconnects import TOPIC, Disconnects, Order
from streamware.testing import FakeClock, settle
from tests.middleware.auth_site import ISSUER, KINDS, Chat, Desk, Worker
from tests.middleware.drain_site import SharedStore
from tests.middleware.resume_site import start

ANN = Principal(issuer=ISSUER, subject="ann")


async def test_all_streams_and_sockets_of_a_user_end_and_nobody_elses() -> None:
    async with Worker() as worker, Worker(Chat(), clock=worker.clock, desk=worker.desk) as sockets:
        mine = [await worker.streaming(kind, worker.desk.issue("ann"), "a") for kind in KINDS]
        others = [
            await worker.streaming("eventsource", worker.desk.issue("bob"), "a"),
            await worker.streaming("eventsource", worker.desk.issue("ann", issuer="https://other.example"), "a"),
        ]
        async with sockets.websocket(worker.desk.issue("ann")) as socket:
            await socket.start()
            await worker.auth.disconnect(ANN)
            await sockets.auth.disconnect(ANN)
            assert await socket.closing() == 3003
            assert socket.close_reason == "disconnected"
            await socket.finished()
        await settle()
        await mine[2][1].put(None)
        for connection, _ in mine:
            await connection.finished()
        assert mine[0][0].controls == ["disconnected"]
        assert '"reason":"disconnected","cursor":' in mine[0][0]._all_events()[-1].data
        assert not mine[1][0].complete
        assert '"type":"streamware.disconnected"' in mine[2][0].data[-1]
        assert not any(connection.returned for connection, _ in others)
        assert worker.counted("auth.ended", "disconnected") == 3


async def test_it_is_heard_in_every_worker_that_shares_the_board() -> None:
    clock = FakeClock()
    desk, store = Desk(clock), SharedStore(clock=clock)
    async with (
        Worker(clock=clock, desk=desk, store=store, board=store) as here,
        Worker(clock=clock, desk=desk, store=store, board=store) as there,
        Worker(clock=clock, desk=desk) as apart,
    ):
        streams = [await worker.streaming("eventsource", desk.issue("ann"), "a") for worker in (here, there, apart)]
        await here.auth.disconnect(ANN)
        await settle()
        assert [connection.returned for connection, _ in streams] == [True, True, False]


async def test_without_a_lifespan_the_first_stream_begins_to_listen() -> None:
    clock = FakeClock()
    desk, store = Desk(clock), SharedStore(clock=clock)
    worker = Worker(clock=clock, desk=desk, store=store, board=store)
    async with Worker(clock=clock, desk=desk, store=store, board=store) as other:
        connection, run = await worker.streaming("eventsource", desk.issue("ann"), "a")
        await other.auth.disconnect(ANN)
        await connection.finished()
        assert connection.controls == ["disconnected"]
        await run.end()
        for hook in worker.hooks:
            await hook.aclose()


async def test_only_connections_by_tokens_from_before_may_be_meant() -> None:
    async with Worker() as worker:
        old, _ = await worker.streaming("eventsource", worker.desk.issue("ann"), "a")
        await worker.clock.advance(10)
        moment = worker.desk.wall()
        await worker.clock.advance(10)
        new, _ = await worker.streaming("eventsource", worker.desk.issue("ann"), "a")
        await worker.auth.disconnect(ANN, issued_before=moment)
        await settle()
        assert old.returned
        assert not new.returned


@pytest.mark.parametrize("claims", [{}, {"iat": "soon"}, {"iat": True}, {"iat": None}])
async def test_a_token_that_does_not_say_when_it_was_issued_is_from_before(claims: dict[str, object]) -> None:
    async with Worker() as worker:
        token = worker.desk.issue("ann")
        worker.desk._tokens[token]["claims"] = claims
        connection, _ = await worker.streaming("eventsource", token, "a")
        await worker.auth.disconnect(ANN, issued_before=0.0)
        await settle()
        assert connection.returned


async def test_a_stream_that_begins_after_the_order_that_its_request_preceded_is_ended_too() -> None:
    async with Worker() as worker:
        waiting = worker.connect(worker.desk.issue("ann"), headers=KINDS["unlogged"])
        run = await worker.stage.run(1)
        await worker.auth.disconnect(ANN)
        later = worker.connect(worker.desk.issue("ann"), headers=KINDS["unlogged"])
        later_run = await worker.stage.run(2)
        await run.stream()
        await later_run.stream()
        await settle()
        await run.put(None)
        await waiting.finished()
        assert "streamware.disconnected" in waiting.data[-1]
        assert not later.returned


async def test_a_plain_request_of_a_user_who_is_disconnected_is_answered() -> None:
    async with Worker() as worker:
        connection = worker.connect(worker.desk.issue("ann"), headers=KINDS["unlogged"])
        run = await worker.stage.run()
        await worker.auth.disconnect(ANN)
        await run.put(start([(b"content-length", b"0")]), {"type": "http.response.body"}, None)
        await connection.finished()
        assert connection.complete


async def test_what_the_user_has_started_goes_on_unless_it_is_to_be_stopped() -> None:
    for stop in (False, True):
        clock = FakeClock()
        desk, store = Desk(clock), SharedStore(clock=clock)
        async with (
            Worker(clock=clock, desk=desk, store=store, board=store, heeds=True) as here,
            Worker(clock=clock, desk=desk, store=store, board=store, heeds=True) as there,
        ):
            connection, run = await there.streaming("eventsource", desk.issue("ann"), "a")
            _, other = await there.streaming("eventsource", desk.issue("bob"), "a")
            gone, lingering = await there.streaming("script", desk.issue("ann"), "a")
            gone.drop()
            await gone.finished()
            await here.auth.disconnect(ANN, stop=stop)
            await settle()
            await connection.finished()
            log = await store.open(connection.stream)
            assert log is not None
            assert (log.outcome == "stopped") is stop
            assert run.cancelled is stop
            assert lingering.cancelled is stop
            assert not other.over.is_set()
            assert there.counted("auth.stopped") == (2 if stop else 0)


async def test_nobody_cannot_be_disconnected() -> None:
    async with Worker() as worker:
        with pytest.raises(ValueError, match="nobody is named"):
            await worker.auth.disconnect(AnonymousPrincipal())


@pytest.mark.parametrize("moment", [float("nan"), float("inf"), float("-inf")])
async def test_a_moment_that_is_none_disconnects_nobody(moment: float) -> None:
    async with Worker() as worker:
        connection, _ = await worker.streaming("eventsource", worker.desk.issue("ann"), "a")
        with pytest.raises(ValueError, match="issued_before"):
            await worker.auth.disconnect(ANN, issued_before=moment)
        await settle()
        assert not connection.returned


async def test_tokens_without_a_subject_are_their_clients_and_never_one_user() -> None:
    async with Worker() as worker:
        tokens = [worker.desk.issue("") for _ in range(3)]
        for token, client, digest in zip(tokens, ("one", "two", ""), (b"", b"", b"3"), strict=True):
            worker.desk._tokens[token] |= {"client_id": client, "token_hash": digest}
        streams = [await worker.streaming("script", token, "a") for token in tokens]
        for token in tokens[1:]:
            other = worker.connect(token, cursor=streams[0][0].at(1))
            await other.finished()
            assert other.status == 410
        await worker.auth.disconnect(Principal(issuer=ISSUER, client_id="one"))
        await settle()
        assert [connection.returned for connection, _ in streams] == [True, False, False]


async def test_a_stack_passes_it_on_and_says_where_it_cannot() -> None:
    async with Worker() as worker:
        connection, _ = await worker.streaming("eventsource", worker.desk.issue("ann"), "a")
        await worker.stack.disconnect(ANN)
        await settle()
        assert connection.returned
    with pytest.raises(ConfigurationError, match="no AuthMiddleware"):
        await Stack(Chat(), middleware=[Middleware(ResumeMiddleware)]).disconnect(ANN)


# -- the board


class Board:
    """One that may be away. Tells this process's listeners as the protocol asks for."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.away = False
        self.starts = 0
        self._hear: Callable[[bytes], None] | None = None

    async def start(self) -> None:
        self.starts += 1
        if self.away:
            raise StoreUnavailable("away")

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        raise AssertionError("nothing is left there")

    async def take(self, key: str) -> bytes | None:
        raise AssertionError("nothing is taken from there")

    async def announce(self, topic: str, message: bytes) -> None:
        assert topic == TOPIC
        self.heard.append(message)
        self.tell(message)
        if self.away:
            raise StoreUnavailable("away")

    def listen(self, topic: str, hear: Callable[[bytes], None]) -> Callable[[], None]:
        self._hear = hear
        return self._end

    def _end(self) -> None:
        self._hear = None

    def tell(self, message: bytes) -> None:
        if self._hear is not None:
            self._hear(message)


async def test_a_board_that_is_away_is_told_to_the_caller_and_here_everything_is_ended() -> None:
    for before in (False, True):  # it was away from the beginning, or has become so
        board = Board()
        board.away = before
        worker = Worker(board=board)
        connection, run = await worker.streaming("eventsource", worker.desk.issue("ann"), "a")
        board.away = True
        with pytest.raises(StoreUnavailable):
            await worker.auth.disconnect(ANN)
        await connection.finished()
        assert connection.controls == ["disconnected"]
        assert worker.counted("auth.ended", "disconnected") == 1
        await run.end()
        for hook in worker.hooks:
            await hook.aclose()


async def test_what_is_announced_tells_nothing_of_the_user() -> None:
    board = Board()
    async with Worker(board=board) as worker:
        await worker.auth.disconnect(Principal(issuer="i" * 10_000, subject="\ud800 secret"))
    (message,) = board.heard
    assert len(message) < 200
    assert b"secret" not in message


@pytest.mark.parametrize("message", [b"", b"\xff", b"[]", b'{"who":3}', b'{"who":"x","before":"y"}', b"{}" * 1000])
async def test_what_is_no_order_is_ignored(message: bytes) -> None:
    board = Board()
    async with Worker(board=board) as worker:
        connection, _ = await worker.streaming("eventsource", worker.desk.issue("ann"), "a")
        board.tell(message)
        await settle()
        assert not connection.returned


async def test_once_closed_it_listens_no_more() -> None:
    board = Board()
    async with Worker(board=board):
        assert board._hear is not None
    assert board._hear is None


def test_what_is_remembered_is_bounded_and_what_was_forgotten_counts_against_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(disconnects, "REMEMBERED", 3)
    orders: list[Order] = []
    told = Disconnects(None, orders.append)
    for number in range(10):
        told._obey(Order(f"user {number}"))
        told._obey(Order("again and again"))
    assert len(told._latest) == 3
    assert told.epoch == len(orders) == 20
    assert told.concerns("anybody", 0, None)  # since then orders have been forgotten
    assert not told.concerns("anybody", 16, None)
    assert told.concerns("user 9", 18, None)
    assert not told.concerns("user 9", 19, None)
    assert told.concerns("again and again", 19, None)


def test_of_two_orders_for_one_user_the_wider_counts() -> None:
    told = Disconnects(None, lambda _: None)
    told._obey(Order("ann", before=50.0))
    told._obey(Order("ann", before=10.0))
    assert told.concerns("ann", 0, 20.0)
    told._obey(Order("ann"))
    told._obey(Order("ann", before=10.0))
    assert told.concerns("ann", 0, 100.0)
    assert not told.concerns("ann", told.epoch, 0.0)


async def test_a_thousand_connections_of_one_user_end_in_slices_and_others_get_a_turn() -> None:
    async with Worker(way="lone") as worker:
        token = worker.desk.issue("ann")
        streams = [await worker.streaming("eventsource", token, "a") for _ in range(300)]
        turns = 0

        async def others() -> None:
            nonlocal turns
            while not all(connection.returned for connection, _ in streams):
                turns += 1
                await asyncio.sleep(0)

        await worker.auth.disconnect(ANN)
        await asyncio.wait_for(others(), 10)
        assert turns >= 300 // 64
