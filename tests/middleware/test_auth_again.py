"""Tokens of connections that are open: a newer one is shown, or the verifier is asked about the old one again."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from streamware import Expiry, Principal, TokenRefused, VerifierUnavailable
from streamware.streams import revalidation
from streamware.testing import FakeClock
from streamware.types import Receive, Scope, Send
from tests.middleware.auth_site import LIFE, Chat, Desk, Worker

MESSAGES = Expiry(leeway=0, jitter=0, messages=True)
ASKING = Expiry(leeway=0, jitter=0, revalidate=100)


def authenticate(token: str) -> str:
    return json.dumps({"type": "streamware.authenticate", "token": token})


async def asked_out(worker: Worker) -> None:
    """Wait until every question has been asked."""
    async with asyncio.timeout(5):
        while worker.auth._tenures._revalidation.tasks:
            await asyncio.wait(worker.auth._tenures._revalidation.tasks)


# -- re-authentication by the app


async def test_a_newer_token_moves_the_end_of_a_websocket() -> None:
    chat = Chat()
    async with Worker(chat) as worker:
        async with worker.websocket(worker.desk.issue()) as connection:
            await connection.start()
            await worker.clock.advance(LIFE - 10)
            before = chat.scope["user"]
            after = await worker.auth.reauthenticate(chat.scope, worker.desk.issue(scopes=("chat", "admin")))
            assert after is before
            assert before.scopes == {"chat", "admin"}
            assert set(chat.scope["auth"].scopes) == {"authenticated", "chat", "admin"}
            await worker.clock.advance(LIFE - 1)
            assert not connection.closed
            await worker.clock.advance(1)
            assert await connection.closing() == 3000
            await connection.finished()
        assert worker.counted("auth.reauthenticated", "good") == 1


async def test_a_newer_token_moves_the_end_of_a_stream() -> None:
    async with Worker(way="mute") as worker:
        connection, run = await worker.streaming("eventsource", worker.desk.issue(), "a")
        await worker.clock.advance(LIFE - 10)
        await worker.stack.reauthenticate(run.scope, worker.desk.issue())
        await worker.clock.advance(LIFE - 1)
        assert not connection.returned
        await worker.clock.advance(1)
        await connection.finished()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"subject": "bob"}, "subject"),
        ({"issuer": "https://other.example"}, "subject"),
        ({"scopes": ()}, "scope"),
        ({"life": -1.0}, "expired"),
        (None, "unknown"),
    ],
)
async def test_a_token_that_does_not_do_changes_nothing(given: dict[str, object] | None, reason: str) -> None:
    chat = Chat()
    async with Worker(chat, scopes=["chat"]) as worker, worker.websocket(worker.desk.issue()) as connection:
        await connection.start()
        token = "no token" if given is None else worker.desk.issue(**given)  # type: ignore[arg-type]  # see above
        token = token.replace(" ", "-")
        before = dict(vars(chat.scope["user"]))
        with pytest.raises(TokenRefused) as refused:
            await worker.auth.reauthenticate(chat.scope, token)
        assert refused.value.reason == reason
        assert vars(chat.scope["user"]) == before
        await worker.clock.advance(LIFE - 1)
        assert not connection.closed
        await worker.clock.advance(1)
        assert await connection.closing() == 3000
        await connection.finished()


async def test_a_verifier_that_is_away_changes_nothing() -> None:
    chat = Chat()
    async with Worker(chat) as worker, worker.websocket(worker.desk.issue()) as connection:
        await connection.start()
        newer = worker.desk.issue()
        worker.desk.away = True
        with pytest.raises(VerifierUnavailable):
            await worker.auth.reauthenticate(chat.scope, newer)
        await worker.clock.advance(LIFE)
        assert await connection.closing() == 3000
        await connection.finished()


async def test_a_scope_that_has_not_come_through_cannot_be_reauthenticated() -> None:
    other_chat = Chat()
    async with Worker() as worker, Worker(other_chat) as other:
        for where in (worker.auth, worker.stack):
            with pytest.raises(ValueError, match="has not come through"):
                await where.reauthenticate({"type": "websocket"}, "x")
        async with other.websocket(other.desk.issue()) as connection:
            await connection.start()
            with pytest.raises(ValueError, match="has not come through"):
                await worker.auth.reauthenticate(other_chat.scope, "x")
            connection.close()
            await connection.finished()


async def test_max_age_is_not_moved_by_a_newer_token() -> None:
    chat = Chat()
    aged = Expiry(max_age=LIFE + 5, leeway=0, jitter=0)
    async with Worker(chat, expiry=aged) as worker, worker.websocket(worker.desk.issue()) as connection:
        await connection.start()
        await worker.clock.advance(LIFE - 10)
        await worker.auth.reauthenticate(chat.scope, worker.desk.issue())
        await worker.clock.advance(14)
        assert not connection.closed
        await worker.clock.advance(1)
        assert await connection.closing() == 3000
        await connection.finished()


# -- in band


async def test_a_client_may_show_a_newer_token_in_band_and_the_app_sees_nothing_of_it() -> None:
    chat = Chat()
    async with Worker(chat, expiry=MESSAGES) as worker:
        async with worker.websocket(worker.desk.issue()) as connection:
            await connection.start()
            await worker.clock.advance(LIFE - 10)
            connection.send(authenticate(worker.desk.issue()))
            told = json.loads(await connection.receive())
            assert told == {"type": "streamware.authenticated", "expires_in": LIFE}
            connection.send("hello")
            assert await connection.receive() == "hello"
            await worker.clock.advance(LIFE - 1)
            assert not connection.closed
            connection.close()
            await connection.finished()
        assert [message.get("text") for message in chat.got] == ["hello", None]


@pytest.mark.parametrize("text", [
    "hello", "", "streamware.authenticate", '{"type": "streamware.authenticate"}',
    '{"type": "streamware.authenticate", "token": 3}', '{"type": "other", "token": "streamware.authenticate"}',
    '["streamware.authenticate"]', '{"type": "streamware.authenticate", "token": "' + "x" * 40_000 + '"}',
])  # fmt: skip
async def test_every_other_text_is_the_apps(text: str) -> None:
    async with Worker(Chat(), expiry=MESSAGES) as worker, worker.websocket(worker.desk.issue()) as connection:
        await connection.start()
        connection.send(text)
        assert await connection.receive() == text
        connection.close()
        await connection.finished()


async def test_unless_asked_for_a_token_in_band_is_the_apps() -> None:
    async with Worker(Chat()) as worker, worker.websocket(worker.desk.issue()) as connection:
        await connection.start()
        text = authenticate(worker.desk.issue())
        connection.send(text)
        assert await connection.receive() == text
        connection.close()
        await connection.finished()


@pytest.mark.parametrize("subject", ["bob", None])
async def test_a_refused_token_in_band_closes(subject: str | None) -> None:
    async with Worker(Chat(), expiry=MESSAGES) as worker, worker.websocket(worker.desk.issue()) as connection:
        await connection.start()
        connection.send(authenticate("forged" if subject is None else worker.desk.issue(subject)))
        assert await connection.closing() == 3000
        assert connection.close_reason == "token refused"
        await connection.finished()
        assert worker.counted("auth.ended", "auth-refused") == 1


async def test_while_the_verifier_is_away_the_client_is_told_to_try_again() -> None:
    async with Worker(Chat(), expiry=MESSAGES) as worker, worker.websocket(worker.desk.issue()) as connection:
        await connection.start()
        newer = worker.desk.issue()
        worker.desk.away = True
        connection.send(authenticate(newer))
        assert json.loads(await connection.receive()) == {"type": "streamware.not-authenticated", "retry_after": 5}
        connection.close()
        await connection.finished()


async def test_an_app_that_stops_to_listen_meanwhile_loses_no_token() -> None:
    go = asyncio.Event()

    class Slow(Desk):
        async def verify(self, token: str, *, client: str = "") -> Principal:
            if len(self.asked) == 1:
                await go.wait()
            return await super().verify(token, client=client)

    waits = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal waits
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            waiting = asyncio.ensure_future(receive())
            done, _ = await asyncio.wait([waiting], timeout=0.005)
            if not done:
                waits += 1
                waiting.cancel()
                await asyncio.wait([waiting])
            elif waiting.result()["type"] == "websocket.disconnect":
                return

    clock = FakeClock()
    worker = Worker(app, expiry=MESSAGES, clock=clock, desk=Slow(clock))
    async with worker, worker.websocket(worker.desk.issue()) as connection:
        await connection.start()
        connection.send(authenticate(worker.desk.issue()))
        for _ in range(20):  # dropped: one is looked at
            connection.send(authenticate("forged"))
        async with asyncio.timeout(5):
            while waits < 5:
                await asyncio.sleep(0)
        go.set()
        assert json.loads(await connection.receive())["type"] == "streamware.authenticated"
        assert connection.pending == 0
        connection.close()
        await connection.finished()


async def test_a_client_that_takes_messages_is_warned_in_band() -> None:
    expiry = Expiry(action="warn", leeway=0, jitter=0, messages=True)
    async with Worker(Chat(), expiry=expiry) as worker, worker.websocket(worker.desk.issue()) as connection:
        await connection.start()
        await worker.clock.advance(LIFE - 30)
        assert json.loads(await connection.receive()) == {"type": "streamware.auth-expiring", "seconds": 30}
        connection.send(authenticate(worker.desk.issue()))
        assert json.loads(await connection.receive())["expires_in"] == LIFE
        await worker.clock.advance(31)
        assert not connection.closed
        connection.close()
        await connection.finished()


# -- asking the verifier again


async def test_a_revoked_token_ends_its_connections() -> None:
    async with Worker(expiry=ASKING) as worker:
        token, other = worker.desk.issue("ann"), worker.desk.issue("bob")
        connection, _ = await worker.streaming("eventsource", token, "a")
        kept, _ = await worker.streaming("eventsource", other, "a")
        worker.desk.revoke(token)
        await worker.clock.advance(126)
        await asked_out(worker)
        await connection.finished()
        assert connection.controls == ["auth-expired"]
        assert not kept.returned
        assert worker.counted("auth.revalidated", "unknown") == 1
        assert worker.counted("auth.revalidated", "good") >= 1


async def test_a_token_that_lasts_longer_now_moves_the_end() -> None:
    async with Worker(expiry=ASKING) as worker:
        token = worker.desk.issue("ann", life=200)
        connection, _ = await worker.streaming("eventsource", token, "a")
        worker.desk._tokens[token]["expires_at"] += 1000
        await worker.clock.advance(900)
        assert not connection.returned


async def test_a_verifier_that_cannot_tell_changes_nothing_but_expiry_holds() -> None:
    async with Worker(expiry=ASKING) as worker:
        connection, _ = await worker.streaming("eventsource", worker.desk.issue("ann"), "a")
        worker.desk.away = True
        for number in range(4):
            await worker.clock.advance(126)
            await asked_out(worker)
            assert worker.counted("auth.revalidated", "unavailable") > number
        await worker.clock.advance(LIFE - 4 * 126 - 1)
        assert not connection.returned
        await worker.clock.advance(1)
        await connection.finished()


async def test_one_whose_scopes_do_not_do_any_more_is_ended() -> None:
    async with Worker(expiry=ASKING, scopes={"/chat": ["chat"]}) as worker:
        token = worker.desk.issue("ann")
        connection, _ = await worker.streaming("eventsource", token, "a")
        worker.desk._tokens[token]["scopes"] = ()
        await worker.clock.advance(126)
        await connection.finished()
        assert worker.counted("auth.revalidated", "scope") == 1


async def test_connections_by_the_same_token_are_asked_about_once() -> None:
    async with Worker(expiry=ASKING) as worker:
        token = worker.desk.issue("ann")
        streams = [await worker.streaming("eventsource", token, "a") for _ in range(20)]
        asked = len(worker.desk.asked)
        for held in worker.auth._tenures._of.values():
            for tenure in held:
                worker.auth._tenures._revalidation.ask(tenure)
        await asked_out(worker)
        assert len(streams) == 20
        assert len(worker.desk.asked) == asked + 1


async def test_questions_are_bounded_in_number_and_in_rate() -> None:
    under_way = most = 0
    clock_times: list[float] = []

    class Slow(Desk):
        async def verify(self, token: str, *, client: str = "") -> Principal:
            nonlocal under_way, most
            if worker.auth._tenures._revalidation.tasks:
                clock_times.append(time.monotonic())
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(0.001)
                under_way -= 1
            return await super().verify(token, client=client)

    clock = FakeClock()
    async with Worker(way="lone", expiry=ASKING, clock=clock, desk=Slow(clock)) as worker:
        for number in range(60):
            await worker.streaming("eventsource", worker.desk.issue(f"user {number}"), "a")
        tenures = [tenure for held in worker.auth._tenures._of.values() for tenure in held]
        for tenure in tenures:
            worker.auth._tenures._revalidation.ask(tenure)
        await asked_out(worker)
        assert len(clock_times) == 60
        assert most <= revalidation.AT_ONCE
        assert clock_times[-1] - clock_times[0] >= (60 - revalidation.AT_ONCE) / revalidation.A_SECOND * 0.9


async def test_a_verifier_of_somebodys_own_that_breaks_or_hangs_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(revalidation, "ASK_WAIT", 0.01)

    class Odd(Desk):
        how = "hang"

        async def verify(self, token: str, *, client: str = "") -> Principal:
            if not self.asked:
                return await super().verify(token, client=client)
            if self.how == "hang":
                await asyncio.sleep(10)
            raise RuntimeError(f"secret {token}")

    clock = FakeClock()
    desk = Odd(clock)
    async with Worker(expiry=ASKING, clock=clock, desk=desk) as worker:
        connection, _ = await worker.streaming("eventsource", desk.issue("ann"), "a")
        (held,) = worker.auth._tenures._of.values()
        (tenure,) = held
        worker.auth._tenures._revalidation.ask(tenure)
        await asked_out(worker)
        assert not connection.returned
        assert worker.counted("auth.revalidated", "unavailable") == 1
    assert "token-0" not in caplog.text
