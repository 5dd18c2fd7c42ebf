"""The lifespan of a ``Stack``, message by message: whatever the app does with its own, the server gets clear answers,
our hooks run in order and once, and nothing is left behind."""

from __future__ import annotations

import asyncio
import logging

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from streamware import Middleware, Stack
from streamware.middleware.base import BaseMiddleware
from streamware.types import AnyASGIApp, ASGIApp, Message, Receive, Scope, Send

COMPLETE = {"type": "lifespan.startup.complete"}
ENDED = {"type": "lifespan.shutdown.complete"}


class Holding(BaseMiddleware):
    """Holds resources: says when its hooks are called, and fails or hangs in those that it is told to."""

    rank = 70

    def __init__(self, app: ASGIApp, *, said: list[str], name: str = "", failing: str = "", hanging: str = "") -> None:
        super().__init__(app, paths=[f"/{name}"])
        self.said, self.name, self.failing, self.hanging = said, name, failing, hanging

    async def say(self, what: str) -> None:
        self.said.append(f"{self.name}{what}")
        if what in self.failing:
            raise OSError(f"{what} went wrong")
        if what in self.hanging:
            await asyncio.Event().wait()

    async def startup(self) -> None:
        await self.say("startup")

    async def shutdown(self) -> None:
        await self.say("shutdown")

    async def aclose(self) -> None:
        await self.say("aclose")


class Server:
    """A server's part of the lifespan of one app."""

    def __init__(self, app: ASGIApp) -> None:
        self.state: dict[str, object] = {}
        self.scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.answers: asyncio.Queue[Message] = asyncio.Queue()
        self.before = asyncio.all_tasks()
        self.task = asyncio.ensure_future(app(self.scope, self.messages.get, self.answers.put))

    async def tell(self, kind: str, **more: object) -> Message:
        """Send a message and wait for the answer."""
        self.messages.put_nowait({"type": kind, **more})
        return await asyncio.wait_for(self.answers.get(), 10)

    async def whole(self) -> tuple[Message, Message]:
        """The answers to a start-up and a shutdown."""
        return await self.tell("lifespan.startup"), await self.tell("lifespan.shutdown")

    async def left(self) -> set[asyncio.Task[object]]:
        """The tasks that are left once the call has returned or been cancelled."""
        await asyncio.wait({self.task}, timeout=10)
        assert self.task.done()
        return asyncio.all_tasks() - self.before - {self.task}


def app_saying(said: list[str], raising: str = "", hanging: str = "") -> AnyASGIApp:
    """An app that does as it should, but for the step at which it raises or hangs."""

    async def step(what: str) -> None:
        said.append(what)
        if what == raising:
            raise RuntimeError(f"{what} went wrong")
        if what == hanging:
            await asyncio.Event().wait()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await step("called")
        assert (await receive())["type"] == "lifespan.startup"
        await step("up")
        await send(COMPLETE)
        await step("serving")
        assert (await receive())["type"] == "lifespan.shutdown"
        await step("down")
        await send(ENDED)
        await step("after")

    return app


def holding(said: list[str], **options: str) -> Middleware:
    return Middleware(Holding, said=said, **options)


# ---- the order ------------------------------------------------------------------------------------------------------
async def test_hooks_run_once_and_around_the_apps_own():
    said: list[str] = []
    server = Server(Stack(app_saying(said), middleware=[holding(said, name="a "), holding(said, name="b ")]))

    assert await server.whole() == (COMPLETE, ENDED)
    assert await server.left() == set()
    assert said == [
        *["a startup", "b startup", "called", "up", "serving"],
        *["a shutdown", "b shutdown", "down", "after", "b aclose", "a aclose"],
    ]


async def test_the_app_gets_the_servers_own_state_object():
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["state"])
        scope["state"]["pool"] = "open"
        await app_saying([])(scope, receive, send)

    server = Server(Stack(app, middleware=[holding([])]))
    await server.whole()

    assert seen[0] is server.state
    assert server.state == {"pool": "open"}


async def test_starlettes_lifespan_and_its_state_work_as_without_a_stack():
    said: list[str] = []

    class Lifespan:
        def __init__(self, app: Starlette) -> None: ...

        async def __aenter__(self) -> dict[str, str]:
            said.append("up")
            return {"pool": "open"}

        async def __aexit__(self, *_: object) -> None:
            said.append("down")

    server = Server(Stack(Starlette(lifespan=Lifespan), middleware=[holding(said)]))

    assert await server.whole() == (COMPLETE, ENDED)
    assert said == ["startup", "up", "shutdown", "down", "aclose"]
    assert server.state == {"pool": "open"}


async def test_one_stack_can_be_started_again_and_again():
    said: list[str] = []
    stack = Stack(app_saying(said), middleware=[holding(said)])

    for _ in range(2):
        assert await Server(stack).whole() == (COMPLETE, ENDED)

    assert said.count("startup") == said.count("aclose") == 2


async def test_a_stack_in_a_stack_opens_each_middleware_once():
    said: list[str] = []
    inner = Stack(app_saying(said), middleware=[holding(said, name="inner ")])
    server = Server(Stack(inner, middleware=[holding(said, name="outer ")]))

    assert await server.whole() == (COMPLETE, ENDED)
    assert await server.left() == set()
    assert [what for what in said if what.startswith(("inner", "outer"))] == [
        *["outer startup", "inner startup", "outer shutdown", "inner shutdown", "inner aclose", "outer aclose"],
    ]


async def test_messages_unknown_here_pass_both_ways():
    got: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(COMPLETE)
        got.append(await receive())
        await send({"type": "lifespan.reloaded"})
        got.append(await receive())
        await send(ENDED)

    server = Server(Stack(app))
    await server.tell("lifespan.startup")

    assert await server.tell("lifespan.reload", config=1) == {"type": "lifespan.reloaded"}
    assert await server.tell("lifespan.shutdown") == ENDED
    assert got[0] == {"type": "lifespan.reload", "config": 1}


# ---- apps without a lifespan ----------------------------------------------------------------------------------------
async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("Django can only handle ASGI/HTTP connections, not lifespan.")


async def ignoring(scope: Scope, receive: Receive, send: Send) -> None:
    return None


async def asserting(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise AssertionError


async def failing_late(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    raise LookupError("no database at lifespan")


async def giving_up(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()


@pytest.mark.parametrize(
    ("app", "level", "text"),
    [
        (refusing, logging.INFO, "not lifespan"),
        (ignoring, logging.INFO, "it returned"),
        (asserting, logging.WARNING, "raised AssertionError"),
        (failing_late, logging.WARNING, "raised LookupError"),
        (giving_up, logging.WARNING, "returned before it answered"),
    ],
)
async def test_an_app_that_ends_before_it_answers_is_served_without_a_lifespan(
    app: ASGIApp, level: int, text: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG, "streamware")
    said: list[str] = []
    server = Server(Stack(app, middleware=[holding(said)]))

    assert await server.whole() == (COMPLETE, ENDED)
    assert await server.left() == set()
    assert server.task.exception() is None
    assert said == ["startup", "shutdown", "aclose"]
    assert [(record.levelno, text in record.getMessage()) for record in caplog.records] == [(level, True)]


class BrokenMiddleware(Exception):
    pass


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    raise BrokenMiddleware


async def test_an_exception_of_the_apps_own_reaches_the_server_as_it_would_without_a_stack():
    said: list[str] = []
    server = Server(Stack(broken, middleware=[holding(said)]))

    server.messages.put_nowait({"type": "lifespan.startup"})

    assert await server.left() == set()
    assert isinstance(server.task.exception(), BrokenMiddleware)
    assert said == ["startup", "shutdown", "aclose"]


async def test_without_a_lifespan_the_hooks_stay_open_until_the_server_shuts_down():
    said: list[str] = []
    server = Server(Stack(refusing, middleware=[holding(said)]))

    await server.tell("lifespan.startup")
    assert said == ["startup"]
    await server.tell("lifespan.shutdown")
    assert said == ["startup", "shutdown", "aclose"]


# ---- failures -------------------------------------------------------------------------------------------------------
async def test_the_apps_own_failure_to_start_reaches_the_server_as_it_is():
    said: list[str] = []
    failed = {"type": "lifespan.startup.failed", "message": "no database", "theirs": 1}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(failed)
        raise LookupError("no database")

    server = Server(Stack(app, middleware=[holding(said)]))

    assert await server.tell("lifespan.startup") is failed
    assert await server.left() == set()
    assert isinstance(server.task.exception(), LookupError)
    assert said == ["startup", "shutdown", "aclose"]


async def test_an_app_that_fails_to_start_and_returns_is_not_asked_to_shut_down():
    said: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed"})

    server = Server(Stack(app, middleware=[holding(said)]))

    assert await server.tell("lifespan.startup") == {"type": "lifespan.startup.failed"}
    assert await server.left() == set()
    assert server.task.exception() is None


async def test_a_hook_that_fails_at_startup_fails_the_start_and_closes_what_was_opened():
    said: list[str] = []
    server = Server(
        Stack(app_saying(said), middleware=[holding(said, name="a "), holding(said, name="b ", failing="startup")])
    )

    answer = await server.tell("lifespan.startup")

    assert answer == {
        "type": "lifespan.startup.failed",
        "message": "Holding: startup failed: startup went wrong",
    }
    assert await server.left() == set()
    assert said == ["a startup", "b startup", "a shutdown", "b aclose", "a aclose"]


async def test_an_app_that_raises_while_served_is_reported_at_once_and_at_shutdown(caplog: pytest.LogCaptureFixture):
    said: list[str] = []
    server = Server(Stack(app_saying(said, raising="serving"), middleware=[holding(said)]))

    assert await server.tell("lifespan.startup") == COMPLETE
    await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records] == [
        "The app's lifespan raised while the app was being served."
    ]

    answer = await server.tell("lifespan.shutdown")
    assert answer["type"] == "lifespan.shutdown.failed"
    assert "RuntimeError('serving went wrong')" in answer["message"]
    assert await server.left() == set()
    assert said[-2:] == ["shutdown", "aclose"]


async def test_an_app_that_raises_in_its_shutdown_is_answered_for():
    said: list[str] = []
    server = Server(Stack(app_saying(said, raising="down"), middleware=[holding(said)]))
    await server.tell("lifespan.startup")

    answer = await server.tell("lifespan.shutdown")

    assert answer["type"] == "lifespan.shutdown.failed"
    assert "down went wrong" in answer["message"]
    assert said[-3:] == ["shutdown", "down", "aclose"]


async def test_an_app_that_returns_after_its_start_has_shut_down():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(COMPLETE)

    assert await Server(Stack(app)).whole() == (COMPLETE, ENDED)


async def test_the_apps_own_failure_to_shut_down_reaches_the_server_as_it_is():
    failed = {"type": "lifespan.shutdown.failed", "message": "pool is busy"}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(COMPLETE)
        await receive()
        await send(failed)

    server = Server(Stack(app, middleware=[holding([], failing="aclose")]))
    await server.tell("lifespan.startup")

    assert await server.tell("lifespan.shutdown") is failed


@pytest.mark.parametrize("hook", ["shutdown", "aclose"])
async def test_a_hook_that_fails_at_the_end_keeps_nothing_else_from_ending(hook: str):
    said: list[str] = []
    layers = [holding(said, name="a ", failing=hook), holding(said, name="b ")]
    server = Server(Stack(app_saying(said), middleware=layers))
    await server.tell("lifespan.startup")

    answer = await server.tell("lifespan.shutdown")

    assert answer == {"type": "lifespan.shutdown.failed", "message": f"Holding: {hook} failed: {hook} went wrong"}
    assert said[-6:] == ["a shutdown", "b shutdown", "down", "after", "b aclose", "a aclose"]


@pytest.mark.parametrize("hook", ["startup", "shutdown", "aclose"])
async def test_a_hook_that_hangs_is_given_up(hook: str):
    said: list[str] = []
    server = Server(Stack(app_saying(said), middleware=[holding(said, hanging=hook)], hook_timeout=0.02))

    answer = await server.tell("lifespan.startup")
    if hook != "startup":
        assert answer == COMPLETE
        answer = await server.tell("lifespan.shutdown")

    assert answer["type"].endswith(".failed")
    assert answer["message"] == f"Holding: {hook} took longer than 0.02 seconds"
    assert await server.left() == set()
    assert said[-1] == "aclose"


# ---- cancellation ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("place", ["before", "startup", "called", "up", "serving", "shutdown", "down", "aclose"])
async def test_cancelled_anywhere_it_leaves_no_task_and_closes_what_was_opened(place: str):
    said: list[str] = []
    hook = place if place in ("startup", "shutdown", "aclose") else ""
    stack = Stack(app_saying(said, hanging=place), middleware=[holding(said, hanging=hook)], hook_timeout=0.05)
    server = Server(stack)
    if place != "before":
        server.messages.put_nowait({"type": "lifespan.startup"})
        server.messages.put_nowait({"type": "lifespan.shutdown"}) if place in ("shutdown", "down", "aclose") else None
        async with asyncio.timeout(5):
            while place not in said:
                await asyncio.sleep(0)
    await asyncio.sleep(0)

    server.task.cancel()

    assert await server.left() == set()
    assert server.task.cancelled()
    assert said.count("startup") == said.count("aclose")
    assert said.count("shutdown") == (1 if "startup" in said and place != "startup" else 0)


async def test_an_app_that_will_not_be_cancelled_is_not_waited_for_for_ever():
    release = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(COMPLETE)
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    server = Server(Stack(app, hook_timeout=0.02))
    await server.tell("lifespan.startup")

    server.task.cancel()
    stubborn = await server.left()

    assert server.task.cancelled()
    assert len(stubborn) == 1
    release.set()
    await asyncio.wait(stubborn)


async def test_a_server_that_refuses_an_answer_gets_its_own_exception_back():
    said: list[str] = []

    async def send(message: Message) -> None:
        raise ConnectionError("gone")

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    before = asyncio.all_tasks()
    with pytest.raises(ConnectionError, match="gone"):
        await Stack(app_saying(said), middleware=[holding(said)])({"type": "lifespan"}, receive, send)

    assert asyncio.all_tasks() == before
    assert said[-2:] == ["shutdown", "aclose"]


# ---- other drivers --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_starlettes_test_client_runs_a_stack_on_either_loop(backend: str):
    said: list[str] = []

    class Lifespan:
        def __init__(self, app: Starlette) -> None: ...

        async def __aenter__(self) -> None:
            said.append("up")

        async def __aexit__(self, *_: object) -> None:
            said.append("down")

    with TestClient(Stack(Starlette(lifespan=Lifespan)), backend=backend) as client:
        assert client.get("/").status_code == 404

    assert said == ["up", "down"]


def test_foreign_middleware_sees_the_lifespan():
    seen: list[str] = []

    def watching(app: AnyASGIApp) -> AnyASGIApp:
        async def watch(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope["type"])
            await app(scope, receive, send)

        return watch

    with TestClient(Stack(Starlette(), middleware=[Middleware(watching)])):
        pass

    assert seen == ["lifespan"]


def test_a_foreign_middleware_with_methods_of_the_same_names_keeps_them():
    class Theirs:
        def __init__(self, app: AnyASGIApp) -> None:
            self.app = app

        def startup(self, mine: int) -> None:
            raise AssertionError("not called")

        shutdown = aclose = startup

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app(scope, receive, send)

    with TestClient(Stack(Starlette(), middleware=[Middleware(Theirs)])):
        pass
