"""Who in this process listens to announcements, by topic.

Rules:

1. A listener that fails takes the message from nobody else. It is logged, without the message.
2. Once a listener has ended it is called no more, even for a message that is just being told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

logger = logging.getLogger("streamware.stores")

Hear = Callable[[bytes], None]


class Listeners:
    """The listeners of one store."""

    __slots__ = ("_by_topic",)

    def __init__(self) -> None:
        self._by_topic: dict[str, dict[object, Hear]] = {}

    @property
    def topics(self) -> frozenset[str]:
        """What is listened to."""
        return frozenset(self._by_topic)

    def add(self, topic: str, hear: Hear) -> Callable[[], None]:
        """One more listener, until what is returned is called; harmless twice."""
        key = object()  # the same callable may listen twice
        self._by_topic.setdefault(topic, {})[key] = hear

        def end() -> None:
            listening = self._by_topic.get(topic, {})
            if listening.pop(key, None) is not None and not listening:
                del self._by_topic[topic]

        return end

    def tell(self, topic: str, message: bytes) -> None:
        """Call all listeners of ``topic``."""
        listening = self._by_topic.get(topic, {})
        for key, hear in list(listening.items()):
            if key in listening:
                try:
                    hear(message)
                except Exception:
                    logger.exception("a listener to announcements failed")
