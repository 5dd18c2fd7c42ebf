"""``IssuerVerifier``: a token goes to its issuer's verifier, and to no other."""

from __future__ import annotations

from typing import Any

import pytest

from streamware import ConfigurationError, IssuerVerifier, JWTVerifier, Principal, TokenRefused
from tests.auth.mint import AUDIENCE, EC, ISSUER, RSA, claims, encoded, header, reason, token, verifier

OTHER = "https://other.example"


class Everything:
    """A verifier of somebody's own, which believes everything and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.opened = self.closed = 0

    def recall(self, token: str) -> Principal | None:
        return Principal(subject="recalled") if token == "known" else None

    async def verify(self, token: str, *, client: str = "") -> Principal:
        self.asked.append((token, client))
        return Principal(subject="opaque")

    async def startup(self) -> None:
        self.opened += 1

    async def aclose(self) -> None:
        self.closed += 1


def two(**options: Any) -> IssuerVerifier:
    ec = JWTVerifier(issuer=OTHER, audience=AUDIENCE, key=EC)
    return IssuerVerifier([verifier(cache_ttl=60), ec], **options)


async def test_each_issuers_tokens_are_checked_with_its_own_keys() -> None:
    several = two()
    by_other = token(header("ES256", "ec"), claims(iss=OTHER), EC)

    assert (await several.verify(token())).issuer == ISSUER
    assert (await several.verify(by_other)).issuer == OTHER
    assert await reason(several, token(header("ES256", "ec"), claims(iss=ISSUER), EC)) == "key"
    assert await reason(several, token(body=claims(iss=OTHER))) == "key"
    assert several.recall(by_other) is not None


async def test_a_jwt_of_an_unknown_issuer_is_refused_and_leads_nowhere() -> None:
    everything = Everything()
    several = two(opaque=everything)

    assert await reason(several, token(body=claims(iss="https://unknown.example"))) == "issuer"
    assert everything.asked == []
    with_unknown = two(opaque=everything, unknown_to_opaque=True)
    assert (await with_unknown.verify(token(body=claims(iss="https://unknown.example")))).subject == "opaque"


@pytest.mark.parametrize("iss", [None, 5, ["https://idp.example"], {}, ""])
async def test_a_jwt_that_names_no_issuer_is_opaque(iss: object) -> None:
    everything = Everything()
    text = token(body={**claims(), "iss": iss})

    if iss == "":
        assert await reason(two(opaque=everything), text) == "issuer"
    else:
        assert (await two(opaque=everything).verify(text, client="203.0.113.9")).subject == "opaque"
        assert everything.asked == [(text, "203.0.113.9")]
    assert await reason(two(), text) in ("malformed", "issuer")


async def test_opaque_tokens_go_to_the_verifier_for_these_or_are_refused() -> None:
    assert await reason(two(), "opaque") == "malformed"
    assert (await two(opaque=Everything()).verify("opaque")).subject == "opaque"
    recalled = two(opaque=Everything()).recall("known")
    assert recalled is not None
    assert recalled.subject == "recalled"
    assert two(opaque=Everything()).recall("unknown") is None
    assert two(opaque=Everything()).recall("k" * 9000) is None


async def test_a_forged_issuer_is_only_looked_up() -> None:
    forged = f"{encoded(b'{}')}.{encoded(b'[' * 3000)}.x"

    with pytest.raises(TokenRefused):
        await two().verify(forged)


async def test_all_are_opened_and_closed() -> None:
    everything = Everything()
    several = two(opaque=everything)
    await several.startup()
    await several.aclose()

    assert (everything.opened, everything.closed) == (1, 1)


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ([], {}),
        ([JWTVerifier(issuer=ISSUER, audience="a", key=RSA)] * 2, {}),
        ([Everything()], {}),
        ([JWTVerifier(issuer=ISSUER, audience="a", key=RSA)], {"unknown_to_opaque": True}),
        ([JWTVerifier(issuer=ISSUER, audience="a", key=RSA)], {"opaque": 5}),
    ],
)
def test_a_wrong_option_is_an_error(given: list[Any], options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="IssuerVerifier"):
        IssuerVerifier(given, **options)
