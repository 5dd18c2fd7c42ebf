"""What a cursor gets: the table of the design, as one pure decision.

The rows that matter most: work is never started twice in silence, and a partial replay never looks whole. Native
EventSources die of any status but 200, and 204 is the only answer that ends them kindly, so they get control events
where others get a 410.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ..stores.base import Log, Outcome, Tombstone


@dataclass(frozen=True, slots=True)
class Follow:
    """Replay the log behind ``after`` and go on live. ``reset``: the reason to tell first that events are missing."""

    after: int
    reset: str | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """To the app, as a first request. ``reset``: the reason to tell that this is not the stream that was asked for."""

    reset: str | None = None


@dataclass(frozen=True, slots=True)
class NoContent:
    """204: there is nothing more, and never will be."""


@dataclass(frozen=True, slots=True)
class Gone:
    """410 with what is known: ``reason``, how it ended, and the earliest seq that can still be had."""

    reason: str
    outcome: Outcome | None = None
    earliest: int | None = None


@dataclass(frozen=True, slots=True)
class Await:
    """The cursor is ahead of the log: wait a moment for ``seq``, then ask again with ``waited=True``."""

    seq: int


Answer: TypeAlias = Follow | Start | NoContent | Gone | Await


def answer(
    seq: int,
    found: Log | Tombstone | None,
    *,
    eventsource_like: bool,
    may_restart: bool,
    on_done: str,
    on_expired: str,
    waited: bool = False,
) -> Answer:
    """The answer to a cursor of ours at ``seq``. ``found`` is None also where it is somebody else's: the two look
    alike from outside. ``may_restart``: the method is one that may be repeated, a GET; nothing else starts afresh
    without ``on_done="restart"``."""
    if found is None:
        if not eventsource_like or not may_restart:
            return Gone("unknown")
        return Start("unknown") if on_expired == "restart" else NoContent()
    if isinstance(found, Tombstone):
        return _ended(found.outcome, eventsource_like, on_done, "expired")
    if found.outcome is not None and seq == found.last:
        if found.last == 0 and found.outcome is Outcome.DONE and eventsource_like:
            return Start()  # it ended before its first event: an EventSource goes on as if there had been no log
        if found.outcome is Outcome.STOPPED or (found.outcome is Outcome.DONE and on_done == "stop"):
            return NoContent()
        return _ended(found.outcome, eventsource_like, on_done, "ended")
    if eventsource_like and found.unfinished and seq == found.last - 1 and found.outcome is not None:
        return _ended(found.outcome, eventsource_like, on_done, "ended")  # all that it can ever get an id of
    if seq > found.last:
        return _ahead(seq, found, eventsource_like, waited)
    if seq < found.first - 1:
        if eventsource_like:
            return Follow(found.first - 1, "gap")
        return Gone("gap", found.outcome, found.first)
    return Follow(seq)


def _ended(outcome: Outcome, eventsource_like: bool, on_done: str, reason: str) -> Answer:
    if on_done == "restart" and outcome is Outcome.DONE:
        return Start()
    if not eventsource_like:
        return Gone(reason, outcome)
    # A feed that lives by reconnects is to go on when its worker has come back, too; it is told that it has been cut.
    return Start(outcome.value) if on_done == "restart" and outcome is not Outcome.STOPPED else NoContent()


def _ahead(seq: int, log: Log, eventsource_like: bool, waited: bool) -> Answer:
    if log.outcome is None and not waited:
        return Await(seq)
    if eventsource_like:
        return NoContent() if log.outcome is not None else Follow(log.last, "ahead")
    return Gone("ahead", log.outcome, log.first)
