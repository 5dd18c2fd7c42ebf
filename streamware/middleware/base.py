"""What every middleware of Streamware shares: path selection, the rank guard, and its part of the lifespan.

Rules: a scope type that a middleware does not handle, and a path that it does not select, pass through with the very
objects that came in. A scope that it does touch is copied once per request, by the outermost of ours.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import ClassVar, Protocol, runtime_checkable

from ..auth.principal import Principal
from ..exceptions import ConfigurationError
from ..paths import PathSelection, path_within_mount
from ..record import KEY, TENURE, Record
from ..streams.drain import Drain
from ..streams.lookout import Lookout
from ..streams.pulse import PulseOptions
from ..types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("streamware.lifespan")

# The one right order, outermost first (design: cheap refusals first, whoever writes body bytes inside whoever
# transforms them). Gaps leave room.
RANKS = {
    "ClientIPMiddleware": 10,
    "IPAllowlistMiddleware": 20,
    "OriginMiddleware": 30,
    "AuthMiddleware": 40,
    "ThrottleMiddleware": 50,
    "CompressionMiddleware": 60,
    "DrainMiddleware": 70,
    "HeartbeatMiddleware": 80,
    "ResumeMiddleware": 90,
    "TokenBudgetMiddleware": 100,
}


@runtime_checkable
class Lifecycle(Protocol):
    """Implemented by middlewares that hold resources. ``Stack`` calls these; alone, a middleware calls its own as the
    lifespan scope passes through it. All are idempotent, and none is required before the first request: not every
    server sends a lifespan. ``startup`` after ``aclose`` opens anew, since an app object may be served twice."""

    async def startup(self) -> None:
        """Open resources. Before the wrapped app's own start-up."""

    async def shutdown(self) -> None:
        """End what still runs. Before the wrapped app's own shutdown, whose pools running streams may need."""

    async def aclose(self) -> None:
        """Release resources. After the wrapped app's own shutdown."""


@runtime_checkable
class LetsIn(Protocol):
    """Implemented by middlewares that authenticate. A ``Stack`` passes on to these what it is asked for."""

    def let_in(self, scope: Scope) -> bool:
        """Whether the connection of ``scope`` has come through it, and is open."""
        ...

    async def disconnect(self, principal: Principal, *, issued_before: float | None = None, stop: bool = False) -> None:
        """End all streams and WebSockets of ``principal``."""

    async def reauthenticate(self, scope: Scope, token: str) -> Principal:
        """Let a connection go on with a newer token."""
        ...


class Watch(Protocol):
    """What stands for a middleware on one connection, where that needs no frame of its own around the app."""

    @property
    def open(self) -> bool:
        """Whether there is anything to ``end``."""
        ...

    async def receive(self) -> Message:
        """The app's ``receive``."""
        ...

    def send(self, message: Message) -> Awaitable[None]:
        """The app's ``send``."""
        ...

    def forgives(self, error: Exception) -> bool:
        """Whether what the app raised says no more than that it was told to end."""
        ...

    async def end(self) -> None:
        """The app has returned, or raised."""


class Census:
    """``made``: how many middlewares were ever made in this process, of any class."""

    __slots__ = ("made",)

    def __init__(self) -> None:
        self.made = 0


census = Census()


class BaseMiddleware:
    """An ASGI middleware with ``paths``/``exclude`` and a rank. Subclasses set ``scope_types`` and write ``handle``.

    :param paths: glob patterns on the path within the mount; ``None`` (default) touches every path.
    :param exclude: patterns of paths to leave alone, looked at after ``paths``; ``None`` excludes nothing.
    """

    rank: ClassVar[int]
    scope_types: frozenset[str] = frozenset({"http"})
    #: True where it decides who gets in: then ambiguous paths are selected whatever the patterns say.
    guards: ClassVar[bool] = False
    #: Seconds that ``shutdown`` may take by the options, beside what a ``Stack`` allows to any.
    patience: float = 0.0
    #: Tells a start of the app from a read of what was started before, and asks gates (``streams/gates.py``).
    tells_reads: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.__name__ in RANKS:
            cls.rank = RANKS[cls.__name__]

    def __init__(
        self, app: ASGIApp, *, paths: Iterable[str] | None = None, exclude: Iterable[str] | None = None
    ) -> None:
        if not callable(app):
            raise ConfigurationError.option(type(self).__name__, "app", app, "an ASGI application")
        self.app = app
        self.selection = PathSelection(type(self).__name__, paths, exclude, guards=self.guards)
        #: Where it may stand, ascending. A middleware whose options allow another place adds its rank here.
        self.ranks: tuple[int, ...] = (self.rank,)
        #: True where a ``Stack`` calls the hooks of ``Lifecycle``: then the lifespan scope passes through untouched.
        self.in_stack = False
        #: The scope types of which a ``Stack`` has checked the order, and another of ours, further in, sees every scope
        #: that this one does: that one leaves the rank for both, so that the scope is copied once at most.
        self.unguarded: frozenset[str] = frozenset()
        #: True where the one directly within does for each HTTP connection what this one's ``watch`` would.
        self.delegated = False
        #: Set by a ``Stack``: to be called when ``needs_frame`` has changed.
        self.reshape: Callable[[], None] | None = None
        census.made += 1

    # -- in a Stack: what saves frames there, for each costs every request

    def joined(self, outer: BaseMiddleware | None) -> None:
        """The ``Stack`` is built. ``outer``: the one of ours that this one stands directly within."""

    def encloses(self, within: Sequence[BaseMiddleware]) -> None:
        """The ``Stack`` is built. ``within``: those of ours that stand further in, outermost first."""

    def drained_by(self, drain: Drain) -> None:
        """This middleware stands within one that drains the worker."""

    @property
    def drains(self) -> Drain | None:
        """The drain of the worker, in the middleware that has it."""
        return None

    @property
    def needs_frame(self) -> bool:
        """Whether one that is ``frameless`` is wanted in its own frame for now; a change is told to ``reshape``."""
        return False

    @property
    def needs_record(self) -> bool:
        """Whether those outside it are to leave a record, also where a ``Stack`` has checked the order for them."""
        return False

    @property
    def endpoints(self) -> Mapping[str, ASGIApp]:
        """What a ``Stack`` is to answer before any middleware: an app by path within the mount."""
        return {}

    @property
    def watch(self) -> Callable[[Scope, Receive, Send], Watch]:
        """Makes all that this middleware is to one HTTP connection, where it is ``frameless``."""
        raise NotImplementedError  # for those that say that they are frameless

    @property
    def frameless(self) -> bool:
        """Whether every HTTP connection that has no record may be given a ``watch``, in the caller's own frame."""
        return False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind in self.scope_types:
            if self.selection.everything or path_within_mount(scope) in self.selection:
                if kind in self.unguarded and KEY not in scope:
                    await self.handle(scope, receive, send)
                    return
                record: Record | None = scope.get(KEY)
                if record is None or record.__class__ is not Record:
                    record = Record()
                    record.server_scope = scope
                    scope = {**scope, KEY: record}
                rank, entered = record.rank, record.entered
                record.rank = self.ranks[0] if rank <= self.ranks[0] else self.placed(record)
                record.entered = type(self).__name__
                try:
                    await self.handle(scope, receive, send)
                finally:
                    # A foreign middleware may call what it wraps again with the same scope: a retry, a cascade.
                    record.rank, record.entered = rank, entered
                return
        elif kind == "lifespan" and not self.in_stack and isinstance(self, Lifecycle):
            await pass_lifespan(self, self.app, scope, receive, send)
            return
        await self.app(scope, receive, send)

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one selected connection: a coroutine, or what the app returns for one that is of no interest."""
        raise NotImplementedError  # abstract: each middleware writes its own

    def placed(self, record: Record) -> int:
        """The rank at which this middleware stands.

        :raises ConfigurationError: a middleware that belongs further in has been entered already.
        """
        rank = lowest_rank(self.ranks, record.rank)
        if rank is None:
            name = type(self).__name__
            raise ConfigurationError(
                f"{name} must stand outside {record.entered}, but was reached after it. Frameworks' add_middleware() "
                f"puts the last one added outermost: add {record.entered} before {name}, or use streamware.Stack, "
                "which takes them from outermost to innermost. Of an app that is mounted in a wrapped one, take the "
                "wrapping off: it stands within the outer one's."
            )
        return rank


class WatchingMiddleware(BaseMiddleware):
    """A middleware that on an HTTP connection does no more than look out for streams, as ``options`` say."""

    options: PulseOptions

    @property
    def looks_everywhere(self) -> bool:
        """Whether it looks out on every HTTP connection that reaches it."""
        return "http" in self.scope_types and self.selection.everything

    @property
    def watch(self) -> Callable[[Scope, Receive, Send], Lookout]:
        return partial(Lookout, self.options)

    async def look_out(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP connection in a frame of its own."""
        if self.options.under_way is None and TENURE in scope:
            self.options.under_way = set()  # from here on somebody may want to end responses
        lookout = Lookout(self.options, scope, receive, send)
        try:
            await self.app(scope, lookout.receive, lookout.send)
        except Exception as error:
            if not lookout.forgives(error):
                raise
        finally:
            await lookout.end()


def lowest_rank(ranks: Sequence[int], at_least: int) -> int | None:
    """The lowest of ``ranks`` (ascending) that may stand inside rank ``at_least``; None where none may."""
    for rank in ranks:
        if rank >= at_least:
            return rank
    return None


async def pass_lifespan(own: Lifecycle, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Let the lifespan scope through to ``app``, opening ``own`` before its start-up and ending it around its
    shutdown. An app that refuses the scope before it has asked for a message (Django does) leaves ``own`` unopened."""
    opened = ended = False

    async def receive_around() -> Message:
        nonlocal opened, ended
        message = await receive()
        if message["type"] == "lifespan.startup":
            opened = True
            try:
                await own.startup()
            except Exception as exc:
                ended = True
                # Said here, for an exception alone would be taken for "lifespan unsupported", and be served without.
                await send({"type": "lifespan.startup.failed", "message": f"{type(own).__name__}: {exc}"})
                raise
        elif message["type"] == "lifespan.shutdown":
            ended = True
            await end()
        return message

    async def end() -> None:
        try:
            await own.shutdown()
        except Exception:
            logger.exception("%s: shutdown failed; the app's own shutdown goes on", type(own).__name__)

    try:
        await app(scope, receive_around, send)
    finally:
        if opened:
            if not ended:
                await end()
            await own.aclose()
