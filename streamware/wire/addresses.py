"""IP addresses and networks: strict parsing, one canonical form, and sets of them that are quick to ask.

Rules (numbers in brackets are those of the research that they come from):

1. An address is a number: IPv4 below 2**32, IPv6 behind it, so that both live in one order and one list.
2. ``::ffff:a.b.c.d`` is the IPv4 address (8): dual-stack sockets write it so. Nothing else is folded: what 6to4, NAT64
   or ``::a.b.c.d`` carry inside is said by whoever made the address, not by the network that delivered it.
3. Octets with leading zeros, zones and surrounding space are no address (8). Only a socket's own peer has a zone.
4. What is configured is read strictly (9): bits beyond the prefix, masks in place of lengths, typos and empty lists
   raise, naming the entry.
5. Canonical text is RFC 5952's, the same on every platform; IPv4 within IPv6 is not written with dots.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

# Two conversions without I/O: ``ipaddress`` says the same at five times the cost.
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Final, cast

#: The first IPv6 address, ``::``.
V6: Final = 1 << 32
#: What ``number_of`` says of a text that is no address; in no set.
NO_ADDRESS: Final = -1

_MAPPED: Final = 0xFFFF  # the 96 bits in front of an IPv4 address in ``::ffff:a.b.c.d``
_KEY_BYTES = 18  # (2**128 + 2**32) << 8
_PIECE = 4096
# With so many bounds a table of 65,536 places, 256 KiB, is worth having.
_MANY = 4096

#: Ranges that go by a name, with the names and members that ``proxy-addr`` of Express gave them.
NAMED: dict[str, tuple[str, ...]] = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    "linklocal": ("169.254.0.0/16", "fe80::/10"),
    "uniquelocal": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
}
NAMED["private"] = NAMED["uniquelocal"]

_from_bytes = int.from_bytes


class InvalidEntry(ValueError):
    """An entry of a list of addresses that cannot be meant: ``entry`` as it was given, ``why`` it is refused."""

    def __init__(self, entry: object, why: str) -> None:
        super().__init__(f"{entry!r}: {why}")
        self.entry = entry
        self.why = why


class TooManyEntries(InvalidEntry):
    """There are more entries than a list may have; ``entry`` is the first too many."""


def number_of(text: str) -> int:
    """The number of an address, ``NO_ADDRESS`` for whatever is none. Never raises."""
    try:
        if ":" not in text:
            return _from_bytes(inet_pton(AF_INET, text))
        if "%" in text:  # Windows would take it
            return NO_ADDRESS
        number = _from_bytes(inet_pton(AF_INET6, text))
    except (OSError, ValueError):  # ValueError: NUL, lone surrogates
        return NO_ADDRESS
    return number & 0xFFFFFFFF if number >> 32 == _MAPPED else number + V6


def number_of_client(client: object) -> int:
    """The number of the address in ``scope["client"]``, whose zone, if it has one, is dropped; ``NO_ADDRESS`` where
    there is none. Never raises."""
    if not isinstance(client, (tuple, list)) or not client:
        return NO_ADDRESS
    host = cast("Sequence[object]", client)[0]
    if not isinstance(host, str):
        return NO_ADDRESS
    return number_of(host if "%" not in host or ":" not in host else host.partition("%")[0])


def text_of(number: int) -> str:
    """The canonical text of an address."""
    if number < V6:
        return inet_ntop(AF_INET, number.to_bytes(4))
    number -= V6
    text = inet_ntop(AF_INET6, number.to_bytes(16))
    if "." in text:  # ``::a.b.c.d``: platforms differ in whether they write it so
        return f"::{number >> 16:x}:{number & 0xFFFF:x}"
    return text


def client_of(text: str) -> str:
    """Whom an address is counted as: one of IPv6 as its /64, for whoever has one of these has all of them. A text that
    is no address is itself, as far as it is short."""
    number = number_of(text.partition("%")[0])
    if number == NO_ADDRESS:
        return text[:64]
    return text_of(number) if number < V6 else f"{text_of((number - V6 >> 64 << 64) + V6)}/64"


def network_of(entry: object) -> tuple[int, int]:
    """An address or a CIDR, ``10.0.0.0/8``: its first address, and the length of its prefix.

    :raises InvalidEntry: it is neither, or has bits set beyond its prefix.
    """
    if not isinstance(entry, str):
        raise InvalidEntry(entry, "an address is a text")
    address, slash, given = entry.partition("/")
    number = number_of(address)
    if number == NO_ADDRESS:
        raise InvalidEntry(entry, _what_is_wrong(address))
    # An IPv4 address that was written as IPv6 has an IPv6 length.
    longest = 128 if ":" in address else 32
    length = longest
    if slash:
        length = _LENGTHS.get(given, 129)
        if length > longest:
            raise InvalidEntry(entry, f"what follows the / must be a number of bits from 0 to {longest}")
    if longest == 128 and number < V6:
        if length < 96:
            raise InvalidEntry(entry, "a network of IPv4 and IPv6 addresses: give each its own")
        length -= 96
    bits = (32 if number < V6 else 128) - length
    beyond = (number if number < V6 else number - V6) & ((1 << bits) - 1)
    if beyond:
        raise InvalidEntry(entry, f"bits are set beyond the prefix: {text_of(number - beyond)}/{length} is the network")
    return number, length


def _what_is_wrong(address: str) -> str:
    if address != address.strip():
        return "an address has no space around it"
    if "%" in address:
        return "an address in a list has no zone"
    if any(len(octet) > 1 and octet[0] == "0" and octet.isdigit() for octet in address.split(".")):
        return "octets have no leading zeros"
    return f"neither an IP address, a CIDR, nor one of {', '.join(NAMED)}"


class AddressSet:
    """Addresses, as the fewest ranges that hold them. Immutable: to change it, swap it for another."""

    __slots__ = ("_heads", "_keys", "_lengths", "_v4", "_v6", "size")

    def __init__(self, entries: Iterable[object], *, most: int | None = None) -> None:
        """``entries``: addresses, CIDRs and names of ``NAMED``; ``most``: so many at most.

        :raises InvalidEntry: for the first that is none of these, and where there are none or too many.
        """
        keys: list[int] = []
        for entry in entries:
            if isinstance(entry, str) and entry in NAMED:
                keys += [_key(*network_of(member)) for member in NAMED[entry]]
            else:
                number, length = network_of(entry)
                keys.append(number << 8 | length)
            if most is not None and len(keys) > most:
                raise TooManyEntries(entry, f"there are more than {most} entries")
        if not keys:
            raise InvalidEntry([], "there are no entries")
        keys = _sorted(keys)
        #: How many entries it was made from.
        self.size = len(keys)
        behind = bisect_left(keys, V6 << 8)
        v4, v6 = keys[:behind], keys[behind:]
        # Sorted: the first address within, the first behind, and so on. An odd index means within. An array, where it
        # can be: look-ups in a long one are as fast as the processor finds its parts in memory.
        self._v4 = array("Q", _merged(v4, 32))
        self._v6 = _merged(v6, 128)
        self._heads = _heads(self._v4) if len(self._v4) >= _MANY else None
        # What ``rule`` looks in, packed: as integers they would take three times as much.
        self._keys = b"".join([key.to_bytes(_KEY_BYTES) for key in keys])
        self._lengths = tuple(sorted({key & 0xFF for key in some}, reverse=True) for some in (v4, v6))

    def has(self, number: int) -> bool:
        """Whether the address of that number is in it; ``NO_ADDRESS`` is not."""
        if number >= V6:
            return bisect_right(self._v6, number) & 1 == 1
        heads = self._heads
        if heads is None or number < 0:
            return bisect_right(self._v4, number) & 1 == 1
        high = number >> 16
        return bisect_right(self._v4, number, heads[high], heads[high + 1]) & 1 == 1

    def __contains__(self, address: str) -> bool:
        return self.has(number_of(address))

    @property
    def ranges(self) -> int:
        """How many ranges are left of the entries."""
        return (len(self._v4) + len(self._v6)) // 2

    def rule(self, number: int) -> str | None:
        """The narrowest entry that holds the address of that number, in canonical form; None where none does."""
        base, bits = (0, 32) if number < V6 else (V6, 128)
        for length in self._lengths[number >= V6]:
            first = ((number - base) >> (bits - length) << (bits - length)) + base
            key = _key(first, length).to_bytes(_KEY_BYTES)
            place = bisect_left(range(self.size), key, key=self._key_at)
            if place < self.size and self._key_at(place) == key:
                return text_of(first) if length == bits else f"{text_of(first)}/{length}"
        return None

    def _key_at(self, place: int) -> bytes:
        return self._keys[place * _KEY_BYTES : (place + 1) * _KEY_BYTES]

    def __repr__(self) -> str:
        return f"<AddressSet of {self.size} entries in {self.ranges} ranges>"


def _key(number: int, length: int) -> int:
    """A network as one number, whose order is that of networks: by first address, the wider first."""
    return number << 8 | length


def _sorted(keys: list[int]) -> list[int]:
    """``keys`` in order. Sorted in pieces: one long sort would hold up an event loop in another thread."""
    pivots = sorted(keys[_PIECE::_PIECE])
    pieces: list[list[int]] = [[] for _ in range(len(pivots) + 1)]
    for key in keys:
        pieces[bisect_right(pivots, key)].append(key)
    result: list[int] = []
    for piece in pieces:
        piece.sort()
        result += piece
    return result


def _merged(keys: list[int], bits: int) -> list[int]:
    """The bounds of the ranges that ``keys``, sorted and of one family, come to: what overlaps or touches is one."""
    bounds: list[int] = []
    end = NO_ADDRESS
    for key in keys:
        first = key >> 8
        after = first + (1 << (bits - (key & 0xFF)))
        if first > end:
            bounds += (first, after)
            end = after
        elif after > end:
            bounds[-1] = end = after
    return bounds


def _heads(bounds: array[int]) -> array[int]:
    """For each value of an IPv4 address's upper half, how many of ``bounds`` are below the first of its addresses."""
    counts = [0] * 65_537  # the last for the bound behind the last address
    for bound in bounds:
        counts[bound >> 16] += 1
    return array("I", accumulate(counts[:-1], initial=0))


_LENGTHS = {str(length): length for length in range(129)}
