"""A real uvicorn on a loopback socket, in the test's own loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import uvicorn

Serve = Callable[[Callable[..., Any]], Awaitable[str]]


@asynccontextmanager
async def serving(app: Callable[..., Any]) -> AsyncIterator[str]:
    """``app`` under uvicorn; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, ws="none"))
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            async with asyncio.timeout(10):
                while not server.started:
                    if task.done():
                        await task
                    await asyncio.sleep(0.01)
            host, port = listening.getsockname()
            yield f"http://{host}:{port}"
        finally:
            server.should_exit = True
            await task


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves apps until the test is over: ``url = await serve(app)``."""
    async with AsyncExitStack() as stack:

        async def serve(app: Callable[..., Any]) -> str:
            return await stack.enter_async_context(serving(app))

        yield serve
