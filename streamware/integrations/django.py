"""Django: the verified principal as ``request.user`` and ``request.auser``.

    MIDDLEWARE = [
        ...,
        "django.contrib.auth.middleware.AuthenticationMiddleware",  # if at all: it sets the same attributes
        "streamware.integrations.django.PrincipalMiddleware",
    ]
    STREAMWARE_USER = "accounts.users.user_of"  # optional: def user_of(principal): ... or async def

Rules:

1. Nothing is verified here: ``AuthMiddleware`` has done that, around ``get_asgi_application()``. Where it has named
   nobody, by not being there or on an optional path, the request is left as it is: whoever Django's own session says,
   or an anonymous user.
2. ``STREAMWARE_USER`` makes the user of a principal: when somebody looks, and once a request. What it returns None for
   is anonymous; what it raises comes out. Without it the user is a ``PrincipalUser``.
3. It may be sync or async, and so may views: database calls of a sync one run in a thread where an async view awaits
   ``request.auser()``. ``request.principal`` is the principal itself, None where there is none.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# ^ Django has no types of its own.

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias, cast

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils.functional import SimpleLazyObject
from django.utils.module_loading import import_string

from ..auth.principal import AnonymousPrincipal, Principal
from ..exceptions import ConfigurationError

__all__ = ("PrincipalMiddleware", "PrincipalUser", "ScopeUser")

# ``Any``: what is a user depends on the project; a hook is called with a principal, and may be a coroutine function.
Hook: TypeAlias = Callable[[Principal], Any]
GetResponse: TypeAlias = Callable[[HttpRequest], Any]

# asgiref's own: Django marks its coroutine functions with it, where the standard library's cannot see that.
_is_async = iscoroutinefunction  # pyright: ignore[reportDeprecated]  # of asyncio's, which it stands in for

OURS = "streamware.integrations.django.PrincipalMiddleware"
DJANGOS = "django.contrib.auth.middleware.AuthenticationMiddleware"


class PrincipalUser:
    """A principal in the shape of Django's users: no row of a database, no permissions, no staff. ``principal`` is who
    it stands for, ``username`` the subject."""

    id = pk = None
    is_staff = is_superuser = False

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.username = principal.subject

    @property
    def is_authenticated(self) -> bool:
        return self.principal.is_authenticated

    @property
    def is_anonymous(self) -> bool:
        return self.principal.is_anonymous

    @property
    def is_active(self) -> bool:
        return self.principal.is_active

    def get_username(self) -> str:
        return self.username

    def get_full_name(self) -> str:
        return self.principal.display_name

    get_short_name = get_full_name

    def __str__(self) -> str:
        return self.principal.display_name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.principal!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PrincipalUser):
            return NotImplemented
        return self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[bool, str, str]:
        return self.is_authenticated, self.principal.issuer, self.principal.subject

    # -- permissions, under the names that Django's decorators, mixins and templates use

    def get_all_permissions(self, obj: object = None) -> set[str]:
        return set()

    def has_perm(self, perm: str, obj: object = None) -> bool:
        return perm in self.get_all_permissions(obj)

    def has_perms(self, perm_list: Iterable[str], obj: object = None) -> bool:
        return all(self.has_perm(perm, obj) for perm in perm_list)

    def has_module_perms(self, module: str) -> bool:
        return any(perm.startswith(f"{module}.") for perm in self.get_all_permissions())

    async def aget_all_permissions(self, obj: object = None) -> set[str]:
        return self.get_all_permissions(obj)

    async def ahas_perm(self, perm: str, obj: object = None) -> bool:
        return self.has_perm(perm, obj)

    async def ahas_perms(self, perm_list: Iterable[str], obj: object = None) -> bool:
        return self.has_perms(perm_list, obj)

    async def ahas_module_perms(self, module: str) -> bool:
        return self.has_module_perms(module)


class ScopeUser(PrincipalUser):
    """The same, whose permissions are the scopes of its token: ``@permission_required("chat")`` asks for the scope
    ``chat``. For ``STREAMWARE_USER``, where who issues tokens may decide so."""

    def get_all_permissions(self, obj: object = None) -> set[str]:
        return set(self.principal.scopes) if self.is_active and obj is None else set()


class PrincipalMiddleware:
    """A middleware of Django's, for sync and async views alike.

    :raises ConfigurationError: ``STREAMWARE_USER`` is no callable, or Django's ``AuthenticationMiddleware``, which
        would set ``request.user`` once more, stands behind this one.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self._hook = _hook()
        if _is_async(get_response):
            markcoroutinefunction(self)
        _check_order(list(settings.MIDDLEWARE))

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        _introduce(request, self._hook)
        # In an async chain the view has yet to run when this returns, and an awaitable is what is wanted.
        return cast("HttpResponseBase | Awaitable[HttpResponseBase]", self.get_response(request))


def _introduce(request: Any, hook: Hook) -> None:  # attributes are added to it, as Django's own middlewares do
    """Make the request the principal's."""
    found = getattr(request, "scope", {}).get("user")  # a WSGI request has none
    principal = found if isinstance(found, Principal) and found.is_authenticated else None
    request.principal = principal
    if principal is not None:
        known = _Known(hook, principal)
        request.user = SimpleLazyObject(known.user)
        request.auser = known.auser
    elif not hasattr(request, "user"):
        nobody = PrincipalUser(AnonymousPrincipal())
        request.user = nobody
        request.auser = _constant(nobody)


class _Known:
    """The user of one request, made when first asked for."""

    __slots__ = ("_found", "_hook", "_principal")

    def __init__(self, hook: Hook, principal: Principal) -> None:
        self._hook = hook
        self._principal = principal
        self._found: list[object] = []

    def user(self) -> object:
        if not self._found:
            call = async_to_sync(self._hook) if _is_async(self._hook) else self._hook
            self._keep(call(self._principal))
        return self._found[0]

    async def auser(self) -> object:
        if not self._found:
            call = self._hook if _is_async(self._hook) else sync_to_async(self._hook)
            self._keep(await call(self._principal))
        return self._found[0]

    def _keep(self, user: object) -> None:
        if not self._found:  # two may have asked at once, and all are to see the same
            self._found.append(PrincipalUser(AnonymousPrincipal()) if user is None else user)


def _constant(user: object) -> Callable[[], Awaitable[object]]:
    async def auser() -> object:
        return user

    return auser


def _hook() -> Hook:
    given = getattr(settings, "STREAMWARE_USER", None)
    if given is None:
        return PrincipalUser
    try:
        hook = import_string(given) if isinstance(given, str) else given
    except ImportError as error:
        raise _wrong(given) from error
    if not callable(hook):
        raise _wrong(given)
    if not inspect.isclass(hook) and _is_async(type(hook).__call__):
        hook = hook.__call__  # an object whose call is a coroutine function does not say so itself
    return cast("Hook", hook)


def _wrong(given: object) -> ConfigurationError:
    expected = "a function that takes a principal and returns a user, or the dotted path of one"
    return ConfigurationError.option("PrincipalMiddleware", "STREAMWARE_USER", given, expected)


def _check_order(middleware: list[str]) -> None:
    if OURS in middleware and DJANGOS in middleware[middleware.index(OURS) :]:
        raise ConfigurationError(
            f"PrincipalMiddleware: in MIDDLEWARE it has to stand behind {DJANGOS}, which sets request.user as well"
        )
