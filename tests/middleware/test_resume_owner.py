"""Whose stream it is: a logout, another login, or another user between drop and resume ends access."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from starlette.authentication import AuthCredentials, BaseUser, SimpleUser, UnauthenticatedUser

from streamware.types import Scope
from tests.middleware.resume_site import EVENTSOURCE, READER, Site, SiteConnection

JSON = {"accept": "application/json"}


async def reads(site: Site, first: SiteConnection, headers: dict[str, str], **options: Any) -> bool:
    """Whether a request with these headers may read the stream, asked in every way there is; they must agree."""
    again = site.connect(headers=READER | headers, cursor=first.at(0), **options)
    own = site.connect(first.own_url, headers=READER | headers, **options)
    polled = site.connect(first.own_url, headers=JSON | headers, **options)
    answers = []
    for connection in (again, own, polled):
        await connection.start()
        answers.append(connection.status == 200)
        if connection.status == 200:
            await connection.receive_body(b"secret")
        else:
            await connection.finished()
            assert connection.status in (404, 410)
            assert b"secret" not in connection.body
        connection.drop()
        await connection.finished()
    if not any(answers):
        refused = site.connect(first.own_url, method="DELETE", headers=headers, **options)
        await refused.finished()
        assert refused.status == 404
        runs = site.runs
        afresh = site.connect(headers=EVENTSOURCE | headers, cursor=first.at(0), **options)
        run = await site.run(runs + 1)
        await run.stream("new")
        await afresh.events(2)
        assert b"secret" not in afresh.body
        assert afresh.stream != first.stream
        afresh.drop()
        await run.end()
    assert len(set(answers)) == 1, answers
    return answers[0]


def cookie(value: str, name: str = "sessionid") -> dict[str, str]:
    return {"cookie": f"theme=dark; {name}={value}; lang=en"}


# -- the app's own login is further in: the credential counts


@pytest.mark.parametrize(
    ("at_start", "later", "allowed"),
    [
        pytest.param(cookie("alice"), cookie("alice"), True, id="the same session"),
        pytest.param(cookie("alice"), {}, False, id="logged out"),
        pytest.param(cookie("alice"), cookie(""), False, id="logged out, cookie emptied"),
        pytest.param(cookie("alice"), cookie("bob"), False, id="another user's session"),
        pytest.param(cookie("alice"), {"authorization": "Bearer alice"}, False, id="another kind of login"),
        pytest.param(cookie("alice"), {"cookie": "sessionid=alice"}, True, id="other cookies do not matter"),
        pytest.param(cookie("alice"), {"cookie": "theme=light; lang=de; sessionid=alice"}, True, id="nor their order"),
        pytest.param(cookie("a", "__Host-session"), cookie("a", "__Host-session"), True, id="prefixed cookie"),
        pytest.param(cookie("a", "__Host-session"), cookie("b", "__Host-session"), False, id="another prefixed cookie"),
        pytest.param({"authorization": "Bearer a"}, {"authorization": "Bearer a"}, True, id="the same token"),
        pytest.param({"authorization": "Bearer a"}, {"authorization": "Bearer b"}, False, id="another token"),
        pytest.param({"authorization": "Bearer a"}, {"authorization": "Basic a"}, False, id="another scheme"),
        pytest.param({"authorization": "Bearer a"}, {}, False, id="no token"),
        pytest.param({}, {}, True, id="nobody at all: the id alone"),
        pytest.param({}, cookie("alice"), True, id="nobody's stream may be read by somebody"),
        pytest.param({"cookie": "theme=dark"}, {}, True, id="a cookie that is no login"),
    ],
)
async def test_the_credential_decides(at_start: dict[str, str], later: dict[str, str], allowed: bool) -> None:
    async with Site() as site:
        first, run = await site.started("secret", headers=READER | at_start)
        first.drop()
        await first.finished()
        assert await reads(site, first, later) is allowed
        assert not run.over.is_set()


async def test_a_logout_ends_access_after_the_stream_has_ended_as_well() -> None:
    async with Site() as site:
        first, run = await site.started("secret", headers=READER | cookie("alice"))
        await run.end()
        await first.finished()
        assert await reads(site, first, cookie("alice"))
        assert not await reads(site, first, {})


async def test_a_session_cookie_that_is_signed_anew_at_every_response_is_the_same_login() -> None:
    """Starlette's and Flask's signed sessions carry the time of signing."""
    payload = "eyJ1c2VyIjogImFsaWNlIn0="
    async with Site() as site:
        first, _ = await site.started("secret", headers=READER | cookie(f"{payload}.Z4QYzA.{'a' * 27}", "session"))
        assert await reads(site, first, cookie(f"{payload}.Z4QZzB.{'b' * 27}", "session"))
        assert not await reads(site, first, cookie(f"eyJ1c2VyIjogImJvYiJ9.Z4QZzB.{'b' * 27}", "session"))


async def test_a_framework_with_a_cookie_of_another_name_is_told_to_the_option() -> None:
    async with Site(owner_cookies=["my_login"]) as site:
        first, _ = await site.started("secret", headers=READER | cookie("alice", "my_login"))
        assert await reads(site, first, cookie("alice", "my_login"))
        assert not await reads(site, first, cookie("bob", "my_login"))
        assert not await reads(site, first, {})


async def test_a_credential_is_never_kept_as_it_is() -> None:
    async with Site() as site:
        first, _ = await site.started("secret", headers=READER | {"authorization": "Bearer hunter2"})
        assert "hunter2" not in repr(site.store._logs[first.stream].head)


async def test_two_streams_of_one_login_have_owners_that_tell_nothing_of_each_other() -> None:
    async with Site() as site:
        alice = READER | {"authorization": "Bearer alice"}
        owners = set()
        for number in (1, 2):
            connection = site.connect(f"/{number}", headers=alice)
            await (await site.run(number)).stream("1")
            await connection.event()
            owners.add(site.store._logs[connection.stream].head.owner)
        assert len(owners) == 2


# -- a principal in the scope


class Principal:
    """As Streamware's own verifiers make it."""

    is_authenticated = True

    def __init__(self, issuer: str, subject: str) -> None:
        self.issuer = issuer
        self.subject = subject


class DjangoUser:
    """A user of Django: known by its primary key."""

    def __init__(self, pk: int | None) -> None:
        self.pk = pk
        self.is_authenticated = pk is not None


class Named(BaseUser):
    """A user of Starlette that leaves ``identity`` as it is: it raises."""

    def __init__(self, name: str) -> None:
        self.display_name_ = name

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def display_name(self) -> str:
        return self.display_name_


@pytest.mark.parametrize(
    ("at_start", "later", "allowed"),
    [
        pytest.param(Principal("idp", "1"), Principal("idp", "1"), True, id="the same principal"),
        pytest.param(Principal("idp", "1"), Principal("idp", "2"), False, id="another subject"),
        pytest.param(Principal("idp", "1"), Principal("other", "1"), False, id="another issuer, the same subject"),
        pytest.param(Principal("", "1"), DjangoUser(1), False, id="another kind, the same key"),
        pytest.param(DjangoUser(7), DjangoUser(7), True, id="Django, the same"),
        pytest.param(DjangoUser(7), DjangoUser(8), False, id="Django, another"),
        pytest.param(DjangoUser(7), DjangoUser(None), False, id="Django, logged out"),
        pytest.param(SimpleUser("alice"), SimpleUser("alice"), True, id="Starlette, the same"),
        pytest.param(SimpleUser("alice"), SimpleUser("bob"), False, id="Starlette, another"),
        pytest.param(Named("alice"), Named("alice"), True, id="Starlette without identity, the same"),
        pytest.param(Named("alice"), Named("bob"), False, id="Starlette without identity, another"),
        pytest.param(SimpleUser("alice"), UnauthenticatedUser(), False, id="Starlette, logged out"),
        pytest.param(UnauthenticatedUser(), UnauthenticatedUser(), True, id="nobody, the id alone"),
        pytest.param(UnauthenticatedUser(), SimpleUser("alice"), True, id="nobody's stream"),
    ],
)
async def test_the_principal_in_the_scope_decides(at_start: object, later: object, allowed: bool) -> None:
    async with Site() as site:
        first, _ = await site.started("secret", scope={"user": at_start, "auth": AuthCredentials()})
        assert await reads(site, first, {}, scope={"user": later, "auth": AuthCredentials()}) is allowed


async def test_a_principal_counts_before_its_credential_so_that_tokens_may_be_refreshed() -> None:
    async with Site() as site:
        user = {"user": Principal("idp", "1")}
        first, _ = await site.started("secret", headers=READER | {"authorization": "Bearer old"}, scope=user)
        assert await reads(site, first, {"authorization": "Bearer new"}, scope=user)


class Broken:
    """A user whose looks cannot be had: the database is away, say."""

    is_authenticated = True

    @property
    def identity(self) -> str:
        raise RuntimeError("the database is away")


class Empty(BaseUser):
    """An authenticated user that does not say who it is."""

    is_authenticated = True
    identity = ""


@pytest.mark.parametrize("user", [Broken(), Empty()])
@pytest.mark.parametrize("asked", ["/chat", "/chat?_stream=swAAAAAA" + "x" * 22])
async def test_an_error_while_finding_out_who_asks_is_a_refusal(
    user: object, asked: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "streamware.resume"):
        async with Site() as site:
            connection = site.connect(asked, scope={"user": user})
            await connection.finished()
            assert connection.status == 403
            assert b"database" not in connection.body
            assert site.runs == 0
    assert caplog.records


# -- owner=


def tenant(scope: Scope) -> str | None:
    """Who asks, by a header of a gateway that is trusted."""
    value = dict(scope["headers"]).get(b"x-tenant")
    return value.decode() if value is not None else None


@pytest.mark.parametrize(
    ("at_start", "later", "allowed"),
    [
        ({"x-tenant": "a"}, {"x-tenant": "a"}, True),
        ({"x-tenant": "a"}, {"x-tenant": "b"}, False),
        ({"x-tenant": "a"}, {}, False),
        ({"x-tenant": "a", "cookie": "sessionid=1"}, {"x-tenant": "a", "cookie": "sessionid=2"}, True),
        ({}, {}, True),
        ({"cookie": "sessionid=1"}, {"cookie": "sessionid=2"}, False),
    ],
)
async def test_the_owner_option_decides_and_nobody_falls_back_to_the_credential(
    at_start: dict[str, str], later: dict[str, str], allowed: bool
) -> None:
    async with Site(owner=tenant) as site:
        first, _ = await site.started("secret", headers=READER | at_start)
        assert await reads(site, first, later) is allowed


async def test_what_owner_names_is_nobody_elses_principal() -> None:
    async with Site(owner=lambda scope: "starlette\0SimpleUser\0alice") as site:
        first, _ = await site.started("secret")
        owner = site.store._logs[first.stream].head.owner
    async with Site() as other:
        again, _ = await other.started("secret", scope={"user": SimpleUser("alice")})
        assert other.store._logs[again.stream].head.owner != owner


def raises(scope: Scope) -> str:
    raise RuntimeError("no idea who hunter2 is")


@pytest.mark.parametrize("owner", [raises, lambda scope: 7, lambda scope: b"alice"])
async def test_an_owner_option_that_fails_is_a_refusal(owner: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "streamware.resume"):
        async with Site(owner=owner) as site:
            connection = site.connect()
            await connection.finished()
            assert connection.status == 403
            assert b"hunter2" not in connection.body
            assert site.runs == 0


async def test_a_failing_owner_option_does_not_touch_requests_that_take_no_part() -> None:
    async with Site(owner=raises) as site:
        connection = site.connect(headers={"accept": "*/*"})
        run = await site.run()
        await run.put({"type": "http.response.start", "status": 200, "headers": []})
        await run.put({"type": "http.response.body", "body": b"ok"}, None)
        await connection.finished()
        assert connection.body == b"ok"
