"""A ``SQLiteStore`` on a disk that is full for a while; says what it saw. ``RLIMIT_FSIZE`` stands for the disk."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys

from streamware import CountingObserver, SQLiteStore
from streamware.stores.base import Outcome
from streamware.stores.remote_log import RemoteLog
from streamware.stores.timing import Timing
from streamware.wire.cursor import new_stream_id
from tests.stores.worlds import head, read, read_all, until

EVENT = b"x" * 2000


async def main(path: str) -> None:
    observer = CountingObserver()
    timing = Timing(window=0.005, retry=0.05, max_retry=0.1, beat=0.05)
    store, other = SQLiteStore(path, observer=observer, timing=timing), SQLiteStore(path, timing=timing)
    await store.start()
    await other.start()
    log = await store.create(new_stream_id(store.tag), head(), window=10**7)
    log.append(EVENT)
    await store.flush()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    while not observer.counts.get(("store.away", "writes")):
        log.append(EVENT)
        await asyncio.sleep(0.001)
    print("away")
    reader = log.reader(0)
    last = 0
    while last < log.last:
        last = (await read(reader)).last
    print("local")
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    await until(lambda: observer.counts.get(("store.back", "writes")))
    await asyncio.wait_for(store.flush(), 10)
    print("back")
    log.close(Outcome.DONE)
    found = await other.open(log.stream)
    assert isinstance(found, RemoteLog)
    assert await read_all(found.reader(0)) == ([EVENT] * log.last, Outcome.DONE)
    print("whole")
    await store.aclose()
    await other.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
