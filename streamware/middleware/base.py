"""What every middleware of Streamware shares: path selection, the rank guard, and its part of the lifespan.

Rules: a scope type that a middleware does not handle, and a path that it does not select, pass through with the very
objects that came in. A scope that it does touch is copied once per request, by the outermost of ours.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import ClassVar, Protocol, runtime_checkable

from ..exceptions import ConfigurationError
from ..record import KEY, Record, record_of
from ..types import ASGIApp, Receive, Scope, Send

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
    lifespan scope passes through it. All are idempotent, and none is required before the first request."""

    async def startup(self) -> None:
        """Open resources. Before the wrapped app's own start-up."""

    async def shutdown(self) -> None:
        """End what still runs. Before the wrapped app's own shutdown, whose pools running streams may need."""

    async def aclose(self) -> None:
        """Release resources. After the wrapped app's own shutdown."""


class PathSelection:
    """``paths`` and ``exclude``: glob patterns on the path within the mount. ``paths=None`` selects all of them."""

    __slots__ = ("_exclude", "_paths", "exclude", "paths")

    def __init__(self, owner: str, paths: Iterable[str] | None, exclude: Iterable[str] | None) -> None:
        self.paths = patterns(owner, "paths", paths)
        self.exclude = patterns(owner, "exclude", exclude)
        self._paths = compile_globs(self.paths)
        self._exclude = compile_globs(self.exclude)

    @property
    def everything(self) -> bool:
        """True where no path is left out, so that nobody needs to look."""
        return self._paths is None and self._exclude is None

    def __contains__(self, path: str) -> bool:
        if self._paths is not None and self._paths(path) is None:
            return False
        return self._exclude is None or self._exclude(path) is None


def patterns(owner: str, option: str, given: Iterable[str] | None) -> tuple[str, ...] | None:
    """``given`` as a tuple, checked: a lone string is refused, for it would be read letter by letter."""
    if given is None:
        return None
    if isinstance(given, str | bytes):
        raise ConfigurationError.option(owner, option, given, "a list of glob patterns")
    checked = tuple(given)
    for pattern in checked:
        if not isinstance(pattern, str) or not pattern.startswith(("/", "*")):
            raise ConfigurationError.option(owner, option, pattern, "a list of glob patterns that start with / or *")
    return checked


def compile_globs(globs: tuple[str, ...] | None):  # type: ignore[no-untyped-def]  # mended below
    return None if globs is None else re.compile("|".join(fnmatch.translate(glob) for glob in globs) or r"(?!)").match


def path_within_mount(scope: Scope) -> str:
    """The path that the wrapped app routes on: ``path`` without a leading ``root_path`` (ASGI HTTP spec 2.5)."""
    path: str = scope.get("path", "")
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :] or "/"
    return path


class BaseMiddleware:
    """An ASGI middleware with ``paths``/``exclude`` and a rank. Subclasses set ``scope_types`` and write ``handle``.

    :param paths: glob patterns on the path within the mount; ``None`` (default) touches every path.
    :param exclude: patterns of paths to leave alone, looked at after ``paths``; ``None`` excludes nothing.
    """

    rank: ClassVar[int]
    scope_types: ClassVar[frozenset[str]] = frozenset({"http"})

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
        self.selection = PathSelection(type(self).__name__, paths, exclude)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind in self.scope_types:
            if self.selection.everything or path_within_mount(scope) in self.selection:
                await self.handle(self.enter(scope), receive, send)
                return
        elif kind == "lifespan" and isinstance(self, Lifecycle):
            await pass_lifespan(self, self.app, scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one selected connection."""
        raise NotImplementedError  # abstract: each middleware writes its own

    def enter(self, scope: Scope) -> Scope:
        """The scope to go on with, holding the shared record with this middleware's rank in it.

        :raises ConfigurationError: a middleware that belongs further in has been entered already.
        """
        record = record_of(scope)
        if record is None:
            record = Record()
            scope = {**scope, KEY: record}
        name = type(self).__name__
        if record.rank > self.rank and not (name == "ThrottleMiddleware" and record.entered == "AuthMiddleware"):
            raise ConfigurationError(
                f"{name} must stand outside {record.entered}, but was reached after it. Frameworks' add_middleware() "
                f"puts the last one added outermost: add {record.entered} before {name}, or use streamware.Stack, "
                "which takes them from outermost to innermost."
            )
        record.rank = self.rank
        record.entered = name
        return scope


async def pass_lifespan(own: Lifecycle, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Let the lifespan scope through to ``app``, opening ``own`` before its start-up and ending it around its
    shutdown."""

    async def receive_around() -> dict[str, object]:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await own.startup()
        elif message["type"] == "lifespan.shutdown":
            await own.shutdown()
        return message  # type: ignore[return-value]  # the server's own object

    try:
        await app(scope, receive_around, send)
    finally:
        await own.aclose()
