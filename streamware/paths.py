"""Which paths a middleware touches: ``paths`` and ``exclude``, glob patterns on the path within the mount.

Where access is decided, a path that whoever routes further in may read as another one is never left out, whatever the
patterns say: ``/public/../admin`` begins like ``/public/`` but need not be served from there.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar, cast

from .exceptions import ConfigurationError
from .globs import common_path
from .types import Scope

T = TypeVar("T")

# Doubled slashes, dot segments, backslashes, and what is still encoded after the server has decoded it once.
_AMBIGUOUS = re.compile(r"//|/\.{1,2}(?:[/;]|\Z)|\\|%(?:2[ef]|5c)", re.IGNORECASE).search


def is_ambiguous(path: str) -> bool:
    """Whether a router, a proxy or a file system further in may take ``path`` for another path."""
    return _AMBIGUOUS(path) is not None


class PathSelection:
    """``paths`` and ``exclude``: glob patterns on the path within the mount. ``paths=None`` selects all of them.
    ``guards``: ambiguous paths are selected always."""

    __slots__ = ("_exclude", "_guards", "_paths", "everything", "exclude", "paths")

    def __init__(
        self, owner: str, paths: Iterable[str] | None, exclude: Iterable[str] | None, *, guards: bool = False
    ) -> None:
        self._guards = guards
        self.paths = patterns(owner, "paths", paths)
        self.exclude = patterns(owner, "exclude", exclude)
        self._paths = compile_globs(self.paths)
        self._exclude = compile_globs(self.exclude)
        #: True where no path is left out, so that nobody needs to look.
        self.everything = self._paths is None and self._exclude is None

    def __contains__(self, path: str) -> bool:
        if self._guards and is_ambiguous(path):
            return True
        if self._paths is not None and not self._paths(path):
            return False
        return self._exclude is None or not self._exclude(path)

    def overlap(self, other: PathSelection) -> str | None:
        """A path that both select; None where there is none; "" where that could not be decided."""
        for one, another in ((self, other), (other, self)):
            if one.paths is not None and another.exclude is not None and set(one.paths) <= set(another.exclude):
                return None
        wanted = [paths for paths in (self.paths, other.paths) if paths is not None]
        unwanted = [exclude for exclude in (self.exclude, other.exclude) if exclude is not None]
        return common_path(wanted, unwanted)


def patterns(owner: str, option: str, given: object) -> tuple[str, ...] | None:
    """``given`` as a tuple, checked: a lone string is refused, for it would be read letter by letter."""
    if given is None:
        return None
    expected = "a list of glob patterns that start with / or *"
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ConfigurationError.option(owner, option, given, expected)
    checked: list[str] = []
    for pattern in cast("Iterable[object]", given):
        if not isinstance(pattern, str) or not pattern.startswith(("/", "*")):
            raise ConfigurationError.option(owner, option, pattern, expected)
        checked.append(pattern)
    return tuple(checked)


def compile_globs(globs: Sequence[str] | None) -> Callable[[str], object] | None:
    """A function that is true of a path that any of ``globs`` matches; None for None. No patterns match nothing."""
    return None if globs is None else _matcher(globs)


def _matcher(globs: Sequence[str]) -> Callable[[str], object]:
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs) or r"(?!)").match


class FirstMatch(Generic[T]):
    """Values by glob pattern, as a mapping has them or as they are added, of which the first that matches counts."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, T] | None = None) -> None:
        self._values: list[tuple[Callable[[str], object], T]] = []
        for glob, value in (values or {}).items():
            self.add(glob, value)

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, glob: str, value: T) -> None:
        """One more, behind those that there are."""
        self._values.append((_matcher((glob,)), value))

    def find(self, path: str, default: T) -> T:
        """The value of ``path``; ``default`` where no pattern matches."""
        for matches, value in self._values:
            if matches(path):
                return value
        return default


def path_within_mount(scope: Scope) -> str:
    """The path that the wrapped app routes on: ``path`` without a leading ``root_path`` (ASGI HTTP spec 2.5)."""
    path: str = scope.get("path", "")
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :] or "/"
    return path
