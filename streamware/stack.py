"""Composes middlewares around an app: ``Middleware`` describes one, ``Stack`` builds them in the one right order.

Rules: every scope but lifespan goes to the chain as the very object that came in, with the server's own ``receive`` and
``send``, whatever its type; the list is checked when the ``Stack`` is built, before any traffic; nothing is known here
of any middleware but its rank, its paths and its hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ParamSpec, Protocol

from .auth.principal import Principal
from .clock import on_asyncio
from .exceptions import ConfigurationError
from .lifespan import serve_lifespan
from .middleware.base import BaseMiddleware, LetsIn, Lifecycle, Watch, census
from .order import Layer, check_order
from .paths import path_within_mount
from .streams.drain import Drain
from .types import AnyASGIApp, Receive, Scope, Send

P = ParamSpec("P")


class MiddlewareFactory(Protocol[P]):
    """A middleware class, or any function that wraps an app: the app first, then its options."""

    def __call__(self, app: AnyASGIApp, /, *args: P.args, **kwargs: P.kwargs) -> AnyASGIApp:
        """``app``, wrapped."""
        ...


class DescribesMiddleware(Protocol):
    """What an entry of ``Stack``'s list must have: ``Middleware`` here, Starlette's class of that name as well."""

    @property
    def cls(self) -> Callable[..., AnyASGIApp]:
        """The class or factory."""
        ...

    @property
    def args(self) -> tuple[object, ...]:
        """Its positional arguments after the app."""
        ...

    @property
    def kwargs(self) -> Mapping[str, object]:
        """Its options."""
        ...


class Middleware:
    """One middleware and its options, still without an app.

    ``cls`` is a class of Streamware's, anybody's ASGI middleware class, or a function ``(app, …) -> app``. To type
    checkers its options are those that ``cls`` takes: ``Middleware(HeartbeatMiddleware, intervall=3)`` is an error.
    """

    __slots__ = ("args", "cls", "kwargs")

    def __init__(self, cls: MiddlewareFactory[P], /, *args: P.args, **kwargs: P.kwargs) -> None:
        if not callable(cls):
            raise ConfigurationError.option(
                "Middleware", "cls", cls, "a middleware class or a function that wraps an app"
            )
        self.cls: Callable[..., AnyASGIApp] = cls
        self.args: tuple[object, ...] = args
        self.kwargs: Mapping[str, object] = kwargs

    def __repr__(self) -> str:
        """As it is written in code, but with ``...`` for every value that may be a secret or too long to read."""
        options = [_shown(value) for value in self.args]
        options += [f"{name}={_shown(value, name)}" for name, value in self.kwargs.items()]
        return f"Middleware({', '.join([getattr(self.cls, '__name__', repr(self.cls)), *options])})"


@dataclass(frozen=True, slots=True)
class Short:
    """The short way through a list: ``watch`` stands for all but the last, ``within`` is the last without its guard.

    It is there where one ``watch`` will do, to whose middleware those further out delegate. Nobody leaves a record on
    it. It may be gone where no other middleware of ours was ever made in this process: then none is further in, to be
    misled about the order.
    """

    watch: Callable[[Scope, Receive, Send], Watch]
    within: AnyASGIApp

    @classmethod
    def through(cls, layers: Sequence[Layer]) -> Short | None:
        """The short way through ``layers``; None where it takes the long one."""
        own = [layer.own for layer in layers if layer.own is not None]
        if len(own) != len(layers) or len(own) < 2 or not all(ours.frameless for ours in own[:-1]):
            return None
        *outer, inner = own
        watching = [ours for ours in outer if not ours.delegated]
        if len(watching) != 1 or not inner.selection.everything or "http" not in inner.scope_types:
            return None
        return cls(watching[0].watch, inner.handle)


class Stack:
    """An app with middleware around it, the outermost first in the list. It is itself an ASGI app.

    It serves the lifespan scope also for apps that refuse it (Django, Channels), and opens and closes its middlewares
    around the app's own start-up and shutdown; see ``streamware/lifespan.py``.

    :param middleware: ``Middleware`` objects, Streamware's or Starlette's. Those of Streamware have one right order;
        another one raises ``ConfigurationError`` with the list to use. The same class may stand several times, side by
        side, with disjoint ``paths``. Other people's may stand anywhere.
    :param hook_timeout: seconds that each middleware of Streamware may take to open, to end and to close (default 60:
        more than any does unless what it talks to is gone); ``None`` waits for ever. The app's own has no limit here.
    """

    def __init__(
        self, app: AnyASGIApp, middleware: Iterable[DescribesMiddleware] = (), *, hook_timeout: float | None = 60.0
    ) -> None:
        if not callable(app):
            raise ConfigurationError.option("Stack", "app", app, "an ASGI application")
        if hook_timeout is not None and (isinstance(hook_timeout, bool) or not hook_timeout > 0):
            raise ConfigurationError.option("Stack", "hook_timeout", hook_timeout, "greater than 0 seconds, or None")
        #: The innermost app, as it was given.
        self.app = app
        #: The list, outermost first.
        self.middleware = tuple(_described(entry) for entry in middleware)
        self._hook_timeout = hook_timeout

        layers: list[Layer] = []
        self._chain = app
        for entry in reversed(self.middleware):
            self._chain = entry.cls(self._chain, *entry.args, **entry.kwargs)
            if not callable(self._chain):
                raise ConfigurationError.option(
                    "Stack", repr(entry), self._chain, "a factory that returns an ASGI application"
                )
            layers.insert(0, Layer(self._chain if isinstance(self._chain, BaseMiddleware) else None, repr(entry)))
        check_order(layers)

        own = [layer.own for layer in layers if layer.own is not None]
        self._drains = [ours.drains for ours in own if ours.drains is not None]
        if len(self._drains) > 1:
            raise ConfigurationError("Stack: a worker drains as a whole: one DrainMiddleware, with the paths of all")
        for place, ours in enumerate(own):
            ours.in_stack = True
            ours.reshape = self._reshape
            ours.unguarded = frozenset(
                kind
                for kind in ours.scope_types
                if any(inner.selection.everything and kind in inner.scope_types for inner in own[place + 1 :])
                and not any(inner.needs_record for inner in own[place:])
            )
            ours.encloses(own[place + 1 :])
        self._hooks: list[Lifecycle] = [ours for ours in own if isinstance(ours, Lifecycle)]
        for outer, inner in pairwise([None, *(layer.own for layer in layers)]):
            if inner is not None:
                inner.joined(outer)
        self._family = len(own)
        self._endpoints = {path: app for ours in own for path, app in ours.endpoints.items()}
        self._own = own
        self._shortest = Short.through(layers)
        self._short: Short | None = None
        self._reshape()

    def _reshape(self) -> None:
        """Take the short way, unless one of the middlewares wants a frame of its own for now."""
        self._short = None if any(ours.needs_frame for ours in self._own) else self._shortest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if self._endpoints and kind == "http" and await self._answers(scope, receive, send):
            return
        short = self._short
        if kind == "http" and short is not None and census.made == self._family:
            look_out, within = short.watch, short.within  # a slot's value is called faster from a local
            watch = look_out(scope, receive, send)
            try:
                await within(scope, watch.receive, watch.send)
            except Exception as error:
                if not watch.forgives(error):
                    raise
            finally:
                if watch.open:
                    await watch.end()
        elif kind == "lifespan" and on_asyncio():
            await serve_lifespan(
                scope, receive, send, chain=self._chain, own=self._hooks, hook_timeout=self._hook_timeout
            )
        else:
            await self._chain(scope, receive, send)

    async def _answers(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer a request for an endpoint of one of the middlewares; False where it is none."""
        endpoint = self._endpoints.get(path_within_mount(scope))
        if endpoint is None:
            return False
        await endpoint(scope, receive, send)
        return True

    def leave(self) -> None:
        """Let readiness say no from here on, and serve everything. From any thread.

        :raises ConfigurationError: there is no ``DrainMiddleware`` here.
        """
        self._drain().leave()

    def drain(self) -> None:
        """Begin to drain, as a signal would. From any thread; the app must have been started, or asked once.

        :raises ConfigurationError: there is no ``DrainMiddleware`` here.
        """
        self._drain().begin()

    async def disconnect(self, principal: Principal, *, issued_before: float | None = None, stop: bool = False) -> None:
        """End all streams and WebSockets of ``principal``, as ``AuthMiddleware.disconnect`` does.

        :raises ConfigurationError: there is no ``AuthMiddleware`` here.
        :raises ValueError: ``principal`` is nobody.
        :raises StoreError: other workers may not have heard of it.
        """
        for ours in self._doors():
            await ours.disconnect(principal, issued_before=issued_before, stop=stop)

    async def reauthenticate(self, scope: Scope, token: str) -> Principal:
        """Let the connection of ``scope`` go on with a newer token, as ``AuthMiddleware.reauthenticate`` does.

        :raises ConfigurationError: there is no ``AuthMiddleware`` here.
        :raises TokenRefused: the token is not good for that.
        :raises VerifierUnavailable: that cannot be told now.
        :raises ValueError: ``scope`` has not come through here, or its connection has ended.
        """
        for ours in self._doors():
            if ours.let_in(scope):
                return await ours.reauthenticate(scope, token)
        raise ValueError("the scope has not come through an AuthMiddleware of this Stack, or its connection has ended")

    def _doors(self) -> list[LetsIn]:
        doors: list[LetsIn] = [ours for ours in self._own if isinstance(ours, LetsIn)]
        if not doors:
            raise ConfigurationError("Stack: it has no AuthMiddleware that could know whose connections are whose")
        return doors

    def _drain(self) -> Drain:
        if not self._drains:
            raise ConfigurationError("Stack: it has no DrainMiddleware that could end its connections")
        return self._drains[0]

    def __repr__(self) -> str:
        return f"Stack({self.app!r}, middleware=[{', '.join(map(repr, self.middleware))}])"


def _described(entry: object) -> Middleware:
    if isinstance(entry, Middleware):
        return entry
    cls: Callable[..., AnyASGIApp] | None = getattr(entry, "cls", None)
    # Starlette before 0.35 had no ``args``, and called its ``kwargs`` ``options``.
    args: object = getattr(entry, "args", ())
    kwargs: object = getattr(entry, "kwargs", getattr(entry, "options", None))
    if not callable(cls) or not isinstance(args, tuple) or not isinstance(kwargs, Mapping):
        raise ConfigurationError.option("Stack", "middleware", entry, "a list of Middleware(cls, option=...) objects")
    return Middleware(cls, *args, **kwargs)


def _shown(value: object, name: str = "") -> str:
    plain = value is None or isinstance(value, bool | int | float) or name in ("paths", "exclude")
    return repr(value) if plain else "..."
