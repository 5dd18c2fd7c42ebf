"""The arithmetic of a window, the same for both storages: times in whole milliseconds, no clock.

A counter is ``start``, what was used in the window that began then, ``current``, and in the one before, ``previous``.
"""

from __future__ import annotations

from .base import INFINITY, Limit, Standing


def used(limit: Limit, current: int, previous: int, elapsed: int) -> float:
    """What counts against ``limit``, ``elapsed`` ms into the window."""
    if limit.fixed or not previous:
        return current
    width = limit.window * 1000
    return current + previous * (width - elapsed) / width


def standing(limit: Limit, cost: int, start: int, current: int, previous: int, now: int, taken: bool) -> Standing:
    """How things stand. ``taken``: ``cost`` is in ``current`` already."""
    elapsed = now - start
    amount = limit.amount
    count = current if limit.fixed or not previous else used(limit, current, previous, elapsed)
    remaining = int(amount - count) if count < amount else 0
    if taken and remaining:
        return Standing(limit, remaining, limit.window - elapsed / 1000, 0.0, start)
    wait = 0.0 if taken else wait_for(limit, cost, current, previous, elapsed)
    reset = limit.window - elapsed / 1000 if remaining else wait_for(limit, 1, current, previous, elapsed)
    return Standing(limit, remaining, reset, wait, start)


def wait_for(limit: Limit, cost: int, current: int, previous: int, elapsed: int) -> float:
    """Seconds until ``cost`` fits, if nothing else is taken."""
    most = limit.amount - cost
    if most < 0:
        return INFINITY
    width = limit.window * 1000
    if used(limit, current, previous, elapsed) <= most:
        return 0.0
    if limit.fixed:
        return (width - elapsed) / 1000
    if current <= most:  # what is left of the window before has to shrink
        return (width - (most - current) * width / previous - elapsed) / 1000
    return (width - elapsed + width - most * width / current) / 1000
