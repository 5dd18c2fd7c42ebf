"""One HTTP response on its way through a content coding.

1. The start of a stream goes out at once, coded or not. That of any other response waits for the first message of the
   body, which tells its size, or that it has none that is known: then it is a stream as well.
2. Each message of a stream is flushed, and leaves in the ``send`` that it came in. Nothing is ever held for later.
3. The encoder is made for the first byte of the body, and dropped at its end, at the first sign that the client has
   left, and when the call returns, however it does. The rest of a body whose client has left is not encoded.
4. A response that is not coded is out of our hands from its start on: the app gets the server's own ``send``. Messages
   of a kind that has no bytes of the body pass. One that may have, and comes first, has the response left as it is.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

from ..paths import path_within_mount
from ..types import Message, RawHeaders, Receive, Scope, Send
from ..wire import headers as raw
from ..wire import negotiation
from ..wire.codecs import Encoder, GzipStream, body_encoder, stream_encoder
from ..wire.negotiation import Kind, Look
from .coding import CodingOptions

#: Messages that may come before the body's first, and have nothing of it.
PASSING = frozenset({"http.response.early_hint", "http.response.push", "http.response.debug"})
#: How much of a file is read at once, where an app hands over its path in the middle of a coded stream.
PIECE = 256 * 1024
#: What the hot path leaves to others. Less than is ever encoded off the loop.
LARGE = 16 * 1024


class CodedResponse:
    """The response to one request. ``body_coding``, ``live_coding``: what its client accepts, None for nothing but
    identity. ``coding``: what it gets, once its start has said so. ``encoder``: while there is one."""

    __slots__ = (
        "body_coding", "coding", "encoder", "flush", "flushes", "forward", "gone", "inner_receive", "inner_send",
        "live_coding", "look", "options", "queued", "scope", "start", "turn",
    )  # fmt: skip

    def __init__(
        self, options: CodingOptions, codings: tuple[str | None, str | None], scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.options = options
        self.body_coding, self.live_coding = codings
        self.scope = scope
        self.inner_receive = receive
        self.inner_send = send
        self.forward: Send = self.at_start
        self.start: Message | None = None  # held back
        self.look: Look
        self.coding = ""
        self.encoder: Encoder | None = None
        self.flush: Callable[[bytes], bytes] | None = None  # the encoder's, where nothing else is to be done
        self.flushes = False  # it is a stream
        self.gone = False
        self.turn: asyncio.Lock | None = None  # one of its messages is being encoded off the loop
        self.queued = 0  # that one, and those behind it

    # -- what the app calls

    async def receive(self) -> Message:
        """The app's ``receive``."""
        message = await self.inner_receive()
        if message["type"] == "http.disconnect":
            self.left()
        return message

    async def send(self, message: Message) -> None:
        """The app's ``send``, with the hot path: one more event of a stream."""
        # No local holds the encoder: frames live on in the traceback of an error that somebody keeps.
        if self.flush is not None and message["type"] == "http.response.body" and message.get("more_body"):
            body = message.get("body")
            if body and body.__class__ is bytes and len(body) < LARGE:
                try:
                    await self.inner_send({"type": "http.response.body", "body": self.flush(body), "more_body": True})
                except BaseException:
                    self.torn()
                    raise
                return
        await self.forward(message)

    def left(self) -> None:
        """The client has left: encode nothing any more. The app's messages still go to the server, which may tell it
        by raising; without their bytes, where these would have to be encoded."""
        self.gone = True
        if self.forward == self.at_body:
            self.forward = self.at_gone
        self.drop()

    async def end(self) -> None:
        """The app has returned. A start that is still held back goes out: what it is worth is the server's to say."""
        start, self.start = self.start, None
        if start is not None:
            await self.leave(start)

    def close(self) -> None:
        """The call returns, or raises. Whoever still sends is not heard, where what he sends would have to be encoded.
        Nothing refers to itself from here on, so that all is free at once."""
        self.drop()
        self.forward = self.inner_send if self.forward == self.inner_send else unheard

    def drop(self) -> None:
        """Free the encoder."""
        encoder, self.encoder = self.encoder, None
        self.flush = None
        if encoder is not None and self.options.rest is not None and isinstance(encoder, GzipStream):
            self.options.rest.discard(encoder)

    # -- the states of ``forward``

    def at_start(self, message: Message) -> Awaitable[None]:
        """Until the response starts."""
        if message["type"] != "http.response.start" or self.gone:
            return self.inner_send(message)
        given: RawHeaders = message.get("headers") or []
        if type(given) is not list:  # any iterable will do for ASGI, but it may be one that can be read only once
            given = list(given)
            message = {**message, "headers": given}
        self.look = look = negotiation.look_at(message["status"], given, self.options.media_types)
        if look.kind is Kind.LIVE:
            return self.commit(message, given, live=True)
        if look.kind is Kind.BODY and (look.length is None or look.length >= self.options.minimum_size):
            if self.scope["method"] == "HEAD":  # what a GET would have, as far as can be told (RFC 9110 §9.3.2)
                return self.commit(message, given, live=False, known=look.length is not None)
            if self.body_coding is None and self.live_coding is None:
                return self.leave({**message, "headers": negotiation.varied(given)})
            self.start = message
            self.forward = self.at_first
            return nothing()
        if look.kind is Kind.UNCHANGED:
            if self.body_coding is None and self.live_coding is None:
                return self.leave({**message, "headers": negotiation.varied(given)})
            held = raw.combined(self.scope["headers"], b"if-none-match")
            return self.leave({**message, "headers": negotiation.unchanged(given, held)})
        if look.reason:
            self.options.observer.count("compression.left", reason=look.reason)
        return self.leave(message)

    def at_first(self, message: Message) -> Awaitable[None]:
        """Until the first message of a body whose start is held back."""
        kind = message["type"]
        if kind in PASSING:
            return self.inner_send(message)
        start, self.start = self.start or {}, None
        given: RawHeaders = start["headers"]
        if kind != "http.response.body":  # the server's to fill, or unknown: as it came
            return self.both(self.leave(start), message)
        more = message.get("more_body", False)
        if self.gone or (not more and len(message.get("body", b"")) < self.options.minimum_size):
            return self.both(self.leave(start), message)
        if more and self.look.length is None:
            return self.both(self.commit(start, given, live=True), message)
        if self.body_coding is not None and not more:
            self.forward = self.inner_send
            return self.send_whole(start, message, self.body_coding)
        return self.both(self.commit(start, given, live=False), message)

    def commit(self, start: Message, given: RawHeaders, *, live: bool, known: bool = True) -> Awaitable[None]:
        """Send the start of a response that may be coded. ``known``: all that this depends on."""
        if live:
            reason = "cookie" if self.look.cookie else ""
            if not reason and not self.options.live[path_within_mount(self.scope)]:
                reason = "live"
            if reason:
                self.options.observer.count("compression.left", reason=reason)
                return self.leave(start)
        coding = self.live_coding if live else self.body_coding
        if coding is None or not known:
            return self.leave({**start, "headers": negotiation.varied(given)})
        start = {**start, "headers": negotiation.coded(given, coding)}
        if self.scope["method"] == "HEAD":
            return self.leave(start)
        self.coding, self.flushes = coding, live
        self.forward = self.at_body
        self.options.observer.count("compression.coded", reason=coding)
        return self.inner_send(start)

    def leave(self, start: Message) -> Awaitable[None]:
        """Send a start that is not ours to code, and step aside."""
        self.forward = self.inner_send
        return self.inner_send(start)

    async def both(self, start: Awaitable[None], message: Message) -> None:
        """Send a start that was held back, and what it waited for."""
        await start
        await self.forward(message)

    async def send_whole(self, start: Message, message: Message, coding: str) -> None:
        """Send a response whose body is one message."""
        encoder = body_encoder(coding)
        body = bytes(message.get("body", b""))
        if len(body) >= self.options.thread_size:
            body = await self.options.off_loop.run(encoder.finish, body)
        else:
            body = encoder.finish(body)
        self.options.observer.count("compression.coded", reason=coding)
        # With a length there is no place for trailers (RFC 9112 §7.1.2).
        length = None if start.get("trailers", False) else len(body)
        await self.inner_send({**start, "headers": negotiation.coded(start["headers"], coding, length)})
        self.forward = self.at_end
        await self.inner_send({**message, "body": body})

    async def at_body(self, message: Message) -> None:
        """While a body, or a stream, is under way: all that a message may be."""
        if message["type"] == "http.response.pathsend":
            await self.send_file(message["path"])
            return
        if message["type"] != "http.response.body":
            await self.at_end(message)
            return
        body = bytes(message.get("body", b""))
        more = message.get("more_body", False)
        if not body and more:  # nothing to encode, yet a server may make something of it
            await self.inner_send(message)
            return
        if self.turn is not None or len(body) >= self.options.thread_size:
            await self.take_turn(message, body, more)
        else:
            await self.pass_on(message, self.call(more)(body), more)

    async def take_turn(self, message: Message, body: bytes, more: bool) -> None:
        """Encode a message off the loop, or one that came meanwhile: in the order in which they were sent."""
        turn = self.turn = self.turn or asyncio.Lock()
        self.queued += 1
        self.flush = None
        try:
            async with turn:
                if self.gone:
                    await self.at_gone(message)
                elif len(body) < self.options.thread_size:
                    await self.pass_on(message, self.call(more)(body), more)
                else:
                    await self.pass_on(message, await self.encode_off_loop(body, more), more)
        finally:
            self.queued -= 1
            if not self.queued:
                self.turn = None
                self.shorten()

    async def encode_off_loop(self, body: bytes, more: bool) -> bytes:
        """``body``, encoded in a thread. Nobody else touches the encoder meanwhile."""
        call, encoder, rest = self.call(more), self.encoder, self.options.rest
        if isinstance(encoder, GzipStream):
            encoder.wake()  # here, for the thread has no loop for a timer
            if rest is not None:
                rest.discard(encoder)
        try:
            coded = await self.options.off_loop.run(call, body)
        except BaseException:  # cancelled, most likely: these bytes are lost, and the next build on them
            self.drop()
            self.forward = self.at_loss
            raise
        if encoder is not self.encoder:  # the client has left meanwhile
            return b""
        if more and rest is not None and isinstance(encoder, GzipStream):
            rest.add(encoder)
        return coded

    def shorten(self) -> None:
        """Open the hot path, if there is nothing to be done but to flush."""
        if self.encoder is not None and self.flushes and not self.options.padding and self.turn is None:
            self.flush = self.encoder.flush

    def call(self, more: bool) -> Callable[[bytes], bytes]:
        """How the encoder, made now if this is the first byte, takes the next."""
        encoder = self.encoder
        if encoder is None:
            self.encoder = encoder = self.made()
            self.shorten()
        if not more:
            return encoder.finish
        return encoder.flush if self.flushes else encoder.encode

    def made(self) -> Encoder:
        """A new encoder."""
        if not self.flushes:
            return body_encoder(self.coding)
        options = self.options
        return stream_encoder(self.coding, options.window, None if options.rest is None else options.rest.add)

    async def pass_on(self, message: Message, coded: bytes, more: bool) -> None:
        """Send what has been encoded."""
        if self.flushes and self.options.padding and more and self.encoder is not None:
            coded += self.padding(self.encoder)
        if not more:
            self.drop()
            self.forward = self.at_end
        try:
            await self.inner_send({**message, "body": coded})
        except BaseException:
            self.torn()
            raise

    def padding(self, encoder: Encoder) -> bytes:
        """Bytes that decode to nothing, so many as nobody can foretell."""
        return encoder.filler * secrets.randbelow(self.options.padding // len(encoder.filler) + 1)

    def torn(self) -> None:
        """What was encoded last may not have been sent: what follows must be readable without it."""
        if isinstance(self.encoder, GzipStream):
            self.encoder.forget()
            if self.options.rest is not None:
                self.options.rest.discard(self.encoder)

    def at_end(self, message: Message) -> Awaitable[None]:
        """Behind the body, and for what is none of it."""
        if message["type"] == "http.response.trailers":
            message = {**message, "headers": negotiation.without_digests(message.get("headers") or ())}
        return self.inner_send(message)

    def at_gone(self, message: Message) -> Awaitable[None]:
        """When the client has left."""
        if message["type"] == "http.response.body" and message.get("body"):
            message = {**message, "body": b""}
        return self.inner_send(message)

    async def at_loss(self, message: Message) -> None:
        """When a part of the body was lost, for whoever sent it was cancelled meanwhile."""
        if message["type"] == "http.response.body":
            raise OSError("a part of this response's body was cancelled: the rest cannot be decoded")
        await self.inner_send(message)

    async def send_file(self, path: str) -> None:
        """Take the body from a file after all, since its start says that it is coded."""
        with open(path, "rb") as file:  # noqa: ASYNC230  opening waits for no one; reading is done in pieces
            while True:
                piece = await self.options.off_loop.run(lambda _: file.read(PIECE), b"")
                await self.forward({"type": "http.response.body", "body": piece, "more_body": bool(piece)})
                if not piece:
                    return


async def nothing() -> None:
    """What ``send`` returns for a start that is held back."""


async def unheard(message: Message) -> None:
    """What ``send`` does behind the end of the call."""
