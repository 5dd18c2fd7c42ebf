"""Where Redis may be: behind a password, TLS or a unix socket, named by sentinels, or a cluster of servers."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis.asyncio
import redis.asyncio.sentinel
import trustme

from streamware.exceptions import StoreUnavailable
from streamware.stores.backend import Appended, Entry, Verdict
from streamware.stores.base import Outcome
from streamware.stores.redis_cluster import ClusterNodes
from streamware.stores.redis_target import target_of
from tests.redis_groups import RedisCluster, SentinelGroup, in_step, is_master, wait_until
from tests.redis_server import RedisServer, binaries, free_port, newest
from tests.stores.redis.kit import HEAD, Place, until
from tests.stores.redis.stores import Following, Producing, workers


def has_tls(path: Path) -> bool:
    return b"libssl" in subprocess.run(["ldd", path], capture_output=True, check=False).stdout


WITH_TLS = [version for version, path in binaries().items() if has_tls(path)]


async def works(url: object, prefix: str = "t:") -> None:
    """A stream that begins at one worker is followed, stopped and forgotten at another."""
    async with workers(url, prefix) as (a, b):  # type: ignore[arg-type]
        log = await a.begin()
        far = Following(await b.open(log.stream))
        sent = [b"%d\n\n" % n for n in range(300)]
        for event in sent:
            log.append(event)
            await asyncio.sleep(0)
        await until(lambda: len(far.events) == 300)
        assert await b.store.stop(log.stream)
        assert await far.end() == sent
        assert far.outcome is Outcome.STOPPED
        await a.store.flush()
        await b.store.forget(log.stream)
        assert await a.store.open(log.stream) is None
        await asyncio.to_thread(a.store._backend.renew)


async def test_a_password_is_used_and_never_shown(path: Path, caplog: pytest.LogCaptureFixture):
    with RedisServer(path, requirepass="hunter2") as server:
        await works(server.url)
        for wrong in (server.url.replace("hunter2", "swordfish"), f"redis://127.0.0.1:{server.port}"):
            async with workers(wrong, "t:", 1) as (a,):
                with pytest.raises(StoreUnavailable) as raised:
                    await a.begin()
                shown = f"{raised.value!r} {raised.value.__cause__!r} {a.store!r} {vars(a.store)!r} {caplog.text}"
                assert "swordfish" not in shown
                assert "hunter2" not in shown
        assert "away for writes" in caplog.text


async def test_a_unix_socket_will_do(own: RedisServer):
    await works(own.socket_url)


async def test_a_client_of_redis_py_will_do(own: RedisServer):
    async with redis.asyncio.Redis(port=own.port, db=3, decode_responses=True) as client:
        await works(client)
        assert await client.dbsize() > 0, "in the client's database"
        assert await client.ping() is True


@pytest.fixture
def tls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = {name: tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem")}
    authority.cert_pem.write_to_path(files["ca.pem"])
    certificate.cert_chain_pems[0].write_to_path(files["cert.pem"])
    certificate.private_key_pem.write_to_path(files["key.pem"])
    port = free_port()
    options = {
        "tls_port": str(port),
        "tls_cert_file": str(files["cert.pem"]),
        "tls_key_file": str(files["key.pem"]),
        "tls_ca_cert_file": str(files["ca.pem"]),
        "tls_auth_clients": "no",
    }
    with RedisServer(binaries()[request.param], **options):
        yield f"rediss://127.0.0.1:{port}", files["ca.pem"]


if WITH_TLS:

    @pytest.mark.parametrize("tls", WITH_TLS, indirect=True)
    async def test_tls_is_spoken_and_the_certificate_checked(tls: tuple[str, Path]):
        url, authority = tls
        await works(f"{url}?ssl_ca_certs={authority}")
        async with workers(url, "t:", 1) as (a,):
            with pytest.raises(StoreUnavailable):
                await a.begin()


# -- sentinels

of_one_version = pytest.mark.parametrize("version", [newest()])


@of_one_version
async def test_when_the_master_dies_its_replica_is_found_and_no_event_is_lost(path: Path):
    with SentinelGroup(path) as group:
        await works(group.url)
        async with workers(group.url, "t:") as (a, b):
            log = await a.begin()
            producing = Producing(log)
            near, far = Following(log.reader(0)), Following(await b.open(log.stream))
            await producing.reach(100)
            group.master.kill()
            await until(lambda: is_master(group.replica), 15)
            await producing.reach(100)
            events = await producing.end()
            assert await near.end() == events
            assert await far.end(30) == events
            assert near.silence < 0.3


@of_one_version
async def test_a_replica_that_had_not_heard_of_the_newest_events_gets_them_again(path: Path):
    """A failover that loses what had been acknowledged: the producer's memory makes it good."""
    with SentinelGroup(path) as group:
        async with workers(group.url, "t:") as (a, b):
            log, ended = await a.begin(), await a.begin()
            producing = Producing(log)
            near, far = Following(log.reader(0)), Following(await b.open(log.stream))
            await producing.reach(50)
            await a.store.flush()
            wait_until(lambda: in_step(group.replica), "the replica to follow")
            group.replica.stall()
            group.master.run("CLIENT", "KILL", "TYPE", "replica")
            await producing.reach(100)
            ended.append(b"1\n\n")
            ended.close(Outcome.DONE)
            await a.store.flush()
            await until(lambda: len(far.events) > 140)
            group.master.kill()
            group.replica.resume()
            await until(lambda: is_master(group.replica), 15)
            await producing.reach(50)
            events = await producing.end()
            assert await near.end() == events
            assert await far.end(30) == events
            assert a.observer.total("store.rolled_back") >= 1
            late = Following(await b.open(log.stream))
            assert await late.end() == events
            cut = Following(await b.open(ended.stream))
            await cut.end()
            assert cut.outcome is Outcome.INTERRUPTED, "nobody is left waiting for an end that was lost"


@of_one_version
async def test_a_sentinels_client_will_do(path: Path):
    with SentinelGroup(path) as group:
        sentinels = [("127.0.0.1", sentinel.port) for sentinel in group.sentinels]
        manager = redis.asyncio.sentinel.Sentinel(sentinels)
        client = manager.master_for("main")
        await works(client)
        await client.aclose()
        await manager.aclose()


# -- a cluster


@pytest.fixture(scope="module", params=list(binaries()))
def cluster(request: pytest.FixtureRequest) -> Iterator[RedisCluster]:
    with RedisCluster(binaries()[request.param]) as made:
        yield made


async def test_streams_spread_over_a_cluster(cluster: RedisCluster):
    async with workers(cluster.url, "spread:") as (a, b):
        logs = [await a.begin() for _ in range(30)]
        readers = [Following(await b.open(log.stream)) for log in logs]
        sent = [b"%d\n\n" % n for n in range(50)]
        for event in sent:
            for log in logs:
                log.append(event)
            await asyncio.sleep(0.001)
        for log in logs:
            log.close(Outcome.DONE)
        for reader in readers:
            assert await reader.end() == sent
        held = [len(node.run("KEYS", "spread:*:log")) for node in cluster.nodes]  # type: ignore[arg-type]
        assert all(held)
        assert sum(held) == 30
    await works(cluster.url, "works:")


async def test_a_map_that_is_mistrusted_as_soon_as_it_is_read_still_answers_who_waited_for_it(cluster: RedisCluster):
    nodes = ClusterNodes(target_of("RedisStore", "url", cluster.url), 2.0)
    waiting = [asyncio.ensure_future(nodes.locate(b"key")) for _ in range(3)]
    while nodes._reading is None:
        await asyncio.sleep(0)
    nodes._reading.add_done_callback(lambda _: nodes.mistrust())
    holder = ("127.0.0.1", cluster.holder("key").port)
    assert await asyncio.gather(*waiting) == [holder] * 3
    assert nodes._map == []
    assert await nodes.locate(b"key") == holder


async def test_a_slot_that_moves_takes_its_streams_along(cluster: RedisCluster):
    place = Place(cluster.nodes[0])
    try:
        a, b = [await place.worker(url=cluster.url) for _ in range(2)]  # type: ignore[arg-type]
        stream = await a.begin(b"1")
        await b.backend.watch(stream)
        await a.write(stream, 2, b"2")
        await until(lambda: b.heard(stream))
        key = f"{place.prefix}{{{stream}}}:log"
        target = next(node for node in cluster.nodes if node is not cluster.holder(key))
        cluster.move(key, target)
        assert await a.write(stream, 3, b"3") is Verdict.TAKEN
        assert await b.all_of(stream) == [b"1", b"2", b"3"]
        await until(lambda: a.backend.look_every is not None)
        seq = 3
        b.signals.clear()
        since = time.monotonic()
        while not any(isinstance(signal, Appended) for signal in b.signals):
            seq += 1
            assert await a.write(stream, seq, b"%d" % seq) is Verdict.TAKEN
            await asyncio.sleep(0.05)
            assert time.monotonic() - since < 10, "signals go on"
        assert await b.backend.end(stream, Outcome.STOPPED) is Outcome.STOPPED
        assert await a.write(stream, seq + 1, b"x") is Verdict.FENCED
    finally:
        await place.aclose()


async def test_a_stream_whose_slot_is_on_its_way_is_written_and_read_where_it_is(cluster: RedisCluster):
    place = Place(cluster.nodes[0])
    try:
        a, b = [await place.worker(url=cluster.url) for _ in range(2)]  # type: ignore[arg-type]
        stream, other = await a.begin(b"1"), await a.begin(b"1")
        log, meta = (f"{place.prefix}{{{stream}}}:{kind}" for kind in ("log", "meta"))
        target = next(node for node in cluster.nodes if node is not cluster.holder(log))
        cluster.move(log, target, only=(log, meta))
        for seq in (2, 3):
            entries = [Entry(stream, seq, (b"%d" % seq,)), Entry(other, seq, (b"%d" % seq,))]
            assert {answer.verdict for answer in await a.backend.write(entries)} == {Verdict.TAKEN}
        assert await b.all_of(stream) == await b.all_of(other) == [b"1", b"2", b"3"]
        assert (await b.found(stream)).last == 3
        cluster.move(log, target)
        assert await a.write(stream, 4, b"4") is Verdict.TAKEN
        assert await b.backend.end(stream, Outcome.STOPPED) is Outcome.STOPPED
        assert await b.all_of(stream) == [b"1", b"2", b"3", b"4"]
    finally:
        await place.aclose()


async def test_a_server_of_the_cluster_that_stalls_does_not_stop_the_others_logs(cluster: RedisCluster):
    place = Place(cluster.nodes[0])
    try:
        a = await place.worker(url=cluster.url, timeout=0.5)  # type: ignore[arg-type]
        streams = [await a.begin(b"1") for _ in range(20)]
        stalled = next(
            node
            for node in cluster.nodes
            if node not in {cluster.holder(f"{place.prefix}{{{name}}}:x") for name in (a.name,)}
            and any(node is cluster.holder(f"{place.prefix}{{{stream}}}:log") for stream in streams)
        )
        here = [stream for stream in streams if cluster.holder(f"{place.prefix}{{{stream}}}:log") is not stalled]
        stalled.stall()
        try:
            with pytest.raises(StoreUnavailable):
                await a.backend.write([Entry(stream, 2, (b"2",)) for stream in streams])
        finally:
            stalled.resume()
        for stream in here:
            assert await a.all_of(stream) == [b"1", b"2"]
        with contextlib.suppress(StoreUnavailable):  # the cluster may have noticed
            await a.backend.write([Entry(stream, 2, (b"2",)) for stream in streams])
        wait_until(lambda: b"cluster_state:ok" in _cluster_info(stalled), "the cluster to be whole again")
        since = time.monotonic()
        while True:
            try:
                answers = await a.backend.write([Entry(stream, 2, (b"2",), head=HEAD) for stream in streams])
                break
            except StoreUnavailable:
                assert time.monotonic() - since < 15
                await asyncio.sleep(0.1)
        assert {answer.verdict for answer in answers} == {Verdict.TAKEN}
        assert [await a.all_of(stream) for stream in streams] == [[b"1", b"2"]] * len(streams)
    finally:
        await place.aclose()


def _cluster_info(node: RedisServer) -> bytes:
    with node.client() as client:
        client.response_callbacks.clear()
        answer = client.execute_command("CLUSTER", "INFO")
    assert isinstance(answer, bytes)
    return answer
