"""What every test shares: the option that turns a skip into a failure, which CI sets; how examples are found: the same
ones in every run of CI, so that a change is judged by what it changed, new ones everywhere else; and that no test's
output has a token in it, nor what Streamware logs meanwhile, at any level."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator

import hypothesis
import pytest

from tests.secrets import Listener, leaked

hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test, or file of tests, is a failure")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be skipped: {reason(report)}"
    # What was logged is looked at below: the identity provider of the tests logs what it issues.
    found = leaked("\n".join(text for title, text in report.sections if " log " not in title))
    if found and report.passed:
        report.outcome = "failed"
        report.longrepr = f"its output holds secrets: {found}"
    return report


@pytest.fixture(autouse=True)
def nothing_secret_is_logged() -> Iterator[None]:
    """Whatever Streamware logs in a test, at any level, holds none of the secrets that tests have used."""
    logger, listener = logging.getLogger("streamware"), Listener()
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.DEBUG)
    yield
    logger.setLevel(level)
    logger.removeHandler(listener)
    assert leaked("\n".join(listener.lines)) == []


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and collector.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be skipped: {reason(report)}"
    return report


def reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
