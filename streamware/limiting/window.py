"""The arithmetic of a window, the same for both storages: whole units, whole milliseconds, no clock.

A counter is ``start``, what was used in the window that began then, ``current``, and in the one before, ``previous``.
What is left of that one is rounded down: else a limit of one a minute would be one in two minutes.
"""

from __future__ import annotations

from .base import INFINITY, Limit, Standing


def used(limit: Limit, current: int, previous: int, elapsed: int) -> int:
    """What counts against ``limit``, ``elapsed`` ms into the window."""
    if limit.fixed or not previous:
        return current
    width = limit.window * 1000
    return current + previous * (width - elapsed) // width


def standing(limit: Limit, cost: int, start: int, current: int, previous: int, now: int, taken: bool) -> Standing:
    """How things stand. ``taken``: ``cost`` is in ``current`` already."""
    elapsed = now - start
    remaining = limit.amount - (current if limit.fixed or not previous else used(limit, current, previous, elapsed))
    wait = 0.0 if taken else wait_for(limit, cost, current, previous, elapsed)
    if remaining > 0:
        return Standing(limit, remaining, limit.window - elapsed / 1000, wait, start)
    return Standing(limit, 0, wait_for(limit, 1, current, previous, elapsed), wait, start)


def wait_for(limit: Limit, cost: int, current: int, previous: int, elapsed: int) -> float:
    """Seconds until ``cost`` fits, if nothing else is taken."""
    most = limit.amount - cost
    if most < 0:
        return INFINITY
    if used(limit, current, previous, elapsed) <= most:
        return 0.0
    width = limit.window * 1000
    if limit.fixed:
        return (width - elapsed) / 1000
    if current <= most:
        return (_shrunk(previous, most - current, width) - elapsed) / 1000
    return (width - elapsed + _shrunk(current, most, width)) / 1000


def _shrunk(previous: int, most: int, width: int) -> int:
    """So many ms into a window ``previous``, of the one before, counts for no more than ``most``."""
    return max(0, width - (most + 1) * width // previous + 1) if most < previous else 0
