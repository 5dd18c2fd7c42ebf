"""What the tests of integrations share: a verifier of two tokens that counts what it is asked, and ways to ask apps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from examples.keys import KeyVerifier
from streamware import AuthMiddleware, Principal
from streamware.testing import WebSocketConnection
from streamware.types import AnyASGIApp
from tests.secrets import secret

ADA, BOB = secret("ada-0123456789abcdef"), secret("bob-0123456789abcdef")


class Counting(KeyVerifier):
    """``asked``: how often a token was looked at."""

    def __init__(self) -> None:
        super().__init__({ADA: ("ada", ["chat", "tools"]), BOB: ("bob", [])})
        self.asked = 0

    def recall(self, token: str) -> Principal | None:
        self.asked += 1
        return super().recall(token)


def secured(app: AnyASGIApp, **options: Any) -> AuthMiddleware:
    return AuthMiddleware(app, verifier=Counting(), **{"optional": ["/open*"], **options})


def bearing(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def socket(app: AnyASGIApp, path: str, token: str | None = None, **options: Any) -> WebSocketConnection:
    return WebSocketConnection(app, path=path, headers=bearing(token), **options)


class Smuggling:
    """Something outside that leaves ``user`` in the scope."""

    def __init__(self, app: AnyASGIApp, **left: object) -> None:
        self.app = app
        self.left: Mapping[str, object] = left

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app({**scope, **self.left}, receive, send)
