"""``MemoryStore`` on a loop that is late: what is due has not run yet when the next stream ends."""

from __future__ import annotations

import contextvars

from streamware.stores.base import Outcome
from streamware.stores.memory import MemoryStore
from streamware.testing import FakeClock
from streamware.wire.cursor import new_stream_id
from tests.stores.worlds import head


class LateClock(FakeClock):
    """Time may pass without any timer running, as on a loop that is kept busy."""

    late = 0.0

    def now(self) -> float:
        return super().now() + self.late


async def finish_one(store: MemoryStore) -> None:
    log = await store.create(new_stream_id(store.tag), head("client"), window=1000)
    log.append(b"data: 1\n\n")
    log.close(Outcome.DONE)


async def test_a_late_timer_is_never_joined_by_another() -> None:
    clock = LateClock()
    store = MemoryStore(ttl=1, tombstone_ttl=1, clock=clock)

    for _ in range(20):
        await finish_one(store)
        clock.late += 1.5
        await finish_one(store)
        assert clock.timers == 1
    await clock.advance(50)

    assert clock.timers == 0
    assert len(store) == 0


async def test_the_timer_holds_no_requests_context() -> None:
    class Clock(FakeClock):
        def call_later(self, delay, callback):  # type: ignore[no-untyped-def]  # as FakeClock's
            seen.append(variable.get("nothing"))
            return super().call_later(delay, callback)

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen: list[str] = []
    store = MemoryStore(clock=Clock())
    variable.set("a request's")

    await finish_one(store)
    await store.aclose()

    assert seen == ["nothing"]
