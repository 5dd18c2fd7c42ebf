"""What a path asks for."""

from __future__ import annotations

import pytest

from streamware import ConfigurationError
from streamware.auth.requirements import Requirements


def test_a_list_of_scopes_holds_for_every_path_that_is_not_optional():
    required = Requirements("X", ["chat", "files"], ["/public/*"])

    assert required.of("/events") == {"chat", "files"}
    assert required.of("/public/a") == set()
    assert required.is_optional("/public/a")
    assert not required.is_optional("/events")
    assert required.everywhere is None


def test_of_several_patterns_the_first_that_matches_counts():
    required = Requirements("X", {"/admin/*": ["admin"], "/admin*": ["staff"], "/open": []}, ())

    assert [required.of(path) for path in ("/admin/a", "/admin", "/open", "/else")] == [
        {"admin"},
        {"staff"},
        set(),
        set(),
    ]
    assert required.named == {"admin", "staff"}


@pytest.mark.parametrize("scopes", [(), ["chat"], {}])
def test_where_no_path_differs_none_has_to_be_looked_at(scopes):
    assert Requirements("X", scopes, ()).everywhere == frozenset(scopes)


def test_a_path_that_is_optional_and_asks_for_scopes_is_a_mistake():
    with pytest.raises(ConfigurationError, match=r"'/public/admin/.*' is optional, but scopes\['\*/admin/\*'\]"):
        Requirements("X", {"*/admin/*": ["admin"]}, ["/public/*"])


def test_a_narrower_pattern_before_it_makes_that_right():
    required = Requirements("X", {"/public/*": [], "*": ["chat"]}, ["/public/*"])

    assert required.is_optional("/public/a")
    assert required.of("/events") == {"chat"}


def test_where_the_mistake_cannot_be_told_beforehand_scopes_are_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("streamware.auth.requirements.common_path", lambda *_: "")
    required = Requirements("X", {"/a*": ["chat"]}, ["/a*"])

    assert not required.is_optional("/a")


@pytest.mark.parametrize(
    "scopes", ["chat", b"chat", 5, [5], ["a b"], [""], ['"'], ["é"], {"a": ["b"]}, {"/a": "b"}, {1: []}]
)
def test_a_wrong_list_of_scopes_is_an_error(scopes):
    with pytest.raises(ConfigurationError, match="X: scopes"):
        Requirements("X", scopes, ())


@pytest.mark.parametrize("optional", ["/a", ["a"], [1], 5])
def test_wrong_patterns_are_an_error(optional):
    with pytest.raises(ConfigurationError, match="X: optional"):
        Requirements("X", (), optional)
