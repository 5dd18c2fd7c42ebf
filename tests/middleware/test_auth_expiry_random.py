"""Random runs of users whose tokens expire, who drop, stall and are disconnected: with a fresh token each reads on, and
gets every event of its stream once."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from streamware import Expiry
from streamware.testing import FakeClock, settle
from tests.middleware.auth_site import KINDS, WAYS, AuthConnection, Desk, Worker
from tests.middleware.drain_site import SharedStore
from tests.middleware.resume_site import Run

RUNS = 20
EVENTS = 25
ENDS = (b"event: streamware.auth-expired\n", b"event: streamware.disconnected\n")


@dataclass
class Follower:
    """One user's client. ``data``: what it has got over the connections that it has had."""

    subject: str
    kind: str
    run: Run
    connection: AuthConnection
    stream: str
    said: int = 1
    over: bool = False
    cuts: int = 0
    data: list[str] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        return self.connection.complete and not any(end in self.connection.body for end in ENDS)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(RUNS))
async def test_every_user_gets_every_event_once(way: str, seed: int) -> None:
    rng = random.Random(f"{way} {seed}")
    clock = FakeClock()
    desk, store = Desk(clock), SharedStore(clock=clock)
    expiry = Expiry(action=rng.choice(["close", "warn"]), leeway=0, jitter=rng.choice([0.0, 0.3]), warn_before=5)
    workers = [
        Worker(way=way, clock=clock, desk=desk, store=store, board=store, expiry=expiry, resume={"linger": None})
        for _ in range(2)
    ]

    def come_back(follower: Follower) -> None:
        follower.data += follower.connection.data
        follower.cuts += 1
        life = rng.choice([0.5, 5.0, 20.0, None])
        follower.connection = rng.choice(workers).connect(
            desk.issue(follower.subject, life=life),
            headers=KINDS[follower.kind],
            cursor=f"{follower.stream}.{len(follower.data)}",
        )

    async with workers[0], workers[1]:
        followers: list[Follower] = []
        for number in range(4):
            kind = rng.choice(["eventsource", "script"])
            token = desk.issue(f"user-{number % 3}", life=rng.choice([1.0, 10.0, 30.0]))
            connection, run = await workers[0].streaming(kind, token, "1")
            followers.append(Follower(f"user-{number % 3}", kind, run, connection, connection.stream))
        while not all(follower.over for follower in followers):
            follower = rng.choice(followers)
            step = rng.random()
            if step < 0.5 and not follower.over:
                if follower.said < EVENTS:
                    follower.said += 1
                    await follower.run.say(str(follower.said))
                else:
                    follower.over = True
                    await follower.run.end()
            elif step < 0.6:
                follower.connection.stall()
            elif step < 0.75:
                follower.connection.unstall()
            elif step < 0.8 and not follower.connection.returned:
                follower.connection.unstall()
                follower.connection.drop()
            elif step < 0.85:
                principal = await desk.verify(desk.issue(follower.subject))
                await rng.choice(workers).auth.disconnect(principal)
            else:
                await clock.advance(rng.choice([0.0, 0.3, 2.0]))
            await settle()
            for other in followers:
                if other.connection.returned and not other.is_done:
                    come_back(other)
            await settle()
        for _ in range(100):
            for follower in followers:
                follower.connection.unstall()
            await clock.advance(1.0)
            for follower in followers:
                if follower.connection.returned and not follower.is_done:
                    come_back(follower)
            if all(follower.is_done for follower in followers):
                break
        for follower in followers:
            follower.data += follower.connection.data
            assert follower.data == [str(number) for number in range(1, EVENTS + 1)]
            assert not {"reset", "interrupted"} & {*follower.connection.controls}
        assert sum(follower.cuts for follower in followers) > 0
        assert len(workers[0].stage.runs) == 4
        assert not workers[1].stage.runs
        for worker in workers:
            assert worker.counted("resume.gap", "live") == 0
