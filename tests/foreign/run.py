"""Runs other projects' test suites twice, bare and with every app wrapped, and compares which tests fail.

    make test-foreign                               all of them; the same as: python tests/foreign/run.py
    python tests/foreign/run.py channels fastapi    some of them
    python tests/foreign/run.py --factory wrapping:wrap_always channels

A test that fails only where its app is wrapped is a fault of Streamware; one that fails both times is its own affair
(as root, for example, a file without permissions is readable). See README.md beside this file.

Everything is kept in .foreign/ of the checkout: a virtual environment, the sources as downloaded, and one copy of each
suite with the package's own folder taken out, so that the installed one is what is tested.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".foreign"
PYTHON = CACHE / "venv" / "bin" / "python"
REPORTS = CACHE / "reports"

#: Longest that one test may take, and one suite, in seconds; a hang is a failure like any other.
TEST_TIMEOUT = 60
SUITE_TIMEOUT = 480


@dataclass(frozen=True)
class Suite:
    """``requirement``: whose source distribution holds the tests; None where none does, and a checkout of them has to
    be given in ``.foreign/given/{name}``. ``package``: the folder to take out of the copy. ``arguments``: of pytest,
    and ``tests`` the paths to run."""

    name: str
    requirement: str | None
    package: str
    arguments: tuple[str, ...]
    tests: tuple[str, ...] = ("tests",)

    @property
    def label(self) -> str:
        return self.requirement.replace("==", " ") if self.requirement else self.name.replace("-", " ")

    @property
    def given(self) -> Path:
        """Where a checkout is looked for."""
        return CACHE / "given" / self.name

    @property
    def can_be_had(self) -> bool:
        return self.requirement is not None or self.given.is_dir()

    def copy(self, kind: str) -> Path:
        """Where the ``bare`` or ``wrapped`` run finds its files: apart, for some tests write into them."""
        return CACHE / kind / self.name


TUTORIAL = "test_tutorial/test_"
FASTAPI_TESTS = (
    *("test_sse.py", "test_stream*.py", "test_ws_*.py", "test_security_websockets.py", "test_depend*.py"),
    *("test_async_dependency_cleanup.py", "test_router_events.py", "test_application.py"),
    *("test_custom_middleware_exception.py", "test_exception_handlers.py", "test_request_body_limits.py"),
    *(TUTORIAL + "server_sent_events", TUTORIAL + "stream_data", TUTORIAL + "stream_json_lines"),
    *(TUTORIAL + "websockets", TUTORIAL + "dependencies", TUTORIAL + "events", TUTORIAL + "custom_response"),
    *(TUTORIAL + "middleware", TUTORIAL + "background_tasks"),
)
SUITES = (
    Suite("starlette", "starlette==1.10.0", "starlette", ("-p", "no:django", "-p", "no:asyncio")),
    # Its own settings ask for plugins that these tests do not need.
    Suite(
        "fastapi",
        "fastapi==0.165.0",
        "fastapi",
        ("-p", "no:django", "-p", "no:asyncio", "-c", "empty.ini"),
        tuple(f"tests/{path}" for path in FASTAPI_TESTS),
    ),
    # The last release whose source distribution has the tests whole; what is tested is the installed 3.7.0.
    Suite("sse-starlette", "sse-starlette==3.4.5", "sse_starlette", ("-p", "no:django", "-o", "asyncio_mode=auto")),
    # Its source distribution has no tests: run where a checkout of its tag is given, see README.md.
    Suite(
        "channels-4.3.2",
        None,
        "channels",
        ("-c", "empty.ini", "-o", "asyncio_mode=auto", "--ignore=tests/sample_project"),
    ),
)


@dataclass
class Run:
    """One suite, bare or wrapped."""

    outcomes: dict[str, str] = field(default_factory=dict)
    wrapped: int = 0
    seconds: float = 0.0
    tail: str = ""

    def count(self, outcome: str) -> int:
        return sum(each == outcome for each in self.outcomes.values())

    @property
    def failures(self) -> set[str]:
        return {test for test, outcome in self.outcomes.items() if outcome == "failed"}


def set_up() -> None:
    """The virtual environment, made anew when the requirements have changed, and a way to ``streamware`` itself."""
    requirements = HERE / "requirements.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    stamp = CACHE / "venv" / "stamp"
    if not stamp.exists() or stamp.read_text() != digest:
        print("setting up .foreign/venv", flush=True)
        venv.create(CACHE / "venv", with_pip=True, clear=True)
        pip("install", "-r", str(requirements))
        stamp.write_text(digest)
    link = CACHE / "path" / "streamware"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(ROOT / "streamware", target_is_directory=True)


def pip(*arguments: str) -> None:
    command = [str(PYTHON), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"pip {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def lay_out(suite: Suite) -> None:
    """Fresh copies of the suite without the package that it tests."""
    if suite.requirement is None:
        source = suite.given
    else:
        with tarfile.open(source_of(suite.requirement)) as archive:
            archive.extractall(CACHE / "unpacked", filter="data")
            source = CACHE / "unpacked" / archive.getnames()[0].split("/")[0]
    for kind in ("bare", "wrapped"):
        copy = suite.copy(kind)
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy)
        shutil.rmtree(copy / suite.package, ignore_errors=True)
        (copy / "empty.ini").write_text("[pytest]\n")


def source_of(requirement: str) -> Path:
    """The source distribution, downloaded at most once."""
    name, version = requirement.split("==")
    sources = CACHE / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    pattern = f"{name.replace('-', '?')}-{version}.tar.gz"
    if not any(sources.glob(pattern)):
        print(f"downloading the source of {requirement}", flush=True)
        pip("download", "--no-deps", "--no-binary", name, "--dest", str(sources), requirement)
    return next(sources.glob(pattern))


def run(suite: Suite, factory: str | None) -> Run:
    """One run of pytest in the suite's copy; ``factory`` wraps its apps, None leaves them bare."""
    kind = "wrapped" if factory else "bare"
    copy = suite.copy(kind)
    report = REPORTS / f"{suite.name}-{kind}.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("STREAMWARE_", "PYTEST_"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), str(CACHE / "path")])
    environment["STREAMWARE_REPORT"] = str(report)
    if factory:
        environment["STREAMWARE_WRAP"] = factory
    tests = [str(path.relative_to(copy)) for pattern in suite.tests for path in sorted(copy.glob(pattern))]
    command = [str(PYTHON), "-m", "pytest", "-q", "--tb=short", "--rootdir=.", f"--timeout={TEST_TIMEOUT}"]
    command += ["-p", "asgi_wrap_plugin", "-p", "no:cacheprovider", *suite.arguments, *tests]
    started = time.monotonic()
    with report.with_suffix(".log").open("w+") as log:
        try:
            subprocess.run(
                command, cwd=copy, env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=SUITE_TIMEOUT
            )
        except subprocess.TimeoutExpired:
            log.write(f"\ngiven up after {SUITE_TIMEOUT} s\n")
        log.seek(0)
        tail = "".join(log.readlines()[-15:])
    found = json.loads(report.read_text()) if report.exists() else {"outcomes": {}, "wrapped": 0}
    return Run(found["outcomes"], found["wrapped"], time.monotonic() - started, tail)


def compare(suite: Suite, bare: Run, wrapped: Run) -> list[str]:
    """What speaks against the wrapped run: one line each."""
    if not bare.outcomes or not wrapped.outcomes:
        return [f"{suite.label}: a run has no results\n{(wrapped if bare.outcomes else bare).tail}"]
    complaints = [f"{suite.label}: fails only wrapped: {test}" for test in sorted(wrapped.failures - bare.failures)]
    missing = bare.outcomes.keys() - wrapped.outcomes.keys()
    complaints += [f"{suite.label}: not run wrapped: {test}" for test in sorted(missing)]
    if wrapped.wrapped == 0:
        complaints.append(f"{suite.label}: no app was wrapped, so the run shows nothing")
    return complaints


def print_some(lines: list[str], most: int = 40) -> None:
    print(*lines[:most], sep="\n", end="\n" if lines else "")
    if len(lines) > most:
        print(f"and {len(lines) - most} more: see {REPORTS.relative_to(ROOT)}/")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(suite.name for suite in SUITES)}; default all")
    parser.add_argument("--factory", default="wrapping:wrap", help="module:function that wraps an app")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    options = parser.parse_args()
    chosen = [suite for suite in SUITES if not options.suites or suite.name.startswith(tuple(options.suites))]
    if not chosen:
        parser.error(f"no such suite: {' '.join(options.suites)}")
    for suite in chosen:
        if not suite.can_be_had:
            print(f"{suite.label}: no checkout in {suite.given.relative_to(ROOT)}, not run")
    chosen = [suite for suite in chosen if suite.can_be_had]

    set_up()
    for suite in chosen:
        lay_out(suite)
    with ThreadPoolExecutor(options.jobs) as pool:
        # Bare and wrapped side by side, so that both see the same weather.
        pairs = [(suite, pool.submit(run, suite, None), pool.submit(run, suite, options.factory)) for suite in chosen]
        results = [(suite, bare.result(), wrapped.result()) for suite, bare, wrapped in pairs]

    row = "{:<22}{:>12}{:>16}{:>16}{:>13}{:>9}"
    print(row.format("suite", "wrapped apps", "bare pass/fail", "wrapped", "only wrapped", "seconds"))
    passed = failed = 0
    complaints: list[str] = []
    for suite, bare, wrapped in results:
        worse = compare(suite, bare, wrapped)
        complaints += worse
        failed += len(worse)
        passed += len(bare.outcomes.keys() & wrapped.outcomes.keys()) - len(wrapped.failures - bare.failures)
        counts = [f"{each.count('passed')}/{each.count('failed')}" for each in (bare, wrapped)]
        seconds = f"{bare.seconds:.0f}+{wrapped.seconds:.0f}"
        print(row.format(suite.label, wrapped.wrapped, *counts, len(worse), seconds))
    print_some(complaints)
    print_some(
        [f"{suite.label}: fails bare already: {each}" for suite, bare, _ in results for each in sorted(bare.failures)]
    )
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
