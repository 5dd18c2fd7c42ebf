"""Who is let in by ``IPAllowlistMiddleware``, how the others are told, and what ``explain`` says of it."""

from __future__ import annotations

import ipaddress
import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware import (
    AddressExplanation,
    ClientIPMiddleware,
    ConfigurationError,
    CountingObserver,
    IPAllowlistMiddleware,
    Middleware,
    ResumeMiddleware,
    Stack,
)
from streamware.auth import address_lists
from streamware.testing import Connection, WebSocketConnection
from streamware.types import Message, Receive, Scope, Send

EVENTSOURCE = {"accept": "text/event-stream", "cache-control": "no-cache", "sec-fetch-mode": "cors"}
PREFLIGHT = {"origin": "https://chat.example", "access-control-request-method": "GET"}


class App:
    """Counts its calls, keeps the scopes, and answers."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"in"})


async def receive_nothing() -> Message:
    raise AssertionError("not called")


async def answered(client: Any, app: App | None = None, **lists: Any) -> int:
    """The status that a request from ``client`` gets."""
    middleware = IPAllowlistMiddleware(app or App(), **lists)
    async with Connection(middleware, scope={"client": client}) as connection:
        await connection.finished()
        return connection.status


# ---- who is let in --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("10.1.2.3", 200),
        ("::ffff:10.1.2.3", 200),
        ("10.66.0.1", 403),
        ("::ffff:10.66.0.1", 403),
        ("11.0.0.1", 403),
        ("2001:db8::1", 200),
        ("2001:DB8:0::1", 200),
        ("2001:db8::66", 403),
        ("fe80::1%eth0", 200),
        ("fe80::66%eth0", 403),
        ("::10.1.2.3", 403),
        ("64:ff9b::a01:203", 403),
        ("127.0.0.1", 200),
    ],
)
async def test_rule_10_deny_beats_allow(host: str, status: int):
    lists = {
        "allow": ["10.0.0.0/8", "2001:db8::/32", "fe80::/10", "loopback"],
        "deny": ["10.66.0.0/16", "2001:db8::66", "fe80::66"],
    }

    assert await answered((host, 5), **lists) == status


@pytest.mark.parametrize("lists", [{"allow": ["0.0.0.0/0", "::/0"]}, {"deny": ["192.0.2.1"]}])
@pytest.mark.parametrize(
    "client", [None, (), ("", 0), ("testclient", 5), ("unknown", 0), ("010.0.0.1", 1), (None, 1), "10.0.0.1", 7]
)
async def test_rule_10_an_unknown_client_is_let_in_by_no_list(client: Any, lists: dict[str, Any]):
    observer = CountingObserver()
    app = App()

    assert await answered(client, app, observer=observer, **lists) == 403
    assert app.scopes == []
    assert observer.counts == {("ip_allowlist.refused", "unknown"): 1}


async def test_with_deny_alone_everybody_else_that_is_known_is_let_in():
    observer = CountingObserver()

    assert await answered(("192.0.2.1", 5), deny=["192.0.2.1"], observer=observer) == 403
    assert await answered(("192.0.2.2", 5), deny=["192.0.2.1"], observer=observer) == 200
    assert observer.counts == {("ip_allowlist.refused", "denied"): 1}


async def test_with_allow_alone_nobody_else_is():
    observer = CountingObserver()

    assert await answered(("192.0.2.1", 5), allow=["192.0.2.1"], observer=observer) == 200
    assert await answered(("192.0.2.2", 5), allow=["192.0.2.1"], observer=observer) == 403
    assert observer.counts == {("ip_allowlist.refused", "not_allowed"): 1}


networks = st.one_of(
    st.ip_addresses(v=4).flatmap(
        lambda address: st.integers(0, 32).map(
            lambda bits: str(ipaddress.ip_network(f"{address}/{bits}", strict=False))
        )
    ),
    st.ip_addresses(v=6).flatmap(
        lambda address: st.integers(97, 128).map(
            lambda bits: str(ipaddress.ip_network(f"{address}/{bits}", strict=False))
        )
    ),
    st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "::/128", "0.0.0.0/0", "::ffff:10.1.0.0/112"]),
)

hosts = st.one_of(st.ip_addresses().map(str), st.sampled_from(["10.1.2.3", "::ffff:10.2.3.4", "::"]), st.text())


@given(
    st.one_of(st.none(), st.lists(networks, min_size=1)),
    st.lists(networks, min_size=1),
    st.lists(hosts, max_size=8),
)
async def test_nobody_is_let_in_whom_a_model_made_of_ipaddress_would_not(
    allow: list[str] | None, deny: list[str], asking: list[str]
):
    def holds(listed: list[str], address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        for entry in listed:
            network = ipaddress.ip_network(entry)
            mapped = network.network_address.ipv4_mapped if network.version == 6 else None
            if mapped is not None and network.prefixlen >= 96:
                network = ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}")
            if network.version == address.version and address in network:
                return True
        return False

    app = App()
    middleware = IPAllowlistMiddleware(app, allow=allow, deny=deny)

    async def send(message: Message) -> None: ...

    for host in asking * 2:  # the second time from what it remembers
        try:
            given = ipaddress.ip_address(host.partition("%")[0] if ":" in host else host)
            address = getattr(given, "ipv4_mapped", None) or given
            expected = not holds(deny, address) and (allow is None or holds(allow, address))
        except ValueError:
            expected = False

        app.scopes.clear()
        scope = {"type": "http", "path": "/", "method": "GET", "headers": [], "client": (host, 5)}
        await middleware(scope, receive_nothing, send)

        assert bool(app.scopes) is expected


async def test_what_is_remembered_of_addresses_has_a_cap(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(address_lists, "KNOWN", 8)
    middleware = IPAllowlistMiddleware(App(), allow=["10.0.0.0/28"])
    current = middleware._lists.current
    assert current is not None

    for last in [*range(40), *range(40)]:
        assert current.refusal((f"10.0.0.{last}", 5)) == (None if last < 16 else "not_allowed")
        assert current.refusal((f"x{last}", 5)) == "unknown"
        assert len(current._known) <= 8
    current._known.clear()
    assert current.refusal(("fe80::1%" + "x" * 60, 5)) == "not_allowed"
    assert current._known == {}


# ---- how the others are told ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_refusal_is_403_as_problem_json_that_tells_nothing(method: str):
    middleware = IPAllowlistMiddleware(App(), allow=["10.0.0.0/8"])

    async with Connection(middleware, method=method, scope={"client": ("192.0.2.1", 5)}) as connection:
        await connection.finished()

    assert connection.status == 403
    assert connection.header("content-type") == "application/problem+json"
    assert connection.header("cache-control") == "no-store"
    assert json.loads(connection.body) == {"type": "about:blank", "title": "Forbidden", "status": 403}


async def test_an_eventsource_is_refused_for_good():
    middleware = IPAllowlistMiddleware(App(), allow=["10.0.0.0/8"])

    async with Connection(middleware, headers=EVENTSOURCE, scope={"client": ("192.0.2.1", 5)}) as connection:
        await connection.finished()

    assert connection.status == 403


async def test_preflights_are_no_exception():
    app = App()
    middleware = IPAllowlistMiddleware(app, allow=["10.0.0.0/8"])

    async with Connection(
        middleware, method="OPTIONS", headers=PREFLIGHT, scope={"client": ("192.0.2.1", 5)}
    ) as connection:
        await connection.finished()

    assert connection.status == 403
    assert app.scopes == []


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "granian"])
async def test_a_websocket_is_refused_by_a_response_where_the_server_can(server: str):
    app = App()
    middleware = IPAllowlistMiddleware(app, allow=["10.0.0.0/8"])

    async with WebSocketConnection(middleware, scope={"client": ("192.0.2.1", 5)}, server=server) as socket:
        assert await socket.closing() is None

    start, body = socket.messages
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 403)
    assert (b"content-type", b"application/problem+json") in start["headers"]
    assert json.loads(body["body"])["title"] == "Forbidden"
    assert app.scopes == []


async def test_and_by_a_close_before_the_accept_where_it_cannot():
    app = App()
    middleware = IPAllowlistMiddleware(app, allow=["10.0.0.0/8"])

    async with WebSocketConnection(middleware, scope={"client": ["192.0.2.1", 5]}, server="daphne") as socket:
        await socket.closing()

    assert [message["type"] for message in socket.messages] == ["websocket.close"]
    assert app.scopes == []


async def test_a_websocket_that_is_let_in_passes():
    async with WebSocketConnection(
        IPAllowlistMiddleware(App(), allow=["10.0.0.0/8"]), scope={"client": ("10.0.0.1", 5)}
    ) as socket:
        await socket.start()
        assert await socket.closing() == 1000


async def test_refusals_are_logged_with_their_reason_and_no_header(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "streamware.ip_allowlist")

    await answered(("192.0.2.1", 5), allow=["10.0.0.0/8"])
    await answered(None, allow=["10.0.0.0/8"])

    assert [record.getMessage() for record in caplog.records] == [
        "refused: not_allowed, client 192.0.2.1",
        "refused: unknown, client unknown",
    ]


async def test_a_refusal_is_marked_on_the_record_so_that_no_log_is_made_of_it():
    records: list[Any] = []

    class Seeing(IPAllowlistMiddleware):
        def handle(self, scope: Scope, receive: Receive, send: Send) -> Any:
            records.append(scope["streamware"])
            return super().handle(scope, receive, send)

    middleware = Seeing(App(), allow=["10.0.0.0/8"])
    async with Connection(middleware, scope={"client": ("192.0.2.1", 5)}) as connection:
        await connection.finished()

    assert records[0].denied


# ---- among others ---------------------------------------------------------------------------------------------------
async def test_with_client_ip_outside_the_client_behind_the_proxy_decides():
    app = App()
    stack = Stack(
        app,
        [
            Middleware(ClientIPMiddleware, trusted_proxies=["10.0.0.1"]),
            Middleware(IPAllowlistMiddleware, allow=["203.0.113.0/24"]),
            Middleware(ResumeMiddleware),
        ],
    )

    async def status(line: str, client: str = "10.0.0.1") -> int:
        async with Connection(stack, headers={"x-forwarded-for": line}, scope={"client": (client, 5)}) as connection:
            await connection.finished()
            return connection.status

    assert await status("203.0.113.7") == 200
    assert await status("203.0.113.7, 198.51.100.1") == 403
    assert await status("203.0.113.7, unknown") == 403
    assert await status("203.0.113.7", client="10.0.0.2") == 403
    assert [scope["client"] for scope in app.scopes] == [("203.0.113.7", 0)]


async def test_the_scope_passes_as_it_came_to_where_nothing_is_to_be_changed():
    app = App()
    middleware = IPAllowlistMiddleware(app, allow=["10.0.0.0/8"], paths=["/v1/*"])
    unselected: Scope = {"type": "http", "path": "/", "client": ("192.0.2.1", 5)}
    unknown: Scope = {"type": "webtransport", "path": "/v1/x", "client": ("192.0.2.1", 5)}
    lifespan: Scope = {"type": "lifespan"}

    async def send(message: Message) -> None: ...

    for scope in (unselected, unknown, lifespan):
        await middleware(scope, receive_nothing, send)

    given = (unselected, unknown, lifespan)
    assert [one is other for one, other in zip(app.scopes, given, strict=True)] == [True] * 3


def test_in_a_stack_it_stands_inside_client_ip():
    with pytest.raises(ConfigurationError, match="ClientIPMiddleware must stand outside IPAllowlistMiddleware"):
        Stack(App(), [Middleware(IPAllowlistMiddleware, allow=["loopback"]), Middleware(ClientIPMiddleware, hops=1)])


# ---- explain --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("client", "lists", "allowed", "reason", "rule"),
    [
        (("10.1.2.3", 5), {"allow": ["10.0.0.0/8", "10.1.0.0/16"]}, True, "allowed", "10.1.0.0/16"),
        (("10.1.2.3", 5), {"allow": ["10.0.0.0/8"], "deny": ["10.1.2.3"]}, False, "denied", "10.1.2.3"),
        (("192.0.2.1", 5), {"allow": ["10.0.0.0/8"]}, False, "not_allowed", None),
        (("192.0.2.1", 5), {"deny": ["10.0.0.0/8"]}, True, "not_denied", None),
        (("::1", 5), {"allow": ["loopback"]}, True, "allowed", "::1"),
        (("testclient", 5), {"allow": ["loopback"]}, False, "unknown", None),
        (None, {"deny": ["10.0.0.0/8"]}, False, "unknown", None),
    ],
)
async def test_explain_names_the_rule_that_decides(
    client: Any, lists: dict[str, Any], allowed: bool, reason: str, rule: str | None
):
    observer = CountingObserver()
    middleware = IPAllowlistMiddleware(App(), observer=observer, **lists)

    told = middleware.explain({"type": "http", "client": client, "headers": []})

    assert (told.allowed, told.reason, told.rule) == (allowed, reason, rule)
    assert told.found == "no ClientIPMiddleware"
    assert (told.peer == "unix") is (client is None)
    assert observer.counts == {}
    assert (await answered(client, **lists) == 200) is allowed


async def test_explain_names_peer_header_hops_and_the_client_that_was_chosen():
    app = App()
    allowlist = IPAllowlistMiddleware(app, allow=["203.0.113.0/24"])
    middleware = ClientIPMiddleware(allowlist, trusted_proxies=["10.0.0.0/8"])
    headers = [("x-forwarded-for", "<script>\x1b, 203.0.113.7"), ("x-forwarded-for", "10.0.0.2")]
    async with Connection(middleware, headers=headers, scope={"client": ("10.0.0.1", 5)}) as connection:
        await connection.finished()

    told = allowlist.explain(app.scopes[0])

    assert told == AddressExplanation(
        allowed=True,
        reason="allowed",
        client="203.0.113.7",
        rule="203.0.113.0/24",
        peer="10.0.0.1",
        header="x-forwarded-for",
        hops=("10.0.0.2", "203.0.113.7"),
        found="forwarded",
    )
    assert str(told) == (
        "let in: allowed by 203.0.113.0/24; client 203.0.113.7 (forwarded); peer 10.0.0.1; "
        "x-forwarded-for, from the right: '10.0.0.2', '203.0.113.7'"
    )


async def test_the_words_of_explain_hold_no_control_characters():
    scopes: list[Scope] = []

    class Seeing(IPAllowlistMiddleware):
        def handle(self, scope: Scope, receive: Receive, send: Send) -> Any:
            scopes.append(scope)
            return super().handle(scope, receive, send)

    allowlist = Seeing(App(), allow=["203.0.113.0/24"])
    middleware = ClientIPMiddleware(allowlist, hops=1)
    async with Connection(middleware, headers=[("x-forwarded-for", "\x1b[2J\xff")]) as connection:
        await connection.finished()
    assert connection.status == 403

    told = str(allowlist.explain(scopes[0]))

    assert told.isascii()
    assert told.isprintable()
    assert told.startswith("refused: unknown; client unknown (invalid); peer 127.0.0.1; x-forwarded-for")


# ---- options --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give allow, deny, or both"),
        ({"allow": []}, "allow must be a list of addresses and CIDRs"),
        ({"allow": []}, "no entries"),
        ({"deny": []}, "deny must be"),
        ({"allow": "10.0.0.0/8"}, "allow must be a list of addresses and CIDRs"),
        ({"allow": 7}, "a pathlib.Path, or a callable that returns a list, got 7"),
        ({"allow": ["10.0.0.1/8"]}, "'10.0.0.1/8': bits are set beyond the prefix: 10.0.0.0/8 is the network"),
        ({"allow": ["10.0.0.0/8"], "deny": ["10.0.0"]}, "deny must be a list of addresses and CIDRs"),
        ({"allow": ["unix"]}, "'unix'"),
        ({"allow": ["10.0.0.1", "10.0.0.2"], "max_entries": 1}, "more than 1 entries"),
        ({"allow": ["::1"], "poll": 0}, "poll must be greater than 0 seconds, or None to disable, got 0"),
        ({"allow": ["::1"], "interval": -1}, "interval must be greater than 0"),
        ({"allow": ["::1"], "interval": True}, "interval must be greater than 0"),
        ({"allow": ["::1"], "poll": float("nan")}, "poll must be greater than 0"),
        ({"allow": ["::1"], "timeout": None}, "timeout must be greater than 0 seconds, got None"),
        ({"allow": ["::1"], "timeout": float("inf")}, "timeout must be greater than 0"),
        ({"allow": ["::1"], "max_bytes": 0}, "max_bytes must be an integer greater than 0"),
        ({"allow": ["::1"], "max_entries": 1.5}, "max_entries must be an integer greater than 0"),
    ],
)
def test_a_wrong_option_is_refused_when_it_is_built(options: dict[str, Any], said: str):
    with pytest.raises(ConfigurationError) as caught:
        IPAllowlistMiddleware(App(), **options)

    assert "IPAllowlistMiddleware" in str(caught.value)
    assert said in str(caught.value)
