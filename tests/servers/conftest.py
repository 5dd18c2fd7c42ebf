"""One server process for each pair of server and app that a test asks for; it serves all tests of that pair."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.launch import EXAMPLES, PAIRS, SERVERS, Server


@pytest.fixture(scope="session", params=PAIRS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """An example app on a server. Whatever the tests do to it, nothing may escape to the server or its loop."""
    kind, app = request.param
    with Server(SERVERS[kind], EXAMPLES[app]) as running:
        yield running
        assert not running.complaints


@pytest.fixture(scope="session", params=[kind for kind in SERVERS if kind != "uvicorn-h11"])
def special(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The apps of ``apps.py`` on a server."""
    with Server(SERVERS[request.param], "tests.servers.apps:special") as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A test that fails shows the end of what its server has written."""
    report = yield
    if call.when == "call" and report.failed:
        for name in ("server", "special"):
            running = getattr(item, "funcargs", {}).get(name)
            if isinstance(running, Server):
                report.sections.append((f"output of {running!r}", running.log[-4000:]))
    return report
