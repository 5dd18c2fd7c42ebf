"""URLs and clients: where they point, with what credentials, and that none of those is ever shown."""

from __future__ import annotations

import pytest
import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.sentinel

from streamware.exceptions import ConfigurationError
from streamware.stores.redis_target import Target, target_of


def target(url: object) -> Target:
    return target_of("RedisStore", "url", url)  # type: ignore[arg-type]


def test_a_url_names_one_server():
    found = target("redis://me:p%40ss@example.test:7000/3?ssl_cert_reqs=none&socket_timeout=9&decode_responses=1")
    assert found.name == "Redis at example.test:7000"
    assert found.options == {
        "host": "example.test",
        "port": 7000,
        "db": 3,
        "username": "me",
        "password": "p@ss",
        "ssl_cert_reqs": "none",
    }
    assert not found.tls
    assert target("rediss://example.test").tls
    assert target("unix:///run/redis/s?db=2").options == {"path": "/run/redis/s", "db": 2}
    assert target("redis://").name == "Redis at localhost:6379"


def test_a_url_names_sentinels_and_their_service():
    found = target("redis+sentinel://me:secret@a:1,b/main/2?ssl_ca_certs=ca.pem")
    assert (found.seeds, found.service, found.is_cluster) == ((("a", 1), ("b", 26379)), "main", False)
    assert found.options == {"username": "me", "password": "secret", "db": 2, "ssl_ca_certs": "ca.pem"}
    assert found.name == "Redis main of the sentinels at a:1,b:26379"
    assert target("rediss+sentinel://a/main").tls


def test_a_url_names_a_cluster():
    found = target("redis+cluster://:secret@a:1,[::1]:2")
    assert (found.seeds, found.is_cluster) == ((("a", 1), ("::1", 2)), True)
    assert found.options == {"username": None, "password": "secret"}
    assert found.name == "Redis Cluster at ::1:2,a:1"


def test_what_tells_a_store_from_others_is_not_its_credentials_or_the_order_of_its_seeds():
    assert target("redis://a:1/2").identity == target("redis://u:p@a:1/2?ssl_cert_reqs=none").identity
    assert target("redis+cluster://a,b").identity == target("redis+cluster://b,a").identity
    different = [
        "redis://a:1/2",
        "redis://a:1/3",
        "redis://a:2/2",
        "unix:///a",
        "redis+cluster://a",
        "redis+sentinel://a/m",
    ]
    assert len({target(url).identity for url in different}) == len(different)


@pytest.mark.parametrize("module", [redis, redis.asyncio], ids=["sync", "async"])
def test_of_a_client_the_address_and_the_credentials_are_taken(module):  # type: ignore[no-untyped-def]
    client = module.Redis(
        host="h",
        port=7,
        db=1,
        username="me",
        password="secret",
        decode_responses=True,
        socket_timeout=1,
        max_connections=3,
    )
    found = target(client)
    taken = {name: found.options[name] for name in ("host", "port", "db", "username", "password")}
    assert taken == {"host": "h", "port": 7, "db": 1, "username": "me", "password": "secret"}
    assert not {"decode_responses", "socket_timeout", "retry", "max_connections"} & set(found.options)
    assert found.identity == target("redis://h:7/1").identity
    assert target(module.Redis(ssl=True)).tls
    assert target(module.Redis.from_url("unix:///s")).options["path"] == "/s"


@pytest.mark.parametrize("module", [redis.sentinel, redis.asyncio.sentinel], ids=["sync", "async"])
def test_of_a_sentinels_client_the_sentinels_are_taken(module):  # type: ignore[no-untyped-def]
    sentinel = module.Sentinel([("a", 1), ("b", 2)], sentinel_kwargs={"password": "theirs"}, password="ours", db=1)
    found = target(sentinel.master_for("main"))
    assert (found.seeds, found.service) == ((("a", 1), ("b", 2)), "main")
    assert (found.options["password"], found.options["db"]) == ("ours", 1)
    assert found.sentinel_options["password"] == "theirs"
    assert found.identity == target("redis+sentinel://a:1,b:2/main/1").identity
    with pytest.raises(ConfigurationError, match="master_for"):
        target(sentinel.slave_for("main"))


def test_of_a_clusters_client_the_seeds_are_taken():
    seeds = [redis.asyncio.cluster.ClusterNode("a", 1), redis.asyncio.cluster.ClusterNode("b", 2)]
    found = target(redis.asyncio.RedisCluster(startup_nodes=seeds, password="secret"))
    assert (found.seeds, found.is_cluster, found.options["password"]) == ((("a", 1), ("b", 2)), True, "secret")
    assert found.identity == target("redis+cluster://b:2,a:1").identity
    assert target(redis.asyncio.RedisCluster(host="a", port=1, ssl=True)).tls


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "http://u:secret@host/0",
        "redis+other://u:secret@host",
        "unix+cluster:///secret",
        "unix://",
        "redis://u:secret@host:port",
        "redis://u:secret@host:99999999",
        "redis://u:secret@[host",
        "redis+sentinel://u:secret@host",
        "redis+sentinel://u:secret@host/main/secret",
        "redis+cluster://u:secret@host:secret",
        "redis://u:secret@host?db=secret",
        "secret" * 1000,
        None,
        7,
        object(),
    ],
)
def test_what_names_nothing_is_an_error_that_shows_no_secret(url: object):
    with pytest.raises(ConfigurationError) as raised:
        target(url)
    text = f"{raised.value} {raised.value.__cause__!r}"
    assert "RedisStore" in text
    assert "redis://" in text
    assert "secret" not in text
    assert len(text) < 500


def test_a_target_shows_no_secret():
    for url in ("redis://u:secret@h", "redis+sentinel://u:secret@h/m", "redis+cluster://u:secret@h"):
        assert "secret" not in f"{target(url)!r} {target(url)}"
