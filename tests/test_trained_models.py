"""The models that come with the repository: they load without any data, and show what collapse is."""

import pytest

import text
from tests.conftest import ROOT

MODELS = ROOT / "models" / "examples"


@pytest.mark.parametrize("name, uses_z", [("plain", False), ("steady", True)])
def test_sentences_of_a_trained_model(call, tmp_path, name, uses_z):
    """Decoded greedily, a model that has lost z writes one sentence, whatever z is."""
    ran = call(text.main, "--dataset", "synthetic", "--decode_from", MODELS / f"synthetic_{name}.pt", cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    sentences = (tmp_path / "samples" / f"synthetic_{name}_greedy.sample").read_text().splitlines()
    assert len(sentences) == 100 and (len(set(sentences)) > 10) == uses_z
    assert uses_z or len(set(sentences)) == 1


def test_they_are_small():
    assert sum(path.stat().st_size for path in MODELS.iterdir()) < 2 * 10**6
