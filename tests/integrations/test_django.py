"""Django's requests: whose they are, for sync and async views, with and without a hook, a session, ``AuthMiddleware``.

Django takes one set of settings in a process, and ``examples/django_app.py`` makes it; each test puts its own over it.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.decorators import login_required, permission_required
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import Context, Engine
from django.test import RequestFactory
from django.test.utils import override_settings
from django.urls import path
from django.utils.decorators import sync_only_middleware

from examples import django_app  # noqa: F401  # for its settings
from streamware import AnonymousPrincipal, ConfigurationError, Principal
from streamware.integrations.django import PrincipalMiddleware, PrincipalUser, ScopeUser
from tests.integrations.known import ADA, BOB, Smuggling, bearing, secured

OURS = "streamware.integrations.django.PrincipalMiddleware"
DJANGOS = "django.contrib.auth.middleware.AuthenticationMiddleware"
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
BACKEND = f"{__name__}.Backend"

Asking = Callable[..., Any]


def said(user: Any) -> list[object]:
    return [user.__class__.__name__, user.is_authenticated, user.is_anonymous, user.get_username()]


def sync_view(request: Any) -> JsonResponse:
    return JsonResponse({"user": said(request.user)})


async def async_view(request: Any) -> JsonResponse:
    return JsonResponse({"user": said(await request.auser())})


def sync_twice(request: Any) -> JsonResponse:
    return JsonResponse({"user": [request.user.get_username(), request.user.get_username()]})


async def async_twice(request: Any) -> JsonResponse:
    users = await asyncio.gather(request.auser(), request.auser())
    return JsonResponse({"user": [*(user.get_username() for user in users), request.user.get_username()]})


def nobody_looks(request: HttpRequest) -> HttpResponse:
    return HttpResponse("not looked at")


def principal(request: Any) -> JsonResponse:
    found = request.principal
    return JsonResponse({"subject": None if found is None else found.subject})


@login_required(login_url="/login")
def inside(request: HttpRequest) -> HttpResponse:
    return HttpResponse("inside")


@login_required(login_url="/login")
async def async_inside(request: HttpRequest) -> HttpResponse:
    return HttpResponse("inside")


@permission_required("chat", raise_exception=True)
def chat(request: HttpRequest) -> HttpResponse:
    return HttpResponse("chat")


@permission_required(["chat", "tools"], raise_exception=True)
async def async_chat(request: HttpRequest) -> HttpResponse:
    return HttpResponse("chat")


def log_in(request: Any) -> HttpResponse:
    user = Backend().get_user(1)  # without a database ``login`` cannot say when
    request.session[SESSION_KEY] = "1"
    request.session[BACKEND_SESSION_KEY] = BACKEND
    request.session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    return HttpResponse("logged in")


VIEWS = [
    sync_view,
    async_view,
    sync_twice,
    async_twice,
    nobody_looks,
    principal,
    inside,
    async_inside,
    chat,
    async_chat,
]
urls = types.ModuleType("urls")
urls.urlpatterns = [  # type: ignore[attr-defined]
    *(path(f"{start}{view.__name__}", view) for view in VIEWS for start in ("", "open/")),
    path("open/log_in", log_in),
]


class Backend:
    """Users of a session, without a database."""

    def authenticate(self, request: object, **credentials: object) -> None:
        return None

    def get_user(self, key: int) -> Any:
        from django.contrib.auth.models import User

        return User(pk=key, username="by session", password="x")

    async def aget_user(self, key: int) -> Any:
        return self.get_user(key)


@sync_only_middleware
def sync_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    return lambda request: get_response(request)


@pytest.fixture
def ask() -> Iterator[Asking]:
    """Asks a Django of its own: ``await ask(path, token, middleware=…, hook=…)``."""
    with override_settings(
        ROOT_URLCONF=urls,
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        AUTHENTICATION_BACKENDS=[BACKEND],
    ):

        async def ask(
            path: str,
            token: str | None = None,
            *,
            middleware: tuple[str, ...] = (OURS,),
            hook: object = None,
            wrap: Callable[..., Any] = secured,
            cookies: dict[str, str] | None = None,
        ) -> httpx.Response:
            given = {} if hook is None else {"STREAMWARE_USER": hook}
            with override_settings(MIDDLEWARE=list(middleware), **given):
                app = wrap(get_asgi_application())
                transport = httpx.ASGITransport(app)
                async with httpx.AsyncClient(
                    transport=transport, base_url="http://testserver", cookies=cookies or {}
                ) as http:
                    return await http.get(path, headers=bearing(token))

        yield ask


# -- the user of a principal

CHAINS = {
    "async": (OURS,),
    "a sync middleware outside": (f"{__name__}.sync_middleware", OURS),
    "a sync middleware inside": (OURS, f"{__name__}.sync_middleware"),
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=list(CHAINS))
@pytest.mark.parametrize("view", ["sync_view", "async_view"])
async def test_the_user_of_a_request_is_its_principal(ask: Asking, view: str, chain: tuple[str, ...]) -> None:
    got = await ask(f"/{view}", ADA, middleware=chain)

    assert got.json() == {"user": ["PrincipalUser", True, False, "ada"]}


@pytest.mark.parametrize("view", ["sync_view", "async_view"])
async def test_on_an_optional_path_who_shows_nothing_is_anonymous(ask: Asking, view: str) -> None:
    assert (await ask(f"/open/{view}")).json() == {"user": ["PrincipalUser", False, True, ""]}
    assert (await ask("/open/principal")).json() == {"subject": None}
    assert (await ask("/open/principal", BOB)).json() == {"subject": "bob"}


async def test_login_required_and_permission_required_ask_the_principal(ask: Asking) -> None:
    for view in ("inside", "async_inside"):
        assert (await ask(f"/{view}", BOB)).text == "inside"
        sent = await ask(f"/open/{view}")
        assert (sent.status_code, sent.headers["location"]) == (302, f"/login?next=/open/{view}")
    scopes = "streamware.integrations.django.ScopeUser"
    for view in ("chat", "async_chat"):
        assert (await ask(f"/{view}", ADA)).status_code == 403, "scopes are no permissions unless it is said"
        assert (await ask(f"/{view}", ADA, hook=scopes)).text == "chat"
        assert (await ask(f"/{view}", BOB, hook=scopes)).status_code == 403
        assert (await ask(f"/open/{view}", hook=scopes)).status_code == 403


# -- hooks


class Named:
    """What a project's hook may return."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pk = 0
        self.is_authenticated, self.is_anonymous = True, False

    def get_username(self) -> str:
        return self.name


calls: list[str] = []


def by_hook(principal: Principal) -> Named | None:
    calls.append(principal.subject)
    return None if principal.subject == "bob" else Named(f"{principal.issuer}|{principal.subject}")


async def by_async_hook(principal: Principal) -> Named | None:
    await asyncio.sleep(0)
    return by_hook(principal)


class Hook:
    async def __call__(self, principal: Principal) -> Named | None:
        return await by_async_hook(principal)


HOOKS = {
    "sync": by_hook,
    "async": by_async_hook,
    "an object": Hook(),
    "a path": f"{__name__}.by_hook",
    "a path, async": f"{__name__}.by_async_hook",
}


@pytest.mark.parametrize("hook", HOOKS.values(), ids=list(HOOKS))
async def test_a_hook_makes_the_user_once_a_request_when_somebody_looks(ask: Asking, hook: object) -> None:
    calls.clear()
    assert (await ask("/sync_twice", ADA, hook=hook)).json() == {"user": ["keys|ada"] * 2}
    assert calls == ["ada"]
    assert (await ask("/async_view", ADA, hook=hook)).json() == {"user": ["Named", True, False, "keys|ada"]}
    assert (await ask("/async_twice", ADA, hook=hook)).json() == {"user": ["keys|ada"] * 3}
    calls.clear()
    assert (await ask("/nobody_looks", ADA, hook=hook)).text == "not looked at"
    assert (await ask("/principal", ADA, hook=hook)).json() == {"subject": "ada"}
    assert calls == []


@pytest.mark.parametrize("hook", [by_hook, by_async_hook])
@pytest.mark.parametrize("view", ["sync_view", "async_view"])
async def test_whom_a_hook_does_not_know_is_anonymous(ask: Asking, hook: object, view: str) -> None:
    assert (await ask(f"/{view}", BOB, hook=hook)).json() == {"user": ["PrincipalUser", False, True, ""]}
    assert (await ask("/inside", BOB, hook=hook)).status_code == 302


async def test_a_hook_is_not_asked_of_nobody(ask: Asking) -> None:
    calls.clear()
    assert (await ask("/open/sync_view", hook=by_hook)).json()["user"][1] is False
    assert calls == []


async def test_what_a_hook_raises_lets_nobody_in(ask: Asking) -> None:
    def fails(principal: Principal) -> None:
        raise LookupError("no such user")

    for view in ("inside", "async_inside"):
        assert (await ask(f"/{view}", ADA, hook=fails)).status_code == 500


@pytest.mark.parametrize("hook", ["no.such.module", "streamware.nothing", "plain", 5, ""])
async def test_a_hook_that_is_none_is_named(ask: Asking, hook: object) -> None:
    with pytest.raises(ConfigurationError, match="PrincipalMiddleware: STREAMWARE_USER must be a function"):
        await ask("/sync_view", ADA, hook=hook)


# -- what is not trusted

LEFT: list[dict[str, Any]] = [
    {},
    {"user": None},
    {"user": "root"},
    {"user": Named("root")},
    {"user": AnonymousPrincipal(subject="root", scopes=["chat"])},
    {"user": PrincipalUser(Principal(subject="root"))},
]


@pytest.mark.parametrize("left", LEFT)
async def test_without_auth_middleware_nobody_is_known_whatever_stands_in_the_scope(
    ask: Asking, left: dict[str, Any]
) -> None:
    def bare(app: Any) -> Smuggling:
        return Smuggling(app, **left)

    assert (await ask("/sync_view", ADA, wrap=bare)).json()["user"][1:] == [False, True, ""]
    assert (await ask("/async_view", ADA, wrap=bare)).json()["user"][1:] == [False, True, ""]
    assert (await ask("/principal", ADA, wrap=bare)).json() == {"subject": None}


def test_a_request_by_wsgi_is_nobodys() -> None:
    request: Any = RequestFactory().get("/", HTTP_AUTHORIZATION=f"Bearer {ADA}")
    seen: list[Any] = []

    PrincipalMiddleware(seen.append)(request)

    assert seen == [request]
    assert (request.principal, request.user.is_authenticated) == (None, False)


# -- beside Django's own sessions

BOTH = (SESSIONS, DJANGOS, OURS)


async def test_a_principal_goes_before_a_session_which_stands_where_there_is_none(ask: Asking) -> None:
    session = dict((await ask("/open/log_in", middleware=BOTH)).cookies)
    assert session
    for view in ("sync_view", "async_view"):
        alone = await ask(f"/open/{view}", middleware=BOTH, cookies=session)
        assert alone.json()["user"] == ["User", True, False, "by session"]
        both = await ask(f"/open/{view}", ADA, middleware=BOTH, cookies=session)
        assert both.json()["user"] == ["PrincipalUser", True, False, "ada"]
        none = await ask(f"/open/{view}", middleware=BOTH)
        assert none.json()["user"] == ["AnonymousUser", False, True, ""]
    refused = await ask("/sync_view", middleware=BOTH, cookies=session)
    assert refused.status_code == 401, "a session is no token"


async def test_an_order_in_which_djangos_would_undo_ours_is_an_error(ask: Asking) -> None:
    with pytest.raises(ConfigurationError, match="has to stand behind django"):
        await ask("/sync_view", ADA, middleware=(SESSIONS, OURS, DJANGOS))


# -- PrincipalUser


def test_a_principal_user_has_what_code_for_djangos_users_looks_at() -> None:
    claims = {"name": "Ada Lovelace"}
    user = PrincipalUser(Principal(issuer="i", subject="ada", scopes=["shop.buy"], claims=claims))

    assert (user.is_authenticated, user.is_anonymous, user.is_active) == (True, False, True)
    assert (user.is_staff, user.is_superuser, user.pk, user.id) == (False, False, None, None)
    assert (user.username, user.get_username(), str(user)) == ("ada", "ada", "Ada Lovelace")
    assert (user.get_full_name(), user.get_short_name()) == ("Ada Lovelace", "Ada Lovelace")
    assert repr(user) == "PrincipalUser(Principal(issuer='i', subject='ada'))"
    assert not user.has_perm("shop.buy")
    assert not user.has_perms(["shop.buy"])
    assert not user.has_module_perms("shop")
    assert Engine().from_string("{{ user }}{% if user.is_authenticated %}!{% endif %}").render(
        Context({"user": user})
    ) == ("Ada Lovelace!")


def test_users_are_the_same_whose_issuer_and_subject_are() -> None:
    def user(issuer: str, subject: str, *scopes: str) -> PrincipalUser:
        return PrincipalUser(Principal(issuer=issuer, subject=subject, scopes=scopes))

    assert user("i", "ada", "chat") == user("i", "ada")
    assert len({user("i", "ada"), user("i", "ada"), user("j", "ada"), user("i", "bob")}) == 3
    assert user("i", "ada") != PrincipalUser(AnonymousPrincipal(issuer="i", subject="ada"))
    assert user("i", "ada") != "ada"


async def test_the_permissions_of_a_scope_user_are_its_scopes_but_of_no_object() -> None:
    user = ScopeUser(Principal(subject="ada", scopes=["chat", "shop.buy"]))

    assert user.get_all_permissions() == await user.aget_all_permissions() == {"chat", "shop.buy"}
    assert user.has_perm("chat")
    assert await user.ahas_perm("chat")
    assert not user.has_perm("chat", object())
    assert user.has_perms(["chat", "shop.buy"])
    assert await user.ahas_perms(["chat", "shop.buy"])
    assert not user.has_perms(["chat", "other"])
    assert user.has_module_perms("shop")
    assert await user.ahas_module_perms("shop")
    assert not user.has_module_perms("sho")
    assert ScopeUser(AnonymousPrincipal(scopes=["chat"])).get_all_permissions() == set()
