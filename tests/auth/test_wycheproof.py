"""Signatures that were made to be misjudged: vectors of Project Wycheproof (C2SP/wycheproof, Apache-2.0).

``vectors/wycheproof_jws.json`` holds a part of ``testvectors_v1/json_web_signature_test.json`` at commit dac1dd47: of
the long series of bent RSA paddings a few of each kind, of all others everything. Its tests are of signatures, not of
JWTs: most payloads are no claims. So what is tried here is the parser and the keys, which is where signatures are
decided.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamware import TokenRefused
from streamware.auth.keys import BadKey, KeyRing, public_key, secret_key, signed_by
from streamware.auth.token import TokenParser, decoded

GROUPS = json.loads((Path(__file__).parent / "vectors" / "wycheproof_jws.json").read_text())
#: What the vectors call otherwise. None of these is a forgery.
ODD = {
    346: "the key says PS256, the token PS384: a key is for what it says",
    367: "called invalid, but byte for byte the valid 357",
    370: "called invalid, but byte for byte the valid 357",
    372: "called valid with a '?' in the header: a token has one spelling",
    373: "called valid with a '?' in the payload: a token has one spelling",
    259: "an empty payload, which is no JWT",
    272: "an empty payload, which is no JWT",
}
CASES = [
    pytest.param(group["key"], text, (result == "valid") is not (number in ODD), id=f"{number}-{comment}")
    for group in GROUPS
    for number, comment, result, text in group["tests"]
]


def accepts(jwk: dict[str, Any], text: str) -> bool:
    alg = jwk.get("alg", {"RSA": "RS256", "EC": "ES256"}.get(jwk["kty"]))
    alg = {"ES521": "ES512"}.get(alg, alg)  # a slip of the pen in RFC 7520's keys
    allowed = frozenset({str(alg)})
    jwk = {**jwk, "alg": alg}
    try:
        key = secret_key(decoded(jwk["k"]), allowed, jwk["kid"]) if jwk["kty"] == "oct" else public_key(jwk, allowed)
        token = TokenParser(allowed, strict=False, max_header=8192).parse(text)
    except (BadKey, TokenRefused):
        return False
    return signed_by(token, KeyRing([key], allowed).checks(token))


@pytest.mark.parametrize(("key", "text", "good"), CASES)
def test_a_signature_is_judged_as_its_vector_says(key: dict[str, Any], text: str, good: bool) -> None:
    assert accepts(key, text) is good


def test_the_vectors_are_there_and_of_both_kinds() -> None:
    results = [result for group in GROUPS for _, _, result, _ in group["tests"]]

    assert len(results) > 100
    assert results.count("valid") > 10
