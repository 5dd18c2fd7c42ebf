"""The fixtures of ``tests/fixtures/streams``, and what of each is to be counted.

Written by hand after the providers' public event shapes. ``whole``: with the usage that the provider reports at its
end; ``truncated``: the connection to the provider broke; ``error``: it ended with an error in band. Where nothing was
reported the text is counted, at four bytes a token, and the prompt is what the request gave reason to expect.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from streamware.wire.usage import Counts, TokenUsage
from streamware.wire.usage_body import Body, EventBody, LineBody, WholeBody, reader_of
from streamware.wire.usage_formats import read_whole

FOLDER = Path(__file__).parent.parent / "fixtures" / "streams"
PROMPT = 50
PATHS = {"own": "meta.spent.tokens"}


def reported(given: int, output: int, cached: int = 0, reasoning: int = 0) -> TokenUsage:
    return TokenUsage(given, output, cached, reasoning)


def estimated(given: int, output: int, cached: int = 0, reasoning: int = 0) -> TokenUsage:
    return TokenUsage(given, output, cached, reasoning, estimated=True)


@dataclass(frozen=True)
class Fixture:
    name: str
    expected: TokenUsage

    @property
    def data(self) -> bytes:
        return (FOLDER / self.name).read_bytes()

    @property
    def path(self) -> str | None:
        return PATHS.get(self.name.partition(".")[0])

    @property
    def media_type(self) -> bytes:
        kind = Path(self.name).suffix
        return {".sse": b"text/event-stream", ".ndjson": b"application/x-ndjson", ".json": b"application/json"}[kind]

    def body(self, counts: Counts) -> Body:
        made = {".sse": EventBody, ".ndjson": LineBody, ".json": WholeBody}[Path(self.name).suffix]
        if made is WholeBody:
            return WholeBody(counts, read_whole)
        return made(counts, reader_of(self.path))


FIXTURES = [
    Fixture("openai-chat.whole.sse", reported(27, 212, 16, 192)),
    Fixture("openai-chat.tools.sse", reported(81, 17)),
    Fixture("openai-chat.whole.json", reported(27, 21)),
    Fixture("openai-chat.no-usage.sse", estimated(PROMPT, 14)),
    Fixture("openai-chat.truncated.sse", estimated(PROMPT, 9)),
    Fixture("openai-chat.error.sse", estimated(PROMPT, 9)),
    Fixture("agent.whole.sse", reported(100, 15)),  # two responses, (40, 10) and (60, 5)
    Fixture("vllm-continuous.whole.sse", reported(19, 16)),
    Fixture("vllm-continuous.truncated.sse", reported(19, 10)),
    Fixture("vllm-continuous.error.sse", reported(19, 10)),
    Fixture("perplexity.whole.sse", reported(11, 24)),
    Fixture("perplexity.truncated.sse", reported(11, 13)),
    Fixture("perplexity.error.sse", reported(11, 13)),
    Fixture("openai-responses.whole.sse", reported(75, 186, 64, 128)),
    Fixture("openai-responses.incomplete.sse", reported(75, 186, 64, 128)),
    Fixture("openai-responses.failed.sse", reported(75, 40, 64, 128)),
    Fixture("openai-responses.whole.json", reported(75, 186, 64, 128)),
    Fixture("openai-responses.truncated.sse", estimated(PROMPT, 11)),
    Fixture("openai-responses.error.sse", estimated(PROMPT, 11)),
    Fixture("openai-realtime.whole.ndjson", reported(428, 243, 320)),  # (127, 148) and (301, 95)
    Fixture("openai-realtime.truncated.ndjson", estimated(127, 152, 64)),
    Fixture("openai-realtime.error.ndjson", estimated(127, 152, 64)),
    Fixture("anthropic.whole.sse", reported(2160, 94, 2048)),  # 12 + 100 + 2048
    Fixture("anthropic.tools.sse", reported(472, 89)),
    Fixture("anthropic.whole.json", reported(2160, 94, 2048)),
    Fixture("anthropic.truncated.sse", estimated(2160, 17, 2048)),
    Fixture("anthropic.error.sse", estimated(2160, 17, 2048)),
    Fixture("gemini.whole.sse", reported(22, 64, 6, 41)),  # 14 + 8 of tools, 23 + 41 of thoughts
    Fixture("gemini.whole.json", reported(22, 64, 6, 41)),
    Fixture("gemini.truncated.sse", reported(22, 51, 6, 41)),
    Fixture("gemini.error.sse", reported(22, 51, 6, 41)),
    Fixture("vertex.whole.sse", reported(22, 23, 6)),
    Fixture("vertex.truncated.sse", estimated(PROMPT, 9)),
    Fixture("ollama.whole.ndjson", reported(26, 282)),
    Fixture("ollama-generate.whole.ndjson", reported(26, 259)),
    Fixture("ollama.whole.json", reported(26, 282)),
    Fixture("ollama.cached.ndjson", estimated(PROMPT, 282)),
    Fixture("ollama.truncated.ndjson", estimated(PROMPT, 14)),
    Fixture("ollama.error.ndjson", estimated(PROMPT, 14)),
    Fixture("own.whole.sse", reported(0, 30)),
]
