"""What metering costs: an event of each provider's, and a whole stream with its reservation and its settling.

All is CPU of this process, but a stream's with Redis, which is time on the clock, of one at a time. Beside it stands
what gateways do: cut the body at its blank lines, and ``json.loads`` each event.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Awaitable, Callable, Iterator

from examples.cluster.redis_server import RedisServer
from streamware import TokenBudgetMiddleware
from streamware.types import ASGIApp, Message, Receive, Scope, Send
from streamware.wire.usage import Counts
from streamware.wire.usage_body import Body, EventBody, LineBody

from .measure import BARE, OURS, Figure, Settings

TITLE = "What metering costs"
LOADS = "json.loads"
BATCH = 2000
EVENTS = 200

Feed = Callable[[bytes], object]


def compact(event: object) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()


WORDS = " lighthouse"
CHAT = {
    "id": "chatcmpl-BxQ7aT3mVn0EfGhIjKlMnOpQrStUv", "object": "chat.completion.chunk", "created": 1762000000,
    "model": "gpt-4.1-2025-04-14", "service_tier": "default", "system_fingerprint": "fp_3502f4eb73",
    "choices": [{"index": 0, "delta": {"content": WORDS}, "logprobs": None, "finish_reason": None}], "usage": None,
    "obfuscation": "a1B2c3",
}  # fmt: skip
VLLM = {**CHAT, "usage": {"prompt_tokens": 19, "total_tokens": 350, "completion_tokens": 331}}
RESPONSES = {
    "type": "response.output_text.delta", "sequence_number": 40, "item_id": "msg_68f1c0a7d2", "output_index": 1,
    "content_index": 0, "delta": WORDS, "logprobs": [], "obfuscation": "qZ8",
}  # fmt: skip
ANTHROPIC = {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": WORDS}}
GEMINI = {
    "candidates": [{"content": {"parts": [{"text": WORDS}], "role": "model"}, "index": 0}],
    "usageMetadata": {
        "promptTokenCount": 14, "candidatesTokenCount": 33, "totalTokenCount": 88, "thoughtsTokenCount": 41,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 14}],
    },
    "modelVersion": "gemini-2.5-flash", "responseId": "0cQJafW2HZ",
}  # fmt: skip
OLLAMA = {
    "model": "llama3.2", "created_at": "2025-11-01T09:00:00.000000Z",
    "message": {"role": "assistant", "content": WORDS}, "done": False,
}  # fmt: skip
CHAT_EVENT = b"data: %b\n\n" % compact(CHAT)

#: One message each, and how many events it has.
MESSAGES = {
    "OpenAI chat": (CHAT_EVENT, 1),
    "vLLM, usage in each": (b"data: %b\n\n" % compact(VLLM), 1),
    "OpenAI Responses": (b"event: %b\ndata: %b\n\n" % (b"response.output_text.delta", compact(RESPONSES)), 1),
    "Anthropic": (b"event: content_block_delta\ndata: %b\n\n" % compact(ANTHROPIC), 1),
    "Gemini": (b"data: %b\r\n\r\n" % compact(GEMINI), 1),
    "Ollama": (compact(OLLAMA) + b"\n", 1),
    "OpenAI chat, 20 events a message": (CHAT_EVENT * 20, 20),
    "an app of its own kind": (b'data: {"kind":"word","word":" lighthouse"}\n\n', 1),
}


async def run(settings: Settings) -> list[Figure]:
    figures = [an_event(settings, name, *message) for name, message in MESSAGES.items()]
    figures.append(await a_stream(settings))
    with RedisServer() as server:
        figures.append(await a_stream_on_redis(settings, server.url))
    return figures


def an_event(settings: Settings, name: str, message: bytes, events: int) -> Figure:
    """What the meter of a response does for one event, with the look at what is used by then."""
    feeds: dict[str, Callable[[], Feed]] = {
        OURS: lambda: ours(name == "Ollama"),
        LOADS: lambda: with_loads(name == "Ollama"),
    }
    values: dict[str, list[float]] = {variant: [] for variant in feeds}
    gc.collect()
    for _ in range(settings.rounds_of(25)):
        for variant, make in feeds.items():
            feed = make()
            feed(message)
            times = BATCH // events
            began = time.process_time()
            for _ in range(times):
                feed(message)
            values[variant].append((time.process_time() - began) / (times * events) * 1e6)
    figure = Figure(name, "µs an event", values, base=OURS, bounds={OURS: 2.0})
    figure.note = f"{len(message) // events} bytes an event"
    return figure


def ours(lines: bool) -> Feed:
    counts = Counts(prompt=20)
    body: Body = LineBody(counts) if lines else EventBody(counts)
    feed = body.feed

    def one(message: bytes) -> bool:
        feed(message)
        return counts.used > 1_000_000_000

    return one


def with_loads(lines: bool) -> Feed:
    end = b"\n" if lines else b"\n\n"
    pending = b""

    def one(message: bytes) -> int:
        nonlocal pending
        *blocks, pending = (pending + message.replace(b"\r\n", b"\n")).split(end)
        used = 0
        for block in blocks:
            event = json.loads(block[block.index(b"{") :])
            used += (event.get("usage") or {}).get("completion_tokens", 0)
        return used

    return one


# -- a whole stream


def app(events: int) -> ASGIApp:
    async def talk(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for _ in range(events):
            await send({"type": "http.response.body", "body": CHAT_EVENT, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    return talk


REQUEST = compact(
    {"model": "gpt-4.1", "stream": True, "max_tokens": 2000, "messages": [
        {"role": "system", "content": "You keep a lighthouse." * 10}, {"role": "user", "content": "How many ships?"}]}
)  # fmt: skip
SCOPE = {
    "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/v1/chat/completions",
    "raw_path": b"/", "root_path": "", "query_string": b"", "scheme": "http", "client": ("127.0.0.1", 50000),
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(REQUEST))],
    "server": ("127.0.0.1", 80),
}  # fmt: skip


def ask(asked: ASGIApp) -> Callable[[], Awaitable[None]]:
    async def receive() -> Message:
        return {"type": "http.request", "body": REQUEST, "more_body": False}

    async def send(message: Message) -> None:
        return None

    return lambda: asked(dict(SCOPE), receive, send)


async def a_stream(settings: Settings) -> Figure:
    """A stream of ``EVENTS`` events through the app in this process, with its settling."""
    talk = app(EVENTS)
    budget = TokenBudgetMiddleware(talk, limits="1000000000/minute", key="ip")
    values = await in_turn(settings, {BARE: ask(talk), OURS: ask(budget)}, time.process_time)
    await budget.aclose()
    figure = Figure(f"a stream of {EVENTS} events", "µs a stream", values)
    more = [(mine - bare) / EVENTS for mine, bare in zip(values[OURS], values[BARE], strict=True)]
    figure.note = f"the first is the bare app; {sorted(more)[len(more) // 2]:.2f} µs an event more, all in all"
    return figure


async def a_stream_on_redis(settings: Settings, url: str) -> Figure:
    """The same of one event, on the clock: two round trips, of which the client waits for the first."""
    talk = app(1)
    memory = TokenBudgetMiddleware(talk, limits="1000000000/minute", key="ip")
    redis = TokenBudgetMiddleware(talk, limits="1000000000/minute", key="ip", storage=url)
    await redis.startup()
    asks = {BARE: ask(talk), OURS: ask(memory), f"{OURS}, in Redis": ask(redis)}
    values = await in_turn(settings, asks, time.perf_counter)
    for budget in (memory, redis):
        await budget.aclose()
    figure = Figure("a stream of one event", "µs a stream", values)
    figure.note = "the first is the bare app; on the clock, one after the other"
    return figure


async def in_turn(
    settings: Settings, asks: dict[str, Callable[[], Awaitable[None]]], clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Microseconds a stream, of each in turn."""
    values: dict[str, list[float]] = {name: [] for name in asks}
    times = settings.pick(50, 10)
    for turn in counted(settings.rounds_of(25)):
        for name, one in asks.items():
            began = clock()
            for _ in range(times):
                await one()
                await asyncio.sleep(0)  # as between two requests of a server: the settler runs
            if turn:
                values[name].append((clock() - began) / times * 1e6)
    return values


def counted(rounds: int) -> Iterator[int]:
    """The first is not counted."""
    gc.collect()
    yield from range(rounds + 1)
