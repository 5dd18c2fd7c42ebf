"""A pytest plugin for other projects' suites: wraps every app that their test clients are given, and writes down what
failed.

It runs in those suites' own process, named by ``-p asgi_wrap_plugin``, and edits none of their files. Two variables of
the environment steer it, both set by ``run.py``:

``STREAMWARE_WRAP``: ``module:factory``, called with each app; without it nothing is wrapped (the bare run).
``STREAMWARE_REPORT``: the file that the outcome is written to, as JSON.

Where an app enters is where it is wrapped: Starlette's and FastAPI's ``TestClient``, the ASGI transports of httpx,
asgiref's ``ApplicationCommunicator`` (under all of Channels' communicators), and uvicorn's ``Config``. Each factory
call is counted, for a run that wrapped nothing proves nothing.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: How many apps this process has wrapped.
wrapped = 0
#: Outcome by test id; "failed" wins over whatever another phase of the same test reports.
outcomes: dict[str, str] = {}


def wrap(app: Any) -> Any:
    """``app`` inside what the factory builds around it."""
    global wrapped
    wrapped += 1
    module, _, name = os.environ["STREAMWARE_WRAP"].partition(":")
    return getattr(importlib.import_module(module), name)(app)


def wrap_first_argument(cls: type, accepts: Callable[[Any], bool] = callable) -> None:
    """Have ``cls(app, ...)`` receive the wrapped app. One that ``accepts`` refuses goes in as it is."""
    original = cls.__init__

    @functools.wraps(original)
    def init(self: Any, *args: Any, **options: Any) -> None:
        keyword = next((name for name in ("app", "application") if name in options), None)
        if keyword is not None:
            if accepts(options[keyword]):
                options[keyword] = wrap(options[keyword])
        elif args and accepts(args[0]):
            args = (wrap(args[0]), *args[1:])
        original(self, *args, **options)

    cls.__init__ = init


def optional(name: str) -> Any:
    """The module, or None where the suite's requirements do not bring it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def pytest_configure() -> None:
    if "STREAMWARE_WRAP" not in os.environ:
        return
    testclient = optional("starlette.testclient")
    if testclient is not None:
        # An app of the two-callable ASGI 2 kind is adapted by the client itself; Streamware speaks ASGI 3.
        wrap_first_argument(testclient.TestClient, testclient._is_asgi3)
    for name in ("httpx", "httpx2"):
        transport = getattr(optional(name), "ASGITransport", None)
        if transport is not None:
            wrap_first_argument(transport)
    communicators = optional("asgiref.testing")
    if communicators is not None:
        wrap_first_argument(communicators.ApplicationCommunicator)
    uvicorn = optional("uvicorn")
    if uvicorn is not None:
        load = uvicorn.Config.load

        def load_wrapped(config: Any) -> None:
            load(config)
            config.loaded_app = wrap(config.loaded_app)

        uvicorn.Config.load = load_wrapped


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        outcomes[report.nodeid] = "failed"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        outcomes[report.nodeid] = "failed"
    elif report.when == "call" or report.skipped:
        outcomes.setdefault(report.nodeid, report.outcome)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"asgi_wrap_plugin: {wrapped} apps wrapped")


def pytest_sessionfinish() -> None:
    path = os.environ.get("STREAMWARE_REPORT")
    if path is not None:
        Path(path).write_text(json.dumps({"wrapped": wrapped, "outcomes": outcomes}))
