"""An introspection endpoint (RFC 7662): what is sent to it, and what it says, before anything is made of it."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping
from urllib.parse import quote_plus

from .discovery import Discovery
from .fetch import Fetch, FetchError, FetchRequest, FetchResponse
from .token import JSON, read_json

logger = logging.getLogger("streamware.auth")

MAX_ANSWER = 64 * 1024
#: Longest peace that a server may ask for by ``Retry-After``, in seconds.
MAX_PAUSE = 60.0


class Trouble(Exception):
    """The endpoint gave no answer that may be used. ``pause``: seconds that it wants to be left in peace, where it said
    so."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.pause = pause


class Credentials:
    """How this service shows the server who it is: as a client, by HTTP Basic or in the form (RFC 6749, section 2.3.1),
    or by an access token of its own."""

    __slots__ = ("_bearer", "_client_id", "_in_form", "_secret")

    def __init__(
        self, client_id: str, secret: str, *, in_form: bool = False, bearer: str | Callable[[], str] | None = None
    ) -> None:
        self._client_id = client_id
        self._secret = secret
        self._in_form = in_form
        self._bearer = bearer

    def headers(self) -> dict[str, str]:
        if self._bearer is not None:
            return {"authorization": f"Bearer {self._bearer() if callable(self._bearer) else self._bearer}"}
        if self._in_form:
            return {}
        pair = f"{quote_plus(self._client_id)}:{quote_plus(self._secret)}"
        return {"authorization": f"Basic {base64.b64encode(pair.encode('ascii')).decode('ascii')}"}

    def fields(self) -> dict[str, str]:
        if self._in_form and self._bearer is None:
            return {"client_id": self._client_id, "client_secret": self._secret}
        return {}


class Endpoint:
    """``place``: its URL, or the metadata that name it."""

    def __init__(self, fetch: Fetch, place: str | Discovery, credentials: Credentials, *, timeout: float) -> None:
        self._fetch = fetch
        self._place = place
        self._url = place if isinstance(place, str) else None
        self._credentials = credentials
        self._timeout = timeout

    async def found(self) -> str:
        """Its URL, from the metadata where need be.

        :raises FetchError: they do not tell.
        """
        if self._url is None and not isinstance(self._place, str):
            self._url = await self._place.endpoint("introspection_endpoint")
        return str(self._url)

    async def ask(self, token: str) -> dict[str, JSON]:
        """What the server says of ``token``: an object whose ``active`` is a yes or no.

        :raises Trouble: it said nothing that may be used.
        """
        try:
            request = FetchRequest(
                await self.found(),
                form={"token": token, "token_type_hint": "access_token", **self._credentials.fields()},
                headers=self._credentials.headers(),
                max_bytes=MAX_ANSWER,
                timeout=self._timeout,
            )
            response = await self._fetch.fetch(request)
        except FetchError as error:
            raise Trouble(error.reason) from None
        except Exception as error:
            # Its type alone: its text may quote what was sent.
            logger.error("introspection: %s while asking", type(error).__name__)
            raise Trouble("unexpected") from None
        if response.status != 200:
            raise self._refused(response)
        return _answer(response.body)

    def _refused(self, response: FetchResponse) -> Trouble:
        if response.status in (400, 401, 403):
            logger.error("introspection: the server refuses this client's credentials (%d)", response.status)
            return Trouble("credentials")
        if response.status in (429, 503):
            return Trouble("overloaded", _pause(response.headers))
        if not isinstance(self._place, str):
            self._url = None  # it may have moved
        return Trouble("status")


def _answer(body: bytes) -> dict[str, JSON]:
    if len(body) > MAX_ANSWER:
        raise Trouble("size")
    try:
        answer = read_json(body)
    except (ValueError, RecursionError):
        raise Trouble("document") from None
    if not isinstance(answer, dict) or not isinstance(answer.get("active"), bool):
        raise Trouble("document")
    return answer


def _pause(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "").strip()
    return min(float(value), MAX_PAUSE) if value.isdecimal() and len(value) < 10 else None
