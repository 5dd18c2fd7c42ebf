"""Who may ask: origins, sites, credentials and hosts, for requests, streams and WebSockets alike."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from streamware import ConfigurationError, Middleware, OriginMiddleware, ResumeMiddleware, Stack
from streamware.middleware.origin import REMEMBERED
from streamware.record import KEY
from streamware.streams.resource import METHODS
from streamware.testing import Connection
from streamware.types import Receive, Scope, Send
from tests.middleware.origin_site import BEARER, COOKIE, EVENTSOURCE, FOREIGN, LISTED, OWN, Site, refusal

KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "plain": ("GET", {"accept": "*/*"}),
    "post": ("POST", {"content-type": "application/json"}),
    "eventsource": ("GET", EVENTSOURCE),
    "resume": ("POST", {"last-event-id": "abc.1"}),
    "poll": ("GET", {"accept": "application/json", "prefer": "wait=25"}),
    "stop": ("DELETE", {}),
    "head": ("HEAD", {}),
    "brew": ("BREW", {}),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[str, dict[str, str]]:
    return KINDS[request.param]


# -- an Origin that is there


@pytest.mark.parametrize("credential", [{}, COOKIE, BEARER], ids=["none", "cookie", "bearer"])
@pytest.mark.parametrize("origin", [OWN, LISTED, "https://API.example:443"])
async def test_the_own_and_the_listed_origins_may_ask_anything(
    kind: tuple[str, dict[str, str]], origin: str, credential: dict[str, str]
) -> None:
    site = Site()

    answer = await site.ask(kind[0], {**kind[1], **credential, "origin": origin})

    assert answer.status == 200
    assert answer.headers == site.lines
    assert site.reasons == {}


@pytest.mark.parametrize("credential", [{}, COOKIE, BEARER], ids=["none", "cookie", "bearer"])
@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        (FOREIGN, "foreign"),
        ("https://api.example:8443", "foreign"),
        ("https://chat.example.", "foreign"),
        ("https://sub.chat.example", "foreign"),
        ("http://api.example", "scheme"),
        ("null", "null"),
        ("", "malformed"),
        ("https://u@chat.example", "malformed"),
        ("https://chat.example/", "malformed"),
        ("https://chat.example:99999", "malformed"),
        (f"{LISTED}, {FOREIGN}", "malformed"),
    ],
)
async def test_any_other_origin_is_refused(
    kind: tuple[str, dict[str, str]], origin: str, reason: str, credential: dict[str, str]
) -> None:
    site = Site()

    answer = await site.ask(kind[0], {**kind[1], **credential, "origin": origin, "sec-fetch-site": "same-origin"})

    assert answer.status == 403
    assert site.reached == []
    assert site.reasons == {reason: 1}


@pytest.mark.parametrize("origins", [(LISTED, LISTED), (LISTED, FOREIGN), (FOREIGN, LISTED), (OWN, "")])
async def test_two_origins_are_none(origins: tuple[str, str]) -> None:
    site = Site()
    pairs = [("origin", origin) for origin in origins]

    answer = await site.ask(headers=pairs)
    socket = await site.connect(pairs)

    assert answer.status == 403
    assert refusal(socket) == 403
    assert site.reached == []
    assert site.reasons == {"repeated": 2}


@pytest.mark.parametrize("name", ["host", "sec-fetch-site"])
async def test_two_lines_of_what_decides_are_refused(name: str) -> None:
    site = Site()
    value = {"host": "api.example", "sec-fetch-site": "same-origin"}[name]

    answer = await site.ask(headers=[(name, value), (name, value)], host=None)

    assert answer.status == 403
    assert site.reasons == {"repeated": 1}


async def test_other_headers_may_stand_twice() -> None:
    site = Site()

    answer = await site.ask(headers=[("cookie", "a=1"), ("cookie", "b=2"), ("origin", OWN)])

    assert answer.status == 200


async def test_a_refusal_says_nothing_but_no() -> None:
    answer = await Site().ask("POST", {"origin": "https://secret-name.example", **COOKIE})

    assert json.loads(answer.body) == {
        "type": "about:blank",
        "title": "The request may not come from here",
        "status": 403,
    }
    assert answer.header("content-type") == "application/problem+json"
    assert answer.header("cache-control") == "no-store"
    assert answer.header("access-control-allow-origin") is None
    assert "Origin" in (answer.header("vary") or "")


async def test_an_eventsource_is_refused_for_good() -> None:
    answer = await Site().ask(headers={**EVENTSOURCE, "origin": FOREIGN})

    assert answer.status == 403  # a soft refusal would keep it coming


# -- WebSockets


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"origin": OWN, **COOKIE}, None),
        ({"origin": LISTED, **COOKIE}, None),
        ({}, None),
        (BEARER, None),
        ({**BEARER, **COOKIE}, None),
        (COOKIE, "missing"),
        ({**COOKIE, "sec-fetch-site": "same-origin"}, "missing"),
        ({"authorization": "Basic dTpw"}, "missing"),
        ({"origin": FOREIGN}, "foreign"),
        ({"origin": FOREIGN, **COOKIE}, "foreign"),
        ({"origin": FOREIGN, **BEARER}, "foreign"),
        ({"origin": "null"}, "null"),
        ({"origin": "http://api.example"}, "scheme"),
        ({"sec-fetch-site": "cross-site"}, "cross_site"),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, "cross_site"),
    ],
)
@pytest.mark.parametrize("check", ["all", "streams"])
async def test_a_websocket_is_judged_before_its_handshake(
    check: str, headers: dict[str, str], reason: str | None
) -> None:
    site = Site(check=check)

    socket = await site.connect(headers)

    assert socket.accepted is (reason is None)
    assert refusal(socket) == (None if reason is None else 403)
    assert site.reasons == ({} if reason is None else {reason: 1})
    assert len(site.reached) == (reason is None)


async def test_a_websocket_is_closed_where_the_server_cannot_answer() -> None:
    site = Site()

    socket = await site.connect({"origin": FOREIGN}, server="daphne")

    assert not socket.accepted
    assert [message["type"] for message in socket.messages] == ["websocket.close"]


async def test_a_client_certificate_is_ambient() -> None:
    site = Site()
    shown = {"extensions": {"tls": {"client_cert_chain": ["-----BEGIN"]}, "websocket.http.response": {}}}
    none = {"extensions": {"tls": {"client_cert_chain": [], "client_cert_name": None}}}

    assert refusal(await site.connect(scope=shown)) == 403
    assert (await site.connect(scope=none)).accepted
    assert (await site.connect({"origin": OWN}, scope=shown)).accepted
    assert (await Site(ambient=["cookie"]).connect(scope=shown)).accepted


async def test_credentials_can_be_told_from_other_cookies() -> None:
    site = Site(cookies=["sid"])

    assert (await site.connect({"cookie": "AWSALB=x; lang=en"})).accepted
    assert refusal(await site.connect({"cookie": "AWSALB=x; sid=1"})) == 403


# -- without an Origin


@pytest.mark.parametrize(
    ("site_header", "allowed"),
    [("same-origin", True), ("none", True), ("same-site", False), ("cross-site", False), ("x", False)],
)
async def test_without_an_origin_the_site_decides(
    kind: tuple[str, dict[str, str]], site_header: str, allowed: bool
) -> None:
    site = Site()

    answer = await site.ask(kind[0], {**kind[1], **COOKIE, "sec-fetch-site": site_header})

    assert answer.status == (200 if allowed else 403)


async def test_a_program_needs_no_origin(kind: tuple[str, dict[str, str]]) -> None:
    site = Site(absent="refuse")

    for credential in ({}, BEARER, {**BEARER, **COOKIE}):
        assert (await site.ask(kind[0], {**kind[1], **credential})).status == 200


@pytest.mark.parametrize(("absent", "get", "post"), [("safe", 200, 403), ("accept", 200, 200), ("refuse", 403, 403)])
async def test_an_old_browser_is_believed_as_far_as_absent_says(absent: str, get: int, post: int) -> None:
    site = Site(absent=absent)

    assert (await site.ask("GET", {**EVENTSOURCE, **COOKIE})).status == get
    assert (await site.ask("POST", COOKIE)).status == post
    assert site.reasons == ({"missing": [get, post].count(403)} if 403 in (get, post) else {})


NAVIGATION = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


async def test_a_link_on_another_site_leads_here_unless_that_is_unwanted() -> None:
    assert (await Site().ask(headers={**NAVIGATION, **COOKIE})).status == 200
    assert (await Site().ask("POST", {**NAVIGATION, "origin": FOREIGN})).status == 403
    assert (await Site().ask(headers={**NAVIGATION, "sec-fetch-dest": "iframe"})).status == 403
    assert (await Site(navigations=False).ask(headers=NAVIGATION)).status == 403


async def test_an_image_of_another_site_starts_no_stream() -> None:
    headers = {
        "accept": "image/avif,*/*;q=0.8",
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "no-cors",
        "sec-fetch-dest": "image",
    }

    assert (await Site().ask(headers=headers)).status == 403


# -- null


async def test_null_is_an_origin_only_where_it_is_listed_and_never_with_an_ambient_credential() -> None:
    site = Site(allow=["null"])

    assert (await site.ask(headers={"origin": "null"})).status == 200
    assert (await site.ask(headers={"origin": "null", **BEARER})).status == 200
    assert (await site.ask(headers={"origin": "null", **COOKIE})).status == 403
    assert (await site.connect({"origin": "null"})).accepted
    assert refusal(await site.connect({"origin": "null", **COOKIE})) == 403
    assert (await site.ask(headers={"origin": "NULL"})).status == 403
    assert site.reasons == {"null": 2, "malformed": 1}


# -- which requests are looked at


@pytest.mark.parametrize(
    ("method", "headers", "path", "looked_at"),
    [
        ("GET", {}, "/", False),
        ("GET", {"accept": "*/*"}, "/", False),
        ("HEAD", {}, "/", False),
        ("OPTIONS", {}, "/", False),
        ("POST", {}, "/", True),
        ("DELETE", {}, "/", True),
        ("BREW", {}, "/", True),
        ("GET", {"accept": "text/event-stream"}, "/", True),
        ("GET", {"accept": "Text/Event-Stream;q=0.9, */*"}, "/", True),
        ("GET", {"accept": "application/x-ndjson"}, "/", True),
        ("GET", {"last-event-id": "1"}, "/", True),
        ("GET", {"prefer": "respond-async"}, "/", True),
        ("GET", {}, "/chat?_stream=abc", True),
    ],
)
async def test_streams_only_are_looked_at_where_that_is_wanted(
    method: str, headers: dict[str, str], path: str, looked_at: bool
) -> None:
    answer = await Site(check="streams").ask(method, {**headers, "origin": FOREIGN}, path=path)
    always = await Site().ask(method, {**headers, "origin": FOREIGN}, path=path)

    assert answer.status == (403 if looked_at else 200)
    assert always.status == 403


async def test_every_method_of_a_streams_own_url_is_looked_at() -> None:
    for method in METHODS:
        answer = await Site(check="streams").ask(method, {"origin": FOREIGN}, path="/chat?_stream=abc")
        assert answer.status == 403


async def test_paths_that_are_not_selected_pass_untouched() -> None:
    site = Site(exclude=["/public/*"], require_secure=True, cors=True, hosts=["api.example"])

    answer = await site.ask("POST", {"origin": FOREIGN}, path="/public/x", scheme="http", host="x.example")

    assert answer.status == 200
    assert answer.headers == site.lines
    assert KEY not in site.reached[0]


async def test_other_scopes_pass_with_the_very_objects_that_came_in() -> None:
    seen: list[tuple[object, ...]] = []

    async def app(*given: object) -> None:
        seen.append(given)

    given = ({"type": "mystery"}, object(), object())
    await OriginMiddleware(app, require_secure=True)(*given)

    assert all(one is other for one, other in zip(seen[0], given, strict=True))


# -- preflights

PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "last-event-id"}


@pytest.mark.parametrize("origin", [LISTED, OWN, FOREIGN, "null", "https://u@x"])
async def test_a_preflight_passes_uncounted(origin: str) -> None:
    site = Site()

    answer = await site.ask("OPTIONS", {**PREFLIGHT, "origin": origin})

    assert answer.status == 200
    assert len(site.reached) == 1
    assert site.observer.counts == {}


async def test_what_is_no_preflight_does_not_pass_for_one() -> None:
    site = Site()

    assert (await site.ask("OPTIONS", {"origin": FOREIGN})).status == 403
    assert (await site.ask("POST", {**PREFLIGHT, "origin": FOREIGN})).status == 403
    assert (await site.connect({**PREFLIGHT, "origin": FOREIGN})).accepted is False


# -- hosts


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost:8000", True),
        ("LOCALHOST:8000", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("evil.example:8000", False),
        ("localhost.evil.example", False),
        ("localhost:8000:1", False),
        ("a@localhost", False),
        ("", False),
        (None, False),
    ],
)
async def test_a_host_that_is_not_listed_is_refused(host: str | None, allowed: bool) -> None:
    site = Site(hosts=["localhost", "127.0.0.1", "[::1]:8000"])

    answers = [await site.ask(headers=headers, host=host, scheme="http") for headers in ({}, {**NAVIGATION}, COOKIE)]

    assert {answer.status for answer in answers} == {200 if allowed else 403}
    assert site.reasons == ({} if allowed else {"host": 3})


async def test_a_rebound_name_is_no_origin_of_the_server_where_hosts_are_listed() -> None:
    rebound = {"origin": "http://evil.example:8000", "sec-fetch-site": "same-origin"}

    with_list = Site(hosts=["localhost"])
    assert (await with_list.ask("POST", rebound, host="evil.example:8000", scheme="http")).status == 403
    assert not (await with_list.connect(rebound, host="evil.example:8000", scheme="ws")).accepted
    assert (
        await with_list.ask("OPTIONS", {**PREFLIGHT, **rebound}, host="evil.example:8000", scheme="http")
    ).status == 403
    assert with_list.reasons == {"host": 3}
    assert (await Site().ask("POST", rebound, host="evil.example:8000", scheme="http")).status == 200  # as documented


@pytest.mark.parametrize("host", [None, "", "@"])
async def test_without_a_host_there_is_no_own_origin(host: str | None) -> None:
    site = Site()

    assert (await site.ask(headers={"origin": OWN}, host=host)).status == 403
    assert (await site.ask(headers={"origin": LISTED}, host=host)).status == 200
    assert (await site.ask(host=host)).status == 200


async def test_no_forwarded_header_is_believed() -> None:
    site = Site(require_secure=True, hosts=["api.example"])
    forged = {
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "https",
        "forwarded": "proto=https;host=evil.example",
    }

    assert (await site.ask(headers={**forged, "origin": "https://evil.example"})).status == 403
    assert (await site.ask(headers={**forged, "origin": OWN}, scheme="http")).status == 403
    assert (await site.ask(headers={**forged, "x-forwarded-host": "api.example"}, host="evil.example")).status == 403


# -- what operators see


async def test_a_refused_page_is_named_in_the_log_once_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    with caplog.at_level(logging.WARNING, "streamware.origin"):
        for _ in range(3):
            await site.ask(headers={"origin": "http://localhost:5173"})
            await site.ask(headers={"origin": "http://api.example"})
            await site.ask(headers={"origin": "https://evil.example\r\nforged: line"})
        for number in range(100):
            await site.ask(headers={"origin": f"https://{number}.example"})

    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if "localhost:5173" in line] == [lines[0]]
    assert "add it to allow=" in lines[0]
    assert "ClientIPMiddleware" in lines[1]
    assert not any("forged" in line for line in lines)
    assert len(lines) == 16


async def test_the_reason_is_logged_without_anything_of_the_request(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    with caplog.at_level(logging.INFO, "streamware.origin"):
        await site.connect({"cookie": "sid=hunter2"}, path="/hunter2")

    assert [record.getMessage() for record in caplog.records] == ["refused: missing"]


# -- the memory, the order, the options


async def test_what_is_remembered_is_bounded_and_stays_right() -> None:
    site = Site()

    for number in range(REMEMBERED + 100):
        assert (await site.ask(headers={"origin": f"https://{number}.example"})).status == 403
        if number % 100 == 0:
            assert (await site.ask(headers={"origin": LISTED})).status == 200
            assert (await site.ask(headers={"origin": "https://1.example"}, host="1.example")).status == 200
    assert (await site.ask(headers={"origin": "https://" + "a" * 100_000})).status == 403

    remembered = site.app._relations
    assert len(remembered) <= REMEMBERED
    assert max(len(origin or b"") for _, _, origin in remembered) < 600


async def test_the_same_origin_is_another_under_another_host_or_scheme() -> None:
    site = Site(allow=[])

    for _ in range(2):
        assert (await site.ask(headers={"origin": OWN})).status == 200
        assert (await site.ask(headers={"origin": OWN}, host="other.example")).status == 403
        assert (await site.ask(headers={"origin": OWN}, scheme="http")).status == 403
        assert (await site.connect({"origin": OWN})).accepted
        assert not (await site.connect({"origin": OWN}, scheme="ws")).accepted


async def test_the_servers_scope_is_not_changed() -> None:
    site = Site(cors=True, require_secure=True)
    connection = Connection(site.app, headers=[("host", "api.example"), ("origin", LISTED)], scope={"scheme": "https"})
    before = {**connection.scope, "headers": list(connection.scope["headers"])}

    async with connection:
        await connection.receive_body()

    assert connection.scope == before


def test_it_stands_outside_resume() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    Stack(app, [Middleware(OriginMiddleware), Middleware(ResumeMiddleware)])
    with pytest.raises(ConfigurationError, match="OriginMiddleware must stand outside ResumeMiddleware"):
        Stack(app, [Middleware(ResumeMiddleware), Middleware(OriginMiddleware)])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("allow", "https://chat.example"), ("allow", ["chat.example"]), ("allow", ["*"]), ("allow", [5]),
        ("allow", None),
        ("hosts", "localhost"), ("hosts", []), ("hosts", ["http://localhost"]),
        ("check", "some"), ("check", None), ("absent", "deny"), ("absent", True),
        ("navigations", 1), ("require_secure", "yes"), ("cors", "yes"), ("cors", 1), ("hsts", 300),
        ("secure_port", 0), ("secure_port", 65536), ("secure_port", True), ("secure_port", "443"),
        ("ambient", "cookie"), ("ambient", ["token"]), ("ambient", None), ("ambient", [5]),
        ("cookies", "sid"), ("cookies", [""]), ("cookies", ["a b"]), ("cookies", ["\udc80"]), ("cookies", 5),
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused(option: str, value: Any) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    with pytest.raises(ConfigurationError, match=f"OriginMiddleware: {option} must be"):
        OriginMiddleware(app, **{option: value})
