"""What the tests of ``auth`` share: the identity provider, and that none of their output holds a token."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.auth.provider import provider, provider_server
from tests.secrets import Listener, leaked

__all__ = ["provider", "provider_server"]


@pytest.fixture(autouse=True)
def nothing_secret_is_logged_by_anybody(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Here not what others log either, the libraries below included, at any level."""
    root, listener = logging.getLogger(), Listener()
    level = root.level
    root.addHandler(listener)
    root.setLevel(logging.DEBUG)
    yield
    root.setLevel(level)
    root.removeHandler(listener)
    output = capfd.readouterr()
    assert leaked("\n".join([*listener.lines, output.out, output.err])) == []
