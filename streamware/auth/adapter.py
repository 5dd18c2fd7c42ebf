"""``AuthlibVerifier``: any ``TokenValidator`` of authlib as a verifier.

Rules:

1. A synchronous validator runs in threads of its own, so many and no more; who finds no place is told to come again.
2. A validator may raise whatever it likes. What says that the token is bad, or trips over its form, is a refusal; what
   says anything else, as a database that is away, is not: it cannot be told now.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, cast

from ..checks import check
from ..clock import LoopClock
from ..observe import NullObserver, Observer, OnceLog
from ..types import Clock
from . import options
from .cache import VerifiedCache, token_hash
from .claims import ClaimRules, Verified
from .principal import Principal
from .token import JSON, MAX_TOKEN
from .verifier import TokenRefused, VerifierUnavailable

logger = logging.getLogger("streamware.auth")

# What a validator raises over a token, on purpose or because of its form: authlib's own does all of these.
_THE_TOKENS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


#: Seconds that clocks may differ by, where a record has times of its own.
LEEWAY = 10.0


class TokenValidator(Protocol):
    """What is used of ``authlib.oauth2.rfc6749.TokenValidator``; both methods may be coroutines as well."""

    def authenticate_token(self, token_string: str, /) -> object:
        """The token's record, a mapping or one with authlib's ``TokenMixin``; None: there is none."""

    def validate_token(self, token: object, scopes: object, request: object, /) -> object:
        """Raises what authlib calls an error, where the record is not good."""


class AuthlibVerifier:
    """Verifies tokens by a ``TokenValidator`` of authlib.

    :param validator: its ``authenticate_token`` and ``validate_token`` are called, with no scopes and no request:
        scopes are a matter of ``AuthMiddleware``.
    :param issuer: the issuer of principals whose record does not name one.
    :param threads: how many tokens are validated at once by a synchronous validator, 4 by default.
    :param max_waiting: how many more may wait, 64 by default.
    :param timeout: seconds for one token, 5 by default. A thread cannot be ended, and stays taken until it returns.
    :param cache_size: tokens that are remembered as good, 4096 by default.
    :param cache_ttl: seconds for which, 60 by default, and never past the record's expiry; 0: not.
    :param observer: gets the counter ``auth.validator_failed``.
    :param clock: tells monotonic time; ``None``: the event loop's.
    :param wall: tells the seconds since 1970.
    """

    def __init__(
        self,
        validator: TokenValidator,
        *,
        issuer: str = "",
        threads: int = 4,
        max_waiting: int = 64,
        timeout: float = 5.0,
        cache_size: int = 4096,
        cache_ttl: float = 60.0,
        observer: Observer | None = None,
        clock: Clock | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        owner = type(self).__name__
        usable = callable(getattr(validator, "authenticate_token", None)) and callable(
            getattr(validator, "validate_token", None)
        )
        check(owner, usable, "validator", type(validator), "a TokenValidator of authlib")
        self._validator = validator
        self._issuer = issuer
        self._threads = options.count(owner, "threads", threads)
        self._max_running = self._threads + options.count(owner, "max_waiting", max_waiting, least=0)
        self._timeout = options.seconds(owner, "timeout", timeout, least=0.1)
        self._observer = NullObserver() if observer is None else observer
        self._wall = wall
        now = (LoopClock() if clock is None else clock).now
        size = options.count(owner, "cache_size", cache_size)
        self._cache = VerifiedCache(size, options.seconds(owner, "cache_ttl", cache_ttl), now, wall)
        self._rules = ClaimRules(
            issuer=None, audiences=frozenset(), essential=frozenset(), leeway=LEEWAY, scope_claims=("scope", "scp")
        )
        self._is_async = inspect.iscoroutinefunction(validator.authenticate_token)
        self._once = OnceLog(logger)
        self._pool: ThreadPoolExecutor | None = None
        self._running = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self._validator).__name__})"

    def recall(self, token: str) -> Principal | None:
        return self._cache.recall(token)

    def recall_hashed(self, digest: bytes) -> Principal | None:
        return self._cache.find(digest)

    def forget(self, principal: Principal) -> None:
        """Validate its token anew when it comes again."""
        self._cache.forget(principal.token_hash)

    async def verify(self, token: str, *, client: str = "") -> Principal:
        """The principal of ``token``, as the validator says.

        :raises TokenRefused: it is not good.
        :raises VerifierUnavailable: the validator failed, took too long, or is busy.
        """
        if len(token) > MAX_TOKEN:
            raise TokenRefused("size")
        if not token or not token.isascii() or not token.isprintable():
            raise TokenRefused("malformed")
        digest = token_hash(token)
        if (known := self._cache.find(digest)) is not None:
            return known
        if self._running >= self._max_running:
            raise VerifierUnavailable("busy", 1.0)
        try:
            record = await self._validated(token)
            verified = self._verified(record, digest)
        except (TokenRefused, VerifierUnavailable):
            raise
        except TimeoutError:
            raise self._failed("timeout") from None
        except Exception as error:
            # Its type alone: its text may quote the token.
            if _is_authlibs(error):
                raise TokenRefused("validator") from None
            if isinstance(error, _THE_TOKENS):
                self._once.warning(type(error).__name__, "the validator tripped over a token: %s", type(error).__name__)
                raise TokenRefused("validator_error") from None
            logger.error("the validator failed: %s", type(error).__name__)
            raise self._failed("error") from None
        self._cache.remember(verified)
        return verified.principal()

    async def startup(self) -> None:
        return None

    async def aclose(self) -> None:
        """Let its threads go; what runs in them ends by itself."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _failed(self, reason: str) -> VerifierUnavailable:
        self._observer.count("auth.validator_failed", reason=reason)
        return VerifierUnavailable("validator")

    async def _validated(self, token: str) -> object:
        if self._is_async:
            self._running += 1
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._asynchronous(token)
            finally:
                self._running -= 1
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="streamware-validator")
        self._running += 1
        future = self._pool.submit(self._synchronous, token)
        loop = asyncio.get_running_loop()
        # Counted until the thread is free, however long this call waits for it.
        future.add_done_callback(lambda _: _soon(loop, self._release))
        validated = asyncio.wrap_future(future)
        try:
            await asyncio.wait([validated], timeout=self._timeout)
        finally:
            if not validated.done():
                validated.cancel()  # one that has not begun need not
        if validated.cancelled():
            raise TimeoutError
        return validated.result()

    def _release(self) -> None:
        self._running -= 1

    def _synchronous(self, token: str) -> object:
        try:
            record = self._validator.authenticate_token(token)
            self._validator.validate_token(record, [], None)
        except StopIteration:
            raise LookupError from None  # a future cannot carry it: whoever waits would wait for ever
        return record

    async def _asynchronous(self, token: str) -> object:
        record = self._validator.authenticate_token(token)
        if inspect.isawaitable(record):
            record = await record
        answer = self._validator.validate_token(record, [], None)
        if inspect.isawaitable(answer):
            await answer
        return record

    def _verified(self, record: object, digest: bytes) -> Verified:
        claims = claims_of_record(record)
        if self._issuer:
            claims.setdefault("iss", self._issuer)
        return self._rules.verified(claims, self._wall(), digest, subjects="username")


def claims_of_record(record: object) -> dict[str, JSON]:
    """What a record says, as claims: a mapping's own members, else what authlib's ``TokenMixin`` and its models for
    databases have."""
    if record is None:
        raise TokenRefused("validator")
    if isinstance(record, Mapping):
        return _members(cast("Mapping[object, object]", record))
    claims: dict[str, JSON] = {}
    for claim, names in _ATTRIBUTES.items():
        for name in names:
            value = getattr(record, name, None)
            value = value() if callable(value) else value
            if value is not None and value != "":
                claims[claim] = str(value) if claim in ("sub", "client_id") else _plain(value)
                break
    if "exp" not in claims:
        issued, lasts = getattr(record, "issued_at", None), getattr(record, "expires_in", None)
        if isinstance(issued, int | float) and isinstance(lasts, int | float) and lasts:
            claims["exp"] = issued + lasts
    return claims


_ATTRIBUTES = {
    "sub": ("user_id", "sub"),
    "client_id": ("client_id",),
    "scope": ("get_scope", "scope"),
    "exp": ("get_expires_at", "expires_at"),
    "iss": ("iss",),
}


def _members(record: Mapping[object, object]) -> dict[str, JSON]:
    return {str(name): _plain(value) for name, value in record.items()}


def _plain(value: object) -> JSON:
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in cast("Iterable[object]", value)]
    if isinstance(value, Mapping):
        return _members(cast("Mapping[object, object]", value))
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _is_authlibs(error: Exception) -> bool:
    """Whether authlib or joserfc say that the token is no good."""
    from authlib.common.errors import AuthlibBaseError
    from joserfc.errors import JoseError

    return isinstance(error, AuthlibBaseError | JoseError)


def _soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        callback()  # its loop has ended: nobody else counts
