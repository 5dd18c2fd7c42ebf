"""Serves the lifespan scope for a ``Stack``: around the app's own lifespan, or in place of it where the app has none.

Under ``--lifespan on`` Django and Channels' ``ProtocolTypeRouter`` fail to start, and under ``auto`` a server that was
refused never says that it shuts down. So the wrapped chain gets a lifespan of its own, in a task of its own, and the
server gets its answers from here. Rules:

1. Start-up: our hooks, outermost first, then the chain. Shutdown: our ``shutdown`` hooks, which end what still runs,
   then the chain, whose pools it may have needed, then our ``aclose`` hooks, innermost first.
2. A chain that raises or returns before it has answered is taken to have no lifespan. That it failed cannot be told
   from that in every case, so whatever did not plainly refuse the scope is logged as a warning, with its traceback.
   An exception of a class that is not built in is no refusal: the server gets that one, as it would without us.
3. What the chain does answer goes to the server as it is. What the server sends that is unknown here goes to the chain.
4. Every hook of ours has a time-out and cannot keep another from being called. The app's own lifespan has none: how
   long that may take is between it and the server.
5. However it ends, cancelled too: no task is left, and all that was opened has been closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from .middleware.base import BaseMiddleware, Lifecycle
from .types import AnyASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("streamware.lifespan")


async def serve_lifespan(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    chain: AnyASGIApp,
    own: Sequence[Lifecycle],
    hook_timeout: float | None,
) -> None:
    """Serve one lifespan scope: ``chain``'s, with the hooks of ``own``, outermost first, around it."""
    hooks = Hooks(own, hook_timeout)
    inner: Inner | None = None
    try:
        message = await receive()
        if failures := await hooks.startup():
            await hooks.shutdown()
            await hooks.aclose()
            await send({"type": "lifespan.startup.failed", "message": "; ".join(failures)})
            return

        inner = Inner(chain, scope, send)
        inner.pass_on(message)
        answer = await inner.answer(inner.started)
        if answer is None:
            if inner.error is not None and type(inner.error).__module__ != "builtins":
                raise inner.error
            inner.report_unsupported()
        elif answer["type"] == "lifespan.startup.failed":
            await hooks.shutdown()
            await hooks.aclose()
            await send(answer)
            await inner.task  # with its exception: the server may log it
            return
        await send(answer or {"type": "lifespan.startup.complete"})

        while (message := await receive())["type"] != "lifespan.shutdown":
            inner.pass_on(message)
        failures = await hooks.shutdown()
        inner.pass_on(message)
        answer = await inner.answer(inner.ended)
        failures += await hooks.aclose()
        if answer is not None and (answer["type"] == "lifespan.shutdown.failed" or not failures):
            await send(answer)
            await inner.task
            return
        if inner.supported and inner.error is not None:
            failures.insert(0, f"the app's lifespan raised {inner.error!r}")
        if failures:
            await send({"type": "lifespan.shutdown.failed", "message": "; ".join(failures)})
        else:
            await send({"type": "lifespan.shutdown.complete"})
    finally:
        await hooks.shutdown()
        if inner is not None:
            await inner.cancel(hook_timeout)
        await hooks.aclose()


class Inner:
    """The wrapped chain's lifespan, run in a task of its own."""

    __slots__ = ("_asked", "_messages", "_send", "ended", "started", "task")

    def __init__(self, chain: AnyASGIApp, scope: Scope, send: Send) -> None:
        loop = asyncio.get_running_loop()
        self.started: asyncio.Future[Message] = loop.create_future()
        self.ended: asyncio.Future[Message] = loop.create_future()
        self._asked = False
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._send = send
        self.task = loop.create_task(self._run(chain, scope), name="streamware: the app's lifespan")
        self.task.add_done_callback(self._report_early_end)

    @property
    def supported(self) -> bool:
        """True once the chain has answered the start-up."""
        return self.started.done()

    @property
    def error(self) -> BaseException | None:
        """What the chain raised; None too while it runs."""
        if not self.task.done():
            return None
        return asyncio.CancelledError("cancelled itself") if self.task.cancelled() else self.task.exception()

    def pass_on(self, message: Message) -> None:
        """Let the chain receive ``message``."""
        self._messages.put_nowait(message)

    async def answer(self, expected: asyncio.Future[Message]) -> Message | None:
        """Wait for an answer of the chain; None where it ended without one."""
        either: set[asyncio.Future[Message] | asyncio.Future[None]] = {expected, self.task}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return expected.result() if expected.done() else None

    async def cancel(self, patience: float | None) -> None:
        """End the task, if it still runs; one that will not be cancelled is waited for only so long."""
        if not self.task.done():
            self.task.cancel()
            await asyncio.wait({self.task}, timeout=patience)

    def report_unsupported(self) -> None:
        """Say that the chain is served without a lifespan, the louder the less plainly it refused the scope itself."""
        error = self.error
        if self._asked or (error is not None and "lifespan" not in str(error)):
            logger.warning(
                "The app's lifespan %s before it answered the start-up. It is served all the same, as an app without a "
                "lifespan: if this was its start-up that failed, it should send lifespan.startup.failed.",
                "returned" if error is None else f"raised {type(error).__name__}",
                exc_info=error,
            )
        else:
            logger.info("The app serves no lifespan (%s): Streamware answers in its place.", error or "it returned")

    async def _run(self, chain: AnyASGIApp, scope: Scope) -> None:
        await chain(scope, self._receive, self._take)

    async def _receive(self) -> Message:
        self._asked = True
        return await self._messages.get()

    async def _take(self, message: Message) -> None:
        kind = message["type"]
        expected = self.ended if kind.startswith("lifespan.shutdown.") else self.started
        if kind in _ANSWERS and not expected.done():
            expected.set_result(message)
        else:
            await self._send(message)  # unknown, or one too many: for the server to judge

    def _report_early_end(self, task: asyncio.Task[None]) -> None:
        error = self.error  # reading it also tells asyncio that it was seen
        if error is None or task.cancelled() or self.ended.done():
            return
        if self.started.done() and self.started.result()["type"] == "lifespan.startup.complete":
            logger.error("The app's lifespan raised while the app was being served.", exc_info=error)


_ANSWERS = frozenset(
    {
        "lifespan.startup.complete",
        "lifespan.startup.failed",
        "lifespan.shutdown.complete",
        "lifespan.shutdown.failed",
    }
)


class Hooks:
    """Our middlewares' hooks: each called once, in order, with a time-out, and its failure kept as a text."""

    __slots__ = ("_opened", "_own", "_running", "_timeout")

    def __init__(self, own: Sequence[Lifecycle], timeout: float | None) -> None:
        self._own = own
        self._timeout = timeout
        self._opened: list[Lifecycle] = []
        self._running: list[Lifecycle] = []

    async def startup(self) -> list[str]:
        """Open all, up to the first that fails."""
        for middleware in self._own:
            self._opened.append(middleware)  # also where it fails: what it opened half is to be closed
            if failure := await self._call(middleware, middleware.startup):
                return [failure]
            self._running.append(middleware)
        return []

    async def shutdown(self) -> list[str]:
        """End what runs in those that were started. Harmless twice."""
        failures: list[str] = []
        while self._running:
            middleware = self._running.pop(0)
            failures.append(await self._call(middleware, middleware.shutdown))
        return [*filter(None, failures)]

    async def aclose(self) -> list[str]:
        """Close those that were opened. Harmless twice."""
        failures: list[str] = []
        while self._opened:
            middleware = self._opened.pop()
            failures.append(await self._call(middleware, middleware.aclose))
        return [*filter(None, failures)]

    async def _call(self, middleware: Lifecycle, hook: Callable[[], Awaitable[None]]) -> str:
        name = f"{type(middleware).__name__}: {hook.__name__}"
        limit = self._timeout
        if limit is not None and isinstance(middleware, BaseMiddleware) and hook == middleware.shutdown:
            limit += middleware.patience
        timeout = asyncio.timeout(limit)
        try:
            async with timeout:
                await hook()
        except Exception as exc:
            logger.exception("%s failed", name)
            if timeout.expired():
                return f"{name} took longer than {limit:g} seconds"
            return f"{name} failed: {str(exc) or type(exc).__name__}"
        return ""
