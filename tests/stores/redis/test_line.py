"""A connection that subscribes: what is published is heard once a channel was joined, however often it was left."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator

import pytest

from streamware.stores.redis_line import Line
from streamware.stores.redis_nodes import Nodes, nodes_of
from streamware.stores.redis_pipe import pack
from streamware.stores.redis_target import Address, target_of
from tests.redis_groups import RedisCluster
from tests.redis_server import binaries, shared
from tests.stores.redis.kit import until

CHANNEL = b"test_line:{a}"
#: Keeps a server from answering for some ms.
BUSY = pack(b"EVAL", b"for i = 1, 300000 do end", b"0")


class Ear:
    """A line, what it has heard, and how often it has died."""

    def __init__(self, nodes: Nodes, node: Address) -> None:
        self.heard: list[bytes] = []
        self.deaths = 0
        self._nodes = nodes
        self._node = node
        self._said = 0
        self.line = Line(nodes, node, lambda _, message: self.heard.append(message), self._died)

    def _died(self, line: Line) -> None:
        self.deaths += 1

    async def join(self) -> None:
        await self.line.join({CHANNEL}, "test-line", 5.0)

    async def give_up_joining(self, after: int) -> None:
        """Be cancelled while it is being joined, ``after`` so many turns of the loop, and leave."""
        pipe = await self._nodes.dial(self._node, "test-busy")
        busy = pipe.send(BUSY, 1)
        joining = asyncio.ensure_future(self.join())
        for _ in range(after):
            await asyncio.sleep(0)
        joining.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await joining
        self.line.leave(CHANNEL)
        await busy
        pipe.drop()

    async def hears(self) -> None:
        """What is published from now on is heard."""
        self._said += 1
        word = b"%d" % self._said
        pipe = await self._nodes.dial(self._node, "test-say")
        await pipe.ask(pack(self._nodes.publish, CHANNEL, word), 1, 5.0)
        pipe.drop()
        await until(lambda: word in self.heard)

    async def is_quiet(self) -> None:
        """Wait until all that was asked on the line is answered."""
        other = CHANNEL + b"other"
        await self.line.join({other}, "test-line", 5.0)
        self.line.leave(other)


@contextlib.asynccontextmanager
async def ear_at(url: str) -> AsyncIterator[Ear]:
    nodes = nodes_of(target_of("test", "url", url), 2.0)
    node = await nodes.locate(CHANNEL)
    ear = Ear(nodes, node)
    yield ear
    ear.line.close()


@pytest.fixture(
    scope="module", params=[(version, kind) for kind in ("single", "cluster") for version in binaries()], ids="-".join
)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    version, kind = request.param
    if kind == "single":
        yield shared(version).url
    else:
        with RedisCluster(binaries()[version]) as made:
            yield made.url


async def test_a_channel_that_was_left_before_it_was_confirmed_is_joined_anew(url: str):
    async with ear_at(url) as ear:
        await ear.is_quiet()
        await ear.give_up_joining(after=1)
        await ear.is_quiet()
        await ear.join()
        await ear.hears()
        assert ear.deaths == 0


async def test_a_channel_that_is_joined_as_it_is_left_is_not_taken_for_one_that_was_moved(url: str):
    async with ear_at(url) as ear:
        await ear.join()
        for _ in range(3):
            ear.line.leave(CHANNEL)
            await ear.join()
        await ear.is_quiet()
        await ear.hears()
        assert ear.deaths == 0


@pytest.mark.parametrize("seed", range(8))
async def test_whoever_joins_hears_after_any_joins_and_leaves(url: str, seed: int):
    draw = random.Random(seed)
    async with ear_at(url) as ear:
        await ear.is_quiet()
        for _ in range(40):
            what = draw.choice(["give up", "join", "join", "leave", "pause"])
            if what == "give up":
                await ear.give_up_joining(draw.randrange(6))
            elif what == "leave":
                ear.line.leave(CHANNEL)
            elif what == "pause":
                await ear.is_quiet()
            else:
                await ear.join()
                if draw.random() < 0.5:
                    await ear.hears()
        await ear.join()
        await ear.hears()
        assert ear.deaths == 0
