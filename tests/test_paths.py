"""Path selection: where access is decided, no path slips past the patterns by looking like another one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware import (
    AuthMiddleware,
    ClientIPMiddleware,
    IPAllowlistMiddleware,
    OriginMiddleware,
    ResumeMiddleware,
    ThrottleMiddleware,
    TokenBudgetMiddleware,
)
from streamware.auth.requirements import Requirements
from streamware.auth.tickets import _covers
from streamware.paths import PathSelection, is_ambiguous
from tests.auth.verifying import SecretVerifier
from tests.middleware.auth_asking import Site, ask, refused

AMBIGUOUS = [
    "/public/../admin",
    "/public/..",
    "/public/./a",
    "/public/.",
    "/public//admin",
    "//admin",
    "/public/..;/admin",
    "/public\\..\\admin",
    "/public/%2e%2e/admin",
    "/public/..%2Fadmin",
    "/public%5c..%5cadmin",
]
PLAIN = ["/public/a", "/", "", "/public/...", "/public/.well-known", "/a..b", "/public/..a", "/public/a%20b", "/a/"]


@pytest.mark.parametrize("path", AMBIGUOUS)
def test_a_guard_selects_an_ambiguous_path_whatever_the_patterns_say(path: str):
    assert path in PathSelection("X", None, ["/public*", "//*"], guards=True)
    assert path in PathSelection("X", ["/admin*"], None, guards=True)
    assert path not in PathSelection("X", None, ["/public*", "//*"])


@pytest.mark.parametrize("path", PLAIN)
def test_an_ordinary_path_is_what_the_patterns_say(path: str):
    assert not is_ambiguous(path)
    assert path not in PathSelection("X", None, ["*"], guards=True)


@given(st.lists(st.sampled_from(["a", "public", "..", ".", "", "%2e", "b.c"]), max_size=5))
def test_whatever_a_file_system_would_read_otherwise_is_ambiguous(parts: list[str]):
    path = "/" + "/".join(parts)
    resolved: list[str] = []
    for part in parts:
        if part == "..":
            resolved = resolved[:-1]
        elif part not in (".", ""):
            resolved.append(part)
    if (path.rstrip("/") or "/") != "/" + "/".join(resolved):
        assert is_ambiguous(path)


def test_whoever_decides_access_is_a_guard_and_nobody_else():
    assert all(cls.guards for cls in (AuthMiddleware, ClientIPMiddleware, IPAllowlistMiddleware, OriginMiddleware))
    assert ThrottleMiddleware.guards
    assert TokenBudgetMiddleware.guards
    assert not ResumeMiddleware.guards


@pytest.mark.parametrize("path", AMBIGUOUS)
def test_an_ambiguous_path_is_not_optional_and_asks_for_the_scopes_of_all(path: str):
    required = Requirements("X", {"/public*": [], "/admin*": ["admin"]}, ["/public*", "//*"])

    assert not required.is_optional(path)
    assert required.of(path) == {"admin"}


@pytest.mark.parametrize("path", AMBIGUOUS)
def test_a_ticket_for_all_below_a_path_is_not_good_for_an_ambiguous_one(path: str):
    assert _covers("/public*", "/public/a")
    assert not _covers("/*", path)


@pytest.mark.parametrize("path", AMBIGUOUS)
@pytest.mark.parametrize("option", ["exclude", "optional"])
async def test_nobody_gets_past_auth_by_an_ambiguous_path(path: str, option: str):
    site = Site()
    guarded = AuthMiddleware(site, verifier=SecretVerifier(), **{option: ["/public*", "//*"]})

    assert refused(await ask(guarded, scope={"path": path}))[0] == 401
    assert site.calls == []
