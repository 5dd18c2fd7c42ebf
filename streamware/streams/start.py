"""Starting: a run of the app, once for each idempotency key, and its first reader."""

from __future__ import annotations

import asyncio
import hashlib

from ..exceptions import StoreUnavailable
from ..stores.base import Claim, Outcome, Tombstone
from ..types import Message, Scope
from ..wire import headers, sse
from ..wire.cursor import new_stream_id
from ..wire.denial import Denial
from .answer import Follow, Gone, NoContent, Start
from .asked import LONE_KEY_LENGTH
from .call import Call
from .drain import worker_leaves
from .gates import admitted, gates_of
from .intake import Verdict
from .options import ASYNC_LINGER, CANCEL_WAIT, CLAIM_WAIT, KEYED_BODY_BYTES
from .producer import Producer
from .reader import Reader
from .resource import accepted
from .response import first_start, later_start

_INCOMPLETE = (Outcome.FAILED, Outcome.INTERRUPTED)


async def serve(call: Call) -> Reader | None:
    """Answer a request on the app's own URL: by the log that its cursor names, or by the app. A reader that is returned
    is to be run: the frames and objects that led to it are not kept for as long as it reads."""
    start = Start()
    cursor = call.request.cursor
    if cursor is not None and cursor.tag not in call.worker.inner_tags:
        ours = cursor.tag == call.options.store.tag
        if not ours:
            call.options.observer.count("resume.foreign_cursor")
            call.options.advice.warning(
                "foreign",
                "a client came back to a worker that does not have its stream: with several workers, or to survive "
                "restarts, give ResumeMiddleware a store that they share",
            )
        try:
            found = await call.find(cursor.stream) if ours else None
            call.request = call.request.about(found)
            decision = await call.decide(cursor.seq, found)
            if isinstance(decision, Follow | NoContent | Gone):
                return await call.give(decision, None if isinstance(found, Tombstone) else found, cursor.stream)
        except StoreUnavailable:
            await call.store_is_away()
            return None
        if isinstance(decision, Start):
            start = decision
        if ours:  # another store's may be that of a Streamware further in, unknown to us since we restarted
            call.without(b"last-event-id")
    if call.worker.over:  # nobody would end what began here now
        await call.deny(worker_leaves(call.options.retry), soft=True)
        return None
    key = call.request.key
    if key is not None and (call.identity.known or len(key) >= LONE_KEY_LENGTH):
        return await start_once(call, start, key)
    return await run(call, start)


async def start_once(call: Call, start: Start, key: bytes) -> Reader | None:
    """Run the app unless a request with ``key`` has; join its stream then. The key counts within its owner, method,
    path and query."""
    scope, inbound = call.scope, call.inbound
    body = await inbound.body(KEYED_BODY_BYTES)
    if inbound.gone and not inbound.complete:
        return None
    inbound.put_back(body)
    fingerprint = fingerprint_of(scope, body)
    owner = call.identity.account if call.identity.known else ""
    path = scope["path"].encode("utf-8", "surrogatepass")
    parts = (owner.encode(), scope["method"].encode(), path, scope.get("query_string", b""), key)
    name = hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    try:
        claim = await take(call, name, fingerprint)
    except StoreUnavailable:
        await call.store_is_away()
        return None
    if claim.won:
        return await run(call, start, claim, name)
    if claim.fingerprint != fingerprint:
        call.options.observer.count("resume.refused", reason="key_reused")
        await call.deny(Denial(422, "This Idempotency-Key was used with another body"))
    elif claim.pending:
        call.options.observer.count("resume.refused", reason="claim_pending")
        await call.deny(
            Denial(409, "A request with this Idempotency-Key is still starting", retry_after=1.0), soft=True
        )
    else:
        try:
            return await join(call, claim)
        except StoreUnavailable:
            await call.store_is_away()
    return None


def fingerprint_of(scope: Scope, body: list[Message]) -> bytes:
    """What tells a request body from another under the same key. Of one that is too large to be held, ``body`` is the
    beginning; that, and the length that the head states, have to do."""
    digest, left = hashlib.sha256(), KEYED_BODY_BYTES
    for message in body:
        part = message.get("body", b"")
        digest.update(part[: max(0, left)])
        left -= len(part)
    if left < 0:
        digest.update(b"\0" + (headers.get(scope["headers"], b"content-length") or b""))
    return digest.digest()


async def take(call: Call, name: str, fingerprint: bytes) -> Claim:
    """The claim on ``name``: won, or the other request's, waited for until its stream has started."""
    store = call.options.store
    stream = new_stream_id(store.tag)
    while True:
        claim = await store.claim(name, fingerprint, stream)
        if not claim.pending or claim.fingerprint != fingerprint:
            return claim
        settled = await store.settled(name, CLAIM_WAIT)
        if settled is not None:  # None: the other was no stream, and the key is free again
            return settled


async def join(call: Call, claim: Claim) -> Reader | None:
    """Read the stream that another request with the same key has started, from its beginning. Where its worker died
    before that was known, there may be none; the app is not run again, for it may have done its work all the same."""
    call.options.observer.count("resume.joined")
    found = await call.find(claim.stream)
    call.request = call.request.about(found)
    if found is None and claim.abandoned:
        return await call.give(Gone("interrupted", Outcome.INTERRUPTED), None, claim.stream)
    if found is None or isinstance(found, Tombstone):
        return await call.give(Gone("expired", None if found is None else found.outcome), None, claim.stream)
    if call.request.respond_async:
        await accepted(call, claim.stream)
        return None
    if found.last == 0 and found.outcome in _INCOMPLETE and not call.request.eventsource_like:
        # A cut would leave its client without a cursor, and it would ask again and again.
        return await call.give(Gone("ended", found.outcome), None, claim.stream)
    if found.first == 1:
        return await call.give(Follow(0), found, claim.stream)
    gap = Follow(found.first - 1, "gap") if call.request.eventsource_like else Gone("gap", None, found.first)
    return await call.give(gap, found, claim.stream)


async def run(call: Call, start: Start, claim: Claim | None = None, name: str = "") -> Reader | None:
    """Run the app, and be the first reader of its stream, if it is one."""
    options = call.options
    if not await pass_gates(call, claim, name):
        return None
    call.without(b"accept-encoding")  # an inner compression would hide the events
    producer = Producer(
        call.app,
        call.scope,
        call.send,
        call.inbound,
        stream=claim.stream if claim is not None else new_stream_id(options.store.tag),
        identity=call.identity,
        keyed=claim is not None or call.request.respond_async,
        path=call.path,
        options=options,
        worker=call.worker,
    )
    decided = producer.intake.decided
    if claim is not None:
        decided.add_done_callback(lambda verdict: settle(call, name, claim.stream, verdict))
    if call.request.respond_async:
        producer.patience = ASYNC_LINGER
    task = producer.run()
    early = None
    if options.early_start is not None:
        early = options.clock.call_later(options.early_start, producer.intake.start_early)
    try:
        verdict = await asyncio.shield(decided)
    except asyncio.CancelledError:
        await producer.caller_cancelled()
        raise
    finally:
        if early is not None:
            early.cancel()
    if verdict is Verdict.PASSED:
        await task
    elif verdict is Verdict.REFUSED:
        await asyncio.wait([task], timeout=CANCEL_WAIT)
        await call.deny(worker_leaves(options.retry), soft=True)
    elif call.request.respond_async:
        call.inbound.on_change = None
        producer.linger()
        await accepted(call, producer.stream)
    else:
        try:
            return first_reader(call, start, producer)
        except BaseException:  # the app's head is none
            producer.fail("head")
            raise
    return None


async def pass_gates(call: Call, claim: Claim | None, name: str) -> bool:
    """Whether the app may be run, as far as throttles go; the request has been refused otherwise."""
    if not gates_of(call.scope):
        return True
    let_through = False
    try:
        denial = await admitted(call.scope)
        let_through = denial is None
    finally:
        if not let_through and claim is not None:  # the key is free again: the app was not run for it
            call.worker.keep(asyncio.get_running_loop().create_task(_settle(call, name, claim.stream, False)))
    if denial is not None:
        await call.deny(denial, soft=True)
    return let_through


def settle(call: Call, name: str, stream: str, verdict: asyncio.Future[Verdict]) -> None:
    """The run that holds the key has proved to be a stream, or none."""
    started = not verdict.cancelled() and verdict.result() is Verdict.LOGGED
    call.worker.keep(asyncio.get_running_loop().create_task(_settle(call, name, stream, started)))


async def _settle(call: Call, name: str, stream: str, started: bool) -> None:
    try:
        await call.options.store.settle(name, stream, started)
    except StoreUnavailable:  # duplicates wait, and are told 409, until the store is back
        call.options.observer.count("resume.unsettled")


def first_reader(call: Call, start: Start, producer: Producer) -> Reader | None:
    """The connection that has started the stream, as its first reader."""
    log, intake = producer.log, producer.intake
    if log is None:
        return None
    preface = b""
    call.request = call.request.about(log)
    if call.request.eventsource_like:
        if start.reset is not None:
            preface = sse.control_event("reset", {"reason": start.reset})
        preface += sse.primer(f"{log.stream}.0".encode())
    head = later_start(log.stream, log.head) if intake.start is None else first_start(log.stream, intake.start)
    reader = call.reader(log, 0, head, preface + intake.preface)
    intake.release_start()
    reader.producer = producer
    producer.reader = reader
    return reader
