"""The public test kit: drive an ASGI app as a server does, with time and the network in the test's hands.

``Connection`` and ``WebSocketConnection`` drive raw ASGI and check the order of the messages; ``FakeClock`` replaces
the clock of any middleware of Streamware; ``check_order`` puts the order check around any app. None of it needs a test
framework, and nothing in the package itself uses it.
"""

from __future__ import annotations

from .call import ConnectionEndedError
from .clock import FakeClock, FakeTimer, settle
from .connection import Connection
from .events import EventReader, ReceivedEvent
from .order import MessageOrder, MessageOrderError, check_order
from .servers import DAPHNE, GRANIAN, HYPERCORN, SERVERS, UVICORN, ServerProfile
from .websocket import WebSocketConnection

__all__ = (
    "DAPHNE",
    "GRANIAN",
    "HYPERCORN",
    "SERVERS",
    "UVICORN",
    "Connection",
    "ConnectionEndedError",
    "EventReader",
    "FakeClock",
    "FakeTimer",
    "MessageOrder",
    "MessageOrderError",
    "ReceivedEvent",
    "ServerProfile",
    "WebSocketConnection",
    "check_order",
    "settle",
)
