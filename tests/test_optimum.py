"""The optimum of the synthetic set: against brute force, one way against the other, and where it is reported."""

import itertools
import json

import numpy as np
import pytest
import torch

from benchmarks import yardstick
from benchmarks.yardstick import importance
from modules.data import synthetic
from modules.evaluation import optimum
from modules.evaluation.optimum import Generator, Optimum, quadrature
from modules.reports.log_reader import read_events, summarise
from modules.training import run
from modules.training.records import Records, lines_of
from modules.training.run_files import RunFiles

TINY = synthetic.Recipe(length=3, vocab=4, embed=3, hidden=5)
TEST = yardstick.SPLITS["test"]
FIGURES = {"nll": 28.5, "standard_error": 0.25, "information": 4.0}


@pytest.fixture(scope="module")
def tiny():
    """(weights, generator in float64) of the tiny recipe."""
    weights = synthetic.begin(seed=3, recipe=TINY)[1]
    return weights, Generator(weights, TINY.centres, torch.float64)


@pytest.fixture(scope="module")
def published():
    """(all words, the z of the test split, the generator in float32) of the published set."""
    recipe = synthetic.Recipe()
    z = torch.from_numpy(yardstick.drawn_latents(recipe)[TEST])
    return synthetic.generate(), z, Generator(synthetic.begin()[1], recipe.centres)


def sentence_log_likelihood(weights, words, z):
    """log p(x|z) of one sentence and many z [n, 2], with the code that the sentences were drawn with."""
    cell = z @ weights.latent_to_cell.T
    state, total = np.tanh(cell), -np.log(len(weights.embedding))
    for word, following in zip(words, words[1:]):
        inputs = np.concatenate([np.tile(weights.embedding[word], (len(z), 1)), z], axis=1)
        state, cell = synthetic.lstm_cell(inputs, state, cell, weights)
        probabilities = np.exp(state @ weights.state_to_logits.T + z @ weights.latent_to_logits.T)
        total = total + np.log(probabilities[:, following] / probabilities.sum(axis=1))
    return total


def brute_force(weights, words):
    """(log p(x), KL(p(z|x) || p(z))) of one sentence: the definitions, on a fine and wide even grid."""
    axis = np.arange(-9, 9, 0.04)
    z = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    prior = np.mean([np.exp(-0.5 * ((z - centre) ** 2).sum(axis=1)) for centre in TINY.centres], axis=0) / (2 * np.pi)
    assert prior.sum() * 0.04**2 == pytest.approx(1)
    likelihood = np.exp(sentence_log_likelihood(weights, words, z))
    evidence = (likelihood * prior).sum() * 0.04**2
    posterior = likelihood * prior / evidence
    return np.log(evidence), (posterior * np.log(posterior / prior)).sum() * 0.04**2


@pytest.mark.parametrize("length", [1, 2, 3])
def test_brute_force(tiny, length):
    weights, generator = tiny
    words = np.array([[0, 3, 1], [2, 2, 0], [1, 0, 3]])[:, :length]
    expected = np.array([brute_force(weights, sentence) for sentence in words]).T
    found = torch.stack(quadrature(generator, torch.from_numpy(words)))
    np.testing.assert_allclose(found, expected, atol=2e-4)  # the cells left out
    sampled = torch.stack(importance(generator, torch.from_numpy(words), draws=8000))
    np.testing.assert_allclose(sampled, expected, atol=0.05)
    if length == 1:  # a uniform first word tells nothing of z
        np.testing.assert_allclose(found, [[-np.log(4)] * 3, [0] * 3], atol=2e-4)


def test_the_probabilities_of_all_sentences_sum_to_one(tiny):
    words = torch.tensor(list(itertools.product(range(4), repeat=3)))
    log_evidence, information = quadrature(tiny[1], words, step=1 / 8)
    assert float(log_evidence.exp().sum()) == pytest.approx(1, abs=2e-4)
    assert (information > 0).all()


def test_log_likelihood_is_that_of_the_code_that_draws(published):
    words, z, generator = published
    words, z, weights = words[TEST][:30], z[:30], synthetic.begin()[1]
    expected = [sentence_log_likelihood(weights, sentence, at[None]).item() for sentence, at in zip(words, z.numpy())]
    np.testing.assert_allclose(generator.log_likelihood(torch.from_numpy(words), z), expected, atol=1e-4)


def test_the_two_ways_agree(published):
    words, _, generator = published
    words = torch.from_numpy(words[TEST][:24])
    coarser = torch.stack(quadrature(generator, words, 2 * optimum.STEP))
    finer = torch.stack(quadrature(generator, words[:8]))
    np.testing.assert_allclose(coarser[:, :8].mean(dim=1), finer.mean(dim=1), atol=0.004)
    sampled = torch.stack(importance(generator, words)) - coarser
    # by sampling, one sentence's figures have standard deviations of about 0.03 and 0.05
    assert (sampled.mean(dim=1).abs() < 0.03).all() and (sampled.abs() < 0.3).all()
    (best,) = optimum.KNOWN.values()
    known = torch.tensor([-best.nll, best.information])
    assert ((coarser.mean(dim=1) - known).abs() < 3 * coarser.std(dim=1) / len(words) ** 0.5).all()


def test_known_is_the_published_test_file(published):
    words, z, generator = published
    fingerprints = yardstick.identify()
    best = optimum.KNOWN[fingerprints["test"][1]]
    assert fingerprints["test"][0].startswith("98b49825f2a41250")  # the file's SHA-256, as docs/optimum.md has it
    at_drawn = generator.log_likelihood(torch.from_numpy(words[TEST]), z)
    # E[log p(x|z)] over x and z is the information less the entropy: no integral over z
    error = float(at_drawn.std()) / len(z) ** 0.5
    assert abs(float(at_drawn.mean()) - (best.information - best.nll)) < 3 * error


def test_reported_where_it_is_known(tmp_path, monkeypatch):
    class Split:
        unit, fingerprint = "word", "that of the known"

    class Measured:
        mi_agg, size, units = 1.0, 1, 11

        @staticmethod
        def as_dict():
            return {
                "loss": 36.5,
                "reconstruction": 35.0,
                "kl": 1.5,
                "mi": 0.9,
                "mi_agg": 1.0,
                "kl_agg": 0.5,
                "active_units": 2,
                "units": 11,
                "size": 1,
            }

    class Settings:
        seed = iw_nsamples = iw_batch = 1

    monkeypatch.setattr(run.metrics, "evaluate", lambda *args: Measured)
    monkeypatch.setattr(run.metrics, "importance_weighted_nll", lambda *args: 36.25)
    monkeypatch.setattr(optimum, "KNOWN", {Split.fingerprint: Optimum(**FIGURES)})
    files = RunFiles("set", "known", tmp_path)
    run.test(None, Split, Settings, Records(files, words=True))
    events = read_events(files.log())
    assert events[-1] == {"event": "optimum", **FIGURES, "gap": 7.75, "mi_agg": 1.0, "share": 0.25}
    line = "optimum: 28.5000 nats; 7.7500 above it; information 4.0000, of which mi_agg has 25%"
    assert files.log(".log").read_text().splitlines()[-1] == line
    assert summarise(events)["nll"] == 36.25

    Split.fingerprint = "another"
    files = RunFiles("set", "other", tmp_path)
    run.test(None, Split, Settings, Records(files, words=True))
    assert "optimum" not in files.log(".log").read_text() + files.log().read_text()


def test_no_minus_zero_percent():
    event = {"event": "optimum", **FIGURES, "gap": 1.0, "mi_agg": -1e-7, "share": -1e-8}
    assert lines_of(json.loads(json.dumps(event)), words=True)[0].endswith("has 0%")
