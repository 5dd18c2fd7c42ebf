"""The HTTP endpoints of ``secured_starlette_app.py`` as a Django project in one file, with one sync view. See
``secured.py``.

``ScopeUser`` makes the token's scopes what ``@permission_required`` asks for. A project with users in its database
names a function of its own in ``STREAMWARE_USER``, which finds them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from django.conf import settings

if not settings.configured:
    settings.configure(
        SECRET_KEY="an example's, worth nothing",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        MIDDLEWARE=[
            "django.middleware.common.CommonMiddleware",
            "streamware.integrations.django.PrincipalMiddleware",
        ],
        STREAMWARE_USER="streamware.integrations.django.ScopeUser",
        USE_TZ=True,
    )

from django.contrib.auth.decorators import permission_required
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

from . import content


def me(request: HttpRequest) -> HttpResponse:
    if not request.user.is_authenticated:
        return HttpResponse(status=401)
    return JsonResponse(who(request.user))


async def anybody(request: HttpRequest) -> JsonResponse:
    return JsonResponse(who(await request.auser()))


@permission_required("chat", raise_exception=True)
async def events(request: HttpRequest) -> StreamingHttpResponse:
    async def tell() -> AsyncIterator[bytes]:
        for i in range(1, 11):
            yield content.event(i)

    return StreamingHttpResponse(tell(), content_type="text/event-stream")


def who(user: object) -> dict[str, object]:
    scopes = sorted(user.get_all_permissions())  # type: ignore[attr-defined]  # Django's users have no types
    return {"authenticated": user.is_authenticated, "name": str(user), "scopes": scopes}  # type: ignore[attr-defined]


urlpatterns = [
    path("me", me),
    path("open", anybody),
    path("events", events),
]

app = get_asgi_application()
