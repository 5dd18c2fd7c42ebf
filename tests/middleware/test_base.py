"""What every middleware inherits: path selection, the guard of the order, its part of the lifespan."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette

from streamware import ConfigurationError
from streamware.middleware.base import BaseMiddleware
from streamware.record import Record, record_of
from streamware.types import ASGIApp, Message, Receive, Scope, Send


class Seeing(BaseMiddleware):
    """Keeps the scopes that it was asked to handle."""

    rank = 60

    def __init__(self, app: ASGIApp, **options) -> None:
        super().__init__(app, **options)
        self.handled: list[Scope] = []

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.handled.append(scope)
        await self.app(scope, receive, send)


class AuthMiddleware(Seeing): ...


class ThrottleMiddleware(Seeing): ...


class HeartbeatMiddleware(Seeing): ...


class ResumeMiddleware(Seeing): ...


class App:
    """The innermost app: keeps the scopes that reach it."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)


async def receive_nothing() -> Message:
    raise AssertionError("not called")


async def send_nothing(message: Message) -> None:
    raise AssertionError("not called")


async def request(app: ASGIApp, path: str = "/", kind: str = "http", **scope: object) -> Scope:
    given: Scope = {"type": kind, "path": path, **scope}
    await app(given, receive_nothing, send_nothing)
    return given


# ---- selection ------------------------------------------------------------------------------------------------------
async def test_a_path_that_is_not_selected_passes_with_the_very_scope():
    app = App()
    middleware = Seeing(app, paths=["/v1/*"])

    given = await request(middleware, "/v2/chat")

    assert app.scopes[0] is given
    assert middleware.handled == []


async def test_a_scope_type_that_is_not_handled_passes_with_the_very_scope():
    app = App()
    middleware = Seeing(app)

    given = await request(middleware, kind="websocket")

    assert app.scopes[0] is given
    assert middleware.handled == []


async def test_excluded_paths_win_over_paths():
    middleware = Seeing(App(), paths=["/v1/*"], exclude=["/v1/files/*"])

    await request(middleware, "/v1/chat")
    await request(middleware, "/v1/files/7")

    assert [scope["path"] for scope in middleware.handled] == ["/v1/chat"]


async def test_paths_are_those_within_the_mount():
    middleware = Seeing(App(), paths=["/chat"])

    await request(middleware, "/api/chat", root_path="/api")
    await request(middleware, "/apichat", root_path="/api")

    assert [scope["path"] for scope in middleware.handled] == ["/api/chat"]


@pytest.mark.parametrize("option", ["paths", "exclude"])
@pytest.mark.parametrize("given", ["/v1/*", b"/v1/*", 3, ["v1/*"], [b"/v1"], [None]])
def test_patterns_that_would_be_misread_are_refused(option: str, given: object):
    with pytest.raises(ConfigurationError, match=f"Seeing: {option} must be a list of glob patterns that start with"):
        Seeing(App(), **{option: given})


# ---- the record and the guard ---------------------------------------------------------------------------------------
async def test_the_servers_scope_is_left_alone_and_copied_once():
    app = App()
    outer = HeartbeatMiddleware(ResumeMiddleware(app))

    given = await request(outer)

    assert given == {"type": "http", "path": "/"}
    assert outer.handled[0] is app.scopes[0]
    assert isinstance(record_of(app.scopes[0]), Record)


async def test_a_foreign_value_under_our_key_is_replaced_in_the_copy_only():
    app = App()

    given = await request(Seeing(app), streamware="theirs")

    assert given["streamware"] == "theirs"
    assert isinstance(record_of(app.scopes[0]), Record)


async def test_outside_a_stack_the_wrong_order_is_refused_at_the_first_request():
    with pytest.raises(ConfigurationError) as caught:
        await request(ResumeMiddleware(HeartbeatMiddleware(App())))

    assert "HeartbeatMiddleware must stand outside ResumeMiddleware" in str(caught.value)
    assert "add ResumeMiddleware before HeartbeatMiddleware" in str(caught.value)


async def test_added_to_starlette_in_the_natural_order_it_is_refused():
    starlette = Starlette()
    starlette.add_middleware(HeartbeatMiddleware)
    starlette.add_middleware(ResumeMiddleware)

    async def send(message: Message) -> None: ...  # Starlette's own answer to the error

    with pytest.raises(ConfigurationError, match="add_middleware"):
        await starlette({"type": "http", "path": "/", "method": "GET", "headers": []}, receive_nothing, send)


async def test_the_guard_looks_at_paths_that_both_select_only():
    app = App()

    await request(ResumeMiddleware(HeartbeatMiddleware(app, paths=["/b"]), paths=["/a"]), "/a")
    await request(ResumeMiddleware(HeartbeatMiddleware(app, paths=["/b"]), paths=["/a"]), "/b")

    assert len(app.scopes) == 2


async def test_an_app_that_is_called_twice_with_one_scope_is_no_wrong_order():
    app = App()
    inner = HeartbeatMiddleware(ResumeMiddleware(app))

    async def retrying(scope: Scope, receive: Receive, send: Send) -> None:
        await inner(scope, receive, send)
        await inner(scope, receive, send)

    await request(AuthMiddleware(retrying))

    assert len(app.scopes) == 2


async def test_one_that_has_a_choice_takes_the_place_where_it_stands():
    def by_address(app: ASGIApp) -> ThrottleMiddleware:
        throttle = ThrottleMiddleware(app)
        throttle.ranks = (35, throttle.rank)
        return throttle

    app = App()
    await request(by_address(AuthMiddleware(ThrottleMiddleware(app))))
    await request(AuthMiddleware(by_address(HeartbeatMiddleware(app))))
    with pytest.raises(ConfigurationError, match="AuthMiddleware must stand outside ThrottleMiddleware"):
        await request(ThrottleMiddleware(AuthMiddleware(app)))

    assert len(app.scopes) == 2


# ---- lifespan without a stack ---------------------------------------------------------------------------------------
class Holding(Seeing):
    """Holds resources: says when its hooks are called, and fails in the one that it is told to."""

    rank = 70

    def __init__(self, app: ASGIApp, *, said: list[str], failing: str = "") -> None:
        super().__init__(app)
        self.said, self.failing = said, failing

    def say(self, what: str) -> None:
        self.said.append(what)
        if what == self.failing:
            raise OSError(f"{what} went wrong")

    async def startup(self) -> None:
        self.say("startup")

    async def shutdown(self) -> None:
        self.say("shutdown")

    async def aclose(self) -> None:
        self.say("aclose")


class LifespanApp:
    """Starts and stops in the order of the messages; ``raising`` at one of its steps."""

    def __init__(self, said: list[str], raising: str = "") -> None:
        self.said, self.raising = said, raising

    def say(self, what: str) -> None:
        self.said.append(what)
        if what == self.raising:
            raise RuntimeError(what)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.say("app called")
        await receive()
        self.say("app up")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.say("app down")
        await send({"type": "lifespan.shutdown.complete"})


async def lifespan(app: ASGIApp) -> list[str]:
    """Drive ``app`` through a whole lifespan: what it sent."""
    messages = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive() -> Message:
        return {"type": next(messages)}

    async def send(message: Message) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan", "state": {}}, receive, send)
    return sent


async def test_alone_a_middleware_opens_before_the_app_and_closes_after_it():
    said: list[str] = []

    sent = await lifespan(Holding(LifespanApp(said), said=said))

    assert said == ["app called", "startup", "app up", "shutdown", "app down", "aclose"]
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_alone_a_middleware_that_fails_to_open_fails_the_startup():
    said: list[str] = []
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(OSError, match="startup went wrong"):
        await Holding(LifespanApp(said), said=said, failing="startup")({"type": "lifespan"}, receive, send)

    assert sent == [{"type": "lifespan.startup.failed", "message": "Holding: startup went wrong"}]
    assert said == ["app called", "startup", "aclose"]


async def test_alone_a_middleware_around_an_app_without_lifespan_stays_closed():
    said: list[str] = []

    with pytest.raises(RuntimeError):
        await lifespan(Holding(LifespanApp(said, raising="app called"), said=said))

    assert said == ["app called"]


async def test_alone_a_middleware_whose_shutdown_fails_lets_the_app_shut_down():
    said: list[str] = []

    sent = await lifespan(Holding(LifespanApp(said), said=said, failing="shutdown"))

    assert said[-3:] == ["shutdown", "app down", "aclose"]
    assert sent[-1] == "lifespan.shutdown.complete"


@pytest.mark.parametrize("step", ["app up", "app down"])
async def test_alone_a_middleware_closes_when_the_app_raises(step: str):
    said: list[str] = []

    with pytest.raises(RuntimeError, match=step):
        await lifespan(Holding(LifespanApp(said, raising=step), said=said))

    assert (said.count("shutdown"), said.count("aclose"), said[-1]) == (1, 1, "aclose")


async def test_in_a_stack_the_lifespan_passes_the_middleware_untouched():
    said: list[str] = []
    middleware = Holding(LifespanApp(said), said=said)
    middleware.in_stack = True

    await lifespan(middleware)

    assert said == ["app called", "app up", "app down"]
