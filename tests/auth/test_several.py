"""Several verifiers as one."""

from __future__ import annotations

import pytest

from streamware import Principal, TokenRefused, VerifierUnavailable
from streamware.auth.several import Several


class Fixed:
    """Says the same of every token."""

    def __init__(self, says: Principal | Exception, *, remembers: bool = False) -> None:
        self.says = says
        self.remembers = remembers
        self.calls: list[str] = []

    def recall(self, token: str) -> Principal | None:
        return self.says if self.remembers and isinstance(self.says, Principal) else None

    async def verify(self, token: str, *, client: str = "") -> Principal:
        self.calls.append(client)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    async def startup(self) -> None:
        self.calls.append("startup")

    async def aclose(self) -> None:
        self.calls.append("aclose")


ADA = Principal(subject="ada")
BOB = Principal(subject="bob")


async def test_the_first_that_knows_the_token_decides():
    refusing, knowing, later = Fixed(TokenRefused("issuer")), Fixed(ADA), Fixed(BOB)

    assert await Several([refusing, knowing, later]).verify("t", client="10.0.0.1") is ADA
    assert (refusing.calls, knowing.calls, later.calls) == (["10.0.0.1"], ["10.0.0.1"], [])


async def test_a_token_is_refused_where_all_refuse_it():
    with pytest.raises(TokenRefused, match="inactive"):
        await Several([Fixed(TokenRefused("malformed")), Fixed(TokenRefused("inactive"))]).verify("t")


async def test_where_one_could_not_tell_it_cannot_be_told_whether_it_is_good():
    away = [Fixed(VerifierUnavailable("keys", 30.0)), Fixed(VerifierUnavailable("introspection", 5.0))]

    with pytest.raises(VerifierUnavailable, match="introspection"):
        await Several([*away, Fixed(TokenRefused("signature"))]).verify("t")


async def test_one_that_is_away_keeps_nobody_out_whom_another_knows():
    assert await Several([Fixed(VerifierUnavailable("keys")), Fixed(ADA)]).verify("t") is ADA


def test_whoever_remembers_the_token_is_asked_first():
    assert Several([Fixed(ADA), Fixed(BOB, remembers=True)]).recall("t") is BOB
    assert Several([Fixed(ADA)]).recall("t") is None


async def test_all_are_opened_and_closed():
    verifiers = [Fixed(ADA), Fixed(BOB)]
    both = Several(verifiers)

    await both.startup()
    await both.aclose()

    assert [each.calls for each in verifiers] == [["startup", "aclose"]] * 2
