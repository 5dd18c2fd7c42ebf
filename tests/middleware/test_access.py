"""Client address, allowlist, origin and auth in one ``Stack``: each sees what those outside of it have found."""

from __future__ import annotations

from typing import Any

import pytest

from streamware import (
    AuthMiddleware,
    ClientIPMiddleware,
    CountingObserver,
    HeartbeatMiddleware,
    IPAllowlistMiddleware,
    MemoryStore,
    Middleware,
    OriginMiddleware,
    ResumeMiddleware,
    Stack,
    TokenRefused,
)
from streamware.testing import Connection, WebSocketConnection
from tests.auth.verifying import SecretVerifier, token_for
from tests.middleware.auth_asking import Site, ask, bearer, refused, seen, shake

PROXY, CLIENT, STRANGER = "10.0.0.1", "192.0.2.7", "203.0.113.9"
PAGE = "https://chat.example"
TOKEN = token_for("ada")


class Gate:
    def __init__(self, **auth: Any) -> None:
        self.site = Site()
        self.observer = CountingObserver()
        self.verifier = SecretVerifier()
        seen_by = {"observer": self.observer}
        self.app = Stack(
            self.site,
            [
                Middleware(ClientIPMiddleware, trusted_proxies=[PROXY], **seen_by),
                Middleware(IPAllowlistMiddleware, allow=["192.0.2.0/24"], deny=["192.0.2.66"], **seen_by),
                Middleware(OriginMiddleware, allow=[PAGE], cors=True, require_secure=True, **seen_by),
                Middleware(AuthMiddleware, verifier=self.verifier, **seen_by, **auth),
                Middleware(HeartbeatMiddleware),
                Middleware(ResumeMiddleware, store=MemoryStore()),
            ],
        )

    async def ask(
        self, *lines: tuple[str, str], through: str | None = CLIENT, proto: str = "https", **more: Any
    ) -> Connection:
        forwarded = [] if through is None else [("x-forwarded-for", through), ("x-forwarded-proto", proto)]
        scope = {"client": (PROXY, 4711), **more.pop("scope", {})}
        return await ask(self.app, ("host", "api.example"), *forwarded, *lines, scope=scope, **more)

    async def shake(self, *subprotocols: str, origin: str = PAGE, through: str = CLIENT) -> WebSocketConnection:
        lines = [("host", "api.example"), ("origin", origin), ("x-forwarded-for", through)]
        headers = [*lines, ("x-forwarded-proto", "https")]
        return await shake(self.app, *subprotocols, headers=headers, scope={"client": (PROXY, 4711), "scheme": "ws"})

    def reasons(self) -> dict[str, str]:
        return {name: reason for name, reason in self.observer.counts if name.endswith(".refused")}


async def test_who_comes_through_the_proxy_with_a_token_from_the_page_is_let_in():
    gate = Gate()
    answer = await gate.ask(bearer(TOKEN), ("origin", PAGE), ("sec-fetch-site", "cross-site"))

    assert seen(answer)["subject"] == "ada"
    assert gate.site.calls[0]["client"][0] == CLIENT
    assert gate.site.calls[0]["scheme"] == "https"
    assert answer.header("access-control-allow-origin") == PAGE
    assert gate.reasons() == {}
    assert gate.verifier.clients == [CLIENT]


@pytest.mark.parametrize("through", [STRANGER, "192.0.2.66", "unknown", "010.0.0.1", None])
async def test_whoever_is_not_on_the_list_is_refused_before_anything_is_verified(through: str | None):
    gate = Gate()
    status, _ = refused(await gate.ask(bearer(TOKEN), through=through))

    assert (status, list(gate.reasons())) == (403, ["ip_allowlist.refused"])
    assert gate.verifier.clients == gate.site.calls == []


async def test_what_a_client_forwards_by_itself_is_not_believed():
    gate = Gate()
    forged = {"client": (STRANGER, 4711)}
    status, _ = refused(await gate.ask(bearer(TOKEN), through=CLIENT, scope=forged))

    assert status == 403
    assert gate.site.calls == []


@pytest.mark.parametrize("origin", ["https://evil.example", "http://chat.example", "null", "https://api.example.evil"])
async def test_a_page_of_another_origin_is_refused_before_anything_is_verified(origin: str):
    gate = Gate()
    status, _ = refused(await gate.ask(bearer(TOKEN), ("origin", origin)))

    assert (status, list(gate.reasons())) == (403, ["origin.refused"])
    assert gate.verifier.clients == gate.site.calls == []


async def test_over_a_proxy_without_tls_nobody_is_let_in():
    gate = Gate()
    status, _ = refused(await gate.ask(bearer(TOKEN), proto="http"))

    assert status == 403
    assert gate.verifier.clients == []


async def test_the_hosts_own_page_is_known_by_the_scheme_that_the_proxy_forwarded():
    gate = Gate()
    assert seen(await gate.ask(bearer(TOKEN), ("origin", "https://api.example")))["subject"] == "ada"


async def test_a_preflight_needs_an_address_but_no_token():
    gate = Gate()
    lines = [("origin", PAGE), ("access-control-request-method", "POST")]
    answered = await gate.ask(*lines, ("access-control-request-headers", "authorization"), method="OPTIONS")
    stranger = await gate.ask(*lines, method="OPTIONS", through=STRANGER)

    assert answered.status in (200, 204)
    assert "authorization" in answered.header("access-control-allow-headers").lower()
    assert stranger.status == 403
    assert gate.site.calls == []


async def test_a_refused_token_is_held_against_the_client_and_can_be_read_by_the_page():
    gate = Gate()
    answer = await gate.ask(bearer(TOKEN[:-6] + "AAAAAA"), ("origin", PAGE))

    assert refused(answer)[0] == 401
    assert gate.verifier.clients == [CLIENT]
    assert answer.header("access-control-allow-origin") == PAGE
    assert "www-authenticate" in answer.header("access-control-expose-headers").lower()


async def test_a_token_in_the_query_is_taken_out_of_the_servers_own_scope():
    gate = Gate(query="access_token")
    forwarded = [("x-forwarded-for", CLIENT), ("x-forwarded-proto", "https")]
    connection = Connection(
        gate.app,
        path=f"/chat?access_token={TOKEN}&q=1",
        headers=[("host", "api.example"), *forwarded],
        scope={"client": (PROXY, 4711)},
    )
    async with connection:
        await connection.finished()

    assert seen(connection)["subject"] == "ada"
    assert gate.site.calls[0]["query_string"] == connection.scope["query_string"] == b"q=1"


async def test_a_websocket_goes_through_all_four():
    gate = Gate()
    assert seen(await gate.shake("bearer", TOKEN))["subject"] == "ada"
    assert (await gate.shake("bearer", TOKEN, through=STRANGER)).messages[0]["status"] == 403
    assert (await gate.shake("bearer", TOKEN, origin="https://evil.example")).messages[0]["status"] == 403
    closed = await gate.shake("bearer", TOKEN[:-6] + "AAAAAA")
    assert [message["type"] for message in closed.messages] == ["websocket.accept", "websocket.close"]
    assert closed.messages[1]["code"] == 3000
    assert len(gate.site.calls) == 1


async def test_the_verifier_of_the_tests_refuses_what_is_forged():
    with pytest.raises(TokenRefused):
        await SecretVerifier().verify(TOKEN[:-6] + "AAAAAA")
