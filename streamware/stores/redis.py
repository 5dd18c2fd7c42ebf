"""``RedisStore``: logs in Redis or Valkey, for workers on any number of machines."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal

from ..exceptions import ConfigurationError
from ..observe import Observer
from ..types import Clock
from .checks import check_durability, check_positive, check_shares
from .redis_backend import RedisBackend
from .redis_layout import INLINE_BYTES
from .redis_target import target_of
from .shared import SharedOptions, SharedStore
from .timing import Timing

if TYPE_CHECKING:
    from .redis_target import Client


class RedisStore(SharedStore):
    """Logs in Redis 6.2 or newer, or Valkey: one server, a master with sentinels, or a cluster. Wants the extra
    ``redis``.

    :param url: ``redis://``, ``rediss://`` (TLS), ``unix://``, ``redis+sentinel://host:port,…/service[/db]`` or
        ``redis+cluster://host:port,…``; or a client of redis-py, whose address and credentials are taken.
    :param prefix: what all keys and channels begin with; stores with different ones know nothing of each other.
    :param durability: "local": readers in the producer's worker get an event at once, those in others when Redis has
        it; "store": nobody gets one that Redis has not acknowledged.
    :param ttl: seconds that a finished log can still be read; default 300.
    :param tombstone_ttl: seconds that an expired log is remembered as ended; default one day.
    :param max_tombstones: of at most so many logs; beyond it the oldest finished ones go first; default 100,000.
    :param max_log_bytes: bound on one log; default 8 MiB.
    :param max_log_events: bound on one log in events; default 100,000.
    :param max_memory: bound on what this worker holds of the logs that it produces; default 256 MiB.
    :param owner_share: the part of ``max_memory`` that one account may hold; default 0.5.
    :param observer: gets the counters of the store.
    :param clock: tests' clock.
    :raises ConfigurationError: a value that makes no sense, or redis-py is not installed.
    """

    def __init__(
        self,
        url: str | Client,
        *,
        prefix: str = "streamware:",
        durability: Literal["local", "store"] = "local",
        ttl: float = 300.0,
        tombstone_ttl: float = 86_400.0,
        max_tombstones: int = 100_000,
        max_log_bytes: int = 8 * 1024 * 1024,
        max_log_events: int = 100_000,
        max_memory: int = 256 * 1024 * 1024,
        owner_share: float = 0.5,
        observer: Observer | None = None,
        clock: Clock | None = None,
        timing: Timing | None = None,
    ) -> None:
        check_positive(
            "RedisStore",
            ttl=ttl,
            tombstone_ttl=tombstone_ttl,
            max_tombstones=max_tombstones,
            max_log_bytes=max_log_bytes,
            max_log_events=max_log_events,
            max_memory=max_memory,
        )
        check_shares("RedisStore", max_log_bytes, owner_share, max_memory=max_memory)
        check_durability("RedisStore", durability)
        if not prefix.isascii() or "{" in prefix:
            raise ConfigurationError.option("RedisStore", "prefix", prefix, "ASCII text without braces")
        if importlib.util.find_spec("redis") is None:
            raise ConfigurationError("RedisStore: redis-py is missing; install asgi-streamware[redis]")
        #: Where it is, and the prefix: for what is kept beside the logs.
        self.target, self.prefix = target_of("RedisStore", "url", url), prefix
        timing = timing or Timing()
        backend = RedisBackend(
            self.target,
            prefix=prefix,
            ttl=float(ttl),
            tombstone_ttl=float(tombstone_ttl),
            max_tombstones=int(max_tombstones),
            timeout=0.9 * timing.operation,  # so that it is the connection that is given up, not the call on it
            # What is announced with the events is read before it is acknowledged.
            inline=INLINE_BYTES if durability == "local" else 0,
        )
        options = SharedOptions(
            max_memory=max_memory,
            max_log_bytes=max_log_bytes,
            max_log_events=max_log_events,
            owner_share=owner_share,
            durable=durability == "store",
        )
        super().__init__(backend, options, clock=clock, observer=observer, timing=timing)
