"""Tickets at ``AuthMiddleware``: asked for with the header, shown in a URL, good once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from streamware import (
    AuthMiddleware,
    CountingObserver,
    HeartbeatMiddleware,
    MemoryStore,
    Middleware,
    SQLiteStore,
    Stack,
    StoreError,
    StoreFull,
    StoreUnavailable,
    Tickets,
    TokenRefused,
)
from streamware.auth.endpoints import MAX_BODY
from streamware.testing import Connection, FakeClock
from tests.auth.verifying import SecretVerifier, token_for
from tests.middleware.auth_asking import EVENTSOURCE, ORIGIN, Site, ask, bearer, guarded, refused, seen, shake

ADA = token_for("ada")
PAGE, HOST = ("origin", ORIGIN), ("host", "chat.example")


async def post(app: Any, where: str, *headers: tuple[str, str]) -> Connection:
    return await ask(app, *headers, method="POST", path="/_auth/ticket", body=json.dumps({"path": where}).encode())


async def issue(app: Any, where: str = "/events", *headers: tuple[str, str]) -> str:
    connection = await post(app, where, bearer(ADA), *(headers or (PAGE,)))
    assert connection.status == 200, connection.body
    return json.loads(connection.body)["ticket"]


async def test_a_ticket_lets_its_principal_in_once():
    site, observer = Site(), CountingObserver()
    app = guarded(site, tickets=Tickets(MemoryStore()), observer=observer)
    ticket = await issue(app)

    first = Connection(app, path="/events", query=f"a=1&ticket={ticket}", headers=[PAGE, *EVENTSOURCE])
    async with first:
        await first.finished()
    again = await ask(app, PAGE, *EVENTSOURCE, path="/events", query=f"ticket={ticket}")

    assert seen(first)["subject"] == "ada"
    assert first.header("cache-control") == "no-store"
    assert first.scope["query_string"] == site.calls[0]["query_string"] == b"a=1"
    # An EventSource comes back to the same URL: it is ended for good, and its page asks for a new ticket.
    assert refused(again) == (401, "invalid_token")
    assert observer.counts == {
        ("auth.ticket", "issued"): 1,
        ("auth.ticket", "redeemed"): 1,
        ("auth.refused", "ticket_unknown"): 1,
    }


async def test_the_answer_says_how_long_it_is_good_and_what_to_do_at_a_reconnect():
    connection = await post(guarded(tickets=Tickets(MemoryStore(), ttl=20)), "/events", bearer(ADA), PAGE)

    answer = json.loads(connection.body)
    assert len(answer.pop("ticket")) == 43
    assert answer == {"expires_in": 20, "parameter": "ticket", "on_reconnect": "new_ticket"}
    assert connection.header("cache-control") == "no-store"
    assert connection.header("content-type") == "application/json"


async def test_a_websocket_may_show_a_ticket():
    app = guarded(tickets=Tickets(MemoryStore(), parameter="t"))
    ticket = await issue(app, "/ws/*")

    first = await shake(app, path="/ws/room", query=f"t={ticket}", headers=[PAGE])
    again = await shake(app, path="/ws/room", query=f"t={ticket}", headers=[PAGE])

    assert seen(first)["subject"] == "ada"
    assert first.scope["query_string"] == b""
    assert again.close_code == 3000


@pytest.mark.parametrize(
    ("request_for", "headers", "reason"),
    [
        pytest.param("/other", [PAGE], "ticket_path", id="another path"),
        pytest.param("/events", [("origin", "https://evil.example")], "ticket_origin", id="another origin"),
        pytest.param("/events", [PAGE, PAGE], "ticket_origin", id="two origins"),
        pytest.param("/events", [("sec-fetch-site", "cross-site")], "ticket_origin", id="another site, without one"),
    ],
)
async def test_a_ticket_is_bound_to_path_and_origin(request_for, headers, reason):
    observer = CountingObserver()
    app = guarded(tickets=Tickets(MemoryStore()), observer=observer)
    ticket = await issue(app)

    assert refused(await ask(app, *headers, path=request_for, query=f"ticket={ticket}")) == (401, "invalid_token")
    assert observer.counts["auth.refused", reason] == 1


async def test_a_page_of_the_servers_own_asks_without_an_origin():
    app = guarded(tickets=Tickets(MemoryStore()))
    ticket = await issue(app)

    connection = await ask(app, ("sec-fetch-site", "same-origin"), path="/events", query=f"ticket={ticket}")

    assert seen(connection)["subject"] == "ada"


async def test_within_a_mount_either_form_of_the_path_may_be_named():
    app = guarded(tickets=Tickets(MemoryStore()))
    mounted = {"root_path": "/v1"}
    for where in ("/events", "/v1/events"):
        ticket = await issue(app, where)
        connection = await ask(app, PAGE, path="/v1/events", query=f"ticket={ticket}", scope=mounted)
        assert seen(connection)["subject"] == "ada"


@pytest.mark.parametrize("how", ["expired", "revoked", "hook"])
async def test_the_principal_is_looked_at_anew_when_a_ticket_is_redeemed(how: str):
    verifier, gone = SecretVerifier(), set()
    verifier.remembers = False
    tickets = Tickets(MemoryStore(), revoked=lambda principal: principal.subject in gone)
    app = guarded(verifier=verifier, tickets=tickets)
    ticket = await issue(app)

    if how == "expired":
        verifier.error = TokenRefused("expired")
    elif how == "revoked":
        verifier.revoked.add("ada")
    else:
        gone.add("ada")

    assert refused(await ask(app, PAGE, path="/events", query=f"ticket={ticket}")) == (401, "invalid_token")


async def test_a_hook_that_fails_lets_nobody_in_for_now(caplog: pytest.LogCaptureFixture):
    def revoked(principal: object) -> bool:
        raise RuntimeError(f"no database for {ADA}")

    app = guarded(tickets=Tickets(MemoryStore(), revoked=revoked))
    ticket = await issue(app)

    assert refused(await ask(app, PAGE, path="/events", query=f"ticket={ticket}")) == (503, "")
    assert "RuntimeError" in caplog.text
    assert ADA not in caplog.text


async def test_a_token_that_is_remembered_is_not_verified_again_for_its_ticket():
    verifier = SecretVerifier()
    app = guarded(verifier=verifier, tickets=Tickets(MemoryStore()))

    assert seen(await ask(app, PAGE, path="/events", query=f"ticket={await issue(app)}"))["subject"] == "ada"

    assert verifier.asked == 1


async def test_scopes_are_asked_of_a_tickets_principal_too():
    app = guarded(tickets=Tickets(MemoryStore()), scopes={"/admin": ["admin"]})
    ticket = await issue(app, "/admin")

    assert refused(await ask(app, PAGE, path="/admin", query=f"ticket={ticket}")) == (403, "insufficient_scope")


@pytest.mark.parametrize(
    "beside",
    [
        pytest.param({"headers": [bearer(ADA)]}, id="a header"),
        pytest.param({"headers": [("cookie", f"sid={ADA}")]}, id="a cookie"),
        pytest.param({"query": f"access_token={ADA}"}, id="a token in the query"),
        pytest.param({"query": "ticket=" + "a" * 43}, id="another ticket"),
    ],
)
async def test_a_ticket_beside_another_credential_is_refused_and_kept(beside):
    app = guarded(tickets=Tickets(MemoryStore()), cookie="sid", query="access_token")
    ticket = await issue(app)
    query = "&".join([f"ticket={ticket}", *([beside["query"]] if "query" in beside else [])])

    connection = await ask(app, PAGE, *beside.get("headers", ()), path="/events", query=query)

    assert refused(connection) == (400, "invalid_request")
    assert seen(await ask(app, PAGE, path="/events", query=f"ticket={ticket}"))["subject"] == "ada"


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        pytest.param([], (401, ""), id="no credential"),
        pytest.param([bearer("a.b.c")], (401, "invalid_token"), id="a forged one"),
        pytest.param(
            [("cookie", f"sid={ADA}"), ("host", "chat.example"), PAGE], (400, "invalid_request"), id="a cookie"
        ),
    ],
)
async def test_tickets_are_for_whoever_shows_a_token_in_the_header(headers, outcome):
    app = guarded(tickets=Tickets(MemoryStore()), cookie="sid", optional=["*"])

    assert refused(await ask(app, *headers, method="POST", path="/_auth/ticket", scope={"scheme": "https"})) == outcome


async def test_a_ticket_gets_no_ticket():
    app = guarded(tickets=Tickets(MemoryStore()))
    ticket = await issue(app, "/*")

    connection = await ask(app, PAGE, method="POST", path="/_auth/ticket", query=f"ticket={ticket}")

    assert refused(connection) == (400, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{}", b"[]", b"5", b"{", b'{"path": 5}', b'{"path": ""}', b'{"path": "events"}', b"\xff", b'"/events"'),
        b'{"path": "/\\ud800"}',
        b'{"path": "/' + b"a" * 2048 + b'"}',
        b'{"path": "/events"}' + b" " * MAX_BODY,
        b"[" * 4000,
    ],
)
async def test_a_request_that_does_not_say_where_is_told_how(body: bytes):
    site = Site()

    connection = await ask(
        guarded(site, tickets=Tickets(MemoryStore())), bearer(ADA), method="POST", path="/_auth/ticket", body=body
    )

    assert connection.status == 400
    assert '{"path": "/events"}' in json.loads(connection.body)["detail"]
    assert site.calls == []


async def test_the_body_may_come_in_parts_and_its_sender_may_leave():
    app = guarded(tickets=Tickets(MemoryStore()))
    request = {"method": "POST", "path": "/_auth/ticket", "body": None, "headers": [bearer(ADA)]}
    async with Connection(app, **request) as whole:
        whole.send_body(b'{"path": ', more=True)
        whole.send_body(b'"/events"}')
        await whole.finished()
    async with Connection(app, **request) as cut:
        cut.send_body(b'{"path": ', more=True)
        cut.drop()
        await cut.finished()

    assert whole.status == 200
    assert cut.messages == []


async def test_a_body_without_an_end_is_read_to_the_cap():
    app = guarded(tickets=Tickets(MemoryStore()))

    async with Connection(app, method="POST", path="/_auth/ticket", body=None, headers=[bearer(ADA)]) as endless:
        for _ in range(3):
            endless.send_body(b" " * MAX_BODY, more=True)
        await endless.finished()

    assert endless.status == 400
    assert len(endless._requests) == 1


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("streamware.auth.endpoints.BODY_WAIT", 0.01)
    app = guarded(tickets=Tickets(MemoryStore()))

    async with Connection(app, method="POST", path="/_auth/ticket", body=None, headers=[bearer(ADA)]) as slow:
        await slow.finished()

    assert slow.status == 408


async def test_only_post_asks_for_a_ticket():
    connection = await ask(guarded(tickets=Tickets(MemoryStore())), bearer(ADA), path="/_auth/ticket")

    assert (connection.status, connection.header("allow")) == (405, "POST")


async def test_paths_for_which_none_are_issued_and_origins_too_long_are_refused():
    app = guarded(tickets=Tickets(MemoryStore(), paths=["/events"]))

    assert (await post(app, "/admin", bearer(ADA))).status == 400
    assert (await post(app, "/events", bearer(ADA), ("origin", "https://" + "a" * 600))).status == 400
    assert (await post(app, "/events", bearer(ADA))).status == 200


async def test_whoever_has_too_many_tickets_out_is_told_when_to_come_back():
    clock = FakeClock()
    app = guarded(tickets=Tickets(MemoryStore(clock=clock), per_principal=2, clock=clock))
    for _ in range(2):
        await issue(app)
    await clock.advance(10)

    connection = await post(app, "/events", bearer(ADA), PAGE)

    assert refused(connection) == (429, "")
    assert connection.header("retry-after") == "20"


class Away(MemoryStore):
    """A store that answers nobody, or is full."""

    error: Exception = StoreUnavailable("away")

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        raise self.error

    async def take(self, key: str) -> bytes | None:
        raise self.error


@pytest.mark.parametrize("error", [StoreUnavailable("away"), StoreFull("full"), OSError("of its own")])
async def test_a_store_that_is_away_lets_nobody_in_for_now(error):
    store = Away()
    store.error = error
    app = guarded(tickets=Tickets(store))

    asking = await post(app, "/events", bearer(ADA)) if isinstance(error, StoreError) else None
    plain = await ask(app, PAGE, path="/events", query="ticket=" + "a" * 43)
    eventsource = await ask(app, PAGE, *EVENTSOURCE, path="/events", query="ticket=" + "a" * 43)

    assert refused(plain) == (503, "")
    assert asking is None or refused(asking) == (503, "")
    assert (eventsource.status, eventsource.body) == (200, b"retry: 5000\n\n")


async def test_the_path_for_tickets_is_the_middlewares_whatever_it_selects():
    app = guarded(tickets=Tickets(MemoryStore(), path="/t[1]"), paths=["/events"])

    connection = await ask(app, bearer(ADA), method="POST", path="/t[1]", body=b'{"path": "/events"}')

    assert connection.status == 200


async def test_a_ticket_is_good_once_among_workers_that_share_a_store(tmp_path):
    def worker() -> Any:
        tickets = Tickets(SQLiteStore(tmp_path / "streams.db"))
        auth = Middleware(AuthMiddleware, verifier=SecretVerifier(), tickets=tickets)
        return tickets, Stack(Site(), middleware=[auth, Middleware(HeartbeatMiddleware)])

    (one, first), (two, second) = worker(), worker()
    try:
        ticket = await issue(first)
        answers = await asyncio.gather(
            *(ask(each, PAGE, path="/events", query=f"ticket={ticket}") for each in (second, first) * 4)
        )
    finally:
        await one.aclose()
        await two.aclose()

    assert sorted(answer.status for answer in answers) == [200, *[401] * 7]
