"""``JWTVerifier`` apart from attacks: profiles, claims, keys that are given, what it remembers, revocation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trustme

from streamware import ConfigurationError, JWTVerifier, Principal, VerifierUnavailable
from streamware.testing import FakeClock
from tests.auth.mint import (
    AUDIENCE,
    EC,
    ED,
    ISSUER,
    OCT,
    OTHER_RSA,
    RSA,
    SECRET,
    claims,
    header,
    public,
    reason,
    token,
    verifier,
)


class Wall:
    """The seconds since 1970, in a test's hands."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def claims(self, **changed: Any) -> dict[str, Any]:
        now = int(self.now)
        return claims(**{"iat": now, "exp": now + 600, **changed})


# -- profiles


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "AT+JWT"])
async def test_strict_wants_the_type_of_rfc_9068(typ: str) -> None:
    await verifier().verify(token(header(typ=typ)))


@pytest.mark.parametrize("typ", [None, "JWT", "id_token+jwt", "dpop+jwt", "", "logout+jwt"])
async def test_strict_refuses_other_types(typ: str | None) -> None:
    assert await reason(verifier(), token(header(typ=typ))) == "type"


@pytest.mark.parametrize("typ", [5, ["at+jwt"], {}, True])
async def test_a_type_that_is_no_text_is_refused(typ: object) -> None:
    for profile in ("strict", "lenient"):
        assert await reason(verifier(profile=profile), token(header(typ=typ))) == "type"


@pytest.mark.parametrize("claim", ["sub", "iat", "jti", "client_id"])
async def test_strict_wants_the_claims_of_rfc_9068(claim: str) -> None:
    text = token(body=claims(**{claim: None}))

    assert await reason(verifier(), text) == "missing_claim"
    await verifier(profile="lenient").verify(text)


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "at+jwt"])
async def test_lenient_takes_what_most_issuers_send(typ: str | None) -> None:
    await verifier(profile="lenient").verify(token(header(typ=typ)))


@pytest.mark.parametrize("typ", ["dpop+jwt", "logout+jwt", "secevent+jwt", ""])
async def test_lenient_refuses_tokens_that_are_for_something_else(typ: str) -> None:
    assert await reason(verifier(profile="lenient"), token(header(typ=typ))) == "type"


async def test_claims_may_be_required_besides() -> None:
    verifying = verifier(required=["tenant"])

    assert await reason(verifying, token()) == "missing_claim"
    principal = await verifying.verify(token(body=claims(tenant="t1")))
    assert principal.claims["tenant"] == "t1"


# -- claims


async def test_time_is_told_with_leeway() -> None:
    wall = Wall()
    verifying = verifier(wall=wall, leeway=10)
    now = int(wall.now)

    for good in ({"exp": now - 9}, {"iat": now + 10}, {"nbf": now + 10}, {"exp": now + 0.5}):
        await verifying.verify(token(body=wall.claims(**good)))
    assert await reason(verifying, token(body=wall.claims(exp=now - 10))) == "expired"
    assert await reason(verifying, token(body=wall.claims(exp=-5))) == "expired"
    assert await reason(verifying, token(body=wall.claims(iat=now + 11))) == "not_yet_valid"
    assert await reason(verifying, token(body=wall.claims(nbf=now + 11))) == "not_yet_valid"
    assert await reason(verifying, token(body=wall.claims(nbf="soon"))) == "claims"


@pytest.mark.parametrize(
    ("said", "scopes"),
    [
        ({"scope": "read write"}, {"read", "write"}),
        ({"scope": ""}, set()),
        ({"scope": ["read", "write"]}, {"read", "write"}),
        ({"scope": None, "scp": "read  write"}, {"read", "write"}),
        ({"scope": None, "scp": ["read"]}, {"read"}),
        ({"scope": None}, set()),
        ({"scope": "read", "scp": "admin"}, {"read"}),
    ],
)
async def test_scopes_are_read_from_the_forms_that_issuers_use(said: dict[str, Any], scopes: set[str]) -> None:
    principal = await verifier().verify(token(body=claims(**said)))

    assert principal.scopes == scopes


@pytest.mark.parametrize("scope", [5, True, {"read": 1}, ["read", 5], [["read"]]])
async def test_scopes_of_another_type_are_refused(scope: object) -> None:
    assert await reason(verifier(), token(body=claims(scope=scope))) == "claims"


@pytest.mark.parametrize("said", [{"sub": 5}, {"client_id": ["app"]}, {"sub": {"a": 1}}, {"azp": 5, "client_id": ""}])
async def test_claims_of_another_type_are_refused(said: dict[str, Any]) -> None:
    assert await reason(verifier(profile="lenient"), token(body=claims(**said))) == "claims"


async def test_an_audience_may_be_one_of_several_on_either_side() -> None:
    await verifier(audience=["a", AUDIENCE]).verify(token())
    await verifier().verify(token(body=claims(aud=["x", AUDIENCE])))


async def test_tokens_that_name_nobody_are_never_one_users() -> None:
    verifying = verifier(profile="lenient")
    nobody = {"sub": None, "client_id": None}

    one = await verifying.verify(token(body=claims(**nobody)))
    other = await verifying.verify(token(body=claims(**nobody)))

    assert one.subject
    assert one.subject != other.subject
    assert (await verifying.verify(token(body=claims(sub=None)))).subject == "app"


async def test_the_claims_of_a_principal_cannot_be_changed() -> None:
    principal = await verifier().verify(token())

    with pytest.raises(TypeError):
        principal.claims["sub"] = "admin"  # type: ignore[index]  # that is the point


# -- keys that are given


@pytest.mark.parametrize(
    "form", ["pem", "private pem", "text", "jwk", "joserfc", "list", "set", "set file", "pem file"]
)
async def test_a_key_may_be_given_in_each_form(form: str, tmp_path: Path) -> None:
    (tmp_path / "set.json").write_text(json.dumps(public(OTHER_RSA, RSA)))
    (tmp_path / "key.pem").write_bytes(RSA.as_pem(private=False))
    given: dict[str, Any] = {
        "pem": {"key": RSA.as_pem(private=False)},
        "private pem": {"key": RSA.as_pem(private=True)},
        "text": {"key": RSA.as_pem(private=False).decode()},
        "jwk": {"key": RSA.as_dict(private=False)},
        "joserfc": {"key": RSA},
        "list": {"key": [EC, OTHER_RSA, RSA.as_pem(private=False)]},
        "set": {"jwks": public(EC, RSA)},
        "set file": {"jwks": tmp_path / "set.json"},
        "pem file": {"key": tmp_path / "key.pem"},
    }[form]

    await verifier(**given).verify(token())


@pytest.mark.parametrize(("key", "alg"), [(EC, "ES256"), (ED, "EdDSA"), (ED, "Ed25519"), (RSA, "PS256")])
async def test_the_default_algorithms_are_those_of_today(key: Any, alg: str) -> None:
    given = key.as_pem(private=False)

    await verifier(key=given).verify(token(header(alg), key=key))


async def test_a_certificate_is_a_key(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("idp.example")

    verifier(key=certificate.cert_chain_pems[0].bytes())


@pytest.mark.parametrize("alg", ["HS256"])
async def test_a_secret_verifies_what_it_signed(alg: str, tmp_path: Path) -> None:
    text = token(header(alg, "oct"), key=OCT)
    (tmp_path / "secret").write_bytes(b"x" * 40 + b"\n")
    verifying = verifier(key=SECRET, algorithms=[alg])

    await verifying.verify(text)
    await verifier(key=OCT, algorithms=[alg]).verify(text)
    await verifier(jwks={"keys": [OCT.as_dict(private=True)]}, algorithms=[alg]).verify(text)
    assert await reason(verifier(key=b"y" * 32, algorithms=[alg]), text) == "signature"
    assert await reason(verifier(key=tmp_path / "secret", algorithms=[alg]), text) == "signature"
    assert await reason(verifying, token()) == "algorithm"


@pytest.mark.parametrize(
    "given", [b"", "text", {}, {"keys": []}, {"keys": 5}, [], 5, {"kty": "RSA"}, "-----BEGIN PUBLIC KEY-----", object()]
)
def test_what_is_no_key_is_an_error_that_shows_nothing_of_it(given: object) -> None:
    with pytest.raises(ConfigurationError, match="JWTVerifier: key") as wrong:
        verifier(key=given)
    assert "BEGIN" not in str(wrong.value)


def test_a_file_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="jwks cannot be read"):
        verifier(jwks=tmp_path / "absent.json")


async def test_keys_in_a_file_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    path.write_text(json.dumps(public(OTHER_RSA)))
    clock = FakeClock()
    verifying = verifier(jwks=path, clock=clock)
    assert await reason(verifying, token()) == "key"

    path.write_text(json.dumps(public(RSA)))
    assert await reason(verifying, token()) == "key"  # within the cooldown
    await clock.advance(10)
    await verifying.verify(token())
    await verifying.aclose()


# -- what it remembers


async def test_a_token_is_recalled_for_a_while_and_never_past_its_end() -> None:
    clock, wall = FakeClock(), Wall()
    verifying = verifier(clock=clock, wall=wall, cache_ttl=60)
    long, short = token(body=wall.claims()), token(body=wall.claims(exp=int(wall.now) + 5))
    assert verifying.recall(long) is None
    await verifying.verify(long)
    await verifying.verify(short)

    assert isinstance(verifying.recall(long), Principal)
    assert isinstance(verifying.recall(short), Principal)
    wall.now += 5
    assert verifying.recall(short) is None
    await clock.advance(59)
    assert verifying.recall(long) is not None
    await clock.advance(1)
    assert verifying.recall(long) is None


async def test_each_request_gets_a_principal_of_its_own() -> None:
    verifying = verifier(cache_ttl=60)
    text = token()

    made = [await verifying.verify(text), await verifying.verify(text), verifying.recall(text), verifying.recall(text)]

    assert len({id(each) for each in made}) == 4
    assert len({(each.subject, each.token_hash) for each in made if each}) == 1


async def test_at_most_so_many_tokens_are_remembered_and_the_oldest_go_first() -> None:
    verifying = verifier(key=EC, cache_ttl=60, cache_size=10)
    texts = [token(header("ES256", "ec"), key=EC) for _ in range(12)]
    for text in texts[:10]:
        await verifying.verify(text)
    verifying.recall(texts[0])
    for text in texts[10:]:
        await verifying.verify(text)

    assert [verifying.recall(text) is not None for text in texts] == [True, False, False, *[True] * 9]
    assert len(verifying._cache) == 10


async def test_what_was_refused_is_not_remembered_at_all() -> None:
    verifying = verifier(cache_ttl=60)
    for number in range(50):
        await reason(verifying, token(body=claims(jti=str(number), exp=5)))

    assert len(verifying._cache) == 0


async def test_a_token_is_forgotten_when_asked() -> None:
    verifying = verifier(cache_ttl=60)
    text = token()
    principal = await verifying.verify(text)

    verifying.forget(principal)
    assert verifying.recall(text) is None


# -- revocation


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_revoked_token_is_refused(kind: str) -> None:
    asked: list[str] = []

    def sync(principal: Principal) -> bool:
        asked.append(str(principal.claims["jti"]))
        return principal.subject == "mallory"

    async def later(principal: Principal) -> bool:
        return sync(principal)

    verifying = verifier(revoked=sync if kind == "sync" else later)

    await verifying.verify(token(body=claims(jti="one")))
    assert await reason(verifying, token(body=claims(jti="two", sub="mallory"))) == "revoked"
    assert asked == ["one", "two"]


async def test_where_revocation_cannot_be_told_nobody_gets_in() -> None:
    def fail(_: Principal) -> bool:
        raise ConnectionError("of the token")

    with pytest.raises(VerifierUnavailable) as unavailable:
        await verifier(revoked=fail).verify(token())
    assert unavailable.value.reason == "revocation"


# -- options


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"issuer": ""}, "issuer"),
        ({"issuer": None}, "issuer"),
        ({"audience": ""}, "audience"),
        ({"audience": []}, "audience"),
        ({"audience": [5]}, "audience"),
        ({"audience": None}, "audience"),
        ({"profile": "loose"}, "profile"),
        ({"leeway": -1}, "leeway"),
        ({"leeway": 301}, "leeway"),
        ({"leeway": True}, "leeway"),
        ({"leeway": float("nan")}, "leeway"),
        ({"cache_size": 0}, "cache_size"),
        ({"cache_ttl": -1}, "cache_ttl"),
        ({"cooldown": 9}, "cooldown"),
        ({"max_age": 5}, "max_age"),
        ({"stale": -1}, "stale"),
        ({"timeout": 0}, "timeout"),
        ({"max_header": 5}, "max_header"),
        ({"ignored_header": ["jwk"]}, "ignored_header"),
        ({"ignored_header": ["crit"]}, "ignored_header"),
        ({"strict_header": "no"}, "strict_header"),
        ({"revoked": 5}, "revoked"),
        ({"scope_claims": []}, "scope_claims"),
        ({"required": [""]}, "required"),
        ({"key": RSA, "jwks": {"keys": []}}, "one of these"),
    ],
)
def test_a_wrong_option_is_an_error_that_names_it(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        JWTVerifier(**{"issuer": ISSUER, "audience": AUDIENCE, "key": RSA, **options})


@pytest.mark.parametrize(
    "url",
    [
        "http://idp.example/jwks",
        "http://127.0.0.1/jwks",
        "ftp://idp.example/jwks",
        "https://user:hunter2@idp.example/jwks",
        "https:///jwks",
        "https://idp.example/jwks#f",
        "https://idp.example:99999/jwks",
        "https://idp.example/j wks",
        "idp.example/jwks",
        "",
    ],
)
def test_keys_are_fetched_over_https_only(url: str) -> None:
    with pytest.raises(ConfigurationError, match="jwks") as wrong:
        verifier(jwks=url)
    assert "hunter2" not in str(wrong.value)


def test_http_is_for_loopback_and_only_when_asked_for() -> None:
    verifier(jwks="http://127.0.0.1:8000/jwks", insecure=True)
    verifier(jwks="http://localhost:8000/jwks", insecure=True)
    verifier(jwks="http://[::1]:8000/jwks", insecure=True)
    for url in ("http://10.0.0.1/jwks", "http://localhost.example/jwks"):
        with pytest.raises(ConfigurationError):
            verifier(jwks=url, insecure=True)


def test_nothing_of_its_keys_is_in_its_repr() -> None:
    assert repr(verifier(key=SECRET, algorithms=["HS256"])) == f"JWTVerifier(issuer={ISSUER!r})"
