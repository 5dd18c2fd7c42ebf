"""``AuthMiddleware`` and WebSockets: tokens in subprotocols, and refusals that each client can see."""

from __future__ import annotations

import base64

import pytest

from streamware import CountingObserver, VerifierUnavailable
from streamware.wire.credentials import KUBERNETES
from tests.auth.verifying import SecretVerifier, token_for
from tests.middleware.auth_asking import ORIGIN, Site, bearer, guarded, refused, seen, shake

ADA = token_for("ada")
BOB = token_for("bob")


def kubernetes(token: str) -> str:
    return KUBERNETES + base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("offered", "chosen", "app_sees", "answered"),
    [
        pytest.param(["bearer", ADA], None, [], "bearer", id="nothing else: the marker"),
        pytest.param(["Bearer", ADA], None, [], "Bearer", id="the marker as it was offered"),
        pytest.param(["bearer", ADA, "chat"], "chat", ["chat"], "chat", id="what the app chooses"),
        pytest.param(["chat", "v2", "bearer", ADA], None, ["chat", "v2"], "bearer", id="the app chooses none"),
        pytest.param([kubernetes(ADA), "chat"], "chat", ["chat"], "chat", id="Kubernetes' style"),
        pytest.param([kubernetes(ADA), "chat"], None, ["chat"], None, id="Kubernetes' style, the app chooses none"),
        pytest.param(["bearer", ADA, kubernetes(ADA)], None, [], "bearer", id="both styles, the same token"),
    ],
)
async def test_a_token_in_a_subprotocol_is_taken_out_and_never_echoed(offered, chosen, app_sees, answered):
    site = Site(subprotocol=chosen)

    connection = await shake(guarded(site), *offered)

    assert seen(connection)["subject"] == "ada"
    assert connection.subprotocol == answered
    (scope,) = site.calls
    assert scope["subprotocols"] == app_sees
    lines = [value for name, value in scope["headers"] if name == b"sec-websocket-protocol"]
    assert lines == ([", ".join(app_sees).encode()] if app_sees else [])
    assert ADA not in repr({**scope, "user": None, "auth": None})
    assert connection.scope["subprotocols"] == offered


async def test_subprotocols_without_a_token_are_left_as_they_are():
    site = Site(subprotocol="chat")

    connection = await shake(guarded(site), "chat", "v2", headers=[bearer(ADA)])

    assert site.calls[0]["headers"] == connection.scope["headers"]
    assert (site.calls[0]["subprotocols"], connection.subprotocol) == (["chat", "v2"], "chat")


async def test_where_it_is_turned_off_subprotocols_are_the_apps_alone():
    site = Site(subprotocol="bearer")

    assert seen(await shake(guarded(site, subprotocol=False), "bearer", BOB, headers=[bearer(ADA)]))["subject"] == "ada"
    assert site.calls[0]["subprotocols"] == ["bearer", BOB]
    assert refused(await shake(guarded(site, subprotocol=False), "bearer", BOB)) == (401, "")


@pytest.mark.parametrize(
    ("offered", "headers", "outcome", "reason"),
    [
        pytest.param([], [], (401, ""), "missing", id="no credential"),
        pytest.param(["chat"], [], (401, ""), "missing", id="subprotocols without one"),
        pytest.param(["bearer", "a.b.c"], [], (401, "invalid_token"), "signature", id="a forged token"),
        pytest.param(["bearer"], [], (400, "invalid_request"), "malformed", id="a marker without a token"),
        pytest.param([KUBERNETES + "=", "chat"], [], (400, "invalid_request"), "malformed", id="no base64url"),
        pytest.param([kubernetes(ADA)], [], (400, "invalid_request"), "alone", id="nothing to answer"),
        pytest.param(["bearer", ADA], [bearer(BOB)], (400, "invalid_request"), "several", id="a header that differs"),
        pytest.param(["bearer", ADA, "bearer", BOB], [], (400, "invalid_request"), "several", id="two tokens"),
        pytest.param(["bearer", ADA, kubernetes(BOB)], [], (400, "invalid_request"), "several", id="two styles"),
        pytest.param([kubernetes("\x00"), "chat"], [], (401, "invalid_token"), "malformed", id="no printable token"),
    ],
)
@pytest.mark.parametrize("ws_reject", ["auto", "http"])
async def test_a_script_without_a_browser_is_refused_by_http(offered, headers, outcome, reason, ws_reject):
    site, observer = Site(), CountingObserver()

    connection = await shake(guarded(site, observer=observer, ws_reject=ws_reject), *offered, headers=headers)

    assert refused(connection) == outcome
    assert observer.counts == {("auth.refused", reason): 1}
    assert site.calls == []


@pytest.mark.parametrize(
    ("offered", "options", "code", "title", "answered"),
    [
        pytest.param([], {}, 3000, "Unauthorized", None, id="no credential"),
        pytest.param(["chat"], {}, 3000, "Unauthorized", "chat", id="subprotocols without one"),
        pytest.param(["bearer", "a.b.c"], {}, 3000, "Unauthorized", "bearer", id="a forged token"),
        pytest.param(["bearer", "a.b.c", "chat"], {}, 3000, "Unauthorized", "chat", id="one that may be answered"),
        pytest.param(["bearer", ADA], {"scopes": ["admin"]}, 3003, "Forbidden", "bearer", id="a missing scope"),
        pytest.param(["bearer"], {}, 4400, "Bad Request", "bearer", id="a marker without a token"),
        pytest.param([kubernetes(ADA)], {}, 4400, "Bad Request", None, id="nothing to answer"),
        pytest.param([], {"close_codes": {401: 4401}}, 4401, "Unauthorized", None, id="a code of one's own"),
    ],
)
@pytest.mark.parametrize("server", ["uvicorn", "daphne", "hypercorn", "granian"])
async def test_a_page_is_refused_by_a_close_that_its_script_can_see(offered, options, code, title, answered, server):
    connection = await shake(guarded(**options), *offered, headers=[("origin", ORIGIN)], server=server)

    assert connection.accepted
    assert (connection.close_code, connection.close_reason) == (code, title)
    assert connection.subprotocol == answered


async def test_a_token_that_cannot_be_verified_now_closes_with_a_code_of_its_own():
    verifier = SecretVerifier()
    verifier.error = VerifierUnavailable("keys", 5.0)
    app = guarded(verifier=verifier)

    by_http = await shake(app, "bearer", ADA)
    by_close = await shake(app, "bearer", ADA, headers=[("origin", ORIGIN)])

    assert refused(by_http) == (503, "")
    assert dict(by_http.messages[0]["headers"])[b"retry-after"] in (b"5", b"6", b"7", b"8")
    assert by_close.close_code == 4503


async def test_a_server_without_denials_closes_plainly():
    connection = await shake(guarded(), server="daphne")

    assert not connection.accepted
    assert connection.messages == [{"type": "websocket.close", "code": 1000, "reason": ""}]


async def test_a_page_of_another_host_gets_nothing_by_a_cookie():
    app = guarded(cookie="sid")
    jar = ("cookie", f"sid={ADA}")
    host = ("host", "chat.example")
    tls = {"scope": {"scheme": "wss"}}

    own = await shake(app, headers=[jar, host, ("origin", ORIGIN)], **tls)
    foreign = await shake(app, headers=[jar, host, ("origin", "https://evil.example")], **tls)
    silent = await shake(app, headers=[jar, host], **tls)

    assert seen(own)["subject"] == "ada"
    assert foreign.close_code == 3003
    assert refused(silent) == (403, "")


async def test_a_token_is_taken_out_of_the_query_also_where_the_server_looks():
    site = Site()

    connection = await shake(guarded(site, query="access_token"), query=f"room=1&access_token={ADA}")

    assert seen(connection)["subject"] == "ada"
    assert connection.scope["query_string"] == site.calls[0]["query_string"] == b"room=1"
    assert connection.headers == []


async def test_a_client_that_leaves_while_it_is_refused_costs_nothing():

    app = guarded()

    async def send(message):
        raise OSError("the client has disconnected")

    async def receive():
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/", "headers": [(b"origin", ORIGIN.encode())], "subprotocols": []}
    await app(scope, receive, send)
