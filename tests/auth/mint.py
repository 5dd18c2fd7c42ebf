"""Tokens in every shape, honest and forged: signed over whatever bytes a test wants in a header and a payload."""

from __future__ import annotations

import json
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from joserfc.jwa import JWS_ALGORITHMS
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from streamware import JWTVerifier, Principal, TokenRefused, Verifier, VerifierUnavailable
from tests.secrets import secret

ISSUER = "https://idp.example"
AUDIENCE = "https://api.example"

RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
OTHER_RSA = RSAKey.generate_key(2048, {"kid": "rsa-2"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
SECRET = secrets.token_bytes(32)
OCT = OctKey.import_key(SECRET, {"kid": "oct"})
secret(urlsafe_b64encode(SECRET).decode().rstrip("="))

MODELS = {model.name: model for model in JWS_ALGORITHMS}


def short_rsa(bits: int = 1024) -> RSAKey:
    """A key that is too short; joserfc would warn of it when it is imported."""
    native = generate_private_key(65537, bits)
    return RSAKey(native, native, {"kid": "short"})


def encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def claims(**changed: Any) -> dict[str, Any]:
    """Good claims of RFC 9068; None leaves one out."""
    now = int(time.time())
    said = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "client_id": "app",
        "iat": now,
        "exp": now + 600,
        "jti": secrets.token_hex(8),
        "scope": "read write",
        **changed,
    }
    return {name: value for name, value in said.items() if value is not None}


def header(alg: str = "RS256", kid: str | None = "rsa", **changed: Any) -> dict[str, Any]:
    said = {"alg": alg, "kid": kid, "typ": "at+jwt", **changed}
    return {name: value for name, value in said.items() if value is not None}


def token(
    head: Mapping[str, Any] | bytes | None = None,
    body: Mapping[str, Any] | bytes | None = None,
    key: Key = RSA,
    alg: str | None = None,
) -> str:
    """A token with this header and payload, in JSON or in the very bytes given, signed with ``key``."""
    head = header() if head is None else head
    alg = alg or (str(head["alg"]) if isinstance(head, Mapping) else "RS256")
    first = encoded(head if isinstance(head, bytes) else json.dumps(head).encode())
    body = claims() if body is None else body
    second = encoded(body if isinstance(body, bytes) else json.dumps(body).encode())
    signed = f"{first}.{second}"
    return secret(f"{signed}.{encoded(MODELS[alg].sign(signed.encode(), key))}")


def public(*keys: Key, **changed: Any) -> dict[str, Any]:
    """The key set of ``keys``, as an issuer publishes it."""
    return {"keys": [{**key.as_dict(private=False), **changed} for key in keys]}


def verifier(**options: Any) -> JWTVerifier:
    """One of ISSUER, with the key RSA unless ``options`` say otherwise; it remembers nothing."""
    where = {} if "jwks" in options or "metadata" in options else {"key": RSA}
    return JWTVerifier(**{"issuer": ISSUER, "audience": AUDIENCE, "cache_ttl": 0, **where, **options})


async def reason(verifying: Verifier, text: str, **given: str) -> str:
    """Why ``text`` is refused."""
    with pytest.raises(TokenRefused) as refused:
        await verifying.verify(text, **given)
    return refused.value.reason


async def outcome(verifying: Verifier, text: str, **given: str) -> Principal | str:
    """The principal of ``text``, or why there is none. No other exception is let through."""
    try:
        return await verifying.verify(text, **given)
    except (TokenRefused, VerifierUnavailable) as error:
        return error.reason
