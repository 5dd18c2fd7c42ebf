"""One worker of the cluster: the chat of ``examples/chat``, wrapped, with its logs in Redis. ``serve.py`` starts it.

    python -m examples.cluster.worker --name A1 --redis redis://127.0.0.1:6379/0

It prints the port that it got. It ends at SIGTERM, or when its standard input closes: then whoever started it is gone.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading

import uvicorn

from examples.chat import voice
from examples.chat.app import create_app, provider_from_environment
from streamware import RedisStore, wrap
from streamware.types import ASGIApp, Message, Receive, Scope, Send

READINESS = "/readyz"


class ServedBy:
    """Says in every response which worker gave it: in a header for ``fetch`` and ``curl``, and in a cookie, since an
    EventSource shows its page no headers."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        self._app = app
        self._headers = [
            (b"x-served-by", name.encode()),
            (b"set-cookie", f"served_by={name}; Path=/; SameSite=Lax".encode()),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        await self._app(scope, receive, named)


def application(redis: str, name: str, pace: float) -> ASGIApp:
    """The chat as every worker serves it."""
    chat = create_app(pace, provider_from_environment())
    # A deploy moves what runs after a second; what has moved is written to its end here, for 40 seconds at most.
    wrapped = wrap(chat, store=RedisStore(redis), always=["/v1/*"], grace=1.0, deadline=40.0, readiness=READINESS)
    return ServedBy(wrapped, name)


def end_with_parent() -> None:
    """End this process in good order when its standard input closes."""

    def listen() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=listen, daemon=True).start()


def main() -> None:
    asked = argparse.ArgumentParser(description="One worker of the example cluster.")
    asked.add_argument("--name", required=True)
    asked.add_argument("--redis", required=True, metavar="URL")
    asked.add_argument("--port", type=int, default=0)
    asked.add_argument("--pace", type=float, default=voice.WORDS_PER_SECOND, help="words a second")
    given = asked.parse_args()
    served = application(given.redis, given.name, given.pace)
    # With its protocol named, as servers that bind by themselves do: else asyncio leaves Nagle's algorithm on.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", given.port))
    config = uvicorn.Config(served, log_level="warning", timeout_graceful_shutdown=50)
    print(listener.getsockname()[1], flush=True)
    end_with_parent()
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
