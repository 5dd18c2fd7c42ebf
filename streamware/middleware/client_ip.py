"""``ClientIPMiddleware``: the client's own address, where proxies stand in front of the server.

What the headers mean is in ``wire/forwarded.py``; here is what becomes of it in the scope. Rules:

1. The server's scope is never changed: what is further in gets a copy, with the client, the scheme and, if asked for,
   the host put in. Servers' access logs show the peer.
2. A client that is unknown is ``None`` in the scope, and the record says why: nobody can take it for the proxy.
3. Where the server has put an address in the peer's place already, nothing is read twice: that is counted, and the
   remedy logged.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Iterable
from typing import Any

from ..exceptions import ConfigurationError
from ..observe import NullObserver, Observer, OnceLog
from ..record import KEY, Client, Record
from ..types import ASGIApp, Receive, Scope, Send
from ..wire import forwarded, headers
from ..wire.addresses import NAMED, AddressSet, InvalidEntry, network_of
from ..wire.forwarded import FORWARDED, MAX_HOPS, UNIX, X_FORWARDED_FOR, Forwarding, Peer
from .base import BaseMiddleware

logger = logging.getLogger("streamware.client_ip")

#: So many peers are remembered. Proxies are few; what comes from everywhere must not become a leak.
PEERS = 1024
#: So many clients as well, by their peer and the header's line, where that is no longer than usual.
KNOWN = 4096
KNOWN_LENGTH = 128
#: No text of an address is longer, zone included.
ADDRESS_LENGTH = 64

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch

#: Reasons that are no cause for a word: nobody forwarded, or somebody did as it should be.
_USUAL = frozenset({"peer", "forwarded"})

_REMEDIES = {
    "ignored": "%(header)s came from %(peer)s, which is not trusted, and was ignored. If that is your proxy, add its "
    "address to ClientIPMiddleware's trusted_proxies; if it is not, this is what the option is for.",
    "rewritten": "The server has put an address from a header in the peer's place (%(peer)s), so %(header)s was not "
    "read again: whom the server trusts is its own setting. Turn that off (uvicorn: --no-proxy-headers, on by default; "
    "daphne: without --proxy-headers), so that ClientIPMiddleware sees the peer.",
    "all_trusted": "Every address in %(header)s, and the peer %(peer)s, is trusted, so the left-most was taken, which "
    "any client within trusted_proxies can forge. Trust the addresses of proxies, not networks that clients are in.",
    "few_hops": "%(header)s has fewer entries than the hops= of ClientIPMiddleware, so the peer %(peer)s was taken for "
    "the client: hops= is too many, or the server can be reached past a proxy.",
}


class ClientIPMiddleware(BaseMiddleware):
    """Puts the address of the client in ``scope["client"]``, and its scheme in ``scope["scheme"]``, as the proxies that
    are trusted forwarded them; everything else that headers claim is ignored.

    Give either ``trusted_proxies`` or ``hops``.

    :param trusted_proxies: the proxies' addresses and CIDRs; ``loopback``, ``linklocal``, ``uniquelocal`` (or
        ``private``) for these ranges; ``unix`` for peers on a unix socket. As few as there are: a client whose own
        address is in it can take any.
    :param hops: how many proxies stand in front of the server, whatever their addresses: 1 to 32. Only where nobody
        can reach the server past them.
    :param header: the one that the proxies set: ``x-forwarded-for`` (default), ``forwarded``, or the name of one with a
        single address, as ``cf-connecting-ip``.
    :param proto: take the scheme from ``X-Forwarded-Proto``, or from ``Forwarded`` where that is the header, as well;
        True by default. The proxies have to set it: what they let through is the client's word.
    :param host: take the host from ``X-Forwarded-Host``, or from ``Forwarded``, in place of ``Host``; False by default.
    :param paths: glob patterns on the path within the mount; ``None`` touches every path.
    :param exclude: patterns of paths to leave alone, looked at after ``paths``.
    :param observer: gets the counters ``client_ip.unknown``, ``client_ip.flagged`` and ``client_ip.ignored``.
    """

    scope_types = frozenset({"http", "websocket"})
    guards = True

    def __init__(
        self,
        app: ASGIApp,
        *,
        trusted_proxies: Iterable[str] | None = None,
        hops: int | None = None,
        header: str = X_FORWARDED_FOR,
        proto: bool = True,
        host: bool = False,
        paths: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(app, paths=paths, exclude=exclude)
        if (trusted_proxies is None) == (hops is None):
            raise ConfigurationError(
                "ClientIPMiddleware: give either trusted_proxies, the addresses of your proxies, or hops, their number"
            )
        header = _header(header)
        if hops is not None:
            _check_hops(hops, header)
        for option, value in (("proto", proto), ("host", host)):
            _check_flag(option, value)
        trusted, unix = (None, False) if trusted_proxies is None else _trusted(trusted_proxies)
        self._forwarding = Forwarding(header, trusted=trusted, unix=unix, hops=hops)
        self._header = header.encode()
        self._least = min(len(header), len(b"x-forwarded-host"))
        self._proto = proto
        self._host = host
        self._observer = NullObserver() if observer is None else observer
        self._advice = OnceLog(logger)
        self._peers: dict[str | None, Peer] = {}
        self._known: dict[tuple[str | None, bytes], Client] = {}

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        given = scope.get("client")
        try:
            # An empty host is granian's way to say that it is a unix socket.
            host, port = (given[0] or None, given[1]) if given else (None, None)
        except (TypeError, LookupError):
            host, port = "", None  # no server's: an address that cannot be read
        try:
            peer = self._peers[host]
        except (KeyError, TypeError):
            peer = self._peer(host)
        # One look at all lines, of which few are as long as the names wanted.
        least, wanted = self._least, self._header
        kept = [line for line in scope["headers"] if len(line[0]) >= least]
        lines: list[bytes] = []
        protos: list[bytes] = []
        for name, value in kept:
            name = name.lower()
            if name == wanted:
                lines.append(value)
            elif name == b"x-forwarded-proto":
                protos.append(value)
        record: Record | None = scope.get(KEY)
        if record is None or record.__class__ is not Record:
            record = Record()
            record.server_scope = scope
        inner = {**scope, KEY: record}
        trusted = peer.trusted
        if not lines:
            client = peer.alone
        elif host is not None and self._is_rewritten(host, port, peer, lines):
            client = self._rewritten(peer)
            trusted = False
        elif trusted:
            client = self._resolved(host, peer, lines)
        else:
            client = self._ignored(peer)
        record.client = client
        if client.address is None:
            inner["client"] = None
        elif client.port is not None:
            inner["client"] = (client.address, client.port)
        elif given.__class__ is not tuple or host != client.address or port.__class__ is not int:
            inner["client"] = (client.address, _number(port))
        if trusted and self._proto:
            self._put_scheme(inner, client, protos)
        if trusted and self._host:
            self._put_host(inner, client, kept)
        if client.reason not in _USUAL:
            self._tell(client)
        return self.app(inner, receive, send)

    # -- the peer

    def _peer(self, host: Any) -> Peer:  # Any: whatever a server has put in the scope
        if host is not None and not isinstance(host, str):
            host = ""
        peer = self._forwarding.peer(host)
        if host is None or len(host) <= ADDRESS_LENGTH:
            if len(self._peers) >= PEERS:
                self._peers.clear()
            self._peers[host] = peer
        return peer

    def _resolved(self, host: str | None, peer: Peer, lines: list[bytes]) -> Client:
        line = lines[0]
        if len(lines) > 1 or len(line) > KNOWN_LENGTH:
            return self._forwarding.resolve(peer, lines)
        client = self._known.get((host, line))
        if client is None:
            client = self._forwarding.resolve(peer, lines)
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[host, line] = client
        return client

    def _is_rewritten(self, host: str, port: object, peer: Peer, lines: list[bytes]) -> bool:
        """Whether the server has taken the address from a header. No socket has the port 0; and that a client says its
        own address and port in a header is as good as never so."""
        if port == 0:
            return True
        if peer.trusted:
            return False
        said = (f"{host}:{port}".encode("latin-1", "replace"), f"[{host}]:{port}".encode("latin-1", "replace"))
        return any(entry.strip(b" \t") in said for entry in lines[-1].rsplit(b",", MAX_HOPS))

    def _rewritten(self, peer: Peer) -> Client:
        # Where it is a proxy's, there is a client behind it that is not known; with hops= it cannot be told.
        address = None if peer.trusted and self._forwarding.hops is None else peer.alone.address
        return Client(address, None, peer.name, "rewritten", flagged=address is not None)

    def _ignored(self, peer: Peer) -> Client:
        address = peer.alone.address
        return Client(address, None, peer.name, "no_address" if address is None else "ignored")

    # -- what goes with the address

    def _put_scheme(self, inner: dict[str, Any], client: Client, protos: list[bytes]) -> None:
        own = self._header == b"forwarded"
        secure = forwarded.forwarded_secure(client) if own else forwarded.secure_of(protos)
        if secure is not None:
            plain = "ws" if inner["type"] == "websocket" else "http"
            inner["scheme"] = plain + "s" if secure else plain

    def _put_host(self, inner: dict[str, Any], client: Client, kept: list[tuple[bytes, bytes]]) -> None:
        if self._header == b"forwarded":
            host = forwarded.forwarded_host(client)
        else:
            host = forwarded.host_of([value for name, value in kept if name.lower() == b"x-forwarded-host"])
        if host is not None:
            inner["headers"] = headers.replaced(inner["headers"], b"host", host)

    # -- telling

    def _tell(self, client: Client) -> None:
        reason = client.reason
        if client.address is None:
            self._observer.count("client_ip.unknown", reason=reason)
        elif client.flagged:
            self._observer.count("client_ip.flagged", reason=reason)
        else:
            self._observer.count("client_ip.ignored", reason=reason)
        remedy = _REMEDIES.get(reason)
        if remedy is not None:
            self._advice.warning(
                reason, remedy, {"header": self._forwarding.header, "peer": client.peer or "no address"}
            )


def _header(given: object) -> str:
    if not isinstance(given, str) or not _TOKEN(given):
        raise _wrong("header", given, "the name of one header")
    return given.lower()


def _check_flag(option: str, given: object) -> None:
    if not isinstance(given, bool):
        raise _wrong(option, given, "True or False")


def _check_hops(given: object, header: str) -> None:
    most = MAX_HOPS if header in (X_FORWARDED_FOR, FORWARDED) else 1
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= most:
        raise _wrong("hops", given, f"from 1 to {most}" if most > 1 else f"1 with the header {header!r}")


def _trusted(given: object) -> tuple[AddressSet | None, bool]:
    """The addresses among ``given``, and whether unix sockets are."""
    expected = 'a list of addresses, CIDRs and names of ranges, as ["127.0.0.1", "10.0.0.0/8", "unix"]'
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise _wrong("trusted_proxies", given, expected)
    entries: list[object] = [*given]
    addresses = [entry for entry in entries if entry != UNIX]
    unix = len(addresses) < len(entries)
    if unix and not addresses:
        return None, True
    try:
        trusted = None if "*" in addresses else AddressSet(addresses)
        everybody = [each for each in addresses if each == "*" or (each not in NAMED and network_of(each)[1] == 0)]
    except InvalidEntry as error:
        raise ConfigurationError(f"ClientIPMiddleware: trusted_proxies must be {expected}: {error}") from error
    if everybody:
        raise ConfigurationError(
            f"ClientIPMiddleware: trusted_proxies must not hold {everybody[0]!r}: every client could take any address. "
            "Where the proxies' addresses are not known, say how many proxies there are: hops=1"
        )
    return trusted, unix


def _number(port: object) -> int:
    try:
        return int(port) if isinstance(port, int | str) else 0
    except ValueError:
        return 0


def _wrong(option: str, received: object, expected: str) -> ConfigurationError:
    return ConfigurationError.option(ClientIPMiddleware.__name__, option, received, expected)
