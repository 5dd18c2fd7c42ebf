"""The public names to a type checker: what people write is accepted, what cannot work is found at the call."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "tests" / "typing").glob("*.py"))


def marked() -> set[tuple[str, int]]:
    """The lines that say that they are wrong."""
    return {
        (path.name, number)
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if line.endswith("# error")
    }


def run(module: str, *arguments: str) -> str:
    """The output of a type checker; whether it is content is told by what it finds, not by its exit code."""
    command = [sys.executable, "-m", module, *arguments, *map(str, FILES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # more says that it could not check
    return done.stdout


@pytest.mark.timeout(300)
def test_mypy_finds_the_mistakes_and_nothing_else():
    output = run("mypy", "--strict", "--no-error-summary", "--hide-error-context")

    found = re.findall(r"([^/\n]+\.py):(\d+): error: ", output)
    assert {(name, int(line)) for name, line in found} == marked(), output


@pytest.mark.timeout(300)
def test_pyright_finds_the_mistakes_and_nothing_else():
    output = run("pyright", "--outputjson")

    found = [finding for finding in json.loads(output)["generalDiagnostics"] if finding["severity"] == "error"]
    lines = {(Path(finding["file"]).name, finding["range"]["start"]["line"] + 1) for finding in found}
    assert lines == marked(), json.dumps(found, indent=1)


def test_both_files_are_there_to_be_checked():
    assert [path.name for path in FILES] == ["accepted.py", "refused.py"]
    assert len(marked()) > 10
