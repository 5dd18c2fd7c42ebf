"""Who answers: a text that lies beside this file, told word by word at the pace of a language model.

Deterministic on purpose: the same question gets the same words, so that a page can tell lost ones from repeated ones.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

MODEL = "keeper-of-the-light"
WORDS_PER_SECOND = 30.0

PARAGRAPHS = [
    re.findall(r"\S+\s*", paragraph + "\n\n")
    for paragraph in Path(__file__).with_name("text.txt").read_text(encoding="utf-8").strip().split("\n\n")
]


def words(question: str, limit: int | None = None) -> list[str]:
    """The answer to ``question``: the text from a paragraph on that the question decides, in words with the white
    space behind them; at most ``limit`` of them."""
    first = zlib.crc32(question.strip().encode()) % len(PARAGRAPHS)
    told = [word for paragraph in PARAGRAPHS[first:] + PARAGRAPHS[:first] for word in paragraph]
    return told[:limit]


async def tell(told: list[str], pace: float) -> AsyncIterator[str]:
    """``told``, ``pace`` words a second, by the clock: a late word does not make the next ones late."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for i, word in enumerate(told):
        await asyncio.sleep(max(0.0, begun + i / pace - loop.time()))
        yield word
