"""Tickets: good once, for seconds, for one path, origin and token."""

from __future__ import annotations

import asyncio
import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware import ConfigurationError, MemoryStore, Principal, SQLiteStore, StoreFull, Tickets, TokenRefused
from streamware.auth.tickets import MAX_ORIGIN, MAX_PATH, TooManyTickets
from streamware.testing import FakeClock
from streamware.wire.credentials import MAX_CREDENTIAL

ADA = Principal(issuer="https://idp.example", subject="ada")
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"
PAGE = "https://chat.example"


class Board:
    """Keeps what was put, for the test to look at. ``error``: what it raises from now on."""

    def __init__(self) -> None:
        self.items: dict[str, bytes] = {}
        self.taken: list[str] = []
        self.started = self.closed = 0
        self.error: Exception | None = None

    async def start(self) -> None:
        self.started += 1

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        if self.error is not None:
            raise self.error
        self.items[key] = value

    async def take(self, key: str) -> bytes | None:
        self.taken.append(key)
        return self.items.pop(key, None)

    async def aclose(self) -> None:
        self.closed += 1


async def redeem(
    tickets: Tickets, ticket: str, path: str = "/events", origin: str | None = PAGE, same: bool = False
) -> str:
    return await tickets.redeem(ticket, paths=[path], origin=origin, same_origin=same)


async def test_a_ticket_yields_its_token_once():
    tickets = Tickets(MemoryStore())
    ticket = await tickets.issue(ADA, TOKEN, path="/events", origin=PAGE)

    assert await redeem(tickets, ticket) == TOKEN
    with pytest.raises(TokenRefused, match="ticket_unknown"):
        await redeem(tickets, ticket)
    assert tickets.waiting == 0


async def test_of_many_who_show_the_same_ticket_at_once_one_gets_in():
    tickets = Tickets(MemoryStore())
    ticket = await tickets.issue(ADA, TOKEN, path="/events", origin=PAGE)

    outcomes = await asyncio.gather(*(redeem(tickets, ticket) for _ in range(20)), return_exceptions=True)

    assert outcomes.count(TOKEN) == 1
    assert sum(isinstance(each, TokenRefused) for each in outcomes) == 19


async def test_a_ticket_is_good_in_another_worker_and_once_among_all(tmp_path):
    one, other = (Tickets(SQLiteStore(tmp_path / "board.db")) for _ in range(2))
    try:
        ticket = await one.issue(ADA, TOKEN, path="/events", origin=PAGE)

        outcomes = await asyncio.gather(*(redeem(each, ticket) for each in (one, other) * 3), return_exceptions=True)

        assert outcomes.count(TOKEN) == 1
    finally:
        await one.aclose()
        await other.aclose()


async def test_a_ticket_lapses():
    clock = FakeClock()
    tickets = Tickets(MemoryStore(clock=clock), ttl=30, clock=clock)
    early = await tickets.issue(ADA, TOKEN, path="/events", origin=PAGE)
    late = await tickets.issue(ADA, TOKEN, path="/events", origin=PAGE)

    await clock.advance(29.9)
    assert await redeem(tickets, early) == TOKEN
    await clock.advance(0.2)

    with pytest.raises(TokenRefused, match="ticket_unknown"):
        await redeem(tickets, late)
    assert tickets.waiting == 0


@pytest.mark.parametrize(
    ("bound", "path", "good"),
    [
        ("/events", "/events", True),
        ("/events", "/events/", False),
        ("/events", "/other", False),
        ("/events/*", "/events/a/b", True),
        ("/events/*", "/events", False),
        ("/*", "/events", True),
        ("/a?c", "/abc", False),
        ("/[ab]", "/a", False),
    ],
)
async def test_a_ticket_is_good_at_its_path_alone(bound: str, path: str, good: bool):
    tickets = Tickets(Board())
    ticket = await tickets.issue(ADA, TOKEN, path=bound, origin=PAGE)

    if good:
        assert await redeem(tickets, ticket, path) == TOKEN
    else:
        with pytest.raises(TokenRefused, match="ticket_path"):
            await redeem(tickets, ticket, path)


@pytest.mark.parametrize(
    ("issued", "shown", "same_origin", "good"),
    [
        pytest.param(PAGE, PAGE, False, True, id="the page that asked"),
        pytest.param(PAGE, "https://evil.example", False, False, id="another page"),
        pytest.param(PAGE, "null", False, False, id="no page's"),
        pytest.param(PAGE, "", False, False, id="an empty one"),
        pytest.param(PAGE, None, True, True, id="the server's own page, whose GET says no origin"),
        pytest.param(PAGE, None, False, False, id="a browser says that another site asks"),
        pytest.param("", None, True, True, id="a script without a browser"),
        pytest.param("", PAGE, True, False, id="a script's, in a page"),
    ],
)
async def test_a_ticket_is_good_from_its_origin_alone(issued, shown, same_origin, good):
    tickets = Tickets(Board())
    ticket = await tickets.issue(ADA, TOKEN, path="/events", origin=issued)

    if good:
        assert await redeem(tickets, ticket, origin=shown, same=same_origin) == TOKEN
    else:
        with pytest.raises(TokenRefused, match="ticket_origin"):
            await redeem(tickets, ticket, origin=shown, same=same_origin)


async def test_a_ticket_that_is_shown_at_the_wrong_place_is_spent():
    tickets = Tickets(Board())
    ticket = await tickets.issue(ADA, TOKEN, path="/events", origin=PAGE)

    with pytest.raises(TokenRefused, match="ticket_path"):
        await redeem(tickets, ticket, "/other")

    with pytest.raises(TokenRefused, match="ticket_unknown"):
        await redeem(tickets, ticket)


async def test_the_store_learns_neither_the_ticket_nor_the_token_nor_who_it_is_for():
    board = Board()
    who = Principal(issuer=ADA.issuer, subject="whoever-it-is")  # a name that no hexadecimal text holds by chance
    ticket = await Tickets(board).issue(who, TOKEN, path="/events", origin=PAGE)
    ((key, value),) = board.items.items()

    for secret in (ticket, TOKEN, who.subject, "/events", PAGE, base64.urlsafe_b64decode(ticket + "=").hex()):
        assert secret not in key
        assert secret.encode() not in value


@given(st.binary(max_size=200), st.integers(0, 255))
async def test_whoever_writes_into_the_store_makes_no_ticket(data: bytes, place: int):
    board = Board()
    tickets = Tickets(board)
    ticket = await tickets.issue(ADA, TOKEN, path="/events", origin=PAGE)
    ((key, value),) = board.items.items()
    at = place % len(value)
    board.items[key] = data or value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]

    with pytest.raises(TokenRefused, match="ticket_unknown"):
        await redeem(tickets, ticket)


@given(st.text(max_size=60))
async def test_what_cannot_be_a_ticket_is_not_looked_for(text: str):
    board = Board()

    with pytest.raises(TokenRefused, match="ticket_unknown"):
        await redeem(Tickets(board), text)

    assert board.taken == []


async def test_one_principal_has_only_so_many_tickets_out():
    clock = FakeClock()
    tickets = Tickets(Board(), per_principal=2, ttl=30, clock=clock)
    first = await tickets.issue(ADA, TOKEN, path="/events", origin=PAGE)
    await clock.advance(10)
    await tickets.issue(ADA, TOKEN, path="/events", origin=PAGE)

    with pytest.raises(TooManyTickets) as caught:
        await tickets.issue(ADA, TOKEN, path="/events", origin=PAGE)
    assert caught.value.retry_after == pytest.approx(20)
    await tickets.issue(Principal(issuer="other", subject="ada"), TOKEN, path="/events", origin=PAGE)

    await redeem(tickets, first)
    await tickets.issue(ADA, TOKEN, path="/events", origin=PAGE)
    await clock.advance(30.1)
    await tickets.issue(ADA, TOKEN, path="/events", origin=PAGE)
    await tickets.issue(ADA, TOKEN, path="/events", origin=PAGE)
    with pytest.raises(TooManyTickets):
        await tickets.issue(ADA, TOKEN, path="/events", origin=PAGE)


async def test_a_worker_has_only_so_many_tickets_out():
    clock = FakeClock()
    tickets = Tickets(Board(), total=3, ttl=30, clock=clock)
    for number in range(3):
        await tickets.issue(Principal(subject=f"{number}"), TOKEN, path="/events", origin=PAGE)

    with pytest.raises(TooManyTickets):
        await tickets.issue(ADA, TOKEN, path="/events", origin=PAGE)
    assert tickets.waiting == 3

    await clock.advance(30)
    assert tickets.waiting == 0
    await tickets.issue(ADA, TOKEN, path="/events", origin=PAGE)


async def test_tickets_that_are_spent_at_once_leave_nothing_behind():
    tickets = Tickets(Board(), per_principal=1, total=1)
    for _ in range(50):
        await redeem(tickets, await tickets.issue(ADA, TOKEN, path="/events", origin=PAGE))

    assert (tickets._waiting, tickets._of) == ({}, {})


async def test_principals_without_a_name_are_told_apart_by_their_token():
    tickets = Tickets(Board(), per_principal=1)
    for digest in (b"a", b"b"):
        await tickets.issue(Principal(token_hash=digest), TOKEN, path="/events", origin=PAGE)

    assert tickets.waiting == 2


async def test_a_ticket_that_the_store_did_not_take_does_not_count():
    board = Board()
    board.error = StoreFull("full")
    tickets = Tickets(board, per_principal=1)

    with pytest.raises(StoreFull):
        await tickets.issue(ADA, TOKEN, path="/events", origin=PAGE)

    assert tickets.waiting == 0


async def test_the_longest_token_path_and_origin_fit_into_a_store():
    tickets = Tickets(MemoryStore())
    path, origin = "/" * MAX_PATH, "o" * MAX_ORIGIN
    ticket = await tickets.issue(ADA, "t" * MAX_CREDENTIAL, path=path, origin=origin)

    assert await redeem(tickets, ticket, path, origin) == "t" * MAX_CREDENTIAL


async def test_the_store_is_opened_at_the_first_use_and_closed_with_the_middleware():
    board = Board()
    tickets = Tickets(board)
    await redeem(tickets, await tickets.issue(ADA, TOKEN, path="/events", origin=PAGE))
    await tickets.aclose()
    await tickets.startup()

    assert (board.started, board.closed) == (2, 1)


async def test_a_board_that_cannot_be_closed_is_left_alone():
    board = Board()
    board.aclose = None

    await Tickets(board).aclose()


async def test_the_revoked_hook_has_the_last_word():
    async def asked(principal: Principal) -> bool:
        return principal.subject == "ada"

    assert await Tickets(Board()).still_good(ADA)
    assert not await Tickets(Board(), revoked=lambda principal: True).still_good(ADA)
    assert not await Tickets(Board(), revoked=asked).still_good(ADA)
    assert await Tickets(Board(), revoked=asked).still_good(Principal(subject="bob"))


def test_tickets_may_be_issued_for_some_paths_only():
    tickets = Tickets(Board(), paths=["/events*"])

    assert tickets.serves("/events/1")
    assert not tickets.serves("/admin")
    assert Tickets(Board()).serves("/admin")


@pytest.mark.parametrize(
    "options",
    [
        {"board": None},
        {"board": object()},
        {"path": "ticket"},
        {"path": 5},
        {"parameter": ""},
        {"parameter": "a&b"},
        {"ttl": 0},
        {"ttl": 301},
        {"ttl": True},
        {"ttl": float("nan")},
        {"paths": "/events"},
        {"per_principal": 0},
        {"per_principal": 1.5},
        {"total": 0},
        {"revoked": 5},
    ],
)
def test_wrong_options_are_errors(options):
    (option,) = options
    with pytest.raises(ConfigurationError, match=f"Tickets: {option} must be"):
        Tickets(**{"board": Board(), **options})
