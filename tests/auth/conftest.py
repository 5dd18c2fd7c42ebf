"""What the tests of ``auth`` share: the identity provider, and that none of their output holds a token."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.auth.provider import provider, provider_server
from tests.auth.secrets import Listener, leaked

__all__ = ["provider", "provider_server"]


@pytest.fixture(autouse=True)
def nothing_secret_is_logged(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Whatever a test logs, at any level, or prints, holds none of the tokens and secrets that any test has used."""
    root, listener = logging.getLogger(), Listener()
    level = root.level
    root.addHandler(listener)
    root.setLevel(logging.DEBUG)
    yield
    root.setLevel(level)
    root.removeHandler(listener)
    output = capfd.readouterr()
    assert leaked("\n".join([*listener.lines, output.out, output.err])) == []
