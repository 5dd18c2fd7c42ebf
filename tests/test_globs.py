"""Whether two selections can touch the same path: the decision agrees with trying all paths out."""

from __future__ import annotations

import fnmatch
import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamware.globs import UNDECIDED, common_path
from streamware.paths import PathSelection

globs = st.lists(st.sampled_from(["/", "a", "b", "*", "?", "[ab]", "[!a]", "[", "]", "[!]", "[]a]"]), max_size=5).map(
    lambda parts: "/" + "".join(parts)
)
some = st.lists(globs, max_size=2)
ALL_PATHS = ["/" + "".join(letters) for size in range(5) for letters in itertools.product("/ab[]!x", repeat=size)]


def matches(path: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


@settings(max_examples=150, deadline=None)
@given(st.lists(some, min_size=1, max_size=2), st.lists(some, max_size=2))
@example([["/a[!]"]], [])
def test_a_common_path_is_found_exactly_where_there_is_one(wanted: list[list[str]], unwanted: list[list[str]]):
    found = common_path(wanted, unwanted)
    tried = [
        path
        for path in ALL_PATHS
        if all(matches(path, globs) for globs in wanted) and not any(matches(path, globs) for globs in unwanted)
    ]

    if found is None:
        assert tried == []
    else:
        assert found != UNDECIDED
        assert all(matches(found, globs) for globs in wanted)
        assert not any(matches(found, globs) for globs in unwanted)
        assert not tried or len(found) <= len(tried[0])


def test_letters_from_all_over_unicode_are_told_apart():
    assert common_path([["/[а-п]"], ["/[р-я]"]], []) is None
    assert common_path([["/[а-с]"], ["/[р-я]"]], []) == "/р"
    assert common_path([["/\U0010ffff*"], ["/*é"]], []) == "/\U0010ffffé"


def test_patterns_too_entangled_to_decide_are_said_to_be():
    entangled = ["/*" + "a" + "?" * 14 + "b" + "*c"]
    nothing = ["/*" + "a" + "?" * 15 + "b" + "*d", "*c"]

    assert common_path([entangled], [nothing]) == UNDECIDED


@pytest.mark.parametrize("other", [["/*a????????????????b*c"], ["*z*a??????????????????b"]])
def test_what_one_selects_and_the_other_excludes_needs_no_search(other: list[str]):
    one = PathSelection("X", paths=other, exclude=None)
    another = PathSelection("X", paths=None, exclude=[*other, "/more"])

    assert one.overlap(another) is None
    assert another.overlap(one) is None
