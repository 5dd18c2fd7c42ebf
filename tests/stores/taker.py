"""A worker process of its own that takes what others have left: started by tests of contention.

Prints ``ready``; with each line ``take <count>`` on its standard input takes ``key 0`` to ``key <count - 1>``, some at
once, and prints what it got as JSON. What it hears under ``topic`` it prints as ``heard <message>``.
"""

from __future__ import annotations

import asyncio
import json
import sys

from streamware.stores.redis import RedisStore
from streamware.stores.shared import SharedStore
from streamware.stores.sqlite import SQLiteStore


def store_at(place: str) -> SharedStore:
    return RedisStore(place, prefix="t:") if place.startswith("redis") else SQLiteStore(place)


async def main(place: str) -> None:
    store = store_at(place)
    store.listen("topic", lambda message: print("heard", message.decode(), flush=True))
    await store.start()
    while not store._board.in_step:
        await asyncio.sleep(0.001)
    print("ready", flush=True)
    commands = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(commands)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while line := await commands.readline():
        _, count = line.split()
        got: list[str] = []
        for at in range(0, int(count), 20):
            taken = await asyncio.gather(*(store.take(f"key {n}") for n in range(at, at + 20)))
            got += [value.decode() for value in taken if value is not None]
        print(json.dumps(got), flush=True)
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
