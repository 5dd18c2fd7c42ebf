"""Looks out for streams on one connection: what a plain request pays for heartbeats and drain, and no more.

Rules:

1. A response is looked at once, at its start. One that may be a stream gets a pulse; any other gets the server's own
   ``send``.
2. Where somebody may want to end responses (``PulseOptions.under_way``), a response that may be a stream is listed
   there, from its start to the end of its call.
3. Where the connection has a tenure, it is held as soon as the response has begun and proved to be a stream.
4. An app that is told to end (``tell``) is told as by a client that leaves, by both of ASGI's signals at once. Nothing
   that it sends reaches the server any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

import msgspec

from ..record import tenure_of
from ..types import Message, RawHeaders, Receive, Scope, Send
from ..wire.boundary import LineBoundary
from ..wire.denial import is_eventsource_like
from .ending import Ending
from .farewell import Farewell
from .gone import ClientGone, is_disconnect
from .pulse import PulseOptions, ResponsePulse
from .tenure import Tenure


class Lookout(msgspec.Struct, eq=False):
    """An HTTP response until its start shows whether it may be one to put something into. Most are not, and this is
    all that they pay for: a ``Struct``, for that is made without a frame of its own.

    ``open``: there is a pulse to be ended. ``gone``: the client is known to have left. ``quiet``: nobody else is to
    hear of a stream. ``told``: the app has been told to end. ``listener``: the task that waits in the server's
    ``receive``.
    """

    options: PulseOptions
    scope: Scope
    inner_receive: Receive
    inner_send: Send
    pulse: ResponsePulse | None = None
    listener: asyncio.Task[object] | asyncio.Future[Message] | None = None
    open: bool = False
    gone: bool = False
    quiet: bool = False
    told: bool = False

    def __repr__(self) -> str:  # a scope has secrets in it
        return object.__repr__(self)

    async def receive(self) -> Message:
        """The app's ``receive``."""
        if self.told:
            return {"type": "http.disconnect"}
        if self.options.under_way is None:
            message = await self.inner_receive()
        else:
            task = self.listener = current_task()
            before = 0 if task is None else task.cancelling()
            try:
                message = await self.inner_receive()
            except asyncio.CancelledError:
                if not self.told or task is None or task.uncancel() > before:
                    raise
                return {"type": "http.disconnect"}
            finally:
                self.listener = None
        if message["type"] == "http.disconnect":
            self.left()
        return message

    def left(self) -> None:
        """The client has left."""
        self.gone = True
        if self.pulse is not None:
            self.pulse.stop()

    def send(self, message: Message) -> Awaitable[None]:
        """The app's ``send``. No coroutine of its own: what it returns is the server's, or the pulse's."""
        if self.pulse is not None:
            return self.pulse.forward(message)
        if message["type"] == "http.response.start" and not self.gone:
            given: RawHeaders | None = message.get("headers")
            if given is not None and type(given) is not list:
                given = list(given)
                message = {**message, "headers": given}
            for name, value in given or ():
                if name == b"content-length":  # what states its length is no stream, and most responses do
                    break
                if name == b"content-type" or (len(name) == 12 and name.lower() == b"content-type"):
                    if self.options.known.get(value) is not False and self.options.may_be_stream(value):
                        return self.send_start(message)
                    break
        inner_send = self.inner_send  # a slot's value is called faster from a local
        return inner_send(message)

    def send_start(self, message: Message) -> Awaitable[None]:
        """Send the start of a response that may be a stream."""
        options = self.options
        if options.on_stream is not None and not self.quiet:
            options.on_stream(self.scope, message)
        self.pulse = ResponsePulse(options, self.scope, self.inner_receive, self.inner_send)
        self.open = True
        self.list_it(True)
        tenure = tenure_of(self.scope)
        if isinstance(tenure, Tenure):
            return self.send_held_start(message, self.pulse, tenure)
        return self.pulse.send_start(message)

    async def send_held_start(self, message: Message, pulse: ResponsePulse, tenure: Tenure) -> None:
        """The same where the stream may last for as long as its tenure only."""
        await pulse.send_start(message)
        if not pulse.stopped or pulse.encoded:
            tenure.hold(self)

    def list_it(self, listed: bool) -> None:
        """List the response as one that may have to be ended, or no longer: a reader's, which is to be asked."""
        under_way = self.options.under_way
        if under_way is not None:
            (under_way.add if listed else under_way.discard)(self)

    def dismiss(self, ending: Ending, retry: int) -> Coroutine[Any, Any, bool] | None:
        """End the response in the app's place. ``retry``: milliseconds after which an EventSource is to come back.
        None: it is no stream."""
        return None if self.pulse is None else Farewell(self, self.pulse, ending, retry).say()

    def warn(self, event: bytes) -> bool | None:
        """Put a control event into the response, if its client takes one: else None. False: not now, try again."""
        if self.told or self.pulse is None or self.pulse.stopped or not is_eventsource_like(self.scope):
            return None
        if isinstance(self.pulse.boundary, LineBoundary):  # NDJSON has no place for it
            return None
        return self.pulse.interject(event)

    def tell(self) -> None:
        """Tell the app that it is to end, as if its client had left."""
        self.told = True
        if self.pulse is not None:
            self.pulse.stop()
            self.pulse.forward = self.send_late
        if self.listener is not None:
            self.listener.cancel()

    async def send_late(self, message: Message) -> None:
        """The app's ``send`` once it was told. An app that does nothing but send has to learn of it here, whatever the
        server's version of the specification says: else it would hold the worker's end up."""
        await asyncio.sleep(0)
        raise ClientGone("the response was ended in the app's place")

    def forgives(self, error: Exception) -> bool:
        """Whether what the app raised says no more than what it was told."""
        return self.told and is_disconnect(error)

    async def end(self) -> None:
        """The app has returned: nothing may be sent any more."""
        if self.pulse is not None:
            await self.pulse.end()
            self.pulse.shortcut = None
        self.list_it(False)


def current_task() -> asyncio.Task[object] | None:
    """The running task of asyncio's."""
    try:
        return asyncio.current_task()
    except RuntimeError:  # trio: nobody ends a response there
        return None
