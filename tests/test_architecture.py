"""Imports between packages run downwards only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import omicvae

ROOT = Path(omicvae.__file__).parent
BELOW: dict[str, set[str]] = {
    "stats": set(),
    "datasets": {"stats"},
    "data": {"stats"},
    "nn": {"stats"},
    "module": {"data", "nn", "stats"},
    "train": {"data", "module", "nn", "stats"},
    "model": {"data", "module", "nn", "stats", "train"},
    "metrics": {"data", "model", "module", "nn", "stats"},
    "tl": {"data", "model", "module", "nn", "stats"},
    "pl": {"data", "model", "stats", "tl"},
    "report": {"data", "model", "pl", "tl"},
    "cli": {"_demo", "data", "model", "pl", "tl"},
}


def imported(path: Path) -> set[str]:
    """Packages of omicvae that a file imports, inside functions too; imports for type checking alone are left out."""
    found = set()
    tree = ast.parse(path.read_text())
    guarded = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("omicvae."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("omicvae.")}
    return found


@pytest.mark.parametrize("package", BELOW)
def test_a_package_imports_only_what_is_below_it(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert imported(path) <= BELOW[package] | {package}, path.name


def test_every_package_is_accounted_for():
    packages = {p.name for p in ROOT.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    assert packages == set(BELOW)
