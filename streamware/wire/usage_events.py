"""The parts of providers' events that say what was used, and what was written meanwhile: everything else is skipped.

One shape serves all providers, for their names hardly ever meet: where they do, a field takes either's. An event whose
fields have other types than they should is read once more, leniently: numbers as ``1.0`` or ``"1"``, texts as lists of
parts; a field that makes no sense at all is left out, and only that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Raw, Struct, field

from .usage import MAX_TOKENS

#: What reading raises: of no JSON, of wrong types, of bytes that are no UTF-8, of a thousand brackets.
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class Details(Struct, gc=False):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Reported(Struct, gc=False):
    """What OpenAI, Anthropic and those who speak like them call ``usage``."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None
    input_tokens_details: Details | None = None
    output_tokens_details: Details | None = None
    input_token_details: Details | None = None
    output_token_details: Details | None = None

    def parts(self) -> tuple[int | None, int | None, int, int]:
        """Input and output, None where it does not say, and of these what was cached, and what was reasoning.

        Anthropic's ``input_tokens`` leave out what went through its cache; OpenAI's have it in them.
        """
        given = self.prompt_tokens
        cached = 0
        if given is None and (given := self.input_tokens) is not None:
            if self.cache_creation_input_tokens:
                given += self.cache_creation_input_tokens
            if self.cache_read_input_tokens:
                cached = self.cache_read_input_tokens
                given += cached
        output = self.completion_tokens
        if output is None:
            output = self.output_tokens
        details = self.prompt_tokens_details or self.input_tokens_details or self.input_token_details
        if details is not None and details.cached_tokens:
            cached = details.cached_tokens
        details = self.completion_tokens_details or self.output_tokens_details or self.output_token_details
        return given, output, cached, (details.reasoning_tokens or 0) if details is not None else 0


class Metadata(Struct, gc=False, rename="camel"):
    """What Gemini calls ``usageMetadata``. ``promptTokenCount`` has what was cached in it."""

    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None


class Function(Struct, gc=False):
    name: str | None = None
    arguments: Raw = Raw()  # a text at OpenAI, an object at Ollama


class ToolCall(Struct, gc=False):
    function: Function | None = None

    @property
    def size(self) -> int:
        """Bytes of what the model wrote to make the call."""
        function = self.function
        if function is None:
            return 0
        return size_of(function.name or "") + size_of_json(function.arguments)


class Words(Struct, gc=False):
    """What a message, or the next part of one, says. ``id`` and ``usage``: of Anthropic's messages."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking: str | None = None
    text: str | None = None
    partial_json: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    id: str | None = None
    usage: Reported | None = None


class Choice(Struct, gc=False):
    delta: Words | None = None
    finish_reason: str | None = None
    message: Words | None = None
    text: str | None = None


class Response(Struct, gc=False):
    id: str | None = None
    usage: Reported | None = None


class Part(Struct, gc=False, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    function_call: Raw = Raw()


class Content(Struct, gc=False):
    parts: list[Part] | None = None


class Candidate(Struct, gc=False, rename="camel"):
    content: Content | None = None
    finish_reason: str | None = None


class Event(Struct, gc=False):
    """One event of anybody's."""

    id: str | None = None
    type: str | None = None
    choices: list[Choice] | None = None
    usage: Reported | None = None
    delta: str | Words | None = None
    response_id: str | None = None
    response: str | Response | None = None
    message: str | Words | None = None
    candidates: list[Candidate] | None = None
    usage_metadata: Metadata | None = field(default=None, name="usageMetadata")
    gemini_id: str | None = field(default=None, name="responseId")
    done: bool | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    thinking: str | None = None
    error: Raw = Raw()


class Chunk(Struct, gc=False):
    """The same of a stream that is known to be one of chat completions: the fewer names, the faster they are found."""

    id: str | None = None
    choices: list[Choice] | None = None
    usage: Reported | None = None


class GeminiChunk(Struct, gc=False):
    """The same of Gemini's."""

    candidates: list[Candidate] | None = None
    usage_metadata: Metadata | None = field(default=None, name="usageMetadata")
    gemini_id: str | None = field(default=None, name="responseId")


decode = msgspec.json.Decoder(Event).decode
decode_chunk = msgspec.json.Decoder(Chunk).decode
decode_gemini = msgspec.json.Decoder(GeminiChunk).decode
_decode_array = msgspec.json.Decoder(list[Event]).decode
_decode_anything = msgspec.json.Decoder().decode


def lenient_event(data: bytes) -> Event | None:
    """What ``data`` says, where ``decode`` refuses it; None where it is no JSON object."""
    try:
        return cast("Event | None", _lenient(Event, _decode_anything(data)))
    except UNREADABLE:
        return None


def events_of(data: bytes) -> list[Event] | None:
    """The same of an array of such objects."""
    try:
        return _decode_array(data)
    except msgspec.ValidationError:
        found: object = _decode_anything(data)
    except UNREADABLE:
        return None
    return cast("list[Event]", _lenient(list[Event], found))


def reported_at(data: bytes, path: Sequence[str]) -> int | Reported | None:
    """What stands at ``path`` in ``data``: a number, or an object with a provider's names; None where neither does."""
    try:
        found: object = _decode_anything(data)
    except UNREADABLE:
        return None
    for name in path:
        if not isinstance(found, dict):
            return None
        found = cast("dict[str, object]", found).get(name)
    if isinstance(found, dict):
        return cast("Reported | None", _lenient(Reported, cast("object", found)))
    return _integer(found)


def size_of(text: str) -> int:
    """Its bytes in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def size_of_json(raw: Raw) -> int:
    """About as many bytes as what ``raw`` holds has; of a text its own."""
    size = len(memoryview(raw))
    return max(0, size - 2) if size and memoryview(raw)[0] == 0x22 else size


# -- lenient reading


def _lenient(kind: Any, value: object) -> object:
    """``value`` as a ``kind``, or None: whatever in it makes no sense is left out."""
    if kind is str:
        return _text(value)
    if kind is int:
        return _integer(value)
    if kind is bool:
        return value if isinstance(value, bool) else None
    if kind is Raw:
        return Raw() if value is None else Raw(msgspec.json.encode(value))
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        for option in get_args(kind):
            if option is not NoneType and (found := _lenient(option, value)) is not None:
                return found
        return None
    if origin is list:
        if not isinstance(value, list):
            return None
        items = [_lenient(get_args(kind)[0], item) for item in cast("list[object]", value)]
        return [item for item in items if item is not None]
    if not isinstance(value, dict):
        return None
    given = cast("dict[str, object]", value)
    hints = _hints(kind)
    found = {
        each.name: _lenient(hints[each.name], given[each.encode_name])
        for each in msgspec.structs.fields(kind)
        if each.encode_name in given
    }
    return kind(**found)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _text(value: object) -> str | None:
    """A text, or the texts of a list of parts."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return None
    parts = cast("list[object]", value)
    texts = [cast("dict[str, object]", part).get("text") if isinstance(part, dict) else part for part in parts]
    return "".join(text for text in texts if isinstance(text, str))


def _integer(value: object) -> int | None:
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TOKENS:
        return None
    return int(value)
