"""Codings: whatever the split of a body, it decodes to the same bytes, and each flush decodes at once."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import brotli
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from streamware.wire import codecs
from streamware.wire.codecs import Encoder, GzipStream


class Decoder(Protocol):
    def take(self, data: bytes) -> bytes: ...
    @property
    def ended(self) -> bool: ...


class Gzip:
    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(31)

    def take(self, data: bytes) -> bytes:
        return self._decoder.decompress(data)

    @property
    def ended(self) -> bool:
        return self._decoder.eof and not self._decoder.unused_data


class Brotli:
    def __init__(self) -> None:
        self._decoder: Any = brotli.Decompressor()

    def take(self, data: bytes) -> bytes:
        return bytes(self._decoder.process(data))

    @property
    def ended(self) -> bool:
        return bool(self._decoder.is_finished())


class Zstd:
    def __init__(self) -> None:
        self._decoder = zstd.ZstdDecompressor()

    def take(self, data: bytes) -> bytes:
        return self._decoder.decompress(data) if data else b""

    @property
    def ended(self) -> bool:
        return self._decoder.eof and not self._decoder.unused_data


DECODERS: dict[str, Callable[[], Decoder]] = {"gzip": Gzip, "br": Brotli, "zstd": Zstd}
#: What makes an encoder, and the coding that it is of.
MADE: dict[str, tuple[str, Callable[[], Encoder]]] = {
    "gzip body": ("gzip", lambda: codecs.body_encoder("gzip")),
    "br body": ("br", lambda: codecs.body_encoder("br")),
    "zstd body": ("zstd", lambda: codecs.body_encoder("zstd")),
    "zstd stream": ("zstd", lambda: codecs.stream_encoder("zstd")),
    **{
        f"gzip stream {window}": ("gzip", lambda window=window: codecs.stream_encoder("gzip", window))
        for window in codecs.MEMORY_LEVELS
    },
}

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":" %d"},"finish_reason":null}]}\n\n'
messages = st.lists(
    st.one_of(
        st.binary(max_size=300),
        st.integers(0, 9).map(lambda n: EVENT % n),
        st.just(b":\n"),
        st.binary(min_size=1, max_size=3).map(lambda data: data * 3000),
    ),
    max_size=12,
)


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=40)
@given(parts=messages, last=st.binary(max_size=300))
def test_each_flush_decodes_at_once_to_what_was_given(name: str, parts: list[bytes], last: bytes) -> None:
    coding, make = MADE[name]
    encoder, decoder = make(), DECODERS[coding]()

    for part in filter(None, parts):
        assert decoder.take(encoder.flush(part)) == part
    assert decoder.take(encoder.finish(last)) == last
    assert decoder.ended


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=40)
@given(parts=messages, last=st.binary(max_size=300))
def test_any_split_of_a_body_decodes_to_it(name: str, parts: list[bytes], last: bytes) -> None:
    coding, make = MADE[name]
    encoder, decoder = make(), DECODERS[coding]()

    coded = b"".join(encoder.encode(part) for part in filter(None, parts)) + encoder.finish(last)

    assert decoder.take(coded) == b"".join(parts) + last
    assert decoder.ended


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=40)
@given(parts=messages, filled=st.integers(0, 30))
def test_fillers_decode_to_nothing(name: str, parts: list[bytes], filled: int) -> None:
    coding, make = MADE[name]
    encoder, decoder = make(), DECODERS[coding]()

    for part in filter(None, parts):
        assert decoder.take(encoder.flush(part) + encoder.filler * filled) == part
    assert decoder.take(encoder.finish(b"end")) == b"end"
    assert decoder.ended


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=40)
@given(parts=messages, cuts=st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_however_the_network_cuts_it(name: str, parts: list[bytes], cuts: list[int]) -> None:
    coding, make = MADE[name]
    encoder, decoder = make(), DECODERS[coding]()
    coded = b"".join(encoder.flush(part) for part in filter(None, parts)) + encoder.finish(b"end")

    decoded, at, turn = b"", 0, 0
    while at < len(coded):
        step = cuts[turn % len(cuts)]
        decoded += decoder.take(coded[at : at + step])
        at, turn = at + step, turn + 1

    assert decoded == b"".join(parts) + b"end"
    assert decoder.ended


steps = st.lists(
    st.one_of(
        st.just("rest"),
        st.just("wake"),
        st.one_of(st.binary(min_size=1, max_size=80), st.integers(0, 9).map(lambda n: EVENT % n)),
    ),
    max_size=25,
)


@given(taken=steps, last=st.binary(max_size=100), window=st.sampled_from(sorted(codecs.MEMORY_LEVELS)))
def test_a_gzip_stream_may_rest_between_any_two_events(taken: list[str | bytes], last: bytes, window: int) -> None:
    encoder, decoder = GzipStream(window), Gzip()

    for step in taken:
        if step == "rest":
            encoder.rest()
            assert encoder.resting
        elif step == "wake":
            encoder.wake()
        elif isinstance(step, bytes):
            assert decoder.take(encoder.flush(step)) == step
    assert decoder.take(encoder.finish(last)) == last
    assert decoder.ended  # length and check of the whole member are right


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=15))
def test_what_may_not_have_been_sent_is_not_referred_to(run: list[tuple[int, bool]]) -> None:
    encoder, decoder = GzipStream(), Gzip()
    assert decoder.take(encoder.flush(EVENT % 0)) == EVENT % 0

    for number, lost in run:
        coded = encoder.flush(EVENT % number)
        if lost:
            encoder.forget()
        else:
            assert decoder.take(coded) == EVENT % number


def test_the_first_event_behind_a_rest_is_as_small_as_the_one_before_it() -> None:
    encoder = GzipStream()
    sizes = [len(encoder.flush(EVENT % n)) for n in range(9)]
    encoder.rest()
    behind = len(encoder.flush(EVENT % 9))

    assert sizes[0] > 80
    assert behind <= max(sizes[1:]) + 2


def test_a_heartbeat_wakes_nobody() -> None:
    woken: list[GzipStream] = []
    encoder = GzipStream(12, woken.append)
    assert len(encoder.flush(b":\n")) == 10 + 12
    assert (encoder.resting, woken) == (True, [])

    encoder.flush(EVENT % 1)
    assert (encoder.resting, woken) == (False, [encoder])
    encoder.rest()
    assert len(encoder.flush(b":\n")) == 12
    assert encoder.resting


def test_what_a_stream_at_rest_keeps_is_bounded() -> None:
    encoder = GzipStream()
    encoder.flush(b"x" * 1_000_000)
    encoder.rest()
    for _ in range(1000):
        encoder.flush(b"y" * codecs.TRIFLE)

    assert len(encoder.last) == codecs.HISTORY


def test_a_decoder_is_told_to_hand_out_by_the_block_that_it_may_wait_for() -> None:
    encoder = GzipStream()
    flushed = [encoder.flush(EVENT % 1), encoder.flush(EVENT % 2)]
    encoder.rest()
    flushed += [encoder.flush(b":\n"), encoder.flush(EVENT % 3)]

    assert all(coded.endswith(b"\0\0\xff\xff") for coded in flushed)  # RFC 1951, §3.2.4: empty, and at a byte


def test_zstd_keeps_to_the_window_that_browsers_take() -> None:
    for encoder in (codecs.body_encoder("zstd"), codecs.stream_encoder("zstd")):
        coded = b"".join(encoder.flush(bytes([n]) * 1_000_000) for n in range(20)) + encoder.finish(b"")
        frame = zstd.get_frame_info(coded)
        assert frame.decompressed_size is None
        exponent, mantissa = coded[5] >> 3, coded[5] & 7  # RFC 8878, §3.1.1.1.2
        assert (1 << (10 + exponent)) * (1 + mantissa / 8) <= 8 * 1024 * 1024  # RFC 9659


def test_what_is_not_installed_is_known_without_importing_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> None:
        if name == "brotli":
            return
        raise ModuleNotFoundError(name)

    codecs.installed.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(codecs, "find_spec", gone)
        assert not codecs.installed("br")
        assert not codecs.installed("zstd")  # not even the namespace that it would be in
    codecs.installed.cache_clear()
    assert codecs.installed("br")


def test_an_optional_codec_is_imported_with_its_first_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []
    real = codecs.import_module
    monkeypatch.setattr(codecs, "import_module", lambda name: imported.append(name) or real(name))

    codecs.body_encoder("gzip")
    codecs.stream_encoder("gzip")
    assert imported == []
    codecs.body_encoder("br")
    codecs.body_encoder("zstd")
    assert imported == ["brotli", "backports.zstd" if sys.version_info < (3, 14) else "compression.zstd"]
