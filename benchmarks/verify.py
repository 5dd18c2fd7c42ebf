"""CPU per verification of a JWT, beside joserfc alone; and of one that was verified before.

joserfc decodes with a key set that is imported once, and checks the same claims. Both are called from a coroutine in
this process, in turn, in batches. ``JWTVerifier`` remembers nothing here, but for ``recall``, which is what a cached
token costs in all: its hash, the look-up, and a principal of its own.
"""

from __future__ import annotations

import secrets
import time
import warnings
from collections.abc import Awaitable, Callable

from joserfc import jws, jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, KeySet, OctKey, OKPKey, RSAKey

from streamware import JWTVerifier

from .measure import OURS, Figure, Settings

TITLE = "Verification of tokens"
PEER = "joserfc"
ISSUER, AUDIENCE = "https://idp.example", "https://api.example"
#: What the ratio to joserfc is to be at most.
TARGETS = {"HS256": 1.3, "RS256": 1.15, "ES256": 1.15, "EdDSA": 1.15}
RECALLED = 3.0


def key_for(alg: str) -> Key:
    kid = {"kid": "2026-11-key-1"}
    if alg == "HS256":
        return OctKey.generate_key(256, kid)
    if alg == "RS256":
        return RSAKey.generate_key(2048, kid)
    return ECKey.generate_key("P-256", kid) if alg == "ES256" else OKPKey.generate_key("Ed25519", kid)


def token_of(alg: str, key: Key) -> str:
    """A token as an issuer makes it: 420 to 720 characters."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "user-1234567890",
        "client_id": "client-1",
        "iat": now,
        "exp": now + 36_000,
        "jti": secrets.token_hex(16),
        "scope": "read write openid",
        "email": "somebody@example.com",
    }
    header = {"alg": alg, "kid": key.kid, "typ": "at+jwt"}
    return jwt.encode(header, claims, key, algorithms=[alg])


def joserfc_alone(alg: str, key: Key, token: str) -> Callable[[], Awaitable[object]]:
    keys = KeySet([type(key).import_key(key.as_dict(private=alg == "HS256"))])
    registry = jws.JWSRegistry(algorithms=[alg])
    essential = {name: {"essential": True} for name in ("exp", "sub", "iat", "jti", "client_id")}
    claims = jwt.JWTClaimsRegistry(
        leeway=10,
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": AUDIENCE},
        **essential,  # type: ignore[arg-type]  # its options are TypedDicts
    )

    async def verify() -> object:
        decoded = jwt.decode(token, keys, registry=registry)
        claims.validate(decoded.claims)
        return decoded

    return verify


def ours(alg: str, key: Key, token: str) -> Callable[[], Awaitable[object]]:
    verifier = JWTVerifier(issuer=ISSUER, audience=AUDIENCE, key=key, algorithms=[alg], cache_ttl=0)

    async def verify() -> object:
        return await verifier.verify(token)

    return verify


async def cpu(verify: Callable[[], Awaitable[object]], count: int) -> float:
    """Microseconds for each."""
    before = time.process_time()
    for _ in range(count):
        await verify()
    return (time.process_time() - before) / count * 1e6


async def run(settings: Settings) -> list[Figure]:
    count, rounds = settings.pick(2_000, 300), settings.rounds_of(15)
    figures: list[Figure] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # joserfc's, at each use of EdDSA
        for alg, target in TARGETS.items():
            key = key_for(alg)
            token = token_of(alg, key)
            variants = {PEER: joserfc_alone(alg, key, token), OURS: ours(alg, key, token)}
            figure = Figure(f"{alg}, {len(token)} characters", "µs", base=PEER, targets={OURS: target})
            figure.values = {variant: [] for variant in variants}
            for number in range(rounds + 1):
                for variant in variants if number % 2 else reversed(variants):
                    taken = await cpu(variants[variant], count)
                    if number:  # the first round only warms up
                        figure.values[variant].append(taken)
            figures.append(figure)
        figures.append(await recalled(count * 10, rounds))
    return figures


async def recalled(count: int, rounds: int) -> Figure:
    key = key_for("RS256")
    token = token_of("RS256", key)
    verifier = JWTVerifier(issuer=ISSUER, audience=AUDIENCE, key=key)
    await verifier.verify(token)
    figure = Figure(f"recalled, {len(token)} characters", "µs", base=PEER, bounds={OURS: RECALLED})
    figure.values = {OURS: []}
    for _ in range(rounds):
        before = time.process_time()
        for _ in range(count):
            verifier.recall(token)
        figure.values[OURS].append((time.process_time() - before) / count * 1e6)
    return figure
