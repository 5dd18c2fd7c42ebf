"""Who a request was forwarded for: X-Forwarded-For, ``Forwarded`` (RFC 7239), or a header with a single address.

Rules (numbers in brackets are those of the research that they come from):

1. Exactly one header is read, the configured one (2), and only where the peer is trusted (1): any client can send it.
2. Repeated lines are one list, in order (3), of 8 KiB and 32 hops at most. It is walked from the right, where the
   nearest proxy wrote. The first address that is not trusted is the client (4).
3. An entry that is no address, empty, ``unknown`` or obfuscated ends the walk: the client is unknown (4). To step over
   it would be to believe whoever stands behind it.
4. All of them trusted: the left-most, flagged (5), for any client within the trusted networks could have written it.
5. With a number of hops the entry so far from the right is taken, whoever the peer is; where there are fewer it is the
   peer, flagged (6).
6. Proto and host are read under the same trust. Of ``Forwarded`` those of the element that the walk ended at, for it
   was written by the last proxy that is trusted. What is there but cannot be read, or is said in two ways, is not
   secure, and is no host.

The reasons of a ``Client``, by what came of it: known: ``peer`` (nobody forwarded), ``ignored`` (the peer is not
trusted, what it forwarded was not read), ``forwarded``; known and flagged: ``all_trusted``, ``few_hops``, ``no_header``
(a trusted peer forwarded nobody), ``rewritten`` (the server has already put an address in the peer's place); unknown:
``invalid``, ``hidden``, ``too_long``, ``too_many``, ``repeated``, ``no_address`` (nor has the peer one), ``rewritten``
(and what it put there is a proxy's).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ..record import Client
from .addresses import NO_ADDRESS, AddressSet, number_of, number_of_client, text_of

X_FORWARDED_FOR: Final = "x-forwarded-for"
FORWARDED: Final = "forwarded"

MAX_BYTES: Final = 8192
MAX_HOPS: Final = 32

#: What ``Client.peer`` says of a socket without addresses.
UNIX: Final = "unix"

_PORT = re.compile(r"[0-9]{1,5}").fullmatch
_HIDDEN_PORT = re.compile(r"_[A-Za-z0-9._-]+").fullmatch
_QUOTED_OR_COMMA = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|,', re.DOTALL)
# One pair of an element, with what separates it from the next. Beyond the grammar: space around the semicolon, and the
# colons and brackets of a node without the quotes that they should have.
_PAIR = re.compile(
    r"""[ \t]* (?: ([!#$%&'*+\-.^_`|~0-9A-Za-z]+) = (?: ([!#-+\--:<-~]+) | "((?:[^"\\]|\\.)*+)" ) )? [ \t]* (?:;|\Z)""",
    re.VERBOSE | re.DOTALL,
).match
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_HOST = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]{0,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?").fullmatch


class Node(NamedTuple):
    """An address that somebody forwarded. ``port``: 0 where none was given, or one that is no number."""

    number: int
    address: str
    port: int


class Peer(NamedTuple):
    """The other end of a socket. ``name``: canonical, ``UNIX``, or None for what cannot be read; ``alone``: the client
    where it forwards nobody."""

    number: int
    name: str | None
    trusted: bool
    alone: Client


class Forwarding:
    """Which header is read, and whom of those that write to it is trusted.

    ``header``: its name in lower case. ``trusted``: the proxies' addresses; ``unix``: so are peers without one.
    ``hops``: in place of both, how many proxies there are.
    """

    __slots__ = ("_entries", "_node", "header", "hops", "trusted", "unix")

    def __init__(
        self, header: str, *, trusted: AddressSet | None = None, unix: bool = False, hops: int | None = None
    ) -> None:
        self.header = header
        self.trusted = trusted
        self.unix = unix
        self.hops = hops
        self._entries: Callable[[Sequence[bytes]], list[str]] | None
        self._node: Callable[[str], Node | None]
        self._entries, self._node = _READERS.get(header, (None, node_of))

    def peer(self, host: str | None) -> Peer:
        """The peer that a server calls ``host``; None: it has no address. Only here a zone is known, and dropped."""
        number = NO_ADDRESS if host is None else number_of_client((host,))
        address = None if number == NO_ADDRESS else text_of(number)
        name = UNIX if host is None else address
        trusted = self.hops is not None or self._trusts(number) or (host is None and self.unix)
        reason = "no_address" if address is None else "no_header" if trusted else "peer"
        return Peer(number, name, trusted, Client(address, None, name, reason, flagged=reason == "no_header"))

    def resolve(self, peer: Peer, lines: Sequence[bytes]) -> Client:
        """Who it was that ``peer``, which is trusted, forwarded. ``lines``: the values of the header, at least one."""
        if (len(lines[0]) if len(lines) == 1 else sum(map(len, lines)) + len(lines) - 1) > MAX_BYTES:
            return Client(None, None, peer.name, "too_long", self.header)
        if self._entries is None:
            return self._only(peer, [line.decode("latin-1").strip(" \t") for line in lines])
        entries = self._entries(lines)
        if self.hops is not None:
            return self._counted(peer, entries, self.hops)
        walked: list[str] = []
        node: Node | None = None
        for entry in reversed(entries[-MAX_HOPS:]):
            walked.append(entry)
            node = self._node(entry)
            if node is None:
                return self._client(peer, walked, None, _why(entry))
            if not self._trusts(node.number):
                return self._client(peer, walked, node, "forwarded")
        if len(entries) > len(walked):
            return self._client(peer, walked, None, "too_many")
        return self._client(peer, walked, node, "all_trusted")

    def _only(self, peer: Peer, entries: list[str]) -> Client:
        """The address of a header that has one: nobody appends to it, so what comes twice is not the proxy's alone."""
        node = self._node(entries[0]) if len(entries) == 1 else None
        reason = "repeated" if len(entries) > 1 else "forwarded" if node is not None else _why(entries[0])
        return self._client(peer, entries[:MAX_HOPS], node, reason)

    def _counted(self, peer: Peer, entries: list[str], hops: int) -> Client:
        walked = entries[: -hops - 1 : -1]
        if len(walked) < hops:
            reason = "few_hops" if peer.number != NO_ADDRESS else "no_address"
            return Client(peer.alone.address, None, peer.name, reason, self.header, tuple(walked), reason == "few_hops")
        node = self._node(walked[-1])
        return self._client(peer, walked, node, _why(walked[-1]) if node is None else "forwarded")

    def _client(self, peer: Peer, walked: list[str], node: Node | None, reason: str) -> Client:
        if node is None:
            return Client(None, None, peer.name, reason, self.header, tuple(walked))
        flagged = reason == "all_trusted"
        return Client(node.address, node.port, peer.name, reason, self.header, tuple(walked), flagged)

    def _trusts(self, number: int) -> bool:
        return self.trusted is not None and self.trusted.has(number)


def node_of(text: str) -> Node | None:
    """The address, with or without a port, that ``text`` is: ``192.0.2.1``, ``192.0.2.1:80``, ``2001:db8::1``,
    ``[2001:db8::1]``, ``[2001:db8::1]:80``; None for whatever is none of these."""
    address = text
    port = ""
    if ":" in text:
        if text[0] == "[":
            address, closed, port = text[1:].partition("]")
            if not closed or ":" not in address or (port and port[0] != ":"):
                return None
        elif text.count(":") == 1:
            address, _, port = text.partition(":")
            port = ":" + port
    number = number_of(address)
    if number == NO_ADDRESS:
        return None
    if ":" in address:
        address = text_of(number)
    if not port:
        return Node(number, address, 0)
    if not _PORT(port, 1) or int(port[1:]) > 65_535:
        return None
    return Node(number, address, int(port[1:]))


def forwarded_parameters(element: str) -> dict[str, str] | None:
    """The parameters of one element of ``Forwarded`` by lower-case name; None where it does not keep to the grammar, or
    gives one of them twice."""
    parameters: dict[str, str] = {}
    place = 0
    while place < len(element):
        found = _PAIR(element, place)
        if found is None:
            return None
        place = found.end()
        name, plain, quoted = found.groups()
        if name is not None:
            if name.lower() in parameters:
                return None
            parameters[name.lower()] = _ESCAPED.sub(r"\1", quoted) if plain is None else plain
    return parameters


def secure_of(values: Sequence[bytes]) -> bool | None:
    """Whether all of ``values``, lines of X-Forwarded-Proto, say that the client's own connection was secure; None
    where there are none."""
    if len(values) == 1 and (known := _SECURE.get(values[0])) is not None:
        return known
    if not values:
        return None
    return all(value.strip(b" \t").lower() in (b"https", b"wss") for line in values for value in line.split(b","))


def host_of(values: Sequence[bytes]) -> bytes | None:
    """The one host that ``values``, lines of X-Forwarded-Host, name; None where it is none, or not one."""
    hosts = {value.strip(b" \t") for line in values for value in line.split(b",")}
    if len(hosts) != 1:
        return None
    (host,) = hosts
    return host if _HOST(host.decode("latin-1")) else None


def forwarded_secure(client: Client) -> bool | None:
    """As ``secure_of``, of the element of ``Forwarded`` that ``client`` was found by."""
    if not client.hops:
        return False if client.reason == "too_long" else None
    parameters = forwarded_parameters(client.hops[-1])
    if parameters is None:
        return False
    proto = parameters.get("proto")
    return None if proto is None else proto.lower() in ("https", "wss")


def forwarded_host(client: Client) -> bytes | None:
    """As ``host_of``, of the element of ``Forwarded`` that ``client`` was found by."""
    parameters = forwarded_parameters(client.hops[-1]) if client.hops else None
    host = parameters.get("host", "") if parameters else ""
    return host.encode("latin-1") if _HOST(host) else None


def _why(entry: str) -> str:
    """Why an entry is no address: it hides one on purpose, or is not understood."""
    parameters = forwarded_parameters(entry)
    name = entry if not parameters else parameters.get("for", "")
    return "hidden" if name.startswith("_") or name.partition(":")[0].lower() == "unknown" else "invalid"


def _x_forwarded_for(lines: Sequence[bytes]) -> list[str]:
    """The entries, in order: of those in front of the last 32 the first stands for all."""
    joined = lines[0] if len(lines) == 1 else b",".join(lines)
    return [entry.strip(" \t") for entry in joined.decode("latin-1").rsplit(",", MAX_HOPS)]


def _forwarded(lines: Sequence[bytes]) -> list[str]:
    """The elements, in order. Line by line: a quote that is never closed must not swallow what a proxy added."""
    elements: list[str] = []
    for line in lines:
        text = line.decode("latin-1")
        start = 0
        for found in _QUOTED_OR_COMMA.finditer(text):
            if found[0] == ",":
                elements.append(text[start : found.start()].strip(" \t"))
                start = found.end()
        elements.append(text[start:].strip(" \t"))
    return elements


def _forwarded_node(element: str) -> Node | None:
    """The address that an element is ``for``. IPv6 stands in brackets (RFC 7239, section 6); a port may be hidden."""
    name = (forwarded_parameters(element) or {}).get("for", "")
    if ":" not in name:
        return node_of(name)
    host, _, port = name.rpartition(":")
    if _HIDDEN_PORT(port):
        name = host
    return node_of(name) if name.startswith("[") or name.count(":") <= 1 else None


_SECURE = {b"https": True, b"http": False}
_READERS = {X_FORWARDED_FOR: (_x_forwarded_for, node_of), FORWARDED: (_forwarded, _forwarded_node)}
