"""Whose stream it is: the principal in the scope, else the request's credential, else whoever holds the id."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
from typing import Any

import pytest
from starlette.authentication import SimpleUser
from starlette.authentication import UnauthenticatedUser as StarletteNobody

from streamware.streams.owner import SESSION_COOKIES, Identity, credential_of, identify, principal_of
from streamware.types import Scope

ONE, OTHER = "swAbCdEf0123456789012345678901", "swAbCdEf9876543210987654321098"


def request(*, user: object = None, client: object = ("192.0.2.1", 1234), **headers: str | list[str]) -> Scope:
    lines = [
        (name.replace("_", "-").encode(), value.encode())
        for name, values in headers.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    scope: Scope = {"type": "http", "headers": lines, "client": client}
    if user is not None:
        scope["user"] = user
    return scope


def who(scope: Scope) -> Identity:
    return identify(scope, None, SESSION_COOKIES)


def same(one: Scope, other: Scope) -> bool:
    """Whether the second request may read the stream that the first one started."""
    return who(other).owns(who(one).owner(ONE), ONE)


# -- principals


class Authenticated:
    is_authenticated = True


@dataclasses.dataclass
class Ours(Authenticated):
    issuer: str
    subject: str


class StarletteUser(Authenticated):
    """Starlette's ``SimpleUser``: its ``identity`` is left to the app."""

    def __init__(self, name: str) -> None:
        self.display_name = name

    @property
    def identity(self) -> str:
        raise NotImplementedError


class WithIdentity(StarletteUser):
    @property
    def identity(self) -> str:
        return f"id of {self.display_name}"


class UnauthenticatedUser:
    is_authenticated = False
    display_name = ""


class DjangoUser(Authenticated):
    def __init__(self, pk: object) -> None:
        self.pk = pk


class DjangoStaff(Authenticated):
    def __init__(self, pk: object) -> None:
        self.pk = pk


class Lazy:
    """As Django's ``SimpleLazyObject`` and Channels' ``UserLazyObject``: it says that it is what it wraps."""

    def __init__(self, wrapped: object) -> None:
        self.__dict__["wrapped"] = wrapped

    @property
    def __class__(self) -> Any:
        return type(self.wrapped)

    @__class__.setter
    def __class__(self, value: object) -> None:
        raise AttributeError

    def __getattr__(self, name: str) -> object:
        return getattr(self.__dict__["wrapped"], name)


def test_the_principals_of_each_framework_are_told_apart() -> None:
    users = [
        Ours("https://a", "1"), Ours("https://b", "1"), Ours("https://a", "2"), StarletteUser("1"), StarletteUser("2"),
        WithIdentity("1"), DjangoUser(1), DjangoUser(2), DjangoStaff(1),
    ]  # fmt: skip
    owners = [who(request(user=user)).owner(ONE) for user in users]
    assert len(set(owners)) == len(users)
    for i, user in enumerate(users):
        for j, other in enumerate(users):
            assert same(request(user=user), request(user=other)) is (i == j)


def test_two_issuers_may_use_the_same_subject_for_two_people() -> None:
    assert not same(request(user=Ours("https://a", "sub")), request(user=Ours("https://b", "sub")))


def test_a_principal_is_the_same_on_every_stream_and_whatever_its_credential_is() -> None:
    identity = who(request(user=Ours("https://a", "1"), authorization="Bearer old"))
    assert identity.owner(ONE) == identity.owner(OTHER)
    assert identity.known
    assert same(
        request(user=Ours("https://a", "1"), authorization="Bearer old"),
        request(user=Ours("https://a", "1"), authorization="Bearer new", client=("203.0.113.9", 1)),
    )


def test_a_lazy_user_is_the_one_that_it_stands_for() -> None:
    assert same(request(user=Lazy(DjangoUser(7))), request(user=DjangoUser(7)))
    assert not same(request(user=Lazy(DjangoUser(7))), request(user=Lazy(DjangoStaff(7))))


def test_users_of_starlette_as_they_are() -> None:
    assert principal_of(request(user=SimpleUser("ada"))) is not None
    assert principal_of(request(user=StarletteNobody())) is None
    assert same(request(user=SimpleUser("ada")), request(user=SimpleUser("ada")))
    assert not same(request(user=SimpleUser("ada")), request(user=SimpleUser("bob")))


def test_nobody_is_no_principal() -> None:
    assert principal_of(request()) is None
    assert principal_of(request(user=UnauthenticatedUser())) is None
    assert principal_of(request(user=object())) is None
    assert not who(request(user=UnauthenticatedUser())).known


def test_an_authenticated_user_without_a_name_is_an_error_never_nobody() -> None:
    with pytest.raises(ValueError, match="neither an identity nor a display_name"):
        who(request(user=StarletteUser("")))
    with pytest.raises(AttributeError):
        who(request(user=Authenticated()))


def test_whatever_a_user_raises_is_raised() -> None:
    class Broken:
        @property
        def is_authenticated(self) -> bool:
            raise RuntimeError("no database")

    class BrokenIdentity(Authenticated):
        @property
        def identity(self) -> str:
            raise RuntimeError("no database")

    for user in (Broken(), BrokenIdentity()):
        with pytest.raises(RuntimeError, match="no database"):
            who(request(user=user))


# -- owner=


def test_owner_says_who_it_is_and_outranks_all_else() -> None:
    def tenant(scope: Scope) -> str | None:
        return str(scope["headers"][0][1], "ascii")

    def ask(scope: Scope) -> Identity:
        return identify(scope, tenant, SESSION_COOKIES)

    acme, corp = request(x_tenant="acme"), request(x_tenant="corp")
    assert ask(acme).owns(ask(request(x_tenant="acme", authorization="Bearer x")).owner(ONE), ONE)
    assert not ask(corp).owns(ask(acme).owner(ONE), ONE)
    assert not who(request(user=Ours("given", "acme"))).owns(ask(acme).owner(ONE), ONE)


@pytest.mark.parametrize("nobody", [None, ""])
def test_owner_may_know_nobody_and_then_the_credential_counts(nobody: str | None) -> None:
    identity = identify(request(authorization="Bearer x", user=Ours("a", "b")), lambda scope: nobody, SESSION_COOKIES)
    assert identity.principal is None
    assert identity.owner(ONE).startswith("credential:")
    assert identify(request(), lambda scope: nobody, SESSION_COOKIES).owner(ONE) == ""


def test_what_owner_raises_is_raised_and_a_wrong_type_is_an_error() -> None:
    def broken(scope: Scope) -> str | None:
        raise KeyError("tenant")

    with pytest.raises(KeyError):
        identify(request(), broken, SESSION_COOKIES)
    for wrong in (7, b"bytes", True):
        with pytest.raises(TypeError, match=f"owner= returned {type(wrong).__name__}"):
            identify(request(), lambda scope, wrong=wrong: wrong, SESSION_COOKIES)  # type: ignore[misc]


# -- credentials


def test_a_credential_is_kept_as_a_hash_that_differs_by_stream() -> None:
    identity = who(request(authorization="Bearer secret"))
    assert identity.owner(ONE) != identity.owner(OTHER)
    assert "secret" not in identity.owner(ONE) + identity.account
    assert identity.owns(identity.owner(ONE), ONE)
    assert not identity.owns(identity.owner(ONE), OTHER)


def test_another_credential_or_none_does_not_own_the_stream() -> None:
    started = request(authorization="Bearer a")
    assert same(started, request(authorization="Bearer a"))
    assert not same(started, request(authorization="Bearer b"))
    assert not same(started, request(authorization="Basic a"))
    assert not same(started, request())
    assert not same(started, request(cookie="sessionid=a"))
    assert not same(started, request(user=Ours("a", "b"), authorization="Bearer a"))


def test_without_any_credential_whoever_holds_the_id_owns_the_stream() -> None:
    assert who(request()).owner(ONE) == ""
    assert same(request(), request(client=("203.0.113.9", 1)))
    assert same(request(), request(authorization="Bearer a"))
    assert same(request(cookie="theme=dark"), request())


@pytest.mark.parametrize("name", ["sessionid", "session", "__Host-session", "__Secure-sid"])
def test_a_logout_or_another_login_ends_access(name: str) -> None:
    started = request(cookie=f"theme=dark; {name}=abc123; lang=en")
    assert same(started, request(cookie=f"lang=de; {name}=abc123")), "other cookies do not matter"
    assert not same(started, request(cookie="theme=dark; lang=en"))
    assert not same(started, request(cookie=f"{name}=; lang=en"))
    assert not same(started, request(cookie=f"{name}=def456"))


def test_cookies_split_over_lines_as_http2_does_are_the_same() -> None:
    assert same(request(cookie="a=1; sessionid=x; sid=y"), request(cookie=["sid=y", "a=2", "sessionid=x"]))


def test_cookie_names_are_an_option() -> None:
    scope = request(cookie="mine=1; sessionid=2")
    assert credential_of(scope, frozenset({"mine"})) == b"cookie\0mine=1"
    assert credential_of(scope, frozenset()) is None


@pytest.mark.parametrize("jar", ["", ";", "=;=", "sessionid", "sessionid=", "\xff\xfe=x; \x00", ", ,", "a" * 5000])
def test_odd_jars_hold_no_credential(jar: str) -> None:
    assert credential_of(request(cookie=jar), SESSION_COOKIES) is None


def test_headers_may_be_missing() -> None:
    assert who({"type": "http"}) == Identity(None, None, "client:")


# -- signed sessions, whose time and signature are new at every response


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def starlette_session(session: object, time: int) -> str:
    payload = base64.b64encode(json.dumps(session, ensure_ascii=False).encode()).decode()
    return itsdangerous(payload, time)


def itsdangerous(payload: str, time: int, digest: str = "sha1") -> str:
    value = f"{payload}.{encoded(time.to_bytes(4, 'big'))}"
    return f"{value}.{encoded(hmac.new(b'key', value.encode(), digest).digest())}"


def django_session(payload: str, time: str) -> str:
    value = f"{payload}:{time}"
    return f"{value}:{encoded(hmac.new(b'key', value.encode(), 'sha256').digest())}"


@pytest.mark.parametrize("user", ["ada", "ÿÿ??>>", "~~~???", ""])
def test_a_starlette_session_that_is_signed_anew_is_the_same_login(user: str) -> None:
    old, new = (starlette_session({"user": user}, time) for time in (1_700_000_000, 1_700_000_777))
    assert old != new
    assert same(request(cookie=f"session={old}"), request(cookie=f"session={new}"))
    other = starlette_session({"user": "mallory"}, 1_700_000_777)
    assert not same(request(cookie=f"session={old}"), request(cookie=f"session={other}"))


def test_the_payload_of_some_session_holds_what_plain_base64_alone_has() -> None:
    """Else the test above would prove less than it says."""
    payload = base64.b64encode(json.dumps({"user": "ÿÿ??>>"}, ensure_ascii=False).encode())
    assert b"/" in payload or b"+" in payload


@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("payload", ["eyJ1c2VyIjoxfQ", ".eJyrViotTi1SslIqLU4tUtJRKkgsLi7PL0oBAFcNB_c"])
def test_a_flask_session_that_is_signed_anew_is_the_same_login(payload: str, digest: str) -> None:
    old, new = (itsdangerous(payload, time, digest) for time in (1_700_000_000, 1_700_000_777))
    assert same(request(cookie=f"session={old}"), request(cookie=f"session={new}"))


@pytest.mark.parametrize("payload", ["eyJhIjoxfQ", ".eJyrVkpUsjLUUUpSsgIAEiIC5w"])
def test_a_signed_django_session_that_is_signed_anew_is_the_same_login(payload: str) -> None:
    old, new = django_session(payload, "1xVMBT"), django_session(payload, "1xVMCa")
    assert same(request(cookie=f"sessionid={old}"), request(cookie=f"sessionid={new}"))
    assert not same(request(cookie=f"sessionid={old}"), request(cookie=f"sessionid={django_session('e30', '1xVMCa')}"))


def test_a_jwt_is_no_signed_session_and_counts_as_a_whole() -> None:
    header, claims = encoded(b'{"alg":"HS256"}'), encoded(b'{"sub":"ada","exp":1}')
    one, other = (f"{header}.{claims}.{encoded(hashlib.sha256(key).digest())}" for key in (b"1", b"2"))
    assert not same(request(cookie=f"access_token={one}"), request(cookie=f"access_token={other}"))


# -- accounts


def test_the_account_is_the_principal_the_credential_or_the_address() -> None:
    assert who(request(user=Ours("a", "b"))).account == who(request(user=Ours("a", "b"), client=None)).account
    assert who(request(authorization="x")).account == who(request(authorization="x", client=None)).account
    assert who(request(client=("192.0.2.1", 1))).account == who(request(client=["192.0.2.1", 2])).account
    assert who(request(client=("192.0.2.1", 1))).account != who(request(client=("192.0.2.2", 1))).account
    assert who(request(client=None)).account == "client:"
