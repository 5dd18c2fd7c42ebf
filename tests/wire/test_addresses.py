"""Addresses, networks and sets of them, held against ``ipaddress``."""

from __future__ import annotations

import ipaddress
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware.wire.addresses import (
    NAMED,
    NO_ADDRESS,
    V6,
    AddressSet,
    InvalidEntry,
    TooManyEntries,
    network_of,
    number_of,
    number_of_client,
    text_of,
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def model_address(text: str) -> Address | None:
    """What ``text`` is, told by ``ipaddress`` alone."""
    if "%" in text:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def model_networks(entry: str) -> list[Network]:
    """The networks that an entry names.

    :raises ValueError: it names none.
    """
    if entry in NAMED:
        return [ipaddress.ip_network(member) for member in NAMED[entry]]
    network = ipaddress.ip_network(entry)
    if isinstance(network, ipaddress.IPv6Network) and network.overlaps(MAPPED) and network.prefixlen >= 96:
        return [ipaddress.ip_network(f"{network.network_address.ipv4_mapped}/{network.prefixlen - 96}")]
    return [network]


# Addresses close to each other, and to the ends, so that sets of them touch and overlap.
near = st.one_of(
    st.integers(0, 40),
    st.integers(2**32 - 40, 2**32 - 1),
    st.integers(0, 2**32 - 1),
)
v4_addresses = st.one_of(near.map(ipaddress.IPv4Address), st.ip_addresses(v=4))
v6_addresses = st.one_of(
    near.map(ipaddress.IPv6Address),
    near.map(lambda low: ipaddress.IPv6Address(0xFFFF << 32 | low)),
    near.map(lambda low: ipaddress.IPv6Address(2**128 - 1 - low)),
    st.ip_addresses(v=6),
)
addresses = st.one_of(v4_addresses, v6_addresses)


@st.composite
def cidrs(draw: st.DrawFn) -> str:
    address = draw(addresses)
    length = draw(st.integers(0 if address.version == 4 else 97, address.max_prefixlen))
    network = ipaddress.ip_network((int(address), length) if address.version == 6 else f"{address}/{length}", False)
    return str(network)


#: Texts that look like addresses, and some that are.
likely = st.one_of(
    st.text(alphabet="0123456789abcdefABCDEF:.%/[] _xX", max_size=45),
    st.text(max_size=12),
    addresses.map(str),
    addresses.map(lambda address: address.exploded),
    v6_addresses.map(lambda address: f"{address}%eth0"),
    v4_addresses.map(lambda address: f"::{address}"),
    v4_addresses.map(lambda address: f"::ffff:{address}"),
)


# ---- addresses ------------------------------------------------------------------------------------------------------
@given(likely)
def test_exactly_the_texts_that_are_addresses_have_a_number(text: str):
    expected = model_address(text)

    number = number_of(text)

    assert (number == NO_ADDRESS) is (expected is None)
    if expected is not None:
        assert number == int(expected) + (V6 if expected.version == 6 else 0)


@given(addresses)
def test_canonical_text_is_that_of_rfc_5952_and_reads_as_the_same_number(address: Address):
    number = number_of(str(address))

    text = text_of(number)

    assert number_of(text) == number
    assert text == str(getattr(address, "ipv4_mapped", None) or address)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::FFFF:0a00:0001", "10.0.0.1"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("::1", "::1"),
        ("::", "::"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
    ],
)
def test_rule_8_mapped_addresses_are_folded_and_the_rest_is_written_one_way(text: str, canonical: str):
    assert text_of(number_of(text)) == canonical


@pytest.mark.parametrize(
    "text",
    ["64:ff9b::a00:1", "2002:a00:1::1", "::10.0.0.1", "::ffff:0:10.0.0.1", "2001::a00:1"],
    ids=["NAT64", "6to4", "IPv4-compatible", "IPv4-translated", "Teredo"],
)
def test_rule_8_other_carriers_of_an_ipv4_address_are_not_folded(text: str):
    number = number_of(text)

    assert number >= V6
    assert number_of("10.0.0.1") != number
    assert "." not in text_of(number)
    assert text not in AddressSet(["10.0.0.0/8"])


@pytest.mark.parametrize(
    "text",
    ["010.0.0.1", "10.0.0.01", "10.0.0.00", "::ffff:010.0.0.1", "0x0a.0.0.1", "10.1", "167772161", "10.0.0.256"],
)
def test_rule_8_octets_with_leading_zeros_and_other_old_spellings_are_no_address(text: str):
    assert number_of(text) == NO_ADDRESS


@pytest.mark.parametrize("text", ["fe80::1%eth0", "fe80::1%", "::1%1", "10.0.0.1%eth0"])
def test_rule_8_zones_are_refused_but_from_the_peer_and_there_dropped(text: str):
    assert number_of(text) == NO_ADDRESS
    assert number_of_client((text, 1)) == (number_of(text.partition("%")[0]) if ":" in text else NO_ADDRESS)


@pytest.mark.parametrize(
    "text", ["", " ", "10.0.0.1 ", "\t::1", "[::1]", "10.0.0.1:80", "::1\0", "\ud800", "1.2.3.4\n", "١.2.3.4"]
)
def test_what_is_around_an_address_is_not_overlooked(text: str):
    assert number_of(text) == NO_ADDRESS


@pytest.mark.parametrize(
    ("client", "text"),
    [
        (("10.0.0.1", 80), "10.0.0.1"),
        (["10.0.0.1", 80], "10.0.0.1"),
        (("::ffff:10.0.0.1", "80"), "10.0.0.1"),
        (("fe80::1%eth0", 0), "fe80::1"),
    ],
)
def test_the_client_of_a_scope_is_read_in_every_form_that_servers_give_it(client: object, text: str):
    assert text_of(number_of_client(client)) == text


@pytest.mark.parametrize("client", [None, (), [], "10.0.0.1", {0: "10.0.0.1"}, (None, 1), (b"10.0.0.1", 1), 7, ("", 0)])
def test_what_is_no_client_has_no_number(client: object):
    assert number_of_client(client) == NO_ADDRESS


# ---- entries of lists -----------------------------------------------------------------------------------------------
@given(st.one_of(likely, cidrs(), st.builds("{}/{}".format, likely, st.text("0123456789", max_size=4))))
def test_exactly_what_ipaddress_takes_strictly_is_an_entry(entry: str):
    try:
        expected = model_networks(entry)
    except ValueError:
        expected = []
    if "%" in entry or entry in NAMED:
        expected = []
    address, slash, length = entry.partition("/")
    if slash and (not length.isascii() or not length.isdigit() or str(int(length)) != length):
        expected = []  # ``ipaddress`` takes masks, and lengths such as 08
    if ":" in address and expected and expected[0].version == 6 and expected[0].overlaps(MAPPED):
        refused = number_of(address) < V6  # ours is written from within, and reaches beyond what is folded
        expected = [] if refused else expected

    try:
        number, bits = network_of(entry)
    except InvalidEntry:
        assert expected == []
    else:
        assert [f"{text_of(number)}/{bits}"] == [str(network) for network in expected]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("10.0.0.1/8", "bits are set beyond the prefix: 10.0.0.0/8 is the network"),
        ("2001:db8::1/32", "2001:db8::/32 is the network"),
        ("::ffff:10.0.0.1/104", "10.0.0.0/8 is the network"),
        ("10.0.0.0/33", "from 0 to 32"),
        ("10.0.0.0/", "from 0 to 32"),
        ("10.0.0.0/-1", "from 0 to 32"),
        ("10.0.0.0/08", "from 0 to 32"),
        ("10.0.0.0/255.0.0.0", "from 0 to 32"),
        ("::1/129", "from 0 to 128"),
        ("::ffff:0:0/95", "give each its own"),
        ("10.0.0.0 /8", "space"),
        (" 10.0.0.1", "space"),
        ("fe80::1%eth0", "zone"),
        ("010.0.0.1", "leading zeros"),
        ("10.0.0", "neither an IP address"),
        ("loopbak", "nor one of loopback, linklocal, uniquelocal, private"),
        ("Loopback", "neither"),
        ("unix", "neither"),
        ("", "neither"),
        ("*", "neither"),
        (None, "a text"),
        (b"10.0.0.1", "a text"),
        (ipaddress.ip_address("10.0.0.1"), "a text"),
    ],
)
def test_rule_9_an_entry_that_cannot_be_meant_is_refused_by_name(entry: object, said: str):
    with pytest.raises(InvalidEntry) as caught:
        AddressSet(["192.0.2.1", entry, "192.0.2.2"])

    assert repr(entry) in str(caught.value)
    assert said in str(caught.value)


def test_rule_9_an_empty_list_is_refused():
    with pytest.raises(InvalidEntry, match="no entries"):
        AddressSet([])


def test_a_list_has_a_cap_and_may_reach_it():
    entries = [f"10.0.0.{last}" for last in range(5)]

    assert AddressSet(entries, most=5).size == 5
    with pytest.raises(TooManyEntries, match=r"'10.0.0.4': there are more than 4"):
        AddressSet(entries, most=4)


def test_a_list_without_end_is_read_to_the_cap_only():
    read = []

    def entries():
        while True:
            read.append(1)
            yield "10.0.0.1"

    with pytest.raises(TooManyEntries):
        AddressSet(entries(), most=100)

    assert len(read) == 101


@pytest.mark.parametrize(
    ("name", "within", "without"),
    [
        ("loopback", ["127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1"], ["128.0.0.1", "::2", "::"]),
        ("linklocal", ["169.254.0.1", "fe80::1", "febf::1"], ["169.255.0.1", "fec0::1"]),
        ("uniquelocal", ["10.1.2.3", "172.31.0.1", "192.168.0.1", "fd00::1"], ["172.32.0.1", "11.0.0.1", "fe80::1"]),
        ("private", ["10.1.2.3", "172.16.0.1", "192.168.255.1", "fc00::1"], ["9.0.0.1", "192.169.0.1"]),
    ],
)
def test_ranges_go_by_name(name: str, within: list[str], without: list[str]):
    named = AddressSet([name])

    assert [address for address in within if address not in named] == []
    assert [address for address in without if address in named] == []


# ---- sets -----------------------------------------------------------------------------------------------------------
@given(st.lists(st.one_of(cidrs(), addresses.map(str), st.sampled_from(sorted(NAMED))), min_size=1), st.data())
def test_a_set_holds_what_its_entries_hold_and_says_the_narrowest(entries: list[str], data: st.DataObject):
    networks = [network for entry in entries for network in model_networks(entry)]
    made = AddressSet(entries)

    edges = [address for network in networks for address in (network[0], network[-1])]
    beside = [
        type(edge)(int(edge) + step)
        for edge in edges
        for step in (-1, 1)
        if 0 <= int(edge) + step < 2**edge.max_prefixlen
    ]
    for address in data.draw(st.lists(st.sampled_from(edges + beside), max_size=20)) + data.draw(st.lists(addresses)):
        plain = getattr(address, "ipv4_mapped", None) or address
        holding = [network for network in networks if plain.version == network.version and plain in network]

        assert (str(address) in made) is bool(holding)
        rule = made.rule(number_of(str(address)))
        if holding:
            narrowest = max(holding, key=lambda network: network.prefixlen)
            full = narrowest.prefixlen == narrowest.max_prefixlen
            assert rule == (str(narrowest[0]) if full else str(narrowest))
        else:
            assert rule is None


@given(likely)
def test_no_text_that_is_no_address_is_in_any_set(text: str):
    everything = AddressSet(["0.0.0.0/0", "::/0"])

    assert (text in everything) is (model_address(text) is not None)


def test_all_of_ipv4_is_none_of_ipv6_and_the_other_way_round():
    assert "::" not in AddressSet(["0.0.0.0/0"])
    assert "255.255.255.255" in AddressSet(["0.0.0.0/0"])
    assert "10.0.0.1" not in AddressSet(["::/0"])
    assert "::ffff:10.0.0.1" not in AddressSet(["::/0"])
    assert AddressSet(["0.0.0.0/0", "::/0"]).ranges == 2


def test_overlapping_and_adjacent_networks_are_one_range():
    made = AddressSet(["10.0.0.0/25", "10.0.0.128/25", "10.0.0.7", "10.0.1.0/24", "10.0.3.0/24", "10.0.3.0/24"])

    assert (made.size, made.ranges) == (6, 2)
    assert repr(made) == "<AddressSet of 6 entries in 2 ranges>"


def test_a_large_set_says_the_same_as_a_small_one():
    """Beyond some thousand bounds look-ups of IPv4 go through a table."""
    draw = random.Random(4)
    networks = []
    for _ in range(6000):
        length = draw.choice((9, 16, 23, 24, 29, 32))
        networks.append(f"{ipaddress.IPv4Address(draw.getrandbits(length) << (32 - length))}/{length}")
    networks += ["0.0.0.0/30", "255.255.255.0/24", "2001:db8::/32", "::/128"]
    networks = [network for network in networks if not network.endswith("/9")]
    large = AddressSet(networks)
    halves = [AddressSet(networks[start : start + 1500]) for start in range(0, len(networks), 1500)]
    assert large.ranges > 4096 / 2

    asked = [draw.getrandbits(32) for _ in range(20_000)] + [number_of(network.split("/")[0]) for network in networks]
    asked += [NO_ADDRESS, 0, V6 - 1, V6, V6 + 1, number_of("2001:db8::7"), number_of("2001:db9::"), 2**128 + V6 - 1]
    wrong = [number for number in asked if large.has(number) is not any(half.has(number) for half in halves)]

    assert wrong == []
    assert large.has(NO_ADDRESS) is False
