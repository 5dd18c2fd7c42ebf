"""``RedisStore`` itself: its options, what it says where redis-py is missing, its tag, and what its logs take up."""

from __future__ import annotations

import os
import sys

import pytest

from streamware import ConfigurationError, RedisStore
from streamware.wire.cursor import new_stream_id
from tests.stores.redis.kit import Place

URL = "redis://127.0.0.1:6379"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("url", "http://example.test"),
        ("url", None),
        ("prefix", "a{b"),
        ("prefix", "é:"),
        ("durability", "disk"),
        ("ttl", 0),
        ("ttl", True),
        ("ttl", float("nan")),
        ("tombstone_ttl", -1),
        ("max_tombstones", 0),
        ("max_log_bytes", 0),
        ("max_log_bytes", 2**40),
        ("max_log_events", "many"),
        ("max_memory", float("inf")),
        ("owner_share", 0),
        ("owner_share", 1.1),
        ("owner_share", True),
    ],
)
def test_an_option_that_makes_no_sense_is_named(option: str, value: object):
    options = {"url": URL, option: value}
    with pytest.raises(ConfigurationError, match=rf"RedisStore: {option} must be "):
        RedisStore(**options)  # type: ignore[arg-type]


def test_where_redis_py_is_missing_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r"asgi-streamware\[redis\]"):
        RedisStore(URL)


def test_workers_of_one_store_have_one_tag_and_other_stores_another():
    one = RedisStore("redis://user:secret@127.0.0.1:6379/1")
    assert one.tag == RedisStore("redis://127.0.0.1:6379/1").tag
    assert one.tag != RedisStore("redis://127.0.0.1:6379/2").tag
    assert one.tag != RedisStore("redis://127.0.0.1:6379/1", prefix="other:").tag
    assert new_stream_id(one.tag)[2:8] == one.tag


@pytest.mark.parametrize("each", [1, 2, 5, 20])
async def test_a_log_takes_at_most_half_as_much_again_as_its_events(place: Place, each: int):
    a = await place.worker()
    events = [os.urandom(100).hex().encode() for _ in range(1000)]
    stream = await a.begin()
    for at in range(0, len(events), each):
        await a.write(stream, at + 1, *events[at : at + each])
    keys = [f"{place.prefix}{{{stream}}}:{kind}" for kind in ("log", "meta")]
    taken = sum(int(str(place.server.run("MEMORY", "USAGE", key, "SAMPLES", 0))) for key in keys)
    assert taken <= 1.5 * sum(map(len, events))
