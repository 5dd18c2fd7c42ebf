"""``ResumeMiddleware``: an app's event streams survive their connections.

This module decides which requests take part and what each of them gets; the work is in ``streamware.streams``. The app
runs as a producer into a log, connections are readers of it (see there). Requests that take no part run in the
caller's own task with the caller's own ``receive``; their ``send`` is only looked at for event streams without a log.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Literal

from ..checks import check, is_positive
from ..clock import LoopClock, on_asyncio
from ..observe import NullObserver, Observer, OnceLog
from ..paths import compile_globs, path_within_mount, patterns
from ..record import record_of, tenure_of
from ..stores.base import Store
from ..stores.memory import MemoryStore
from ..streams import resource, start
from ..streams.asked import LOOKED_AT, Reading, Request
from ..streams.call import Call
from ..streams.drain import Drain
from ..streams.gates import admitted, gates_of
from ..streams.inbound import Inbound
from ..streams.lookout import Lookout
from ..streams.options import ByPath, Options
from ..streams.owner import SESSION_COOKIES, identify
from ..streams.pulse import PulseOptions
from ..streams.resource import PARAMETER
from ..streams.response import with_listed_headers
from ..streams.tenure import Tenure
from ..streams.worker import Worker
from ..types import ASGIApp, Clock, Message, Receive, Scope, Send
from ..wire.cursor import stream_tag
from ..wire.denial import UNKNOWN_CALLER, deny, is_eventsource_like
from .base import BaseMiddleware

logger = logging.getLogger("streamware.resume")


_check = partial(check, "ResumeMiddleware")


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
    :param retry: seconds, spread by a half either way, after which an EventSource reconnects.
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
            _check(is_positive(value), option, value, "a number greater than 0")
        for option, seconds in (("early_start", early_start), ("stall_timeout", stall_timeout),
                                ("max_duration", max_duration)):  # fmt: skip
            _check(
                seconds is None or is_positive(seconds), option, seconds, "a number of seconds greater than 0, or None"
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
            linger=ByPath("linger", linger, 30.0, lambda v: v is None or v == 0 or is_positive(v),
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
        matches = compile_globs(patterns(type(self).__name__, "always", always) or None)
        self._reading = Reading(self._options.media_types, matches)
        self._worker = Worker(self._options)
        self._started = False
        self._looked_out = False  # heartbeats, directly outside, tell of streams without a log

    @property
    def store(self) -> Store:
        """Where the logs live."""
        return self._store

    # -- lifecycle

    async def startup(self) -> None:
        if self._worker.terms is None:
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

    tells_reads = True

    def joined(self, outer: BaseMiddleware | None) -> None:
        if outer is None or not outer.frameless or not self.selection.everything or not self._reading.usual:
            return
        heartbeats: object = getattr(outer, "options", None)
        if isinstance(heartbeats, PulseOptions):  # they look for the same: one look does for both
            heartbeats.on_stream = self._missed
            self._looked_out = True

    def drained_by(self, drain: Drain) -> None:
        drain.join(self._worker)

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        try:
            given, query = scope["headers"], scope["query_string"]
        except KeyError:  # every server has them, but not every test client
            return self._look_closely(scope, receive, send)
        reading = self._reading
        if not reading.by_path:  # what every request pays: one pass over its headers
            for name, value in given or ():
                if name in LOOKED_AT and (name != b"accept" or value not in reading.plain):
                    break
            else:
                if not query or PARAMETER not in query:
                    app = self.app  # called faster from a local
                    return app(scope, receive, send if self._looked_out else self._watched(scope, send))
        return self._look_closely(scope, receive, send)

    def _look_closely(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        gates = gates_of(scope)
        for gate in gates:
            gate.seen = True
        asked = resource.asked_for(scope)
        if asked is None:
            request = self._reading.read(scope)
            if request is None or not on_asyncio():
                send = send if self._looked_out else self._watched(scope, send)
                return self._pass_gates(scope, receive, send) if gates else self.app(scope, receive, send)
        elif stream_tag(asked.stream) in self._worker.inner_tags:
            _quiet(send)
            # We are the gateway of the Streamware that has it. What it makes of it is not known here.
            return self._pass_gates(scope, receive, send) if gates else self.app(scope, receive, send)
        else:
            request = Request(asked.after, None, {}, is_eventsource_like(scope))
        _quiet(send)
        return self._take_part(scope, receive, send, asked, request)

    async def _pass_gates(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app for a request that takes no part, unless a throttle further out objects."""
        denial = await admitted(scope)
        await (self.app(scope, receive, send) if denial is None else deny(scope, send, denial, soft=True))

    async def _take_part(
        self, scope: Scope, receive: Receive, send: Send, asked: resource.Asked | None, request: Request
    ) -> None:
        if not self._started:
            await self.startup()
        self._join(scope)
        try:
            identity = identify(scope, self._options.owner, self._options.owner_cookies)
        except Exception:
            logger.exception("who asks could not be told, so the request is refused")
            await deny(scope, send, UNKNOWN_CALLER)
            return
        inbound = Inbound(scope, receive)
        try:
            call = Call(self.app, scope, send, inbound, request, identity, self._options, self._worker)
            reader = await (start.serve(call) if asked is None else resource.serve(call, asked))
            del call, request, identity, asked, scope
            if reader is not None:
                await reader.run()
        finally:
            inbound.release()

    def _join(self, scope: Scope) -> None:
        """Take part in the drain that the request has come through: outside a ``Stack`` nobody else tells us of it. And
        be known to whoever lets users in, and may want to stop what they have started."""
        record = record_of(scope)
        if record is not None and isinstance(record.drain, Drain):
            record.drain.join(self._worker)
        tenure = tenure_of(scope)
        if isinstance(tenure, Tenure):
            tenure.term.join(self._worker)

    def _watched(self, scope: Scope, send: Send) -> Send:
        """``send``, with a look at the start: an event stream that got no log is one that users will miss."""

        def watch(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = with_listed_headers(message)
                self._missed(scope, message)
            return send(message)

        return watch

    def _missed(self, scope: Scope, start: Message) -> None:
        if not self._reading.starts_stream(start) or not self._reading.could_ask(scope):
            return
        self._observer.count("resume.unlogged", reason="accept")
        path = path_within_mount(scope)
        self._options.advice.warning(
            path,
            "%s answers with an event stream that cannot be resumed, since its requests do not accept "
            "text/event-stream: if they should be resumable, add always=[%r] to ResumeMiddleware",
            path,
            path,
        )


def _quiet(send: Send) -> None:
    """Whoever looks out at heartbeats' connection is not to report this one's stream: it is not without a log."""
    lookout: object = getattr(send, "__self__", None)
    if isinstance(lookout, Lookout):
        lookout.quiet = True


def _names(option: str, given: Iterable[str]) -> tuple[str, ...]:
    names = () if isinstance(given, str | bytes) else tuple(given)
    _check(
        not isinstance(given, str | bytes) and all(isinstance(name, str) for name in names),
        option,
        given,
        "a list of names",
    )
    return names
