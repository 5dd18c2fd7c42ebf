"""``IPAllowlistMiddleware``: addresses that are let in, and addresses that are not.

Rules:

1. Deny beats allow. An address that is unknown is in no list and never let in, whichever list is given: what cannot be
   told from a denied one is treated as one.
2. The address is the one in ``scope["client"]``: the peer, or what ``ClientIPMiddleware`` made of it.
3. A refusal is for good, 403, also for an EventSource; CORS preflights are no exception. Only where the lists could not
   be had yet it is for now, 503.
4. A request sees one state of the lists (``auth/address_lists.py``).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass

from ..auth.address_lists import RETRY, AddressLists
from ..auth.address_sources import AddressList, ListError, source_of
from ..clock import LoopClock
from ..exceptions import ConfigurationError
from ..observe import NullObserver, Observer
from ..record import record_of
from ..types import ASGIApp, Clock, Receive, Scope, Send
from ..wire.addresses import NO_ADDRESS, number_of_client, text_of
from ..wire.denial import Denial, deny, deny_websocket
from ..wire.forwarded import UNIX
from .base import BaseMiddleware

logger = logging.getLogger("streamware.ip_allowlist")

FORBIDDEN = Denial(403, "Forbidden")
NOT_YET = Denial(503, "Service Unavailable", retry_after=RETRY)


@dataclass(frozen=True, slots=True)
class AddressExplanation:
    """Why a request is let in, or not; ``str`` of it says so in words.

    ``reason``: ``allowed``, ``not_denied`` (there is only ``deny``), ``denied``, ``not_allowed``, ``unknown`` or
    ``not_loaded``. ``client``: the address that decided, None where it is unknown. ``rule``: the narrowest entry that
    it matched, in canonical form, None for none. The rest is what ``ClientIPMiddleware`` found, where one stands
    outside: ``peer``, the socket's other end; ``header``, the one that was read, "" for none; ``hops``, its entries
    that were looked at, the nearest first; ``found``, how the client was found.
    """

    allowed: bool
    reason: str
    client: str | None
    rule: str | None
    peer: str | None
    header: str
    hops: tuple[str, ...]
    found: str

    def __str__(self) -> str:
        verdict = f"{'let in' if self.allowed else 'refused'}: {self.reason}"
        rule = f" by {self.rule}" if self.rule else ""
        hops = ", ".join(ascii(hop) for hop in self.hops)  # they are whatever a client may have sent
        read = f"; {self.header}, from the right: {hops}" if self.header else ""
        return f"{verdict}{rule}; client {self.client or 'unknown'} ({self.found}); peer {self.peer or 'unknown'}{read}"


class IPAllowlistMiddleware(BaseMiddleware):
    """Answers 403 to whoever has another address than those allowed, or one that is denied.

    A list is: addresses, CIDRs and the names ``loopback``, ``linklocal`` and ``uniquelocal`` (or ``private``), in any
    iterable; a ``pathlib.Path`` of a UTF-8 file with an entry a line and comments behind ``#``; or a function that
    returns the entries, sync (called in a thread) or async. Empty lists are refused as typos are.

    Files and functions are read at start-up, which fails where they cannot be, and again by ``reload()``. A reading
    that fails later leaves the lists as they were.

    :param allow: who is let in; ``None``: everybody that ``deny`` does not name and whose address is known.
    :param deny: who is not, whatever ``allow`` says; ``None``: nobody.
    :param poll: seconds between two looks at the files, 2 by default. A file is read when it has changed and then stood
        still from one look to the next. ``None``: they are not looked at.
    :param interval: seconds between two readings of files and functions, whether or not anything has changed; ``None``
        (default): never.
    :param timeout: seconds that reading a file, or calling a function, may take, 30 by default.
    :param max_bytes: of a file, 32 MiB by default.
    :param max_entries: of a list, 1,000,000 by default.
    :param paths: glob patterns on the path within the mount; ``None`` touches every path.
    :param exclude: patterns of paths to leave alone, looked at after ``paths``.
    :param observer: gets the counters ``ip_allowlist.refused``, ``ip_allowlist.reloaded`` and
        ``ip_allowlist.reload_failed``.
    :param clock: tells the time; ``None``: the event loop's.
    """

    scope_types = frozenset({"http", "websocket"})
    guards = True

    def __init__(
        self,
        app: ASGIApp,
        *,
        allow: AddressList | None = None,
        deny: AddressList | None = None,
        poll: float | None = 2.0,
        interval: float | None = None,
        timeout: float = 30.0,
        max_bytes: int = 32 * 2**20,
        max_entries: int = 1_000_000,
        paths: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        observer: Observer | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(app, paths=paths, exclude=exclude)
        owner = type(self).__name__
        if allow is None and deny is None:
            raise ConfigurationError(f"{owner}: give allow, deny, or both")
        _check_seconds(owner, poll=poll, interval=interval)
        _check_seconds(owner, or_none=False, timeout=timeout)
        _check_most(owner, max_bytes=max_bytes, max_entries=max_entries)
        self._observer = observer = NullObserver() if observer is None else observer
        allowed, denied = (
            source_of(owner, option, given, max_bytes=max_bytes, max_entries=max_entries, timeout=timeout)
            for option, given in (("allow", allow), ("deny", deny))
        )
        self._lists = AddressLists(
            allowed,
            denied,
            poll=poll,
            interval=interval,
            timeout=timeout,
            clock=LoopClock() if clock is None else clock,
            observer=observer,
        )

    # -- lifecycle

    async def startup(self) -> None:
        """Read the lists, and look out for changes.

        :raises ConfigurationError: they cannot be read.
        """
        try:
            await self._lists.open()
        except ListError as error:
            raise ConfigurationError(f"{type(self).__name__}: {error}") from error

    async def shutdown(self) -> None:
        """Nothing runs that requests depend on."""

    async def aclose(self) -> None:
        """Look out for changes no more. Requests are still answered by the lists of then."""
        await self._lists.aclose()

    async def reload(self) -> bool:
        """Read files and functions now, and put what they say in the place of the lists. False where that failed, and
        the lists are as they were: it has been logged. What was written before the call is in it."""
        return await self._lists.reload()

    # -- requests

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        lists = self._lists
        current = lists.current
        if current is None or not lists.opened:
            return self._handle_unopened(scope, receive, send)
        refusal = current.refusal(scope.get("client"))
        return self.app(scope, receive, send) if refusal is None else self._refuse(scope, send, refusal)

    async def _handle_unopened(self, scope: Scope, receive: Receive, send: Send) -> None:
        if await self._lists.ready():
            await self.handle(scope, receive, send)
        else:
            await self._refuse(scope, send, "not_loaded")

    async def _refuse(self, scope: Scope, send: Send, reason: str) -> None:
        self._observer.count("ip_allowlist.refused", reason=reason)
        if logger.isEnabledFor(logging.INFO):
            logger.info("refused: %s, client %s", reason, _address(scope) or "unknown")
        denial = NOT_YET if reason == "not_loaded" else FORBIDDEN
        if scope["type"] == "websocket":
            await deny_websocket(scope, send, denial)
        else:
            await deny(scope, send, denial, soft=denial is NOT_YET)

    def explain(self, scope: Scope) -> AddressExplanation:
        """Why the request of ``scope`` is let in, or would not be, by the lists of now. Give it a scope as it is within
        this middleware, or as a server made it: of one that ``ClientIPMiddleware`` has not seen the client is the peer.
        Neither logged nor counted."""
        given = scope.get("client")
        address = _address(scope)
        lists = self._lists.current
        refusal = "not_loaded" if lists is None else lists.refusal(given)
        decided = None if lists is None else lists.deny if refusal == "denied" else lists.allow
        rule = None if decided is None or address is None else decided.rule(number_of_client(given))
        record = record_of(scope)
        client = None if record is None else record.client
        return AddressExplanation(
            allowed=refusal is None,
            reason=refusal or ("not_denied" if lists is None or lists.allow is None else "allowed"),
            client=address,
            rule=rule,
            peer=client.peer if client is not None else address if given else UNIX,
            header="" if client is None else client.header,
            hops=() if client is None else client.hops,
            found="no ClientIPMiddleware" if client is None else client.reason,
        )


def _address(scope: Scope) -> str | None:
    number = number_of_client(scope.get("client"))
    return None if number == NO_ADDRESS else text_of(number)


def _check_seconds(owner: str, *, or_none: bool = True, **options: object) -> None:
    for option, value in options.items():
        if value is None and or_none:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            expected = "greater than 0 seconds" + (", or None to disable" if or_none else "")
            raise ConfigurationError.option(owner, option, value, expected)


def _check_most(owner: str, **options: object) -> None:
    for option, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise ConfigurationError.option(owner, option, value, "an integer greater than 0")
