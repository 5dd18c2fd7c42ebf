"""How a client is told of its limits: ``RateLimit`` and ``RateLimit-Policy``, and the body of a refusal.

The header fields are those of draft-ietf-httpapi-ratelimit-headers-10: lists of strings with parameters (RFC 9651).
``q`` and ``r`` are whole units, ``w`` and ``t`` whole seconds, rounded so that who keeps to them is not refused again.
The draft has no unit for LLM tokens, and one that is left out means requests; ``qu="tokens"`` is not registered.

Rules:

1. ``Retry-After`` is never earlier than the ``t`` of what was exceeded.
2. SDKs try again by themselves, some within seconds whatever ``Retry-After`` says. Where the wait is long they are told
   not to, by ``x-should-retry: false``: else one refused call would be three.
3. A refusal says which policy was exceeded and when to come again, and nothing of who else uses the service.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import msgspec

from .denial import Denial, Member

#: Longer waits than so many seconds are the user's to wait for, not an SDK's.
LONG_WAIT = 60.0
#: No client is told of more than so many seconds, or units.
MAX_NUMBER = 999_999_999_999_999  # of RFC 9651, section 3.3.1

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED_CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"

Style = Literal["problem", "openai", "anthropic"]
STYLES = ("problem", "openai", "anthropic")


@dataclass(frozen=True, slots=True)
class Policy:
    """``quota`` units in ``window`` seconds, under a ``name`` for people. ``unit``: "" for requests."""

    name: str
    quota: int
    window: int
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Balance:
    """What is left of the policy called ``name``, and seconds until there is more."""

    name: str
    remaining: int
    reset: float


def policy_line(policies: Iterable[Policy]) -> tuple[bytes, bytes]:
    """The line ``RateLimit-Policy``."""
    items = [
        f"{quoted(policy.name)};q={whole(policy.quota)}"
        + (f";qu={quoted(policy.unit)}" if policy.unit else "")
        + f";w={max(1, whole(policy.window))}"
        for policy in policies
    ]
    return b"ratelimit-policy", ", ".join(items).encode()


def balance_line(balances: Iterable[Balance]) -> tuple[bytes, bytes]:
    """The line ``RateLimit``."""
    items = [
        f"{quoted(balance.name)};r={whole(balance.remaining)};t={whole(math.ceil(min(balance.reset, MAX_NUMBER)))}"
        for balance in balances
    ]
    return b"ratelimit", ", ".join(items).encode()


def refused(
    violated: Sequence[str],
    wait: float,
    *,
    style: Style = "problem",
    lines: Sequence[tuple[bytes, bytes]] = (),
    unit: str = "",
) -> Denial:
    """429: the policies ``violated`` are used up for ``wait`` seconds. ``lines``: header lines that it carries too;
    ``unit``: of the policies, "" for requests."""
    seconds = math.ceil(min(wait, MAX_NUMBER))
    detail = f"Try again in {seconds} second{'' if seconds == 1 else 's'}."
    return _denial(429, "Rate limit exceeded", detail, wait, style, lines, QUOTA_EXCEEDED, violated, unit)


def too_many_at_once(most: int, retry: float, *, style: Style = "problem") -> Denial:
    """429: ``most`` run already. When one of them ends nobody knows; ``retry`` seconds are a guess."""
    detail = f"At most {most} at once; wait until one has ended."
    return _denial(429, "Too many at once", detail, retry, style, (), QUOTA_EXCEEDED, ["concurrent"])


def too_many_waiting(retry: float, *, style: Style = "problem") -> Denial:
    """429: so many wait for their turn that this one would not get it in time."""
    return _denial(429, "Too many at once", "Too many are waiting.", retry, style, (), QUOTA_EXCEEDED, [])


def cannot_tell(retry: float, *, style: Style = "problem") -> Denial:
    """503: the counters cannot be reached, and nothing passes uncounted."""
    detail = "Limits cannot be checked for now."
    return _denial(503, "Temporarily unavailable", detail, retry, style, (), REDUCED_CAPACITY, [])


def _denial(
    status: int,
    title: str,
    detail: str,
    wait: float,
    style: Style,
    lines: Sequence[tuple[bytes, bytes]],
    problem: str,
    violated: Sequence[str],
    unit: str = "",
) -> Denial:
    headers = tuple(lines)
    if wait > LONG_WAIT:
        headers += ((b"x-should-retry", b"false"),)
    body = error_body(style, status, f"{title}. {detail}", unit=unit or "requests")
    extra: dict[str, Member] = {"violated-policies": list(violated)} if violated else {}
    return Denial(status, title, detail, retry_after=wait, headers=headers, extra=extra, type=problem, json_body=body)


def error_body(style: Style, status: int, message: str, *, unit: str = "requests") -> bytes | None:
    """A refusal in the shape that the provider's SDKs read; None for a problem. ``unit``: of what there is too much."""
    if style == "problem":
        return None
    if style == "anthropic":
        kind = "rate_limit_error" if status == 429 else "overloaded_error"
        return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})
    code, kind = ("rate_limit_exceeded", unit) if status == 429 else ("service_unavailable", "server_error")
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": code}})


@lru_cache(maxsize=1024)
def quoted(text: str) -> str:
    """A string of RFC 9651, section 3.3.3; what it cannot hold becomes ``?``."""
    plain = "".join(character if " " <= character <= "~" else "?" for character in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def whole(number: int) -> int:
    """A number that the fields can hold."""
    return min(max(0, number), MAX_NUMBER)
