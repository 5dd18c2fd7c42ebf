"""``IntrospectionVerifier``: tokens that only their issuer can read, asked of it (RFC 7662).

Rules:

1. What a token is worth is asked at most once at a time, and remembered: the good for ``cache_ttl`` seconds and never
   past ``exp``, the bad for ``refused_ttl``, each in a bounded cache of its own.
2. What unknown tokens may cost the issuer is bounded four times: calls at once, callers that wait, calls that come to
   nothing for each client's address, and those of all together.
3. An issuer that is in trouble is told from a token that is not good: ``VerifierUnavailable``, never a principal. After
   some failures in a row it is left in peace for a while.
4. ``active: true`` is the least of it: expiry, issuer, audience and token type are checked here as well.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable
from typing import Literal

from ..checks import check
from ..clock import LoopClock
from ..exceptions import ConfigurationError
from ..observe import NullObserver, Observer
from ..types import Clock
from ..wire.addresses import client_of
from . import options
from .breaker import Breaker, FailureLimit
from .cache import RefusedCache, VerifiedCache, token_hash
from .claims import MAX_LEEWAY, ClaimRules, Verified
from .discovery import Discovery
from .endpoint import Credentials, Endpoint, Trouble
from .fetch import Fetch, FetchError, HTTPFetch
from .principal import Principal
from .token import JSON, MAX_TOKEN
from .verifier import TokenRefused, VerifierUnavailable

logger = logging.getLogger("streamware.auth")

#: Failures in a row after which the server is left in peace, and for how many seconds.
BREAKS_AFTER = 5
BREAKS_FOR = 10.0
#: Seconds that limits on failures are counted over.
FAILURE_WINDOW = 60.0
# RFC 6750, section 2.1: what can stand behind "Bearer".
_B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*", re.ASCII).fullmatch


class IntrospectionVerifier:
    """Verifies opaque tokens at an introspection endpoint.

    :param endpoint: its ``https`` URL; ``None``: the one that the metadata of ``issuer`` name.
    :param issuer: what ``iss`` has to be where an answer has one, and the issuer of principals where it has not.
    :param audience: of which ``aud`` has to name one; ``None`` (default): not looked at, for many servers leave it out.
    :param client_id: this service, as the server knows it; with ``client_secret``.
    :param auth: how they are sent: "basic" (default), in the Authorization header, or "post", in the form.
    :param bearer: an access token to ask with instead, or a callable that returns one.
    :param required: members that the answer has to have.
    :param scope_claims: the members that may hold scopes, of which the first that is there counts.
    :param leeway: seconds that this clock and the server's may differ by; 10 by default, 300 at most.
    :param cache_size: tokens that are remembered as good, and as many as bad; 4096 by default.
    :param cache_ttl: seconds for which a good one is, 60 by default: so late a revocation may take effect. 0: not.
    :param refused_ttl: seconds for which a bad one is, 30 by default.
    :param concurrency: calls at once, 16 by default.
    :param max_waiting: callers that may wait for their turn, 256 by default; more are told to come again.
    :param client_failures: calls that may come to nothing for one client address in a minute, 30 by default; an address
        of IPv6 counts as its /64. Behind a proxy the client's address has to be resolved first. ``None``: no limit.
    :param total_failures: the same for all addresses together, 1000 by default.
    :param require_at_startup: ``startup`` looks the endpoint up in the metadata, and fails without.
    :param fetch: asks; ``None``: an ``HTTPFetch``, which wants the extra ``oauth``.
    :param timeout: seconds for one call, 5 by default.
    :param insecure: allow ``http`` to loopback addresses, for tests.
    :param observer: gets the counters ``auth.introspected``, ``auth.introspection_failed`` and
        ``auth.introspection_limited``.
    :param clock: tells monotonic time; ``None``: the event loop's.
    :param wall: tells the seconds since 1970.
    :raises ConfigurationError: an option makes no sense, or a package is missing.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        issuer: str | None = None,
        audience: str | Iterable[str] | None = None,
        client_id: str = "",
        client_secret: str = "",
        auth: Literal["basic", "post"] = "basic",
        bearer: str | Callable[[], str] | None = None,
        required: Iterable[str] = (),
        scope_claims: Iterable[str] = ("scope", "scp"),
        leeway: float = 10.0,
        cache_size: int = 4096,
        cache_ttl: float = 60.0,
        refused_ttl: float = 30.0,
        concurrency: int = 16,
        max_waiting: int = 256,
        client_failures: int | None = 30,
        total_failures: int | None = 1000,
        require_at_startup: bool = False,
        fetch: Fetch | None = None,
        timeout: float = 5.0,
        insecure: bool = False,
        observer: Observer | None = None,
        clock: Clock | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        owner = type(self).__name__
        if endpoint is None and issuer is None:
            raise ConfigurationError.option(owner, "endpoint", None, "a URL, or issuer one whose metadata name it")
        if endpoint is not None:
            options.web_address(owner, "endpoint", endpoint, insecure=insecure)
        else:
            options.web_address(owner, "issuer", issuer, insecure=insecure)
        check(owner, auth in ("basic", "post"), "auth", auth, '"basic" or "post"')
        if bearer is None:
            options.text(owner, "client_id", client_id, "this service's client id, or bearer has to be given")
            check(owner, bool(client_secret), "client_secret", "…", "the client's secret")
        else:
            check(
                owner,
                callable(bearer) or len(bearer) > 0,
                "bearer",
                type(bearer),
                "a token, or a callable that returns one",
            )
        credentials = Credentials(client_id, client_secret, in_form=auth == "post", bearer=bearer)
        self._observer = NullObserver() if observer is None else observer
        self._clock = LoopClock() if clock is None else clock
        self._wall = wall
        scopes = options.ordered(owner, "scope_claims", scope_claims, "names of members")
        self._rules = ClaimRules(
            issuer=issuer,
            audiences=frozenset() if audience is None else options.names(owner, "audience", audience),
            essential=options.names(owner, "required", required) if required else frozenset(),
            leeway=options.seconds(owner, "leeway", leeway, most=MAX_LEEWAY),
            scope_claims=scopes,
        )
        size = options.count(owner, "cache_size", cache_size)
        self._cache = VerifiedCache(size, options.seconds(owner, "cache_ttl", cache_ttl), self._clock.now, wall)
        self._refused = RefusedCache(size, options.seconds(owner, "refused_ttl", refused_ttl), self._clock.now)
        # Each client's own, and that of all together.
        self._client_limit = _limit(owner, "client_failures", client_failures)
        self._total_limit = _limit(owner, "total_failures", total_failures)
        self._concurrency = options.count(owner, "concurrency", concurrency)
        self._max_calls = self._concurrency + options.count(owner, "max_waiting", max_waiting, least=0)
        self._breaker = Breaker(BREAKS_AFTER, BREAKS_FOR)
        self._calls: dict[bytes, asyncio.Task[Verified | TokenRefused | VerifierUnavailable]] = {}
        self._turns = asyncio.Semaphore(self._concurrency)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._require = require_at_startup
        self._own_fetch: HTTPFetch | None = None
        if fetch is None:
            fetch = self._own_fetch = HTTPFetch(insecure=insecure)
        timeout = options.seconds(owner, "timeout", timeout, least=0.1)
        place = endpoint or Discovery(str(issuer), fetch, insecure=insecure, timeout=timeout)
        self._endpoint = Endpoint(fetch, place, credentials, timeout=timeout)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(issuer={self._rules.issuer!r})"

    def recall(self, token: str) -> Principal | None:
        """The principal of a token that was found good of late."""
        return self._cache.recall(token)

    def recall_hashed(self, digest: bytes) -> Principal | None:
        """The same by the token's SHA-256."""
        return self._cache.find(digest)

    def forget(self, principal: Principal) -> None:
        """Ask anew when its token comes again: at a logout, after a revocation."""
        self._cache.forget(principal.token_hash)

    async def verify(self, token: str, *, client: str = "") -> Principal:
        """The principal of ``token``, as the server says. ``client``: the address that it came from; "" counts as one.

        :raises TokenRefused: it is not good.
        :raises VerifierUnavailable: the server is in trouble, or it is not to be asked more for now.
        """
        if len(token) > MAX_TOKEN:
            raise TokenRefused("size")
        if _B64TOKEN(token) is None:
            raise TokenRefused("malformed")
        digest = token_hash(token)
        known = self._cache.find(digest)
        if known is not None:
            return known
        if (reason := self._refused.reason(digest)) is not None:
            raise TokenRefused(reason)
        call = self._call_for(token, digest, client_of(client))
        await asyncio.wait([call])  # unlike ``await call``: who is cancelled here ends nothing for the others
        outcome = VerifierUnavailable("introspection") if call.cancelled() else call.result()
        if isinstance(outcome, Verified):
            return outcome.principal()
        if isinstance(outcome, TokenRefused):
            raise TokenRefused(outcome.reason)  # one of its own for each that waited
        raise VerifierUnavailable(outcome.reason, outcome.retry_after)

    async def startup(self) -> None:
        """Find the endpoint, where ``require_at_startup``.

        :raises VerifierUnavailable: it cannot be found.
        """
        if self._require:
            try:
                await self._endpoint.found()
            except FetchError as error:
                raise VerifierUnavailable(error.reason) from None

    async def aclose(self) -> None:
        """End calls, close connections."""
        running = asyncio.get_running_loop()
        calls = [call for call in self._calls.values() if call.get_loop() is running and not call.done()]
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls)
        if self._own_fetch is not None:
            await self._own_fetch.aclose()

    # -- one call

    def _call_for(
        self, token: str, digest: bytes, client: str
    ) -> asyncio.Task[Verified | TokenRefused | VerifierUnavailable]:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # what another loop had under way ended with it
            self._loop, self._calls = loop, {}
            self._turns = asyncio.Semaphore(self._concurrency)
        call = self._calls.get(digest)
        if call is None:
            if len(self._calls) >= self._max_calls:
                raise self._limited("busy", 1.0)
            if limited := self._over_limit(client):
                raise limited
            call = self._calls[digest] = loop.create_task(self._call(token, digest, client))
            call.add_done_callback(lambda _: self._calls.pop(digest, None))
        return call

    def _over_limit(self, client: str) -> VerifierUnavailable | None:
        """The refusal for a client whose tokens came to nothing too often."""
        now = self._clock.now()
        if self._client_limit is not None and (wait := self._client_limit.wait(client, now)):
            return self._limited("client", wait)
        if self._total_limit is not None and (wait := self._total_limit.wait("", now)):
            return self._limited("total", wait)
        return None

    def _failed(self, client: str) -> None:
        now = self._clock.now()
        if self._client_limit is not None:
            self._client_limit.failed(client, now)
        if self._total_limit is not None:
            self._total_limit.failed("", now)

    def _limited(self, reason: str, wait: float) -> VerifierUnavailable:
        self._observer.count("auth.introspection_limited", reason=reason)
        return VerifierUnavailable("limited", max(1.0, wait))

    async def _call(self, token: str, digest: bytes, client: str) -> Verified | TokenRefused | VerifierUnavailable:
        async with self._turns:
            if limited := self._over_limit(client):  # while this one waited, others have come to nothing
                return limited
            pause = self._breaker.wait(self._clock.now())
            if pause:
                return VerifierUnavailable("introspection", max(1.0, pause))
            try:
                answer = await self._endpoint.ask(token)
            except Trouble as trouble:
                return self._in_trouble(trouble)
            except BaseException:
                self._breaker.abandoned()
                raise
        self._breaker.succeeded()
        try:
            verified = self._checked(answer, digest)
        except TokenRefused as refused:
            return self._worthless(refused, digest, client)
        except Exception as error:
            # Nothing is known that ends here. A token must never be what fails a request, nor what gets through.
            logger.error("a token could not be verified: %s", type(error).__name__)
            self._observer.count("auth.unexpected", reason=type(error).__name__)
            return self._worthless(TokenRefused("unexpected"), digest, client)
        self._observer.count("auth.introspected", reason="active")
        self._cache.remember(verified)
        return verified

    def _worthless(self, refused: TokenRefused, digest: bytes, client: str) -> TokenRefused:
        self._observer.count("auth.introspected", reason=refused.reason)
        self._refused.remember(digest, refused.reason)
        self._failed(client)
        return refused

    def _checked(self, answer: dict[str, JSON], digest: bytes) -> Verified:
        if answer["active"] is not True:
            raise TokenRefused("inactive")
        kind = answer.get("token_type")
        if kind is not None and not (isinstance(kind, str) and kind.lower() in ("bearer", "access_token")):
            raise TokenRefused("token_type")
        if answer.get("token_use") not in (None, "access_token"):
            raise TokenRefused("token_type")  # a refresh token is good for nothing here
        return self._rules.verified(answer, self._wall(), digest, subjects="username")

    def _in_trouble(self, trouble: Trouble) -> VerifierUnavailable:
        now = self._clock.now()
        self._observer.count("auth.introspection_failed", reason=trouble.reason)
        if self._breaker.failed(now, trouble.pause):
            logger.warning("introspection: not to be had (%s); no unknown token is let through", trouble.reason)
        return VerifierUnavailable("introspection", trouble.pause or BREAKS_FOR)


def _limit(owner: str, option: str, most: int | None) -> FailureLimit | None:
    return None if most is None else FailureLimit(options.count(owner, option, most), FAILURE_WINDOW)
