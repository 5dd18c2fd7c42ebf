"""Whatever comes as a token: nothing but a refusal leaves, and nothing that was not signed gets in."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey

from streamware import IntrospectionVerifier, IssuerVerifier, JWTVerifier, Verifier
from streamware.auth.token import unverified_issuer
from tests.auth.doubles import Canned
from tests.auth.mint import AUDIENCE, EC, ED, ISSUER, OCT, OTHER_RSA, RSA, claims, encoded, header, outcome, token

KEYS = {"ES256": (EC, "ec"), "EdDSA": (ED, "ed"), "RS256": (RSA, "rsa")}
GOOD = {alg: token(header(alg, kid), key=key) for alg, (key, kid) in KEYS.items()}
STRANGER = ECKey.generate_key("P-256", {"kid": "ec"})
HMAC = token(header("HS256", "oct"), key=OCT)

VERIFIERS: list[Verifier] = [
    JWTVerifier(issuer=ISSUER, audience=AUDIENCE, key=[EC, ED, RSA], cache_ttl=0),
    JWTVerifier(
        issuer=ISSUER, audience=AUDIENCE, key=[EC, ED, RSA], profile="lenient", strict_header=False, max_header=8192,
        ignored_header=["x5c", "jku", "x5u"], cache_ttl=0,
    ),
    JWTVerifier(issuer=ISSUER, audience=AUDIENCE, key=OCT, algorithms=["HS256"], cache_ttl=0),
]  # fmt: skip
VERIFIERS.append(
    IssuerVerifier(
        [JWTVerifier(issuer=ISSUER, audience=AUDIENCE, key=[EC, ED, RSA], cache_ttl=0)],
        opaque=IntrospectionVerifier(
            endpoint="https://idp.example/i",
            client_id="c",
            client_secret="s",
            fetch=Canned({"active": False}),
            client_failures=None,
            total_failures=None,
        ),
    )
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = st.dictionaries(
    st.sampled_from(
        ["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5c", "zip", "enc", "cty", "nonce", "x5t#S256", "x"]
    ),
    JSON | st.sampled_from(["RS256", "ES256", "EdDSA", "HS256", "none", "ec", "ed", "at+jwt", ["b64"], False]),
    max_size=6,
)
CLAIMS = st.dictionaries(
    st.sampled_from(["iss", "aud", "exp", "sub", "iat", "nbf", "jti", "client_id", "azp", "scope", "scp", "x"]),
    JSON | st.sampled_from([ISSUER, AUDIENCE, [AUDIENCE], 4_000_000_000, "alice"]),
    max_size=12,
)

quick = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


async def refused(text: str) -> None:
    """By each verifier, and recalled by none."""
    for verifier in VERIFIERS:
        assert verifier.recall(text) is None
        why = await outcome(verifier, text, client="203.0.113.9")
        assert isinstance(why, str), "let in"
        assert why.replace("_", "").isalpha()
        assert why != "unexpected"


@given(st.text(max_size=300) | st.text(alphabet="aZ0-_.=+/ ey", max_size=300) | st.binary(max_size=200).map(repr))
@settings(quick, max_examples=200)
async def test_text_of_any_kind_is_refused(text: str) -> None:
    await refused(text)


@given(st.binary(max_size=120), st.binary(max_size=200), st.binary(max_size=80))
@settings(quick, max_examples=150)
async def test_bytes_of_any_kind_in_the_form_of_a_token_are_refused(head: bytes, body: bytes, tail: bytes) -> None:
    await refused(f"{encoded(head)}.{encoded(body)}.{encoded(tail)}")


@given(st.sampled_from([*GOOD.values(), HMAC]), st.data())
@settings(quick, max_examples=200)
async def test_a_good_token_with_one_change_is_refused(good: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(good) - 1))
    change = data.draw(st.sampled_from(["replace", "insert", "delete", "cut", "swap", "double"]))
    letter = data.draw(st.sampled_from("Aa0-_.=é\n\0"))
    other = data.draw(st.integers(0, len(good) - 1))
    changed = {
        "replace": good[:place] + letter + good[place + 1 :],
        "insert": good[:place] + letter + good[place:],
        "delete": good[:place] + good[place + 1 :],
        "cut": good[:place],
        "swap": "".join(good[{place: other, other: place}.get(number, number)] for number in range(len(good))),
        "double": good[:place] + good[other:] + good[place:],
    }[change]
    if changed != good:
        await refused(changed)


@given(st.permutations([*GOOD.values(), HMAC]))
@settings(quick, max_examples=30)
async def test_parts_of_good_tokens_make_no_other_one(order: list[str]) -> None:
    parts = [text.split(".") for text in order]
    for head, body, tail in ((0, 1, 2), (0, 0, 1), (0, 1, 0), (0, 1, 1)):
        await refused(f"{parts[head][0]}.{parts[body][1]}.{parts[tail][2]}")


@given(MEMBERS, CLAIMS)
@settings(quick, max_examples=200)
async def test_headers_and_claims_of_any_kind_that_a_stranger_signed_are_refused(
    members: dict[str, Any], said: dict[str, Any]
) -> None:
    await refused(token({**header("ES256", "ec"), **members}, {**claims(), **said}, STRANGER, alg="ES256"))
    await refused(token(members, said, STRANGER, alg="ES256"))


@given(MEMBERS, CLAIMS)
@settings(quick, max_examples=200)
async def test_of_what_the_issuer_itself_signs_only_what_keeps_the_rules_gets_in(
    members: dict[str, Any], said: dict[str, Any]
) -> None:
    text = token({**header("ES256", "ec"), **members}, {**claims(), **said}, EC, alg="ES256")
    for verifier in VERIFIERS[:2]:
        principal = await outcome(verifier, text)
        if isinstance(principal, str):
            assert principal != "unexpected"
            continue
        assert principal.issuer == ISSUER
        assert principal.subject.encode()
        assert principal.expires_at is not None
        assert principal.expires_at < 10**11
        assert all(isinstance(scope, str) for scope in principal.scopes)
        assert not {"crit", "b64", "jwk", "zip"} & members.keys()


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(quick, max_examples=200)
async def test_what_a_token_says_of_its_issuer_is_read_without_an_exception(body: bytes) -> None:
    issuer = unverified_issuer(f"{encoded(b'{}')}.{encoded(body)}.")

    assert issuer is None or isinstance(issuer, str)


@given(st.integers(0, 2**64), JSON, st.sampled_from(["keys", "members", "document"]))
@settings(quick, max_examples=200)
async def test_key_sets_of_any_kind_fail_nothing_and_let_nobody_in(seed: int, value: Any, where: str) -> None:
    chosen = random.Random(seed)
    good = chosen.choice([EC, ED, OTHER_RSA]).as_dict(private=False)
    broken = {**good, chosen.choice(list(good)): value}
    document = {"keys": {"keys": value}, "members": {"keys": [value, broken]}, "document": value}[where]
    fetch = Canned(json.loads(json.dumps(document)) if isinstance(document, dict) else {"keys": document})
    verifier = JWTVerifier(issuer=ISSUER, audience=AUDIENCE, jwks="https://idp.example/jwks", fetch=fetch)

    for text in (GOOD["RS256"], token(header("HS256", "oct"), key=OCT)):
        why = await outcome(verifier, text)
        assert isinstance(why, str), "let in"
        assert why != "unexpected"
