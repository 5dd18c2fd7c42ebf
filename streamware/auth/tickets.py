"""Tickets: what a page shows in a URL in place of its token where it can set no header, as with ``EventSource``.

Rules:

1. A ticket is good once, for seconds, at one path, from the origin that asked for it. It stands for the token that it
   was issued for, and that token is verified anew when the ticket is redeemed: one that has expired or was revoked in
   between lets nobody in.
2. The store learns nothing that it could use: a ticket's name there is a hash, and the token is encrypted with a key
   that only the ticket yields.
3. Whoever takes a ticket spends it, also where it then turns out to be used at the wrong place.
4. The number of tickets that wait to be redeemed is bounded, for each principal and in all, by worker; what the store
   holds is bounded by the store.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ..checks import is_number, is_whole
from ..clock import LoopClock
from ..exceptions import ConfigurationError
from ..paths import compile_globs, is_ambiguous, patterns
from ..stores.board import Board
from ..types import Clock
from .principal import Principal
from .verifier import TokenRefused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

T = TypeVar("T")

#: In bytes: with the longest token, what a ticket stands for fits into a store's item.
MAX_PATH = 2048
MAX_ORIGIN = 512
_TICKET = re.compile(r"[A-Za-z0-9_-]{43}").fullmatch  # 32 random bytes in base64url
_PARAMETER = re.compile(r"[A-Za-z0-9._~-]+").fullmatch
_ONCE = bytes(12)  # a nonce need not differ where a key is used once


class Holding(msgspec.Struct, array_like=True):
    """What a ticket stands for, and where it may be shown. ``origin``: of the page that asked; "" where none did."""

    token: str
    path: str
    origin: str


class TooManyTickets(Exception):
    """The principal, or the worker, has as many tickets out as it may. ``retry_after``: seconds until one lapses."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("too many tickets")
        self.retry_after = retry_after


class Tickets:
    """Issues tickets and redeems them.

    :param board: where they wait: any store of Streamware's. Where several workers serve, one that they share, so that
        a ticket is good once among all of them.
    :param path: where a ticket is asked for by ``POST``, within the mount.
    :param parameter: of the query, that carries a ticket.
    :param ttl: seconds that a ticket is good, 30 by default, 300 at most.
    :param paths: glob patterns of the paths for which tickets are issued; ``None`` (default): any.
    :param per_principal: how many tickets of one principal may wait to be redeemed, 16 by default.
    :param total: how many in all, in this worker, 10,000 by default.
    :param revoked: told the principal at the redeeming, beside the verifier: true refuses; ``None``: none is asked.
    :param clock: tells the time; ``None``: the event loop's.
    """

    def __init__(
        self,
        board: Board,
        *,
        path: str = "/_auth/ticket",
        parameter: str = "ticket",
        ttl: float = 30.0,
        paths: Iterable[str] | None = None,
        per_principal: int = 16,
        total: int = 10_000,
        revoked: Callable[[Principal], bool | Awaitable[bool]] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.board = _checked("board", board, _is_board(board), "a store, as MemoryStore()")
        self.path = _checked("path", path, str(path)[:1] == "/", "a path that starts with /")
        self.parameter = _checked(
            "parameter", parameter, _PARAMETER(str(parameter)) is not None, "a name for a parameter"
        )
        self.ttl = _checked("ttl", ttl, is_number(ttl) and 1 <= ttl <= 300, "from 1 to 300 seconds")
        self._paths = compile_globs(patterns("Tickets", "paths", paths))
        self._per_principal = _checked("per_principal", per_principal, is_whole(per_principal), "1 or more")
        self._total = _checked("total", total, is_whole(total), "1 or more")
        self._revoked = _checked("revoked", revoked, revoked is None or callable(revoked), "a callable or None")
        self._clock = LoopClock() if clock is None else clock
        self._started = False
        # Of those issued here, by name: when each lapses, and whose it is. The oldest first: all live equally long.
        self._waiting: dict[bytes, tuple[float, bytes]] = {}
        self._of: Counter[bytes] = Counter()

    async def startup(self) -> None:
        """Open the store. Idempotent, and done at the first use where nobody did."""
        await self.board.start()
        self._started = True

    async def aclose(self) -> None:
        """Close the store, where it can be closed. Idempotent, as a store's own is."""
        self._started = False
        close: Callable[[], Awaitable[None]] | None = getattr(self.board, "aclose", None)
        if close is not None:
            await close()

    def serves(self, path: str) -> bool:
        """Whether tickets are issued for ``path``, which may end in a star."""
        return self._paths is None or self._paths(path) is not None

    async def issue(self, principal: Principal, token: str, *, path: str, origin: str) -> str:
        """A ticket for ``token``, which is ``principal``'s, good at ``path``. A path that ends in a star stands for all
        that begin like it.

        :raises TooManyTickets: a cap is reached.
        :raises StoreError: the store did not take it.
        """
        if not self._started:
            await self.startup()
        now = self._clock.now()
        self._forget(now)
        who = _who(principal)
        if len(self._waiting) >= self._total or self._of[who] >= self._per_principal:
            raise TooManyTickets(self._until_room(who, now))
        secret = secrets.token_bytes(32)
        name, key = _name_and_key(secret)
        self._waiting[name] = (now + self.ttl, who)
        self._of[who] += 1
        holding = msgspec.msgpack.encode(Holding(token, path, origin))
        try:
            await self.board.put(_place(name), _cipher(key).encrypt(_ONCE, holding, None), self.ttl)
        except BaseException:
            self._spent(name)
            raise
        return base64.urlsafe_b64encode(secret).rstrip(b"=").decode("ascii")

    async def redeem(self, ticket: str, *, paths: Iterable[str], origin: str | None, same_origin: bool) -> str:
        """The token that ``ticket`` stands for. From here on the ticket is spent.

        ``paths``: the names of what is asked for, of which it must be good for one. ``origin``: of the page that asks,
        None where the request has none; then ``same_origin`` says whether a page of the server's own may have asked.

        :raises TokenRefused: ``ticket_unknown`` (spent, lapsed, never issued), ``ticket_path``, ``ticket_origin``.
        :raises StoreError: the store did not answer.
        """
        if not _TICKET(ticket):
            raise TokenRefused("ticket_unknown")
        if not self._started:
            await self.startup()
        name, key = _name_and_key(base64.urlsafe_b64decode(ticket + "="))
        sealed = await self.board.take(_place(name))
        self._spent(name)
        if sealed is None:
            raise TokenRefused("ticket_unknown")
        try:
            holding = msgspec.msgpack.decode(_cipher(key).decrypt(_ONCE, sealed, None), type=Holding)
        except Exception:  # whoever writes into the store can make no ticket that is good
            raise TokenRefused("ticket_unknown") from None
        if not any(_covers(holding.path, path) for path in paths):
            raise TokenRefused("ticket_path")
        if origin != holding.origin if origin is not None else not same_origin:
            raise TokenRefused("ticket_origin")
        return holding.token

    async def still_good(self, principal: Principal) -> bool:
        """Whether ``revoked`` has nothing against the principal of a ticket that is redeemed."""
        if self._revoked is None:
            return True
        revoked = self._revoked(principal)
        return not (revoked if isinstance(revoked, bool) else await revoked)

    @property
    def waiting(self) -> int:
        """How many of this worker's tickets wait to be redeemed, as far as it knows."""
        self._forget(self._clock.now())
        return len(self._waiting)

    def _forget(self, now: float) -> None:
        while self._waiting:
            name, (lapses, _) = next(iter(self._waiting.items()))
            if lapses > now:
                return
            self._spent(name)

    def _spent(self, name: bytes) -> None:
        _, who = self._waiting.pop(name, (0.0, b""))
        if who:
            self._of[who] -= 1
            if not self._of[who]:
                del self._of[who]

    def _until_room(self, who: bytes, now: float) -> float:
        full = len(self._waiting) >= self._total
        lapses = (lapses for lapses, whose in self._waiting.values() if full or whose == who)
        return next(lapses) - now


def _covers(pattern: str, path: str) -> bool:
    if not pattern.endswith("*"):
        return path == pattern
    return path.startswith(pattern[:-1]) and not is_ambiguous(path)


def _who(principal: Principal) -> bytes:
    named = f"{principal.issuer}\0{principal.subject}" if principal.subject else ""
    given = named.encode("utf-8", "surrogatepass") or principal.token_hash
    return hashlib.sha256(given).digest()


def _name_and_key(secret: bytes) -> tuple[bytes, bytes]:
    """The ticket's name in the store, and the key to what it stands for: neither tells the other."""
    return hashlib.sha256(b"streamware ticket name\0" + secret).digest(), hashlib.sha256(
        b"streamware ticket key\0" + secret
    ).digest()


def _cipher(key: bytes) -> AESGCM:
    # Not before a ticket is asked for: whoever uses none need not load it.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _place(name: bytes) -> str:
    return f"ticket:{name.hex()}"


def _checked(option: str, received: T, good: bool, expected: str) -> T:
    if not good:
        raise ConfigurationError.option("Tickets", option, received, expected)
    return received


def _is_board(value: object) -> bool:
    return all(callable(getattr(value, verb, None)) for verb in ("start", "put", "take"))
