"""What a request asks of a model: the length of its prompt, and of the answer that it wants."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware.wire.calibration import LEAST, MAX_MODELS, MOST, Calibration
from streamware.wire.prompt import MAX_VALUES, MEDIA_TOKENS, Asked, asked_by, decode
from streamware.wire.usage_events import UNREADABLE

PICTURE = "data:image/png;base64," + "A" * 5000


def read_request(body: bytes) -> Asked | None:
    try:
        return asked_by(decode(body), len(body))
    except UNREADABLE:
        return None


def asked(**request: Any) -> Asked | None:
    return read_request(json.dumps(request).encode())


@pytest.mark.parametrize(
    ("request_", "size"),
    [
        ({"messages": [{"role": "user", "content": "four"}]}, 4),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "four"}]}], "system": "five5"}, 9),
        ({"messages": [{"role": "user", "content": "灯台"}]}, 6),
        ({"prompt": "four"}, 4),
        ({"prompt": ["four", "four"]}, 8),
        ({"prompt": [1, 2, 3]}, 12),
        ({"input": [[1, 2], [3]]}, 12),
        ({"instructions": "four", "input": [{"role": "user", "content": "four"}]}, 8),
        ({"contents": [{"parts": [{"text": "four"}]}], "systemInstruction": {"parts": [{"text": "four"}]}}, 8),
        ({"messages": [], "tools": [{"type": "function", "function": {"name": "four"}}]}, 4),
        ({"messages": [{"content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}]}, 4 * MEDIA_TOKENS),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "a/bc", "data": PICTURE}}]}]}, 4 * MEDIA_TOKENS + 4),
        ({"messages": [{"content": [{"type": "image_url", "image_url": {"url": "https://a.example/b"}}]}]}, 19),
        ({"messages": None}, 0),
        ({"messages": [0, {"content": "four"}, 0]}, 12),
        ({"model": "m", "question": "four", "more": {"of": ["it"]}, "max_tokens": 7}, 6),
    ],
)
def test_the_prompt_is_its_texts(request_: dict[str, Any], size: int):
    found = asked(**request_)

    assert found is not None
    assert found.size == size
    assert found.prompt == -(-size // 4)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"a":1}', b'{"model":1}', b"{" * 100_000])
def test_what_is_no_request_to_a_model_asks_for_nothing(body: bytes):
    assert read_request(body) is None


@pytest.mark.parametrize("one", ['""', "{}", "[]", '{"a":""}'])
def test_no_more_values_are_looked_at_than_the_bound_and_what_has_more_is_taken_for_text(one: str):
    def body(count: int) -> bytes:
        return f'{{"messages":[{",".join([one] * count)}]}}'.encode()

    within, beyond = body(MAX_VALUES // 2 - 2), body(MAX_VALUES + 1)

    assert read_request(within) == Asked("", 0)
    assert read_request(beyond) == Asked("", len(beyond))


def test_the_name_of_the_model_is_kept_as_far_as_it_is_one():
    assert asked(model="m", prompt="x") == Asked("m", 1)
    assert asked(model=["m"], prompt="x") == Asked("", 1)
    assert asked(model="m" * 1000, prompt="x") == Asked("m" * 100, 1)


@pytest.mark.parametrize(
    ("given", "output"),
    [
        ({}, None),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 1, "max_completion_tokens": 9}, 9),
        ({"max_tokens": None, "max_output_tokens": 9}, 9),
        ({"max_tokens": 7.0}, 7),
        ({"max_tokens": True}, None),
        ({"max_tokens": 0}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 10**30}, None),
        ({"max_tokens": 7, "n": 2}, 14),
        ({"max_tokens": 7, "n": 2, "best_of": 3}, 21),
        ({"max_tokens": 7, "n": "2"}, 7),
        ({"options": {"num_predict": 7}}, 7),
        ({"options": [7]}, None),
        ({"generationConfig": {"maxOutputTokens": 7, "candidateCount": 2}}, 14),
    ],
)
def test_the_answers_length_is_the_greatest_that_is_named(given: dict[str, Any], output: int | None):
    found = asked(prompt="x", **given)

    assert found is not None
    assert found.output == output


KEYS = st.sampled_from(["url", "text", "n", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["messages", "prompt", "model", "max_tokens", "n", "options", "generationConfig", "tools"])


@given(request=st.dictionaries(NAMES, JSON, max_size=5))
def test_no_request_whatever_makes_it_raise(request: dict[str, Any]):
    found = read_request(json.dumps(request).encode())

    if found is not None:
        assert found.prompt >= 0
        assert found.output is None or found.output > 0


def test_a_factor_follows_what_proved_true():
    calibration = Calibration()
    assert calibration.factor("m") == 1.0
    calibration.learn("m", 100, 150)
    assert calibration.factor("m") == 1.5
    for _ in range(40):
        calibration.learn("m", 100, 80)
    assert calibration.factor("m") == pytest.approx(0.8, abs=0.01)
    assert calibration.factor("other") == 1.0


@pytest.mark.parametrize(("actual", "factor"), [(10**9, MOST), (1, LEAST)])
def test_a_factor_has_bounds(actual: int, factor: float):
    calibration = Calibration()
    calibration.learn("m", 1000, actual)

    assert calibration.factor("m") == factor


def test_what_is_too_little_teaches_nothing():
    calibration = Calibration()
    calibration.learn("m", 19, 40)
    calibration.learn("m", 100, 0)

    assert len(calibration) == 0


def test_no_more_models_are_kept_than_the_bound_and_the_newest_are():
    calibration = Calibration()
    for number in range(MAX_MODELS + 10):
        calibration.learn(f"{number}", 100, 200)
        calibration.learn("m", 100, 200)

    assert len(calibration) == MAX_MODELS
    assert calibration.factor("m") == 2.0
    assert calibration.factor("0") == 1.0
