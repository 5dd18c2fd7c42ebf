"""``AuthMiddleware``: who is let in, and how the others are told."""

from __future__ import annotations

import json
import logging

import pytest

from streamware import (
    AuthMiddleware,
    ConfigurationError,
    CountingObserver,
    HeartbeatMiddleware,
    MemoryStore,
    Middleware,
    OriginMiddleware,
    Principal,
    ResourceMetadata,
    Stack,
    Tickets,
    TokenRefused,
    VerifierUnavailable,
)
from streamware.record import KEY, record_of
from streamware.testing import Connection
from tests.auth.verifying import ISSUER, SecretVerifier, token_for
from tests.middleware.auth_asking import EVENTSOURCE, ORIGIN, Site, ask, bearer, guarded, refused, seen

ADA = token_for("ada", ["chat", "files"])
BOB = token_for("bob")


# -- credentials


async def test_a_good_token_lets_its_principal_in():
    site = Site()

    connection = await ask(guarded(site), bearer(ADA))

    assert seen(connection) == {
        "subject": "ada",
        "known": True,
        "scopes": ["authenticated", *site.calls[0]["user"].scopes],
    }
    assert site.calls[0]["user"].issuer == ISSUER
    assert sorted(site.calls[0]["user"].scopes) == ["chat", "files"]


async def test_a_token_that_was_verified_is_not_verified_again():
    verifier = SecretVerifier()
    app = guarded(verifier=verifier)

    for _ in range(3):
        assert seen(await ask(app, bearer(ADA)))["subject"] == "ada"

    assert verifier.asked == 1


async def test_every_request_has_a_principal_of_its_own():
    site = Site()
    app = guarded(site)
    for _ in range(2):
        await ask(app, bearer(ADA))

    assert site.calls[0]["user"] is not site.calls[1]["user"]


async def test_the_verifier_hears_from_where_the_token_came():
    verifier = SecretVerifier()
    app = guarded(verifier=verifier)
    await ask(app, bearer("x.y.z"))
    await ask(app, bearer("x.y.z"), scope={"client": None})

    assert verifier.clients == ["127.0.0.1", ""]


@pytest.mark.parametrize(
    ("headers", "options", "outcome", "reason"),
    [
        pytest.param([], {}, (401, ""), "missing", id="no credential"),
        pytest.param([("authorization", "Basic dTpw")], {}, (401, ""), "scheme", id="another scheme"),
        pytest.param([bearer("a.b.c")], {}, (401, "invalid_token"), "signature", id="a forged token"),
        pytest.param([bearer(token_for(lifetime=-1))], {}, (401, "invalid_token"), "expired", id="an expired token"),
        pytest.param([bearer("a b")], {}, (401, "invalid_token"), "malformed", id="a space in a token"),
        pytest.param([bearer("a" * 20_000)], {}, (401, "invalid_token"), "too_large", id="a huge token"),
        pytest.param([("authorization", "Bearer")], {}, (400, "invalid_request"), "malformed", id="no token"),
        pytest.param([bearer(ADA), bearer(ADA)], {}, (400, "invalid_request"), "repeated", id="the header twice"),
        pytest.param([bearer(ADA)], {"scopes": ["admin"]}, (403, "insufficient_scope"), "scope", id="a missing scope"),
        pytest.param(
            [bearer(ADA), ("cookie", f"sid={BOB}")], {"cookie": "sid"}, (400, "invalid_request"), "several",
            id="a cookie that differs",
        ),
        pytest.param(
            [("cookie", f"sid={ADA}; sid={BOB}")], {"cookie": "sid"}, (400, "invalid_request"), "several",
            id="two cookies that differ",
        ),
        pytest.param([("cookie", f"sid={ADA}")], {}, (401, ""), "missing", id="a cookie that nobody asked for"),
    ],
)  # fmt: skip
async def test_who_shows_no_good_credential_is_refused(headers, options, outcome, reason):
    site, observer = Site(), CountingObserver()

    connection = await ask(guarded(site, observer=observer, **options), *headers)

    assert refused(connection) == outcome
    assert observer.counts == {("auth.refused", reason): 1}
    assert site.calls == []


async def test_the_same_token_in_two_places_is_one_credential():
    connection = await ask(guarded(cookie="sid"), bearer(ADA), ("cookie", f"sid={ADA}"))

    assert seen(connection)["subject"] == "ada"


async def test_what_an_outer_middleware_left_of_another_user_is_gone():
    smuggled = {"user": Principal(subject="root"), "auth": object(), "method": "GET"}
    site = Site()

    await ask(guarded(site, optional=["*"]), scope=smuggled)
    await ask(guarded(site), bearer(ADA), scope=smuggled)

    assert [call["user"].subject for call in site.calls] == ["", "ada"]
    assert site.calls[0]["auth"].scopes == []


async def test_the_servers_scope_is_left_as_it_was():
    connection = Connection(guarded(), headers=[bearer(ADA)])
    before = dict(connection.scope)
    async with connection:
        await connection.finished()

    assert connection.scope == before


async def test_paths_that_are_not_selected_and_other_scopes_pass_untouched():
    called = []

    async def app(scope, receive, send):
        called.append((scope, receive, send))

    async def nothing(*_):
        raise AssertionError

    middleware = guarded(app, paths=["/api/*"], exclude=["/api/health"])
    for scope in ({"type": "http", "path": "/"}, {"type": "http", "path": "/api/health"}, {"type": "mqtt"}):
        call = (scope, nothing, nothing)
        await middleware(*call)
        assert all(one is other for one, other in zip(called.pop(), call, strict=True))


# -- optional paths and scopes


async def test_on_an_optional_path_nobody_in_particular_may_ask_but_a_bad_credential_is_refused():
    site = Site()
    app = guarded(site, optional=["/public/*"], scopes=["chat"])

    assert seen(await ask(app, path="/public/a")) == {"subject": "", "known": False, "scopes": []}
    assert seen(await ask(app, bearer(ADA), path="/public/a"))["subject"] == "ada"
    assert refused(await ask(app, bearer("a.b.c"), path="/public/a")) == (401, "invalid_token")
    assert refused(await ask(app, path="/private")) == (401, "")
    assert site.calls[0]["user"].is_anonymous


async def test_the_anonymous_may_be_of_a_kind_of_its_own():
    class Guest(Principal):
        is_authenticated = False

    site = Site()
    await ask(guarded(site, optional=["*"], anonymous=lambda: Guest(subject="guest")))

    assert isinstance(site.calls[0]["user"], Guest)


async def test_scopes_are_asked_for_by_path():
    app = guarded(scopes={"/admin/*": ["admin", "chat"], "/chat": ["chat"]})

    assert seen(await ask(app, bearer(BOB), path="/chat"))["subject"] == "bob"
    assert seen(await ask(app, bearer(BOB), path="/else"))["subject"] == "bob"
    connection = await ask(app, bearer(BOB), path="/admin/a")

    assert refused(connection) == (403, "insufficient_scope")
    assert json.loads(connection.body)["scope"] == "admin chat"
    assert 'scope="admin chat"' in connection.header("www-authenticate")


async def test_whoever_shows_nothing_is_told_what_to_ask_for():
    connection = await ask(guarded(scopes=["chat"]))

    assert connection.header("www-authenticate") == 'Bearer realm="api", scope="chat"'


async def test_paths_are_those_within_the_mount():
    app = guarded(optional=["/open"], scopes={"/admin": ["admin"]})
    mounted = {"root_path": "/v1"}

    assert seen(await ask(app, path="/v1/open", scope=mounted))["known"] is False
    assert refused(await ask(app, bearer(BOB), path="/v1/admin", scope=mounted)) == (403, "insufficient_scope")


# -- preflights


async def test_preflights_pass_uncounted_as_nobodys():
    site, observer = Site(), CountingObserver()
    app = guarded(site, observer=observer)
    preflight = [("origin", ORIGIN), ("access-control-request-method", "POST")]

    connection = await ask(app, *preflight, method="OPTIONS", scope={"user": Principal(subject="root")})

    assert seen(connection)["known"] is False
    assert observer.counts == {}
    assert refused(await ask(app, *preflight[:1], method="OPTIONS")) == (401, "")
    assert refused(await ask(app, *preflight, method="GET")) == (401, "")


# -- the verifier


async def test_where_the_token_cannot_be_verified_now_a_later_try_may_do():
    verifier, observer = SecretVerifier(), CountingObserver()
    verifier.error = VerifierUnavailable("keys", 7.0)
    app = guarded(verifier=verifier, observer=observer)

    plain = await ask(app, bearer(ADA))
    eventsource = await ask(app, bearer(ADA), *EVENTSOURCE)

    assert refused(plain) == (503, "")
    assert 7 <= int(plain.header("retry-after")) <= 11
    assert (eventsource.status, eventsource.header("content-type")) == (200, "text/event-stream")
    assert eventsource.body.startswith(b"retry: ")
    assert observer.counts == {("auth.refused", "keys"): 2}


async def test_an_eventsource_with_a_bad_token_is_ended_for_good():
    assert refused(await ask(guarded(), bearer("a.b.c"), *EVENTSOURCE)) == (401, "invalid_token")


class Broken(SecretVerifier):
    def recall(self, token: str) -> Principal | None:
        raise RuntimeError(f"no {token} here")


async def test_a_verifier_that_breaks_lets_nobody_in_and_its_words_are_not_logged(caplog: pytest.LogCaptureFixture):
    verifier, observer = Broken(), CountingObserver()
    verifier.error = ValueError(f"cannot read {ADA}")
    caplog.set_level(logging.DEBUG)

    connection = await ask(guarded(verifier=verifier, observer=observer), bearer(ADA))

    assert refused(connection) == (401, "invalid_token")
    assert observer.counts == {("auth.refused", "verifier_failed"): 1}
    assert "RuntimeError" in caplog.text
    assert "ValueError" in caplog.text
    assert ADA not in caplog.text


async def test_several_verifiers_are_asked_in_turn():
    class Nobody(SecretVerifier):
        async def verify(self, token: str, *, client: str = "") -> Principal:
            raise TokenRefused("issuer")

    assert seen(await ask(guarded(verifiers=[Nobody(), SecretVerifier()]), bearer(ADA)))["subject"] == "ada"
    assert refused(await ask(guarded(verifiers=[Nobody()]), bearer(ADA))) == (401, "invalid_token")


async def test_the_log_has_the_reason_and_not_the_token(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    expired = token_for(lifetime=-1)

    connection = await ask(guarded(query="t"), bearer(expired), path="/a\n[forged]")
    await ask(guarded(query="t"), path="/", query=f"t={expired}")

    assert "'/a\\n[forged]' refused: expired" in caplog.text
    for secret in (expired, expired.split(".")[2]):
        assert secret not in caplog.text
        assert secret not in repr(connection.messages)


async def test_a_lifespan_opens_and_closes_the_verifier_and_the_store():
    verifier = SecretVerifier()

    async def app(scope, receive, send):
        for kind in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{kind}"
            await send({"type": f"lifespan.{kind}.complete"})

    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append((message["type"], verifier.opened, verifier.closed))

    await guarded(app, verifier=verifier, tickets=Tickets(MemoryStore()))({"type": "lifespan"}, receive, send)

    assert sent == [("lifespan.startup.complete", 1, 0), ("lifespan.shutdown.complete", 1, 0)]
    assert verifier.closed == 1


# -- refusals whose request is not whole, or whose client has left


async def test_a_refusal_waits_a_moment_for_the_rest_of_a_body():
    connection = Connection(guarded(), method="POST", body=None, headers=[("content-length", "4")])
    async with connection:
        connection.send_body(b"ab", more=True)
        connection.send_body(b"cd")
        await connection.finished()

    assert refused(connection) == (401, "")


async def test_a_client_that_leaves_meanwhile_is_sent_nothing():
    connection = Connection(guarded(), method="POST", body=None, headers=[("content-length", "4")])
    async with connection:
        connection.send_body(b"ab", more=True)
        connection.drop()
        await connection.finished()

    assert connection.messages == []


# -- cookies and where requests come from

COOKIE = ("cookie", f"sid={ADA}")
SAME = {"host": "chat.example"}


@pytest.mark.parametrize(
    ("method", "headers", "good"),
    [
        pytest.param("GET", {}, True, id="no browser says anything, and nothing is changed"),
        pytest.param("POST", {}, False, id="no browser says anything, but something may be changed"),
        pytest.param("POST", {"origin": ORIGIN}, True, id="a page of this host"),
        pytest.param("POST", {"origin": "http://chat.example"}, True, id="a page of this host, TLS ended by a proxy"),
        pytest.param("GET", {"origin": "https://evil.example"}, False, id="a page of another host"),
        pytest.param("GET", {"origin": "null"}, False, id="a page of no host"),
        pytest.param("GET", {"sec-fetch-site": "cross-site"}, False, id="another site's EventSource"),
        pytest.param("GET", {"sec-fetch-site": "same-origin"}, True, id="this site's EventSource"),
        pytest.param("POST", {"sec-fetch-site": "same-origin"}, True, id="this site's form"),
        pytest.param(
            "GET",
            {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
            True,
            id="a link of another site",
        ),
    ],
)
async def test_without_an_origin_check_cookies_are_for_pages_of_the_same_host(method, headers, good):
    site, observer = Site(), CountingObserver()
    app = guarded(site, cookie="sid", observer=observer)

    connection = await ask(app, COOKIE, *(SAME | headers).items(), method=method, scope={"scheme": "https"})

    if good:
        assert seen(connection)["subject"] == "ada"
        assert record_of(site.calls[0]).ambient
    else:
        assert refused(connection) == (403, "")
        assert connection.header("www-authenticate") is None
        assert observer.counts == {("auth.refused", "cross_site"): 1}


async def test_two_lines_of_what_should_stand_once_are_nobodys_pages():
    lines = [("host", "chat.example"), ("origin", ORIGIN), ("origin", "https://evil.example")]

    connection = await ask(guarded(cookie="sid"), COOKIE, *lines, scope={"scheme": "https"})

    assert refused(connection) == (403, "")


async def test_an_origin_middleware_outside_decides_in_its_place(caplog: pytest.LogCaptureFixture):
    site = Site()
    stack = Stack(
        site,
        middleware=[
            Middleware(OriginMiddleware, allow=["https://friend.example"]),
            Middleware(AuthMiddleware, verifier=SecretVerifier(), cookie="sid"),
            Middleware(HeartbeatMiddleware),
        ],
    )
    friend = [COOKIE, ("host", "chat.example"), ("origin", "https://friend.example")]

    assert seen(await ask(stack, *friend, method="POST", scope={"scheme": "https"}))["subject"] == "ada"
    assert "OriginMiddleware" not in caplog.text
    assert record_of(site.calls[0]).ambient


async def test_that_nobody_checks_the_origin_of_cookies_is_said_once(caplog: pytest.LogCaptureFixture):
    app = guarded(cookie="sid")
    for _ in range(3):
        await ask(app, COOKIE, ("host", "chat.example"))
    await ask(app, bearer(ADA))

    assert caplog.text.count("no OriginMiddleware outside it") == 1


async def test_a_token_in_the_header_may_come_from_anywhere():
    site = Site()
    app = guarded(site, cookie="sid")
    foreign = [("host", "chat.example"), ("origin", "https://evil.example")]

    assert seen(await ask(app, bearer(ADA), COOKIE, *foreign, method="POST"))["subject"] == "ada"
    assert not record_of(site.calls[0]).ambient


# -- the query


@pytest.mark.parametrize(
    ("query", "outcome"),
    [
        pytest.param(f"a=1&access_token={ADA}&b=2", "ada", id="a token"),
        pytest.param(f"a=1&access_token={ADA}&b=2&access_token={ADA}", "ada", id="the same twice"),
        pytest.param(f"a=1&access_token={ADA}&b=2&access_token={BOB}", (400, "invalid_request"), id="two tokens"),
        pytest.param("a=1&access_token=a.b.c&b=2", (401, "invalid_token"), id="a forged token"),
        pytest.param("a=1&access_token&b=2", (400, "invalid_request"), id="an empty token"),
        pytest.param("a=1&access_token=%ff%00&b=2", (401, "invalid_token"), id="nonsense"),
    ],
)
@pytest.mark.parametrize("stacked", [False, True])
async def test_a_token_is_taken_out_of_the_query_also_where_the_server_looks(query, outcome, stacked):
    site = Site()
    app = guarded(site, query="access_token")
    if stacked:
        auth = Middleware(AuthMiddleware, verifier=SecretVerifier(), query="access_token")
        app = Stack(site, middleware=[Middleware(OriginMiddleware), auth, Middleware(HeartbeatMiddleware)])
    connection = Connection(app, query=query)
    async with connection:
        await connection.finished()

    assert connection.scope["query_string"] == b"a=1&b=2"
    assert KEY not in connection.scope
    assert connection.header("cache-control") == "no-store"
    if isinstance(outcome, str):
        assert seen(connection)["subject"] == outcome
        assert site.calls[0]["query_string"] == b"a=1&b=2"
    else:
        assert refused(connection) == outcome


async def test_by_default_no_token_is_looked_for_in_the_query():
    site = Site()
    query = f"access_token={ADA}"

    assert refused(await ask(guarded(site), query=query)) == (401, "")
    connection = await ask(guarded(site), bearer(ADA), query=query)

    assert site.calls[0]["query_string"] == query.encode()
    assert connection.header("cache-control") == "max-age=60"


async def test_a_token_in_the_query_of_a_preflight_is_not_logged_either():
    site = Site()
    connection = Connection(
        guarded(site, query="access_token"),
        method="OPTIONS",
        query=f"access_token={ADA}",
        headers=[("origin", ORIGIN), ("access-control-request-method", "GET")],
    )
    async with connection:
        await connection.finished()

    assert connection.scope["query_string"] == site.calls[0]["query_string"] == b""


# -- metadata

METADATA = ResourceMetadata("https://api.example/mcp", authorization_servers=[ISSUER])


@pytest.mark.parametrize("options", [{}, {"paths": ["/mcp*"]}])
async def test_the_metadata_are_served_to_everybody(options):
    app = guarded(resource_metadata=METADATA, scopes=["chat"], query="access_token", **options)
    path = "/.well-known/oauth-protected-resource/mcp"

    got = await ask(app, ("origin", ORIGIN), path=path)
    head = await ask(app, path=path, method="HEAD")
    preflight = await ask(
        app, ("origin", ORIGIN), ("access-control-request-method", "GET"), path=path, method="OPTIONS"
    )
    posted = await ask(app, path=path, method="POST")

    assert json.loads(got.body) == {
        "resource": "https://api.example/mcp",
        "authorization_servers": [ISSUER],
        "scopes_supported": ["chat"],
        "bearer_methods_supported": ["header", "query"],
    }
    assert got.header("content-type") == "application/json"
    assert got.header("access-control-allow-origin") == "*"
    assert got.header("cache-control") == "public, max-age=3600"
    assert (head.status, head.body, head.header("content-length")) == (200, b"", str(len(got.body)))
    assert (preflight.status, preflight.header("access-control-allow-origin")) == (204, "*")
    assert (posted.status, posted.header("allow")) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("given", [METADATA, METADATA.url])
async def test_every_challenge_says_where_the_metadata_are(given):
    app = guarded(resource_metadata=given, scopes=["admin"])

    for headers in ([], [bearer("a.b.c")], [bearer(ADA)]):
        challenge = (await ask(app, *headers, path="/mcp")).header("www-authenticate")
        assert f'resource_metadata="{METADATA.url}"' in challenge
    assert refused(await ask(guarded(resource_metadata=METADATA.url), path="/.well-known/x")) == (401, "")


# -- options


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"verifier": None}, "verifier"),
        ({"verifier": object()}, "verifier"),
        ({"verifier": SecretVerifier(), "verifiers": [SecretVerifier()]}, "verifier"),
        ({"verifiers": []}, "verifiers"),
        ({"verifiers": [5]}, "verifier"),
        ({"scopes": "chat"}, "scopes"),
        ({"optional": "/a"}, "optional"),
        ({"anonymous": 5}, "anonymous"),
        ({"cookie": ""}, "cookie"),
        ({"cookie": "a b"}, "cookie"),
        ({"cookie": b"a"}, "cookie"),
        ({"subprotocol": 1}, "subprotocol"),
        ({"query": True}, "query"),
        ({"query": "ticket", "tickets": Tickets(MemoryStore())}, "query"),
        ({"tickets": MemoryStore()}, "tickets"),
        ({"ws_reject": "close"}, "ws_reject"),
        ({"close_codes": {401: 1000}}, "close_codes"),
        ({"close_codes": {404: 4404}}, "close_codes"),
        ({"close_codes": [401]}, "close_codes"),
        ({"realm": ""}, "realm"),
        ({"realm": "ü"}, "realm"),
        ({"resource_metadata": "/x"}, "resource_metadata"),
        ({"tickets": Tickets(MemoryStore()), "exclude": ["/_auth/*"]}, "exclude"),
        ({"paths": "/a"}, "paths"),
    ],
)
def test_wrong_options_are_errors(options, option):
    with pytest.raises(ConfigurationError, match=f"AuthMiddleware: {option} must be"):
        guarded(**options)
