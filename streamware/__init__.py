"""Pluggable ASGI middleware: wraps an app that exists, and makes its streaming endpoints lossless, lean and safe.

The names below are the public ones; ``streamware.testing`` is public too, for tests.
"""

from .auth.adapter import AuthlibVerifier
from .auth.fetch import Fetch, FetchError, FetchRequest, FetchResponse, HTTPFetch
from .auth.introspection import IntrospectionVerifier
from .auth.issuers import IssuerVerifier
from .auth.jwt import JWTVerifier
from .auth.principal import AnonymousPrincipal, Principal
from .auth.verifier import TokenRefused, Verifier, VerifierUnavailable
from .exceptions import ConfigurationError, StoreError, StoreFull, StoreUnavailable, StreamwareError
from .middleware.drain import DrainMiddleware
from .middleware.heartbeat import HeartbeatMiddleware
from .middleware.resume import ResumeMiddleware
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
    "AnonymousPrincipal",
    "AuthlibVerifier",
    "Batch",
    "Claim",
    "ConfigurationError",
    "CountingObserver",
    "CurrentStream",
    "DrainMiddleware",
    "Fetch",
    "FetchError",
    "FetchRequest",
    "FetchResponse",
    "HTTPFetch",
    "Head",
    "HeartbeatMiddleware",
    "IntrospectionVerifier",
    "IssuerVerifier",
    "JWTVerifier",
    "Log",
    "LogReader",
    "MemoryStore",
    "Middleware",
    "NullObserver",
    "Observer",
    "Outcome",
    "Principal",
    "ProducerLog",
    "RedisStore",
    "ResumeMiddleware",
    "SQLiteStore",
    "Stack",
    "Store",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "StreamwareError",
    "TokenRefused",
    "Tombstone",
    "Usage",
    "Verifier",
    "VerifierUnavailable",
    "__version__",
    "current_stream",
    "wrap",
)
