"""How the servers differ, as far as an app can see it through ASGI: one profile a server.

Observed on uvicorn 0.54, hypercorn 0.18, daphne 4.2 and granian 2.8. The profiles hold what an app must cope with, not
what a server promises.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerProfile:
    """What ``Connection`` and ``WebSocketConnection`` imitate. ``dataclasses.replace`` makes your own.

    ``spec_version``/``websocket_spec_version``: None where the scope holds no ``spec_version``.
    ``extensions``/``websocket_extensions``: None where the scope has no such key.
    ``disconnects_again``: a second ``receive()`` after the disconnect returns it again; else it blocks for ever.
    ``unread_body_first``: the first ``receive()`` gives the unread request body even when the client has left.
    ``coroutines``: ``receive()`` and ``send()`` return coroutines; else awaitables that are none.
    ``lifespan_state``: the scope has a ``state``.
    ``send_raises_when_gone``: a WebSocket ``send()`` after the client has left raises ``OSError``; else it is silent.
    ``any_close_code``: an app may close with any code; else with 1000 and 3000 to 4999 only.
    ``both_message_keys``: a received WebSocket message has ``text`` and ``bytes``, one of them None.
    """

    name: str
    spec_version: str | None = "2.3"
    websocket_spec_version: str | None = "2.3"
    extensions: tuple[str, ...] | None = None
    websocket_extensions: tuple[str, ...] | None = ("websocket.http.response",)
    client: tuple[str, int] | tuple[str, str] | list[str | int] = ("127.0.0.1", 50000)
    disconnects_again: bool = True
    unread_body_first: bool = False
    coroutines: bool = True
    lifespan_state: bool = True
    send_raises_when_gone: bool = False
    any_close_code: bool = True
    both_message_keys: bool = False


UVICORN = ServerProfile("uvicorn", websocket_spec_version="2.4", send_raises_when_gone=True)
HYPERCORN = ServerProfile(
    "hypercorn",
    spec_version="2.1",
    extensions=(),
    disconnects_again=False,
    unread_body_first=True,
    both_message_keys=True,
)
DAPHNE = ServerProfile(
    "daphne",
    spec_version=None,
    websocket_spec_version=None,
    websocket_extensions=None,
    client=["127.0.0.1", 50000],
    disconnects_again=False,
    unread_body_first=True,
    lifespan_state=False,
    any_close_code=False,
)
GRANIAN = ServerProfile(
    "granian",
    extensions=("http.response.pathsend", "websocket.http.response"),
    websocket_extensions=("http.response.pathsend", "websocket.http.response"),
    client=("127.0.0.1", "50000"),
    coroutines=False,
)

SERVERS = {profile.name: profile for profile in (UVICORN, HYPERCORN, DAPHNE, GRANIAN)}


def server_profile(server: str | ServerProfile) -> ServerProfile:
    """The profile itself, or the one of that name."""
    if isinstance(server, ServerProfile):
        return server
    if server not in SERVERS:
        raise ValueError(f"server must be a ServerProfile or one of {', '.join(sorted(SERVERS))}, got {server!r}")
    return SERVERS[server]
