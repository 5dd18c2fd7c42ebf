"""How an app is told that its client has gone, and how it shows that it has understood."""

from __future__ import annotations

from typing import cast


class ClientGone(OSError):
    """What the app's ``send`` raises once it has been told (ASGI HTTP spec 2.4)."""


def is_disconnect(error: BaseException) -> bool:
    """Whether ``error`` is nothing but how frameworks pass that on."""
    if isinstance(error, BaseExceptionGroup):
        group = cast(BaseExceptionGroup[BaseException], error)
        return all(is_disconnect(leaf) for leaf in group.exceptions)
    return isinstance(error, OSError) or type(error).__name__ == "ClientDisconnect"
