"""A Django project with users in a database, as a server process of its own serves it: the principal of a token becomes
a row, found by a sync hook or an async one. The file of the database and the hook are named in the environment.

Run as a program it makes the tables."""

# ruff: noqa: E402  # models can be imported only once Django is set up

from __future__ import annotations

import os
from typing import Any

from django.conf import settings

settings.configure(
    SECRET_KEY="a test's, worth nothing",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["TEST_DATABASE"]}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "streamware.integrations.django.PrincipalMiddleware",
    ],
    STREAMWARE_USER=f"{__name__}.{os.environ['TEST_HOOK']}",
    USE_TZ=True,
)

import django

django.setup()

from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.http import HttpRequest, JsonResponse
from django.urls import path

from streamware import Principal
from tests.integrations.known import secured


def user_of(principal: Principal) -> User:
    user, _ = User.objects.get_or_create(username=principal.subject)
    return user


async def async_user_of(principal: Principal) -> User:
    user, _ = await User.objects.aget_or_create(username=principal.subject)
    return user


def who(user: Any) -> JsonResponse:
    return JsonResponse({"pk": user.pk, "name": user.get_username(), "kind": user.__class__.__name__})


def sync_view(request: Any) -> JsonResponse:
    return who(request.user)


async def async_view(request: Any) -> JsonResponse:
    return who(await request.auser())


def count(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"users": User.objects.count()})


urlpatterns = [
    *(path(f"{start}{view.__name__}", view) for view in (sync_view, async_view) for start in ("", "open/")),
    path("open/count", count),
]
app = secured(get_asgi_application())

if __name__ == "__main__":
    call_command("migrate", verbosity=0)
