"""The lifespan of a ``Stack`` under a real uvicorn's strict mode, which bare Django and Channels do not survive."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@contextmanager
def uvicorn(factory: str) -> Iterator[subprocess.Popen[str]]:
    """A uvicorn that serves ``tests.lifespan_apps:{factory}``; its output and its app's come as one text."""
    command = [sys.executable, "-m", "uvicorn", "--factory", f"tests.lifespan_apps:{factory}"]
    with subprocess.Popen(
        [*command, "--lifespan", "on", "--host", "127.0.0.1", "--port", "0"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as server:
        try:
            yield server
        finally:
            server.kill()


def output_until(server: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """Read the output up to a line with ``pattern``."""
    assert server.stdout is not None
    lines = []
    for line in server.stdout:
        lines.append(line)
        if match := re.search(pattern, line):
            return match
    raise AssertionError(f"{pattern!r} is not in the output:\n{''.join(lines)}")


@pytest.mark.parametrize(
    ("factory", "before", "after"),
    [
        ("django", [], ["shutdown", "aclose"]),
        ("channels", [], ["shutdown", "aclose"]),
        ("starlette", ["app up"], ["shutdown", "app down", "aclose"]),
    ],
)
def test_under_lifespan_on_the_app_is_served_and_the_hooks_run_around_it(
    factory: str, before: list[str], after: list[str]
):
    with uvicorn(factory) as server:
        for said in ["startup", *before]:
            output_until(server, f"^said: {said}$")
        address = output_until(server, r"running on (http://127\.0\.0\.1:\d+)")[1]

        with urllib.request.urlopen(address, timeout=10) as response:
            assert response.read() == b"served"

        server.send_signal(signal.SIGTERM)
        rest, _ = server.communicate(timeout=20)

    assert re.findall("^said: (.*)$", rest, re.MULTILINE) == after
    assert "Application shutdown complete" in rest
    assert "Traceback" not in rest


@pytest.mark.parametrize(
    ("factory", "said", "reason"),
    [
        ("starlette_broken", ["startup", "app up", "shutdown", "aclose"], "LookupError: no database at all"),
        ("hook_broken", ["startup", "aclose"], "Saying: startup failed: no store at the other end"),
    ],
)
def test_a_start_that_fails_ends_the_server_with_the_reason(factory: str, said: list[str], reason: str):
    with uvicorn(factory) as server:
        output, _ = server.communicate(timeout=20)

    assert server.returncode == 3
    assert reason in output
    assert re.findall("^said: (.*)$", output, re.MULTILINE) == said
