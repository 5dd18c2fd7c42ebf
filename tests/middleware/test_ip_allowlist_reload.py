"""Lists from files and functions: how they are read, watched and swapped, and what is left when that ends."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from streamware import ConfigurationError, CountingObserver, IPAllowlistMiddleware, Middleware, Stack
from streamware.auth.address_lists import RETRY
from streamware.testing import Connection, FakeClock, WebSocketConnection, settle
from streamware.types import Message, Receive, Scope, Send

POLL = 2.0


async def until(true: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait for threads and tasks to come to where something is true."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.001)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Place:
    """One middleware on a clock, started unless told otherwise; leaves no timer and no task behind."""

    def __init__(self, *, started: bool = True, **options: Any) -> None:
        self.clock = FakeClock()
        self.observer = CountingObserver()
        self.middleware = IPAllowlistMiddleware(
            app, **{"poll": POLL, "clock": self.clock, "observer": self.observer, **options}
        )
        self._started = started

    async def __aenter__(self) -> Self:
        self._before = asyncio.all_tasks()
        if self._started:
            await self.middleware.startup()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.middleware.shutdown()
        await self.middleware.aclose()
        await settle()
        if kind is None:
            assert self.clock.timers == 0
            assert asyncio.all_tasks() == self._before

    async def status(self, host: str, **options: Any) -> int:
        async with Connection(self.middleware, scope={"client": (host, 5)}, **options) as connection:
            await connection.finished()
            return connection.status

    async def lets_in(self, *hosts: str) -> list[bool]:
        return [await self.status(host) == 200 for host in hosts]

    async def look(self) -> None:
        """Let the next look at the files come to its end."""
        timers = self.middleware._lists._timers
        before = timers["poll"]
        await self.clock.advance(POLL)
        await until(lambda: timers["poll"] is not before)

    def loaded(self) -> int:
        return self.observer.total("ip_allowlist.reloaded")

    def failed(self, reason: str) -> int:
        return self.observer.counts.get(("ip_allowlist.reload_failed", reason), 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "allow.txt"
    file.write_text("10.0.0.0/8\n")
    return file


def replace(path: Path, text: str) -> None:
    """As a careful writer does: another file takes its place."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


# ---- files ----------------------------------------------------------------------------------------------------------
async def test_a_file_has_an_entry_a_line_and_comments(path: Path):
    path.write_bytes(
        b"\xef\xbb\xbf# the office\r\n10.0.0.0/8  # all of it\r\n\r\n   \n\t2001:db8::/32\nloopback#x\n192.0.2.1"
    )

    async with Place(allow=path) as place:
        assert await place.lets_in("10.1.2.3", "2001:db8::1", "127.0.0.1", "192.0.2.1", "192.0.2.2") == [
            True, True, True, True, False,
        ]  # fmt: skip
        assert place.middleware.explain({"client": ("10.1.2.3", 5)}).rule == "10.0.0.0/8"


def spoil_missing(path: Path) -> None:
    path.unlink()


def spoil_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def spoil_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


SPOILED: list[tuple[str, Callable[[Path], object], str, str]] = [
    ("missing", spoil_missing, "unreadable", "cannot be read"),
    ("directory", spoil_directory, "unreadable", "is no regular file"),
    ("pipe", spoil_pipe, "unreadable", "is no regular file"),
    ("empty", lambda path: path.write_text(""), "invalid", "there are no entries"),
    ("comments only", lambda path: path.write_text("# nobody\n\n"), "invalid", "there are no entries"),
    ("typo", lambda path: path.write_text("10.0.0.0/8\n# x\n10.0.0\n"), "invalid", "line 3: '10.0.0'"),
    ("host bits", lambda path: path.write_text("10.0.0.1/8"), "invalid", "line 1: '10.0.0.1/8'"),
    ("two on a line", lambda path: path.write_text("10.0.0.1 10.0.0.2"), "invalid", "line 1"),
    ("no text", lambda path: path.write_bytes(b"\xff\xfe10.0.0.1"), "invalid", "is not UTF-8"),
    ("too long", lambda path: path.write_text("#" * 101), "too_large", "has more than 100 bytes"),
    ("too many", lambda path: path.write_text("10.0.0.1\n" * 6), "too_large", "more than 5 entries"),
]  # fmt: skip
CAPS = {"max_bytes": 100, "max_entries": 5}


@pytest.mark.parametrize(("spoil", "reason", "said"), [case[1:] for case in SPOILED], ids=[case[0] for case in SPOILED])
async def test_a_file_that_cannot_be_meant_fails_the_start(
    path: Path, spoil: Callable[[Path], object], reason: str, said: str
):
    spoil(path)
    place = Place(allow=path, **CAPS)

    with pytest.raises(ConfigurationError) as caught:
        await place.middleware.startup()

    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert place.failed(reason) == 1
    assert place.clock.timers == 0


@pytest.mark.parametrize(("spoil", "reason", "said"), [case[1:] for case in SPOILED], ids=[case[0] for case in SPOILED])
async def test_later_it_leaves_the_lists_as_they_were(
    path: Path, spoil: Callable[[Path], object], reason: str, said: str, caplog: pytest.LogCaptureFixture
):
    async with Place(allow=path, **CAPS) as place:
        spoil(path)

        assert await place.middleware.reload() is False

        assert await place.lets_in("10.1.2.3", "192.0.2.1") == [True, False]
        assert place.failed(reason) == 1
        (record,) = [record for record in caplog.records if record.levelno > logging.INFO]
        assert record.levelno == logging.ERROR
        assert said in record.getMessage()
        assert "stay as they were" in record.getMessage()


async def test_a_file_at_its_caps_is_read(path: Path):
    path.write_text(("10.0.0.1\n" * 5).ljust(100, "#"))

    async with Place(allow=path, **CAPS) as place:
        assert await place.lets_in("10.0.0.1") == [True]


async def test_a_file_of_which_one_cannot_see_the_end_is_read_to_the_cap_only(tmp_path: Path):
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(2**40)

    with pytest.raises(ConfigurationError, match="has more than 1000 bytes"):
        await Place(allow=sparse, max_bytes=1000).middleware.startup()


async def test_a_path_with_a_nul_cannot_be_read_and_is_no_other_error():
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await Place(allow=Path("a\0b")).middleware.startup()


# ---- reload ---------------------------------------------------------------------------------------------------------
async def test_reload_puts_in_place_what_is_there_now(path: Path):
    async with Place(allow=path) as place:
        replace(path, "192.0.2.0/24\n")
        assert await place.lets_in("10.1.2.3", "192.0.2.1") == [True, False]

        assert await place.middleware.reload() is True

        assert await place.lets_in("10.1.2.3", "192.0.2.1") == [False, True]
        assert place.loaded() == 2


async def test_both_lists_change_together_or_not_at_all(path: Path, tmp_path: Path):
    denied = tmp_path / "deny.txt"
    denied.write_text("10.66.0.0/16")
    async with Place(allow=path, deny=denied) as place:
        replace(path, "192.0.2.0/24")
        replace(denied, "192.0.2.300")
        assert await place.middleware.reload() is False
        assert await place.lets_in("10.1.2.3", "10.66.0.1", "192.0.2.1") == [True, False, False]

        replace(denied, "192.0.2.66")
        assert await place.middleware.reload() is True
        assert await place.lets_in("10.1.2.3", "10.66.0.1", "192.0.2.1", "192.0.2.66") == [False, False, True, False]


async def test_values_need_no_reload_and_no_loop():
    async with Place(allow=["10.0.0.0/8"], started=False) as place:
        assert await place.middleware.reload() is True
        assert await place.lets_in("10.1.2.3", "192.0.2.1") == [True, False]
        assert place.clock.timers == 0
        assert place.loaded() == 0


async def test_values_beside_a_file_stay(path: Path):
    async with Place(allow=path, deny=["10.66.0.0/16"]) as place:
        replace(path, "10.66.0.0/16\n10.67.0.0/16")
        await place.middleware.reload()

        assert await place.lets_in("10.1.2.3", "10.66.0.1", "10.67.0.1") == [False, False, True]


class Feed:
    """A function whose calls the test answers."""

    def __init__(self) -> None:
        self.calls: list[asyncio.Future[list[str]]] = []

    async def __call__(self) -> list[str]:
        call: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self.calls.append(call)
        return await call

    async def answer(self, *entries: str) -> None:
        await until(lambda: self.calls and not self.calls[-1].done())
        self.calls[-1].set_result([*entries])


async def test_requests_during_a_reload_see_the_lists_of_before():
    feed = Feed()
    async with Place(allow=feed, started=False) as place:
        starting = asyncio.create_task(place.middleware.startup())
        await feed.answer("10.0.0.0/8")
        await starting

        reloading = asyncio.create_task(place.middleware.reload())
        await until(lambda: len(feed.calls) == 2)
        assert await place.lets_in("10.1.2.3", "192.0.2.1") == [True, False]
        await feed.answer("192.0.2.0/24")
        assert await reloading is True

        assert await place.lets_in("10.1.2.3", "192.0.2.1") == [False, True]


async def test_who_asks_during_a_reload_gets_the_next_and_all_who_wait_share_it():
    feed = Feed()
    async with Place(allow=feed, started=False) as place:
        first = asyncio.create_task(place.middleware.reload())
        await until(lambda: len(feed.calls) == 1)
        others = [asyncio.create_task(place.middleware.reload()) for _ in range(5)]
        await settle()
        assert len(feed.calls) == 1

        await feed.answer("10.0.0.0/8")
        assert await first is True
        assert not any(other.done() for other in others)
        await until(lambda: len(feed.calls) == 2)
        await feed.answer("192.0.2.0/24")

        assert await asyncio.gather(*others) == [True] * 5
        assert len(feed.calls) == 2
        assert await place.lets_in("192.0.2.1") == [True]


async def test_one_who_is_cancelled_does_not_end_the_reload_of_the_others():
    feed = Feed()
    async with Place(allow=feed, started=False) as place:
        first = asyncio.create_task(place.middleware.reload())
        await until(lambda: len(feed.calls) == 1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first

        await feed.answer("10.0.0.0/8")
        await until(lambda: place.loaded() == 1)
        assert await place.lets_in("10.1.2.3") == [True]


async def test_aclose_in_the_middle_of_a_reload_ends_it_and_a_start_may_follow():
    feed = Feed()
    async with Place(allow=feed, started=False, interval=60) as place:
        starting = asyncio.create_task(place.middleware.startup())
        await feed.answer("10.0.0.0/8")
        await starting
        asking = [asyncio.create_task(place.middleware.reload())]
        await until(lambda: len(feed.calls) == 2)
        asking.append(asyncio.create_task(place.middleware.reload()))
        await settle()

        await place.middleware.aclose()

        assert await asyncio.gather(*asking) == [False, False]
        assert feed.calls[1].cancelled()
        assert place.clock.timers == 0
        assert await place.lets_in("10.1.2.3", "192.0.2.1") == [True, False]

        starting = asyncio.create_task(place.middleware.startup())
        await feed.answer("192.0.2.0/24")
        await starting
        assert await place.lets_in("10.1.2.3", "192.0.2.1") == [False, True]
        assert place.clock.timers == 1


async def test_aclose_in_the_middle_of_the_first_load_fails_the_start():
    feed = Feed()
    place = Place(allow=feed, started=False)
    starting = asyncio.create_task(place.middleware.startup())
    await until(lambda: feed.calls)

    await place.middleware.aclose()

    with pytest.raises(ConfigurationError, match="it was closed while it was read"):
        await starting


async def test_a_start_that_is_cancelled_leaves_what_aclose_can_end():
    feed = Feed()
    async with Place(allow=feed, started=False) as place:
        starting = asyncio.create_task(place.middleware.startup())
        await until(lambda: feed.calls)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting


async def test_aclose_and_shutdown_do_no_harm_twice_or_before_the_start(path: Path):
    async with Place(allow=path, started=False) as place:
        for _ in range(2):
            await place.middleware.shutdown()
            await place.middleware.aclose()
        await place.middleware.startup()
        await place.middleware.startup()
        assert place.clock.timers == 1


async def test_a_thread_that_still_reads_for_the_start_before_is_waited_for():
    """aclose ends the waiting, not the thread: the next start must not fail for it."""
    begun, go_on = threading.Event(), threading.Event()
    running = 0
    most = 0

    def read() -> list[str]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        begun.set()
        go_on.wait(5)
        running -= 1
        return ["10.0.0.0/8"]

    async with Place(allow=read, started=False) as place:
        starting = asyncio.create_task(place.middleware.reload())
        await until(begun.is_set)
        await place.middleware.aclose()
        assert await starting is False

        again = asyncio.create_task(place.middleware.startup())
        await settle()
        go_on.set()
        await again

        assert most == 1
        assert await place.lets_in("10.1.2.3") == [True]


# ---- looking out for changes ----------------------------------------------------------------------------------------
async def test_a_file_that_was_replaced_is_read_once_it_has_stood_still(path: Path):
    async with Place(allow=path) as place:
        await place.look()
        replace(path, "192.0.2.0/24")
        await place.look()
        assert place.loaded() == 1

        await place.look()
        assert place.loaded() == 2
        assert await place.lets_in("10.1.2.3", "192.0.2.1") == [False, True]

        await place.look()
        await place.look()
        assert place.loaded() == 2


async def test_a_file_that_is_being_written_is_not_read_half(path: Path):
    async with Place(allow=path) as place:
        with path.open("w") as file:
            for part in ("192.0.2.1", "28/25\n", "192.0.3.0/24\n"):
                file.write(part)
                file.flush()
                await place.look()
                assert place.loaded() == 1
        await place.look()

        assert place.loaded() == 2
        assert await place.lets_in("192.0.2.1", "192.0.2.200", "192.0.3.1") == [False, True, True]


async def test_a_broken_file_is_read_once_and_again_when_it_has_changed(path: Path):
    async with Place(allow=path) as place:
        replace(path, "rubbish")
        for _ in range(6):
            await place.look()
        assert place.failed("invalid") == 1
        assert await place.lets_in("10.1.2.3") == [True]

        replace(path, "192.0.2.0/24")
        await place.look()
        await place.look()
        assert await place.lets_in("10.1.2.3", "192.0.2.1") == [False, True]


async def test_a_file_that_goes_and_comes_back_is_read_again(path: Path):
    async with Place(allow=path) as place:
        path.unlink()
        for _ in range(4):
            await place.look()
        assert place.failed("unreadable") == 1

        path.write_text("192.0.2.0/24")
        await place.look()
        await place.look()
        assert await place.lets_in("192.0.2.1") == [True]


async def test_a_link_that_points_elsewhere_is_a_change(path: Path, tmp_path: Path):
    """So Kubernetes mounts a ConfigMap."""
    link = tmp_path / "link"
    link.symlink_to(path)
    other = tmp_path / "other.txt"
    other.write_text("11.0.0.0/8\n")
    stat = path.stat()
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    async with Place(allow=link) as place:
        link.unlink()
        link.symlink_to(other)
        await place.look()
        await place.look()

        assert await place.lets_in("10.1.2.3", "11.0.0.1") == [False, True]


async def test_without_poll_files_are_not_looked_at(path: Path):
    async with Place(allow=path, poll=None) as place:
        assert place.clock.timers == 0


async def test_at_an_interval_everything_is_loaded_anew():
    answers: Iterator[list[str]] = iter([["10.0.0.0/8"], ["192.0.2.0/24"], [], ["192.0.3.0/24"]])

    async with Place(allow=lambda: next(answers), interval=60) as place:
        await place.clock.advance(59)
        assert await place.lets_in("10.1.2.3") == [True]
        await place.clock.advance(1)
        await until(lambda: place.loaded() == 2)
        assert await place.lets_in("192.0.2.1") == [True]

        await until(lambda: place.clock.timers)
        await place.clock.advance(60)
        await until(lambda: place.failed("invalid"))
        assert await place.lets_in("192.0.2.1") == [True]

        await until(lambda: place.clock.timers)
        await place.clock.advance(60)
        await until(lambda: place.loaded() == 3)
        assert await place.lets_in("192.0.3.1") == [True]


async def test_a_load_that_outlasts_the_interval_is_not_joined_by_another():
    feed = Feed()
    async with Place(allow=feed, started=False, interval=60) as place:
        starting = asyncio.create_task(place.middleware.startup())
        await feed.answer("10.0.0.0/8")
        await starting
        await place.clock.advance(60)
        await until(lambda: len(feed.calls) == 2)
        await place.clock.advance(600)
        assert len(feed.calls) == 2

        await feed.answer("10.0.0.0/8")
        await until(lambda: place.clock.timers)


async def test_a_file_is_looked_at_and_loaded_at_an_interval_too(path: Path):
    async with Place(allow=path, interval=3) as place:
        assert place.clock.timers == 2
        await place.clock.advance(3)
        await until(lambda: place.loaded() == 2 and place.clock.timers == 2)


# ---- callables ------------------------------------------------------------------------------------------------------
async def test_a_function_is_called_in_a_thread_and_what_it_returns_is_read_there_too():
    threads: list[int] = []

    def listed() -> Iterator[str]:
        threads.append(threading.get_ident())

        def entries() -> Iterator[str]:
            threads.append(threading.get_ident())
            yield "10.0.0.0/8"

        return entries()

    async with Place(allow=listed) as place:
        assert await place.lets_in("10.1.2.3") == [True]
    assert len(threads) == 2
    assert threading.get_ident() not in threads


async def listed_async(*entries: str) -> list[str]:
    await asyncio.sleep(0)
    assert threading.current_thread() is threading.main_thread()
    return [*entries]


class Listing:
    async def __call__(self) -> set[str]:
        return {*await listed_async("10.0.0.0/8")}


@pytest.mark.parametrize(
    "call",
    [
        functools.partial(listed_async, "10.0.0.0/8"),
        Listing(),
        Listing().__call__,
        lambda: listed_async("10.0.0.0/8"),
        lambda: ("10.0.0.0/8",),
        lambda: {"10.0.0.0/8": "the office"},
    ],
    ids=["partial", "object", "method", "lambda that returns a coroutine", "lambda", "mapping"],
)
async def test_whatever_can_be_called_for_a_list_is_called(call: Callable[[], Any]):
    async with Place(deny=call) as place:
        assert await place.lets_in("10.1.2.3", "192.0.2.1") == [False, True]


def raise_secret() -> list[str]:
    raise RuntimeError("password=hunter2")


async def raise_secret_async() -> list[str]:
    raise RuntimeError("password=hunter2")


async def cancel_itself() -> list[str]:
    raise asyncio.CancelledError


def break_off() -> Iterator[str]:
    yield "10.0.0.0/8"
    raise RuntimeError("password=hunter2")


async def wants_more(needed: int) -> list[str]:
    return []


def stop_iteration() -> list[str]:
    raise StopIteration


async def entries_async() -> AsyncIterator[str]:
    yield "10.0.0.0/8"


@pytest.mark.parametrize(
    ("call", "reason", "said"),
    [
        (raise_secret, "raised", "the callable raised RuntimeError"),
        (raise_secret_async, "raised", "the callable raised RuntimeError"),
        (cancel_itself, "raised", "the callable raised CancelledError"),
        (break_off, "raised", "the callable raised RuntimeError"),
        (wants_more, "raised", "the callable raised TypeError"),
        (stop_iteration, "raised", "the callable raised StopIteration"),
        (lambda: None, "invalid", "no list of entries, but a NoneType"),
        (lambda: "10.0.0.0/8", "invalid", "no list of entries, but a str"),
        (lambda: b"10.0.0.0/8", "invalid", "no list of entries, but a bytes"),
        (entries_async, "invalid", "no list of entries, but a async_generator"),
        (list, "invalid", "there are no entries"),
        (lambda: ["10.0.0.1/8"], "invalid", "the callable returned '10.0.0.1/8'"),
        (lambda: [7], "invalid", "the callable returned 7"),
        (lambda: ["10.0.0.1"] * 6, "too_large", "more than 5 entries"),
    ],
)
async def test_a_function_that_has_no_list_fails_the_start_and_its_own_words_are_not_told(
    call: Callable[[], Any], reason: str, said: str
):
    place = Place(allow=call, max_entries=5)

    with pytest.raises(ConfigurationError) as caught:
        await place.middleware.startup()

    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert place.failed(reason) == 1


async def test_a_coroutine_that_takes_too_long_is_cancelled():
    feed = Feed()
    place = Place(allow=feed, timeout=0.02)

    with pytest.raises(ConfigurationError, match=r"took longer than 0.02 s"):
        await place.middleware.startup()

    assert feed.calls[0].cancelled()
    assert place.failed("timeout") == 1


async def test_a_thread_that_takes_too_long_is_not_joined_by_another():
    go_on = threading.Event()
    calls = 0

    def hang() -> list[str]:
        nonlocal calls
        calls += 1
        go_on.wait(5)
        return ["10.0.0.0/8"]

    async with Place(allow=hang, timeout=0.02, started=False) as place:
        for _ in range(3):
            assert await place.middleware.reload() is False
        assert (calls, place.failed("timeout")) == (1, 3)

        go_on.set()
        await until(lambda: place.middleware._lists._allow._thread._under_way.done())
        assert await place.middleware.reload() is True
        assert calls == 2


# ---- without a lifespan ---------------------------------------------------------------------------------------------
async def test_without_a_lifespan_the_first_requests_wait_for_one_load():
    feed = Feed()
    async with Place(allow=feed, started=False, interval=60) as place:
        requests = [asyncio.create_task(place.status(f"10.0.0.{last}")) for last in range(5)]
        requests.append(asyncio.create_task(place.status("192.0.2.1")))
        await until(lambda: feed.calls)
        await settle()
        assert not any(request.done() for request in requests)

        await feed.answer("10.0.0.0/8")

        assert await asyncio.gather(*requests) == [200] * 5 + [403]
        assert len(feed.calls) == 1
        assert place.clock.timers == 1


async def test_a_first_request_that_is_cancelled_does_not_take_the_load_with_it():
    feed = Feed()
    async with Place(allow=feed, started=False) as place:
        first = asyncio.create_task(place.status("10.0.0.1"))
        await until(lambda: feed.calls)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await feed.answer("10.0.0.0/8")
        await until(lambda: place.loaded())

        assert await place.status("10.0.0.1") == 200


EVENTSOURCE = {"accept": "text/event-stream", "cache-control": "no-cache"}


async def test_where_the_first_load_fails_everybody_is_refused_for_now_and_it_is_tried_again_a_little_later(path: Path):
    path.unlink()
    async with Place(allow=path, started=False) as place:
        async with Connection(place.middleware, scope={"client": ("10.0.0.1", 5)}) as connection:
            await connection.finished()
        assert connection.status == 503
        assert connection.header("retry-after") == "5"
        async with Connection(place.middleware, headers=EVENTSOURCE, scope={"client": ("10.0.0.1", 5)}) as soft:
            await soft.finished()
        assert (soft.status, soft.body) == (200, b"retry: 5000\n\n")
        async with WebSocketConnection(place.middleware, scope={"client": ("10.0.0.1", 5)}) as socket:
            await socket.closing()
        assert socket.messages[0]["status"] == 503
        assert place.observer.counts["ip_allowlist.refused", "not_loaded"] == 3
        assert place.failed("unreadable") == 1
        assert place.middleware.explain({"client": ("10.0.0.1", 5)}).reason == "not_loaded"

        path.write_text("10.0.0.0/8")
        assert await place.status("10.0.0.1") == 503
        await place.clock.advance(RETRY)
        assert await place.lets_in("10.0.0.1", "192.0.2.1") == [True, False]
        assert place.clock.timers == 1


async def test_lists_that_reload_has_put_there_are_watched_from_the_first_request(path: Path):
    async with Place(allow=path, started=False) as place:
        assert await place.middleware.reload() is True
        assert place.clock.timers == 0

        assert await place.lets_in("10.0.0.1") == [True]
        assert place.clock.timers == 1


async def test_what_a_request_has_in_its_context_is_not_seen_by_what_it_sets_off():
    secret = contextvars.ContextVar[str]("secret", default="")
    seen: list[str] = []

    async def listed() -> list[str]:
        seen.append(secret.get())
        return ["10.0.0.0/8"]

    async with Place(allow=listed, started=False, interval=60) as place:
        secret.set("of this request")
        assert await place.lets_in("10.0.0.1") == [True]
        await place.clock.advance(60)
        await until(lambda: len(seen) == 2)

    assert seen == ["", ""]


def test_an_app_that_is_run_on_one_loop_after_another_loads_on_each(path: Path):
    """As test clients do, without a lifespan; what is left of the loop before must not be waited for."""
    calls = 0

    async def listed() -> list[str]:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.get_running_loop().create_future()
        return ["10.0.0.0/8"]

    place = Place(allow=listed, started=False)

    async def first() -> None:
        task = asyncio.create_task(place.status("10.0.0.1"))
        await until(lambda: calls)
        task.cancel()

    asyncio.run(first())

    assert asyncio.run(place.lets_in("10.0.0.1", "192.0.2.1")) == [True, False]


# ---- with a lifespan ------------------------------------------------------------------------------------------------
async def lifespan_of(served: Callable[[Scope, Receive, Send], Awaitable[None]]) -> list[str]:
    """What a server hears through the whole of a lifespan."""
    heard: list[str] = []
    given = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> Message:
        return {"type": next(given)}

    async def send(message: Message) -> None:
        heard.append(message["type"] + (f": {message['message']}" if "message" in message else ""))

    try:
        await served({"type": "lifespan"}, receive, send)
    except ConfigurationError as error:
        heard.append(f"raised: {error}")
    return heard


@pytest.mark.parametrize("stacked", [False, True])
async def test_the_lifespan_opens_and_closes_it(path: Path, stacked: bool):
    clock = FakeClock()
    options: dict[str, Any] = {"allow": path, "clock": clock}
    served: Any = (
        Stack(app, [Middleware(IPAllowlistMiddleware, **options)]) if stacked else IPAllowlistMiddleware(app, **options)
    )

    assert await lifespan_of(served) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert clock.timers == 0

    path.unlink()
    heard = await lifespan_of(served)
    assert heard[0].startswith("lifespan.startup.failed: IPAllowlistMiddleware: ")
    assert "cannot be read" in heard[0]
    assert clock.timers == 0


# ---- at length ------------------------------------------------------------------------------------------------------
async def test_a_long_list_is_read_beside_the_loop_which_goes_on(path: Path):
    path.write_text("\n".join(f"{a}.{b}.{c}.0/24" for a in range(1, 3) for b in range(256) for c in range(0, 256, 2)))
    async with Place(allow=path) as place:
        turns = 0
        reloading = asyncio.create_task(place.middleware.reload())
        while not reloading.done():
            await asyncio.sleep(0.001)
            turns += 1

        assert await reloading is True
        assert turns > 5
        assert await place.lets_in("1.2.2.3", "1.2.3.3") == [True, False]
