"""Made-up requests against a model that is written another way: no exception, and no decision but the model's.

The model never parses an origin. It writes down every spelling of the origins that may ask, and compares.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streamware import OriginMiddleware
from streamware.types import Message, Receive, Scope, Send

ALLOW = ["https://chat.example", "http://localhost:5173", "http://[::1]:8000", "https://*.tenant.example", "null"]
ORIGINS = [
    *ALLOW, "https://api.example", "https://api.example:443", "http://api.example", "https://evil.example",
    "https://a.tenant.example", "https://a.b.tenant.example", "https://tenant.example", "http://127.0.0.1:8000",
]  # fmt: skip
HOSTS = ["api.example", "api.example:443", "api.example:8443", "127.0.0.1:8000", "[::1]:8000", "chat.example"]
SITES = ["same-origin", "same-site", "cross-site", "none", "", "Cross-Site"]
JUNK = st.sampled_from([*"@/.:*,- \t0aZ[]?#%\\", "\u00e9", "\x00", "443", "://", "null", ".evil.example"])


@st.composite
def spoiled(draw: Any, values: list[str]) -> str:
    """One of the values, mostly as it is; else with something put in, taken out, or shouted."""
    value: str = draw(st.sampled_from(values))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        place = draw(st.integers(0, len(value)))
        kind = draw(st.integers(0, 2))
        if kind == 0:
            value = value[:place] + draw(JUNK) + value[place:]
        elif kind == 1:
            value = value[:place] + value[place + 1 :]
        else:
            value = value[:place] + value[place:].upper()
    return value


@st.composite
def requests(draw: Any) -> dict[str, Any]:
    """The head of a request, and the options that it meets."""

    def some(strategy: Any, most: int = 1) -> list[Any]:
        count = draw(st.sampled_from([0, 1, 1, 1, most]))
        return [draw(strategy) for _ in range(count)]

    lines = [("host", value) for value in some(spoiled(HOSTS), 2)]
    lines += [("origin", value) for value in some(spoiled(ORIGINS), 2)]
    if draw(st.booleans()):
        lines += [("sec-fetch-site", value) for value in some(st.sampled_from(SITES), 2)]
    if draw(st.booleans()):
        lines += [("sec-fetch-mode", draw(st.sampled_from(["navigate", "cors"])))]
        lines += [("sec-fetch-dest", draw(st.sampled_from(["document", "iframe", "empty"])))]
    lines += [
        ("cookie", value) for value in draw(st.lists(st.sampled_from(["sid=1", "a=b; sid=1", "a=b", ""]), max_size=2))
    ]
    lines += [
        ("authorization", value)
        for value in draw(st.lists(st.sampled_from(["Basic abc", "Bearer abc", "Bearer", ""]), max_size=1))
    ]
    websocket = draw(st.booleans())
    return {
        "lines": [(name.encode(), value.encode("utf-8")) for name, value in draw(st.permutations(lines))],
        "method": None if websocket else draw(st.sampled_from(["GET", "HEAD", "POST", "DELETE", "OPTIONS", "BREW"])),
        "scheme": draw(st.sampled_from(["wss", "ws"] if websocket else ["https", "http"])),
        "options": {
            "absent": draw(st.sampled_from(["safe", "accept", "refuse"])),
            "navigations": draw(st.booleans()),
            "cookies": draw(st.sampled_from([None, ["sid"]])),
            "hosts": draw(st.sampled_from([None, ["api.example", "127.0.0.1:8000"]])),
            "cors": draw(st.booleans()),
        },
    }


# -- the model


def spellings(host: str, scheme: str) -> set[str]:
    """Every way to write the origin of pages under this host, in lower case; none for what is no host."""
    if not re.fullmatch(r"([a-z0-9_-]+\.?)*|\[::1\]|127\.0\.0\.1", re.sub(r":[1-9][0-9]{0,4}\Z", "", host)) or not host:
        return set()
    port = host.rpartition(":")[2] if re.search(r":[0-9]+\Z", host) and not host.endswith("]") else ""
    name = host.removesuffix(f":{port}") if port else host
    own = {"https": "443", "http": "80"}[scheme]
    if not name or name.startswith(".") or ".." in name or int(port or own) > 65535:
        return set()
    if re.fullmatch(r"(.*\.)?([0-9]+|0x[0-9a-f]*)\.?", name) and name != "127.0.0.1":
        return set()
    return {f"{scheme}://{name}", f"{scheme}://{name}:{own}"} if port in ("", own) else {f"{scheme}://{name}:{port}"}


def is_listed(origin: str) -> bool:
    exact = {"https://chat.example", "https://chat.example:443", "http://localhost:5173", "http://[::1]:8000"}
    tenant = re.fullmatch(r"https://([a-z0-9_-]{1,63}\.)+tenant\.example(:443)?", origin)
    return origin in exact or tenant is not None


def may_pass(request: dict[str, Any]) -> bool:
    options, method = request["options"], request["method"]
    values: dict[bytes, list[bytes]] = {}
    for name, value in request["lines"]:
        values.setdefault(name, []).append(value)
    if any(len(values.get(name, [])) > 1 for name in (b"origin", b"host", b"sec-fetch-site")):
        return False
    scheme = {"wss": "https", "ws": "http"}.get(request["scheme"], request["scheme"])
    host = values.get(b"host", [b""])[0].decode("utf-8").lower()
    own = spellings(host, scheme)
    if options["hosts"] is not None and not own & {
        *spellings("api.example", scheme), "http://127.0.0.1:8000", "https://127.0.0.1:8000",
        *(f"{scheme}://api.example:{port}" for port in re.findall(r"\Aapi\.example:([0-9]+)\Z", host)),
    }:  # fmt: skip
        return False
    cookies = [pair.strip() for jar in values.get(b"cookie", []) for pair in jar.split(b";") if pair.strip()]
    if options["cookies"] is not None:
        cookies = [pair for pair in cookies if pair.startswith(b"sid=")]
    authorization = values.get(b"authorization", [b""])[0]
    ambient = authorization != b"Bearer abc" and (bool(cookies) or authorization == b"Basic abc")
    if b"origin" in values:
        origin = values[b"origin"][0].decode("utf-8")
        if origin == "null":
            return not ambient
        return origin.isascii() and (is_listed(origin.lower()) or origin.lower() in own)
    site = values.get(b"sec-fetch-site", [None])[0]
    safe = method in ("GET", "HEAD", "OPTIONS")
    if site in (b"cross-site", b"same-site"):
        navigation = values.get(b"sec-fetch-mode") == [b"navigate"] and values.get(b"sec-fetch-dest") == [b"document"]
        return bool(options["navigations"] and navigation and method in ("GET", "HEAD"))
    if site not in (None, b"same-origin", b"none"):
        return False
    if not ambient:
        return True
    if method is None:
        return False
    return site is not None or {"safe": safe, "accept": True, "refuse": False}[options["absent"]]


class Outcome:
    """What came of one request: whether the app was reached, and what was sent."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.reached = False
        self.sent: list[Message] = []
        websocket = request["method"] is None
        scope: Scope = {
            "type": "websocket" if websocket else "http",
            "scheme": request["scheme"],
            "path": "/",
            "headers": request["lines"],
            "extensions": {"websocket.http.response": {}},
        }
        if not websocket:
            scope["method"] = request["method"]
        call = self._run(OriginMiddleware(self._app, allow=ALLOW, **request["options"]), scope)
        with contextlib.suppress(StopIteration):  # nothing is waited for, so it needs no loop
            call.send(None)
            raise AssertionError("it waits")

    async def _run(self, app: OriginMiddleware, scope: Scope) -> None:
        async def receive() -> Message:
            raise AssertionError("nothing is to be read")

        async def send(message: Message) -> None:
            self.sent.append(message)

        await app(scope, receive, send)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached = True
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})

    @property
    def cors(self) -> list[bytes]:
        return [
            v for message in self.sent for n, v in message.get("headers", ()) if n == b"access-control-allow-origin"
        ]


@settings(max_examples=600, deadline=None)
@given(requests())
def test_every_request_is_decided_as_the_model_says(request: dict[str, Any]) -> None:
    outcome = Outcome(request)

    assert outcome.reached is may_pass(request)
    if not outcome.reached:
        assert outcome.sent[0]["status"] == 403
        assert not any(b"evil" in message.get("body", b"") for message in outcome.sent)


@settings(max_examples=200, deadline=None)
@given(requests())
def test_only_a_listed_origin_is_told_that_it_may_read(request: dict[str, Any]) -> None:
    outcome = Outcome(request)

    given = [value for name, value in request["lines"] if name == b"origin"]
    for value in outcome.cors:
        assert given == [value]
        assert value == b"null" or is_listed(value.decode("ascii").lower())
        assert request["options"]["cors"]
