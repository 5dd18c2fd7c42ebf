"""``import streamware`` imports nothing that a service may not have, and nothing that it may never need."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Of the runtime dependencies only the JSON codec is needed by all that is served; the rest is loaded on first use.
ALLOWED = {"streamware", "msgspec", "typing_extensions"}  # msgspec takes the last, where it is installed

SCRIPT = """
import sys
before = set(sys.modules)
import {module}
new = {{name.split(".")[0] for name in set(sys.modules) - before}}
print(*sorted(new - set(sys.stdlib_module_names)))
"""


@pytest.mark.parametrize("module", ["streamware", "streamware.testing"])
def test_importing_loads_no_optional_package(module: str):
    command = [sys.executable, "-c", SCRIPT.format(module=module)]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert set(loaded) <= ALLOWED


WRAPPED = """
import sys
from streamware import wrap
wrap(lambda scope, receive, send: None, limits="2/minute", concurrent=1, tokens="1000/minute", compress=True)
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


def test_limits_in_memory_load_nothing_of_redis():
    loaded = subprocess.run([sys.executable, "-c", WRAPPED], capture_output=True, text=True, check=True).stdout.split()

    assert "limits" in loaded
    assert not {"redis", "coredis", "valkey", "joserfc", "authlib", "httpx"} & set(loaded)
