"""What a path asks for: which scopes, or nothing at all.

Rules: where ``scopes`` names patterns, the first that matches a path decides, and a path that none matches asks for a
token and no more; a list of scopes holds for every path that is not optional. A path cannot be both optional and ask
for scopes by pattern: where that can be told beforehand it is an error, else scopes are asked for. A path that may be
taken for another further in is not optional, and asks for the scopes of all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import cast

from ..exceptions import ConfigurationError
from ..globs import common_path
from ..paths import FirstMatch, compile_globs, is_ambiguous, patterns

#: RFC 6749, section 3.3.
_SCOPE = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+").fullmatch

Scopes = frozenset[str]
NONE: Scopes = frozenset()


class Requirements:
    """``everywhere``: the scopes that every path asks for, or None where it depends on the path."""

    __slots__ = ("_default", "_optional", "_rules", "everywhere", "named")

    def __init__(self, owner: str, scopes: object, optional: object) -> None:
        globs = patterns(owner, "optional", optional) or ()
        self._optional = compile_globs(globs) if globs else None
        self._rules: FirstMatch[Scopes | None] = FirstMatch()
        self._default = named = NONE
        if isinstance(scopes, Mapping):
            before: list[str] = []
            for glob, listed in cast("Mapping[str, object]", scopes).items():
                patterns(owner, "scopes", [glob])
                needed = _checked(owner, f"scopes[{glob!r}]", listed)
                self._rules.add(glob, needed)
                named |= needed
                both = common_path([globs, [glob]], [before]) if needed and globs else None
                if both:
                    raise ConfigurationError(
                        f"{owner}: {both!r} is optional, but scopes[{glob!r}] asks for scopes there; where nobody has "
                        "to show a token, none can be asked for: put a narrower pattern with an empty list before it"
                    )
                before.append(glob)
        elif scopes is not None:
            self._default = _checked(owner, "scopes", scopes)
        #: All scopes that any path may ask for.
        self.named: Scopes = self._default | named
        self.everywhere: Scopes | None = None if self._rules or globs else self._default

    def of(self, path: str) -> Scopes:
        """The scopes that ``path`` asks for, all of them."""
        if self.everywhere is None and is_ambiguous(path):
            return self.named
        needed = self._rules.find(path, None)  # which may be none at all
        if needed is not None:
            return needed
        return NONE if self._optional is not None and self._optional(path) else self._default

    def is_optional(self, path: str) -> bool:
        """Whether nobody has to show a token at ``path``."""
        if self._optional is None or is_ambiguous(path):
            return False
        return self._optional(path) is not None and not self.of(path)


def _checked(owner: str, option: str, given: object) -> Scopes:
    expected = "a list of scopes, as ['chat']"
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ConfigurationError.option(owner, option, given, expected)
    checked: set[str] = set()
    for scope in cast("Iterable[object]", given):
        if not isinstance(scope, str) or not _SCOPE(scope):
            raise ConfigurationError.option(owner, option, scope, expected)
        checked.add(scope)
    return frozenset(checked)
