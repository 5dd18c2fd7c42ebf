"""Composition: what the list may hold, in which order, and that every scope but lifespan goes through untouched."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping

import pytest
import starlette.middleware
from starlette.middleware.cors import CORSMiddleware

from streamware import ConfigurationError, Middleware, Stack
from streamware.middleware.base import BaseMiddleware
from streamware.types import AnyASGIApp, ASGIApp, Message, Receive, Scope, Send


class Passing(BaseMiddleware):
    """The least that a middleware of ours can be."""

    def __init__(self, app: ASGIApp, *, tag: str = "", size: int = 0, paths=None, exclude=None) -> None:
        super().__init__(app, paths=paths, exclude=exclude)
        self.tag, self.size = tag, size

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


# Named as the middlewares whose ranks they have: the order is by rank, and the rank is given by the name.
class ClientIPMiddleware(Passing): ...


class AuthMiddleware(Passing): ...


class CompressionMiddleware(Passing): ...


class HeartbeatMiddleware(Passing): ...


class ResumeMiddleware(Passing): ...


class QuietHeartbeats(HeartbeatMiddleware): ...


class ThrottleMiddleware(Passing):
    """One that may stand before authentication when what it counts by is known there already."""

    def __init__(self, app: ASGIApp, *, key: str = "principal", paths=None, exclude=None) -> None:
        super().__init__(app, paths=paths, exclude=exclude)
        if key == "client_ip":
            self.ranks = (35, self.rank)


class Foreign:
    """Somebody else's middleware: the app, positional and named options."""

    def __init__(self, app: AnyASGIApp, *labels: str, header: str = "") -> None:
        self.app, self.labels, self.header = app, labels, header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


async def no_app(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("not called")


async def receive_nothing() -> Message:
    raise AssertionError("not called")


async def send_nothing(message: Message) -> None:
    raise AssertionError("not called")


def names_of(stack: Stack) -> list[str]:
    """The classes of the built chain, outermost first."""
    names, app = [], stack._chain
    while app is not stack.app:
        names.append(type(app).__name__)
        app = app.app
    return names


# ---- building -------------------------------------------------------------------------------------------------------
def test_the_first_of_the_list_is_the_outermost():
    stack = Stack(no_app, middleware=[Middleware(HeartbeatMiddleware), Middleware(ResumeMiddleware)])

    assert names_of(stack) == ["HeartbeatMiddleware", "ResumeMiddleware"]
    assert stack.app is no_app


def test_options_reach_the_class_by_place_and_by_name():
    chain = Stack(no_app, middleware=[Middleware(Foreign, "a", "b", header="x")])._chain

    assert (chain.labels, chain.header) == (("a", "b"), "x")


def test_a_function_that_wraps_an_app_is_a_middleware():
    def factory(app: AnyASGIApp, label: str) -> AnyASGIApp:
        return Foreign(app, label)

    assert names_of(Stack(no_app, middleware=[Middleware(factory, "a")])) == ["Foreign"]


def test_one_of_ours_behind_a_factory_is_ordered_as_ours():
    heartbeat = functools.partial(HeartbeatMiddleware, size=3)

    with pytest.raises(ConfigurationError, match="HeartbeatMiddleware must stand outside ResumeMiddleware"):
        Stack(no_app, middleware=[Middleware(ResumeMiddleware), Middleware(heartbeat)])


def test_starlettes_own_middleware_objects_are_accepted():
    stack = Stack(
        no_app,
        middleware=[
            starlette.middleware.Middleware(CORSMiddleware, allow_origins=["*"]),
            starlette.middleware.Middleware(HeartbeatMiddleware, size=3),
        ],
    )

    assert names_of(stack) == ["CORSMiddleware", "HeartbeatMiddleware"]
    assert stack._chain.app.size == 3


def test_older_starlettes_objects_with_options_are_accepted():
    class Old:
        cls = HeartbeatMiddleware
        options: Mapping[str, object] = {"size": 3}

    assert Stack(no_app, middleware=[Old()])._chain.size == 3


@pytest.mark.parametrize("entry", [HeartbeatMiddleware, "HeartbeatMiddleware", None, HeartbeatMiddleware(no_app)])
def test_an_entry_that_describes_no_middleware_is_refused(entry: object):
    with pytest.raises(ConfigurationError, match=r"Stack: middleware must be a list of Middleware\(cls, option"):
        Stack(no_app, middleware=[entry])


def test_a_factory_that_forgets_to_return_is_refused():
    with pytest.raises(ConfigurationError, match="factory that returns an ASGI application, got None"):
        Stack(no_app, middleware=[Middleware(lambda app: None)])


@pytest.mark.parametrize("build", [lambda: Stack(None), lambda: Middleware("x"), lambda: HeartbeatMiddleware(3)])
def test_what_cannot_be_called_is_refused(build: Callable[[], object]):
    with pytest.raises(ConfigurationError, match="must be"):
        build()


@pytest.mark.parametrize("timeout", [0, -1, True, float("nan")])
def test_a_hook_timeout_that_makes_no_sense_is_refused(timeout: float):
    with pytest.raises(ConfigurationError, match="hook_timeout must be greater than 0 seconds, or None, got"):
        Stack(no_app, hook_timeout=timeout)


def test_servers_take_a_stack_for_an_asgi_3_app():
    stack = Stack(no_app)

    assert not inspect.isclass(stack)
    assert inspect.iscoroutinefunction(stack.__call__)


def test_a_description_shows_no_value_that_may_be_a_secret():
    entry = Middleware(HeartbeatMiddleware, tag="redis://:secret@store", size=3, paths=["/v1/*"])

    assert repr(entry) == "Middleware(HeartbeatMiddleware, tag=..., size=3, paths=['/v1/*'])"
    assert "secret" not in repr(Stack(no_app, middleware=[entry]))


# ---- order ----------------------------------------------------------------------------------------------------------
def test_a_wrong_order_says_the_whole_right_one_to_paste():
    with pytest.raises(ConfigurationError) as caught:
        Stack(
            no_app,
            middleware=[
                Middleware(ResumeMiddleware),
                Middleware(HeartbeatMiddleware, size=3, paths=["/v1/*"]),
                Middleware(AuthMiddleware),
            ],
        )

    text = str(caught.value)
    assert "HeartbeatMiddleware must stand outside ResumeMiddleware" in text
    pasted = eval(text[text.index("[") :], globals())
    assert names_of(Stack(no_app, middleware=pasted)) == ["AuthMiddleware", "HeartbeatMiddleware", "ResumeMiddleware"]
    assert pasted[1].kwargs == {"size": 3, "paths": ["/v1/*"]}


def test_foreign_middleware_stands_anywhere_and_keeps_its_place_in_the_right_order():
    entries = {name: Middleware(Foreign, header=name) for name in ("first", "second", "last")}
    layers = [
        entries["first"],
        Middleware(ResumeMiddleware),
        entries["second"],
        Middleware(HeartbeatMiddleware),
        entries["last"],
    ]

    with pytest.raises(ConfigurationError) as caught:
        Stack(no_app, middleware=layers)

    lines = [line.strip(" ,") for line in str(caught.value).splitlines() if line.startswith("    ")]
    assert lines == [
        "Middleware(Foreign, header=...)",
        "Middleware(HeartbeatMiddleware)",
        "Middleware(Foreign, header=...)",
        "Middleware(ResumeMiddleware)",
        "Middleware(Foreign, header=...)",
    ]
    assert "(... for the options that you gave)" in str(caught.value)


def test_a_subclass_of_ours_counts_as_ours():
    with pytest.raises(ConfigurationError, match="QuietHeartbeats must stand outside ResumeMiddleware"):
        Stack(no_app, middleware=[Middleware(ResumeMiddleware), Middleware(QuietHeartbeats)])


def test_a_throttle_by_client_address_may_stand_before_authentication():
    stack = Stack(
        no_app,
        middleware=[
            Middleware(ClientIPMiddleware),
            Middleware(ThrottleMiddleware, key="client_ip"),
            Middleware(AuthMiddleware),
            Middleware(ThrottleMiddleware),
        ],
    )

    assert names_of(stack)[1:] == ["ThrottleMiddleware", "AuthMiddleware", "ThrottleMiddleware"]


def test_a_throttle_by_principal_may_not():
    with pytest.raises(ConfigurationError, match="AuthMiddleware must stand outside ThrottleMiddleware"):
        Stack(no_app, middleware=[Middleware(ThrottleMiddleware), Middleware(AuthMiddleware)])


def test_the_right_order_leaves_a_throttle_where_it_may_stand():
    with pytest.raises(ConfigurationError) as caught:
        Stack(
            no_app,
            middleware=[
                Middleware(ThrottleMiddleware, key="client_ip"),
                Middleware(ClientIPMiddleware),
                Middleware(AuthMiddleware),
            ],
        )

    text = str(caught.value)
    places = [text.index(f"Middleware({name}") for name in ("ClientIPM", "ThrottleM", "AuthM")]
    assert places == sorted(places)


# ---- the same class several times ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("one", "another"),
    [
        ({"paths": ["/v1/*"]}, {"paths": ["/v2/*"]}),
        ({"paths": ["/v1/*"]}, {"exclude": ["/v1/*"]}),
        ({"paths": ["/v1/*"]}, {"paths": ["/*"], "exclude": ["/v1*"]}),
        ({"paths": ["*.json"]}, {"paths": ["*.txt"]}),
        ({"paths": ["/user/[0-4]*"]}, {"paths": ["/user/[5-9]*"]}),
        ({"paths": []}, {}),
    ],
)
def test_the_same_class_twice_with_disjoint_paths_is_right(one: dict[str, list[str]], another: dict[str, list[str]]):
    stack = Stack(
        no_app,
        middleware=[
            Middleware(HeartbeatMiddleware, **one),
            Middleware(Foreign),
            Middleware(QuietHeartbeats, **another),
            Middleware(ResumeMiddleware),
        ],
    )

    assert len(names_of(stack)) == 4


@pytest.mark.parametrize(
    ("one", "another", "both"),
    [
        ({}, {}, "/"),
        ({"paths": ["/v1/*"]}, {}, "/v1/"),
        ({"paths": ["/v1/*"]}, {"paths": ["*.json"]}, "/v1/.json"),
        ({"paths": ["/v1/*"]}, {"exclude": ["/v1/chat"]}, "/v1/"),
    ],
)
def test_the_same_class_twice_over_one_path_is_refused_with_that_path(
    one: dict[str, list[str]], another: dict[str, list[str]], both: str
):
    with pytest.raises(ConfigurationError) as caught:
        Stack(no_app, middleware=[Middleware(HeartbeatMiddleware, **one), Middleware(QuietHeartbeats, **another)])

    assert f"both touch {both!r}" in str(caught.value)
    assert "HeartbeatMiddleware and QuietHeartbeats" in str(caught.value)
    assert "exclude=" in str(caught.value)


# ---- what goes through ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["http", "websocket", "webtransport"])
async def test_scopes_reach_the_chain_as_the_very_objects_that_came_in(kind: str):
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend((scope, receive, send))

    scope: Scope = {"type": kind, "path": "/"}
    await Stack(app)(scope, receive_nothing, send_nothing)

    assert all(got is given for got, given in zip(seen, (scope, receive_nothing, send_nothing), strict=True))
    assert scope == {"type": kind, "path": "/"}


async def test_an_unknown_scope_type_passes_through_all_of_ours_untouched():
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    scope: Scope = {"type": "webtransport"}
    stack = Stack(app, middleware=[Middleware(HeartbeatMiddleware), Middleware(ResumeMiddleware)])
    await stack(scope, receive_nothing, send_nothing)

    assert seen[0] is scope


async def test_what_the_app_raises_comes_out_as_it_is():
    error = LookupError("mine")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    with pytest.raises(LookupError) as caught:
        await Stack(app)({"type": "http", "path": "/"}, receive_nothing, send_nothing)

    assert caught.value is error
