"""The options of ``ResumeMiddleware``, checked once and read by every part of a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from ..exceptions import ConfigurationError
from ..observe import Observer, OnceLog
from ..paths import FirstMatch, patterns
from ..stores.base import Store
from ..types import Clock, Scope

T = TypeVar("T")

#: How long a request with a known ``Idempotency-Key`` waits for the first one to prove a stream, in seconds.
CLAIM_WAIT = 10.0
#: So much of a request body is held, to compare it and then to hand it to the app, where an ``Idempotency-Key`` is
#: given. What comes behind goes to the app as it comes.
KEYED_BODY_BYTES = 16 * 1024 * 1024
#: How long a response that looks like a stream is held back for its first event, which shows whose ids it has.
HOLD = 0.05
#: A start by ``respond-async`` has no reader: its first poll must find it alive whatever ``linger`` says.
ASYNC_LINGER = 60.0
#: How long an answer of our own waits for the rest of a body that nobody wants: some servers reset a connection, and
#: with HTTP/2 every stream on it, whose request is answered before it is whole.
DISCARD_WAIT = 1.0
#: How long a cursor ahead of its log waits for the log to reach it.
AHEAD_WAIT = 1.0
#: The longest that ``Prefer: wait`` holds a poll; proxies and clients give up not much later.
MAX_WAIT = 60.0
#: A server that accepts without limit is fed ``window`` bytes in so many seconds beyond what the log can hold.
PACE_SECONDS = 15.0
#: How long an app that listens for its client's leaving may take to end by that, before it is cancelled.
CANCEL_AFTER = 1.0
#: How long shutdown waits for apps that were cancelled.
CANCEL_WAIT = 5.0


class ByPath(Generic[T]):
    """An option's value, or values by glob pattern on the path within the mount (the first match counts)."""

    __slots__ = ("_by_path", "_default")

    def __init__(
        self,
        option: str,
        given: T | Mapping[str, T],
        default: T,
        check: Callable[[object], bool],
        expected: str,
        owner: str = "ResumeMiddleware",
    ) -> None:
        self._default = default
        self._by_path: FirstMatch[T] = FirstMatch()
        if isinstance(given, Mapping):
            by_path = cast(Mapping[str, T], given)  # checkers lose T here
            for glob, value in by_path.items():
                patterns(owner, option, [glob])
                if not check(value):
                    raise ConfigurationError.option(owner, f"{option}[{glob!r}]", value, expected)
                self._by_path.add(glob, value)
        elif check(given):
            self._default = given
        else:
            raise ConfigurationError.option(owner, option, given, expected)

    def __getitem__(self, path: str) -> T:
        return self._by_path.find(path, self._default)


@dataclass(frozen=True, slots=True)
class Options:
    """See ``ResumeMiddleware`` for what each means."""

    store: Store
    clock: Clock
    observer: Observer
    advice: OnceLog
    owner: Callable[[Scope], str | None] | None
    owner_cookies: frozenset[str]
    media_types: frozenset[bytes]
    replay_headers: frozenset[bytes]
    replace_ids: bool
    linger: ByPath[float | None]
    on_done: ByPath[str]
    on_expired: ByPath[str]
    retry: float
    window: int
    max_event_bytes: int
    max_readers: int
    max_detached: int
    max_detached_per_owner: int
    early_start: float | None
    stall_timeout: float | None
    max_duration: float | None
