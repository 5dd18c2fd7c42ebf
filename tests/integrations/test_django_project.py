"""A Django project with a database behind a real server: tokens become its users."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.integrations.known import ADA, BOB, bearing
from tests.servers.launch import ROOT, SERVERS, Server


@pytest.fixture(scope="module", params=["user_of", "async_user_of"])
def http(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    database: Path = tmp_path_factory.mktemp("project") / "db.sqlite3"
    environment = {"TEST_DATABASE": str(database), "TEST_HOOK": request.param}
    command = [sys.executable, "-m", "tests.integrations.django_project"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=True)
    with Server(SERVERS["uvicorn"], "tests.integrations.django_project:app", environment) as server:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=20) as client:
            yield client
        assert not server.complaints


def test_a_token_is_one_user_of_the_database_in_every_kind_of_view(http: httpx.Client):
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(lambda n: http.get(f"/{('sync', 'async')[n % 2]}_view", headers=bearing(ADA)).json(), range(20))
        )

    assert {answer["pk"] for answer in answers} == {answers[0]["pk"]} != {None}
    assert {(answer["name"], answer["kind"]) for answer in answers} == {("ada", "User")}
    bob = http.get("/sync_view", headers=bearing(BOB)).json()
    assert (bob["name"], bob["pk"] == answers[0]["pk"]) == ("bob", False)
    assert http.get("/open/count").json() == {"users": 2}


@pytest.mark.parametrize("view", ["sync_view", "async_view"])
def test_nobody_is_djangos_anonymous_user(http: httpx.Client, view: str):
    assert http.get(f"/open/{view}").json() == {"pk": None, "name": "", "kind": "AnonymousUser"}
    assert http.get(f"/{view}").status_code == 401
