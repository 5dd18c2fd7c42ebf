"""Every attack on JWTs that is known to work somewhere, row by row of the table that they were collected in.

An attack that needs a good signature has one: what is tested is that the signature does not save it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from joserfc import jwe
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from streamware import ConfigurationError, CountingObserver, JWTVerifier, TokenRefused
from tests.auth.doubles import Canned
from tests.auth.mint import (
    AUDIENCE,
    EC,
    ED,
    ISSUER,
    MODELS,
    OCT,
    OTHER_RSA,
    RSA,
    SECRET,
    claims,
    encoded,
    header,
    public,
    reason,
    short_rsa,
    token,
    verifier,
)

URL = "https://idp.example/jwks"


def fetching(*documents: dict[str, Any], **options: Any) -> JWTVerifier:
    """A verifier whose key set comes from the web."""
    return verifier(jwks=URL, fetch=Canned(*documents), **options)


async def test_an_honest_token_passes() -> None:
    principal = await verifier().verify(token())

    assert (principal.issuer, principal.subject, principal.client_id) == (ISSUER, "alice", "app")
    assert principal.scopes == {"read", "write"}


# -- alg


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "NONE", ""])
async def test_alg_none_in_any_spelling_is_refused(alg: str) -> None:
    unsigned = f"{encoded(json.dumps(header(alg)).encode())}.{encoded(json.dumps(claims()).encode())}."

    assert await reason(verifier(), unsigned) == "algorithm"
    assert await reason(verifier(), token(header(alg), alg="RS256")) == "algorithm"


@pytest.mark.parametrize("algorithms", [["none"], ["RS256", "none"], ["None"], ["RS257"]])
def test_the_algorithm_none_cannot_be_configured(algorithms: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="algorithms"):
        verifier(algorithms=algorithms)


@pytest.mark.parametrize("algorithms", [[], None, "", [""]])
def test_an_empty_list_of_algorithms_is_an_error_and_no_default(algorithms: object) -> None:
    with pytest.raises(ConfigurationError, match="algorithms"):
        verifier(algorithms=algorithms)


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
async def test_a_public_key_is_never_taken_for_a_secret(alg: str) -> None:
    """HS/RS confusion: the token is signed by HMAC with the bytes of the public key."""
    pem = RSA.as_pem(private=False)
    forged = OctKey(pem, pem)  # joserfc itself refuses to import it

    assert await reason(verifier(), token(header(alg), key=forged)) == "algorithm"
    for given in (pem, pem.decode(), RSA.as_dict(private=False), RSA):
        with pytest.raises(ConfigurationError, match="key"):
            verifier(key=given, algorithms=[alg])


def test_symmetric_and_asymmetric_algorithms_are_never_mixed() -> None:
    with pytest.raises(ConfigurationError, match="HMAC only"):
        verifier(algorithms=["RS256", "HS256"])
    with pytest.raises(ConfigurationError, match="a key is"):
        verifier(key=OCT)  # the default is asymmetric
    with pytest.raises(ConfigurationError, match="the secret"):
        verifier(jwks=URL, algorithms=["HS256"])


# -- keys


async def test_an_oct_key_in_a_remote_jwks_verifies_nothing() -> None:
    observer = CountingObserver()
    documents = {"keys": [OCT.as_dict(private=True), *public(RSA)["keys"]]}
    verifying = fetching(documents, observer=observer)

    await verifying.verify(token())
    assert await reason(verifying, token(header("HS256", "oct"), key=OCT)) == "algorithm"
    assert observer.counts["auth.key_skipped", "secret"] == 1


async def test_of_a_private_key_in_a_remote_jwks_only_the_public_part_is_read() -> None:
    verifying = fetching({"keys": [RSA.as_dict(private=True)]})

    await verifying.verify(token())
    keys = verifying._keys._ring._checks.values()  # type: ignore[attr-defined]  # what it holds, not what it does
    held = [cell.cell_contents for checks in keys for check in checks for cell in check.__closure__]
    assert all(not key.is_private for key in held if isinstance(key, RSAKey))
    assert any(isinstance(key, RSAKey) for key in held)


@pytest.mark.parametrize("kid", ["../../dev/null", "' OR 1=1 --", "rsa\0", "rsa\n", "", "RSA", "rsa ", "k" * 257, "é"])
async def test_a_kid_is_a_key_of_a_dict_and_nothing_else(kid: str) -> None:
    verifying = verifier(key=RSA.as_dict(private=False))

    assert await reason(verifying, token(header(kid=kid))) in ("key", "header")


@pytest.mark.parametrize("kid", [5, 1.5, True, ["rsa"], {"rsa": 1}])
async def test_a_kid_of_another_type_is_refused(kid: object) -> None:
    assert await reason(verifier(), token(header(kid=kid))) == "header"  # type: ignore[arg-type]  # that is the point


async def test_without_a_kid_every_key_that_fits_is_tried() -> None:
    verifying = verifier(jwks=public(EC, OTHER_RSA, RSA))

    await verifying.verify(token(header(kid=None)))
    await verifying.verify(token(header("ES256", None), key=EC))


async def test_without_a_kid_at_most_eight_keys_are_tried() -> None:
    others = [ECKey.generate_key("P-256", {"kid": f"other-{number}"}) for number in range(8)]
    text = token(header("ES256", None), key=EC)

    await verifier(jwks=public(*others[:7], EC)).verify(text)
    assert await reason(verifier(jwks=public(*others, EC)), text) == "signature"


async def test_two_keys_with_the_same_kid_are_both_tried() -> None:
    """In a rotation, or where an RSA and an EC key share it."""
    first, second = OTHER_RSA.as_dict(private=False, kid="k"), RSA.as_dict(private=False, kid="k")
    verifying = verifier(jwks={"keys": [first, EC.as_dict(private=False, kid="k"), second]})

    await verifying.verify(token(header(kid="k")))
    await verifying.verify(token(header(kid="k"), key=OTHER_RSA))
    await verifying.verify(token(header("ES256", "k"), key=EC))


# -- header members


async def test_an_embedded_jwk_is_refused_whoever_signed() -> None:
    attacker = ECKey.generate_key("P-256")
    forged = token(header("ES256", None, jwk=attacker.as_dict(private=False)), key=attacker)

    assert await reason(verifier(max_header=4096), forged) == "header"
    assert await reason(verifier(max_header=4096), token(header(jwk=RSA.as_dict(private=False)))) == "header"
    assert await reason(verifier(strict_header=False), token(header(jwk={}))) == "header"


@pytest.mark.parametrize("member", [{"jku": URL}, {"x5u": URL}, {"x5c": ["MIIB"]}])
async def test_jku_x5u_and_x5c_are_refused_unless_they_are_to_be_ignored(member: dict[str, Any]) -> None:
    text = token(header(**member))

    assert await reason(verifier(), text) == "header"
    assert await reason(verifier(strict_header=False), text) == "header"
    await verifier(ignored_header=list(member)).verify(text)  # and nothing was fetched: there is nothing to fetch with


async def test_an_unknown_header_member_is_refused_unless_headers_are_not_strict() -> None:
    text = token(header(cat="cl_B7d4PD111AAA"))

    assert await reason(verifier(), text) == "header"
    await verifier(strict_header=False).verify(text)


async def test_a_token_of_microsoft_graph_gets_a_reason_of_its_own() -> None:
    """Its signature is over another nonce than the one in its header: nobody else can verify it."""
    good = token(header(nonce="n"))
    bad = token(header(nonce="n"), key=OTHER_RSA)

    assert await reason(verifier(), good) == "nonce"
    assert await reason(verifier(strict_header=False), bad) == "nonce"


@pytest.mark.parametrize("crit", [["exp"], ["http://x.example/unknown"], "exp", 5, {"exp": True}])
async def test_crit_of_what_is_unknown_or_absent_or_no_list_is_refused(crit: object) -> None:
    assert await reason(verifier(strict_header=False), token(header(crit=crit))) == "header"


@pytest.mark.parametrize("crit", [[], ["alg"], ["b64"]])
async def test_crit_that_is_empty_or_names_a_standard_member_is_refused(crit: list[str]) -> None:
    assert await reason(verifier(strict_header=False), token(header(crit=crit))) == "header"


async def test_b64_false_without_crit_is_refused() -> None:
    assert await reason(verifier(strict_header=False), token(header(b64=False))) == "header"
    assert await reason(verifier(strict_header=False), token(header(b64=True))) == "header"


async def test_b64_false_with_crit_is_refused_in_a_jwt() -> None:
    """RFC 7797 says that it is not for JWTs; joserfc would take the raw payload for one."""
    head = encoded(json.dumps(header(b64=False, crit=["b64"])).encode())
    body = json.dumps(claims(iss="https:idp")).replace(".", "")
    signature = encoded(MODELS["RS256"].sign(f"{head}.{body}".encode(), RSA))

    assert await reason(verifier(), f"{head}.{body}.{signature}") == "malformed"
    assert await reason(verifier(), token(header(b64=False, crit=["b64"]))) == "header"


async def test_zip_and_encryption_and_nesting_are_refused() -> None:
    encrypted = jwe.encrypt_compact(
        {"alg": "dir", "enc": "A256GCM", "zip": "DEF"}, b"0" * 100_000, OctKey.import_key(SECRET)
    )
    nested = token(header(cty="JWT"), token().encode())

    assert await reason(verifier(strict_header=False), token(header(zip="DEF"))) == "header"
    assert await reason(verifier(), encrypted) == "encrypted"
    assert await reason(verifier(), nested) == "claims"


# -- form


async def test_a_token_over_eight_kibibytes_is_refused_before_it_is_decoded() -> None:
    text = token(body=claims(filler="x" * 8192))

    assert len(text) > 8192
    assert await reason(verifier(), text) == "size"
    assert await reason(verifier(), "a" * 10_000_000) == "size"
    longest = token(body=claims(filler="x" * 5500))
    assert 7500 < len(longest) <= 8192
    await verifier().verify(longest)


async def test_a_header_over_its_cap_is_refused_and_the_cap_can_be_set() -> None:
    text = token(header(x5c=["M" * 2000]))

    assert await reason(verifier(ignored_header=["x5c"]), text) == "header_size"
    await verifier(ignored_header=["x5c"], max_header=4096).verify(text)


async def test_a_member_that_comes_twice_is_refused_in_header_and_payload() -> None:
    twice = b'{"alg":"none","alg":"RS256","kid":"rsa","typ":"at+jwt"}'
    body = json.dumps(claims()).encode()

    assert await reason(verifier(), token(twice)) == "header"
    assert await reason(verifier(), token(body=body[:-1] + b',"sub":"admin"}')) == "claims"
    assert await reason(verifier(), token(body=body[:-1] + b',"deep":[{"a":1,"a":2}]}')) == "claims"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("depth", [25, 1200])
async def test_deep_nesting_in_a_signed_payload_is_refused(opening: str, closing: str, depth: int) -> None:
    if depth * len(opening + closing) > 5600:
        depth = 5600 // len(opening + closing)
    body = json.dumps(claims(deep="?")).replace('"?"', opening * depth + "1" + closing * depth)

    assert await reason(verifier(), token(body=body.encode())) == "claims"
    shallow = json.dumps(claims(deep="?")).replace('"?"', opening * 10 + "1" + closing * 10)
    await verifier().verify(token(body=shallow.encode()))


async def test_deep_nesting_in_a_header_is_refused() -> None:
    head = b'{"alg":"RS256","kid":"rsa","x5c":' + b"[" * 20_000

    assert await reason(verifier(), token(head)) in ("size", "header_size", "header")
    assert await reason(verifier(max_header=8192), token(b"[" * 5000)) == "header"


@pytest.mark.parametrize("head", [b'"alg"', b'["alg"]', b"null", b"5", b"true", b"", b"{", b"\xff\xfe{", b"{}"])
async def test_a_header_that_is_no_object_is_refused_and_fails_nothing(head: bytes) -> None:
    """joserfc lets a TypeError out for the first two: a 500 that needs no key."""
    assert await reason(verifier(), token(head)) in ("header", "malformed", "algorithm")


async def test_text_that_is_no_ascii_is_refused() -> None:
    good = token()

    for text in (good + "\ud800", "\udfff" + good, good.replace("e", "é", 1), "٠.١.٢", "ａ.ｂ.ｃ"):
        assert await reason(verifier(), text) == "malformed"
        assert verifier().recall(text) is None


async def test_a_lone_surrogate_in_a_claim_is_refused() -> None:
    """It would fail whoever encodes the subject later."""
    body = json.dumps(claims(sub="?")).replace("?", "\\ud800")

    assert await reason(verifier(), token(body=body.encode())) == "claims"
    await verifier().verify(token(body=claims(sub="\U0001f600")))


async def test_a_token_has_one_spelling() -> None:
    """Padding, white space, and last characters whose spare bits are set."""
    good = token(header("ES256", "ec"), key=EC)
    verifying = verifier(key=EC)
    head, body, signature = good.split(".")
    await verifying.verify(good)
    twin = signature[:-1] + {"A": "B", "Q": "R", "g": "h", "w": "x"}[signature[-1]]

    for text in (
        *(f"{good}\n", f" {good}", f"{good} ", f"{good}=", f"{good}.", f".{good}", f"{head}=.{body}.{signature}"),
        *(f"{head}.{body}.{twin}", f"{head}.{body}", f"{head}..{signature}", f"{head}.{body}\n.{signature}"),
        f"{head}.{body}.{signature}".replace("-", "+").replace("_", "/") + "+",
    ):
        assert await reason(verifying, text) in ("malformed", "signature", "encrypted")


# -- claims


@pytest.mark.parametrize(
    "exp", ["NaN", "Infinity", "-Infinity", "true", '"2000000000"', "1e400", "9" * 4000, "9" * 19, "[]", "{}", "1e999"]
)
async def test_an_exp_that_is_no_sane_number_is_refused(exp: str) -> None:
    body = json.dumps(claims(exp="?")).replace('"?"', exp)

    assert await reason(verifier(), token(body=body.encode())) in ("claims", "missing_claim")


async def test_a_huge_exp_is_clamped_so_that_timers_can_be_set_by_it() -> None:
    principal = await verifier().verify(token(body=claims(exp=10**17)))
    floating = await verifier().verify(token(body=claims(exp=1e200)))

    for each in (principal, floating):
        assert each.expires_at is not None
        assert each.expires_at < 10**10


@pytest.mark.parametrize("claim", ["iss", "aud", "exp"])
@pytest.mark.parametrize("profile", ["strict", "lenient"])
@pytest.mark.parametrize("value", ["absent", "null", "empty"])
async def test_exp_iss_and_aud_are_always_essential(claim: str, profile: str, value: str) -> None:
    body = claims(**{claim: None})
    if value != "absent":
        body[claim] = None if value == "null" else ""

    assert await reason(verifier(profile=profile), token(body=body)) == "missing_claim"


@pytest.mark.parametrize("aud", ["https://other.example", ["https://other.example"], [AUDIENCE, 5], {AUDIENCE: 1}, 5])
async def test_an_audience_that_is_another_is_refused(aud: object) -> None:
    assert await reason(verifier(), token(body=claims(aud=aud))) == "audience"


@pytest.mark.parametrize("iss", [f"{ISSUER}/", "HTTPS://idp.example", "https://idp.example.evil.example", [ISSUER]])
async def test_an_issuer_that_is_another_is_refused(iss: object) -> None:
    assert await reason(verifier(), token(body=claims(iss=iss))) in ("issuer", "claims")


# -- sizes of keys


@pytest.mark.parametrize("size", [0, 4, 31])
def test_a_short_secret_is_an_error(size: int) -> None:
    with pytest.raises(ConfigurationError, match="too short"):
        verifier(key=b"s" * size, algorithms=["HS256"])


@pytest.mark.parametrize(("alg", "size"), [("HS384", 47), ("HS512", 63)])
def test_a_secret_is_as_long_as_its_hash(alg: str, size: int) -> None:
    with pytest.raises(ConfigurationError, match="too short"):
        verifier(key=b"s" * size, algorithms=[alg])
    verifier(key=b"s" * (size + 1), algorithms=[alg])


async def test_a_short_rsa_key_is_an_error_and_skipped_in_a_remote_jwks() -> None:
    short, observer = short_rsa(), CountingObserver()
    text = token(header(kid="short"), key=short)

    for given in (short.as_dict(private=False), short.as_pem(private=False), short):
        with pytest.raises(ConfigurationError, match="too short"):
            verifier(key=given)
    verifying = fetching(public(short, RSA), observer=observer)
    assert await reason(verifying, text) == "key"
    await verifying.verify(token())
    assert observer.counts["auth.key_skipped", "size"] >= 1


async def test_one_bad_key_in_a_remote_jwks_costs_that_key_and_not_the_set() -> None:
    good, observer = EC.as_dict(private=False), CountingObserver()
    bad: list[Any] = [
        {**good, "x": "AAAA"},
        {**good, "crv": "P-999"},
        {"kty": "EC", "kid": "none"},
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"},
        {**good, "use": "enc"},
        {**good, "key_ops": ["sign"]},
        {**good, "kid": 5},
        {**RSA.as_dict(private=False), "e": "AQ"},
        *(None, 5, "key", [], {}),
    ]
    verifying = fetching({"keys": [*bad, good, *public(RSA)["keys"]]}, observer=observer)

    await verifying.verify(token(header("ES256", "ec"), key=EC))
    await verifying.verify(token())
    assert observer.total("auth.key_skipped") == len(bad)


# -- EdDSA and Ed25519 (RFC 9864)


@pytest.mark.parametrize(("of_key", "of_token"), [("EdDSA", "Ed25519"), ("Ed25519", "EdDSA")])
async def test_eddsa_and_ed25519_are_one_only_where_both_are_configured(of_key: str, of_token: str) -> None:
    document = {"keys": [ED.as_dict(private=False, alg=of_key)]}
    text = token(header(of_token, "ed"), key=ED)

    await verifier(jwks=document, algorithms=["EdDSA", "Ed25519"]).verify(text)
    assert await reason(verifier(jwks=document, algorithms=[of_key]), text) == "algorithm"
    with pytest.raises(ConfigurationError, match="none of the algorithms"):
        verifier(jwks=document, algorithms=[of_token])


async def test_a_key_for_agreement_is_no_key_for_signatures() -> None:
    exchange = OKPKey.generate_key("X25519", {"kid": "ed"})
    verifying = fetching(public(exchange))

    assert await reason(verifying, token(header("EdDSA", "ed"), key=ED)) == "key"


# -- and whatever else a library may raise


async def test_an_exception_that_nobody_expects_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    observer = CountingObserver()
    verifying = verifier(observer=observer)

    def fail(*_: object) -> None:
        raise MemoryError("of which a token could be part")

    monkeypatch.setattr(verifying._rules.__class__, "verified", fail)
    assert await reason(verifying, token()) == "unexpected"
    assert observer.counts["auth.unexpected", "MemoryError"] == 1


async def test_a_refusal_says_nothing_of_the_token() -> None:
    with pytest.raises(TokenRefused) as refused:
        await verifier().verify(token(header(kid="nobody-knows-this-one")))
    assert str(refused.value) == "key"
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
