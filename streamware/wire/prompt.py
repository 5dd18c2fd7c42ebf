"""What a request to a model asks for: how long its prompt is, and how long an answer it wants.

Rules:

1. It is an estimate, made before anybody has counted: four bytes of UTF-8 text are a token, a picture or a sound is
   ``MEDIA_TOKENS``. What the provider reports takes its place.
2. Of several names for the length of the answer the greatest number counts: else one that the provider ignores would
   make a long answer cheap.
3. Nothing is believed: numbers that make no sense are left out, and a request that cannot be read asks for nothing.
4. No more than ``MAX_VALUES`` values are looked at, for it holds up everybody else: a request that has more is
   taken for text, all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import msgspec

from .usage import BYTES_PER_TOKEN
from .usage_events import size_of

MEDIA_TOKENS = 1000
MAX_ANSWERS = 128
MAX_MODEL = 100
MAX_VALUES = 20_000
#: Longer texts under these names are encoded media.
_MEDIA = frozenset({"data", "file_data", "b64_json", "url", "image_url", "audio", "image"})
_MEDIA_BYTES = 512
_NO_TEXT = frozenset({"type", "role"})

_TEXTS = (
    "messages", "system", "instructions", "prompt", "input", "contents", "systemInstruction", "system_instruction",
    "tools", "functions", "suffix", "context",
)  # fmt: skip
_LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "num_predict")
_NESTED = {
    "options": "num_predict",
    "generationConfig": "maxOutputTokens",
    "generation_config": "max_output_tokens",
}
_ANSWERS = (("", "n"), ("", "best_of"), ("generationConfig", "candidateCount"))

#: The request in a body. Raises one of ``UNREADABLE`` where that is no JSON, so that it may hide what it asks for.
decode: Callable[[bytes], object] = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Asked:
    """``model``: its name, "" where none is given; ``size``: bytes of the prompt's text; ``output``: tokens that it
    wants at most, None where it does not say."""

    model: str = ""
    size: int = 0
    output: int | None = None

    @property
    def prompt(self) -> int:
        """Tokens of the prompt, by four bytes each."""
        return -(-self.size // BYTES_PER_TOKEN)


def asked_by(request: object, length: int) -> Asked | None:
    """What ``request`` asks for, whose body was so long; None where it is nothing for a model. Of one that names a
    model, and whose texts stand under names that nobody knows, all texts are its prompt."""
    if not isinstance(request, dict):
        return None
    given = cast("dict[str, object]", request)
    texts = [given[name] for name in _TEXTS if name in given]
    model = given.get("model")
    if not texts:
        if not isinstance(model, str):
            return None
        texts = [value for name, value in given.items() if name != "model"]
    lengths = [_number(given.get(name)) for name in _LENGTHS]
    lengths += [_number(_in(given, place).get(name)) for place, name in _NESTED.items()]
    wanted = [length for length in lengths if length]
    answers = max(_number((_in(given, place) if place else given).get(name)) for place, name in _ANSWERS)
    return Asked(
        model[:MAX_MODEL] if isinstance(model, str) else "",
        _size(texts, length),
        max(wanted) * min(max(1, answers), MAX_ANSWERS) if wanted else None,
    )


def _in(given: Mapping[str, object], place: str) -> Mapping[str, object]:
    found = given.get(place)
    return cast("dict[str, object]", found) if isinstance(found, dict) else {}


def _number(value: object) -> int:
    """``value`` where it is a count; 0 where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 10**9:
        return 0
    return int(value)


def _size(values: list[object], most: int) -> int:
    """Bytes of the text in ``values``, whatever they are made of; ``most`` where they are too many."""
    size = 0
    seen = len(values)
    left: list[tuple[str, object]] = [("", value) for value in values]
    while left:
        name, value = left.pop()
        if isinstance(value, str):
            if name in _MEDIA and len(value) > _MEDIA_BYTES:
                size += MEDIA_TOKENS * BYTES_PER_TOKEN
            elif name not in _NO_TEXT:
                size += size_of(value)
        elif isinstance(value, dict):
            inner = cast("dict[str, object]", value)
            if (seen := seen + len(inner)) > MAX_VALUES:
                return most
            left += inner.items()
        elif isinstance(value, list):
            items = cast("list[object]", value)
            rest = [item for item in items if item.__class__ is not int]
            size += BYTES_PER_TOKEN * (len(items) - len(rest))  # tokens already
            if (seen := seen + len(rest)) > MAX_VALUES:
                return most
            left += [(name, item) for item in rest]
    return size
