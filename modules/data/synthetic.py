"""The paper's synthetic text: sentences of ten integers sampled from a random LSTM driven by a 2-d latent."""

from dataclasses import dataclass

import numpy as np

from modules.command import UserError
from modules.files import replacing, write_bytes

PUBLISHED_SEED = 19950927
HELD_OUT = 2_000  # validation sentences, the last of the training file, where a published set comes with none


@dataclass(frozen=True)
class Recipe:
    """The paper's generator: z from a mixture of Gaussians, an LSTM with random weights, a softmax over words."""

    num_sentences: int = 20_000
    length: int = 10  # tokens in a sentence, the uniform first one included
    vocab: int = 1_000  # a word is an integer in [0, vocab)
    embed: int = 100  # size of a word's embedding
    hidden: int = 100  # hidden units of the LSTM
    centres: tuple = ((2, 2), (2, -2), (-2, 2), (-2, -2))  # means of the unit Gaussians z is drawn from
    weight_bound: float = 1.0  # every parameter but B ~ U(-weight_bound, weight_bound)
    latent_bound: float = 5.0  # B, which ties the logits to z, ~ U(-latent_bound, latent_bound)


@dataclass(frozen=True)
class Weights:
    """Parameters of the generating LSTM, float64; the gates are stacked in the order input, forget, cell, output."""

    embedding: np.ndarray  # [vocab, embed]
    input_to_gates: np.ndarray  # [4 * hidden, embed + nz]
    state_to_gates: np.ndarray  # [4 * hidden, hidden]
    gate_bias: np.ndarray  # [4 * hidden]
    latent_to_cell: np.ndarray  # [hidden, nz], W in c0 = W z
    state_to_logits: np.ndarray  # [vocab, hidden], A in logits = A h + B z
    latent_to_logits: np.ndarray  # [vocab, nz], B


def generate(seed=PUBLISHED_SEED, num_sentences=None, recipe=Recipe()):
    """Sample sentences of the synthetic set: an int64 array [num_sentences, recipe.length] of words.

    The first word of a line is uniform, each other one is drawn from the LSTM's softmax given z and those before it.
    The same arguments always give the same array: everything comes from one PCG64 generator, in float64.
    """
    count = recipe.num_sentences if num_sentences is None else num_sentences
    rng, weights = begin(seed, recipe)
    z = draw_latents(rng, count, recipe.centres)  # [count, nz]
    words = np.empty((count, recipe.length), dtype=np.int64)
    words[:, 0] = rng.integers(recipe.vocab, size=count)
    cell = z @ weights.latent_to_cell.T  # [count, hidden]
    state = np.tanh(cell)
    for step in range(1, recipe.length):
        inputs = np.concatenate([weights.embedding[words[:, step - 1]], z], axis=1)
        state, cell = lstm_cell(inputs, state, cell, weights)
        logits = state @ weights.state_to_logits.T  # [count, vocab]
        logits += z @ weights.latent_to_logits.T
        words[:, step] = sample_softmax(logits, rng)
    return words


def begin(seed=PUBLISHED_SEED, recipe=Recipe()):
    """The source of everything random, and what is drawn from it first: the parameters. Returns (rng, Weights)."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng, draw_weights(rng, recipe)


def draw_weights(rng, recipe):
    """Draw all parameters of the generator, in the order of `Weights`' fields."""
    nz, gates = len(recipe.centres[0]), 4 * recipe.hidden

    def uniform(*shape, bound=recipe.weight_bound):
        return rng.uniform(-bound, bound, size=shape)

    return Weights(
        embedding=uniform(recipe.vocab, recipe.embed),
        input_to_gates=uniform(gates, recipe.embed + nz),
        state_to_gates=uniform(gates, recipe.hidden),
        gate_bias=uniform(gates),
        latent_to_cell=uniform(recipe.hidden, nz),
        state_to_logits=uniform(recipe.vocab, recipe.hidden),
        latent_to_logits=uniform(recipe.vocab, nz, bound=recipe.latent_bound),
    )


def draw_latents(rng, count, centres):
    """Draw z [count, nz] from an equal mixture of unit Gaussians at `centres`."""
    centres = np.asarray(centres, dtype=np.float64)
    return centres[rng.integers(len(centres), size=count)] + rng.standard_normal((count, centres.shape[1]))


def lstm_cell(inputs, state, cell, weights):
    """One step of a standard LSTM on inputs [n, embed + nz]; returns the new state and cell, [n, hidden] each."""
    gates = inputs @ weights.input_to_gates.T + state @ weights.state_to_gates.T + weights.gate_bias
    enter, forget, candidate, leave = np.split(gates, 4, axis=1)
    cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(candidate)
    return sigmoid(leave) * np.tanh(cell), cell


def sigmoid(x):
    """The logistic function, through tanh so that no argument overflows."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def sample_softmax(logits, rng):
    """Draw one index per row of `logits` [n, vocab], which it overwrites, from its softmax by the cumulative sum."""
    logits -= logits.max(axis=1, keepdims=True)
    cumulative = np.cumsum(np.exp(logits, out=logits), axis=1, out=logits)
    threshold = rng.random(len(logits)) * cumulative[:, -1]  # [n]
    index = (cumulative <= threshold[:, None]).sum(axis=1)
    return np.minimum(index, logits.shape[1] - 1)  # rounding may carry a threshold to the very end


def write_splits(paths, sizes):
    """Sample the set and write it, a sentence a line, to as many files as there are `sizes`."""
    for path, words in zip(paths, np.split(generate(), np.cumsum(sizes)[:-1])):
        with replacing(path) as temporary:
            np.savetxt(temporary, words, fmt="%d", newline="\n")


def hold_out_validation(train, valid, test):
    """Where a set has no validation file of its own, take it from the end of `train`; UserError if that is short."""
    if valid.exists() and (not test.exists() or valid.read_bytes() != test.read_bytes()):
        return
    lines = train.read_bytes().splitlines(keepends=True) if train.exists() else []
    if len(lines) <= HELD_OUT:
        raise UserError(f"{train.name} has {len(lines):,} lines, too few to hold out {HELD_OUT:,} for validation")
    for path, kept in ((train, lines[:-HELD_OUT]), (valid, lines[-HELD_OUT:])):
        write_bytes(path, b"".join(kept))
    print(f"synthetic: the last {HELD_OUT:,} of {len(lines):,} training lines are now {valid.name}, which it lacked")
