"""Imports point one way, read from the source: what is below never knows what is above."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "streamware"

# From the bottom up. A module may import from its own layer and from those before it.
LAYERS = [
    {"types", "clock", "record", "exceptions", "checks"},
    {"globs", "paths"},
    {"wire"},
    {"observe"},  # stores may count what they do; what counts knows no store
    {"stores"},
    {"streams", "sessions", "auth"},
    {"limiting"},
    {"middleware"},
    {"order", "lifespan", "stack", "preset"},
]
# These may import everything, and nothing that is in a layer may import them. The package itself only re-exports.
ABOVE = {"testing", "integrations", "client", "__init__"}

HEIGHT = {part: height for height, parts in enumerate(LAYERS) for part in parts}
# Within a layer that lists several parts, these are apart from each other.
APART = [{"streams", "auth"}, {"sessions", "auth"}, {"limiting", "auth"}]
MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(module: str) -> str:
    """``streamware.wire.sse`` belongs to ``wire``; the package itself is ``__init__``."""
    return [*module.split("."), "__init__"][1]


def name_of(path: Path) -> str:
    parts = ["streamware", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """The modules of ours that the file at ``path`` imports, wherever in it, for type checkers only as well."""
    package = name_of(path).split(".") if path.name == "__init__.py" else name_of(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if part_of(alias.name) and is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module.split(".") if node.module else [])])
            if is_ours(module):
                # ``from ..wire import headers`` imports a module, ``from ..wire.headers import get`` a name of one.
                yield from (submodule(module, alias.name) for alias in node.names)


def is_ours(module: str) -> bool:
    return module.split(".")[0] == "streamware"


def submodule(module: str, name: str) -> str:
    below = PACKAGE.joinpath(*module.split(".")[1:], name)
    return f"{module}.{name}" if below.with_suffix(".py").exists() or below.is_dir() else module


def stands(importer: str, imported: str) -> bool:
    """Whether the one part may import from the other."""
    if importer == imported or importer in ABOVE:
        return True
    if imported in ABOVE:
        return False
    return HEIGHT[imported] <= HEIGHT[importer] and {importer, imported} not in APART


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_its_own_layer_and_below(path: Path):
    importer = part_of(name_of(path))
    assert importer in HEIGHT.keys() | ABOVE, f"{importer} has no place in LAYERS yet"

    wrong = [imported for imported in imports_of(path) if not stands(importer, part_of(imported))]

    assert wrong == []


@pytest.mark.parametrize("path", sorted((PACKAGE / "middleware").glob("*.py")), ids=name_of)
def test_a_middleware_never_imports_a_sibling(path: Path):
    siblings = {
        imported
        for imported in imports_of(path)
        if part_of(imported) == "middleware" and imported not in (name_of(path), "streamware.middleware.base")
    }

    assert siblings == set()


@pytest.mark.parametrize("path", sorted((PACKAGE / "wire").glob("*.py")), ids=name_of)
def test_the_wire_modules_neither_wait_nor_look_at_a_clock_nor_log(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and not is_conversion(node)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }

    assert not imported & {"asyncio", "time", "logging", "socket", "threading"}


def is_conversion(node: ast.Import | ast.ImportFrom) -> bool:
    """Of ``socket`` what only turns the text of an address into bytes and back may be imported, by name."""
    pure = {"AF_INET", "AF_INET6", "inet_ntop", "inet_pton"}
    return isinstance(node, ast.ImportFrom) and node.module == "socket" and {each.name for each in node.names} <= pure


def test_the_reading_of_imports_sees_every_way_to_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    (tmp_path / "wire").mkdir()
    (tmp_path / "wire" / "sse.py").touch()
    source = tmp_path / "stores" / "base.py"
    source.parent.mkdir()
    source.write_text(
        "import asyncio, streamware.stack\n"
        "from streamware import preset\n"
        "from .. import exceptions\n"
        "from ..wire import sse\n"
        "from ..wire.sse import parse\n"
        "from . import memory\n"
        "def late():\n"
        "    from ..streams.reader import Reader\n",
        encoding="utf-8",
    )

    assert [*imports_of(source)] == [
        *["streamware.stack", "streamware", "streamware", "streamware.wire.sse", "streamware.wire.sse"],
        *["streamware.stores", "streamware.streams.reader"],
    ]


@pytest.mark.parametrize(
    ("importer", "imported", "right"),
    [
        ("wire", "exceptions", True),
        ("exceptions", "wire", False),
        ("stores", "observe", True),
        ("observe", "stores", False),
        ("streams", "auth", False),
        ("streams", "stores", True),
        ("limiting", "stores", True),
        ("limiting", "auth", False),
        ("streams", "limiting", False),
        ("middleware", "stack", False),
        ("stack", "middleware", True),
        ("testing", "stack", True),
        ("stack", "testing", False),
        ("wire", "__init__", False),
    ],
)
def test_the_rule_is_the_designs(importer: str, imported: str, right: bool):
    assert stands(importer, imported) is right
