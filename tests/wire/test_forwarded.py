"""Who a request was forwarded for: a table for each rule, and everything else against a model made of ``ipaddress``."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamware.record import Client
from streamware.wire import forwarded
from streamware.wire.addresses import AddressSet
from streamware.wire.forwarded import Forwarding, forwarded_host, forwarded_secure, host_of, secure_of

TRUSTED = ["10.0.0.0/8", "2001:db8:1::/48", "fe80::/10"]
XFF = "x-forwarded-for"


def resolve(
    *lines: str, peer: str | None = "10.0.0.1", header: str = XFF, hops: int | None = None, unix: bool = False
) -> Client:
    """Who ``peer`` forwarded, if it is trusted."""
    trusted = AddressSet(TRUSTED) if hops is None else None
    forwarding = Forwarding(header, trusted=trusted, unix=unix, hops=hops)
    known = forwarding.peer(peer)
    return (
        forwarding.resolve(known, [line.encode("latin-1") for line in lines])
        if known.trusted and lines
        else known.alone
    )


def found(client: Client) -> tuple[str | None, str]:
    return client.address, client.reason


# ---- rule 1 ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.0.0.1", True),
        ("::ffff:10.0.0.1", True),
        ("fe80::1%eth0", True),
        ("2001:db8:1::7", True),
        ("11.0.0.1", False),
        ("2001:db8:2::7", False),
        ("::10.0.0.1", False),
        ("testclient", False),
        ("", False),
        ("10.0.0.1:80", False),
        ("010.0.0.1", False),
        (None, False),
    ],
)
def test_rule_1_only_a_trusted_peer_is_heard(peer: str | None, trusted: bool):
    assert Forwarding(XFF, trusted=AddressSet(TRUSTED)).peer(peer).trusted is trusted


@pytest.mark.parametrize(
    ("peer", "address", "name", "reason", "flagged"),
    [
        ("203.0.113.7", "203.0.113.7", "203.0.113.7", "peer", False),
        ("::ffff:203.0.113.7", "203.0.113.7", "203.0.113.7", "peer", False),
        ("2001:DB8::0:7", "2001:db8::7", "2001:db8::7", "peer", False),
        ("fe81::1%wlan0", "fe81::1", "fe81::1", "no_header", True),
        ("10.0.0.1", "10.0.0.1", "10.0.0.1", "no_header", True),
        ("testclient", None, None, "no_address", False),
        (None, None, "unix", "no_address", False),
    ],
)
def test_a_peer_that_forwards_nobody_is_the_client(
    peer: str | None, address: str | None, name: str | None, reason: str, flagged: bool
):
    client = resolve(peer=peer)

    assert (client.address, client.port, client.peer, client.reason, client.flagged) == (
        address, None, name, reason, flagged,
    )  # fmt: skip
    assert (client.header, client.hops) == ("", ())


# Rule 2, that there is one header, is tested where there are others: tests/middleware/test_client_ip.py.


# ---- rules 3 and 4 --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("lines", "address", "port"),
    [
        (["203.0.113.7"], "203.0.113.7", 0),
        ([" 203.0.113.7\t"], "203.0.113.7", 0),
        (["203.0.113.7:4711"], "203.0.113.7", 4711),
        (["203.0.113.7:00080"], "203.0.113.7", 80),
        (["2001:DB8::7"], "2001:db8::7", 0),
        (["[2001:db8::7]"], "2001:db8::7", 0),
        (["[2001:db8::7]:443"], "2001:db8::7", 443),
        (["::ffff:203.0.113.7"], "203.0.113.7", 0),
        (["[::ffff:203.0.113.7]:1"], "203.0.113.7", 1),
        (["198.51.100.1, 203.0.113.7"], "203.0.113.7", 0),
        (["198.51.100.1,203.0.113.7,10.0.0.2"], "203.0.113.7", 0),
        (["203.0.113.7, ::ffff:10.0.0.2"], "203.0.113.7", 0),
        (["203.0.113.7, [2001:db8:1::2]:80, 10.0.0.2:90"], "203.0.113.7", 0),
        (["198.51.100.1", "203.0.113.7", "10.0.0.2"], "203.0.113.7", 0),
        (["198.51.100.1, 203.0.113.7", "10.0.0.2, 10.0.0.3"], "203.0.113.7", 0),
        (["unknown, <script>, 203.0.113.7"], "203.0.113.7", 0),
        (["", "203.0.113.7"], "203.0.113.7", 0),
        (["\xff\xfe, 203.0.113.7"], "203.0.113.7", 0),
    ],
)
def test_rules_3_and_4_the_first_address_from_the_right_that_is_not_trusted_is_the_client(
    lines: list[str], address: str, port: int
):
    client = resolve(*lines)

    assert (client.address, client.port, client.reason, client.flagged) == (address, port, "forwarded", False)
    assert (client.peer, client.header) == ("10.0.0.1", XFF)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("unknown", "hidden"),
        ("Unknown", "hidden"),
        ("_hidden", "hidden"),
        ("", "invalid"),
        (" ", "invalid"),
        ("localhost", "invalid"),
        ("<script>", "invalid"),
        ("010.0.0.1", "invalid"),
        ("10.0.0.1/8", "invalid"),
        ("10.0.0.256", "invalid"),
        ("10.0.0.1:", "invalid"),
        ("10.0.0.1:http", "invalid"),
        ("10.0.0.1:65536", "invalid"),
        ("10.0.0.1:123456", "invalid"),
        ("10.0.0.1:_p", "invalid"),
        ("10.0.0.1:80:90", "invalid"),
        ("[10.0.0.1]", "invalid"),
        ("[::1", "invalid"),
        ("::1]", "invalid"),
        ("[::1]80", "invalid"),
        ("[::1]:", "invalid"),
        ("[]", "invalid"),
        (":80", "invalid"),
        ('"10.0.0.1"', "invalid"),
        ("fe80::1%eth0", "invalid"),
        ("[fe80::1%25eth0]", "invalid"),
        ("10.0.0.1 10.0.0.2", "invalid"),
        ("10.0.0.1\x0b", "invalid"),
        ("\u00b2.0.0.1", "invalid"),
        ("10.0.0.1:\u00b2", "invalid"),
        ("10.0.0.1\0", "invalid"),
    ],
)
def test_rule_4_what_is_no_address_ends_the_walk_and_is_not_stepped_over(entry: str, reason: str):
    client = resolve(f"203.0.113.7, {entry}, 10.0.0.2")

    assert found(client) == (None, reason)
    assert client.hops == ("10.0.0.2", entry.strip(" \t"))


# ---- rule 3: caps ---------------------------------------------------------------------------------------------------
def test_rule_3_eight_kib_are_read_and_no_more():
    room = forwarded.MAX_BYTES - len("203.0.113.7,")

    assert found(resolve("x" * room + ",203.0.113.7")) == ("203.0.113.7", "forwarded")
    assert found(resolve("x" * (room + 1) + ",203.0.113.7")) == (None, "too_long")
    assert found(resolve("x" * room, "203.0.113.7")) == ("203.0.113.7", "forwarded")
    assert found(resolve("x" * room, "", "203.0.113.7")) == (None, "too_long")
    assert found(resolve("," * 8192 + "203.0.113.7")) == (None, "too_long")


@pytest.mark.parametrize("header", [XFF, "forwarded"])
def test_rule_3_thirty_two_hops_are_walked_and_no_more(header: str):
    def chain(first: str, proxies: int) -> str:
        mark = "for=" if header == "forwarded" else ""
        return ", ".join([mark + first, *[f"{mark}10.0.0.{last}" for last in range(proxies)]])

    assert found(resolve(chain("203.0.113.7", 31), header=header)) == ("203.0.113.7", "forwarded")
    assert found(resolve(chain("203.0.113.7", 32), header=header)) == (None, "too_many")
    assert found(resolve(chain("10.9.9.9", 31), header=header)) == ("10.9.9.9", "all_trusted")
    assert found(resolve(chain("10.9.9.9", 32), header=header)) == (None, "too_many")
    assert len(resolve(chain("10.9.9.9", 200), header=header).hops) == 32


# ---- rule 5 ---------------------------------------------------------------------------------------------------------
def test_rule_5_where_all_are_trusted_the_left_most_is_taken_and_flagged():
    client = resolve("10.1.1.1:7, 10.2.2.2", "2001:db8:1::3")

    assert (client.address, client.port, client.reason, client.flagged) == ("10.1.1.1", 7, "all_trusted", True)
    assert client.hops == ("2001:db8:1::3", "10.2.2.2", "10.1.1.1:7")


# ---- rule 6 ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("peer", ["10.0.0.1", "192.0.2.1", None, "testclient"])
@pytest.mark.parametrize(
    ("hops", "address"), [(1, "203.0.113.7"), (2, "198.51.100.1"), (3, None), (4, None), (5, "192.0.2.77")]
)
def test_rule_6_so_many_hops_from_the_right_whoever_the_peer_is(peer: str | None, hops: int, address: str | None):
    client = resolve("192.0.2.77, unknown, 010.0.0.1", "198.51.100.1", "203.0.113.7", hops=hops, peer=peer)

    assert client.address == address
    assert len(client.hops) == hops
    assert not client.flagged


def test_rule_6_fewer_entries_than_hops_is_the_peer_flagged():
    client = resolve("203.0.113.7", hops=2, peer="::ffff:192.0.2.1")

    assert (client.address, client.port, client.reason, client.flagged) == ("192.0.2.1", None, "few_hops", True)
    assert client.hops == ("203.0.113.7",)


@pytest.mark.parametrize("peer", [None, "testclient"])
def test_rule_6_and_unknown_where_the_peer_has_no_address(peer: str | None):
    client = resolve("203.0.113.7", hops=2, peer=peer)

    assert (client.address, client.reason, client.flagged) == (None, "no_address", False)


def test_rule_6_with_more_entries_than_can_be_walked_the_right_one_is_taken():
    entries = [f"192.0.2.{last}" for last in range(100)]

    for header, mark in ((XFF, ""), ("forwarded", "for=")):
        line = ", ".join(mark + entry for entry in entries)
        for hops in (1, 2, 31, 32):
            assert resolve(line, header=header, hops=hops).address == entries[-hops]


# ---- rule 7 ---------------------------------------------------------------------------------------------------------
def test_rule_7_a_unix_socket_is_trusted_only_if_it_is_listed():
    assert found(resolve("203.0.113.7", peer=None)) == (None, "no_address")
    assert found(resolve("203.0.113.7", peer=None, unix=True)) == ("203.0.113.7", "forwarded")
    assert found(resolve("203.0.113.7, 10.0.0.2", peer=None, unix=True)) == ("203.0.113.7", "forwarded")
    assert found(resolve(peer=None, unix=True)) == (None, "no_address")
    assert found(resolve("203.0.113.7", peer="", unix=True)) == (None, "no_address")
    assert resolve("203.0.113.7", peer=None, unix=True).peer == "unix"


# ---- headers with one address ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("lines", "address", "reason"),
    [
        (["203.0.113.7"], "203.0.113.7", "forwarded"),
        (["2001:DB8::7"], "2001:db8::7", "forwarded"),
        (["10.0.0.9"], "10.0.0.9", "forwarded"),
        (["203.0.113.7", "203.0.113.7"], None, "repeated"),
        (["203.0.113.7, 203.0.113.7"], None, "invalid"),
        (["unknown"], None, "hidden"),
        ([""], None, "invalid"),
        (["for=203.0.113.7"], None, "invalid"),
        (["x" * 8193], None, "too_long"),
    ],
)
@pytest.mark.parametrize("hops", [None, 1])
def test_a_header_with_a_single_address_has_exactly_one(
    lines: list[str], address: str | None, reason: str, hops: int | None
):
    client = resolve(*lines, header="cf-connecting-ip", hops=hops)

    assert found(client) == (address, reason)


# ---- Forwarded ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("lines", "address", "port"),
    [
        (["for=203.0.113.7"], "203.0.113.7", 0),
        (["For=203.0.113.7;proto=https;by=10.0.0.1"], "203.0.113.7", 0),
        (["proto=https ; host=a ; for=203.0.113.7"], "203.0.113.7", 0),
        (["for=203.0.113.7;"], "203.0.113.7", 0),
        ([";;for=203.0.113.7"], "203.0.113.7", 0),
        (['for="203.0.113.7:4711"'], "203.0.113.7", 4711),
        (['for="[2001:db8::7]"'], "2001:db8::7", 0),
        (['for="[2001:db8::7]:4711"'], "2001:db8::7", 4711),
        (['for="[2001:db8::7]:_port"'], "2001:db8::7", 0),
        (['for="203.0.113.7:_port"'], "203.0.113.7", 0),
        (["for=203.0.113.7:4711"], "203.0.113.7", 4711),
        (["for=[2001:db8::7]:4711"], "2001:db8::7", 4711),
        (['for="\\2\\03.0.113.7"'], "203.0.113.7", 0),
        (["for=198.51.100.1, for=203.0.113.7, for=10.0.0.2"], "203.0.113.7", 0),
        (["for=198.51.100.1", 'for=203.0.113.7,for="[2001:db8:1::9]"'], "203.0.113.7", 0),
        (['for=1.1.1.1;x="a,b", for=203.0.113.7;x=", for=8.8.8.8"'], "203.0.113.7", 0),
        (["rubbish, for=203.0.113.7"], "203.0.113.7", 0),
        (['for="', "for=203.0.113.7"], "203.0.113.7", 0),
        (['for=203.0.113.7;host="a\\"b"'], "203.0.113.7", 0),
    ],
)
def test_rule_3_elements_of_forwarded_are_read_by_its_grammar(lines: list[str], address: str, port: int):
    client = resolve(*lines, header="forwarded")

    assert (client.address, client.port, client.reason) == (address, port, "forwarded")


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        ("for=unknown", "hidden"),
        ('for="unknown:80"', "hidden"),
        ("for=_gazonk", "hidden"),
        ('for="_gazonk:80";proto=https', "hidden"),
        ("", "invalid"),
        ("203.0.113.7", "invalid"),
        ("for", "invalid"),
        ("for=", "invalid"),
        ('for=""', "invalid"),
        ("for =203.0.113.7", "invalid"),
        ("for= 203.0.113.7", "invalid"),
        ("proto=https", "invalid"),
        ("by=203.0.113.7", "invalid"),
        ("for=203.0.113.7;for=203.0.113.7", "invalid"),
        ("for=203.0.113.7;FOR=203.0.113.8", "invalid"),
        ("for=203.0.113.7 for=203.0.113.8", "invalid"),
        ("for=2001:db8::7", "invalid"),
        ('for="2001:db8::7"', "invalid"),
        ('for="203.0.113.7"x', "invalid"),
        ('for="203.0.113.7', "invalid"),
        ('for="203.0.113.7\\"', "invalid"),
        ("for='203.0.113.7'", "invalid"),
        ('for=" 203.0.113.7"', "invalid"),
        ('for="203.0.113.7:99999"', "invalid"),
        ('for="203.0.113.7:_"', "invalid"),
        ('for="[203.0.113.7]"', "invalid"),
        ("f\u00f6r=203.0.113.7", "invalid"),
    ],
)
def test_rule_4_what_is_no_element_for_an_address_ends_the_walk(element: str, reason: str):
    client = resolve(f"for=198.51.100.1, {element}", header="forwarded")

    assert found(client) == (None, reason)


@pytest.mark.parametrize("added", ["for=203.0.113.7", 'for="[2001:db8::9]";proto=http', 'for="203.0.113.7:80"'])
@pytest.mark.parametrize("sent", ['for="', 'for=9.9.9.9;x="', 'for=9.9.9.9;x="\\', '"', 'for=9.9.9.9,x="'])
def test_a_quote_that_a_client_leaves_open_does_not_hide_what_the_proxy_appends(sent: str, added: str):
    client = resolve(f"{sent}, {added}", header="forwarded")

    assert client.address != "9.9.9.9"
    assert client.address is None


# ---- proto and host -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("lines", "secure"),
    [
        ([], None),
        (["https"], True),
        (["HTTPS "], True),
        (["wss"], True),
        (["https,https"], True),
        (["https", " https"], True),
        (["http"], False),
        (["ws"], False),
        (["https, http"], False),
        (["http, https"], False),
        (["https", "http"], False),
        ([""], False),
        (["https,"], False),
        (["on"], False),
        (["https\x0b"], False),
        (["javascript"], False),
    ],
)
def test_proto_is_secure_only_where_every_word_of_it_is(lines: list[str], secure: bool | None):
    assert secure_of([line.encode() for line in lines]) is secure


@pytest.mark.parametrize(
    ("lines", "host"),
    [
        (["chat.example"], "chat.example"),
        ([" chat.example:8443 "], "chat.example:8443"),
        (["[2001:db8::7]:8443"], "[2001:db8::7]:8443"),
        (["192.0.2.1"], "192.0.2.1"),
        (["chat.example, chat.example"], "chat.example"),
        (["chat.example, evil.example"], None),
        (["chat.example", "evil.example"], None),
        ([], None),
        ([""], None),
        (["chat.example/x"], None),
        (["user@chat.example"], None),
        (["chat.example:"], None),
        (["chat.example:123456"], None),
        (["chat example"], None),
        (["-chat.example"], None),
        (["<script>"], None),
        (["ch\u00e4t.example"], None),
        (["x" * 255], None),
        (["chat.example\n"], None),
    ],
)
def test_there_is_a_host_where_exactly_one_is_named(lines: list[str], host: str | None):
    assert host_of([line.encode("latin-1") for line in lines]) == (None if host is None else host.encode())


@pytest.mark.parametrize(
    ("line", "secure", "host"),
    [
        ("for=203.0.113.7;proto=https;host=chat.example", True, b"chat.example"),
        ("for=203.0.113.7;Proto=HTTPS;Host=chat.example", True, b"chat.example"),
        ('for=203.0.113.7;proto=http;host="chat.example:8000"', False, b"chat.example:8000"),
        ("for=203.0.113.7", None, None),
        ("for=203.0.113.7;proto=;host=chat.example", False, None),
        ("for=203.0.113.7;proto=https;proto=https", False, None),
        ('for=203.0.113.7;host="<script>"', None, None),
        ("for=_hidden;proto=https;host=chat.example", True, b"chat.example"),
        ("for=9.9.9.9;proto=https;host=evil, for=203.0.113.7;proto=http;host=chat.example", False, b"chat.example"),
        ("for=203.0.113.7;proto=https;host=chat.example, for=10.0.0.2;proto=http;host=inner", True, b"chat.example"),
        ("for=9.9.9.9;proto=https, rubbish", False, None),
        ('for=9.9.9.9;proto=https;x=", for=203.0.113.7;proto=http', False, None),
        ("for=203.0.113.7;proto=https;x=" + "x" * 8192, False, None),
    ],
)
def test_proto_and_host_of_forwarded_are_those_of_the_element_that_decided(
    line: str, secure: bool | None, host: bytes | None
):
    client = resolve(line, header="forwarded")

    assert forwarded_secure(client) is secure
    assert forwarded_host(client) == host


def test_of_a_peer_that_forwards_nobody_nothing_is_known():
    client = resolve(header="forwarded")

    assert forwarded_secure(client) is None
    assert forwarded_host(client) is None


# ---- against a model ------------------------------------------------------------------------------------------------
def model_node(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address of an entry of X-Forwarded-For, or of the ``for`` of an element once it is unquoted."""
    for pattern in (
        r"([^:\[\]]*)(?::(\d{1,5}))?",
        r"\[([^\[\]]*:[^\[\]]*)\](?::(\d{1,5}))?",
        r"([^\[\]]*:[^\[\]]*:[^\[\]]*)",
    ):
        match = re.fullmatch(pattern, text, re.ASCII)
        if match is not None and "%" not in text:
            groups = match.groups()
            try:
                address = ipaddress.ip_address(groups[0])
            except ValueError:
                continue
            if len(groups) == 2 and groups[1] is not None and int(groups[1]) > 65535:
                continue
            return getattr(address, "ipv4_mapped", None) or address
    return None


def model_trusts(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    networks = [ipaddress.ip_network(network) for network in TRUSTED]
    return any(address.version == network.version and address in network for network in networks)


def model_walk(nodes: list[ipaddress.IPv4Address | ipaddress.IPv6Address | None]) -> str | None:
    """Rules 4 and 5, from the right."""
    for steps, node in enumerate(reversed(nodes), start=1):
        if node is None or steps > 32:
            return None
        if not model_trusts(node):
            return str(node)
    return str(nodes[0])


entries = st.one_of(
    st.sampled_from(
        [
            "10.0.0.2",
            "203.0.113.7",
            "2001:db8:1::9",
            "[2001:db8::7]:80",
            "::ffff:10.0.0.3",
            "unknown",
            "_x",
            "",
            "10.0.0.2:1",
        ]
    ),
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]:443"),
    st.text(alphabet='0123456789abcdef.:[]% _x"', max_size=20),
    st.text(alphabet=st.characters(max_codepoint=255, exclude_characters=","), max_size=10),
)


@given(st.lists(st.lists(entries, min_size=1, max_size=40).map(",".join), min_size=1, max_size=3))
@example(["10.0.0.2," * 31 + "10.0.0.2"])
@example(["10.0.0.2," * 32 + "10.0.0.2"])
@example(["203.0.113.7", "10.0.0.2," * 31 + "10.0.0.2"])
def test_no_header_is_read_otherwise_than_by_the_model(lines: list[str]):
    joined = ",".join(lines)
    expected = None
    if len(joined.encode("latin-1")) <= 8192:
        expected = model_walk([model_node(entry.strip(" \t")) for entry in joined.split(",")])

    client = resolve(*lines)

    assert client.address == expected


@given(st.lists(st.lists(entries, min_size=1, max_size=6).map(",".join), min_size=1, max_size=3), st.integers(1, 8))
def test_nor_with_a_number_of_hops(lines: list[str], hops: int):
    split = ",".join(lines).split(",")
    expected = "192.0.2.1"
    if len(split) >= hops:
        node = model_node(split[-hops].strip(" \t"))
        expected = None if node is None else str(node)

    assert resolve(*lines, hops=hops, peer="192.0.2.1").address == expected


nodes = st.one_of(
    st.sampled_from(["10.0.0.2", "203.0.113.7", "[2001:db8::7]:80", "[2001:db8:1::9]", "unknown", "_x"]),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
)
quoted = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=12).map(
    lambda text: '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
)
pairs = st.one_of(
    st.builds("{}={}".format, st.sampled_from(["proto", "by", "host", "x"]), st.one_of(st.just("a"), quoted)),
)


@st.composite
def elements(draw: st.DrawFn) -> tuple[str, str]:
    """An element by the grammar, and its node."""
    node = draw(nodes)
    written = draw(st.sampled_from([node, f'"{node}"'])) if ":" not in node else f'"{node}"'
    others = {pair.partition("=")[0]: pair for pair in draw(st.lists(pairs, max_size=3))}
    chosen = draw(st.permutations([f"{draw(st.sampled_from(['for', 'For', 'FOR']))}={written}", *others.values()]))
    return ";".join(chosen), node


@given(st.lists(st.lists(elements(), min_size=1, max_size=5), min_size=1, max_size=3))
def test_what_the_grammar_of_forwarded_makes_is_read_as_it_was_meant(lines: list[list[tuple[str, str]]]):
    written = [", ".join(element for element, _ in line) for line in lines]
    expected = model_walk([model_node(node) for line in lines for _, node in line])

    assert resolve(*written, header="forwarded").address == expected


@given(st.text(alphabet='for=by;," \\[]:_x10.unkow', max_size=60), st.sampled_from(["203.0.113.7", '"[2001:db8::5]"']))
def test_whatever_a_client_sends_the_proxys_own_line_decides_and_on_its_line_nothing_else_is_believed(
    sent: str, node: str
):
    own = f"for={node}"
    written = str(model_node(node.strip('"')))

    apart = resolve(sent, own, header="forwarded")
    joined = resolve(f"{sent}, {own}", header="forwarded")

    assert apart.address == written
    assert joined.address in (written, None)


@given(
    st.lists(st.binary(max_size=200), max_size=4),
    st.one_of(st.none(), st.text(max_size=50), st.just("10.0.0.1")),
    st.sampled_from([XFF, "forwarded", "x-real-ip"]),
    st.sampled_from([None, 1]),
)
def test_no_bytes_are_an_exception(lines: list[bytes], peer: str | None, header: str, hops: int | None):
    forwarding = Forwarding(header, trusted=None if hops else AddressSet(TRUSTED), unix=True, hops=hops)
    known = forwarding.peer(peer)

    if lines:
        client = forwarding.resolve(known, lines)
        forwarded_secure(client)
        forwarded_host(client)
        if client.address is not None:
            assert ipaddress.ip_address(client.address)
    secure_of(lines)
    host_of(lines)
