"""A small TCP load balancer: connections go round-robin to those backends that say they are ready.

Rules:

1. A backend is asked for its readiness over HTTP again and again; one that does not say 2xx, or refuses a connection,
   gets no new connections. Those that it has are left alone: a worker on its way out ends them itself.
2. A connection that no backend takes is tried on the next one; nothing of it has been sent by then.
3. What is not ready now may be in a moment: with no backend ready a connection waits for one, up to ``patience``.
4. Bytes go through as they come, with the slower side's backpressure; when one side ends, what is on its way to the
   other is still delivered, and a reset is passed on as an end in the middle.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from types import TracebackType
from typing import cast

HOST = "127.0.0.1"
CHECK_WITHIN = 2.0
CONNECT_WITHIN = 2.0
MAX_CONNECTIONS = 10_000


class Backend:
    """One server behind the balancer. ``connections``: open now; ``taken``: so far; ``spoke``: the loop's time at which
    it last sent something to a client."""

    def __init__(self, name: str, port: int, tls: ssl.SSLContext | None) -> None:
        self.name = name
        self.port = port
        self.tls = tls
        self.ready = False
        self.connections = 0
        self.taken = 0
        self.spoke = 0.0
        self.checks: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<{self.name} at {self.port}, {'ready' if self.ready else 'not ready'}>"


class Balancer:
    """Listens on ``front`` while its ``async with`` lasts.

    :param path: what is asked for readiness.
    :param interval: seconds between two questions to a backend.
    :param patience: seconds that a connection waits for a backend.
    """

    def __init__(
        self, front: socket.socket, *, path: str = "/readyz", interval: float = 0.2, patience: float = 5.0
    ) -> None:
        self.backends: list[Backend] = []
        #: Connections that found no backend in time.
        self.refused = 0
        self._front = front
        self._path = path
        self._interval = interval
        self._patience = patience
        self._next = 0
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[_Side] = set()

    @property
    def port(self) -> int:
        return int(self._front.getsockname()[1])

    async def __aenter__(self) -> Balancer:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Side(self), sock=self._front, backlog=1024)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        checks = [backend.checks for backend in self.backends if backend.checks is not None]
        tasks = [*self._tasks, *checks]
        for task in tasks:
            task.cancel()
        for side in list(self._open):
            side.abort()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- backends

    def add(self, name: str, port: int, *, tls: ssl.SSLContext | None = None) -> Backend:
        """A backend on the loopback; it gets connections once it is ready. ``tls``: with which it is asked that."""
        backend = Backend(name, port, tls)
        backend.checks = asyncio.get_running_loop().create_task(self._check(backend))
        self.backends.append(backend)
        return backend

    def remove(self, backend: Backend) -> None:
        """No more connections for it; those that it has go on."""
        if backend in self.backends:
            self.backends.remove(backend)
        backend.ready = False
        if backend.checks is not None:
            backend.checks.cancel()

    async def until(self, backend: Backend, *, ready: bool = True) -> None:
        """Wait until a backend is ready, or is no longer."""
        async with self._changed:
            await self._changed.wait_for(lambda: backend.ready is ready)

    async def _check(self, backend: Backend) -> None:
        while True:
            await self._say(backend, await self._is_ready(backend))
            await asyncio.sleep(self._interval)

    async def _say(self, backend: Backend, ready: bool) -> None:
        if ready is not backend.ready:
            backend.ready = ready
            async with self._changed:
                self._changed.notify_all()

    async def _is_ready(self, backend: Backend) -> bool:
        try:
            async with asyncio.timeout(CHECK_WITHIN):
                name = HOST if backend.tls else None
                reader, writer = await asyncio.open_connection(
                    HOST, backend.port, ssl=backend.tls, server_hostname=name
                )
                try:
                    writer.write(f"GET {self._path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n".encode())
                    return (await reader.readline()).split(b" ")[1:2][0][:1] == b"2"
                finally:
                    writer.close()
        except (OSError, IndexError, TimeoutError):
            return False

    # -- connections

    def admit(self, side: _Side) -> None:
        """A client has connected: find it a backend."""
        if len(self._open) > 2 * MAX_CONNECTIONS:
            side.abort()
            return
        task = asyncio.get_running_loop().create_task(self._join(side))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def opened(self, side: _Side) -> None:
        self._open.add(side)

    def closed(self, side: _Side) -> None:
        self._open.discard(side)

    async def _join(self, client: _Side) -> None:
        try:
            async with asyncio.timeout(self._patience):
                while not client.gone and not await self._try_each(client):
                    async with self._changed:
                        await self._changed.wait_for(lambda: any(backend.ready for backend in self.backends))
        except TimeoutError:
            self.refused += 1
            client.abort()

    async def _try_each(self, client: _Side) -> bool:
        """True once a backend has the client."""
        loop = asyncio.get_running_loop()
        start, self._next = self._next, self._next + 1
        ready = [backend for backend in self.backends if backend.ready]
        for turn in range(len(ready)):
            backend = ready[(start + turn) % len(ready)]
            try:
                async with asyncio.timeout(CONNECT_WITHIN):
                    await loop.create_connection(lambda: _Side(self, client, backend), HOST, backend.port)  # noqa: B023
            except (OSError, TimeoutError):
                await self._say(backend, False)
                continue
            return True
        return False


class _Side(asyncio.Protocol):
    """One of the two sockets of a connection: the client's, or, with ``backend``, that to the backend."""

    def __init__(self, balancer: Balancer, peer: _Side | None = None, backend: Backend | None = None) -> None:
        self._balancer = balancer
        self._peer = peer
        self._backend = backend
        self._transport: asyncio.Transport | None = None
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._balancer.opened(self)
        plain = transport.get_extra_info("socket")
        if plain is not None:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer, backend = self._peer, self._backend
        if peer is None or backend is None:
            self._transport.pause_reading()
            self._balancer.admit(self)
            return
        backend.connections += 1
        backend.taken += 1
        peer._peer = self
        if peer.gone:
            self._transport.abort()
        elif peer._transport is not None:
            peer._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        peer = self._peer
        if peer is not None and peer._transport is not None:
            peer._transport.write(data)
        if self._backend is not None:
            self._backend.spoke = asyncio.get_running_loop().time()

    def pause_writing(self) -> None:
        self._hold(True)

    def resume_writing(self) -> None:
        self._hold(False)

    def _hold(self, hold: bool) -> None:
        peer = self._peer
        if peer is not None and peer._transport is not None and not peer._transport.is_closing():
            with contextlib.suppress(RuntimeError):  # a transport on its way out has no reading to hold
                (peer._transport.pause_reading if hold else peer._transport.resume_reading)()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._balancer.closed(self)
        if self._backend is not None:
            self._backend.connections -= 1
        peer = self._peer
        if peer is not None and peer._transport is not None and not peer.gone:
            if exc is None:
                peer._transport.close()
            else:
                peer._transport.abort()

    def abort(self) -> None:
        self.gone = True
        if self._transport is not None:
            self._transport.abort()
