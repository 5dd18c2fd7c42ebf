"""The endpoints of ``starlette_app.py`` as a Django project in one file. It knows nothing of Streamware: see
``wrapped.py``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from django.conf import settings

if not settings.configured:
    settings.configure(
        SECRET_KEY="an example's, worth nothing",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        USE_TZ=True,
    )

from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

from . import content

runs = content.Runs()


async def tell(n: int, delay: float) -> AsyncIterator[bytes]:
    for i in range(1, n + 1):
        if delay and i > 1:
            await asyncio.sleep(delay)
        yield content.event(i)


@require_GET
async def events(request: HttpRequest) -> StreamingHttpResponse:
    asked = request.GET
    runs.begin(asked.get("run", ""))
    told = tell(int(asked.get("n", "10")), float(asked.get("delay", "0")))
    return StreamingHttpResponse(told, content_type="text/event-stream")


@require_POST
async def generate(request: HttpRequest) -> StreamingHttpResponse:
    asked = json.loads(request.body)
    runs.begin(asked.get("run", ""))
    told = tell(int(asked.get("n", 10)), float(asked.get("delay", 0)))
    return StreamingHttpResponse(told, content_type="text/event-stream")


@require_GET
async def plain(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"plain": True, "words": content.WORDS})


@require_GET
async def report(request: HttpRequest) -> JsonResponse:
    return JsonResponse(runs.report())


urlpatterns = [
    path("events", events),
    path("generate", generate),
    path("plain", plain),
    path("runs", report),
]

app = get_asgi_application()
