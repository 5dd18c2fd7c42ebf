"""Pluggable ASGI middleware: wraps an app that exists, and makes its streaming endpoints lossless, lean and safe.

The names below are the public ones; ``streamware.testing`` is public too, for tests.
"""

from .auth.adapter import AuthlibVerifier
from .auth.fetch import Fetch, FetchError, FetchRequest, FetchResponse, HTTPFetch
from .auth.introspection import IntrospectionVerifier
from .auth.issuers import IssuerVerifier
from .auth.jwt import JWTVerifier
from .auth.metadata import ResourceMetadata
from .auth.principal import AnonymousPrincipal, Principal
from .auth.tickets import Tickets
from .auth.verifier import TokenRefused, Verifier, VerifierUnavailable
from .exceptions import ConfigurationError, StoreError, StoreFull, StoreUnavailable, StreamwareError
from .limiting.base import Lease, Limit, LimitStorage, Standing, Taken
from .limiting.memory import MemoryLimitStorage
from .limiting.redis import RedisLimitStorage
from .middleware.auth import AuthMiddleware
from .middleware.client_ip import ClientIPMiddleware
from .middleware.compression import CompressionMiddleware
from .middleware.drain import DrainMiddleware
from .middleware.heartbeat import HeartbeatMiddleware
from .middleware.ip_allowlist import AddressExplanation, IPAllowlistMiddleware
from .middleware.origin import OriginMiddleware
from .middleware.resume import ResumeMiddleware
from .middleware.throttle import ThrottleMiddleware
from .middleware.token_budget import TokenBudgetMiddleware
from .observe import CountingObserver, NullObserver, Observer
from .preset import wrap
from .stack import Middleware, Stack
from .stores.base import Batch, Claim, Head, Log, LogReader, Outcome, ProducerLog, Store, Tombstone
from .stores.board import Board
from .stores.memory import MemoryStore
from .stores.redis import RedisStore
from .stores.sqlite import SQLiteStore
from .streams.current import CurrentStream, Usage, current_stream
from .streams.expiry import Expiry
from .wire.cors import CORSOptions
from .wire.transport import HSTSOptions

__version__ = "0.1.0"

__all__ = (
    "AddressExplanation",
    "AnonymousPrincipal",
    "AuthMiddleware",
    "AuthlibVerifier",
    "Batch",
    "Board",
    "CORSOptions",
    "Claim",
    "ClientIPMiddleware",
    "CompressionMiddleware",
    "ConfigurationError",
    "CountingObserver",
    "CurrentStream",
    "DrainMiddleware",
    "Expiry",
    "Fetch",
    "FetchError",
    "FetchRequest",
    "FetchResponse",
    "HSTSOptions",
    "HTTPFetch",
    "Head",
    "HeartbeatMiddleware",
    "IPAllowlistMiddleware",
    "IntrospectionVerifier",
    "IssuerVerifier",
    "JWTVerifier",
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
    "OriginMiddleware",
    "Outcome",
    "Principal",
    "ProducerLog",
    "RedisLimitStorage",
    "RedisStore",
    "ResourceMetadata",
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
    "Tickets",
    "TokenBudgetMiddleware",
    "TokenRefused",
    "Tombstone",
    "Usage",
    "Verifier",
    "VerifierUnavailable",
    "__version__",
    "current_stream",
    "wrap",
)
