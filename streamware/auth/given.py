"""Keys that stand in the configuration: a secret, PEM, a JWK, a set, a key of joserfc, a file, or several of them.

Unlike in a set that is fetched, a key that is of no use here is a mistake, and an error when the verifier is built.
Nothing of a key is ever in the error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from ..exceptions import ConfigurationError
from .keys import SYMMETRIC, BadKey, VerifyingKey, public_key, secret_key, verifying
from .token import JSON, decoded, read_json
from .verifier import TokenRefused

_WHY = {
    "size": "too short: RSA keys need 2048 bits, secrets as many bytes as the hash gives (32 for HS256)",
    "algorithm": "of a type that none of the algorithms is for",
    "secret": "a secret, where the algorithms are asymmetric",
    "public": "a public key, where the algorithms are symmetric",
    "use": "not meant for signatures",
}
_WANTED = "a secret of bytes, PEM, a JWK or a set of them, a key of joserfc, a Path, or a list of these"

#: What ``key=`` and ``jwks=`` take, beside URLs.
Given = bytes | str | Path | Mapping[str, object] | Key | Sequence["bytes | str | Path | Mapping[str, object] | Key"]


def given_keys(owner: str, option: str, given: object, algorithms: frozenset[str]) -> list[VerifyingKey]:
    """The keys in ``given``.

    :raises ConfigurationError: one of them is of no use for ``algorithms``.
    """
    try:
        keys = _keys(given, algorithms)
    except BadKey as bad:
        why = _WHY.get(bad.reason, "not readable")
        raise ConfigurationError(f"{owner}: {option} must be {_WANTED}; a key is {why}") from None
    except OSError as error:
        raise ConfigurationError(f"{owner}: {option} cannot be read: {error.strerror}: {given}") from None
    if not keys:
        raise ConfigurationError(f"{owner}: {option} must be {_WANTED}; it holds no key")
    return keys


def _keys(given: object, algorithms: frozenset[str]) -> list[VerifyingKey]:
    if isinstance(given, Path):
        return keys_in_file(given.read_bytes(), algorithms)
    if isinstance(given, str):
        given = given.encode("utf-8", "surrogatepass")
    if isinstance(given, bytes):
        return [secret_key(given, algorithms) if algorithms <= SYMMETRIC else _pem(given, algorithms)]
    if isinstance(given, Mapping):
        try:
            return _of_json(msgspec.json.encode(given), algorithms)
        except (TypeError, ValueError, msgspec.MsgspecError):
            raise BadKey("malformed") from None
    if isinstance(given, RSAKey | ECKey | OKPKey | OctKey):
        return [_of_joserfc(given, algorithms)]
    if isinstance(given, Sequence):
        return [key for each in cast("Sequence[object]", given) for key in _keys(each, algorithms)]
    raise BadKey("malformed")


def keys_in_file(data: bytes, algorithms: frozenset[str]) -> list[VerifyingKey]:
    """The keys in a file that holds ``data``: a JWK or a set, PEM, or a secret.

    :raises BadKey: one of them is of no use.
    """
    if not data.lstrip().startswith(b"{"):
        # A secret in a file ends in a newline as a rule, which nobody means.
        return _keys(data.rstrip(b"\r\n"), algorithms)
    return _of_json(data, algorithms)


def _of_json(data: bytes, algorithms: frozenset[str]) -> list[VerifyingKey]:
    try:
        value = read_json(data)
    except (ValueError, RecursionError):
        raise BadKey("malformed") from None
    members = value.get("keys", [value]) if isinstance(value, dict) else None
    if not isinstance(members, list):
        raise BadKey("malformed")
    return [_jwk(member, algorithms) for member in members]


def _jwk(member: JSON, algorithms: frozenset[str]) -> VerifyingKey:
    if algorithms <= SYMMETRIC:
        if not isinstance(member, dict) or member.get("kty") != "oct":
            raise BadKey("public")
        secret, kid = member.get("k"), member.get("kid")
        if not isinstance(secret, str) or not isinstance(kid, str | None):
            raise BadKey("malformed")
        try:
            return secret_key(decoded(secret), algorithms, kid)
        except (TokenRefused, ValueError):
            raise BadKey("malformed") from None
    return public_key(member, algorithms)


def _of_joserfc(key: Key, algorithms: frozenset[str]) -> VerifyingKey:
    if isinstance(key, OctKey):
        if not algorithms <= SYMMETRIC:
            raise BadKey("secret")
        return secret_key(key.raw_value, algorithms, key.kid)
    if algorithms <= SYMMETRIC:
        raise BadKey("public")
    return _of_json(msgspec.json.encode(key.as_dict(private=False)), algorithms)[0]


def _pem(data: bytes, algorithms: frozenset[str]) -> VerifyingKey:
    try:
        native: object = (
            load_pem_x509_certificate(data).public_key()
            if b"CERTIFICATE" in data
            else load_pem_private_key(data, None).public_key()
            if b"PRIVATE" in data
            else load_pem_public_key(data)
        )
        if isinstance(native, RSAPublicKey):
            key: Key = RSAKey.import_key(native) if native.key_size >= 2048 else _short()
        elif isinstance(native, EllipticCurvePublicKey):
            key = ECKey.import_key(native)
        else:
            key = OKPKey.import_key(cast("Ed25519PublicKey", native))  # which raises for what it does not know
        return verifying(key, None, None, algorithms)
    except BadKey:
        raise
    except Exception:  # whatever a library says of bytes that are no key
        raise BadKey("malformed") from None


def _short() -> Key:
    raise BadKey("size")
