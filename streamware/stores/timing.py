"""How long things take and may take in a shared store: the figures of production, which tests of time scale down."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """All in seconds.

    ``window``: between two writes, so that each takes what has piled up. ``operation``: what any call to the store may
    take; ``creation``: what a new stream waits for its log, before it passes through without one. ``retry``: the first
    pause before a store that is away is tried again; it doubles up to ``max_retry``.

    ``beat``: between two rounds of what has to be looked at all the time. ``lease``: how long a worker that does not
    renew counts as alive; ``renewal``: how often it does. ``hold_off``: how long nobody is declared dead after the
    store has been away, or this worker, so that all can renew. With two rounds in a row that must find a lease lapsed,
    the dead are known after ``lease`` and at most three beats: 15 s.

    ``stop``: what another worker is given to stop a stream before it is closed under it. ``report``: between two
    reports of how far the readers here have got; ``refresh``: between two that say nothing new; ``silence``: after
    which a worker's reports no longer count. ``patience``: how long a reader waits for a store that is away before its
    connection is cut, for its client to try another worker. ``farewell``: what the last write may take.
    """

    window: float = 0.008
    operation: float = 2.0
    creation: float = 1.0
    retry: float = 0.25
    max_retry: float = 2.0
    beat: float = 1.0
    lease: float = 12.0
    renewal: float = 3.0
    hold_off: float = 7.0
    stop: float = 0.7
    report: float = 0.25
    refresh: float = 5.0
    silence: float = 15.0
    patience: float = 10.0
    farewell: float = 3.0
