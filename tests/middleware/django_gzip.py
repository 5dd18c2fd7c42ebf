"""A Django project with Django's own ``GZipMiddleware``, and compression outside of it: what clients get, as JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from django.conf import settings

if not settings.configured:
    settings.configure(
        SECRET_KEY="a test's",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["django.middleware.gzip.GZipMiddleware", "django.middleware.common.CommonMiddleware"],
    )

from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from streamware import CompressionMiddleware, MemoryStore, Middleware, ResumeMiddleware, Stack
from tests.middleware.coded_site import PAGE, event, fetched


async def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(PAGE)


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def events() -> AsyncIterator[bytes]:
        for number in range(5):
            yield event(number)
            await asyncio.sleep(0)

    return StreamingHttpResponse(events(), content_type="text/event-stream")


urlpatterns = [path("page", page), path("stream", stream)]


async def main() -> None:
    django: Any = get_asgi_application()
    found: dict[str, dict[str, Any]] = {"page": {}, "stream": {}}
    store = MemoryStore()
    apps = {
        "alone": CompressionMiddleware(django),
        "stack": Stack(
            django, middleware=[Middleware(CompressionMiddleware), Middleware(ResumeMiddleware, store=store)]
        ),
    }
    for name, app in apps.items():
        for place in found:
            for accepts in ("gzip", "identity"):
                headers = [("accept", "text/event-stream" if place == "stream" else "text/html")]
                connection = await fetched(app, path=f"/{place}", accepts=accepts, headers=headers)
                assert connection.ended
                decoded = b"".join(
                    line
                    for line in connection.decoded.splitlines(keepends=True)
                    if not line.startswith((b"id:", b"retry:"))
                )
                case = name if accepts == "gzip" else "identity"
                found[place][case] = (connection.coding, connection.vary, decoded.decode())
    print(json.dumps(found))
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(main())
