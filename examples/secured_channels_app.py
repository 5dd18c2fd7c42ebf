"""The WebSocket of ``secured_starlette_app.py`` as a consumer of Channels, beside Django's HTTP. It knows nothing of
Streamware: the principal is ``scope["user"]``. See ``secured.py``.

``AuthMiddlewareStack`` leaves a user alone who is there already, so a token goes before a session.
"""

from __future__ import annotations

from typing import Any

from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path

from .secured_django_app import app as django_app


class Talk(AsyncJsonWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
    async def connect(self) -> None:
        user: Any = self.scope["user"]
        if "chat" not in user.scopes:
            await self.close()
            return
        await self.accept()
        await self.send_json(
            {
                "authenticated": user.is_authenticated,
                "name": user.display_name,
                "scopes": sorted(user.scopes),
            }
        )
        await self.close()


app = ProtocolTypeRouter(
    {
        "http": django_app,
        "websocket": AuthMiddlewareStack(URLRouter([path("talk", Talk.as_asgi())])),
    }
)
