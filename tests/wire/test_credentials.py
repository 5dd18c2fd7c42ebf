"""Where credentials stand in a request, and how they are taken out of it."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware.wire.credentials import (
    COOKIE,
    HEADER,
    KUBERNETES,
    MAX_CREDENTIAL,
    SUBPROTOCOL,
    TICKET,
    Credential,
    CredentialError,
    authorization,
    cookies,
    harmless,
    is_printable,
    one_of,
    read_offer,
    read_parameters,
    with_subprotocols,
)

TOKEN = "aaaa.bbbb-_.cccc"


def kubernetes(token: str) -> str:
    return KUBERNETES + base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("lines", "token"),
    [
        pytest.param([], None, id="none"),
        pytest.param([(b"authorization", b"Bearer " + TOKEN.encode())], TOKEN, id="as in the RFC"),
        pytest.param([(b"authorization", b"bEARER " + TOKEN.encode())], TOKEN, id="the scheme in any case"),
        pytest.param([(b"Authorization", b"Bearer " + TOKEN.encode())], TOKEN, id="the name in any case"),
        pytest.param([(b"authorization", b"Bearer   " + TOKEN.encode() + b" ")], TOKEN, id="more spaces"),
        pytest.param([(b"authorization", b"Basic dTpw")], None, id="another scheme"),
        pytest.param([(b"authorization", b"DPoP " + TOKEN.encode())], None, id="one that only sounds like it"),
        pytest.param([(b"authorization", b"Bearer\t" + TOKEN.encode())], None, id="a tab is no space"),
        pytest.param([(b"authorization", b"Bearerx")], None, id="a longer scheme"),
        pytest.param([(b"authorization", b"")], None, id="empty"),
        pytest.param([(b"x-authorization", b"Bearer x")], None, id="another header"),
        pytest.param([(b"authorization", b"Bearer \xff\x00")], "\xff\x00", id="any bytes, for others to refuse"),
        pytest.param([(b"authorization", b"Bearer a, Bearer b")], "a, Bearer b", id="merged by a proxy"),
    ],
)
def test_the_authorization_header_yields_a_bearer_token(lines, token):
    assert authorization(lines) == token


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        pytest.param([b"Bearer a", b"Bearer a"], "repeated", id="twice, the same"),
        pytest.param([b"Bearer a", b"Basic b"], "repeated", id="twice, of two schemes"),
        pytest.param([b"Bearer"], "malformed", id="the scheme alone"),
        pytest.param([b"Bearer "], "malformed", id="the scheme and a space"),
        pytest.param([b"Bearer " + b"a" * (MAX_CREDENTIAL + 1)], "too_large", id="one byte above the cap"),
    ],
)
@pytest.mark.parametrize("name", [b"authorization", b"AUTHORIZATION"])
def test_an_authorization_that_cannot_be_read_is_an_error(lines, reason, name):
    with pytest.raises(CredentialError, match=reason):
        authorization([(name, line) for line in lines])


def test_a_token_at_the_cap_is_read():
    assert authorization([(b"authorization", b"Bearer " + b"a" * MAX_CREDENTIAL)]) == "a" * MAX_CREDENTIAL


@pytest.mark.parametrize(
    ("jars", "values"),
    [
        pytest.param([], [], id="none"),
        pytest.param([b"sid=a"], ["a"], id="alone"),
        pytest.param([b"x=1; sid=a; y=2"], ["a"], id="among others"),
        pytest.param([b"x=1", b"sid=a"], ["a"], id="in a line of its own, as HTTP/2 has it"),
        pytest.param([b"sid=a; sid=b"], ["a", "b"], id="twice"),
        pytest.param([b'sid="a"'], ["a"], id="quoted"),
        pytest.param([b"sid=a=b=="], ["a=b=="], id="with signs of equality"),
        pytest.param([b"sid="], [], id="empty, as a logout leaves it"),
        pytest.param([b"SID=a; xsid=b; sidx=c; sid"], [], id="other names"),
        pytest.param([b";;=; =;sid=\xff"], ["\xff"], id="among nonsense"),
    ],
)
def test_a_cookie_is_found_by_its_name(jars, values):
    assert cookies([(b"cookie", jar) for jar in jars], b"sid") == values


@pytest.mark.parametrize(
    ("offered", "tokens", "marker", "others"),
    [
        pytest.param([], (), None, [], id="nothing"),
        pytest.param(["chat"], (), None, ["chat"], id="no credential"),
        pytest.param(["bearer", TOKEN], (TOKEN,), "bearer", [], id="alone"),
        pytest.param(["Bearer", TOKEN], (TOKEN,), "Bearer", [], id="the marker as it was written"),
        pytest.param(["bearer", TOKEN, "chat"], (TOKEN,), "bearer", ["chat"], id="before another"),
        pytest.param(["chat", "bearer", TOKEN], (TOKEN,), "bearer", ["chat"], id="behind another"),
        pytest.param([kubernetes(TOKEN), "chat"], (TOKEN,), None, ["chat"], id="Kubernetes' style"),
        pytest.param(["chat", kubernetes("ü/+")], ("Ã¼/+",), None, ["chat"], id="Kubernetes' style, any bytes"),
        pytest.param(["bearer", "a", kubernetes("b")], ("a", "b"), "bearer", [], id="both"),
        pytest.param(["bearer", "bearer"], ("bearer",), "bearer", [], id="a token that is called bearer"),
    ],
)
def test_an_offer_is_split_into_tokens_and_the_others(offered, tokens, marker, others):
    offer = read_offer(offered)

    assert (offer.tokens, offer.marker, offer.others) == (tokens, marker, others)


@pytest.mark.parametrize(
    ("offered", "reason"),
    [
        pytest.param(["bearer"], "malformed", id="a marker without a token"),
        pytest.param(["chat", "bearer"], "malformed", id="a marker at the end"),
        pytest.param([KUBERNETES, "chat"], "malformed", id="an empty token"),
        pytest.param([KUBERNETES + "YQ==", "chat"], "malformed", id="padding"),
        pytest.param([KUBERNETES + "a", "chat"], "malformed", id="a length that cannot be"),
        pytest.param([KUBERNETES + "ab+/", "chat"], "malformed", id="the other alphabet"),
        pytest.param([KUBERNETES + "ü", "chat"], "malformed", id="no ASCII"),
        pytest.param([kubernetes(TOKEN)], "alone", id="nothing that could be answered"),
    ],
)
def test_an_offer_that_cannot_be_read_is_an_error(offered, reason):
    with pytest.raises(CredentialError, match=reason):
        read_offer(offered)


@pytest.mark.parametrize(
    ("offered", "answer"),
    [
        ([], None),
        (["chat"], "chat"),
        (["bearer", "chat", TOKEN], TOKEN),  # what stands behind the marker is the token, whatever it looks like
        (["bearer", TOKEN], "bearer"),
        (["bearer", TOKEN, "chat"], "chat"),
        (["bearer"], "bearer"),
        ([kubernetes(TOKEN)], None),
        ([kubernetes(TOKEN).upper()], None),
        ([kubernetes(TOKEN), "chat"], "chat"),
    ],
)
def test_a_refusal_answers_with_what_is_no_token(offered, answer):
    assert harmless(offered) == answer


@pytest.mark.parametrize(
    ("query", "found", "rest"),
    [
        pytest.param(b"", {}, b"", id="empty"),
        pytest.param(b"a=1&b=%20&&", {}, b"a=1&b=%20&&", id="none: left as it is"),
        pytest.param(b"ticket=x", {"ticket": ["x"]}, b"", id="alone"),
        pytest.param(b"a=1&ticket=x&b=2", {"ticket": ["x"]}, b"a=1&b=2", id="in the middle"),
        pytest.param(b"%74icket=x%2Fy+z", {"ticket": ["x/y z"]}, b"", id="encoded"),
        pytest.param(b"ticket", {"ticket": [""]}, b"", id="without a value"),
        pytest.param(b"ticket=x&ticket=y", {"ticket": ["x", "y"]}, b"", id="twice"),
        pytest.param(b"ticket=x&token=y", {"ticket": ["x"], "token": ["y"]}, b"", id="of both kinds"),
        pytest.param(b"Ticket=x&tickets=y", {}, b"Ticket=x&tickets=y", id="other names"),
        pytest.param(b"ticket=%zz%", {"ticket": ["%zz%"]}, b"", id="badly encoded"),
        pytest.param(b"a=ticket=x&ticket=\xff", {"ticket": ["\xff"]}, b"a=ticket=x", id="raw bytes"),
    ],
)
def test_parameters_are_taken_out_of_the_query(query, found, rest):
    assert read_parameters(query, {"ticket", "token"}) == (found, rest)


def test_two_credentials_that_are_the_same_are_one():
    assert one_of([Credential("a", HEADER), Credential("a", COOKIE)]).source == HEADER
    assert one_of([]) is None


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        ([Credential("a", HEADER), Credential("b", COOKIE)], "several"),
        ([Credential("a", SUBPROTOCOL), Credential("a", SUBPROTOCOL), Credential("b", SUBPROTOCOL)], "several"),
        ([Credential("a", HEADER), Credential("a", TICKET)], "several"),
        ([Credential("", TICKET)], "malformed"),
        ([Credential("a" * (MAX_CREDENTIAL + 1), COOKIE)], "too_large"),
    ],
)
def test_credentials_that_differ_are_an_error(shown, reason):
    with pytest.raises(CredentialError, match=reason):
        one_of(shown)


def test_only_a_cookie_is_ambient():
    assert [source for source in (HEADER, COOKIE, SUBPROTOCOL, TICKET) if Credential("a", source).ambient] == [COOKIE]


def test_no_repr_and_no_error_says_what_the_credential_is():
    assert TOKEN not in repr(Credential(TOKEN, HEADER))
    with pytest.raises(CredentialError) as caught:
        authorization([(b"authorization", b"Bearer " + TOKEN.encode() * 2000)])
    assert TOKEN not in repr(caught.value)


def test_subprotocols_are_replaced_in_both_forms_and_the_scope_is_copied():
    headers = [(b"host", b"x"), (b"Sec-WebSocket-Protocol", b"bearer, a"), (b"sec-websocket-protocol", b"chat, v2")]
    scope = {"type": "websocket", "subprotocols": ["bearer", "a", "chat", "v2"], "headers": headers}

    some = with_subprotocols(scope, ["chat", "v2"])
    none = with_subprotocols(scope, [])

    assert some["subprotocols"] == ["chat", "v2"]
    assert some["headers"] == [(b"host", b"x"), (b"sec-websocket-protocol", b"chat, v2")]
    assert none["headers"] == [(b"host", b"x")]
    assert scope["subprotocols"] == ["bearer", "a", "chat", "v2"]
    assert len(headers) == 3


@pytest.mark.parametrize(
    ("text", "printable"), [(TOKEN, True), ("a|b", True), ("a b", False), ("a\n", False), ("é", False)]
)
def test_tokens_are_printable(text, printable):
    assert is_printable(text) is printable


headers = st.lists(st.tuples(st.sampled_from([b"authorization", b"cookie", b"Cookie", b"x"]), st.binary(max_size=40)))


@given(headers, st.lists(st.one_of(st.text(max_size=20), st.sampled_from(["bearer", "chat", KUBERNETES]))), st.binary())
def test_reading_raises_nothing_but_its_own_error(lines, offered, query):
    reasons = []
    for read in (
        lambda: authorization(lines),
        lambda: cookies(lines, b"sid"),
        lambda: read_offer(offered),
        lambda: harmless(offered),
        lambda: read_parameters(query, {"ticket"}),
    ):
        try:
            read()
        except CredentialError as error:
            reasons.append(error.reason)

    assert {*reasons} <= {"repeated", "malformed", "too_large", "alone"}


@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60), st.lists(st.just("chat"))
)
def test_a_token_survives_each_way_of_showing_it(token, others):
    quoted = "".join(f"%{ord(letter):02x}" for letter in token)

    assert authorization([(b"authorization", f"Bearer {token}".encode())]) == token
    assert read_offer([*others, "bearer", token]).tokens == (token,)
    assert read_offer([kubernetes(token), "chat"]).tokens == (token,)
    assert read_parameters(f"a=1&t={quoted}&b".encode(), {"t"}) == ({"t": [token]}, b"a=1&b")
    if not set(token) & {";", '"'}:
        assert cookies([(b"cookie", f"a=b; sid={token}".encode())], b"sid") == [token]


@given(st.lists(st.sampled_from(["bearer", "BEARER", "chat", "v2", TOKEN, kubernetes(TOKEN)]), max_size=6))
def test_what_is_left_of_an_offer_holds_no_token(offered):
    try:
        offer = read_offer(offered)
    except CredentialError:
        return
    if offer.tokens:
        assert kubernetes(TOKEN) not in offer.others
        assert len(offer.others) + len(offer.tokens) <= len(offered)
        assert offer.others == [entry for entry in offer.others if entry in offered]
