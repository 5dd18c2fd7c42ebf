"""The tokens and secrets that tests have used, so that all output of the suite can be searched for them.

``conftest.py`` does so behind every test, ``servers/launch.py`` in what a server of its own has written.
"""

from __future__ import annotations

import logging
import re

_KNOWN: set[str] = set()
#: Shorter pieces are found everywhere.
LEAST = 12
#: Whatever has this shape is a token, whoever made it.
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}")


def secret(text: str) -> str:
    """``text``, noted as one that must never be seen: of a JWT, each of its parts as well but the header, which is no
    secret and the same for many."""
    if len(text) >= LEAST:
        _KNOWN.add(text)
    _KNOWN.update(part for part in text.split(".")[1:] if len(part) >= LEAST)
    return text


def leaked(text: str) -> list[str]:
    """The known secrets in ``text``, shortened, for a message of their own must not spread them."""
    found = {known for known in _KNOWN if known in text} | set(_JWT.findall(text))
    return sorted(f"{known[:6]}…" for known in found)


class Listener(logging.Handler):
    """Keeps everything that is logged, at any level, formatted as a careless application would: with tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # The identity provider of the tests is authlib's own server, which logs what it issues. It is not what we ship.
        if not record.name.startswith("authlib."):
            self.lines.append(self.format(record))
