"""``CompressionMiddleware``: responses in a content coding that their client accepts, live streams among them.

This is the configuration; what a client gets is decided in ``wire/negotiation.py``, the codings are in
``wire/codecs.py``, and what happens on a connection is in ``streams/coded.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import cast

from ..checks import check, is_positive, is_whole
from ..clock import LoopClock
from ..exceptions import ConfigurationError
from ..observe import NullObserver, Observer
from ..paths import path_within_mount
from ..streams.coded import LARGE, CodedResponse
from ..streams.coding import CodingOptions, OffLoop, Rest
from ..streams.options import ByPath
from ..types import ASGIApp, Clock, Receive, Scope, Send
from ..wire import codecs, headers, negotiation
from ..wire.denial import EVENT_STREAM
from .base import BaseMiddleware

ZERO_COPY = "http.response.zerocopysend"


_check = partial(check, "CompressionMiddleware")


class CompressionMiddleware(BaseMiddleware):
    """Codes responses with gzip, brotli or zstd, as their client accepts. Streams are flushed at every message.

    :param codings: for bodies, by preference between those that a client likes as well. ``None`` (default): zstd, br
        and gzip, as far as they are installed.
    :param live_codings: the same for streams, ``["gzip"]`` by default, which takes the least memory by far; ``"zstd"``
        may stand there as well.
    :param live: whether streams are coded that set no cookie, True by default; or by path.
    :param minimum_size: bytes below which a body is left as it is, 500 by default: it would fit into one packet anyway.
    :param window: log2 of the window of a gzip stream, 12 by default: 31 KB a stream that is not silent. 11 takes half
        of it and 10 a third, if events are no larger than 1,500 or 700 bytes.
    :param rest_after: seconds of silence after which a gzip stream gives its memory back until its next event, 5 by
        default; it takes up to twice as long. ``None``: never.
    :param padding: up to so many bytes that decode to nothing, as many as chance will have, are added to each message
        of a stream, so that its length says less of what is in it. ``None`` (default): none.
    :param media_types: that shrink, beside text and those that are known to.
    :param thread_size: bytes from which a message is encoded in a thread, 128 KiB by default; ``None``: never.
    :param paths: glob patterns on the path within the mount; ``None`` touches every path.
    :param exclude: patterns of paths to leave alone, looked at after ``paths``.
    :param observer: gets the counters ``compression.coded`` and ``compression.left``.
    :param clock: tells the time; ``None``: the event loop's.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        codings: Iterable[str] | None = None,
        live_codings: Iterable[str] = (negotiation.GZIP,),
        live: bool | Mapping[str, bool] = True,
        minimum_size: int = 500,
        window: int = codecs.WINDOW,
        rest_after: float | None = 5.0,
        padding: int | None = None,
        media_types: Iterable[str] = (),
        thread_size: int | None = 128 * 1024,
        paths: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        observer: Observer | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(app, paths=paths, exclude=exclude)
        _check(is_whole(minimum_size, 0), "minimum_size", minimum_size, "0 bytes or more")
        known = is_whole(window, 0) and window in codecs.MEMORY_LEVELS
        _check(known, "window", window, "10 to 15, or 12 where in doubt")
        _check(
            rest_after is None or is_positive(rest_after),
            "rest_after",
            rest_after,
            "> 0 seconds, or None to disable",
        )
        _check(
            padding is None or (is_whole(padding, LEAST_PADDING) and padding <= MOST_PADDING),
            "padding",
            padding,
            f"{LEAST_PADDING} to {MOST_PADDING} bytes, or None to disable",
        )
        _check(
            thread_size is None or is_whole(thread_size, LARGE),
            "thread_size",
            thread_size,
            f"{LARGE} bytes or more, or None to disable",
        )
        clock = LoopClock() if clock is None else clock
        self.options = CodingOptions(
            body_codings=_installed() if codings is None else _codings("codings", codings, codecs.BODY_CODINGS),
            live_codings=_codings("live_codings", live_codings, codecs.LIVE_CODINGS),
            minimum_size=minimum_size,
            live=ByPath("live", live, True, _is_bool, "True or False, or by path", type(self).__name__),
            window=window,
            padding=padding or 0,
            media_types=_media_types(media_types),
            thread_size=float("inf") if thread_size is None else thread_size,
            rest=None if rest_after is None else Rest(clock, rest_after),
            off_loop=OffLoop(),
            observer=NullObserver() if observer is None else observer,
            known={},
        )

    async def startup(self) -> None:
        """Nothing is opened before it is needed."""

    async def shutdown(self) -> None:
        """Responses under way are the server's to end."""

    async def aclose(self) -> None:
        self.options.off_loop.close()
        if self.options.rest is not None:
            self.options.rest.close()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        accept_encoding, accept = negotiation.asked(scope["headers"])
        codings = self.options.chosen(accept_encoding)
        response = CodedResponse(self.options, codings, scope, receive, send)
        if codings != (None, None):
            scope = self._within(scope, accept)
            receive = response.receive
        try:
            await self.app(scope, receive, response.send)
            await response.end()
        finally:
            response.close()

    def _within(self, scope: Scope, accept: bytes | None) -> Scope:
        """What the app gets to see of a request whose response may be coded."""
        extensions = scope.get("extensions")
        if extensions and ZERO_COPY in extensions:  # bytes that we never see cannot be coded
            scope = {**scope, "extensions": {name: extensions[name] for name in extensions if name != ZERO_COPY}}
        if headers.names_media_type(accept, EVENT_STREAM) and self.options.live[path_within_mount(scope)]:
            # Django's gzip makes a member of its own of each part, and some clients stop at the end of the first.
            scope = {**scope, "headers": headers.without(scope["headers"], b"accept-encoding")}
        return scope


#: Not so little that it hides nothing, nor more than a packet.
LEAST_PADDING, MOST_PADDING = 5, 1024


def _installed() -> tuple[str, ...]:
    """What is not installed is not offered."""
    return tuple(coding for coding in codecs.BODY_CODINGS if codecs.installed(coding))


def _codings(option: str, given: object, known: tuple[str, ...]) -> tuple[str, ...]:
    """The codings that an option names, checked."""
    expected = f"a list of some of {', '.join(map(repr, known))}"
    checked: list[str] = []
    for coding in _listed(option, given, expected):
        _check(isinstance(coding, str) and coding in known and coding not in checked, option, coding, expected)
        name = cast(str, coding)
        if not codecs.installed(name):
            extra = codecs.extra_of(name)
            raise ConfigurationError(
                f"{CompressionMiddleware.__name__}: {option} names {name!r}, which is not installed: "
                f"pip install 'asgi-streamware[{extra}]'"
            )
        checked.append(name)
    return tuple(checked)


def _media_types(given: object) -> frozenset[bytes]:
    expected = "a list of media types, as ['application/x-ours']"
    checked: set[bytes] = set()
    for media in _listed("media_types", given, expected):
        good = isinstance(media, str) and media.isascii() and media.count("/") == 1 and ";" not in media
        _check(good, "media_types", media, expected)
        checked.add(cast(str, media).strip().lower().encode())
    return frozenset(checked)


def _listed(option: str, given: object, expected: str) -> list[object]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ConfigurationError.option(CompressionMiddleware.__name__, option, given, expected)
    return list(cast("Iterable[object]", given))


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)
