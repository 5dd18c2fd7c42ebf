"""Whose limits they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from streamware import ConfigurationError
from streamware.auth.principal import AnonymousPrincipal, Principal
from streamware.limiting.keys import LONGEST, key_function
from streamware.wire.addresses import client_of


def key(of: Any, **scope: Any) -> str | None:
    return key_function("Throttle", of)({"type": "http", "headers": [], "client": ("192.0.2.7", 1), **scope})


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("testclient", "testclient"),
        ("", ""),
        ("x" * 1000, "x" * 64),
    ],
)
def test_an_address_is_one_clients_as_a_network(host: str, network: str):
    assert client_of(host) == network
    assert key("ip", client=(host, 1)) == f"ip:{network}"


def test_all_without_an_address_are_one_client():
    assert key("ip", client=None) == "ip:"
    assert key("ip", client=[]) == "ip:"


def test_a_principal_goes_before_an_address():
    user = Principal(issuer="https://idp", subject="ada")
    assert key("principal", user=user) == "principal:principal\0https://idp\0ada"
    assert key("principal", user=AnonymousPrincipal()) == "ip:192.0.2.7"
    assert key("principal") == "ip:192.0.2.7"
    assert key("principal", user=SimpleNamespace(is_authenticated=True, pk=5)) != key("principal", user=user)


def test_a_token_is_known_by_a_hash_only():
    given = key("token", headers=[(b"authorization", b"Bearer very-secret")])
    other = key("token", headers=[(b"authorization", b"bearer  other")])

    assert given is not None
    assert given.startswith("token:")
    assert "secret" not in given
    assert given != other
    assert key("token", user=Principal(subject="a", token_hash=b"\x01\x02")) == "token:0102"
    for headers in ([], [(b"authorization", b"Basic eDp5")], [(b"authorization", b"Bearer ")]):
        assert key("token", headers=headers) == "ip:192.0.2.7"


def test_a_function_says_it_or_nobody_is_limited():
    assert key(lambda scope: "x") == "own:x"
    assert key(lambda scope: None) is None
    with pytest.raises(TypeError, match="key="):
        key(lambda scope: 5)


def test_whatever_requests_say_a_key_is_short():
    longest, longer = "é" * LONGEST, "é" * LONGEST + "\ud800"
    assert key(lambda scope: longest) == f"own:{longest}"
    assert len(key(lambda scope: longer) or "") < LONGEST
    assert key(lambda scope: longer) != key(lambda scope: longer + "x")
    hashed = key(lambda scope: longer) or ""
    assert key(lambda scope: hashed.removeprefix("own:")) != hashed
    assert key(lambda scope: hashed.partition(":")[2]) != hashed
    assert len(key("principal", user=Principal(issuer="https://idp", subject="a" * 10**6)) or "") < LONGEST


@pytest.mark.parametrize("wrong", ["user", "", None, 5, ["ip"]])
def test_what_names_no_key_is_refused(wrong: Any):
    with pytest.raises(ConfigurationError, match="Throttle: key"):
        key_function("Throttle", wrong)


def test_the_addresses_that_are_remembered_are_bounded():
    from streamware.limiting import keys

    for n in range(3 * keys._KNOWN_ADDRESSES):
        key("ip", client=(f"10.0.{n // 250}.{n % 250}", 1))
    assert len(keys._addresses) <= keys._KNOWN_ADDRESSES
