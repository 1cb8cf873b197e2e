"""The rooms of the house: imports point down only, and one module alone imports the global reactor."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "service" / "tracerouted"

#: room -> the rooms it may import from, besides itself
ALLOWED = {
    "model": set(),
    "mtrpacket": {"model"},
    "probing": {"model"},
    "naming": {"model"},
    "jobs": {"model", "probing", "naming", "durations"},
    "durations": set(),
    "settings": {"model", "naming"},
    "listening": {"settings"},
    "descriptors": {"settings"},
    "web": set(),
    "http": {"model", "naming", "jobs", "web", "durations"},
    "client": {"model", "http"},
    "metrics": {"model", "naming", "jobs", "http", "durations", "library"},
}
#: rooms at the top, which put others together
TOP = {"__init__", "__main__", "app", "cli", "library", "twisted_mtr", "terminal"}
#: the room's own modules that are its seam, and others may name for types only
TYPES_ONLY = {"mtrpacket": {"probing"}, "web": {"http"}}


def room(path: Path) -> str:
    """The room a module is in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[str, bool]]:
    """Each room that a module imports from, and whether for type checking only."""
    tree = ast.parse(path.read_text())
    typing_only = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for node in ast.walk(branch)
    }
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = [] if node.level == depth else list(path.relative_to(PACKAGE).parts[: depth - node.level])
        parts = base + (node.module.split(".") if node.module else [])
        for name in [parts[0]] if parts else [alias.name for alias in node.names]:
            yield name, node in typing_only


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    """A module imports from its own room and from those below only."""
    here = room(path)
    if here in TOP:
        return
    for name, typing_only in imported(path):
        allowed = ALLOWED.get(here, {"model"}) | {here}
        if typing_only:
            allowed |= TYPES_ONLY.get(here, set())
        assert name in allowed, f"{path.relative_to(PACKAGE)} imports from {name}"


def test_one_global_reactor() -> None:
    """Only the command line, and the drop-in whose interface has no place for one, import the global reactor."""
    importers = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and node.module == "twisted.internet"
        and any(alias.name == "reactor" for alias in node.names)
    }
    assert {"cli.py"} <= importers
    assert all(name == "cli.py" or name.startswith("twisted_mtr/") for name in importers)
