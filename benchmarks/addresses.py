"""Lists of addresses, and what the middlewares that read addresses cost a request, all in this process.

The list is of 80,000 IPv4 and 20,000 IPv6 networks of mixed lengths, few of which touch; two of three addresses that
are looked up are in it. The middlewares stand in a ``Stack`` around an app that does nothing; what it costs without
them is taken off.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import random
import tempfile
import time
import tracemalloc
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from streamware import ClientIPMiddleware, IPAllowlistMiddleware, Middleware, Stack
from streamware.types import ASGIApp, Message, Receive, Scope, Send
from streamware.wire.addresses import V6, AddressSet, text_of

from .measure import OURS, Figure, Settings

TITLE = "Addresses"
PLAIN = "ipaddress and bisect"
COUNTING = "a thread that counts"
MANY, STRESS = 100_000, 1_000_000
LENGTHS = {4: (16, 20, 22, 24, 24, 24, 28, 32), 6: (32, 40, 48, 48, 56, 64)}
PROXY = ("10.0.0.1", 40000)
#: As a browser's EventSource sends them.
HEADERS = [
    (b"host", b"chat.example"), (b"user-agent", b"Mozilla/5.0 (X11; rv:145.0) Gecko/20100101 Firefox/145.0"),
    (b"accept", b"text/event-stream"), (b"accept-language", b"en-US,en;q=0.5"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"), (b"cache-control", b"no-cache"), (b"cookie", b"session=4f3a9c"),
    (b"sec-fetch-dest", b"empty"), (b"sec-fetch-mode", b"cors"), (b"sec-fetch-site", b"same-origin"),
    (b"referer", b"https://chat.example/"),
]  # fmt: skip


async def run(settings: Settings) -> list[Figure]:
    draw = random.Random(4)
    entries = networks(draw, MANY)
    return [
        look_ups(settings, draw, entries),
        building(settings, f"{MANY:,} networks, built", entries, {OURS: 500.0}),
        *([] if settings.quick else [building(settings, f"{STRESS:,} networks, built", networks(draw, STRESS), {})]),
        await stalls(settings, entries),
        *(await requests(settings, draw, entries)),
    ]


def networks(draw: random.Random, count: int) -> list[str]:
    """Networks of global addresses, four of five IPv4."""
    made = []
    for place in range(count):
        version = 6 if place % 5 == 4 else 4
        length = draw.choice(LENGTHS[version])
        bits, base = (32, 0) if version == 4 else (128, V6)
        first = draw.randrange(1 << 24, 224 << 24) if version == 4 else 0x2000 << 112 | draw.getrandbits(125)
        made.append(f"{text_of((first >> (bits - length) << (bits - length)) + base)}/{length}")
    draw.shuffle(made)
    return made


def asked(draw: random.Random, entries: Sequence[str], count: int) -> list[str]:
    """Addresses of which two in three are in a network of ``entries``, four of five IPv4."""
    texts = [entry.partition("/")[0] for entry in draw.sample(entries, count * 2 // 3)]
    texts += [text_of(draw.randrange(1 << 24, 224 << 24)) for _ in range(count * 4 // 15)]
    texts += [text_of(V6 + (0x2000 << 112 | draw.getrandbits(125))) for _ in range(count // 15)]
    draw.shuffle(texts)
    return texts


def look_ups(settings: Settings, draw: random.Random, entries: list[str]) -> Figure:
    ours = AddressSet(entries)
    plain = sorted_networks(entries)
    texts = asked(draw, entries, settings.pick(60_000, 6_000))
    values: dict[str, list[float]] = {PLAIN: [], OURS: []}
    for _ in range(settings.rounds_of(11)):
        values[PLAIN].append(each(plain, texts))
        values[OURS].append(each(ours.__contains__, texts))
    return Figure(f"{MANY:,} networks, a look-up from a string", "µs", values, base=PLAIN, bounds={OURS: 1.0})


def sorted_networks(entries: list[str]) -> Callable[[str], bool]:
    """What one would write without Streamware."""
    bounds: dict[int, list[int]] = {4: [], 6: []}
    for network in ipaddress.collapse_addresses(ipaddress.IPv4Network(entry) for entry in entries if ":" not in entry):
        bounds[4] += (int(network[0]), int(network[-1]) + 1)
    for wide in ipaddress.collapse_addresses(ipaddress.IPv6Network(entry) for entry in entries if ":" in entry):
        bounds[6] += (int(wide[0]), int(wide[-1]) + 1)

    def holds(text: str) -> bool:
        address = ipaddress.ip_address(text)
        return bisect_right(bounds[address.version], int(address)) & 1 == 1

    return holds


def each(function: Callable[[str], object], texts: list[str]) -> float:
    before = time.process_time()
    for text in texts:
        function(text)
    return (time.process_time() - before) / len(texts) * 1e6


def building(settings: Settings, label: str, entries: list[str], bounds: dict[str, float]) -> Figure:
    times = []
    for _ in range(settings.rounds_of(5)):
        before = time.process_time()
        AddressSet(entries)
        times.append((time.process_time() - before) * 1e3)
    tracemalloc.start()
    made = AddressSet(entries)
    kept = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()
    note = f"{made.ranges:,} ranges, {kept:.1f} MiB"
    return Figure(label, "ms", {OURS: times}, note=note, base=PLAIN, bounds=bounds)


async def stalls(settings: Settings, entries: list[str]) -> Figure:
    """How long the loop at most waits while a file is read anew; beside any other thread that computes it waits too."""
    values: dict[str, list[float]] = {COUNTING: [], OURS: []}
    with tempfile.TemporaryDirectory(prefix="streamware-") as directory:
        path = Path(directory, "allow.txt")
        path.write_text("\n".join(entries))
        middleware = IPAllowlistMiddleware(nothing, allow=path, poll=None)
        await middleware.startup()
        for _ in range(settings.rounds_of(5)):
            values[COUNTING].append(await longest_wait(asyncio.to_thread(sum, (1 for _ in range(5_000_000)))))
            values[OURS].append(await longest_wait(middleware.reload()))
        await middleware.aclose()
    return Figure(f"{MANY:,} networks read from a file, the loop's longest wait", "ms", values, base=COUNTING)


async def longest_wait(work: Coroutine[Any, Any, object]) -> float:
    worst = 0.0
    task = asyncio.ensure_future(work)
    while not task.done():
        before = time.perf_counter()
        await asyncio.sleep(0)
        worst = max(worst, time.perf_counter() - before)
    assert task.result()
    return worst * 1e3


async def nothing(scope: Scope, receive: Receive, send: Send) -> None: ...


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None: ...


async def requests(settings: Settings, draw: random.Random, entries: list[str]) -> list[Figure]:
    count = settings.pick(20_000, 2_000)
    bare = Stack(nothing)
    both = Stack(
        nothing,
        [
            Middleware(ClientIPMiddleware, trusted_proxies=["10.0.0.0/8"]),
            Middleware(IPAllowlistMiddleware, deny=entries),
        ],
    )
    everybody = [f"100.64.{high}.{low}" for high in range(256) for low in range(256)]
    draw.shuffle(everybody)
    never = itertools.cycle(everybody)
    cases: dict[str, Callable[[], Scope]] = {
        "forwarded, client seen before": lambda: forwarded("203.0.113.7"),
        "forwarded, client not seen before": lambda: forwarded(next(never)),
        "nobody forwarded": lambda: scope_of(HEADERS, ("203.0.113.7", 40000)),
    }
    figures = []
    for case, make in cases.items():
        added = []
        for _ in range(settings.rounds_of(11) + 1):
            scopes = [make() for _ in range(count)]
            added.append(await per_request(both, scopes) - await per_request(bare, scopes))
        bounds = {} if "not seen" in case else {OURS: 3.5}
        label = f"a request through ClientIP and IPAllowlist, {case}"
        figures.append(Figure(label, "µs over the bare app", {OURS: added[1:]}, base=PLAIN, bounds=bounds))
    return figures


def forwarded(client: str) -> Scope:
    more = [(b"x-forwarded-for", client.encode()), (b"x-forwarded-proto", b"https")]
    return scope_of([*HEADERS, *more], PROXY)


def scope_of(headers: list[tuple[bytes, bytes]], client: tuple[str, int]) -> Scope:
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": "/chat", "raw_path": b"/chat", "query_string": b"", "root_path": "",
        "headers": headers, "client": client, "server": ("127.0.0.1", 8000), "state": {},
    }  # fmt: skip


async def per_request(app: ASGIApp, scopes: list[Scope]) -> float:
    before = time.process_time()
    for scope in scopes:
        await app(scope, receive, send)
    return (time.process_time() - before) / len(scopes) * 1e6
