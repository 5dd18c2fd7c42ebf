"""Asking an authorization server: for keys, metadata, or what a token is worth.

``Fetch`` is all that verifiers know of HTTP, so any client can stand behind it. ``HTTPFetch`` is the one that comes
with the extra ``oauth``; it uses httpx2, as authlib itself does.

Rules of ``HTTPFetch``:

1. ``https`` only; ``http`` with ``insecure=True``, and then to this machine only.
2. A redirect is followed for GET, to the same scheme, host and port, at most ``MAX_REDIRECTS`` times. A POST carries
   credentials and a token, and is never sent anywhere else.
3. No answer is longer than ``max_bytes``, nor read when it is compressed; none takes longer than ``timeout`` in all.
4. Nothing is taken from the environment: no proxy, no ``.netrc``.
5. An error says what went wrong in a fixed word, and holds neither the request nor the answer.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlencode, urljoin, urlsplit

from ..checks import check
from ..exceptions import ConfigurationError, StreamwareError
from . import options

if TYPE_CHECKING:
    import httpx2

MAX_REDIRECTS = 3
#: Connections kept to authorization servers.
MAX_CONNECTIONS = 64
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """What is asked. ``form``: a POST of these fields; None: a GET. ``max_bytes``: longest body that is wanted;
    ``timeout``: seconds for all of it. Headers and form hold secrets, and are not in its ``repr``."""

    url: str
    form: Mapping[str, str] | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    max_bytes: int = 256 * 1024
    timeout: float = 5.0


@dataclass(frozen=True, slots=True)
class FetchResponse:
    """What was answered, whatever the status. ``headers``: by lower-case name."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    body: bytes = field(default=b"", repr=False)


class FetchError(StreamwareError):
    """There was no answer that may be used. ``reason``: ``timeout``, ``connection``, ``redirect``, ``size``,
    ``encoding``, ``protocol``, or what a reader of the answer says: ``status``, ``document`` …"""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Fetch(Protocol):
    """An HTTP client, as far as verifiers need one."""

    async def fetch(self, request: FetchRequest) -> FetchResponse:
        """Ask. Redirects must not leave the host.

        :raises FetchError: no answer; whatever else is raised is taken for one.
        """
        ...


class HTTPFetch:
    """The ``Fetch`` that comes with Streamware's extra ``oauth``.

    :param ssl_context: decides whom to trust; ``None``: the certificate authorities of the system.
    :param insecure: allow ``http`` to loopback addresses, for tests.
    :param proxy: URL of a proxy to ask through; ``None`` (default): none, whatever the environment says.
    :raises ConfigurationError: the extra is not installed.
    """

    def __init__(
        self, *, ssl_context: ssl.SSLContext | None = None, insecure: bool = False, proxy: str | None = None
    ) -> None:
        owner = type(self).__name__
        check(
            owner, ssl_context is None or isinstance(ssl_context, ssl.SSLContext),
            "ssl_context", ssl_context, "an ssl.SSLContext, or None",
        )  # fmt: skip
        check(owner, isinstance(insecure, bool), "insecure", insecure, "True or False")
        check(owner, proxy is None or isinstance(proxy, str), "proxy", type(proxy), "a URL, or None")
        try:
            import httpx2
        except ImportError:
            raise ConfigurationError(f"{owner}: httpx2 is missing; install asgi-streamware[oauth]") from None
        self._library = httpx2
        # Here, for it reads all certificates of the system: nothing to do while requests wait.
        self._ssl_context = ssl.create_default_context() if ssl_context is None else ssl_context
        self._insecure = insecure
        self._proxy = proxy
        self._client: httpx2.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def fetch(self, request: FetchRequest) -> FetchResponse:
        try:
            async with asyncio.timeout(request.timeout):
                return await self._follow(request)
        except TimeoutError:
            raise FetchError("timeout") from None
        except self._library.TimeoutException:
            raise FetchError("timeout") from None
        except self._library.NetworkError:
            raise FetchError("connection") from None
        except (self._library.HTTPError, self._library.InvalidURL, OSError, ValueError):
            raise FetchError("protocol") from None

    async def aclose(self) -> None:
        """Close its connections. It opens new ones when it is asked again."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    async def _follow(self, request: FetchRequest) -> FetchResponse:
        url = request.url
        for _ in range(MAX_REDIRECTS + 1):
            if not options.may_fetch(url, insecure=self._insecure):
                raise FetchError("redirect" if url != request.url else "protocol")
            response = await self._once(url, request)
            location = response.headers.get("location")
            if response.status not in _REDIRECTS or location is None or request.form is not None:
                return response
            target = urljoin(url, location)
            if _place(target) != _place(url):
                raise FetchError("redirect")
            url = target
        raise FetchError("redirect")

    async def _once(self, url: str, request: FetchRequest) -> FetchResponse:
        # ``identity``: a compressed body could be any size once it is read.
        headers = {"accept": "application/json", "accept-encoding": "identity", **request.headers}
        content = None
        if request.form is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
            content = urlencode(request.form).encode("ascii")
        method = "GET" if content is None else "POST"
        async with self._open().stream(method, url, headers=headers, content=content) as answer:
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise FetchError("encoding")
            body = bytearray()
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > request.max_bytes:
                    raise FetchError("size")
            lines = {name.lower(): value for name, value in answer.headers.items()}
            return FetchResponse(answer.status_code, lines, bytes(body))

    def _open(self) -> httpx2.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # Connections belong to the loop that opened them; those of one that has ended went with it.
            self._loop = loop
            self._client = self._library.AsyncClient(
                verify=self._ssl_context,
                trust_env=False,
                follow_redirects=False,
                proxy=self._proxy,
                timeout=None,  # ``fetch`` has one for all of it
                limits=self._library.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=30.0),
            )
        return self._client


def _place(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, parts.hostname, port
