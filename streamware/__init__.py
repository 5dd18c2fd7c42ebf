"""Pluggable ASGI middleware: wraps an app that exists, and makes its streaming endpoints lossless, lean and safe.

The names below are the public ones; ``streamware.testing`` is public too, for tests.
"""

from .exceptions import ConfigurationError, StoreError, StoreFull, StoreUnavailable, StreamwareError
from .limiting.base import Lease, Limit, LimitStorage, Standing, Taken
from .limiting.memory import MemoryLimitStorage
from .limiting.redis import RedisLimitStorage
from .middleware.drain import DrainMiddleware
from .middleware.heartbeat import HeartbeatMiddleware
from .middleware.resume import ResumeMiddleware
from .middleware.throttle import ThrottleMiddleware
from .middleware.token_budget import TokenBudgetMiddleware
from .observe import CountingObserver, NullObserver, Observer
from .preset import wrap
from .stack import Middleware, Stack
from .stores.base import Batch, Claim, Head, Log, LogReader, Outcome, ProducerLog, Store, Tombstone
from .stores.memory import MemoryStore
from .stores.redis import RedisStore
from .stores.sqlite import SQLiteStore
from .streams.current import CurrentStream, Usage, current_stream

__version__ = "0.1.0"

__all__ = (
    "Batch",
    "Claim",
    "ConfigurationError",
    "CountingObserver",
    "CurrentStream",
    "DrainMiddleware",
    "Head",
    "HeartbeatMiddleware",
    "Lease",
    "Limit",
    "LimitStorage",
    "Log",
    "LogReader",
    "MemoryLimitStorage",
    "MemoryStore",
    "Middleware",
    "NullObserver",
    "Observer",
    "Outcome",
    "ProducerLog",
    "RedisLimitStorage",
    "RedisStore",
    "ResumeMiddleware",
    "SQLiteStore",
    "Stack",
    "Standing",
    "Store",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "StreamwareError",
    "Taken",
    "ThrottleMiddleware",
    "TokenBudgetMiddleware",
    "Tombstone",
    "Usage",
    "__version__",
    "current_stream",
    "wrap",
)
