"""Refusing a request before its app is called, behind its body: some servers reset a connection, and with HTTP/2 every
stream on it, whose request is answered before it is whole."""

from __future__ import annotations

from ..types import Clock, Scope, Send
from ..wire.denial import Denial, deny
from .inbound import Inbound
from .options import DISCARD_WAIT


async def refuse(scope: Scope, inbound: Inbound, send: Send, denial: Denial, clock: Clock, *, soft: bool) -> None:
    """Refuse the request once the rest of its body has come, or a second is over; then let go of ``inbound``. Nothing
    is sent where the client has left. ``soft``: as for ``deny``."""
    try:
        await inbound.discard(clock, DISCARD_WAIT)
        if not inbound.gone:
            await deny(scope, send, denial, soft=soft)
    finally:
        inbound.release()
