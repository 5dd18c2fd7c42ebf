"""Which requests may be reads of a stream that was started before, and whether anybody within can tell.

A request is a read only where Resume says so: anybody may send a cursor. So where no Resume is found within, each
request is a start.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..paths import PathSelection
from ..streams.resource import asked_for
from ..types import AnyASGIApp, Scope
from ..wire.cursor import parse_cursor

logger = logging.getLogger("streamware.throttle")

#: So many layers of apps are looked through.
DEPTH = 100


def may_be_read(scope: Scope) -> bool:
    """Whether the request could be one for what was started before: by a cursor, an idempotency key, or the stream's
    own address."""
    for name, value in scope.get("headers") or ():
        if name == b"idempotency-key" or (name == b"last-event-id" and parse_cursor(value) is not None):
            return True
    return asked_for(scope) is not None


class Telling:
    """Those within ``app`` who tell reads from starts, by the paths that they serve. Looked for once, when first asked:
    frameworks put their middleware together late."""

    __slots__ = ("_app", "_found")

    def __init__(self, app: AnyASGIApp) -> None:
        self._app = app
        self._found: Sequence[PathSelection] | None = None

    def of(self, path: str) -> bool:
        """Whether somebody tells, for requests to ``path``."""
        found = self._found
        if found is None:
            found = self._found = _selections(self._app)
        return any(selection.everything or path in selection for selection in found)

    def distrust(self) -> None:
        """A request went by whoever should have told: from now on all are starts."""
        if self._found:
            self._found = ()
            logger.warning(
                "a request with a cursor or an Idempotency-Key reached the app without passing ResumeMiddleware: what "
                "stands between it and ThrottleMiddleware changes requests, so every request counts as a start from "
                "now on"
            )


def _selections(app: object) -> list[PathSelection]:
    found: list[PathSelection] = []
    for _ in range(DEPTH):
        selection: object = getattr(app, "selection", None)
        if getattr(app, "tells_reads", False) is True and isinstance(selection, PathSelection):
            found.append(selection)
        app = getattr(app, "app", None)
        if app is None:
            break
    return found
