"""The generator of the synthetic set, against the recipe, torch's LSTM and closed forms."""

import hashlib

import numpy as np
import pytest
import torch

from modules.data import synthetic
from modules.data.synthetic import Recipe, draw_latents, draw_weights, generate, lstm_cell, sample_softmax

SMALL = Recipe(num_sentences=500, length=4, vocab=50, embed=6, hidden=8)


def generator(seed=0):
    """A fresh source of random numbers."""
    return np.random.default_rng(seed)


def test_the_published_set_is_the_same_to_the_byte_everywhere():
    words = generate()
    assert words.shape == (20_000, 10)
    assert hashlib.sha256(words.astype("<i8").tobytes()).hexdigest() == (
        "ebd37f0b601604ce07d2b0902c092412f8f05f8afb7d16dc6058977414aac3ef"
    )


def test_the_seed_decides():
    words = generate(seed=1, recipe=SMALL)
    assert np.array_equal(words, generate(seed=1, recipe=SMALL))
    assert not np.array_equal(words, generate(seed=2, recipe=SMALL))


def test_shape_and_range():
    words = generate(num_sentences=30, recipe=SMALL)
    assert words.shape == (30, 4)
    assert words.dtype == np.int64
    assert words.min() >= 0 and words.max() < 50
    assert generate(recipe=SMALL).shape == (500, 4)


def test_the_first_word_is_uniform_and_the_next_is_not():
    words = generate(num_sentences=20_000, recipe=SMALL)
    expected = 20_000 / 50
    first, second = (((np.bincount(words[:, i], minlength=50) - expected) ** 2 / expected).sum() for i in (0, 1))
    assert first < 49 + 5 * np.sqrt(2 * 49)  # chi squared, 49 degrees of freedom: mean 49, variance 98
    assert second > 1000


def test_the_cell_is_that_of_torch():
    weights = draw_weights(generator(), SMALL)
    cell = torch.nn.LSTMCell(8, 8, dtype=torch.float64)  # 6-d embedding and 2-d z in, 8 hidden units
    with torch.no_grad():
        cell.weight_ih.copy_(torch.from_numpy(weights.input_to_gates))
        cell.weight_hh.copy_(torch.from_numpy(weights.state_to_gates))
        cell.bias_ih.copy_(torch.from_numpy(weights.gate_bias))
        cell.bias_hh.zero_()
    inputs, state, memory = (generator(seed).normal(size=(5, 8)) for seed in (1, 2, 3))
    expected = cell(torch.from_numpy(inputs), (torch.from_numpy(state), torch.from_numpy(memory)))
    found = lstm_cell(inputs, state, memory, weights)
    for ours, theirs in zip(found, expected):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-12, atol=1e-14)


def test_words_are_drawn_by_the_recipe(monkeypatch):
    """The logits of every step, against the formulas of the recipe worked out one sentence at a time with torch."""
    seen, count = [], 3

    def record(logits, rng):
        seen.append(logits.copy())
        return sample_softmax(logits, rng)

    monkeypatch.setattr(synthetic, "sample_softmax", record)
    words = generate(seed=7, num_sentences=count, recipe=SMALL)
    rng = generator(7)
    weights, z = draw_weights(rng, SMALL), draw_latents(rng, count, SMALL.centres)
    cell = torch.nn.LSTMCell(8, 8, dtype=torch.float64)
    parameters = weights.input_to_gates, weights.state_to_gates, weights.gate_bias, np.zeros(32)
    cell.load_state_dict(dict(zip(cell.state_dict(), map(torch.from_numpy, parameters))))
    for sentence in range(count):
        memory = torch.from_numpy(weights.latent_to_cell @ z[sentence])
        state = torch.tanh(memory)
        for step in range(3):
            inputs = torch.from_numpy(np.concatenate([weights.embedding[words[sentence, step]], z[sentence]]))
            state, memory = cell(inputs, (state, memory))
            logits = weights.state_to_logits @ state.detach().numpy() + weights.latent_to_logits @ z[sentence]
            np.testing.assert_allclose(seen[step][sentence], logits, rtol=1e-10, atol=1e-12)


def test_parameters_have_the_bounds_of_the_recipe():
    weights = draw_weights(generator(), Recipe())
    for name, array in vars(weights).items():
        bound = 5 if name == "latent_to_logits" else 1
        assert 0.98 * bound < np.abs(array).max() <= bound, name
        assert abs(array.mean()) < 5 * bound / np.sqrt(3 * array.size), name
    assert weights.latent_to_logits.shape == (1000, 2)
    assert weights.state_to_logits.shape == (1000, 100)
    assert weights.input_to_gates.shape == (400, 102)


def test_latents_are_a_mixture_of_unit_gaussians():
    z = draw_latents(generator(), 40_000, Recipe().centres)
    assert z.shape == (40_000, 2)
    for signs in (1, 1), (1, -1), (-1, 1), (-1, -1):
        quadrant = z[(np.sign(z) == signs).all(axis=1)]
        assert len(quadrant) == pytest.approx(10_000, rel=0.05)
    # per coordinate: an equal mixture of N(2, 1) and N(-2, 1) has mean 0, variance 5 and fourth moment 43
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose((z**2).mean(axis=0), 5, rtol=0.03)
    np.testing.assert_allclose((z**4).mean(axis=0), 43, rtol=0.05)


def test_samples_follow_the_softmax():
    logits = np.array([0.0, 900.0, 899.0, -900.0, 898.5])  # would overflow without care
    expected = torch.softmax(torch.from_numpy(logits), 0).numpy()
    drawn = sample_softmax(np.tile(logits, (50_000, 1)), generator())
    np.testing.assert_allclose(np.bincount(drawn, minlength=5) / 50_000, expected, atol=0.01)


def test_written_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "generate", lambda: np.array([[1, 20, 300], [4, 5, 6], [7, 8, 9]]))
    paths = [tmp_path / "one.txt", tmp_path / "two.txt"]
    synthetic.write_splits(paths, (2, 1))
    assert [path.read_bytes() for path in paths] == [b"1 20 300\n4 5 6\n", b"7 8 9\n"]
