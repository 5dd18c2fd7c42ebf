"""The ASGI types that the whole package speaks, and the clock it tells time by.

Scopes and messages are open mappings on purpose: servers and frameworks add keys and message types of their own, and
what Streamware does not know has to pass through it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeAlias

# ``Any``: the values of ASGI mappings differ by key, and the closed TypedDicts of ``asgiref.typing`` would refuse
# every extension, and every app that is typed as Starlette's are.
Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# What is only wrapped and called: apps that are typed with the closed TypedDicts of ``asgiref.typing`` or ``uvicorn``
# are no ``ASGIApp`` to a type checker, but are just as welcome.
AnyASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]


class TimerHandle(Protocol):
    """What ``Clock.call_later`` returns."""

    def cancel(self) -> None:
        """Call the timer off; harmless when it has run."""


class Clock(Protocol):
    """Monotonic time in seconds, and timers on it. ``LoopClock`` in production, ``FakeClock`` in tests."""

    def now(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""
        ...

    def call_later(self, delay: float, callback: Callable[[], object]) -> TimerHandle:
        """Call ``callback`` on the running loop ``delay`` seconds from now."""
        ...
