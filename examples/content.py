"""What the four example apps stream: the same bytes for the same number, so that any run can be compared to any other.

Event ``i`` (from 1 on) holds between 1 and 24 words drawn by a generator seeded with ``i``; every seventh has an event
name, every eleventh a second data line. ``Runs`` counts how often an endpoint's work was begun: a stream that survives
a dropped connection was begun once.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from functools import lru_cache

WORDS = (
    "river stone lantern harbour winter copper orchard signal thread meadow engine paper island mirror garden "
    "anchor violet thunder bridge Übermut naïve café 河 Ω"
).split()


@lru_cache(maxsize=4096)
def event(i: int) -> bytes:
    """Event number ``i`` as it goes over the wire."""
    draw = random.Random(i)
    words = [draw.choice(WORDS) for _ in range(draw.randint(1, 24))]
    name = "event: chapter\n" if i % 7 == 0 else ""
    more = f"data: {draw.random()}\n" if i % 11 == 0 else ""
    return f"{name}data: {json.dumps({'i': i, 'text': ' '.join(words)}, ensure_ascii=False)}\n{more}\n".encode()


def body(n: int) -> bytes:
    """The whole body of a stream of ``n`` events."""
    return b"".join(event(i) for i in range(1, n + 1))


class Runs:
    """How often work was begun, in all and by the label that a request may carry (``run=``)."""

    def __init__(self) -> None:
        self._labels: Counter[str] = Counter()

    def begin(self, label: str = "") -> None:
        self._labels[label] += 1

    def report(self) -> dict[str, object]:
        return {"total": self._labels.total(), "labels": dict(self._labels)}
