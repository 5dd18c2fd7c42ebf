"""``wrap``: which middlewares it puts around an app, with which options; and that the whole does its job."""

from __future__ import annotations

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from streamware import (
    AuthMiddleware,
    ClientIPMiddleware,
    CompressionMiddleware,
    ConfigurationError,
    CountingObserver,
    DrainMiddleware,
    HeartbeatMiddleware,
    IPAllowlistMiddleware,
    MemoryStore,
    OriginMiddleware,
    RedisStore,
    ResumeMiddleware,
    Stack,
    wrap,
)
from streamware.testing import Connection, settle
from streamware.types import Message, Receive, Scope, Send
from tests.auth.verifying import SecretVerifier


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """An event stream of three events; it waits before the last one until it is let on."""
    if scope["type"] != "http":
        raise NotImplementedError(f"no {scope['type']} here")
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in (1, 2, 3):
        if number == 3:
            await scope["state"]["go on"].wait()
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def described(stack: Stack) -> dict[object, dict[str, object]]:
    return {entry.cls: dict(entry.kwargs) for entry in stack.middleware}


def test_it_is_a_stack_of_drain_heartbeats_and_resume():
    stack = wrap(app)

    assert isinstance(stack, Stack)
    assert stack.app is app
    assert list(described(stack)) == [DrainMiddleware, HeartbeatMiddleware, ResumeMiddleware]


def test_without_an_interval_there_are_no_heartbeats():
    assert list(described(wrap(app, interval=None))) == [DrainMiddleware, ResumeMiddleware]


def test_without_a_grace_there_is_no_drain():
    assert list(described(wrap(app, grace=None))) == [HeartbeatMiddleware, ResumeMiddleware]


async def test_with_a_verifier_nobody_gets_in_without_a_token():
    store = MemoryStore()
    stack = wrap(app, verifier=SecretVerifier(), store=store)

    assert list(described(stack)) == [AuthMiddleware, DrainMiddleware, HeartbeatMiddleware, ResumeMiddleware]
    assert described(stack)[AuthMiddleware]["board"] is store
    async with Connection(stack) as refused:
        await refused.finished()
    assert refused.status == 401


def test_whatever_has_its_option_stands_in_its_place():
    stack = wrap(
        app,
        trusted_proxies=["127.0.0.1"],
        allow=["10.0.0.0/8"],
        deny=["10.66.0.0/16"],
        origins=["https://chat.example"],
        verifier=SecretVerifier(),
        compress=True,
    )

    options = described(stack)
    assert list(options) == [
        ClientIPMiddleware,
        IPAllowlistMiddleware,
        OriginMiddleware,
        AuthMiddleware,
        CompressionMiddleware,
        DrainMiddleware,
        HeartbeatMiddleware,
        ResumeMiddleware,
    ]
    assert options[ClientIPMiddleware]["trusted_proxies"] == ["127.0.0.1"]
    assert options[IPAllowlistMiddleware]["allow"] == ["10.0.0.0/8"]
    assert options[IPAllowlistMiddleware]["deny"] == ["10.66.0.0/16"]
    assert options[OriginMiddleware]["allow"] == ["https://chat.example"]
    assert options[OriginMiddleware]["cors"] is True


def test_the_url_of_a_redis_is_a_store():
    stack = wrap(app, store="redis://127.0.0.1:6379/0")

    assert isinstance(described(stack)[ResumeMiddleware]["store"], RedisStore)


def test_options_reach_the_middlewares_that_they_are_for():
    store, observer = MemoryStore(), CountingObserver()
    stack = wrap(
        app,
        store=store,
        always=["/v1/*"],
        interval=3,
        linger=5,
        grace=1,
        deadline=2,
        readiness="/ready",
        paths=iter(["/v1/*"]),
        exclude=iter(["/v1/files"]),
        observer=observer,
    )

    common = {"paths": ("/v1/*",), "exclude": ("/v1/files",), "observer": observer}
    assert described(stack) == {
        DrainMiddleware: {"grace": 1, "deadline": 2, "readiness": "/ready", **common},
        HeartbeatMiddleware: {"interval": 3, **common},
        ResumeMiddleware: {"store": store, "always": ["/v1/*"], "linger": 5, **common},
    }


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"interval": 0}, "HeartbeatMiddleware: interval must be"),
        ({"grace": -1}, "DrainMiddleware: grace must be"),
        ({"deadline": 3}, "DrainMiddleware: deadline must be at least grace"),
        ({"linger": -1}, "ResumeMiddleware: linger must be"),
        ({"paths": "/v1/*"}, "wrap: paths must be a list"),
        ({"exclude": 3}, "wrap: exclude must be a list"),
        ({"always": "/v1/*"}, "ResumeMiddleware: always must be a list"),
        ({"store": "streams.db"}, "wrap: store must be a store, as SQLiteStore"),
        ({"store": "http://localhost"}, "RedisStore: url must be"),
        ({"trusted_proxies": "127.0.0.1"}, "ClientIPMiddleware: trusted_proxies must be"),
        ({"allow": ["10.0.0.1/8"]}, "IPAllowlistMiddleware: allow"),
        ({"deny": []}, "IPAllowlistMiddleware: deny"),
        ({"origins": ["chat.example"]}, "OriginMiddleware: allow"),
        ({"compress": "gzip"}, "wrap: compress must be"),
    ],
)
def test_a_wrong_option_is_refused_by_the_middleware_that_has_it(options: dict[str, object], text: str):
    with pytest.raises(ConfigurationError, match=text):
        wrap(app, **options)


async def test_a_wrapped_stream_goes_on_where_its_connection_was_cut():
    stack = wrap(app)
    state = {"go on": asyncio.Event()}
    stream = [(b"accept", b"text/event-stream")]

    async with Connection(stack, path="/feed", headers=stream, scope={"state": state}) as first:
        await first.start()
        events = await first.events(2)
        first.drop()
        await first.finished()
    state["go on"].set()
    again = [*stream, (b"last-event-id", str(events[1].id).encode())]
    async with Connection(stack, path="/feed", headers=again, scope={"state": {}}) as second:
        await second.start()
        rest = await second.events(1)
        await second.finished()

    assert [event.data for event in (*events, *rest)] == ["1", "2", "3"]
    assert second.complete


async def test_at_the_end_of_the_lifespan_nothing_runs_any_more():
    before = asyncio.all_tasks()
    stack = wrap(app, grace=0, deadline=0.05)
    messages: asyncio.Queue[Message] = asyncio.Queue()
    answers: asyncio.Queue[Message] = asyncio.Queue()
    lifespan = asyncio.ensure_future(stack({"type": "lifespan", "state": {}}, messages.get, answers.put))
    messages.put_nowait({"type": "lifespan.startup"})
    assert (await answers.get())["type"] == "lifespan.startup.complete"
    state = {"go on": asyncio.Event()}

    async with Connection(
        stack, path="/feed", headers=[(b"accept", b"text/event-stream")], scope={"state": state}
    ) as connection:
        await connection.start()
        await connection.events(2)
        messages.put_nowait({"type": "lifespan.shutdown"})
        assert (await asyncio.wait_for(answers.get(), 10))["type"] == "lifespan.shutdown.complete"
        await connection.finished()
        assert not connection.complete
    await lifespan
    await settle()

    assert asyncio.all_tasks() == before


async def test_a_wrapped_app_that_is_mounted_in_a_wrapped_one_is_to_be_wrapped_once() -> None:
    outer = wrap(Starlette(routes=[Mount("/inner", wrap(app))]))

    async with Connection(outer, path="/inner/page") as asked:
        with pytest.raises(ConfigurationError, match="take the wrapping off"):
            await asked.finished()
