"""``SQLiteStore``: logs in a file, for several workers on one machine and for restarts of all of them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal, cast

from ..clock import LoopClock
from ..exceptions import ConfigurationError
from ..observe import Observer
from ..types import Clock
from .checks import check_durability, check_positive, check_shares
from .shared import SharedOptions, SharedStore
from .timing import Timing


class SQLiteStore(SharedStore):
    """Logs in a SQLite file that all workers of one machine share; with no server to run, and nothing to install.

    :param path: of the file, on a local disk; made where there is none. Its directory has to exist and be writable.
    :param max_bytes: bound on the file; default 1 GiB. Over it logs that have ended go first, the oldest first, then
        new streams get no log.
    :param max_memory: bound on the logs that are running in this worker, which it holds in memory; default 256 MiB.
    :param max_log_bytes: bound on one log; default 8 MiB.
    :param max_log_events: bound on one log in events; default 100,000.
    :param ttl: seconds that a log that has ended can still be read; default 300.
    :param tombstone_ttl: seconds that an expired log is remembered as ended; default one day, for about 50,000 logs.
    :param owner_share: the part of ``max_memory`` that one account may hold; default 0.5.
    :param durability: ``"local"`` (default): clients get an event at once, and other workers some milliseconds later.
        ``"store"``: clients get it when it is in the file.
    :param observer: receives the counters of store trouble.
    :param clock: tests' clock.
    :param timing: tests' timing.
    :raises ConfigurationError: a value that makes no sense.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 1024 * 1024 * 1024,
        max_memory: int = 256 * 1024 * 1024,
        max_log_bytes: int = 8 * 1024 * 1024,
        max_log_events: int = 100_000,
        ttl: float = 300.0,
        tombstone_ttl: float = 86_400.0,
        owner_share: float = 0.5,
        durability: Literal["local", "store"] = "local",
        observer: Observer | None = None,
        clock: Clock | None = None,
        timing: Timing | None = None,
    ) -> None:
        check_positive(
            "SQLiteStore",
            max_bytes=max_bytes,
            max_memory=max_memory,
            max_log_bytes=max_log_bytes,
            max_log_events=max_log_events,
            ttl=ttl,
            tombstone_ttl=tombstone_ttl,
        )
        check_shares("SQLiteStore", max_log_bytes, owner_share, max_memory=max_memory)
        check_durability("SQLiteStore", durability)
        # Not before it is wanted: some builds of Python come without SQLite.
        from .sqlite_backend import SQLiteBackend
        from .sqlite_changes import Bounds

        bounds = Bounds(ttl, tombstone_ttl, max_bytes)
        now = time.time if clock is None else clock.now
        super().__init__(
            SQLiteBackend(_file(path), bounds, clock or LoopClock(), now),
            SharedOptions(
                max_memory=max_memory,
                max_log_bytes=max_log_bytes,
                max_log_events=max_log_events,
                owner_share=owner_share,
                durable=durability == "store",
            ),
            clock=clock,
            observer=observer,
            timing=timing,
        )


def _file(path: object) -> Path:
    given = path
    name = os.fspath(cast("str | os.PathLike[str]", path)) if isinstance(path, str | os.PathLike) else ""
    if name in ("", ":memory:"):
        raise ConfigurationError.option("SQLiteStore", "path", given, "the path of a file")
    # All workers have to arrive at the same name, for the tag is made of it.
    return Path(name).resolve()
