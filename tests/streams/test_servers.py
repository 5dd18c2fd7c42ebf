"""What is known of each server from its scope, against what was measured on them."""

from __future__ import annotations

import pytest

from streamware.streams.servers import accepts_without_limit, cuts_visibly
from streamware.testing import SERVERS, Connection


async def _nothing(scope: object, receive: object, send: object) -> None: ...


@pytest.mark.parametrize(
    ("server", "http_version", "cuts", "limitless"),
    [
        ("uvicorn", "1.1", True, False),
        ("uvicorn", "1.0", False, False),
        ("hypercorn", "1.1", True, False),
        ("hypercorn", "1.0", False, False),
        ("hypercorn", "2", False, True),
        ("daphne", "1.1", False, True),
        ("daphne", "2", False, True),
        ("granian", "1.1", True, False),
        ("granian", "1", False, False),  # what it calls HTTP/1.0
        ("granian", "2", True, False),
    ],
)
def test_each_server(server: str, http_version: str, cuts: bool, limitless: bool) -> None:
    scope = Connection(_nothing, server=SERVERS[server], http_version=http_version).scope
    assert cuts_visibly(scope) is cuts
    assert accepts_without_limit(scope) is limitless


def test_what_is_not_known_is_treated_like_the_worst() -> None:
    for scope in ({}, {"asgi": {}}, {"asgi": {"version": "3.0"}, "http_version": "1.1"}):
        assert not cuts_visibly(scope)
        assert accepts_without_limit(scope)
