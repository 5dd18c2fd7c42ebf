"""The bounds that hold over all streams of a worker: detached apps, readers of one stream, and its end."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from types import SimpleNamespace
from typing import cast

import pytest

from streamware.clock import LoopClock
from streamware.observe import CountingObserver, OnceLog
from streamware.stores.base import Outcome
from streamware.stores.memory import MemoryStore
from streamware.streams import worker as worker_module
from streamware.streams.options import ByPath, Options
from streamware.streams.owner import Identity
from streamware.streams.producer import Producer
from streamware.streams.reader import Reader
from streamware.streams.worker import INNER_TAGS, Worker
from streamware.testing import settle

ADA = Identity("ada", None, "principal:ada")
BOB = Identity(None, b"bob", "credential:bob")
NOBODY = Identity(None, None, "client:192.0.2.1")


def a_worker(**changed: object) -> tuple[Worker, CountingObserver]:
    observer = CountingObserver()
    options = Options(
        store=MemoryStore(),
        clock=LoopClock(),
        observer=observer,
        advice=OnceLog(logging.getLogger("test")),
        owner=None,
        owner_cookies=frozenset(),
        media_types=frozenset({b"text/event-stream"}),
        replay_headers=frozenset(),
        replace_ids=False,
        linger=ByPath[float | None]("linger", 30.0, 30.0, lambda value: True, ""),
        on_done=ByPath("on_done", "stop", "stop", lambda value: True, ""),
        on_expired=ByPath("on_expired", "restart", "restart", lambda value: True, ""),
        retry=3.0,
        window=1000,
        max_event_bytes=1000,
        max_readers=2,
        max_detached=4,
        max_detached_per_owner=2,
        early_start=None,
        stall_timeout=None,
        max_duration=None,
    )
    return Worker(dataclasses.replace(options, **changed)), observer  # type: ignore[arg-type]  # tests know the types


class App:
    """What the worker sees of a producer."""

    def __init__(self, worker: Worker, identity: Identity, *, slow: bool = False) -> None:
        self.worker = worker
        self.identity = identity
        self.slow = slow  # once told, it says no more of itself, until it has returned
        self.told = 0
        self.ended: list[Outcome] = []
        self.task: asyncio.Task[None] | None = None

    @property
    def producer(self) -> Producer:
        return cast("Producer", self)

    def abandon(self) -> None:
        self.told += 1
        if not self.slow:
            self.worker.attach(self.producer)

    def end(self, outcome: Outcome) -> None:
        self.ended.append(outcome)
        if self.task is not None and not self.slow:
            self.task.cancel()


class Connected:
    """What the worker sees of a reader."""

    def __init__(self, stream: str) -> None:
        self.log = SimpleNamespace(stream=stream)
        self.evicted = 0

    @property
    def reader(self) -> Reader:
        return cast("Reader", self)

    def evict(self) -> None:
        self.evicted += 1


def detach(worker: Worker, *identities: Identity, slow: bool = False) -> list[App]:
    apps = [App(worker, identity, slow=slow) for identity in identities]
    for app in apps:
        worker.detach(app.producer)
    return apps


def nothing_is_left(worker: Worker) -> bool:
    kept = (worker._detached, worker._detached_of, worker._readers, worker._kept, worker.producers)
    return not any(kept)


# -- detached apps


def test_over_the_bound_of_the_worker_the_longest_detached_is_told() -> None:
    worker, observer = a_worker()
    apps = detach(worker, *[Identity(str(n), None, f"principal:{n}") for n in range(6)])
    assert [app.told for app in apps] == [1, 1, 0, 0, 0, 0]
    assert worker.detached == 4
    assert observer.counts == {("resume.abandoned", "max_detached"): 2}


def test_over_the_bound_of_an_owner_its_own_longest_detached_is_told() -> None:
    worker, observer = a_worker()
    apps = detach(worker, BOB, ADA, ADA, ADA)
    assert [app.told for app in apps] == [0, 1, 0, 0]
    assert observer.counts == {("resume.abandoned", "max_detached_per_owner"): 1}


def test_requests_of_nobody_share_no_owners_bound() -> None:
    worker, _ = a_worker()
    apps = detach(worker, NOBODY, NOBODY, NOBODY, NOBODY)
    assert [app.told for app in apps] == [0, 0, 0, 0]


@pytest.mark.parametrize("identity", [ADA, NOBODY])
def test_the_bounds_hold_for_apps_that_take_long_to_notice(identity: Identity) -> None:
    worker, _ = a_worker(max_detached_per_owner=2, max_detached=2)
    apps = detach(worker, *[identity] * 6, slow=True)
    assert [app.told for app in apps] == [1, 1, 1, 1, 0, 0], "each is told once"
    assert worker.detached == 2


def test_who_has_a_reader_again_does_not_count() -> None:
    worker, _ = a_worker()
    apps = detach(worker, ADA, ADA)
    worker.attach(apps[0].producer)
    worker.attach(apps[0].producer)
    apps += detach(worker, ADA)
    assert [app.told for app in apps] == [0, 0, 0]
    worker.detach(apps[0].producer)
    assert [app.told for app in apps] == [0, 1, 0], "and counts anew from when it lost it"


def test_detaching_twice_keeps_the_place_in_the_row() -> None:
    worker, _ = a_worker()
    apps = detach(worker, ADA, ADA)
    worker.detach(apps[0].producer)
    assert worker.detached == 2
    detach(worker, ADA)
    assert [app.told for app in apps] == [1, 0]


def test_nothing_is_kept_of_apps_that_have_ended() -> None:
    worker, _ = a_worker()
    for app in detach(worker, ADA, ADA, ADA, BOB, NOBODY, NOBODY):
        worker.attach(app.producer)
    assert nothing_is_left(worker)


# -- readers


def test_over_the_bound_of_a_stream_its_oldest_reader_is_ended() -> None:
    worker, observer = a_worker()
    readers = [Connected("one") for _ in range(4)]
    other = Connected("other")
    for reader in (*readers[:2], other, *readers[2:]):
        worker.enter(reader.reader)
    assert [reader.evicted for reader in (*readers, other)] == [1, 1, 0, 0, 0]
    assert observer.counts == {("resume.reader_ended", "max_readers"): 2}
    for reader in (*readers, other):
        worker.leave(reader.reader)
        worker.leave(reader.reader)
    assert nothing_is_left(worker)


def test_a_reader_that_left_makes_room() -> None:
    worker, _ = a_worker()
    readers = [Connected("one") for _ in range(3)]
    worker.enter(readers[0].reader)
    worker.enter(readers[1].reader)
    worker.leave(readers[0].reader)
    worker.enter(readers[2].reader)
    assert [reader.evicted for reader in readers] == [0, 0, 0]


# -- a gateway's tags


def test_inner_tags_are_bounded() -> None:
    worker, _ = a_worker()
    for n in range(1000):
        worker.learn_inner_tag(f"{n:06}")
        worker.learn_inner_tag("000000")
    assert len(worker.inner_tags) == INNER_TAGS
    assert "000000" in worker.inner_tags


# -- the end


async def test_tasks_that_nobody_waits_for_are_kept_until_they_end() -> None:
    worker, _ = a_worker()
    task = asyncio.ensure_future(asyncio.sleep(0))
    worker.keep(task)
    assert not nothing_is_left(worker)
    await settle()
    assert nothing_is_left(worker)


async def test_shutdown_interrupts_what_runs_and_waits_for_it() -> None:
    worker, _ = a_worker()
    cleaned_up = 0

    async def run() -> None:
        nonlocal cleaned_up
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            cleaned_up += 1

    apps = [App(worker, NOBODY) for _ in range(3)]
    for app in apps:
        worker.producers.add(app.producer)
        app.task = asyncio.ensure_future(run())
    await settle()
    await asyncio.wait_for(worker.shutdown(), 5)
    assert worker.leaving
    assert [app.ended for app in apps] == [[Outcome.INTERRUPTED]] * 3
    assert cleaned_up == 3


async def test_shutdown_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "CANCEL_WAIT", 0.01)
    worker, _ = a_worker()
    app = App(worker, NOBODY, slow=True)
    worker.producers.add(app.producer)
    app.task = asyncio.ensure_future(asyncio.Event().wait())  # type: ignore[assignment]  # returns nothing of use
    await asyncio.wait_for(worker.shutdown(), 5)
    app.task.cancel()


async def test_shutdown_of_an_idle_worker_returns_at_once() -> None:
    worker, _ = a_worker()
    await asyncio.wait_for(worker.shutdown(), 5)
    assert worker.leaving
