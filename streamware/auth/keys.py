"""Keys that signatures are checked with: imported one by one, bound to the algorithms that they may be used for.

This module is the only one that calls joserfc, and is imported when a verifier is built. ``authlib.jose`` is deprecated
and never imported.

Rules:

1. A key fits an algorithm or is not looked at: type, curve, ``use``, ``key_ops`` and ``alg`` are settled at import, not
   by what a token says. A secret never meets an asymmetric algorithm.
2. Of a set that was fetched, one bad key costs that key, never the set. Secrets in it are dropped, and of a private key
   only the public part is read.
3. RSA keys have 2048 bits or more, secrets as many as the hash gives (RFC 7518, sections 3.2 and 3.3).
4. ``kid`` is a key of a dict. Keys with the same one are all tried; without one, at most ``MAX_TRIED`` that fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from joserfc.jwa import JWS_ALGORITHMS, JWSAlgModel
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from .token import JSON, MAX_KID, Compact, decoded
from .verifier import TokenRefused

#: Keys of a set that are looked at; what comes after them is skipped.
MAX_KEYS = 128
#: Keys that one token is tried with.
MAX_TRIED = 8
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 16_384

ALGORITHMS: Mapping[str, JWSAlgModel] = {model.name: model for model in JWS_ALGORITHMS if model.name != "none"}
SYMMETRIC = frozenset(name for name, model in ALGORITHMS.items() if model.key_type == "oct")
SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
# RFC 9864: the old name stands for either curve, the new one for Ed25519 alone.
_EDWARDS = frozenset({"EdDSA", "Ed25519"})

_PUBLIC = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}


class BadKey(Exception):
    """A key that is of no use. ``reason``: a short fixed word; nothing of the key is in it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class VerifyingKey:
    """One key, and the algorithms that it may be used for."""

    __slots__ = ("algorithms", "key", "kid")

    def __init__(self, key: Key, kid: str | None, algorithms: frozenset[str]) -> None:
        self.key = key
        self.kid = kid
        self.algorithms = algorithms


#: (what was signed, signature) → whether it is good.
Check = Callable[[bytes, bytes], bool]


class KeyRing:
    """Keys by (kid, algorithm), which settles type and curve as well."""

    __slots__ = ("_checks", "count")

    def __init__(self, keys: Iterable[VerifyingKey], algorithms: Iterable[str]) -> None:
        wanted = frozenset(algorithms)
        found: dict[tuple[str | None, str], list[Check]] = {}
        self.count = 0
        for key in keys:
            self.count += 1
            for name in key.algorithms & wanted:
                check = _check(ALGORITHMS[name], key.key)
                found.setdefault((key.kid, name), []).append(check)
                if key.kid is not None:
                    found.setdefault((_ANY, name), []).append(check)
        for name in wanted:  # a key without an id may be any that a token names
            nameless = found.get((None, name), [])
            found[_ANY, name] = [*nameless, *found.get((_ANY, name), [])]
        self._checks = {place: tuple(checks[:MAX_TRIED]) for place, checks in found.items()}

    def checks(self, token: Compact) -> tuple[Check, ...]:
        """How the signature of ``token`` may be checked; none: there is no such key."""
        if token.kid is None:
            return self._checks.get((_ANY, token.alg), ())
        return self._checks.get((token.kid, token.alg)) or self._checks.get((None, token.alg), ())


# Longer than any ``kid`` of a token or a set, so none is taken for it.
_ANY = "*" * (MAX_KID + 1)


def signed_by(token: Compact, checks: tuple[Check, ...]) -> bool:
    """Whether one of ``checks`` finds the signature good. No key raises: what it cannot read it has not signed."""
    for check in checks:
        try:
            if check(token.signed, token.signature):
                return True
        except Exception:  # noqa: S112  # a signature of a form that a library chokes on is a wrong one
            continue
    return False


def fetched_keys(
    members: Iterable[JSON], algorithms: frozenset[str], skipped: Callable[[str], object]
) -> list[VerifyingKey]:
    """The keys of a set that was fetched; ``skipped`` hears the reason of each that is not taken."""
    keys: list[VerifyingKey] = []
    for member in members:
        if len(keys) >= MAX_KEYS:
            skipped("too_many")
            break
        try:
            keys.append(public_key(member, algorithms))
        except BadKey as bad:
            skipped(bad.reason)
    return keys


def public_key(jwk: JSON, algorithms: frozenset[str]) -> VerifyingKey:
    """The public part of a JWK.

    :raises BadKey: there is none that may be used.
    """
    if not isinstance(jwk, dict):
        raise BadKey("malformed")
    kind = jwk.get("kty")
    if kind == "oct":
        raise BadKey("secret")
    if not isinstance(kind, str) or kind not in _PUBLIC:
        raise BadKey("type")
    use, operations = jwk.get("use"), jwk.get("key_ops")
    if use not in (None, "sig") or not (
        operations is None or (isinstance(operations, list) and "verify" in operations)
    ):
        raise BadKey("use")
    kid, alg = jwk.get("kid"), jwk.get("alg")
    if not (kid is None or (isinstance(kid, str) and len(kid) <= MAX_KID)) or not isinstance(alg, str | None):
        raise BadKey("malformed")
    public: dict[str, str | list[str]] = {"kty": kind}
    for name in _PUBLIC[kind]:
        value = jwk.get(name)
        if not isinstance(value, str):
            raise BadKey("malformed")
        public[name] = value
    if kind == "RSA":
        _check_modulus(str(public["n"]))
    try:
        key: Key = (
            RSAKey.import_key(public)
            if kind == "RSA"
            else ECKey.import_key(public)
            if kind == "EC"
            else OKPKey.import_key(public)
        )
    except Exception:  # whatever a library says of a point that is on no curve
        raise BadKey("malformed") from None
    return verifying(key, kid, alg, algorithms)


def secret_key(secret: bytes, algorithms: frozenset[str], kid: str | None = None) -> VerifyingKey:
    """A shared secret.

    :raises BadKey: it is too short for what is asked of it, or looks like a public key.
    """
    if any(marker in secret for marker in (b"-----BEGIN ", b"---- BEGIN ", b"ssh-", b"ecdsa-sha2-")):
        raise BadKey("public")
    if len(secret) < max(SECRET_BYTES.get(name, 32) for name in algorithms):
        raise BadKey("size")
    try:
        return verifying(OctKey.import_key(secret), kid, None, algorithms)
    except ValueError:
        raise BadKey("public") from None


def verifying(key: Key, kid: str | None, alg: str | None, algorithms: frozenset[str]) -> VerifyingKey:
    """``key`` for those of ``algorithms`` that fit it.

    :raises BadKey: none does.
    """
    if isinstance(key, RSAKey) and not MIN_RSA_BITS <= key.raw_value.key_size <= MAX_RSA_BITS:
        raise BadKey("size")
    fitting = frozenset(name for name in algorithms if _fits(key, ALGORITHMS[name]) and _means(alg, name, algorithms))
    if not fitting:
        raise BadKey("algorithm")
    return VerifyingKey(key, kid, fitting)


def _fits(key: Key, model: JWSAlgModel) -> bool:
    if key.key_type != model.key_type:
        return False
    if isinstance(key, ECKey | OKPKey):
        curve = getattr(model, "curve", None)  # joserfc's models of curves have one, "EdDSA" has none
        return key.curve_name in (("Ed25519", "Ed448") if curve is None else (curve,))
    return True


def _means(alg: str | None, name: str, algorithms: frozenset[str]) -> bool:
    """Whether a key for ``alg`` is one for ``name``: the two names of EdDSA are one where both are configured."""
    return alg in (None, name) or ({alg, name} <= _EDWARDS and algorithms >= _EDWARDS)


def _check(model: JWSAlgModel, key: Key) -> Check:
    verify = model.verify

    def check(signed: bytes, signature: bytes) -> bool:
        return verify(signed, signature, key)

    return check


def _check_modulus(modulus: str) -> None:
    # Before joserfc sees it, which warns of a short one on every import.
    try:
        bits = int.from_bytes(decoded(modulus), "big").bit_length()
    except (TokenRefused, ValueError):
        raise BadKey("malformed") from None
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise BadKey("size")
