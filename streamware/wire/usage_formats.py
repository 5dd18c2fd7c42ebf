"""Where providers say what was used, and where what they wrote is to be found: the table.

| format | usage | text |
|---|---|---|
| OpenAI chat completions, vLLM, SGLang, Perplexity | ``usage`` of any chunk | deltas, reasoning, arguments of tools |
| OpenAI Responses, and Realtime over WebSocket | ``response.usage`` of whatever ends it | ``….delta`` |
| Anthropic messages | ``message.usage``, then ``usage`` of ``message_delta`` | ``content_block_delta`` |
| Gemini, Vertex | ``usageMetadata`` of any chunk | parts of candidates |
| Ollama | counts beside ``done: true`` | ``message``, ``response`` |
| an app of its own kind | at a path that is given | estimated from all of it |

Whole answers, that are no streams, have the same shapes. An event that is none of these says nothing; where a stream
has nothing else, all of it is taken for text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from .usage import BYTES_PER_TOKEN, Counts
from .usage_events import (
    UNREADABLE,
    Chunk,
    Event,
    GeminiChunk,
    Reported,
    decode,
    decode_chunk,
    decode_gemini,
    events_of,
    lenient_event,
    reported_at,
    size_of,
    size_of_json,
)

#: Bytes of sound that make a token: 50 ms of samples of 16 bits, 24,000 a second.
SOUND_PER_TOKEN = 2400

DONE = b"[DONE]"


def read(counts: Counts, data: bytes) -> None:
    """One event, one line or one message: its data."""
    if not try_read(counts, data):
        unreadable(counts, data)


def try_read(counts: Counts, data: bytes) -> bool:
    """The same of what may be no event. Whether it was one, known or not."""
    dialect = counts.dialect
    try:
        if dialect == "chat":
            chunk = decode_chunk(data)
            if chunk.choices is not None:
                _chat(counts, chunk)
                return True
        elif dialect == "gemini":
            part = decode_gemini(data)
            if part.candidates is not None:
                _gemini(counts, part)
                return True
        event = decode(data)
    except msgspec.ValidationError:
        found = lenient_event(data)
        if found is None:
            return False
        event = found
    except UNREADABLE:
        return False
    if not take(counts, event):
        counts.unknown += len(data.strip())
    return True


def read_whole(counts: Counts, data: bytes) -> None:
    """An answer that is no stream."""
    if data.lstrip()[:1] != b"[":
        read(counts, data)
        return
    events = events_of(data)  # Gemini's stream, where none was asked for
    if events is None or sum(take(counts, event) for event in events) == 0:
        unreadable(counts, data)


def read_at(counts: Counts, data: bytes, path: Sequence[str]) -> None:
    """One event of an app that says at ``path`` what it has used so far."""
    found = reported_at(data, path)
    if found is None:
        unreadable(counts, data)
        return
    counts.recognised = True
    counts.enter(None)
    if isinstance(found, int):
        counts.report(0, found)
    else:
        counts.report(*found.parts())


def unreadable(counts: Counts, data: bytes) -> None:
    """Something that is no event."""
    text = data.strip()
    if text == DONE:
        return
    counts.unknown += len(text)
    if text[:1] == b"{":
        counts.errors += 1
    else:  # bare words, among which a report, if it is one, covers no more than those before it
        counts.text(len(text))


def take(counts: Counts, event: Event) -> bool:
    """One event that was decoded. Whether anything in it is known."""
    if event.choices is not None:
        _chat(counts, event)
    elif event.candidates is not None:
        _gemini(counts, event)
    else:
        kind = event.type
        reader = None if kind is None else _BY_TYPE.get(kind)
        if reader is not None:
            reader(counts, event)
        elif kind is not None and (kind in _QUIET or kind.startswith(_OURS)):
            return True
        elif not _untyped(counts, event):
            return len(memoryview(event.error)) > 0
    if not counts.recognised:
        counts.recognised = True
        counts.dialect = _dialect(event)
    return True


def _dialect(event: Event) -> str:
    """Whose it is."""
    if event.choices is not None:
        return "chat"
    if event.type is not None and event.type.startswith("response."):
        return "responses"
    if event.type in _BY_TYPE:
        return "anthropic"
    if event.candidates is not None or event.usage_metadata is not None:
        return "gemini"
    return "ollama" if event.done is not None else ""


def _text(counts: Counts, text: str | None) -> None:
    if text is not None:
        counts.text(len(text) if text.isascii() else size_of(text))


def _reasoning(counts: Counts, text: str | None) -> None:
    if text:
        counts.reasoned = True
        counts.text(size_of(text))


def _report(counts: Counts, usage: Reported | None) -> None:
    if usage is not None:
        counts.report(*usage.parts())


# -- OpenAI's chat completions, and all who speak like them


def _chat(counts: Counts, event: Event | Chunk) -> None:
    name = event.id
    if name and name != counts.name:
        counts.enter(name)
    else:
        counts.current.events += 1
    for choice in event.choices or ():
        words = choice.delta or choice.message
        if words is not None:
            if text := words.content:
                counts.text(len(text) if text.isascii() else size_of(text))
            if words.tool_calls is not None:
                counts.text(sum(call.size for call in words.tool_calls))
            if words.reasoning_content is not None or words.reasoning is not None:
                _reasoning(counts, words.reasoning_content or words.reasoning)
            if words.refusal is not None:
                _text(counts, words.refusal)
        elif choice.text is not None:
            _text(counts, choice.text)
        if choice.finish_reason is not None:
            counts.finish()
    if (usage := event.usage) is not None:
        given, output = usage.prompt_tokens, usage.completion_tokens
        if given is None or output is None or usage.prompt_tokens_details or usage.completion_tokens_details:
            counts.report(*usage.parts())
        else:
            counts.report(given, output)


# -- Anthropic's messages


def _message_start(counts: Counts, event: Event) -> None:
    message = event.message
    if message is not None and not isinstance(message, str):
        counts.enter(message.id or None)
        _report(counts, message.usage)


def _content(counts: Counts, event: Event) -> None:
    counts.current.events += 1
    delta = event.delta
    if delta is None or isinstance(delta, str):
        return
    if (text := delta.text) is not None:
        counts.text(len(text) if text.isascii() else size_of(text))
    else:
        _text(counts, delta.partial_json)
        _reasoning(counts, delta.thinking)


def _message_end(counts: Counts, event: Event) -> None:
    counts.enter(event.id or None)
    counts.finish()
    _report(counts, event.usage)


# -- OpenAI's Responses and Realtime


def _delta(counts: Counts, event: Event) -> None:
    counts.enter(event.response_id)
    text = event.delta
    if isinstance(text, str):
        counts.text(len(text) if text.isascii() else size_of(text))


def _reasoning_delta(counts: Counts, event: Event) -> None:
    counts.enter(event.response_id)
    if isinstance(event.delta, str):
        _reasoning(counts, event.delta)


def _sound(counts: Counts, event: Event) -> None:
    counts.enter(event.response_id)
    if isinstance(event.delta, str):  # base64
        counts.text(len(event.delta) * 3 * BYTES_PER_TOKEN // (4 * SOUND_PER_TOKEN))


def _state(counts: Counts, event: Event) -> None:
    """The response itself; with its usage at last, however it ends."""
    response = event.response
    if response is not None and not isinstance(response, str):
        counts.enter(response.id or None)
        if event.type in _ENDS:
            counts.finish()
        _report(counts, response.usage)


# -- those whose events have no type


def _untyped(counts: Counts, event: Event) -> bool:
    """Whether anything in it is known."""
    if event.usage_metadata is not None:
        _gemini(counts, event)
    elif event.done is not None:
        _ollama(counts, event)
    elif event.usage is not None:
        counts.enter(event.id or None)
        counts.report(*event.usage.parts())
    elif isinstance(event.delta, str):  # the streams of UIs
        counts.enter(None)
        _text(counts, event.delta)
    else:
        return False
    return True


def _gemini(counts: Counts, event: Event | GeminiChunk) -> None:
    name = event.gemini_id
    if name and name != counts.name:
        counts.enter(name)
    else:
        counts.current.events += 1
    for candidate in event.candidates or ():
        content = candidate.content
        for part in (content.parts if content is not None else None) or ():
            if (text := part.text) is None:
                counts.text(size_of_json(part.function_call))
            else:
                if part.thought:
                    counts.reasoned = True
                counts.text(len(text) if text.isascii() else size_of(text))
        if candidate.finish_reason is not None:
            counts.finish()
    if (metadata := event.usage_metadata) is not None:
        given, output = metadata.prompt_token_count, metadata.candidates_token_count
        if given is not None and metadata.tool_use_prompt_token_count:
            given += metadata.tool_use_prompt_token_count
        thoughts = metadata.thoughts_token_count or 0
        if thoughts:
            output = thoughts if output is None else output + thoughts
        counts.report(given, output, metadata.cached_content_token_count or 0, thoughts)


def _ollama(counts: Counts, event: Event) -> None:
    counts.begin()
    counts.enter(None)
    message = event.message
    if message is not None and not isinstance(message, str):
        _text(counts, message.content)
        _reasoning(counts, message.thinking)
        if message.tool_calls is not None:
            counts.text(sum(call.size for call in message.tool_calls))
    if isinstance(event.response, str):
        _text(counts, event.response)
    _reasoning(counts, event.thinking)
    if event.done:
        counts.finish()
        # A prompt that was cached may have no count: it is estimated then, and not taken for none.
        counts.report(event.prompt_eval_count or None, event.eval_count)


#: Known, and of no interest: apps of other kinds have such events too.
_QUIET = frozenset({"content_block_start", "content_block_stop", "message_stop", "ping", "error", "keepalive"})
_OURS = ("response.", "conversation.", "session.", "input_audio_buffer.", "rate_limits.")
_ENDS = frozenset(f"response.{end}" for end in ("completed", "incomplete", "failed", "cancelled", "done"))
_BY_TYPE: dict[str, Callable[[Counts, Event], None]] = {
    "message_start": _message_start,
    "content_block_delta": _content,
    "message_delta": _message_end,
    "message": _message_end,
    **dict.fromkeys(("response.created", "response.queued", "response.in_progress", *_ENDS), _state),
    **{
        f"response.{kind}.delta": _delta
        for kind in (
            "output_text", "text", "refusal", "function_call_arguments", "mcp_call_arguments", "custom_tool_call_input",
            "code_interpreter_call_code", "audio_transcript", "output_audio_transcript", "audio.transcript",
        )
    },
    **dict.fromkeys(
        ("response.reasoning.delta", "response.reasoning_text.delta", "response.reasoning_summary_text.delta"),
        _reasoning_delta,
    ),
    **{f"response.{kind}.delta": _sound for kind in ("audio", "output_audio")},
}  # fmt: skip
