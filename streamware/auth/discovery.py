"""Finding an authorization server's endpoints by its issuer (RFC 8414, OpenID Connect Discovery 1.0).

Rules:

1. The document says the issuer that it was asked for, to the letter (RFC 8414, section 3.3), or it is not believed.
2. Every endpoint that is used is an ``https`` URL; ``http`` on loopback where the verifier is ``insecure``.
3. RFC 8414's URL is asked first, then OpenID Connect's; which of them answered is asked first from then on.
"""

from __future__ import annotations

from . import options
from .fetch import Fetch, FetchError, FetchRequest
from .token import JSON, read_json

MAX_METADATA = 256 * 1024


class Discovery:
    """The metadata of one issuer.

    :param url: where it is; ``None``: at the well-known places.
    """

    def __init__(
        self, issuer: str, fetch: Fetch, *, url: str | None = None, insecure: bool = False, timeout: float = 5.0
    ) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._places = [url] if url is not None else well_known(issuer)
        self._insecure = insecure
        self._timeout = timeout

    async def endpoint(self, name: str) -> str:
        """The URL of the endpoint that the metadata call ``name``: ``jwks_uri``, ``introspection_endpoint``.

        :raises FetchError: it cannot be told.
        """
        failure = "protocol"
        for place in list(self._places):
            try:
                url = self._checked(await self._document(place), name)
            except FetchError as error:
                failure = error.reason
                continue
            self._places.remove(place)
            self._places.insert(0, place)
            return url
        raise FetchError(failure)

    async def _document(self, place: str) -> dict[str, JSON]:
        request = FetchRequest(place, max_bytes=MAX_METADATA, timeout=self._timeout)
        response = await self._fetch.fetch(request)
        if response.status != 200 or len(response.body) > MAX_METADATA:
            raise FetchError("status")
        try:
            document = read_json(response.body)
        except (ValueError, RecursionError):
            raise FetchError("document") from None
        if not isinstance(document, dict):
            raise FetchError("document")
        return document

    def _checked(self, document: dict[str, JSON], name: str) -> str:
        if document.get("issuer") != self._issuer:
            raise FetchError("issuer")
        url = document.get(name)
        if not isinstance(url, str) or not options.may_fetch(url, insecure=self._insecure):
            raise FetchError("endpoint")
        if not self._insecure:
            _check_by_authlib(document, name)
        return url


def well_known(issuer: str) -> list[str]:
    """Where the metadata of ``issuer`` may be, in the order to ask."""
    from authlib.oauth2.rfc8414 import get_well_known_url
    from authlib.oidc.discovery import get_well_known_url as get_openid_url

    # RFC 8414 puts its segment before the issuer's path, without the final slash; OpenID Connect behind it.
    places = [str(get_well_known_url(issuer.rstrip("/"), external=True)), str(get_openid_url(issuer, external=True))]
    return list(dict.fromkeys(places))


def _check_by_authlib(document: dict[str, JSON], name: str) -> None:
    """The members that are used, by authlib's model; the others may be what they like."""
    from authlib.oauth2.rfc8414 import AuthorizationServerMetadata

    metadata = AuthorizationServerMetadata(document)
    try:
        metadata.validate_issuer()
        getattr(metadata, f"validate_{name}")()
    except (ValueError, TypeError, AttributeError):
        raise FetchError("document") from None
