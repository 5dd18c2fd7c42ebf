"""A worker process of its own that produces one stream: started by tests that kill and stop it.

Prints the stream's id, then ``closed <outcome>`` when somebody else closes it. A line ``block <seconds>`` on its
standard input blocks its event loop for so long; ``end`` ends it as ``done``.
"""

from __future__ import annotations

import asyncio
import sys
import time

from streamware.stores.base import Outcome
from streamware.stores.timing import Timing
from tests.stores.redis.stores import FAST, Worker


def event(n: int) -> bytes:
    return b"data: %d\n\n" % n


async def main(url: str, prefix: str, timing: Timing) -> None:
    store = Worker(url, prefix, timing)
    log = await store.begin()
    over = asyncio.Event()

    def closed(outcome: Outcome) -> None:
        print("closed", outcome.value, flush=True)
        over.set()

    log.on_closed = closed
    print(log.stream, flush=True)
    commands = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(commands)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    asking = asyncio.ensure_future(commands.readline())
    n = 0
    while not over.is_set():
        n += 1
        if not log.append(event(n)):
            await log.room()
        await asyncio.sleep(0.002)
        if asking.done():
            match asking.result().split():
                case [b"block", seconds]:
                    time.sleep(float(seconds))
                    print("unblocked", flush=True)
                case [b"end"]:
                    log.close(Outcome.DONE)
                    break
                case _:
                    break
            asking = asyncio.ensure_future(commands.readline())
    asking.cancel()
    await store.store.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], FAST if sys.argv[3] == "fast" else Timing()))
