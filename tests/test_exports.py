"""The public names: those of ``__all__``, those of the reference, and no others."""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import streamware
import streamware.testing

ROOT = Path(__file__).parent.parent
PUBLIC = [streamware, streamware.testing]
#: Of these, what they import of their framework stands in the namespace as well.
INTEGRATIONS = [importlib.import_module(f"streamware.integrations.{name}") for name in ("django", "fastapi")]


def documented(module: ModuleType) -> list[str]:
    """The names in the first column of the tables under the module's heading in ``docs/api.md``."""
    sections = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").split("\n## ")
    (section,) = [text for text in sections if text.startswith(f"`{module.__name__}`\n")]
    return re.findall(r"^\| `(\w+)", section, re.MULTILINE)


@pytest.mark.parametrize("module", [*PUBLIC, *INTEGRATIONS], ids=lambda module: module.__name__)
def test_the_public_names_are_those_of_the_reference(module: ModuleType):
    assert sorted(documented(module)) == sorted(module.__all__)


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_nothing_else_in_the_namespace_looks_public(module: ModuleType):
    assert isinstance(module.__all__, tuple)
    assert len(set(module.__all__)) == len(module.__all__)

    values = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    looking = {name for name, value in values.items() if not inspect.ismodule(value) and name != "annotations"}
    assert looking == {name for name in module.__all__ if not name.startswith("_")}


def test_the_list_is_sorted():
    assert list(streamware.__all__) == sorted(streamware.__all__)


@pytest.mark.parametrize("module", [*PUBLIC, *INTEGRATIONS], ids=lambda module: module.__name__)
def test_every_public_class_and_function_says_what_it_is_for(module: ModuleType):
    silent = []
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
            # A dataclass without a docstring is given its signature for one.
            if not text or text.startswith(f"{name}("):
                silent.append(name)

    assert silent == []


def test_the_version_is_that_of_the_distribution():
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert streamware.__version__ == tomllib.load(file)["project"]["version"]
