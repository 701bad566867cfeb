"""The random trials of tests/faults, a few of each; `make torture` runs them in earnest."""

import sys

import pytest

from tests.faults import torture

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the trials fork")


@pytest.mark.parametrize("kind, count", [("kill", 2), ("flip", 20), ("input", 40)])
def test_a_few_trials(kind, count, capsys):
    assert torture.run({kind: count}, seed=1) == 0, capsys.readouterr().out
