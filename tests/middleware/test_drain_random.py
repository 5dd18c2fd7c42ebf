"""Random rolling restarts of three workers over one store: whatever happens when, every client gets every event once.

Each run has streams of clients that can resume; the app says its events, workers drain one after the other, clients
stall, drop and come back, in an order that the seed decides.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from streamware.testing import FakeClock, settle
from tests.middleware.drain_site import GRACE, KINDS, WAYS, Place, SharedStore
from tests.middleware.resume_site import Run, SiteConnection

RUNS = 25
EVENTS = 30


@dataclass
class Follower:
    """One client. ``data``: what it has got over the connections that it has had."""

    kind: str
    run: Run
    connection: SiteConnection
    stream: str
    said: int = 0
    ended: bool = False
    data: list[str] = field(default_factory=list)

    def settle_accounts(self) -> None:
        """The connection is over: what it has brought counts."""
        self.data += self.connection.data

    @property
    def is_done(self) -> bool:
        return self.connection.complete and b"retry: " not in self.connection.body[-20:]


async def come_back(follower: Follower, places: list[Place]) -> None:
    """Ask the workers again, as a balancer that looks at readiness would pass it on, until one follows on."""
    follower.settle_accounts()
    place = next(place for place in places if place.phase < 2)
    cursor = f"{follower.stream}.{len(follower.data)}"
    follower.connection = place.connect(headers=KINDS[follower.kind], cursor=cursor)
    await settle()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(RUNS))
async def test_every_client_gets_every_event_once(way: str, seed: int) -> None:
    rng = random.Random(f"{way} {seed}")
    clock = FakeClock()
    store = SharedStore(clock=clock)
    places = [Place(way=way, clock=clock, store=store, deadline=1000.0) for _ in range(3)]
    async with places[0], places[1], places[2]:
        followers = []
        for _ in range(4):
            kind = rng.choice(["eventsource", "script"])
            connection, run = await places[0].streaming(kind, "1")
            followers.append(Follower(kind, run, connection, connection.stream, said=1))
        draining = 0
        while not all(follower.ended for follower in followers):
            follower = rng.choice(followers)
            step = rng.random()
            if step < 0.6 and not follower.ended:
                if follower.said < EVENTS:
                    follower.said += 1
                    await follower.run.say(str(follower.said))
                else:
                    follower.ended = True
                    await follower.run.end()
            elif step < 0.65:
                follower.connection.stall()
            elif step < 0.75:
                follower.connection.unstall()
            elif step < 0.8 and not follower.connection.returned:
                follower.connection.unstall()
                follower.connection.drop()
            elif step < 0.85 and draining < 2:
                places[draining].drain.drain()
                draining += 1
            else:
                await clock.advance(rng.choice([0.0, 0.5, GRACE / 2]))
            await settle()
            for other in followers:
                if other.connection.returned and not other.is_done:
                    await come_back(other, places)
        for _ in range(10):
            for follower in followers:
                follower.connection.unstall()
            await clock.advance(GRACE)
            for follower in followers:
                if follower.connection.returned and not follower.is_done:
                    await come_back(follower, places)
        for follower in followers:
            follower.settle_accounts()
            assert follower.data == [str(number) for number in range(1, EVENTS + 1)]
            assert follower.connection.controls == []
        assert not places[1].stage.runs
        assert not places[2].stage.runs
        for place in places:
            assert place.counted("resume.gap", "live") == 0


async def test_many_are_sent_away_at_once_and_each_is_told_another_time() -> None:
    async with Place() as place:
        streams = [await place.started("a", headers=KINDS["eventsource"]) for _ in range(200)]
        place.drain.drain()
        await place.clock.advance(GRACE)
        await settle()
        told = {connection.body.rpartition(b"retry: ")[2] for connection, _ in streams}
        for connection, _ in streams:
            await connection.finished()
            assert connection.complete
        assert len(told) > 150
        for _, run in streams:
            await run.end()
