"""What a cursor gets: the design's table, row by row, for EventSource-likes and for others, under every option."""

from __future__ import annotations

import itertools

import pytest

from streamware.stores.base import Head, Log, Outcome, Tombstone
from streamware.stores.memory import MemoryStore
from streamware.streams.answer import Answer, Await, Follow, Gone, NoContent, Start, answer
from streamware.testing import FakeClock
from streamware.wire.cursor import new_stream_id

HEAD = Head("", "client:a", "/chat", "GET", 200, (), "text/event-stream")
DONE, FAILED, STOPPED, INTERRUPTED = Outcome


async def a_log(first: int, last: int, outcome: Outcome | None) -> Log:
    """A log that holds the events ``first`` to ``last``."""
    store = MemoryStore(max_log_events=max(1, last - first + 1), clock=FakeClock())
    log = await store.create(new_stream_id(store.tag), HEAD, window=10**6)
    reader = log.reader(0)
    for _ in range(last):
        log.append(b"x")
        await reader.read()
    reader.close()
    if outcome is not None:
        log.close(outcome)
    assert (log.first, log.last) == (first, last)
    return log


def tombstone(outcome: Outcome) -> Tombstone:
    return Tombstone("", "/chat", "GET", outcome, 5)


def every(
    like: Answer, others: Answer, *, on_done: str = "stop restart", on_expired: str = "restart gone"
) -> list[tuple[bool, str, str, Answer]]:
    """The answers of one row, for every combination of the options that it holds for."""
    combinations = list(itertools.product(on_done.split(), on_expired.split()))
    return [(True, *options, like) for options in combinations] + [
        (False, *options, others) for options in combinations
    ]


# (row, (first, last, outcome) of a log, or a tombstone's outcome, or None; seq; waited; answers)
LOG = (1, 5)
TRIMMED = (3, 5)
ROWS = [
    # unknown, no tombstone; another owner's, path or method looks the same
    ("unknown", None, 3, False, every(Start("unknown"), Gone("unknown"), on_expired="restart")),
    ("unknown, gone", None, 3, False, every(NoContent(), Gone("unknown"), on_expired="gone")),
    ("unknown, at 0", None, 0, False, every(Start("unknown"), Gone("unknown"), on_expired="restart")),
    # caught up
    ("running, caught up", (*LOG, None), 5, False, every(Follow(5), Follow(5))),
    ("done, caught up", (*LOG, DONE), 5, False, every(NoContent(), NoContent(), on_done="stop")),
    ("done, caught up, restart", (*LOG, DONE), 5, False, every(Start(), Start(), on_done="restart")),
    ("stopped, caught up", (*LOG, STOPPED), 5, False, every(NoContent(), NoContent())),
    *(
        (f"{cut}, caught up{more}", (*LOG, cut), 5, False, every(like, Gone("ended", cut), on_done=on_done))
        for cut in (FAILED, INTERRUPTED)
        for more, on_done, like in (("", "stop", NoContent()), (", restart", "restart", Start(cut)))
    ),
    # it ended before its first event: an EventSource lives on as it would without us
    ("done at 0", (1, 0, DONE), 0, False, every(Start(), NoContent(), on_done="stop")),
    ("done at 0, restart", (1, 0, DONE), 0, False, every(Start(), Start(), on_done="restart")),
    ("stopped at 0", (1, 0, STOPPED), 0, False, every(NoContent(), NoContent())),
    ("failed at 0", (1, 0, FAILED), 0, False, every(NoContent(), Gone("ended", FAILED), on_done="stop")),
    # behind: the rest of it, whatever became of it
    ("running, behind", (*LOG, None), 2, False, every(Follow(2), Follow(2))),
    ("running, from the start", (*LOG, None), 0, False, every(Follow(0), Follow(0))),
    *((f"{outcome}, behind", (*LOG, outcome), 2, False, every(Follow(2), Follow(2))) for outcome in Outcome),
    # expired, and the tombstone says that it ended
    ("expired done", DONE, 5, False, every(NoContent(), Gone("expired", DONE), on_done="stop")),
    ("expired done, restart", DONE, 5, False, every(Start(), Start(), on_done="restart")),
    ("expired stopped", STOPPED, 5, False, every(NoContent(), Gone("expired", STOPPED))),
    ("expired failed", FAILED, 5, False, every(NoContent(), Gone("expired", FAILED), on_done="stop")),
    ("expired failed, restart", FAILED, 5, False, every(Start("failed"), Gone("expired", FAILED), on_done="restart")),
    ("expired interrupted", INTERRUPTED, 2, False, every(NoContent(), Gone("expired", INTERRUPTED), on_done="stop")),
    # trimmed: older than the log holds
    ("trimmed, running", (*TRIMMED, None), 1, False, every(Follow(2, "gap"), Gone("gap", None, 3))),
    ("trimmed, done", (*TRIMMED, DONE), 0, False, every(Follow(2, "gap"), Gone("gap", DONE, 3))),
    ("just not trimmed", (*TRIMMED, None), 2, False, every(Follow(2), Follow(2))),
    ("trimmed, caught up", (*TRIMMED, DONE), 5, False, every(NoContent(), NoContent(), on_done="stop")),
    # ahead of the log
    ("ahead", (*LOG, None), 9, False, every(Await(9), Await(9))),
    ("ahead, waited", (*LOG, None), 9, True, every(Follow(5, "ahead"), Gone("ahead", None, 1))),
    ("ahead, trimmed, waited", (*TRIMMED, None), 9, True, every(Follow(5, "ahead"), Gone("ahead", None, 3))),
    ("ahead, reached", (*LOG, None), 5, True, every(Follow(5), Follow(5))),
    ("ahead of an ended log", (*LOG, FAILED), 9, False, every(NoContent(), Gone("ahead", FAILED, 1))),
    ("ahead of an empty log, waited", (1, 0, None), 1, True, every(Follow(0, "ahead"), Gone("ahead", None, 1))),
]


@pytest.mark.parametrize(("kept", "seq", "waited", "answers"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
async def test_the_table(
    kept: tuple[int, int, Outcome | None] | Outcome | None,
    seq: int,
    waited: bool,
    answers: list[tuple[bool, str, str, Answer]],
) -> None:
    found: Log | Tombstone | None = None
    if isinstance(kept, Outcome):
        found = tombstone(kept)
    elif kept is not None:
        found = await a_log(*kept)
    for like, on_done, on_expired, expected in answers:
        given = answer(
            seq, found, eventsource_like=like, may_restart=True, on_done=on_done, on_expired=on_expired, waited=waited
        )
        assert given == expected, (like, on_done, on_expired)


async def test_an_eventsource_that_has_all_but_an_unfinished_end_is_caught_up() -> None:
    """Browsers drop such an end and so never come past it; others may use it."""
    log = await a_log(1, 5, None)
    log.unfinished = True
    assert answer(4, log, eventsource_like=True, may_restart=True, on_done="stop", on_expired="restart") == Follow(4), (
        "more may come"
    )
    log = await a_log(1, 5, DONE)
    log.unfinished = True
    assert answer(4, log, eventsource_like=True, may_restart=True, on_done="stop", on_expired="restart") == NoContent()
    assert answer(4, log, eventsource_like=True, may_restart=True, on_done="restart", on_expired="restart") == Start()
    assert answer(3, log, eventsource_like=True, may_restart=True, on_done="stop", on_expired="restart") == Follow(3)
    assert answer(4, log, eventsource_like=False, may_restart=True, on_done="stop", on_expired="restart") == Follow(4)


async def test_nobody_but_an_eventsource_starts_work_twice_unless_asked_to() -> None:
    for outcome in (None, *Outcome):
        for last in (0, 5):
            log = await a_log(1, last, outcome)
            found: list[Log | Tombstone | None] = [None, log]
            if outcome is not None:
                found.append(tombstone(outcome))
            for what, seq, waited in itertools.product(found, range(7), (False, True)):
                given = answer(
                    seq,
                    what,
                    eventsource_like=False,
                    may_restart=True,
                    on_done="stop",
                    on_expired="restart",
                    waited=waited,
                )
                assert not isinstance(given, Start)


async def test_waiting_once_is_enough() -> None:
    log = await a_log(1, 5, None)
    for like in (True, False):
        given = answer(
            99, log, eventsource_like=like, may_restart=True, on_done="stop", on_expired="restart", waited=True
        )
        assert not isinstance(given, Await)


def test_what_must_not_be_repeated_does_not_start_afresh() -> None:
    """A POST may ask for control events too; that makes it no GET."""
    given = answer(3, None, eventsource_like=True, may_restart=False, on_done="stop", on_expired="restart")
    assert given == Gone("unknown")
