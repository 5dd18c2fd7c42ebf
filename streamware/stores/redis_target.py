"""Which Redis: one server, a master named by sentinels, or a cluster, out of a URL or of a redis-py client.

URLs are redis-py's own (``redis://``, ``rediss://``, ``unix://``) and, for several servers, those of the ``limits``
package, so that one URL serves every part that needs Redis:

    redis+sentinel://[user:password@]host:port,host:port/service[/db]?…
    redis+cluster://[user:password@]host:port,host:port?…           (``rediss+…`` with TLS)

Rules:

1. Of a client only its address, its credentials and its TLS options are taken, never a connection: retries, time-outs
   and decoding are the store's own.
2. What is said of a target, in errors, logs and its ``repr``, holds no user, no password and no query.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import SplitResult, unquote, urlsplit

from ..exceptions import ConfigurationError

if TYPE_CHECKING:
    import redis
    import redis.asyncio

    #: Every kind of client whose address can be taken over.
    Client = redis.asyncio.Redis | redis.asyncio.RedisCluster | redis.Redis | redis.RedisCluster

Address = tuple[str, int]

# What of a connection's options says where and as whom, and not how.
_TAKEN = {
    *("host", "port", "path", "db", "username", "password", "credential_provider", "socket_type", "socket_keepalive"),
    *("socket_keepalive_options", "ssl_keyfile", "ssl_certfile", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_data"),
    *("ssl_ca_path", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers", "ssl_password"),
    *("ssl_include_verify_flags", "ssl_exclude_verify_flags"),
}
_WANTED = (
    "a redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// URL, or a client of redis-py (Redis or "
    "RedisCluster)"
)


@dataclass(frozen=True)
class Target:
    """Where the data is. ``name`` tells it to people, ``identity`` tells it from others; neither holds a secret."""

    name: str
    identity: str
    options: Mapping[str, Any] = field(repr=False)
    tls: bool = False
    seeds: tuple[Address, ...] = ()
    #: The name that the sentinels at ``seeds`` know the master by; "" without sentinels.
    service: str = ""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)

    @property
    def is_cluster(self) -> bool:
        return bool(self.seeds) and not self.service


def target_of(owner: str, option: str, url_or_client: str | Client | Target) -> Target:
    """The target that a URL or a client names, or that was found before.

    :raises ConfigurationError: it names none.
    """
    if isinstance(url_or_client, Target):
        return url_or_client
    if not isinstance(url_or_client, str):
        return _of_client(owner, option, url_or_client)
    try:
        return _of_url(url_or_client)
    except ValueError as error:
        # Neither the error nor the URL is shown whole: either may quote a password.
        scheme = url_or_client.partition("://")[0] if "://" in url_or_client else "…"
        raise ConfigurationError.option(owner, option, f"{scheme[:30]}://…", f"{_WANTED}; {_why(error)}") from None


class _WrongURLError(ValueError):
    """In words of our own, which hold nothing of the URL's."""


def _why(error: ValueError) -> str:
    return str(error) if isinstance(error, _WrongURLError) else "this one cannot be read"


def _of_url(url: str) -> Target:
    from redis.asyncio.connection import parse_url

    parts = urlsplit(url)
    base, _, kind = parts.scheme.partition("+")
    if base not in ("redis", "rediss", "unix") or kind not in ("", "sentinel", "cluster") or (kind and base == "unix"):
        raise _WrongURLError("its scheme is another")
    if not kind:
        options = _taken(cast("dict[str, Any]", parse_url(url)))
        if base == "unix" and "path" not in options:
            raise _WrongURLError("it names no socket")
        return _single(options, tls=base == "rediss")
    seeds = _seeds(parts)
    options = _taken(cast("dict[str, Any]", parse_url(f"redis://?{parts.query}")))
    credentials, at, _ = parts.netloc.rpartition("@")
    if at:
        user, _, password = credentials.partition(":")
        options.update({"username": unquote(user) or None, "password": unquote(password) or None})
    path = [unquote(part) for part in parts.path.split("/") if part]
    if kind == "cluster":
        return _cluster(seeds, options, tls=base == "rediss")
    if not path:
        raise _WrongURLError("it names no service, as in redis+sentinel://host:26379/service")
    if len(path) > 1:
        options["db"] = int(path[1])
    return _sentinel(seeds, path[0], options, {}, tls=base == "rediss")


def _seeds(parts: SplitResult) -> tuple[Address, ...]:
    hosts = parts.netloc.rpartition("@")[2].split(",")
    default = 26379 if parts.scheme.endswith("sentinel") else 6379
    split = [urlsplit(f"//{host}") for host in hosts]
    return tuple((host.hostname or "localhost", host.port or default) for host in split)


def _of_client(owner: str, option: str, client: object) -> Target:
    # Asked by what they have, not by class: each of the four kinds is a class of its own, and is often subclassed.
    nodes = getattr(client, "nodes_manager", None)
    pool = getattr(client, "connection_pool", None)
    if nodes is not None:
        found = cast("Mapping[str, Any]", nodes.startup_nodes)
        options = dict(cast("Mapping[str, Any]", getattr(client, "connection_kwargs", None) or nodes.connection_kwargs))
        tls = _is_tls(options.get("connection_class")) or bool(options.get("ssl")) or "ssl_cert_reqs" in options
        return _cluster(tuple((str(node.host), int(node.port)) for node in found.values()), _taken(options), tls=tls)
    if pool is None:
        raise ConfigurationError.option(owner, option, type(client), _WANTED)
    options = _taken(cast("dict[str, Any]", pool.connection_kwargs))
    tls = _is_tls(pool.connection_class)
    service = getattr(pool, "service_name", None)
    if service is None:
        return _single(options, tls=tls)
    if not pool.is_master:
        raise ConfigurationError.option(owner, option, "a client of replicas", "a client of the master: master_for()")
    sentinels = [
        cast("dict[str, Any]", sentinel.connection_pool.connection_kwargs)
        for sentinel in pool.sentinel_manager.sentinels
    ]
    seeds = tuple((str(sentinel["host"]), int(sentinel["port"])) for sentinel in sentinels)
    return _sentinel(seeds, str(service), options, _taken(sentinels[0]), tls=tls)


def _is_tls(connection_class: object) -> bool:
    return "SSL" in getattr(connection_class, "__name__", "")


def _taken(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in _TAKEN}


def _single(options: dict[str, Any], *, tls: bool) -> Target:
    db = int(options.get("db") or 0)
    place = str(options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}")
    return Target(f"Redis at {place}", f"redis {place} {db}", options, tls)


def _sentinel(
    seeds: tuple[Address, ...], service: str, options: dict[str, Any], sentinel_options: dict[str, Any], *, tls: bool
) -> Target:
    for taken in (options, sentinel_options):
        taken.pop("host", None)
        taken.pop("port", None)
    db = int(options.get("db") or 0)
    return Target(
        f"Redis {service} of the sentinels at {_listed(seeds)}",
        f"sentinel {_listed(seeds)} {service} {db}",
        options,
        tls,
        seeds,
        service,
        sentinel_options,
    )


def _cluster(seeds: tuple[Address, ...], options: dict[str, Any], *, tls: bool) -> Target:
    for name in ("host", "port", "db"):
        options.pop(name, None)
    return Target(f"Redis Cluster at {_listed(seeds)}", f"cluster {_listed(seeds)}", options, tls, seeds)


def _listed(seeds: tuple[Address, ...]) -> str:
    return ",".join(sorted(f"{host}:{port}" for host, port in seeds))
