"""Apps that ``test_lifespan_servers.py`` starts under a real server, as factories: ``uvicorn --factory``."""

from __future__ import annotations

from contextlib import asynccontextmanager

from streamware import Middleware, Stack
from streamware.middleware.base import BaseMiddleware
from streamware.types import AnyASGIApp, ASGIApp, Receive, Scope, Send


def say(what: str) -> None:
    print(f"said: {what}", flush=True)


class Saying(BaseMiddleware):
    """Says when its hooks are called; ``failing``: raises in its start-up."""

    rank = 70

    def __init__(self, app: ASGIApp, *, failing: bool = False) -> None:
        super().__init__(app)
        self.failing = failing

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    async def startup(self) -> None:
        say("startup")
        if self.failing:
            raise OSError("no store at the other end")

    async def shutdown(self) -> None:
        say("shutdown")

    async def aclose(self) -> None:
        say("aclose")


def stacked(app: AnyASGIApp, *, failing: bool = False) -> Stack:
    return Stack(app, middleware=[Middleware(Saying, failing=failing)])


def django_app() -> AnyASGIApp:
    """Django as ``asgi.py`` makes it, with one page."""
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpResponse
    from django.urls import path

    settings.configure(
        ROOT_URLCONF=(path("", lambda request: HttpResponse("served")),),
        ALLOWED_HOSTS=["127.0.0.1"],
        SECRET_KEY="of tests",
    )
    app: AnyASGIApp = get_asgi_application()
    return app


def django() -> Stack:
    return stacked(django_app())


def channels() -> Stack:
    from channels.routing import ProtocolTypeRouter

    return stacked(ProtocolTypeRouter({"http": django_app()}))


def starlette_app(broken: bool = False) -> AnyASGIApp:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    @asynccontextmanager
    async def lifespan(app: Starlette):
        say("app up")
        if broken:
            raise LookupError("no database at all")
        yield {"word": "served"}
        say("app down")

    async def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.word)

    return Starlette(routes=[Route("/", page)], lifespan=lifespan)


def starlette() -> Stack:
    return stacked(starlette_app())


def starlette_broken() -> Stack:
    return stacked(starlette_app(broken=True))


def hook_broken() -> Stack:
    return stacked(starlette_app(), failing=True)
