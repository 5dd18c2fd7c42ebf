"""What a fleet's app was called for, read from the file that its workers write, and what clients say of it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fleet.clients import Report


class Runs:
    """Who ran what. ``begun``: by label, the pids of the workers that called the app for it. ``ended``: by label, how
    the call ended, "done" or "cancelled", and when."""

    def __init__(self, path: Path) -> None:
        self.begun: dict[str, list[int]] = {}
        self.ended: dict[str, tuple[str, float]] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            run, what, pid, when = line.split(" ")
            if what == "begun":
                self.begun.setdefault(run, []).append(int(pid))
            else:
                self.ended[run] = (what, float(when))

    @property
    def pids(self) -> set[int]:
        """The workers that have called the app."""
        return {pid for callers in self.begun.values() for pid in callers}


@dataclass
class Verdict:
    """All streams of a run, held against what the app says. ``twice``: streams that the app was called for again once
    their client had a cursor or a key. ``unheard``: calls of the app that no client had anything of, since its
    connection broke before its first byte; an EventSource has no key to find such a stream again. ``moves``: reconnects
    that went on with a stream. ``ahead``: of the interrupted, those whose client was told that it has had events which
    the killed worker had no time to store. ``workers``: processes that have called the app."""

    streams: int = 0
    whole: int = 0
    interrupted: int = 0
    ahead: int = 0
    lost: int = 0
    repeated: int = 0
    inexact: int = 0
    twice: int = 0
    unheard: int = 0
    failures: int = 0
    reconnects: int = 0
    moves: int = 0
    workers: int = 0
    gaps: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.repeated or self.inexact or self.twice or self.failures)

    def gap(self, quantile: float) -> float:
        ordered = sorted(self.gaps)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] if ordered else 0.0

    def __str__(self) -> str:
        middle = statistics.median(self.gaps) if self.gaps else 0.0
        return (
            f"{self.streams} streams on {self.workers} workers: {self.whole} whole, {self.interrupted} interrupted "
            f"({self.ahead} ahead), {self.lost} events lost, {self.repeated} repeated, {self.inexact} inexact, "
            f"{self.twice} run twice, {self.unheard} unheard, {self.failures} failures; {self.reconnects} reconnects, "
            f"{self.moves} read on, silent for {middle:.2f} s in the median, {self.gap(0.99):.2f} at p99, "
            f"{self.gap(1.0):.2f} at most"
        )


def judge(reports: Iterable[Report], runs: Runs, killed: set[int]) -> Verdict:
    """``killed``: pids whose streams may end as interrupted; no other may. Whoever is killed between taking a key and
    calling the app leaves an interrupted stream that nobody has begun."""
    verdict = Verdict(workers=len(runs.pids))
    for report in reports:
        reading = report.reading
        verdict.streams += 1
        verdict.lost += reading.lost
        verdict.repeated += reading.repeated
        verdict.reconnects += report.connections - 1
        verdict.moves += len(report.gaps)
        callers = runs.begun.get(report.runs[-1], [])
        if report.cut_short and killed.intersection(callers):
            report.end = "interrupted"  # it came back when the log was closed, and was told that nothing follows
        unbegun = bool(killed) and report.kind == "post" and report.end == "interrupted" and not callers
        verdict.unheard += sum(len(runs.begun.get(run, ())) for run in report.runs[:-1])
        if report.end == "whole":
            verdict.whole += 1
            verdict.gaps += report.gaps
        elif report.end in ("interrupted", "ahead") and (unbegun or killed.intersection(callers)):
            verdict.interrupted += 1
            verdict.ahead += report.end == "ahead"
        else:
            verdict.failures += 1
            verdict.notes.append(f"{report.kind}: {report.end}, {len(reading.events)} of {report.n}, by {callers}")
        if not report.exact:
            verdict.inexact += 1
            verdict.notes.append(f"{report.kind}: {len(reading.body)} bytes, {len(reading.events)} of {report.n}")
        if len(callers) != 1 and not unbegun:
            verdict.twice += 1
            verdict.notes.append(f"{report.kind}: the app was called {len(callers)} times, by {Counter(callers)}")
    return verdict
