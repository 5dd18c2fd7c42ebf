"""The chat for people who have a key, each of whom may use so much of it: one call of ``wrap``.

    uvicorn examples.limited:application
    REDIS_URL=redis://127.0.0.1:6379/0 uvicorn examples.limited:application --workers 4

    curl -iN "http://127.0.0.1:8000/chat?q=hello" -H "Authorization: Bearer ada-0123456789abcdef"

For OpenAI's SDKs the key is the ``api_key``, and ``base_url`` is http://127.0.0.1:8000/v1.
"""

from __future__ import annotations

import os

from streamware import Stack, Store, wrap
from streamware.types import AnyASGIApp

from .chat.app import app
from .keys import KeyVerifier

KEYS = {
    "ada-0123456789abcdef": ("ada", ["chat"]),
    "bob-0123456789abcdef": ("bob", ["chat"]),
}


def limited(chat: AnyASGIApp = app, store: Store | str | None = None) -> Stack:
    """``chat`` within limits. ``store``: the URL of a Redis, where all workers keep the streams and count."""
    return wrap(
        chat,
        store=store,
        verifier=KeyVerifier(KEYS),  # who asks: each has limits of their own
        limits="100/minute",  # requests; to go on with a stream, or to stop it, is free
        concurrent=3,  # answers at once, those among them that nobody reads just now
        tokens={"/v1/*": "20000/minute"},  # of the model, as its streams report them
        always=["/chat", "/v1/*"],
    )


application = limited(store=os.environ.get("REDIS_URL"))
