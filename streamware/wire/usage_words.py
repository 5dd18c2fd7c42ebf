"""What a client is told about a token budget, beside the head of a response: that its stream is cut off, in its
provider's own shape; what it used; that its request is too large."""

from __future__ import annotations

import msgspec

from .denial import Denial
from .ratelimit import QUOTA_EXCEEDED, Style, error_body
from .sse import comment, control_event
from .usage import TokenUsage

CODE = "rate_limit_exceeded"
MESSAGE = "The token budget is used up, so the answer ends here."


def too_large(*, style: Style = "problem") -> Denial:
    """429: it would use more than there ever is. There is no time after which to come again."""
    title = "Larger than the token budget"
    detail = "The prompt alone is larger than the whole budget."
    body = error_body(style, 429, f"{title}. {detail}", unit="tokens")
    headers = ((b"x-should-retry", b"false"),)
    return Denial(429, title, detail, headers=headers, type=QUOTA_EXCEEDED, json_body=body)


def cut_off(dialect: str, *, lines: bool, style: Style = "problem") -> bytes:
    """The event, or the line, that says that the stream was cut off. ``dialect``: of the stream, as ``Counts`` knows
    it; where it knows none, ``style`` says whose."""
    if lines:
        told: dict[str, object] = {"error": MESSAGE}
        return msgspec.json.encode(told) + b"\n"
    if not dialect:
        dialect = style
    error: dict[str, object] = {"message": MESSAGE, "type": "tokens", "param": None, "code": CODE}
    if dialect == "anthropic":
        return _event(b"error", {"type": "error", "error": {"type": "rate_limit_error", "message": MESSAGE}})
    if dialect == "responses":  # typed for those who read its events, and with what makes SDKs raise
        return _event(b"error", {"type": "error", "code": CODE, "message": MESSAGE, "param": None, "error": error})
    if dialect == "gemini":
        return _event(b"", {"error": {"code": 429, "message": MESSAGE, "status": "RESOURCE_EXHAUSTED"}})
    return _event(b"" if dialect in ("openai", "chat") else b"error", {"error": error})


def cut_off_message() -> str:
    """The same over a WebSocket, in the shape of OpenAI's Realtime."""
    error = {"type": "rate_limit_error", "code": CODE, "message": MESSAGE, "param": None}
    return msgspec.json.encode({"type": "error", "error": error}).decode()


def report(usage: TokenUsage, remaining: int | None, *, event: bool) -> bytes:
    """What was used: ``event: streamware.usage`` for who reads control events, a comment for everybody else."""
    told: dict[str, object] = {
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "total_tokens": usage.total,
        "estimated": usage.estimated,
    }
    if remaining is not None:
        told["remaining"] = remaining
    if event:
        return control_event("usage", told)
    return comment(f"usage {msgspec.json.encode(told).decode()}")


def _event(name: bytes, data: dict[str, object]) -> bytes:
    head = b"event: %b\n" % name if name else b""
    return b"%bdata: %b\n\n" % (head, msgspec.json.encode(data))
