"""The decision: every relation, every method, every site, every kind of credential."""

from __future__ import annotations

import pytest

from streamware.wire.cross_origin import Absent, Relation, decide, is_ambient, navigates, relate
from streamware.wire.origins import OriginSet

LISTED = OriginSet("Test", "allow", ["https://chat.example", "https://*.preview.example"])
LISTED_NULL = OriginSet("Test", "allow", ["null"])

NAVIGATION = {b"sec-fetch-mode": b"navigate", b"sec-fetch-dest": b"document"}


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "expected"),
    [
        (None, b"api.example", "https", Relation.ABSENT),
        (b"https://chat.example", b"api.example", "https", Relation.LISTED),
        (b"https://chat.example", None, "https", Relation.LISTED),
        (b"https://chat.example", b"@", "https", Relation.LISTED),
        (b"https://a.preview.example", b"api.example", "https", Relation.LISTED),
        (b"https://api.example", b"api.example", "https", Relation.OWN),
        (b"https://api.example", b"API.example:443", "https", Relation.OWN),
        (b"https://api.example:443", b"api.example", "wss", Relation.OWN),
        (b"http://api.example", b"api.example", "ws", Relation.OWN),
        (b"http://api.example:8000", b"api.example:8000", "http", Relation.OWN),
        (b"http://api.example:8000", b"api.example:8001", "http", Relation.FOREIGN),
        (b"https://api.example.", b"api.example", "https", Relation.FOREIGN),
        (b"https://api.example", None, "https", Relation.FOREIGN),
        (b"https://api.example", b"@", "https", Relation.FOREIGN),
        (b"https://api.example", b"", "https", Relation.FOREIGN),
        (b"https://api.example", b"api.example", "gopher", Relation.FOREIGN),
        (b"https://api.example", b"api.example", "http", Relation.SCHEME),
        (b"http://api.example", b"api.example", "https", Relation.SCHEME),
        (b"https://api.example:8000", b"api.example:8000", "http", Relation.SCHEME),
        (b"https://api.example:8000", b"api.example", "http", Relation.FOREIGN),
        (b"https://evil.example", b"api.example", "https", Relation.FOREIGN),
        (b"null", b"null", "https", Relation.NULL),
        (b"", b"api.example", "https", Relation.MALFORMED),
        (b"https://chat.example/", b"api.example", "https", Relation.MALFORMED),
        (b"https://u@chat.example", b"api.example", "https", Relation.MALFORMED),
        (b"https://chat.example:99999", b"api.example", "https", Relation.MALFORMED),
    ],
)
def test_what_an_origin_is_to_the_server(
    origin: bytes | None, host: bytes | None, scheme: str, expected: Relation
) -> None:
    assert relate(origin, host, scheme, LISTED) is expected


def test_null_may_be_listed() -> None:
    assert relate(b"null", b"api.example", "https", LISTED_NULL) is Relation.NULL_LISTED


def reason(
    relation: Relation,
    method: str | None = "GET",
    site: bytes | None = None,
    *,
    ambient: bool = True,
    navigation: bool = False,
    absent: Absent = "safe",
    navigations: bool = True,
) -> str:
    found = {**(NAVIGATION if navigation else {}), **({} if site is None else {b"sec-fetch-site": site})}
    return decide(relation, method, found, lambda: ambient, absent=absent, navigations=navigations)


@pytest.mark.parametrize("ambient", [True, False])
@pytest.mark.parametrize("site", [None, b"same-origin", b"same-site", b"cross-site", b"none", b"???"])
@pytest.mark.parametrize("method", [None, "GET", "POST"])
@pytest.mark.parametrize(
    ("relation", "expected"),
    [
        (Relation.OWN, ""),
        (Relation.LISTED, ""),
        (Relation.FOREIGN, "foreign"),
        (Relation.SCHEME, "scheme"),
        (Relation.NULL, "null"),
        (Relation.MALFORMED, "malformed"),
    ],
)
def test_an_origin_that_is_there_decides_alone(
    relation: Relation, expected: str, method: str | None, site: bytes | None, ambient: bool
) -> None:
    assert reason(relation, method, site, ambient=ambient) == expected
    assert reason(relation, method, site, ambient=ambient, navigation=True, absent="accept") == expected


@pytest.mark.parametrize("method", [None, "GET", "POST"])
def test_null_never_goes_with_an_ambient_credential(method: str | None) -> None:
    assert reason(Relation.NULL_LISTED, method, ambient=True) == "null"
    assert reason(Relation.NULL_LISTED, method, ambient=False) == ""


@pytest.mark.parametrize("ambient", [True, False])
@pytest.mark.parametrize(
    ("method", "site", "navigation", "expected"),
    [
        # the site speaks where the origin does not
        ("GET", b"same-origin", False, ""),
        ("GET", b"none", False, ""),
        ("GET", b"none", True, ""),
        ("POST", b"same-origin", False, ""),
        ("GET", b"same-site", False, "same_site"),
        ("GET", b"cross-site", False, "cross_site"),
        ("POST", b"cross-site", False, "cross_site"),
        ("GET", b"", False, "malformed"),
        ("GET", b"Same-Origin", False, "malformed"),
        ("GET", b"same-origin, none", False, "malformed"),
        (None, b"cross-site", False, "cross_site"),
        # a link on another site
        ("GET", b"cross-site", True, ""),
        ("HEAD", b"same-site", True, ""),
        ("POST", b"cross-site", True, "cross_site"),
        ("GET", b"???", True, "malformed"),
        (None, b"cross-site", True, "cross_site"),
    ],
)
def test_without_an_origin_the_site_decides(
    method: str | None, site: bytes, navigation: bool, expected: str, ambient: bool
) -> None:
    assert reason(Relation.ABSENT, method, site, navigation=navigation, ambient=ambient) == expected


def test_links_of_other_sites_can_be_refused() -> None:
    assert reason(Relation.ABSENT, "GET", b"cross-site", navigation=True, navigations=False) == "cross_site"
    assert reason(Relation.ABSENT, "GET", b"none", navigation=True, navigations=False) == ""


@pytest.mark.parametrize(
    ("method", "absent", "expected"),
    [
        ("GET", "safe", ""),
        ("HEAD", "safe", ""),
        ("OPTIONS", "safe", ""),
        ("POST", "safe", "missing"),
        ("DELETE", "safe", "missing"),
        ("BREW", "safe", "missing"),
        ("get", "safe", "missing"),
        ("GET", "refuse", "missing"),
        ("POST", "refuse", "missing"),
        ("GET", "accept", ""),
        ("POST", "accept", ""),
        (None, "safe", "missing"),
        (None, "accept", "missing"),
        (None, "refuse", "missing"),
    ],
)
def test_where_nothing_is_said_the_credential_decides(method: str | None, absent: Absent, expected: str) -> None:
    assert reason(Relation.ABSENT, method, absent=absent) == expected
    assert reason(Relation.ABSENT, method, absent=absent, ambient=False) == ""


@pytest.mark.parametrize("site", [b"same-origin", b"none"])
def test_a_websocket_with_an_ambient_credential_has_an_origin_or_is_refused(site: bytes) -> None:
    assert reason(Relation.ABSENT, None, site, absent="accept") == "missing"


@pytest.mark.parametrize(
    ("method", "changes", "expected"),
    [
        ("GET", {}, True),
        ("HEAD", {}, True),
        ("POST", {}, False),
        (None, {}, False),
        ("GET", {b"sec-fetch-mode": b"cors"}, False),
        ("GET", {b"sec-fetch-mode": b"no-cors"}, False),
        ("GET", {b"sec-fetch-dest": b"iframe"}, False),
        ("GET", {b"sec-fetch-dest": b"embed"}, False),
        ("GET", {b"sec-fetch-dest": b""}, False),
    ],
)
def test_a_navigation_loads_a_page_at_the_top_level(
    method: str | None, changes: dict[bytes, bytes], expected: bool
) -> None:
    assert navigates(method, {**NAVIGATION, **changes}) is expected


ALL = frozenset({"cookie", "authorization", "certificate"})


@pytest.mark.parametrize(
    ("headers", "certificate", "expected"),
    [
        ([], False, False),
        ([(b"cookie", b"sid=1")], False, True),
        ([(b"Cookie", b"sid=1")], False, True),
        ([(b"cookie", b"")], False, False),
        ([(b"authorization", b"Basic dXNlcjpwdw==")], False, True),
        ([(b"authorization", b"bAsIc dXNlcjpwdw==")], False, True),
        ([(b"authorization", b"Digest username=a")], False, True),
        ([(b"authorization", b"Negotiate abc")], False, True),
        ([(b"authorization", b"NTLM abc")], False, True),
        ([(b"authorization", b"Bearer abc")], False, False),
        ([(b"authorization", b"Token abc")], False, False),
        # whoever can send that is no page of another site, whatever else it sends
        ([(b"cookie", b"sid=1"), (b"authorization", b"Bearer abc")], False, False),
        ([(b"authorization", b"Bearer abc")], True, False),
        # that is no credential
        ([(b"cookie", b"sid=1"), (b"authorization", b"")], False, True),
        ([(b"cookie", b"sid=1"), (b"authorization", b"Bearer")], False, True),
        ([(b"cookie", b"sid=1"), (b"authorization", b"Bearer ")], False, True),
        ([], True, True),
        ([(b"proxy-authorization", b"Basic abc")], False, False),
    ],
)
def test_what_a_browser_sends_by_itself_is_ambient(
    headers: list[tuple[bytes, bytes]], certificate: bool, expected: bool
) -> None:
    assert is_ambient(headers, kinds=ALL, cookies=None, certificate=certificate) is expected


@pytest.mark.parametrize(
    ("jars", "expected"),
    [
        ([b"sid=1"], True),
        ([b"lang=en; sid=1"], True),
        ([b"lang=en;sid=1"], True),
        ([b"lang=en", b"sid=1"], True),
        ([b"lang=en, sid=1"], True),
        ([b"sid"], True),
        ([b"lang=sid"], False),
        ([b"lang=en; SID=1"], False),
        ([b"sid2=1; AWSALB=x"], False),
    ],
)
def test_only_the_named_cookies_count_where_some_are_named(jars: list[bytes], expected: bool) -> None:
    given = [(b"cookie", jar) for jar in jars]

    assert is_ambient(given, kinds=ALL, cookies=frozenset({b"sid"}), certificate=False) is expected


def test_only_the_named_kinds_count() -> None:
    given = [(b"cookie", b"sid=1"), (b"authorization", b"Basic abc")]

    assert not is_ambient(given, kinds=frozenset({"certificate"}), cookies=None, certificate=False)
    assert not is_ambient(given, kinds=frozenset(), cookies=None, certificate=True)
    assert is_ambient(given, kinds=frozenset({"cookie"}), cookies=None, certificate=False)
    assert is_ambient(given, kinds=frozenset({"authorization"}), cookies=None, certificate=False)
