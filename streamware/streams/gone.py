"""How an app is told that its client has gone, and how it shows that it has understood."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

logger = logging.getLogger("streamware.resume")


class ClientGone(OSError):
    """What the app's ``send`` raises once it has been told (ASGI HTTP spec 2.4)."""


def is_disconnect(error: BaseException) -> bool:
    """Whether ``error`` is nothing but how frameworks pass that on."""
    if isinstance(error, BaseExceptionGroup):
        group = cast(BaseExceptionGroup[BaseException], error)
        return all(is_disconnect(leaf) for leaf in group.exceptions)
    return isinstance(error, OSError) or type(error).__name__ in ("ClientDisconnect", "WebSocketDisconnect")


def report(task: asyncio.Task[None], *, told: bool) -> None:
    """Log what an app raised that nobody waits for, unless it was ``told`` that the client has gone and says so."""
    if task.cancelled():
        return
    error = task.exception()
    if error is not None and not (told and is_disconnect(error)):
        logger.error("Exception in ASGI application, after its stream had begun", exc_info=error)
