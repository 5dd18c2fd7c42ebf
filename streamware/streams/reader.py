"""One connection that follows a log: replay and live tail are the same read, so nothing falls between them.

Rules:

1. All that is pending leaves in one ``send``, and every send holds whole events.
2. No send is made once the client has left; after ``run`` nothing of the server's is touched.
3. What this reader cannot be given is never passed over in silence: an EventSource-like is told in band, everybody
   else sees the connection cut, or, where the server cannot cut, an error event before the end.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from ..exceptions import StoreUnavailable
from ..record import record_of, tenure_of
from ..stores.base import Batch, Log, Outcome
from ..types import Message, Scope, Send
from ..wire import sse
from .asked import is_event_stream
from .direct import DirectSend, shortcut
from .ending import SUPERSEDED, Ending
from .gone import is_disconnect
from .inbound import Inbound
from .lookout import Lookout
from .options import DISCARD_WAIT, PACE_SECONDS, Options
from .producer import Producer
from .response import error_block
from .servers import accepts_without_limit, cuts_visibly
from .tenure import Tenure
from .worker import Worker

logger = logging.getLogger("streamware.resume")


class Reader:
    """Follows ``log`` from behind event ``after`` over one connection."""

    __slots__ = (
        "_ahead", "_allowance", "_direct", "_due", "_ending", "_inbound", "_is_ending", "_limitless", "_options",
        "_paced", "_place", "_retry", "_send", "_within", "_worker", "eventsource_like", "log", "preface", "producer",
        "scope", "start",
    )  # fmt: skip

    def __init__(
        self, scope: Scope, send: Send, inbound: Inbound, log: Log, after: int, start: Message, preface: bytes,
        *, eventsource_like: bool, options: Options, worker: Worker,
    ) -> None:  # fmt: skip
        self.log = log
        self.start: Message | None = start
        self.preface = preface
        self.eventsource_like = eventsource_like
        self.producer: Producer | None = None  # set where this is the connection that started the stream
        self.scope = scope
        self._send = send
        self._inbound = inbound
        self._options = options
        self._worker = worker
        self._is_ending = False  # before its log is
        #: Why; None where its client is but to go elsewhere.
        self._ending: Ending | None = None
        #: Milliseconds after which an EventSource is to come back; None where it is not told.
        self._retry: int | None = None
        self._within = False  # the start of an event too large for the log has gone out, the rest is to come
        self._place = log.reader(after)
        self._limitless = accepts_without_limit(scope)
        self._direct: DirectSend | None = None
        self._ahead: Batch | None = None  # read before the start was sent
        self._allowance = 0.0
        self._paced: float | None = None
        self._due: asyncio.Future[None] | None = None
        worker.enter(self)

    def gone(self) -> None:
        """The client has left: stop waiting for events."""
        self._place.close()
        self._go_on()

    def evict(self) -> None:
        """A newer reader takes this one's place."""
        self.end(SUPERSEDED)

    def end(self, ending: Ending, retry: int | None = None) -> None:
        """End so that it does not look complete. ``retry``: an EventSource is told why, and to come back in so many
        milliseconds; without, it is cut off like the others."""
        self._is_ending, self._ending, self._retry = True, ending, retry
        self._place.close()
        self._go_on()

    def dismiss(self, ending: Ending, retry: int) -> None:
        """As ``tenure.Party``: the log goes on, and can be read on by whoever may."""
        self.end(ending, retry)

    @property
    def may_part(self) -> bool:
        """Whether its client can read on from another worker, and can be brought to do so."""
        if not self._options.store.shared or (self.producer is not None and not self._inbound.complete):
            return False
        return self.eventsource_like or cuts_visibly(self.scope)

    def part(self, retry: int) -> None:
        """End between two events, so that the client comes back to another worker: an EventSource in ``retry``
        milliseconds."""
        if self._is_ending:
            return
        self._is_ending, self._retry = True, retry
        if not self._within:
            self._place.close()
            self._go_on()

    async def gap(self) -> int | None:
        """Where the next event there is can be read from, if it is not the one that this reader lacks; before ``run``,
        of a log that has events for it."""
        try:
            self._ahead = await self._place.read()
        except BaseException:
            self.leave()
            raise
        batch = self._ahead
        return batch.last - len(batch.events) + 1 if batch is not None and batch.gap else None

    def leave(self) -> None:
        """Give up the place in the log."""
        self._place.close()
        self._worker.leave(self)

    async def run(self) -> None:
        """Send the start and the preface, then follow the log to its end. What the server's ``send`` raises ends this
        too, and goes no further once the response has begun."""
        handed_over = False
        try:
            await self._open()
            # In one frame with the wait for events: what a connection costs while nothing happens is what counts.
            inbound, place, direct, producer = self._inbound, self._place, self._direct, self.producer
            while not inbound.gone:
                batch, self._ahead = self._ahead or await place.read(), None
                if direct is not None:
                    await direct.settle()
                if inbound.gone:
                    break
                if producer is not None and producer.intake.handed_over is not None:
                    handed_over = True
                    self._follows(False)
                    break
                if batch is None:
                    await self._end_unfinished()
                    break
                self._within = batch.within
                if await self._pass_on(batch):
                    break
                if self._is_ending and not self._within:
                    await self._end_unfinished()
                    break
                batch = None  # not to be kept for as long as nothing comes
        except StoreUnavailable:
            await self._give_up()
        except Exception as error:
            if self._is_refusal(error):
                if self.producer is not None:
                    self.producer.fail("head")  # as bare: what the app began with was wrong
                raise
            logger.debug("a connection was lost in the middle of a send", exc_info=True)
        finally:
            self.leave()
            if self._direct is not None and self._direct.rest is not None:
                self._direct.rest.close()
            if self.producer is not None:
                await self.producer.reader_left(handed_over=handed_over)

    async def _open(self) -> None:
        if self.start is not None and not self._inbound.gone:
            await self._send(self.start)
        preface, self.start, self.preface = self.preface, None, b""
        if preface and not self._inbound.gone:
            await self._send({"type": "http.response.body", "body": preface, "more_body": True})
        self._follows(True)
        way = shortcut(self._send)
        if way is not None:
            self._direct = self._place.sink = DirectSend(*way, self._worker.ticks)

    def _is_refusal(self, error: Exception) -> bool:
        """Whether the server does not take the head, as one with a line feed in it. For a client that has left no
        server raises anything but an ``OSError``."""
        return self.start is not None and not self._inbound.gone and not is_disconnect(error)

    def _follows(self, follows: bool) -> None:
        """Tell whoever may want to end the response that it is ours, or no longer."""
        lookout: object = getattr(self._send, "__self__", None)
        if isinstance(lookout, Lookout):
            lookout.list_it(not follows)
        record = record_of(self.scope)
        if record is not None:
            record.followed = follows
        tenure = tenure_of(self.scope)
        if isinstance(tenure, Tenure):
            tenure.follow(self if follows else None)

    async def _pass_on(self, batch: Batch) -> bool:
        """Send what was read. True where that was the last of it."""
        if batch.gap:
            self._options.observer.count("resume.gap", reason="live")
            if batch.torn or not self.eventsource_like:
                await self._cut("gap", torn=batch.torn)
                return True
        body = self._bytes_of(batch)
        if batch.outcome is not None and batch.outcome in (Outcome.DONE, Outcome.STOPPED) and not batch.torn:
            await self._end(body)
            return True
        if body:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            if self._limitless:
                await self._keep_pace(len(body))
        if batch.outcome is not None:
            await self._end_early(batch.outcome, batch.torn)
        return batch.outcome is not None

    def _bytes_of(self, batch: Batch) -> bytes:
        body = b"".join(batch.events)
        if batch.aside:
            body += batch.aside
        if batch.gap:
            earliest = f"{self.log.stream}.{batch.last - len(batch.events)}"
            reset = sse.control_event("reset", {"reason": "gap", "earliest": earliest})
            # Where nothing follows that has an id, the cursor has to get past what is lost all the same.
            body = reset + (body if batch.events else sse.primer(earliest.encode()) + body)
        return body

    async def _end(self, body: bytes) -> None:
        if self.producer is None:  # else the request is the app's
            await self._inbound.discard(self._options.clock, DISCARD_WAIT)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _end_early(self, outcome: Outcome, torn: bool) -> None:
        if not self.eventsource_like or torn:
            await self._cut(outcome.value, torn=torn)
            return
        # An EventSource comes back after any end; its cursor is then answered by 204.
        cursor = f"{self.log.stream}.{self._place.position}"
        await self._end(sse.control_event(outcome.value, {"cursor": cursor}))

    async def _end_unfinished(self) -> None:
        """The log goes on, this reader does not."""
        ending, retry = self._ending, self._retry
        if ending is not None and retry is not None and self.eventsource_like and not self._within:
            self._options.observer.count("resume.cut", reason=ending.reason)
            await self._end(ending.control_event(retry, f"{self.log.stream}.{self._place.position}"))
        elif ending is not None:
            await self._cut(ending.reason, ending.text, torn=self._within)
        elif retry is not None and self.eventsource_like:
            self._options.observer.count("resume.parted", reason="eventsource")
            await self._end(b"retry: %d\n\n" % retry)
        elif retry is not None:
            self._options.observer.count("resume.parted", reason="cut")  # ``may_part``: the server can

    async def _give_up(self) -> None:
        """What comes next cannot be read for now: let the client go, to find a worker that can."""
        try:
            if not self._inbound.gone:
                await self._cut("store_unavailable")
        except Exception:
            logger.debug("a connection was lost as it was ended", exc_info=True)

    async def _cut(self, reason: str, text: str = "", *, torn: bool = False) -> None:
        """End so that it does not look complete: where the server can cut, by returning without a final body."""
        self._options.observer.count("resume.cut", reason=reason)
        if cuts_visibly(self.scope):
            return
        text = text or f"The stream did not complete: {reason}."
        error = {"error": {"type": f"streamware.{reason}", "message": text}}
        if torn or self.eventsource_like:
            # An EventSource comes back after any end. An error event would complete a torn one: parsers drop what has
            # no blank line.
            await self._end(b"")
        elif is_event_stream(self.log):
            await self._end(error_block(error) + b"\n")
        else:
            await self._end(msgspec.json.encode(error) + b"\n")

    async def _keep_pace(self, size: int) -> None:
        """A server that takes everything says nothing of its client. What the log can hold goes out at once, more
        only at a pace, so that a silent client's unseen events are still there when it comes back."""
        clock, window, capacity = self._options.clock, self._options.window, self.log.max_bytes
        now = clock.now()
        earned = capacity if self._paced is None else (now - self._paced) * window / PACE_SECONDS
        self._allowance = min(capacity, self._allowance + earned) - size
        self._paced = now
        if self._allowance < 0 and not self._inbound.gone:
            self._options.observer.count("resume.paced")
            self._due = asyncio.get_running_loop().create_future()
            timer = clock.call_later(-self._allowance * PACE_SECONDS / window, self._go_on)
            try:
                await self._due
            finally:
                timer.cancel()

    def _go_on(self) -> None:
        if self._due is not None and not self._due.done():
            self._due.set_result(None)
