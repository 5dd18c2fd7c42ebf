"""Whatever a request says: who shows no good token never reaches the app, never causes a 500, and is told properly."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote_from_bytes, unquote_plus

from hypothesis import given, settings
from hypothesis import strategies as st

from streamware import MemoryStore, ResourceMetadata, Tickets
from streamware.testing import Connection, WebSocketConnection
from streamware.wire.credentials import KUBERNETES
from tests.auth.verifying import token_for
from tests.middleware.auth_asking import Site, guarded

ADA = token_for("ada")
HEAD, PAYLOAD, SIGNATURE = ADA.split(".")

NONE, A_LIST, A_STRING = (base64.urlsafe_b64encode(head).decode() for head in (b'{"alg":"none"}', b'["alg"]', b'"alg"'))

# Nothing among these is a token that verifies, but much of it looks like one.
forged = st.one_of(
    st.binary(max_size=60),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40).map(str.encode),
    st.sampled_from(
        [
            f"{HEAD}.{PAYLOAD}.{SIGNATURE[:-4]}AAAA",
            f"{HEAD}.{PAYLOAD}.",
            f"{NONE}.{PAYLOAD}.",
            f"{A_LIST}.{PAYLOAD}.{SIGNATURE}",
            f"{A_STRING}.{PAYLOAD}.{SIGNATURE}",
            f"{ADA}=",
            f"{ADA} {ADA}",
            f"{ADA},{ADA}",
            ADA.swapcase(),
            "a" * 20_000,
            "a" * 43,
            "",
            "..",
        ]
    ).map(str.encode),
)
good = st.just(ADA.encode())
tokens = st.one_of(forged, good)


def as_header(token: bytes) -> tuple[bytes, bytes]:
    return (b"authorization", b"Bearer " + token)


def as_cookie(token: bytes) -> tuple[bytes, bytes]:
    return (b"cookie", b"a=b; sid=" + token + b"; c")


def headers_of(token: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[tuple[bytes, bytes]]]:
    names = st.sampled_from([b"authorization", b"cookie", b"origin", b"host", b"sec-fetch-site", b"accept", b"prefer"])
    line = st.one_of(
        token.map(as_header),
        token.map(as_cookie),
        st.tuples(st.just(b"authorization"), token),
        st.tuples(names, st.binary(max_size=30)),
        st.sampled_from(
            [
                (b"origin", b"https://chat.example"),
                (b"host", b"chat.example"),
                (b"accept", b"text/event-stream"),
                (b"cache-control", b"no-cache"),
                (b"access-control-request-headers", b"x"),
            ]
        ),
    )
    return st.lists(line, max_size=5)


def offers_of(token: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[str]]:
    kubernetes = token.map(lambda each: KUBERNETES + base64.urlsafe_b64encode(each).rstrip(b"=").decode())
    entry = st.one_of(
        st.sampled_from(["bearer", "chat", "BEARER"]), kubernetes, token.map(lambda t: t.decode("latin-1"))
    )
    return st.lists(entry, max_size=4)


def queries_of(token: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    part = st.one_of(
        st.binary(max_size=20),
        st.tuples(st.sampled_from(["access_token", "ticket", "%74icket", "a"]), token).map(
            lambda pair: f"{pair[0]}={quote_from_bytes(pair[1])}".encode()
        ),
    )
    return st.lists(part, max_size=3).map(b"&".join)


methods = st.sampled_from(["GET", "POST", "HEAD", "DELETE", "OPTIONS", "FOO"])
paths = st.sampled_from(["/", "/events", "/_auth/ticket", "/a\x00b", "/ü", "", "//", "/.well-known/x"])


def names_in(query: bytes) -> set[str]:
    """The names of the parameters that are left."""
    return {unquote_plus(part.partition("=")[0]) for part in query.decode("latin-1").split("&")}


def app_for(site: Site) -> Any:
    return guarded(
        site,
        cookie="sid",
        query="access_token",
        tickets=Tickets(MemoryStore()),
        scopes={"/admin/*": ["admin"]},
        resource_metadata=ResourceMetadata("https://api.example", authorization_servers=["https://idp.example"]),
    )


async def over_http(app: Any, method: str, path: str, query: bytes, lines: list[tuple[bytes, bytes]]) -> Connection:
    scope = {"method": method, "path": path, "query_string": query, "headers": lines}
    connection = Connection(app, scope=scope, server="daphne", body=b"{}")
    async with connection:
        await connection.finished()
    return connection


async def over_websocket(
    app: Any, server: str, path: str, query: bytes, lines: Any, offered: Any
) -> WebSocketConnection:
    scope = {"path": path, "query_string": query, "headers": lines, "subprotocols": offered}
    connection = WebSocketConnection(app, scope=scope, server=server)
    async with connection:
        await connection.finished()
    return connection


@settings(max_examples=100)
@given(methods, paths, queries_of(forged), headers_of(forged))
async def test_no_http_request_without_a_good_token_reaches_the_app(method, path, query, lines):
    site = Site()

    connection = await over_http(app_for(site), method, path, query, lines)

    assert site.calls == []
    assert connection.status in (400, 401, 403)
    assert connection.complete


@settings(max_examples=100)
@given(st.sampled_from(["uvicorn", "daphne"]), paths, queries_of(forged), headers_of(forged), offers_of(forged))
async def test_no_handshake_without_a_good_token_reaches_the_app(server, path, query, lines, offered):
    site = Site()

    connection = await over_websocket(app_for(site), server, path, query, lines, offered)

    assert site.calls == []
    first, *_, last = connection.messages[0], *connection.messages
    if first["type"] == "websocket.accept":
        assert first.get("subprotocol") in (None, *offered)
        assert last["code"] in (3000, 3003, 4400)
    elif server == "uvicorn":
        assert first["status"] in (400, 401, 403)
    else:
        assert last["type"] == "websocket.close"


@settings(max_examples=100)
@given(methods, paths, queries_of(tokens), headers_of(tokens))
async def test_whoever_is_let_in_has_shown_the_token_of_its_principal(method, path, query, lines):
    site = Site()

    connection = await over_http(app_for(site), method, path, query, lines)

    for call in site.calls:
        assert call["user"].subject == "ada" or method == "OPTIONS"
        assert not names_in(call["query_string"]) & {"access_token", "ticket"}
    assert connection.status in (200, 400, 401, 403, 405)
    assert ADA not in repr(connection.messages)


@settings(max_examples=100)
@given(st.sampled_from(["uvicorn", "daphne"]), paths, queries_of(tokens), headers_of(tokens), offers_of(tokens))
async def test_no_token_is_echoed_to_a_websocket_or_left_for_a_log(server, path, query, lines, offered):
    site = Site()

    connection = await over_websocket(app_for(site), server, path, query, lines, offered)

    assert all(call["user"].subject == "ada" for call in site.calls)
    assert not names_in(connection.scope["query_string"]) & {"access_token", "ticket"}
    for message in connection.messages:
        # A client may offer a token as if it were a protocol of the app's: that is answered, for nobody can tell.
        assert message["type"] == "websocket.accept" or ADA not in repr(message)
