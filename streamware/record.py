"""The record that Streamware's middlewares share for one request or connection, kept in the scope.

The first of them to see a scope copies it and puts the record in; those further in find it. Servers' and apps' own
scope objects are never changed.
"""

from __future__ import annotations

from .types import Scope

KEY = "streamware"
#: What says for how long the connection may go on stands beside the record, not in it: whoever leaves it makes no
#: record for that, of which every middleware further in would have to take care at every plain request.
TENURE = "streamware.tenure"


class Client:
    """How ``ClientIPMiddleware`` found the client's address. Immutable by custom: those of peers are shared.

    ``address``: canonical; None where it is unknown, for which nobody may be let in. ``port``: as the header says it, 0
    where it says none; None where the address is the peer's own. ``peer``: the socket's other end, canonical; "unix"
    for a socket without addresses, None where the server gave no address that can be read. ``header``: the one that was
    read, "" where none was. ``hops``: its entries that were looked at, as they were written, the nearest first.
    ``reason``: a word that says how; ``wire/forwarded.py`` lists them. ``flagged``: the address is the best there is,
    but the set-up leaves doubt.
    """

    __slots__ = ("address", "flagged", "header", "hops", "peer", "port", "reason")

    def __init__(
        self, address: str | None, port: int | None, peer: str | None, reason: str, header: str = "",
        hops: tuple[str, ...] = (), flagged: bool = False,
    ) -> None:  # fmt: skip
        self.address = address
        self.port = port
        self.peer = peer
        self.reason = reason
        self.header = header
        self.hops = hops
        self.flagged = flagged


class Record:
    """``rank``: of the innermost middleware entered so far (guards the order). ``entered``: that middleware's name.
    ``client``: how its address was found; None where no ``ClientIPMiddleware`` looked, and ``scope["client"]`` is the
    peer. ``denied``: the answer under way is a refusal that Streamware made, so no log must be made of it. ``drain``:
    of the worker, for whoever has connections that it may want to end. ``followed``: the response under way is read
    from a log. ``server_scope``: what the scope with this record was copied from, for the one change that a server must
    see. ``origin_checked``: where the request comes from has been judged. ``ambient``: its credential is one that
    browsers send by themselves. ``gates``: of throttles further out, for whoever runs the app
    (``streams/gates.py``)."""

    __slots__ = (
        "ambient",
        "client",
        "denied",
        "drain",
        "entered",
        "followed",
        "gates",
        "origin_checked",
        "rank",
        "server_scope",
    )

    def __init__(self) -> None:
        self.rank = 0
        self.client: Client | None = None
        self.entered = ""
        self.denied = False
        self.drain: object = None  # a ``Drain``: not known so far down
        self.followed = False
        self.server_scope: Scope | None = None
        self.origin_checked = False
        self.ambient = False
        self.gates: tuple[object, ...] = ()


def record_of(scope: Scope) -> Record | None:
    """The record in ``scope``, or None where no middleware of ours has entered it."""
    record = scope.get(KEY)
    return record if isinstance(record, Record) else None


def tenure_of(scope: Scope) -> object:
    """The ``Tenure`` of the connection (not known so far down), or None where nobody outside limits it."""
    return scope.get(TENURE)


def is_followed(scope: Scope) -> bool:
    """Whether the response under way is read from a log, as far as a record tells."""
    record = record_of(scope)
    return record is not None and record.followed
