"""``python -m benchmarks``: measure, and write a table, its JSON and a plot to ``benchmarks/results/``."""

from __future__ import annotations

import argparse
import asyncio
import time

from . import (
    addresses,
    compression,
    idle_memory,
    let_in,
    many_streams,
    metering,
    per_event,
    plain_requests,
    reconnects,
    redis_capacity,
    replay,
    report,
    shared_stores,
    throttle,
    verify,
)
from .measure import Settings
from .servers import CLIENT_CPU, pin

BENCHMARKS = {
    "per-event": per_event,
    "many-streams": many_streams,
    "plain-requests": plain_requests,
    "idle-memory": idle_memory,
    "let-in": let_in,
    "replay": replay,
    "shared-stores": shared_stores,
    "reconnects": reconnects,
    "redis-capacity": redis_capacity,
    "verify": verify,
    "addresses": addresses,
    "compression": compression,
    "throttle": throttle,
    "metering": metering,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small and rough; written to results/quick/")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="this one; may be given several times")
    parser.add_argument("--rounds", type=int, help="instead of each benchmark's own number")
    parser.add_argument("--loop", action="append", choices=("uvloop", "asyncio"), help="this one only")
    options = parser.parse_args()
    settings = Settings(options.quick, options.rounds, tuple(options.loop or ("uvloop", "asyncio")))
    folder = report.RESULTS / "quick" if options.quick else report.RESULTS

    pin(CLIENT_CPU)
    import uvloop

    for name, benchmark in BENCHMARKS.items():
        if options.only and name not in options.only:
            continue
        started = time.monotonic()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures = runner.run(benchmark.run(settings))
        table = report.write(folder, {name: (benchmark.TITLE, figures)})
        print(f"{benchmark.TITLE} ({time.monotonic() - started:.0f} s)")
        for figure in figures:
            print(*report.rows(figure), *([f"  {figure.note}"] if figure.note else []), sep="\n", flush=True)
    print(f"written to {table.relative_to(report.RESULTS.parent.parent)}")


if __name__ == "__main__":
    main()
