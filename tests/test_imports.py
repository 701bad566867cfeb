"""What CONTRIBUTING.md says of the layout: nothing imports what stands above it, not even inside a function; and what
benchmarks name is there."""

import ast
import importlib

import pytest

from benchmarks import bench_tricks
from tests.conftest import ROOT

LAYERS = [
    *("command", "files", "settings", "checkpoint", "models", "data", "distributed", "methods"),
    *("evaluation", "reports", "training", "domains", "generation", "reproduction"),
]
EXCEPTIONS = {("command", "distributed")}  # the last words of a process, which may be one of a team


def imports(path):
    """What a file of `modules/` imports from it: names of the files or folders in there."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "modules":
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("modules."):
            yield node.module.split(".")[1]


def test_every_layer_imports_from_below():
    found = set()
    for path in (ROOT / "modules").rglob("*.py"):
        ours = path.relative_to(ROOT / "modules").with_suffix("").parts[0]
        found |= {(ours, other) for other in imports(path) if other != ours}
    upward = {(ours, other) for ours, other in found if LAYERS.index(other) >= LAYERS.index(ours)}
    assert upward == EXCEPTIONS and ("training", "methods") in found


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_finds_what_it_measures(path):
    """Their times are no matter of tests, but a name that has moved is."""
    assert importlib.import_module(f"benchmarks.{path.stem}").__doc__


@pytest.mark.parametrize("trick", bench_tricks.TRICKS)
def test_a_trick_can_be_replaced(trick):
    with bench_tricks.TRICKS[trick]:
        pass
