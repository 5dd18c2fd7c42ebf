"""The chat, wrapped: ``application`` below is all that it takes. ``make demo`` runs this file.

python -m examples.chat.serve             the chat at 127.0.0.1:8000
python -m examples.chat.serve --flaky 3   behind a proxy that cuts each connection after about 3 seconds
python -m examples.chat.serve --bare      without Streamware, to see the difference
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from streamware import wrap

from . import voice
from .app import app, create_app, provider_from_environment
from .flaky import FlakyProxy

# ``always``: OpenAI's SDKs ask for application/json even when they want events, so the path says it for them.
application = wrap(app, always=["/v1/*"])

TRY = """
  The chat is at {url}

  In the page: ask, then cut the connection, reload the page, or stop the answer.
  In a shell, an answer that you can leave with Ctrl-C and take up again where you left:

    curl -iN '{url}/chat?q=hello' -H 'Accept: text/event-stream'
    curl -iN '{url}/chat' -H 'Accept: text/event-stream' -H 'Last-Event-ID: THE-LAST-id-YOU-SAW'

  For OpenAI's SDKs: base_url="{url}/v1", any key. Ctrl-C ends the demo.
"""


async def serve(port: int, served: Callable[..., Any], flaky: float | None) -> None:
    try:
        front = socket.create_server(("127.0.0.1", port))
    except OSError as failure:
        raise SystemExit(
            f"127.0.0.1:{port} cannot be had ({failure.strerror}); try another: make demo PORT=8001"
        ) from None
    host, port = front.getsockname()
    print(TRY.format(url=f"http://{host}:{port}"), flush=True)
    config = uvicorn.Config(served, log_level="warning", timeout_graceful_shutdown=3)
    if flaky is None:
        await uvicorn.Server(config).serve(sockets=[front])
        return
    back = socket.create_server(("127.0.0.1", 0))
    async with FlakyProxy(front, back.getsockname(), flaky):
        print(f"  Every connection is cut after about {flaky} s.\n", flush=True)
        await uvicorn.Server(config).serve(sockets=[back])


def main() -> None:
    asked = argparse.ArgumentParser(description="Serves the example chat at 127.0.0.1.")
    asked.add_argument("--port", type=int, default=8000)
    asked.add_argument("--pace", type=float, default=voice.WORDS_PER_SECOND, help="words a second")
    asked.add_argument("--flaky", type=float, metavar="SECONDS", help="cut every connection after about so long")
    asked.add_argument("--bare", action="store_true", help="leave Streamware out")
    given = asked.parse_args()
    served: Callable[..., Any] = application
    if given.bare or given.pace != voice.WORDS_PER_SECOND:
        chat = create_app(given.pace, provider_from_environment())
        served = chat if given.bare else wrap(chat, always=["/v1/*"])
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(given.port, served, given.flaky))


if __name__ == "__main__":
    main()
