"""A token that is shown or looked at while its connection is open: for a newer one, and for one that may be revoked.

Rules: it changes nothing about who the connection belongs to, and it must allow what the connection needs. What is
known of the principal is changed in place, for whoever further in has copied the scope holds the same object.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..types import Scope
from ..wire.challenge import Refusal
from .credentials import AuthCredentials
from .endpoints import STORE_RETRY
from .gate import Gate
from .principal import Principal
from .verifier import TokenRefused, VerifierUnavailable


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one token: whose it is, or why it lets nobody in."""

    found: Principal | Refusal
    gate: Gate

    @property
    def known(self) -> bool:
        """False where nobody can tell for now."""
        return not (isinstance(self.found, Refusal) and self.found.status == 503)

    def renew(self, scope: Scope, holder: object) -> str:
        """Let ``holder``, whose connection ``scope`` is, have what the token says; "" then. Else nothing is changed,
        and a short fixed word says why."""
        found = self.found
        if isinstance(found, Refusal):
            return found.reason
        if not isinstance(holder, Principal) or not same(holder, found):
            return "subject"
        refusal = self.gate.judge(scope, found, None)
        if refusal is not None:
            return refusal.reason
        holder.renew(found)
        told: object = scope.get("auth")
        if isinstance(told, AuthCredentials):
            vars(told).pop("scopes", None)  # cached there
        return ""


def same(one: Principal, other: Principal) -> bool:
    """Whether the two are known, and the same by issuer and subject."""
    return one.is_authenticated and other.is_authenticated and bool(one.subject) and (
        (one.issuer, one.subject) == (other.issuer, other.subject)
    )  # fmt: skip


class Again:
    """Asks the verifier of ``gate`` about tokens of connections that are open."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def ask(self, scope: Scope, token: str) -> Verdict:
        """What is known of ``token`` now. ``scope``: of the connection. Raises nothing."""
        return Verdict(await self._gate.verify(scope, token), self._gate)

    async def renew(self, scope: Scope, holder: object, token: str) -> Principal:
        """Let ``holder`` have what ``token`` says.

        :raises TokenRefused: it is not good, another's, or does not allow what the connection ``scope`` needs.
        :raises VerifierUnavailable: that cannot be told now.
        """
        verdict = await self.ask(scope, token)
        found = verdict.found
        if isinstance(found, Refusal) and not verdict.known:
            raise VerifierUnavailable(found.reason, STORE_RETRY if found.retry_after is None else found.retry_after)
        reason = verdict.renew(scope, holder)
        if reason or not isinstance(holder, Principal):
            raise TokenRefused(reason)
        return holder
