"""Where a list of addresses comes from: values, a file, or a callable.

Rules:

1. Values are read when they are given. Files and callables are read when they are asked, in a thread, and so is what
   they say: parsing a long list must not hold up the loop.
2. Whatever is wrong is a ``ListError`` that names the list, and the line where there is one. No other leaves.
3. Nothing is read past its cap, nothing is waited for without a time-out. A thread cannot be ended: while one is still
   at it, no second one is sent after it.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import stat
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar, cast

from ..exceptions import ConfigurationError
from ..wire.addresses import AddressSet, InvalidEntry, TooManyEntries

T = TypeVar("T")

#: What ``allow`` and ``deny`` of ``IPAllowlistMiddleware`` may be.
AddressList: TypeAlias = Iterable[str] | Path | Callable[[], Iterable[str] | Awaitable[Iterable[str]]]

#: Tells one state of a file from another; None where there is no file.
Stamp: TypeAlias = tuple[int, ...] | None


class ListError(Exception):
    """A list cannot be had. ``reason``: a short fixed word for counters: ``unreadable``, ``invalid``, ``too_large``,
    ``timeout`` or ``raised``."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Source(Protocol):
    """Where one list comes from. ``given``: the list, where it never changes. ``path``: the file to look at."""

    given: AddressSet | None
    path: Path | None

    async def load(self) -> AddressSet:
        """The list as it is now.

        :raises ListError: it cannot be had.
        """
        ...


class Thread:
    """Runs one function at a time in a thread, and waits for it only so long."""

    __slots__ = ("_timeout", "_under_way")

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._under_way: asyncio.Future[None] | None = None

    async def run(self, function: Callable[[], T]) -> T:
        """What ``function`` returns.

        :raises ListError: it takes too long, or an earlier one still does; and what it raises itself.
        """
        loop = asyncio.get_running_loop()
        if self._under_way is not None and self._under_way.get_loop() is loop:  # else it will never be heard of
            await self._end(self._under_way, "an earlier reading has not ended yet")
        results: list[T] = []
        future = loop.run_in_executor(None, copy_context().run, lambda: results.append(function()))
        self._under_way = future
        future.add_done_callback(_look_at)
        await self._end(future, "reading it took longer")
        future.result()
        return results[0]

    async def _end(self, future: asyncio.Future[None], late: str) -> None:
        await asyncio.wait({future}, timeout=self._timeout)
        if not future.done():
            raise ListError("timeout", f"{late}: {self._timeout:g} s are over")


def _look_at(future: asyncio.Future[None]) -> None:
    """So that nothing is said to be forgotten where nobody waits for it any more."""
    if not future.cancelled():
        future.exception()


class Values:
    """A list that was given as it is."""

    path: Path | None = None

    def __init__(self, addresses: AddressSet) -> None:
        self._addresses = addresses
        self.given: AddressSet | None = addresses

    async def load(self) -> AddressSet:
        return self._addresses


class FileSource:
    """A text file with an entry a line; ``#`` and what follows it is a comment."""

    given: AddressSet | None = None

    def __init__(self, path: Path, *, max_bytes: int, max_entries: int, timeout: float) -> None:
        self.path: Path | None = path
        self._path = path
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._thread = Thread(timeout)

    async def load(self) -> AddressSet:
        return await self._thread.run(self._read)

    def _read(self) -> AddressSet:
        lines = _Lines()
        try:
            if not stat.S_ISREG(self._path.stat().st_mode):  # a pipe would be waited for, a device has no end
                raise ListError("unreadable", f"{self._path} is no regular file")
            with self._path.open("rb") as file:
                data = file.read(self._max_bytes + 1)
            if len(data) > self._max_bytes:
                raise ListError("too_large", f"{self._path} has more than {self._max_bytes} bytes")
            return AddressSet(lines.entries(data.decode("utf-8-sig")), most=self._max_entries)
        except TooManyEntries as error:
            raise ListError("too_large", f"{self._path}: {error.why}") from error
        except InvalidEntry as error:
            where = f", line {lines.number}" if error.entry else ""
            raise ListError("invalid", f"{self._path}{where}: {error}") from error
        except UnicodeDecodeError as error:
            raise ListError("invalid", f"{self._path} is not UTF-8") from error
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise ListError("unreadable", f"{self._path} cannot be read: {error}") from error


class _Lines:
    """Reads entries, and knows in which line it is."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0

    def entries(self, text: str) -> Iterator[str]:
        for number, line in enumerate(text.split("\n"), start=1):
            self.number = number
            entry = line.partition("#")[0].strip()
            if entry:
                yield entry


class CalledSource:
    """A function that returns the entries: a coroutine function is awaited on the loop, another is called in a thread,
    and awaited where it returns an awaitable."""

    given: AddressSet | None = None
    path: Path | None = None

    def __init__(self, call: Callable[[], object], *, max_entries: int, timeout: float) -> None:
        self._call = call
        self._on_loop = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(
            getattr(call, "__call__", None)  # noqa: B004 - not whether it can be called, but how
        )
        self._max_entries = max_entries
        self._timeout = timeout
        self._thread = Thread(timeout)

    async def load(self) -> AddressSet:
        given: object = self._called() if self._on_loop else await self._thread.run(self._called)
        if inspect.isawaitable(given):
            given = await self._awaited(given)
        return await self._thread.run(lambda: self._parsed(given))

    def _called(self) -> object:
        try:
            return self._call()
        except Exception as error:
            raise _raised(error) from error

    async def _awaited(self, awaitable: Awaitable[object]) -> object:
        timeout = asyncio.timeout(self._timeout)
        try:
            async with timeout:
                return await awaitable
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise _raised(error) from error
        except Exception as error:
            if timeout.expired():
                raise ListError("timeout", f"the callable took longer than {self._timeout:g} s") from error
            raise _raised(error) from error

    def _parsed(self, given: object) -> AddressSet:
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            raise ListError("invalid", f"the callable returned no list of entries, but a {type(given).__name__}")
        try:
            # Which may go on reading, where it is a generator.
            return AddressSet(cast("Iterable[object]", given), most=self._max_entries)
        except TooManyEntries as error:
            raise ListError("too_large", f"in what the callable returned {error.why}") from error
        except InvalidEntry as error:
            raise ListError("invalid", f"the callable returned {error}") from error
        except Exception as error:
            raise _raised(error) from error


def _raised(error: BaseException) -> ListError:
    # Its text is somebody else's, and may hold what a start-up message must not: it is logged with the traceback only.
    return ListError("raised", f"the callable raised {type(error).__name__}")


def source_of(
    owner: str, option: str, given: object, *, max_bytes: int, max_entries: int, timeout: float
) -> Source | None:
    """The source that the option of a middleware, ``owner``, stands for; None for None.

    :raises ConfigurationError: it is none, or its values are not all addresses.
    """
    if given is None:
        return None
    if isinstance(given, os.PathLike):
        return FileSource(
            Path(cast("os.PathLike[str]", given)), max_bytes=max_bytes, max_entries=max_entries, timeout=timeout
        )
    if callable(given):
        return CalledSource(given, max_entries=max_entries, timeout=timeout)
    expected = "a list of addresses and CIDRs, a pathlib.Path, or a callable that returns a list"
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ConfigurationError.option(owner, option, given, expected)
    try:
        return Values(AddressSet(cast("Iterable[object]", given), most=max_entries))
    except InvalidEntry as error:
        raise ConfigurationError(f"{owner}: {option} must be {expected}: {error}") from error


def stamp_of(path: Path) -> Stamp:
    """The state of a file; blocking."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    # The inode, for files that are replaced; the time of change, for rights that are given.
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
