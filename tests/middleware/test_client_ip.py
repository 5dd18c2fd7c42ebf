"""What ``ClientIPMiddleware`` makes of a request: client, scheme and host in the scope, and what it says of them."""

from __future__ import annotations

import copy
import ipaddress
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware import ClientIPMiddleware, ConfigurationError, CountingObserver, Middleware, Stack
from streamware.middleware import client_ip
from streamware.record import KEY, Client, Record, record_of
from streamware.testing import DAPHNE, GRANIAN, Connection, WebSocketConnection
from streamware.types import Message, Receive, Scope, Send

PROXY = ("10.0.0.1", 40000)
TRUSTED = ["10.0.0.0/8", "2001:db8:1::/48"]


class App:
    """Keeps the scopes that reach it, and answers."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1000})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})


async def receive_nothing() -> Message:
    raise AssertionError("not called")


async def send_nothing(message: Message) -> None: ...


def scope_of(
    *headers: tuple[str, str], client: Any = PROXY, kind: str = "http", scheme: str | None = None, **more: Any
) -> Scope:
    lines = [(b"host", b"inner:8000"), *((name.encode(), value.encode("latin-1")) for name, value in headers)]
    plain = "ws" if kind == "websocket" else "http"
    scope = {"type": kind, "path": "/", "method": "GET", "scheme": scheme or plain, "headers": lines, "client": client}
    return {**scope, **more}


async def seen(*headers: tuple[str, str], client: Any = PROXY, scope: Scope | None = None, **options: Any) -> Scope:
    """The scope that the app gets."""
    app = App()
    chosen = options if "hops" in options else {"trusted_proxies": TRUSTED, **options}
    await ClientIPMiddleware(app, **chosen)(scope or scope_of(*headers, client=client), receive_nothing, send_nothing)
    return app.scopes[0]


def decision(scope: Scope) -> Client:
    record = record_of(scope)
    assert record is not None
    assert record.client is not None
    return record.client


XFF = "x-forwarded-for"
FOR = (XFF, "203.0.113.7")


# ---- the client -----------------------------------------------------------------------------------------------------
async def test_the_client_is_put_in_a_copy_and_the_servers_scope_is_left_as_it_was():
    given = scope_of(FOR, ("x-forwarded-proto", "https"), ("x-forwarded-host", "chat.example"))
    before = copy.deepcopy(given)
    headers = given["headers"]

    got = await seen(scope=given, host=True)

    assert got["client"] == ("203.0.113.7", 0)
    assert given == before
    assert given["headers"] is headers
    assert KEY not in given


@pytest.mark.parametrize("client", [PROXY, list(PROXY), ("::ffff:10.0.0.1", 40000), ("10.0.0.1", "40000")])
async def test_a_trusted_peer_is_known_in_every_form_that_servers_give_it(client: Any):
    got = await seen((XFF, "203.0.113.7:4711"), client=client)

    assert got["client"] == ("203.0.113.7", 4711)
    assert decision(got).peer == "10.0.0.1"


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (("203.0.113.7", 5), ("203.0.113.7", 5)),
        (["203.0.113.7", 5], ("203.0.113.7", 5)),
        (("203.0.113.7", "5"), ("203.0.113.7", 5)),
        (("203.0.113.7", None), ("203.0.113.7", 0)),
        (("203.0.113.7", "x"), ("203.0.113.7", 0)),
        (("::ffff:203.0.113.7", 5), ("203.0.113.7", 5)),
        (("2001:DB8:0::7", 5), ("2001:db8::7", 5)),
        (("fe80::1%eth0", 5), ("fe80::1", 5)),
        (("fe80::1%eth0", 5, 0, 2), ("fe80::1", 5)),
    ],
)
async def test_a_peer_that_is_no_proxy_is_the_client_in_canonical_form(client: Any, expected: tuple[str, int]):
    got = await seen(client=client)

    assert got["client"] == expected
    assert type(got["client"]) is tuple
    assert decision(got).reason == "peer"


async def test_rule_1_a_header_of_a_peer_that_is_not_trusted_is_ignored():
    got = await seen(
        FOR, ("x-forwarded-proto", "https"), ("x-forwarded-host", "evil"), client=("192.0.2.1", 5), host=True
    )

    assert got["client"] == ("192.0.2.1", 5)
    assert got["scheme"] == "http"
    assert (b"host", b"inner:8000") in got["headers"]
    assert decision(got).reason == "ignored"


@pytest.mark.parametrize(
    ("header", "address"),
    [
        ("x-forwarded-for", "203.0.113.1"),
        ("X-Forwarded-For", "203.0.113.1"),
        ("forwarded", "203.0.113.2"),
        ("cf-connecting-ip", "203.0.113.3"),
        ("X-Real-IP", "10.0.0.1"),
    ],
)
async def test_rule_2_exactly_one_header_is_read_and_never_another_in_its_place(header: str, address: str):
    others = ((XFF, "203.0.113.1"), ("forwarded", "for=203.0.113.2"), ("cf-connecting-ip", "203.0.113.3"))

    got = await seen(*others, header=header)

    assert got["client"][0] == address
    assert decision(got).reason == ("no_header" if header == "X-Real-IP" else "forwarded")


async def test_rule_3_repeated_headers_are_one_list_in_their_order():
    got = await seen((XFF, "198.51.100.1"), ("accept", "*/*"), (XFF, "203.0.113.7"), (XFF, "10.9.9.9"))

    assert got["client"] == ("203.0.113.7", 0)
    assert decision(got).hops == ("10.9.9.9", "203.0.113.7")


@pytest.mark.parametrize(
    "line", ["unknown", "_hidden", "", "<script>", "010.0.0.1", "203.0.113.7, unknown", "x" * 9000]
)
async def test_rule_4_an_unknown_client_is_none_in_the_scope_and_the_record_says_why(line: str):
    observer = CountingObserver()

    got = await seen((XFF, line), observer=observer)

    assert got["client"] is None
    assert decision(got).address is None
    assert observer.counts == {("client_ip.unknown", decision(got).reason): 1}
    assert decision(got).reason in ("hidden", "invalid", "too_long")


async def test_rule_5_all_trusted_is_flagged_and_the_remedy_logged_once(caplog: pytest.LogCaptureFixture):
    observer = CountingObserver()
    app = App()
    middleware = ClientIPMiddleware(app, trusted_proxies=TRUSTED, observer=observer)

    for _ in range(3):
        await middleware(scope_of((XFF, "10.2.2.2")), receive_nothing, send_nothing)

    assert app.scopes[0]["client"] == ("10.2.2.2", 0)
    assert decision(app.scopes[0]).flagged
    assert observer.counts == {("client_ip.flagged", "all_trusted"): 3}
    assert len(caplog.records) == 1
    assert "left-most was taken" in caplog.text


async def test_rule_6_with_hops_the_peer_need_not_be_known():
    got = await seen((XFF, "198.51.100.1, 203.0.113.7"), client=("192.0.2.1", 5), hops=1)
    assert got["client"] == ("203.0.113.7", 0)

    few = await seen((XFF, "203.0.113.7"), client=("192.0.2.1", 5), hops=2)
    assert few["client"] == ("192.0.2.1", 5)
    assert decision(few).flagged


@pytest.mark.parametrize("client", [None, ("", "0")], ids=["most servers", "granian"])
@pytest.mark.parametrize(("trusted", "expected"), [(["unix"], ("203.0.113.7", 0)), (TRUSTED, None)])
async def test_rule_7_a_unix_socket_is_trusted_only_if_listed(client: Any, trusted: list[str], expected: Any):
    got = await seen(FOR, ("x-forwarded-proto", "https"), client=client, trusted_proxies=trusted)

    assert got["client"] == expected
    assert got["scheme"] == ("https" if expected else "http")
    assert decision(got).peer == "unix"


@pytest.mark.parametrize(
    "client", ["10.0.0.1", 7, (), ("10.0.0.1",), (b"10.0.0.1", 1), ([], 1), (None, 1), {}, object()]
)
async def test_a_client_of_no_known_form_is_unknown_or_no_client_and_never_an_error(client: Any):
    got = await seen(FOR, client=client)

    assert got["client"] is None
    assert decision(got).reason == "no_address"


async def test_a_scope_without_the_key_has_no_client():
    scope = scope_of(FOR)
    del scope["client"]

    assert (await seen(scope=scope))["client"] is None


async def test_names_of_headers_compare_without_case():
    got = await seen(("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https"))

    assert got["client"] == ("203.0.113.7", 0)
    assert got["scheme"] == "https"


# ---- proto and host -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "came", "proto", "scheme"),
    [
        ("http", None, "https", "https"),
        ("http", None, "wss", "https"),
        ("websocket", None, "https", "wss"),
        ("websocket", None, "wss", "wss"),
        ("http", "https", "http", "http"),
        ("websocket", "wss", "http", "ws"),
        ("http", "https", "rubbish", "http"),
        ("http", "https", "https, http", "http"),
        ("http", None, None, "http"),
        ("http", "https", None, "https"),
    ],
)
@pytest.mark.parametrize("header", [XFF, "forwarded"])
async def test_the_scheme_is_the_clients_own(kind: str, came: str | None, proto: str | None, scheme: str, header: str):
    if header == XFF:
        lines = [FOR, *([] if proto is None else [("x-forwarded-proto", proto)])]
    else:
        lines = [("forwarded", "for=203.0.113.7" + ("" if proto is None else f';proto="{proto}"'))]

    got = await seen(scope=scope_of(*lines, kind=kind, scheme=came), header=header)

    assert got["scheme"] == scheme


async def test_the_headers_of_the_other_kind_say_nothing():
    both = (("forwarded", "for=203.0.113.7;proto=https;host=a.example"), FOR, ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "b.example"))  # fmt: skip

    by_forwarded = await seen(*both, header="forwarded", host=True)
    by_for = await seen(*both, host=True)
    bare = await seen(FOR, ("x-forwarded-proto", "https"), header="forwarded", host=True)

    assert (by_forwarded["scheme"], by_forwarded["headers"][0]) == ("https", (b"host", b"a.example"))
    assert (by_for["scheme"], by_for["headers"][0]) == ("http", (b"host", b"b.example"))
    assert (bare["scheme"], bare["headers"][0]) == ("http", (b"host", b"inner:8000"))


async def test_the_host_is_taken_only_if_asked_for_and_named_once():
    named = (FOR, ("x-forwarded-host", "chat.example"))

    assert (await seen(*named))["headers"][0] == (b"host", b"inner:8000")
    assert (await seen(*named, host=True))["headers"][0] == (b"host", b"chat.example")
    twice = await seen(*named, ("x-forwarded-host", "evil.example"), host=True)
    assert twice["headers"][0] == (b"host", b"inner:8000")


async def test_the_scheme_is_left_alone_if_asked_to():
    got = await seen(FOR, ("x-forwarded-proto", "https"), proto=False)

    assert got["scheme"] == "http"


async def test_a_proxy_that_forwards_nobody_still_says_how_it_was_asked():
    got = await seen(("x-forwarded-proto", "https"))

    assert (got["client"], got["scheme"]) == (PROXY, "https")
    assert decision(got).reason == "no_header"


async def test_the_scheme_stands_where_the_client_is_unknown():
    got = await seen((XFF, "unknown"), ("x-forwarded-proto", "https"))

    assert (got["client"], got["scheme"]) == (None, "https")


# ---- servers that have read the header already -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("client", "line"),
    [
        (("203.0.113.7", 0), "203.0.113.7"),
        (("203.0.113.7", 0), "198.51.100.1"),
        (["203.0.113.7", 0], "203.0.113.7"),
        (("203.0.113.7", 4711), "198.51.100.1, 203.0.113.7:4711"),
        (("2001:db8::7", 4711), "[2001:db8::7]:4711"),
    ],
)
async def test_where_the_server_has_rewritten_the_peer_it_is_counted_and_the_remedy_logged_once(
    client: Any, line: str, caplog: pytest.LogCaptureFixture
):
    observer = CountingObserver()
    app = App()
    middleware = ClientIPMiddleware(app, trusted_proxies=TRUSTED, observer=observer)
    for _ in range(2):
        scope = scope_of((XFF, line), ("x-forwarded-proto", "https"), client=client)
        await middleware(scope, receive_nothing, send_nothing)

    assert app.scopes[0]["client"] == tuple(client)
    assert app.scopes[0]["scheme"] == "http"
    assert decision(app.scopes[0]).flagged
    assert observer.counts == {("client_ip.flagged", "rewritten"): 2}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "--no-proxy-headers" in caplog.text


async def test_where_the_server_has_put_a_proxy_there_nobody_knows_the_client():
    observer = CountingObserver()

    lines = ((XFF, "203.0.113.7, 10.0.0.5"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "evil"))

    got = await seen(*lines, client=("10.0.0.5", 0), observer=observer, host=True)

    assert got["client"] is None
    assert got["scheme"] == "http"
    assert got["headers"][0] == (b"host", b"inner:8000")
    assert observer.counts == {("client_ip.unknown", "rewritten"): 1}


async def test_a_client_that_sends_its_own_address_is_not_taken_for_a_server_that_did():
    got = await seen((XFF, "203.0.113.7"), client=("203.0.113.7", 4711))

    assert decision(got).reason == "ignored"


async def test_a_proxy_that_is_not_listed_is_named_once(caplog: pytest.LogCaptureFixture):
    observer = CountingObserver()
    middleware = ClientIPMiddleware(App(), trusted_proxies=TRUSTED, observer=observer)

    for last in (1, 1, 2):
        await middleware(scope_of(FOR, client=(f"192.0.2.{last}", 5)), receive_nothing, send_nothing)

    assert observer.counts == {("client_ip.ignored", "ignored"): 3}
    assert len(caplog.records) == 1
    assert "x-forwarded-for came from 192.0.2.1" in caplog.text


# ---- caps -----------------------------------------------------------------------------------------------------------
async def test_what_is_remembered_of_peers_and_clients_has_a_cap(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client_ip, "PEERS", 4)
    monkeypatch.setattr(client_ip, "KNOWN", 4)
    app = App()
    middleware = ClientIPMiddleware(app, hops=1)

    for last in range(50):
        scope = scope_of((XFF, f"203.0.113.{last % 9}"), client=(f"192.0.2.{last}", 5))
        await middleware(scope, receive_nothing, send_nothing)
        assert app.scopes[-1]["client"] == (f"203.0.113.{last % 9}", 0)
        assert decision(app.scopes[-1]).peer == f"192.0.2.{last}"
        assert len(middleware._peers) <= 4
        assert len(middleware._known) <= 4


async def test_long_lines_and_long_peers_are_not_remembered():
    middleware = ClientIPMiddleware(App(), hops=1)

    await middleware(scope_of((XFF, " " * 128 + "203.0.113.7"), client=("x" * 65, 5)), receive_nothing, send_nothing)

    assert middleware._peers == {}
    assert middleware._known == {}


async def test_what_is_remembered_is_remembered_by_peer_and_line():
    app = App()
    middleware = ClientIPMiddleware(app, trusted_proxies=TRUSTED)
    for client, line in (
        ((PROXY), "10.9.9.9"),
        (("10.0.0.2", 1), "10.9.9.9"),
        (PROXY, "10.9.9.8"),
        (PROXY, "10.9.9.9"),
    ):
        await middleware(scope_of((XFF, line), client=client), receive_nothing, send_nothing)

    assert [(scope["client"][0], decision(scope).peer) for scope in app.scopes] == [
        ("10.9.9.9", "10.0.0.1"), ("10.9.9.9", "10.0.0.2"), ("10.9.9.8", "10.0.0.1"), ("10.9.9.9", "10.0.0.1"),
    ]  # fmt: skip


# ---- among others ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", DAPHNE, GRANIAN])
@pytest.mark.parametrize("stacked", [False, True])
async def test_whole_requests_and_websockets_pass_on_every_kind_of_server(server: Any, stacked: bool):
    app = App()
    options: dict[str, Any] = {"trusted_proxies": ["loopback"]}
    wrapped = Stack(app, [Middleware(ClientIPMiddleware, **options)]) if stacked else ClientIPMiddleware(app, **options)

    async with Connection(wrapped, headers={XFF: "203.0.113.7"}, server=server) as connection:
        await connection.finished()
        assert connection.status == 200
    async with WebSocketConnection(
        wrapped, headers={XFF: "203.0.113.7", "x-forwarded-proto": "https"}, server=server
    ) as socket:
        await socket.closing()

    assert [scope["client"] for scope in app.scopes] == [("203.0.113.7", 0)] * 2
    assert [scope["scheme"] for scope in app.scopes] == ["http", "wss"]


async def test_other_scopes_and_paths_pass_with_the_very_objects():
    app = App()
    middleware = ClientIPMiddleware(app, trusted_proxies=TRUSTED, exclude=["/health"])
    lifespan: Scope = {"type": "lifespan"}
    unknown: Scope = {"type": "webtransport", "client": PROXY}
    health = scope_of(FOR, path="/health")

    for scope in (lifespan, unknown, health):
        await middleware(scope, receive_nothing, send_nothing)

    assert [got is given for got, given in zip(app.scopes, (lifespan, unknown, health), strict=True)] == [True] * 3


async def test_a_record_that_is_there_is_kept_and_one_of_somebody_else_is_not():
    record = Record()

    got = await seen(scope={**scope_of(FOR), KEY: record})
    foreign = await seen(scope={**scope_of(FOR), KEY: "theirs"})

    assert record_of(got) is record
    assert record.client is decision(got)
    assert decision(foreign).address == "203.0.113.7"


# ---- options --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "either trusted_proxies"),
        ({"trusted_proxies": TRUSTED, "hops": 1}, "either trusted_proxies"),
        ({"trusted_proxies": []}, "no entries"),
        ({"trusted_proxies": "10.0.0.0/8"}, "a list of addresses"),
        ({"trusted_proxies": 7}, "a list of addresses"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, "'10.0.0.1/8': bits are set beyond the prefix"),
        ({"trusted_proxies": ["10.0.0"]}, "'10.0.0'"),
        ({"trusted_proxies": ["unix", "10.0.0"]}, "'10.0.0'"),
        ({"trusted_proxies": ["unix:"]}, "'unix:'"),
        ({"trusted_proxies": [None]}, "None"),
        ({"trusted_proxies": ["*"]}, "must not hold '*'"),
        ({"trusted_proxies": ["10.0.0.1", "0.0.0.0/0"]}, "must not hold '0.0.0.0/0'"),
        ({"trusted_proxies": ["::/0"]}, "must not hold '::/0'"),
        ({"trusted_proxies": ["::ffff:0:0/96"]}, "must not hold '::ffff:0:0/96'"),
        ({"hops": 0}, "hops must be from 1 to 32, got 0"),
        ({"hops": 33}, "hops must be from 1 to 32, got 33"),
        ({"hops": True}, "hops must be from 1 to 32"),
        ({"hops": "1"}, "hops must be from 1 to 32"),
        ({"hops": 2, "header": "x-real-ip"}, "hops must be 1 with the header 'x-real-ip', got 2"),
        ({"hops": 1, "header": ""}, "header must be the name of one header"),
        ({"hops": 1, "header": "a, b"}, "header must be the name of one header"),
        ({"hops": 1, "header": ["x-real-ip"]}, "header must be the name of one header"),
        ({"hops": 1, "proto": "yes"}, "proto must be True or False"),
        ({"hops": 1, "host": 1}, "host must be True or False"),
        ({"hops": 1, "paths": "/x"}, "paths must be"),
    ],
)
def test_rule_9_a_wrong_option_is_refused_when_it_is_built(options: dict[str, Any], said: str):
    with pytest.raises(ConfigurationError) as caught:
        ClientIPMiddleware(App(), **options)

    assert "ClientIPMiddleware" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"hops": 1}, {"hops": 32}, {"hops": 32, "header": "Forwarded"}, {"trusted_proxies": ["unix", "private"]}],
)
def test_options_at_their_limits_are_taken(options: dict[str, Any]):
    ClientIPMiddleware(App(), **options)


# ---- anything -------------------------------------------------------------------------------------------------------
NAMES = [XFF, "X-Forwarded-For", "forwarded", "x-forwarded-proto", "x-forwarded-host", "x-real-ip"]
VALUES = [b"10.0.0.1", b"for=10.0.0.1", b"203.0.113.7, 10.0.0.1", b"https"]
clients = st.one_of(
    st.none(),
    st.just(PROXY),
    st.tuples(st.one_of(st.text(max_size=20), st.ip_addresses().map(str)), st.integers(0, 65535)),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=5)), max_size=3),
)


@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES).map(str.encode), st.one_of(st.binary(max_size=60), st.sampled_from(VALUES))),
        max_size=6,
    ),
    clients,
    st.sampled_from([XFF, "forwarded", "x-real-ip"]),
    st.sampled_from([{"hops": 1}, {"trusted_proxies": ["unix", "10.0.0.0/8"]}]),
)
async def test_no_request_is_an_exception_and_what_is_found_is_canonical(
    lines: list[tuple[bytes, bytes]], client: Any, header: str, options: dict[str, Any]
):
    scope = {**scope_of(client=client), "headers": lines}
    before = copy.deepcopy(scope)

    got = await seen(scope=scope, header=header, host=True, **options)

    assert scope == before
    assert got["scheme"] in ("http", "https")
    if got["client"] is not None:
        address, port = got["client"]
        parsed = ipaddress.ip_address(address)
        assert str(parsed) == address
        assert getattr(parsed, "ipv4_mapped", None) is None
        assert isinstance(port, int)
