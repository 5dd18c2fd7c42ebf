"""Which coding a response gets, and what its head says then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware.wire import negotiation
from streamware.wire.negotiation import Kind, choose_coding, look_at, parse_accept_encoding

ALL = ("zstd", "br", "gzip")


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        (b"gzip", {"gzip": 1.0}),
        (b"gzip, br", {"gzip": 1.0, "br": 1.0}),
        (b"GZip;Q=0.5 ,\tBR ; q = 0.25", {"gzip": 0.5, "br": 0.25}),
        (b"x-gzip", {"gzip": 1.0}),
        (b"x-gzip;q=0, gzip", {"gzip": 0.0}),  # named twice: the lesser counts
        (b"gzip, gzip;q=0.2", {"gzip": 0.2}),
        (b"gzip;q=1.000, br;q=0.001", {"gzip": 1.0, "br": 0.001}),
        (b"gzip;q=0., br;q=1.", {"gzip": 0.0, "br": 1.0}),
        (b"gzip;q=1.001, br", {"br": 1.0}),  # malformed: as if it were not there
        (b"gzip;q=0.1234, br", {"br": 1.0}),
        (b"gzip;q=, br;q=x, zstd;q=-1, deflate;q=2", {}),
        (b"gzip;q=nan, br;q=inf, zstd;q=1e0", {}),
        (b"gzip;q=.5", {}),
        (b"gzip;q=0.5;q=0.6", {}),
        (b"gzip;level=9", {"gzip": 1.0}),
        (b"gzip;level=9;q=0.3", {"gzip": 0.3}),
        (b"", {}),
        (b" , ,;q=1,", {}),
        (b"*;q=0, identity", {"*": 0.0, "identity": 1.0}),
        (b"\xff\xfe, gzip", {"\xff\xfe": 1.0, "gzip": 1.0}),
    ],
)
def test_qualities_are_read_as_the_grammar_says(value: bytes, accepted: dict[str, float]) -> None:
    assert parse_accept_encoding(value) == accepted


def test_all_lines_of_what_is_asked_for_count() -> None:
    given = [(b"accept", b"a/b"), (b"Accept-Encoding", b"gzip"), (b"accept-encoding", b"br"), (b"Accept", b"c/d")]

    assert negotiation.asked(given) == (b"gzip, br", b"a/b, c/d")
    assert negotiation.asked([(b"accept-language", b"en"), (b"cookie", b"x")]) == (None, None)
    assert negotiation.asked([(b"accept-encoding", b"")]) == (b"", None)


@pytest.mark.parametrize(
    ("value", "coding"),
    [
        (None, None),  # no header: any coding would be right, but nobody asked
        (b"", None),
        (b"identity", None),
        (b"gzip, deflate, br, zstd", "zstd"),  # equal: the server's order
        (b"gzip, deflate, br", "br"),
        (b"gzip, deflate", "gzip"),
        (b"deflate", None),
        (b"br;q=0.9, gzip", "gzip"),  # the client's order comes first
        (b"zstd;q=0.1, br;q=0.2, gzip;q=0.15", "br"),
        (b"gzip;q=0", None),
        (b"gzip;q=0.0, br", "br"),
        (b"*", "gzip"),  # not the server's first: what every client decodes
        (b"*;q=0.5", "gzip"),
        (b"*;q=0", None),
        (b"*, gzip;q=0", None),  # what is named wins over the wildcard
        (b"*;q=0, br", "br"),
        (b"br;q=0.5, *", "gzip"),
        (b"br, *;q=0.5", "br"),
        (b"identity;q=1, gzip;q=0.1", None),
        (b"identity;q=0.5, gzip;q=0.5", "gzip"),
        (b"identity;q=0.5, gzip;q=1", "gzip"),
        (b"identity;q=0, gzip;q=0.001", "gzip"),
        (b"identity;q=0", None),  # nothing acceptable: identity after all
        (b"identity;q=0, gzip;q=0", None),
        (b"identity;q=0, *;q=0", None),
        (b"identity, *;q=0.5", None),
        (b"gzip;q=wrong", None),
    ],
)
def test_the_coding_is_the_clients_choice(value: bytes | None, coding: str | None) -> None:
    assert choose_coding(value, ALL) == coding


def test_what_the_server_does_not_offer_is_not_sent() -> None:
    assert choose_coding(b"br, gzip;q=0.1, zstd", ("gzip",)) == "gzip"
    assert choose_coding(b"br, zstd", ("gzip",)) is None
    assert choose_coding(b"*", ("zstd", "br")) is None
    assert choose_coding(b"gzip", ()) is None


@given(st.binary(max_size=200))
def test_no_header_is_too_odd_to_be_read(value: bytes) -> None:
    assert choose_coding(value, ALL) in (None, *ALL)


@given(
    st.dictionaries(st.sampled_from(["gzip", "br", "zstd", "identity", "*", "deflate"]), st.integers(0, 1000)),
    st.permutations(ALL),
)
def test_never_a_coding_that_was_refused_or_that_another_was_liked_better_than(
    wanted: dict[str, int], offered: list[str]
) -> None:
    value = ", ".join(f"{name};q={thousandths / 1000:.3f}" for name, thousandths in wanted.items()).encode()
    chosen = choose_coding(value, offered)

    def quality(coding: str) -> int:
        return wanted.get(coding, wanted.get("*", 0) if coding == "gzip" else 0)

    best = max(quality(coding) for coding in offered)
    if chosen is None:
        assert best == 0 or wanted.get("identity", 0) > best
    else:
        assert quality(chosen) == best > 0
        assert best >= wanted.get("identity", 0)
        assert all(quality(coding) < best for coding in offered[: offered.index(chosen)])


HTML = (b"content-type", b"text/html; charset=utf-8")
SSE = (b"Content-Type", b"Text/Event-Stream; charset=utf-8")


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (200, [HTML], Kind.BODY),
        (404, [HTML], Kind.BODY),
        (500, [(b"content-type", b"application/problem+json")], Kind.BODY),
        (200, [SSE], Kind.LIVE),
        (200, [(b"content-type", b"application/x-ndjson")], Kind.LIVE),
        (200, [(b"content-type", b"application/jsonl")], Kind.LIVE),
        (200, [SSE, (b"content-length", b"1000")], Kind.BODY),  # what states its length is no stream
        (101, [HTML], Kind.LEAVE),
        (204, [HTML], Kind.LEAVE),
        (205, [HTML], Kind.LEAVE),
        (206, [HTML], Kind.LEAVE),
        (304, [HTML], Kind.UNCHANGED),
        (200, [HTML, (b"Content-Range", b"bytes 0-5/10")], Kind.LEAVE),
        (416, [HTML, (b"content-range", b"bytes */10")], Kind.LEAVE),
        (200, [HTML, (b"Content-Encoding", b"br")], Kind.LEAVE),
        (200, [HTML, (b"content-encoding", b"identity")], Kind.LEAVE),  # how apps ask to be left alone
        (200, [HTML, (b"content-encoding", b"")], Kind.LEAVE),
        (200, [SSE, (b"cache-control", b"no-cache, No-Transform")], Kind.LEAVE),
        (200, [HTML, (b"cache-control", b'private="no-transform"')], Kind.BODY),
        (200, [HTML, (b"cache-control", b"no-transforms")], Kind.BODY),
        (200, [(b"content-type", b"image/png")], Kind.LEAVE),
        (200, [(b"content-type", b"image/svg+xml")], Kind.BODY),
        (200, [(b"content-type", b"video/mp4")], Kind.LEAVE),
        (200, [(b"content-type", b"application/zip")], Kind.LEAVE),
        (200, [(b"content-type", b"application/octet-stream")], Kind.LEAVE),
        (200, [(b"content-type", b"application/grpc")], Kind.LEAVE),
        (200, [(b"content-type", b"font/woff2")], Kind.LEAVE),
        (200, [(b"content-type", b"font/ttf")], Kind.BODY),
        (200, [(b"content-type", b"application/wasm")], Kind.BODY),
        (200, [(b"content-type", b"application/x-ours")], Kind.BODY),
        (200, [(b"content-type", b"")], Kind.LEAVE),
        (200, [], Kind.LEAVE),
    ],
)
def test_a_response_is_known_by_its_start(status: int, headers: list[tuple[bytes, bytes]], kind: Kind) -> None:
    assert look_at(status, headers, {b"application/x-ours"}).kind is kind


def test_a_look_tells_of_length_and_cookie_and_why_it_leaves_things_alone() -> None:
    look = look_at(200, [HTML, (b"Content-Length", b"1234"), (b"Set-Cookie", b"a=b")])
    assert (look.length, look.cookie, look.reason) == (1234, True, "")
    assert look_at(200, [HTML, (b"content-length", b"many")]).length is None
    assert look_at(200, [HTML, (b"content-encoding", b"br")]).reason == "encoded"
    assert look_at(200, [HTML, (b"cache-control", b"no-transform")]).reason == "no-transform"
    assert look_at(200, [(b"content-type", b"image/png"), (b"content-encoding", b"br")]).reason == ""


def test_what_is_true_of_the_identity_variant_only_goes() -> None:
    given = [
        HTML,
        (b"ETag", b'"abc"'),
        (b"Content-Length", b"10"),
        (b"Content-MD5", b"x"),
        (b"Digest", b"x"),
        (b"Content-Digest", b"x"),
        (b"Repr-Digest", b"x"),
        (b"Accept-Ranges", b"bytes"),
        (b"Vary", b"Cookie"),
        (b"X-Other", b"kept"),
    ]
    before = list(given)

    assert negotiation.coded(given, "gzip") == [
        HTML,
        (b"ETag", b'W/"abc"'),
        (b"vary", b"Cookie, Accept-Encoding"),
        (b"X-Other", b"kept"),
        (b"content-encoding", b"gzip"),
    ]
    assert negotiation.coded([HTML], "br", 7)[-2:] == [(b"content-encoding", b"br"), (b"content-length", b"7")]
    assert given == before


@pytest.mark.parametrize(
    ("vary", "merged"),
    [
        ([], [b"Accept-Encoding"]),
        ([b"Cookie"], [b"Cookie, Accept-Encoding"]),
        ([b"Cookie", b"Origin"], [b"Cookie, Origin, Accept-Encoding"]),
        ([b"accept-encoding"], [b"accept-encoding"]),
        ([b"*"], [b"*"]),
        ([b"Cookie", b"*"], [b"Cookie", b"*"]),
    ],
)
def test_vary_is_merged(vary: list[bytes], merged: list[bytes]) -> None:
    made = negotiation.varied([HTML, *((b"vary", value) for value in vary)])

    assert [value for name, value in made if name == b"vary"] == merged


@pytest.mark.parametrize(
    ("tag", "weakened"),
    [(b'"a"', b'W/"a"'), (b'""', b'W/""'), (b'W/"a"', b'W/"a"'), (b"w", b"w"), (b'"a', b'"a'), (b'w/"a"', b'w/"a"')],
)
def test_only_a_strong_tag_is_weakened(tag: bytes, weakened: bytes) -> None:
    assert negotiation.weak(tag) == weakened


@pytest.mark.parametrize(
    ("if_none_match", "tag"),
    [
        (b'W/"a"', b'W/"a"'),  # the client has a coded one
        (b'"b", W/"a"', b'W/"a"'),
        (b'"a"', b'"a"'),  # it has the other
        (b'W/"b"', b'"a"'),
        (b"*", b'"a"'),
        (None, b'"a"'),
    ],
)
def test_a_304_carries_the_tag_that_its_client_holds(if_none_match: bytes | None, tag: bytes) -> None:
    made = negotiation.unchanged([(b"etag", b'"a"')], if_none_match)

    assert made == [(b"etag", tag), (b"vary", b"Accept-Encoding")]


def test_digests_of_other_bytes_are_taken_out_of_trailers() -> None:
    trailers = [(b"Content-Digest", b"x"), (b"Server-Timing", b"y"), (b"repr-digest", b"z")]

    assert negotiation.without_digests(trailers) == [(b"Server-Timing", b"y")]
