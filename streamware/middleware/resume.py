"""``ResumeMiddleware``: an app's event streams survive their connections.

This module decides which requests take part and what each of them gets; the work is in ``streamware.streams``. The app
runs as a producer into a log, connections are readers of it (see there). Requests that take no part run in the
caller's own task with the caller's own ``receive``; their ``send`` is only looked at for event streams without a log.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from ..clock import LoopClock
from ..exceptions import ConfigurationError, StoreUnavailable
from ..observe import NullObserver, Observer, OnceLog
from ..paths import compile_globs, path_within_mount, patterns
from ..stores.base import Claim, Log, Store, Tombstone
from ..stores.memory import MemoryStore
from ..streams.answer import Await, Follow, Gone, NoContent, Start, answer
from ..streams.asked import LONE_KEY_LENGTH, Request, read_request
from ..streams.inbound import Inbound
from ..streams.options import AHEAD_WAIT, ASYNC_LINGER, CLAIM_WAIT, KEYED_BODY_BYTES, ByPath, Options
from ..streams.owner import SESSION_COOKIES, Identity, identify
from ..streams.producer import Producer, Verdict
from ..streams.reader import Left, Reader
from ..streams.resource import (
    METHODS,
    UNKNOWN,
    Asked,
    accepted,
    asked_for,
    gone_denial,
    poll,
    stop,
    wait_of,
    wants_poll,
)
from ..streams.response import VARY, first_start, later_start
from ..streams.worker import Worker
from ..types import ASGIApp, Clock, Message, Receive, Scope, Send
from ..wire import headers, sse
from ..wire.cursor import new_stream_id, stream_tag
from ..wire.denial import Denial, deny, is_eventsource_like, no_content
from .base import BaseMiddleware

logger = logging.getLogger("streamware.resume")


class ResumeMiddleware(BaseMiddleware):
    """See docs/middleware/resume.md for the whole of it; in short, by option:

    :param store: where logs live; default a ``MemoryStore`` of its own, which serves one process.
    :param always: glob patterns of paths whose requests may get a log whatever they accept. For clients that say
        ``*/*`` or ``application/json`` and get an event stream all the same, as OpenAI's SDKs do.
    :param media_types: of responses that are streams; add ``application/x-ndjson`` for NDJSON.
    :param owner: called with the scope, in the request's task, returns who asks as a string, or None for nobody;
        default: the principal in the scope, else a hash of the request's credential.
    :param owner_cookies: names of the cookies that hold a login.
    :param app_ids: ``"pass"`` lets a stream through untouched whose first event has an ``id`` of the app's own;
        ``"replace"`` takes it over.
    :param linger: seconds that an app goes on with no reader; 0: it is told at once, None: never; or by path.
    :param on_done: what a reader gets that comes back to a stream that ended properly: ``"stop"`` 204, ``"restart"``
        the app once more, for feeds that end their responses on purpose; or by path.
    :param on_expired: what an EventSource gets whose cursor is unknown: ``"restart"`` the app, told so in band, or
        ``"gone"`` 204; or by path.
    :param retry: seconds, spread by a quarter either way, after which an EventSource reconnects.
    :param window: bytes that the app may be ahead of its foremost reader; default 256 KiB.
    :param max_event_bytes: larger events are not kept; default 1 MiB.
    :param max_readers: connections that follow one stream; the newest wins.
    :param max_detached: apps that run with no reader, in this worker; over it the oldest is told.
    :param max_detached_per_owner: the same for one owner.
    :param early_start: seconds of silence after which the response begins without the app; None: never. A status
        other than 200 then becomes an error event.
    :param stall_timeout: seconds without an event after which an app is ended as failed; None: never.
    :param max_duration: seconds after which a stream is ended as failed; None: never.
    :param replay_headers: names of response headers that later readers get too, beside the usual ones.
    :param observer: receives the counters.
    :param clock: tests' clock.
    :raises ConfigurationError: an option that cannot work.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        store: Store | None = None,
        paths: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        always: Iterable[str] = (),
        media_types: Iterable[str] = ("text/event-stream",),
        owner: Callable[[Scope], str | None] | None = None,
        owner_cookies: Iterable[str] = SESSION_COOKIES,
        app_ids: Literal["pass", "replace"] = "pass",
        linger: float | Mapping[str, float | None] | None = 30.0,
        on_done: str | Mapping[str, str] = "stop",
        on_expired: str | Mapping[str, str] = "restart",
        retry: float = 3.0,
        window: int = 256 * 1024,
        max_event_bytes: int = 1024 * 1024,
        max_readers: int = 16,
        max_detached: int = 1000,
        max_detached_per_owner: int = 32,
        early_start: float | None = None,
        stall_timeout: float | None = None,
        max_duration: float | None = None,
        replay_headers: Iterable[str] = (),
        observer: Observer | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(app, paths=paths, exclude=exclude)
        clock = clock or LoopClock()
        for option, value in (("retry", retry), ("window", window), ("max_event_bytes", max_event_bytes),
                              ("max_readers", max_readers), ("max_detached", max_detached),
                              ("max_detached_per_owner", max_detached_per_owner)):  # fmt: skip
            _check(_positive(value), option, value, "a number greater than 0")
        for option, seconds in (("early_start", early_start), ("stall_timeout", stall_timeout),
                                ("max_duration", max_duration)):  # fmt: skip
            _check(
                seconds is None or _positive(seconds), option, seconds, "a number of seconds greater than 0, or None"
            )
        _check(app_ids in ("pass", "replace"), "app_ids", app_ids, '"pass" or "replace"')
        _check(owner is None or callable(owner), "owner", owner, "callable, or None")
        types = _names("media_types", media_types)
        _check(bool(types), "media_types", media_types, "a list with at least one media type")
        observer = observer or NullObserver()
        self._options = Options(
            store=MemoryStore(clock=clock) if store is None else store,
            clock=clock,
            observer=observer,
            advice=OnceLog(logger),
            owner=owner,
            owner_cookies=frozenset(_names("owner_cookies", owner_cookies)),
            media_types=frozenset(name.lower().encode() for name in types),
            replay_headers=frozenset(name.lower().encode() for name in _names("replay_headers", replay_headers)),
            replace_ids=app_ids == "replace",
            linger=ByPath("linger", linger, 30.0, lambda v: v is None or v == 0 or _positive(v),
                          "a number of seconds, 0 or more, or None"),
            on_done=ByPath("on_done", on_done, "stop", lambda v: v in ("stop", "restart"), '"stop" or "restart"'),
            on_expired=ByPath("on_expired", on_expired, "restart", lambda v: v in ("restart", "gone"),
                              '"restart" or "gone"'),
            retry=retry,
            window=window,
            max_event_bytes=max_event_bytes,
            max_readers=max_readers,
            max_detached=max_detached,
            max_detached_per_owner=max_detached_per_owner,
            early_start=early_start,
            stall_timeout=stall_timeout,
            max_duration=max_duration,
        )  # fmt: skip
        self._store = self._options.store
        self._observer = observer
        self._always = compile_globs(patterns(type(self).__name__, "always", always) or None)
        self._worker = Worker(self._options)
        self._started = False

    @property
    def store(self) -> Store:
        """Where the logs live."""
        return self._store

    # -- lifecycle

    async def startup(self) -> None:
        self._worker.leaving = False
        if not self._started:
            self._started = True
            await self._store.start()

    async def shutdown(self) -> None:
        await self._worker.shutdown()

    async def aclose(self) -> None:
        await self._worker.shutdown()
        if self._started:
            self._started = False
            await self._store.aclose()

    # -- requests

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = asked_for(scope)
        if asked is not None and stream_tag(asked.stream) in self._worker.inner_tags:
            await self.app(scope, receive, send)  # we are the gateway of the Streamware that has it
            return
        always = None if self._always is None else lambda: self._always is not None and bool(
            self._always(path_within_mount(scope)))  # fmt: skip
        request = None if asked is not None else read_request(scope, self._options.media_types, always)
        if (asked is None and request is None) or not _on_asyncio():
            await self.app(scope, receive, self._watched(scope, send))
            return
        if not self._started:
            await self.startup()
        try:
            identity = identify(scope, self._options.owner, self._options.owner_cookies)
        except Exception:
            logger.exception("who asks could not be told, so the request is refused")
            await deny(scope, send, Denial(403, "Who asks could not be told"))
            return
        inbound = Inbound(scope, receive)
        try:
            if asked is not None:
                await self._resource(scope, send, inbound, asked, identity)
            elif request is not None:
                await self._request(scope, send, inbound, request, identity)
        finally:
            inbound.release()

    def _watched(self, scope: Scope, send: Send) -> Send:
        """``send``, with a look at the start: an event stream that got no log is one that users will miss."""

        def watch(message: Message):  # type: ignore[no-untyped-def]  # whatever awaitable the server's send returns
            if message["type"] == "http.response.start" and message.get("status") == 200:
                media_type = headers.media_type(headers.get(message.get("headers") or [], b"content-type"))
                if media_type in self._options.media_types:
                    self._observer.count("resume.unlogged", reason="accept")
                    path = path_within_mount(scope)
                    self._options.advice.warning(
                        path,
                        "%s answers with an event stream that cannot be resumed, since its requests do not accept "
                        "text/event-stream: if they should be resumable, add always=[%r] to ResumeMiddleware",
                        path,
                        path,
                    )
            return send(message)

        return watch

    async def _request(self, scope: Scope, send: Send, inbound: Inbound, request: Request, identity: Identity) -> None:
        start = Start()
        if request.cursor is not None:
            if request.cursor.tag in self._worker.inner_tags:
                await self._run(scope, send, inbound, request, identity, Start(), None)
                return
            try:
                decision, log = await self._decide(scope, request, identity)
            except StoreUnavailable:
                self._observer.count("resume.refused", reason="store_unavailable")
                denial = Denial(503, "The stream store is away", retry_after=self._options.retry)
                await deny(scope, send, denial, soft=True)
                return
            if not isinstance(decision, Start):
                await self._give(scope, send, inbound, request, decision, log)
                return
            start = decision
            if request.cursor.tag == self._store.tag:
                scope = {**scope, "headers": headers.without(scope["headers"], b"last-event-id")}
        if request.key is not None and (identity.known or len(request.key) >= LONE_KEY_LENGTH):
            await self._start_once(scope, send, inbound, request, identity, start, request.key)
        else:
            await self._run(scope, send, inbound, request, identity, start, None)

    # -- cursors

    async def _decide(
        self, scope: Scope, request: Request, identity: Identity
    ) -> tuple[Follow | Start | NoContent | Gone, Log | None]:
        cursor = request.cursor
        assert cursor is not None  # the caller has looked  # noqa: S101 - narrows the type, checks no input
        found: Log | Tombstone | None = None
        if cursor.tag == self._store.tag:
            found = _seen_by(await self._store.open(cursor.stream), cursor.stream, scope, identity)
        else:
            self._observer.count("resume.foreign_cursor")
            self._options.advice.warning(
                "foreign", "a client came back to a worker that does not have its stream: with several workers, or to "
                "survive restarts, give ResumeMiddleware a store that they share",
            )  # fmt: skip
        return await self._answer(cursor.seq, found, scope, request)

    async def _answer(
        self, seq: int, found: Log | Tombstone | None, scope: Scope, request: Request
    ) -> tuple[Follow | Start | NoContent | Gone, Log | None]:
        path = path_within_mount(scope)
        log = None if found is None or isinstance(found, Tombstone) else found
        waited = False
        while True:
            decision = answer(
                seq,
                found,
                eventsource_like=request.eventsource_like and scope["method"] == "GET",
                on_done=self._options.on_done[path],
                on_expired=self._options.on_expired[path],
                waited=waited,
            )
            if not isinstance(decision, Await):
                return decision, log
            if log is not None:
                await log.reach(decision.seq, AHEAD_WAIT)
            waited = True

    async def _give(
        self, scope: Scope, send: Send, inbound: Inbound, request: Request,
        decision: Follow | NoContent | Gone, log: Log | None,
    ) -> None:  # fmt: skip
        if isinstance(decision, Follow) and log is not None:
            preface = b""
            if decision.reset is not None:
                self._observer.count("resume.gap", reason=decision.reset)
                earliest = f"{log.stream}.{decision.after}"
                preface = sse.control_event("reset", {"reason": decision.reset, "earliest": earliest})
            self._observer.count("resume.resumed")
            await self._read(scope, send, inbound, log, decision.after, preface, request.eventsource_like)
        elif isinstance(decision, Gone):
            self._observer.count("resume.gone", reason=decision.reason)
            stream = request.cursor.stream if request.cursor is not None else ""
            await deny(scope, send, gone_denial(decision, log.stream if log is not None else stream))
        else:
            self._observer.count("resume.no_content")
            for message in no_content(scope):
                await send(message)

    async def _read(
        self, scope: Scope, send: Send, inbound: Inbound, log: Log, after: int, preface: bytes, like: bool
    ) -> None:
        reader = Reader(
            scope, send, inbound, log, after, eventsource_like=like, options=self._options, worker=self._worker
        )
        inbound.on_change = lambda: reader.gone() if inbound.gone else None
        inbound.drain()
        await _follow(reader, later_start(log.stream, log.head), preface)

    # -- the stream's own URL

    async def _resource(self, scope: Scope, send: Send, inbound: Inbound, asked: Asked, identity: Identity) -> None:
        method = scope["method"]
        if method not in ("GET", "DELETE"):
            allow = ((b"allow", METHODS),)
            await deny(scope, send, Denial(405, "Streams can be read and stopped", headers=allow))
            return
        try:
            found = await self._store.open(asked.stream)
        except StoreUnavailable:
            denial = Denial(503, "The stream store is away", retry_after=self._options.retry)
            await deny(scope, send, denial, soft=method == "GET")
            return
        found = _seen_by(found, asked.stream, scope, identity, any_method=True)
        if method == "DELETE":
            inbound.drain()
            await stop(scope, send, asked, found, self._options)
            return
        if found is None:
            await deny(scope, send, UNKNOWN)
            return
        after = asked.after.seq if asked.after is not None else 0
        polls = wants_poll(scope)
        request = Request(asked.after, None, {}, is_eventsource_like(scope) and not polls)
        if polls and not isinstance(found, Tombstone) and found.first - 1 <= after <= found.last:
            wait = wait_of(headers.parse_prefer(headers.get_all(scope["headers"], b"prefer")))
            inbound.drain()
            await poll(scope, send, inbound, found, after, wait, self._options)
            return
        if not isinstance(found, Tombstone) and after == 0 and found.last == 0:
            decision: Follow | Start | NoContent | Gone = Follow(0)
            log: Log | None = found
        else:
            decision, log = await self._answer(after, found, scope, request)
        if isinstance(decision, Start):  # nothing starts here
            decision = NoContent()
        if polls and isinstance(decision, Follow) and log is not None:
            wait = wait_of(headers.parse_prefer(headers.get_all(scope["headers"], b"prefer")))
            inbound.drain()
            await poll(scope, send, inbound, log, decision.after, wait, self._options)
        else:
            await self._give(scope, send, inbound, request, decision, log)

    # -- starting once

    async def _start_once(
        self, scope: Scope, send: Send, inbound: Inbound, request: Request, identity: Identity, start: Start, key: bytes
    ) -> None:
        body = await inbound.body(KEYED_BODY_BYTES)
        if body is None:
            await deny(scope, send, Denial(413, f"With an Idempotency-Key a body is at most {KEYED_BODY_BYTES} bytes"))
            return
        if inbound.gone and not inbound.complete:
            return
        fingerprint = hashlib.sha256(b"".join(message.get("body", b"") for message in body)).digest()
        inbound.put_back(body)
        scoped = "\0".join((identity.account if identity.known else "", scope["method"], scope["path"])).encode()
        claimed = hashlib.sha256(b"\0".join((scoped, scope.get("query_string", b""), key))).hexdigest()
        stream = new_stream_id(self._store.tag)
        try:
            claim = await self._store.claim(claimed, fingerprint, stream)
            while not claim.won and not claim.settled and claim.fingerprint == fingerprint:
                settled = await self._store.settled(claimed, CLAIM_WAIT)
                if settled is not None and not settled.settled:
                    self._observer.count("resume.refused", reason="claim_pending")
                    denial = Denial(409, "A request with this Idempotency-Key is still starting", retry_after=1.0)
                    await deny(scope, send, denial)
                    return
                claim = settled or await self._store.claim(claimed, fingerprint, stream)
        except StoreUnavailable:
            await deny(scope, send, Denial(503, "The stream store is away", retry_after=self._options.retry), soft=True)
            return
        if claim.won:
            await self._run(scope, send, inbound, request, identity, start, claim, claimed)
        elif claim.fingerprint != fingerprint:
            self._observer.count("resume.refused", reason="key_reused")
            await deny(scope, send, Denial(422, "This Idempotency-Key was used with another body"))
        else:
            await self._join(scope, send, inbound, request, identity, claim)

    async def _join(
        self, scope: Scope, send: Send, inbound: Inbound, request: Request, identity: Identity, claim: Claim
    ) -> None:
        self._observer.count("resume.joined")
        found = _seen_by(await self._store.open(claim.stream), claim.stream, scope, identity)
        if request.respond_async and found is not None:
            await accepted(scope, send, claim.stream)
            return
        decision: Follow | Start | NoContent | Gone
        if found is None or isinstance(found, Tombstone):
            outcome = found.outcome if found is not None else None
            decision, log = Gone("expired", outcome), None
        else:
            decision = Follow(found.first - 1, "gap") if request.eventsource_like else Gone("gap", None, found.first)
            decision, log = Follow(0) if found.first == 1 else decision, found
        await self._give(scope, send, inbound, request, decision, log)

    # -- a run of the app

    async def _run(
        self, scope: Scope, send: Send, inbound: Inbound, request: Request, identity: Identity, start: Start,
        claim: Claim | None, claimed: str = "",
    ) -> None:  # fmt: skip
        producer = Producer(
            self.app,
            {**scope, "headers": headers.without(scope["headers"], b"accept-encoding")},
            send,
            inbound,
            stream=claim.stream if claim is not None else new_stream_id(self._store.tag),
            identity=identity,
            keyed=claim is not None or request.respond_async,
            path=path_within_mount(scope),
            options=self._options,
            worker=self._worker,
        )
        if claim is not None:
            producer.decided.add_done_callback(lambda verdict: self._settle(claimed, verdict))
        producer.run()
        task = producer.task
        assert task is not None  # it runs  # noqa: S101 - narrows the type, checks no input
        if await self._verdict(producer) is Verdict.PASSED:
            await task
        elif request.respond_async:
            inbound.on_change = None
            await accepted(scope, send, producer.stream)
            producer.linger(at_least=ASYNC_LINGER)
        else:
            await self._read_own(scope, send, inbound, request, start, producer, task)

    def _settle(self, claimed: str, verdict: asyncio.Future[Verdict]) -> None:
        started = not verdict.cancelled() and verdict.result() is Verdict.LOGGED
        settling = asyncio.get_running_loop().create_task(self._store.settle(claimed, started))
        self._worker.keep(settling)

    async def _verdict(self, producer: Producer) -> Verdict:
        """Wait for what the response turns out to be; beginning it early where that was asked for."""
        early = self._options.early_start
        timer = None
        if early is not None:
            timer = self._options.clock.call_later(early, producer.start_early)
        try:
            return await asyncio.shield(producer.decided)
        except asyncio.CancelledError:
            await producer.caller_cancelled()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    async def _read_own(
        self, scope: Scope, send: Send, inbound: Inbound, request: Request, start: Start, producer: Producer,
        task: asyncio.Task[None],
    ) -> None:  # fmt: skip
        """Be the first reader of the log that this request has started."""
        log = producer.log
        assert log is not None  # the verdict says so  # noqa: S101 - narrows the type, checks no input
        preface = b""
        if request.eventsource_like:
            if start.reset is not None:
                preface = sse.control_event("reset", {"reason": start.reset})
            preface += sse.primer(f"{log.stream}.0".encode())
        reader = Reader(
            scope, send, inbound, log, 0,
            eventsource_like=request.eventsource_like, options=self._options, worker=self._worker, producer=producer,
        )  # fmt: skip
        producer.on_gone = reader.gone
        first = (
            first_start(log.stream, producer.start) if producer.start is not None else later_start(log.stream, log.head)
        )
        left = await _follow(reader, first, preface + producer.preface)
        if producer.handed_over is not None:
            producer.handed_over.set_result(None)
            if left is Left.HANDED_OVER:
                await task


async def _follow(reader: Reader, start: Message, preface: bytes) -> Left:
    try:
        return await reader.run(start, preface)
    except Exception:  # the server's send: after the start nothing may escape to it
        logger.debug("a connection was lost in the middle of a send", exc_info=True)
        return Left.GONE


def _seen_by(
    found: Log | Tombstone | None, stream: str, scope: Scope, identity: Identity, *, any_method: bool = False
) -> Log | Tombstone | None:
    """``found`` if this request may know of it: its owner's, on its path. Anything else is unknown."""
    if found is None:
        return None
    about = found if isinstance(found, Tombstone) else found.head
    if about.path != scope["path"] or not (any_method or about.method == scope["method"]):
        return None
    return found if identity.owns(about.owner, stream) else None


def _on_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # trio, as test clients may run us: without tasks of our own everything passes through
        return False
    return True


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _check(good: bool, option: str, received: object, expected: str) -> None:
    if not good:
        raise ConfigurationError.option("ResumeMiddleware", option, received, expected)


def _names(option: str, given: Iterable[str]) -> tuple[str, ...]:
    names = () if isinstance(given, str | bytes) else tuple(given)
    _check(
        not isinstance(given, str | bytes) and all(isinstance(name, str) for name in names),
        option,
        given,
        "a list of names",
    )
    return names


__all__ = ["VARY", "ResumeMiddleware"]
