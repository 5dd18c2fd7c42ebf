"""``require_secure``: what is refused, what is redirected, and what browsers are told to remember."""

from __future__ import annotations

import json

import pytest

from streamware import HSTSOptions
from tests.middleware.origin_site import BEARER, COOKIE, EVENTSOURCE, LISTED, OWN, Site, refusal

PAGE = {"accept": "text/html,*/*;q=0.8"}
YEAR = "max-age=31536000"


@pytest.mark.parametrize("scheme", ["https", "wss"])
async def test_what_comes_over_tls_is_served_and_told_to_stay_there(scheme: str) -> None:
    site = Site(require_secure=True)

    answer = await site.ask(scheme=scheme)

    assert answer.status == 200
    assert answer.header("strict-transport-security") == YEAR
    assert (await site.connect()).accepted


@pytest.mark.parametrize("scheme", ["http", "ws", "", "HTTPS", "https ", "httpss"])
@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {}),
        ("GET", EVENTSOURCE),
        ("GET", {**PAGE, **BEARER}),
        ("GET", {**PAGE, "sec-fetch-mode": "cors"}),
        ("GET", {**PAGE, "origin": OWN}),
        ("POST", {**PAGE, **COOKIE}),
        ("DELETE", {}),
        ("OPTIONS", {"origin": LISTED, "access-control-request-method": "GET"}),
    ],
)
async def test_calls_without_tls_are_refused(scheme: str, method: str, headers: dict[str, str]) -> None:
    site = Site(require_secure=True)

    answer = await site.ask(method, headers, scheme=scheme)

    assert answer.status == 403
    assert json.loads(answer.body)["title"] == "HTTPS is required"
    assert answer.header("location") is None
    assert answer.header("strict-transport-security") is None  # RFC 6797, section 7.2
    assert site.reached == []
    assert site.reasons == {"insecure": 1}


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000"])
async def test_localhost_is_no_exception(host: str) -> None:
    answer = await Site(require_secure=True).ask(scheme="http", host=host, scope={"client": ("127.0.0.1", 5)})

    assert answer.status == 403


async def test_a_websocket_without_tls_is_refused() -> None:
    site = Site(require_secure=True)

    assert refusal(await site.connect({"origin": "http://api.example"}, scheme="ws")) == 403
    assert site.reasons == {"insecure": 1}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("headers", [PAGE, {**PAGE, **COOKIE}, {"sec-fetch-mode": "navigate"}])
async def test_a_page_is_to_be_had_elsewhere(method: str, headers: dict[str, str]) -> None:
    site = Site(require_secure=True)

    answer = await site.ask(method, headers, scheme="http", host="api.example:8000", path="/a?b=c")

    assert answer.status == 308
    assert answer.header("location") == "https://api.example/a?b=c"
    assert answer.header("cache-control") == "no-store"
    assert answer.header("strict-transport-security") is None
    assert answer.body == b""
    assert site.reached == []
    assert site.observer.counts == {("origin.redirected", "insecure"): 1}


async def test_the_port_over_tls_may_be_another() -> None:
    answer = await Site(require_secure=True, secure_port=8443).ask(headers=PAGE, scheme="http")

    assert answer.header("location") == "https://api.example:8443/"


@pytest.mark.parametrize("host", [None, "", "a@b", "api.example/x", "evil.example"])
async def test_nobody_is_sent_to_a_host_that_is_none_of_ours(host: str | None) -> None:
    site = Site(require_secure=True, hosts=["api.example"])

    answer = await site.ask(headers=PAGE, scheme="http", host=host)

    assert answer.status == 403
    assert answer.header("location") is None


async def test_without_a_good_host_a_page_is_refused() -> None:
    assert (await Site(require_secure=True).ask(headers=PAGE, scheme="http", host="a@b")).status == 403


async def test_hsts_may_be_other_or_none() -> None:
    other = HSTSOptions(max_age=300, include_subdomains=True)

    assert (await Site(require_secure=True, hsts=other).ask()).header("strict-transport-security") == (
        "max-age=300; includeSubDomains"
    )
    for none in (None, False):
        site = Site(require_secure=True, hsts=none)
        assert (await site.ask()).headers == site.lines


async def test_hsts_stands_on_refusals_too_and_once() -> None:
    site = Site(require_secure=True)
    site.lines = [(b"Strict-Transport-Security", b"max-age=1")]

    refused = await site.ask(headers={"origin": "https://evil.example"})
    own = await site.ask()

    assert refused.status == 403
    assert refused.header("strict-transport-security") == YEAR
    assert own.headers == site.lines


async def test_without_the_option_nothing_is_asked_for() -> None:
    site = Site()

    answer = await site.ask(scheme="http")

    assert answer.status == 200
    assert answer.headers == site.lines


def test_hsts_without_its_cause_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="hsts must be None without require_secure=True"):
        Site(hsts=HSTSOptions())
