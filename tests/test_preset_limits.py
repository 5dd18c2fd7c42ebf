"""``wrap`` with limits: what is refused and what is not charged, and where it is counted: in the Redis of the logs, by
all workers together, unless something else is said."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from streamware import (
    AuthMiddleware,
    CompressionMiddleware,
    ConfigurationError,
    CountingObserver,
    DrainMiddleware,
    HeartbeatMiddleware,
    MemoryLimitStorage,
    MemoryStore,
    RedisLimitStorage,
    RedisStore,
    ResumeMiddleware,
    SQLiteStore,
    Stack,
    Store,
    ThrottleMiddleware,
    TokenBudgetMiddleware,
    preset,
    wrap,
)
from streamware.observe import OnceLog
from streamware.testing import Connection, settle
from streamware.types import Message, Receive, Scope, Send
from tests.auth.verifying import SecretVerifier, token_for
from tests.redis_limits import ledger_of, patient, settled, storage_of
from tests.redis_server import PATIENCE, RedisServer
from tests.secrets import secret

SSE = {"accept": "text/event-stream"}
PROMPT, ANSWER = 11, 60


class Chat:
    """Streams two events, the second with a usage report, and waits between them where it is ``held``."""

    def __init__(self) -> None:
        self.runs = 0
        self.let_on = asyncio.Event()
        self.let_on.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"no {scope['type']} here")
        self.runs += 1
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        usage = {"prompt_tokens": PROMPT, "completion_tokens": ANSWER}
        for reported in (None, usage):
            if reported is not None:
                await self.let_on.wait()
            chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": "word"}}], "usage": reported}
            event = b"data: %b\n\n" % json.dumps(chunk).encode()
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
async def chat() -> Chat:
    return Chat()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer(requirepass=secret("a-password-of-these-tests")) as server:
        yield server


@pytest.fixture
def redis_url(redis: RedisServer) -> str:
    redis.run("FLUSHALL")
    return redis.url


@pytest.fixture(autouse=True)
def advice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was advised in another test is advised anew."""
    monkeypatch.setattr(preset, "_advice", OnceLog(preset.logger))


def described(stack: Stack) -> dict[object, dict[str, Any]]:
    return {entry.cls: dict(entry.kwargs) for entry in stack.middleware}


@asynccontextmanager
async def served(stack: Stack) -> AsyncIterator[Stack]:
    """``stack`` within its lifespan."""
    patient(stack)
    messages: asyncio.Queue[Message] = asyncio.Queue()
    answers: asyncio.Queue[Message] = asyncio.Queue()
    lifespan = asyncio.ensure_future(stack({"type": "lifespan", "state": {}}, messages.get, answers.put))

    async def comes(phase: str) -> None:
        messages.put_nowait({"type": f"lifespan.{phase}"})
        assert (await asyncio.wait_for(answers.get(), PATIENCE))["type"] == f"lifespan.{phase}.complete"

    await comes("startup")
    try:
        yield stack
    finally:
        await settle()
        await comes("shutdown")
        await lifespan


def ask(stack: Stack, cursor: str | None = None, **more: Any) -> Connection:
    headers = SSE | more.pop("headers", {}) | ({} if cursor is None else {"last-event-id": cursor})
    return Connection(stack, headers=headers, **more)


async def asked(stack: Stack, cursor: str | None = None, **more: Any) -> Connection:
    async with ask(stack, cursor, **more) as connection:
        await connection.finished()
    return connection


def told(connection: Connection) -> list[str]:
    """What the response says of limits."""
    return sorted(value.decode() for name, value in connection.headers if name == b"ratelimit")


# -- what is refused


async def test_limits_refuse_the_third_start_and_charge_no_resume(chat: Chat):
    async with served(wrap(chat, limits="2/minute", grace=None)) as stack:
        first = await asked(stack)
        cursor = first.pending_events[0].id
        for _ in range(3):
            resumed = await asked(stack, cursor)
            assert (resumed.status, len(resumed.pending_events)) == (200, 1)
        second, third = await asked(stack), await asked(stack)

        assert (second.status, third.status) == (200, 429)
        assert int(third.header("retry-after") or 0) > 0
        assert chat.runs == 2


async def test_reads_have_limits_of_their_own(chat: Chat):
    async with served(wrap(chat, reads="1/minute", grace=None)) as stack:
        cursor = (await asked(stack)).pending_events[0].id

        assert [(await asked(stack, cursor)).status for _ in range(2)] == [200, 429]
        assert (await asked(stack)).status == 200


async def test_what_runs_at_once_is_streams_with_or_without_their_connections(chat: Chat):
    chat.let_on.clear()
    async with served(wrap(chat, concurrent=1, grace=None)) as stack:
        async with ask(stack) as first:
            (event,) = await first.events(1)
            first.drop()
            await first.finished()
        assert (await asked(stack)).status == 429
        chat.let_on.set()
        assert (await asked(stack, event.id)).complete
        assert (await asked(stack)).status == 200
        assert chat.runs == 2


async def test_a_budget_is_charged_what_the_stream_reports_once_however_often_it_is_read(chat: Chat):
    async with served(wrap(chat, tokens="1000/minute", grace=None)) as stack:
        first = await asked(stack)
        await settled(stack)
        cursor = first.pending_events[0].id
        for _ in range(3):
            assert (await asked(stack, cursor)).complete
        second = await asked(stack)

        assert first.header("ratelimit-policy") == '"1000/minute";q=1000;qu="tokens";w=60'
        assert first.header("ratelimit") == '"1000/minute";r=488;t=60'
        assert (second.header("ratelimit") or "").startswith(f'"1000/minute";r={1000 - PROMPT - ANSWER - 512};')


async def test_a_request_that_does_not_fit_into_its_budget_is_refused(chat: Chat):
    body = json.dumps({"messages": [{"role": "user", "content": "x" * 40}], "max_tokens": 600}).encode()
    more: dict[str, Any] = {"method": "POST", "body": body, "headers": {"content-type": "application/json"}}
    chat.let_on.clear()
    async with served(wrap(chat, tokens="1000/minute", grace=None)) as stack, ask(stack, **more) as first:
        await first.events(1)
        assert (await asked(stack, **more)).status == 429
        chat.let_on.set()
        await first.finished()
        await settled(stack)
        assert (await asked(stack, **more)).status == 200
        assert chat.runs == 2


async def test_budgets_by_path_leave_other_streams_alone(chat: Chat):
    async with served(wrap(chat, tokens={"/v1/*": "1000/minute"}, grace=None)) as stack:
        assert (await asked(stack, path="/feed")).header("ratelimit") is None
        assert (await asked(stack, path="/v1/chat")).header("ratelimit") is not None


async def test_each_principal_has_limits_of_its_own_and_its_plans(chat: Chat):
    def plan(scope: Scope) -> str:
        return "pro" if scope["user"].subject == "ada" else "default"

    verifier = SecretVerifier()
    stack = wrap(chat, verifier=verifier, limits={"default": "1/minute", "pro": "2/minute"}, plan=plan, grace=None)
    statuses: dict[str, list[int]] = {}
    async with served(stack):
        for subject in ("ada", "bob"):
            headers = {"authorization": f"Bearer {secret(token_for(subject))}"}
            statuses[subject] = [(await asked(stack, headers=headers)).status for _ in range(3)]

    assert statuses == {"ada": [200, 200, 429], "bob": [200, 429, 429]}


# -- what the stack is made of


def test_they_stand_in_their_places_with_their_options(chat: Chat):
    observer = CountingObserver()
    stack = wrap(
        chat,
        verifier=SecretVerifier(),
        limits="100/minute",
        reads="200/minute",
        concurrent=3,
        tokens={"default": "20000/minute"},
        plan=str,
        storage=(storage := MemoryLimitStorage()),
        compress=True,
        paths=["/v1/*"],
        exclude=["/v1/files"],
        observer=observer,
    )

    options = described(stack)
    assert list(options) == [
        AuthMiddleware,
        ThrottleMiddleware,
        CompressionMiddleware,
        DrainMiddleware,
        HeartbeatMiddleware,
        ResumeMiddleware,
        TokenBudgetMiddleware,
    ]
    shared = {"plan": str, "storage": storage, "paths": ("/v1/*",), "exclude": ("/v1/files",), "observer": observer}
    throttle = {"limits": "100/minute", "reads": "200/minute", "concurrent": 3}
    assert options[ThrottleMiddleware] == throttle | shared
    assert options[TokenBudgetMiddleware] == {"limits": {"default": "20000/minute"}} | shared


@pytest.mark.parametrize("option", [{"limits": "1/second"}, {"reads": "1/second"}, {"concurrent": 1}])
def test_any_of_the_throttles_options_brings_the_throttle_alone(chat: Chat, option: dict[str, Any]):
    middlewares = list(described(wrap(chat, **option)))

    assert ThrottleMiddleware in middlewares
    assert TokenBudgetMiddleware not in middlewares


def test_without_limits_nothing_counts_whatever_the_store(chat: Chat):
    stack = wrap(chat, store="redis://127.0.0.1:1", plan=str, storage="redis://127.0.0.1:1")

    assert list(described(stack)) == [DrainMiddleware, HeartbeatMiddleware, ResumeMiddleware]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"limits": "much"}, "ThrottleMiddleware: limits must be"),
        ({"limits": []}, "ThrottleMiddleware: limits must be"),
        ({"reads": 3}, "ThrottleMiddleware: reads must be"),
        ({"concurrent": 0}, "ThrottleMiddleware: concurrent must be"),
        ({"limits": {"default": "1/second"}}, "ThrottleMiddleware: limits names plans, which want plan="),
        ({"tokens": 20000}, "TokenBudgetMiddleware: limits must be"),
        ({"tokens": {}}, "TokenBudgetMiddleware: limits must be"),
        ({"tokens": "1/second", "plan": "pro"}, "TokenBudgetMiddleware: plan must be"),
        ({"limits": "1/second", "storage": "limits.db"}, "RedisLimitStorage: url must be"),
        ({"limits": "1/second", "storage": 3}, "RedisLimitStorage: url must be"),
    ],
)
def test_a_wrong_option_is_refused_by_whoever_has_it(chat: Chat, options: dict[str, Any], text: str):
    with pytest.raises(ConfigurationError, match=text):
        wrap(chat, **options)


# -- where they are counted


async def test_workers_with_one_redis_for_their_logs_count_in_it_together(chat: Chat, redis_url: str):
    def worker() -> Stack:
        return wrap(chat, store=redis_url, limits="3/minute", tokens="1400/minute", grace=None)

    async with served(worker()) as one, served(worker()) as another:
        first = await asked(one)
        assert told(first) == ['"1400/minute";r=888;t=60', '"3/minute";r=2;t=60']
        await settled(one)
        left = 1400 - PROMPT - ANSWER
        second = await asked(another)
        assert ledger_of(one) is not ledger_of(another)
        assert [each.partition(";t=")[0] for each in told(second)] == [
            f'"1400/minute";r={left - 512}',
            '"3/minute";r=1',
        ]
        await settled(another)
        cursor = first.pending_events[0].id
        assert (await asked(another, cursor)).complete
        assert [(await asked(each)).status for each in (one, another, one)] == [200, 429, 429]
        assert chat.runs == 3


async def test_what_runs_at_one_worker_counts_at_the_other(chat: Chat, redis_url: str):
    chat.let_on.clear()

    def worker() -> Stack:
        return wrap(chat, store=redis_url, concurrent=1, grace=None)

    async with served(worker()) as one, served(worker()) as another:
        async with ask(one) as running:
            await running.events(1)
            assert (await asked(another)).status == 429
            chat.let_on.set()
            await running.finished()
        await settle()
        async with asyncio.timeout(PATIENCE):
            while (await asked(another)).status == 429:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("given", ["url", "store", "client"])
async def test_names_of_limits_begin_as_those_of_logs_and_one_connection_is_closed_at_the_end(
    chat: Chat, redis: RedisServer, redis_url: str, given: str
):
    prefix = "streamware:" if given == "url" else "chat:"
    store: Store | str = redis_url
    client = None
    if given == "store":
        store = RedisStore(redis_url, prefix=prefix)
    elif given == "client":
        client = redis.client()
        store = RedisStore(client, prefix=prefix)
    stack = wrap(chat, store=store, limits="9/minute", concurrent=3, tokens="1000/minute", grace=None)

    async with served(stack):
        await asked(stack)
        await settled(stack)
        connections = str(redis.run("CLIENT", "LIST"))
        assert connections.count("streamware-limits") == 1
        keys: Any = redis.run("KEYS", "*")
    if client is not None:
        client.close()

    assert keys
    assert all(key.startswith(prefix.encode()) for key in keys)
    assert any(key.startswith(f"{prefix}limits:".encode()) for key in keys)
    assert "a-password" not in f"{stack!r} {described(stack)[ResumeMiddleware]['store']!r} {storage_of(stack)!r}"
    async with asyncio.timeout(PATIENCE):
        while "streamware-limits" in str(redis.run("CLIENT", "LIST")):
            await asyncio.sleep(0.01)


async def test_a_storage_that_is_given_counts_in_the_place_of_the_stores_and_is_left_open(
    chat: Chat, redis: RedisServer, redis_url: str
):
    class Closing(MemoryLimitStorage):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

    storage = Closing()
    for expected in ([200, 200], [429, 429]):
        stack = wrap(chat, store=redis_url, limits="2/minute", storage=storage, grace=None)
        async with served(stack):
            assert [(await asked(stack)).status for _ in range(2)] == expected

    assert storage.closed == 0
    assert redis.run("KEYS", "streamware:limits:*") == []


async def test_the_url_of_another_redis_may_be_given_for_limits_alone(
    chat: Chat, redis: RedisServer, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store = SQLiteStore(tmp_path / "streams.db")
    stack = wrap(chat, store=store, limits="2/minute", tokens="1000/minute", storage=redis_url, grace=None)
    async with served(stack):
        await asked(stack)

    assert isinstance(storage_of(stack), RedisLimitStorage)
    assert len(redis.run("KEYS", "*")) >= 2  # type: ignore[arg-type]  # a list
    assert not [record for record in caplog.records if record.name == "streamware.preset"]


async def test_limits_of_each_worker_beside_logs_that_all_share_are_advised_against_once(
    chat: Chat, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    for number in (1, 2):
        stack = wrap(chat, store=SQLiteStore(tmp_path / f"{number}.db"), limits="2/minute", concurrent=1)
        assert storage_of(stack) is None

    (record,) = caplog.records
    assert (record.name, record.levelno) == ("streamware.preset", logging.WARNING)
    assert "SQLiteStore" in record.getMessage()
    assert "storage=" in record.getMessage()


@pytest.mark.parametrize("means_it", [True, False])
def test_no_advice_is_given_where_there_is_none(
    chat: Chat, tmp_path: Path, caplog: pytest.LogCaptureFixture, means_it: bool
):
    wrap(chat, store=SQLiteStore(tmp_path / "streams.db"))
    if means_it:
        wrap(chat, store=SQLiteStore(tmp_path / "s.db"), limits="2/minute", storage=MemoryLimitStorage())
    else:
        wrap(chat, store=MemoryStore(), limits="2/minute")

    assert caplog.records == []
