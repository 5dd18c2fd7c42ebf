"""The record that Streamware's middlewares share for one request or connection, kept in the scope.

The first of them to see a scope copies it and puts the record in; those further in find it. Servers' and apps' own
scope objects are never changed.
"""

from __future__ import annotations

from .types import Scope

KEY = "streamware"


class Record:
    """``rank``: of the innermost middleware entered so far (guards the order). ``entered``: that middleware's name.
    ``denied``: the answer under way is a refusal that Streamware made, so no log must be made of it. ``drain``: of the
    worker, for whoever has connections that it may want to end. ``followed``: the response under way is read from a
    log. ``gates``: of throttles further out, for whoever runs the app (``streams/gates.py``)."""

    __slots__ = ("denied", "drain", "entered", "followed", "gates", "rank")

    def __init__(self) -> None:
        self.rank = 0
        self.entered = ""
        self.denied = False
        self.drain: object = None  # a ``Drain``: not known so far down
        self.followed = False
        self.gates: tuple[object, ...] = ()


def record_of(scope: Scope) -> Record | None:
    """The record in ``scope``, or None where no middleware of ours has entered it."""
    record = scope.get(KEY)
    return record if isinstance(record, Record) else None


def is_followed(scope: Scope) -> bool:
    """Whether the response under way is read from a log, as far as a record tells."""
    record = record_of(scope)
    return record is not None and record.followed
