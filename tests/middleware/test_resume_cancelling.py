"""How an app is ended whose stream was: by being told, where it listens for that, and by being cancelled.

Some frameworks cannot be ended by being cancelled: theirs is a task that waits for two others, of which one listens for
the client's leaving and one does the work. Cancelled itself, it leaves both behind: the work goes on, unread. Django's
handler is one; ``ByTelling`` is the same in the small.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, StreamingHttpResponse
from django.test import override_settings
from django.urls import path

import examples.django_app  # noqa: F401  # Django's settings are given once in a process
from streamware.streams.options import CANCEL_AFTER
from streamware.testing import settle
from streamware.types import Receive, Scope, Send
from tests.middleware.resume_site import READER, Site, body, start, until


class Work:
    """Streams two events, and then works for as long as it is let. ``ended``: by what."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def events(self) -> AsyncIterator[bytes]:
        try:
            yield b"data: a\n\n"
            yield b"data: b\n\n"
            await asyncio.get_running_loop().create_future()
        except BaseException as error:
            await asyncio.sleep(0.01)  # as a connection to a provider is closed
            self.ended.append(type(error).__name__)
            raise


class ByTelling:
    """An app that ends its work when it is told that the client has gone, and leaves it when it is cancelled.
    ``heeds``: it does end it, rather than to hear of it and go on."""

    def __init__(self, work: Work, *, heeds: bool = True) -> None:
        self.told = asyncio.Event()
        self.cancelled = False
        self._work = work
        self._heeds = heeds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tasks = [asyncio.ensure_future(self._listen(receive)), asyncio.ensure_future(self._respond(send))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED if self._heeds else asyncio.ALL_COMPLETED)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            if self._heeds is not self.cancelled:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.told.set()

    async def _respond(self, send: Send) -> None:
        await send(start())
        async for event in self._work.events():
            await send(body(event))


WAYS = ("stop", "stall_timeout", "max_duration")
ENDS_AFTER = {"stall_timeout": 75, "max_duration": 60}


async def end_by(way: str, site: Site, stream: str) -> None:
    if way == "stop":
        await site.store.stop(stream)
    else:
        await site.clock.advance(ENDS_AFTER[way])  # and no further: the clock is quicker than an app that ends


def options_of(way: str) -> dict[str, float]:
    return {} if way == "stop" else {way: 60}


@pytest.mark.parametrize("way", WAYS)
async def test_work_that_is_ended_by_telling_ends_with_its_stream(way: str) -> None:
    work = Work()
    app = ByTelling(work)
    async with Site(app, **options_of(way)) as site:
        reader = site.connect()
        await reader.events(2)
        await end_by(way, site, reader.stream)
        await until(lambda: bool(work.ended))
        await reader.finished()

    assert work.ended == ["CancelledError"]
    assert app.told.is_set()
    assert not app.cancelled


async def test_an_app_that_was_told_and_goes_on_is_cancelled() -> None:
    work = Work()
    app = ByTelling(work, heeds=False)
    async with Site(app) as site:
        reader = site.connect()
        await reader.events(2)
        await site.store.stop(reader.stream)
        await app.told.wait()
        await reader.finished()
        await site.clock.advance(CANCEL_AFTER * 0.9)
        assert not app.cancelled
        await site.clock.advance(CANCEL_AFTER * 0.1)
        await until(lambda: bool(work.ended))

    assert app.cancelled


async def test_an_app_that_does_not_listen_is_cancelled_at_once() -> None:
    async with Site(listens=False) as site:
        reader, run = await site.started("a")
        await site.store.stop(reader.stream)
        await run.over.wait()

    assert run.cancelled


async def test_a_shutdown_tells_first_and_cancels_who_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamware.streams.worker.CANCEL_AFTER", 0.05)
    heeding, deaf = Work(), Work()
    first, second = ByTelling(heeding), ByTelling(deaf, heeds=False)

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        await (first if scope["path"] == "/first" else second)(scope, receive, send)

    async with Site(both) as site:
        for target in ("/first", "/second"):
            await site.connect(target).events(2)
        await site.resume.shutdown()

        assert heeding.ended == deaf.ended == ["CancelledError"]
        assert not first.cancelled
        assert second.cancelled


async def test_a_shutdown_does_not_cancel_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamware.streams.worker.CANCEL_AFTER", 0.01)
    tidy = asyncio.Event()

    async def tidies_up() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0.05)
            tidy.set()

    async with Site(listens=False) as site:
        _, run = await site.started("a")
        run.begin(tidies_up)
        await settle()
        await site.resume.shutdown()

    assert tidy.is_set()


# -- Django

work = Work()


async def view(request: HttpRequest) -> StreamingHttpResponse:
    assert request.body == b"{}"
    return StreamingHttpResponse(work.events(), content_type="text/event-stream")


urlpatterns = [path("work", view)]


@pytest.mark.parametrize("way", [*WAYS, "shutdown"])
async def test_a_view_of_djangos_ends_with_its_stream(way: str, caplog: pytest.LogCaptureFixture) -> None:
    work.ended.clear()
    with override_settings(ROOT_URLCONF=__name__):
        async with Site(get_asgi_application(), **options_of("stop" if way == "shutdown" else way)) as site:
            headers = {"host": "testserver", **READER}
            reader = site.connect("/work", method="POST", headers=headers, body=b"{}")
            await reader.events(2)
            if way == "shutdown":
                await site.resume.shutdown()
            else:
                await end_by(way, site, reader.stream)
            await until(lambda: bool(work.ended))
            await reader.finished()
        gc.collect()  # a request body that was left open would be a warning, which is an error

    assert work.ended == ["CancelledError"]
    assert "never retrieved" not in caplog.text
