"""The best that any model can do on the synthetic set: its generator is known, so p(x) and p(z|x) are too.

A sentence costs -log p(x), p(x) the integral of p(x|z) p(z) over the two dimensions of z, with the weights that the
sentences were drawn with and the mixture of Gaussians that z was drawn from. The first word is uniform; `</s>`, which a
model has to predict as well, follows the last word with certainty and costs nothing. No model, with or without z, can
have a lower expected NLL than the mean of -log p(x), the entropy of the sentences. The mean of KL(p(z|x) || p(z)), p(z)
that mixture, is the true mutual information I(x, z). Everything is in nats per sentence. `benchmarks/yardstick.py`
computes the same by importance sampling.
"""

import math
from dataclasses import asdict, dataclass

import torch

from modules.models.gaussian import log_mixture_density
from modules.models.layers.lstm_cell import lstm_cell

ROWS = 512  # pairs of a sentence and a z at a time: their logits stay in the processor's cache
REACH = 7.0  # the grid covers [-REACH, REACH] squared, five standard deviations beyond the outer centres
COARSE = 0.5  # its first step, halved where there is mass
STEP = 1 / 16  # its last step
NEGLIGIBLE = 10.0  # nats below a sentence's best cell: what lies beyond has 5e-5 of a Gaussian's mass
UNSURE = 20.0  # nats per unit of a cell's side by which its centre may mislead


@dataclass(frozen=True)
class Optimum:
    """Means over a split, in nats per sentence."""

    nll: float  # -log p(x): the entropy of the sentences
    standard_error: float  # of that mean
    information: float  # KL(p(z|x) || p(z)), whose expectation is I(x, z)

    def compare(self, nll, mi_agg):
        """The optimum, how far above it a model's NLL is (nats), and its aggregate MI as a share of the information."""
        return {**asdict(self), "gap": nll - self.nll, "mi_agg": mi_agg, "share": mi_agg / self.information}


KNOWN = {  # the published test file's, by `TextSplit.fingerprint`; benchmarks/yardstick.py computes it again
    "56a4e1a6d3184434b555e53cc98b905159bae5d960c1568ac0bf4fe189fb65d8": Optimum(28.966722, 0.182778, 4.112195),
}


class Generator:
    """p(x|z) and p(z) of the synthetic set, from its `Weights` and the centres of its mixture [n, 2]."""

    def __init__(self, weights, centres, dtype=torch.float32):
        w = {name: torch.from_numpy(array) for name, array in vars(weights).items()}
        from_embedding, from_latent = w["input_to_gates"].split([w["embedding"].size(1), 2], dim=1)
        word_gates = w["embedding"] @ from_embedding.T + w["gate_bias"]  # [vocab, 4 hidden]
        to_logits = torch.cat([w["state_to_logits"], w["latent_to_logits"]], dim=1)  # [vocab, hidden + 2]
        self.parameters = [
            p.to(dtype) for p in (word_gates, from_latent, w["state_to_gates"], w["latent_to_cell"], to_logits)
        ]
        self.centres, self.dtype = torch.tensor(centres, dtype=torch.float64), dtype

    def log_prior(self, z):
        """log p(z): [rows, 2] -> float64 [rows]."""
        return log_mixture_density(z, self.centres, torch.zeros_like(self.centres))

    def log_likelihood(self, words, z):
        """log p(x|z) of pairs: words int64 [rows, length], z [rows, 2] -> float64 [rows]."""
        parts = zip(words.split(ROWS), z.to(self.dtype).split(ROWS))
        return torch.cat([self._log_likelihood(*part) for part in parts])

    def _log_likelihood(self, words, z):
        word_gates, from_latent, from_state, to_cell, to_logits = self.parameters
        cell, latent_gates = z @ to_cell.T, z @ from_latent.T  # [rows, (4) hidden]
        state = cell.tanh()
        total = torch.full((len(z),), -math.log(len(to_logits)), dtype=torch.float64)  # the first word is uniform
        for word, following in zip(words.T, words.T[1:]):
            gates = torch.addmm(word_gates[word] + latent_gates, state, from_state.T)
            state, cell = lstm_cell(gates, cell)
            logits = torch.cat([state, z], dim=1) @ to_logits.T  # [rows, vocab]
            total += logits.gather(1, following[:, None]).squeeze(1) - logits.logsumexp(dim=1)
        return total


def quadrature(generator, words, step=STEP):
    """(log p(x), KL(p(z|x) || p(z))), float64 [n] each, of words [n, length], by the midpoint rule on a grid.

    Cells that hold mass are cut in four until their sides are `step`; the others are left out.
    """
    size = COARSE
    axis = torch.arange(-REACH + size / 2, REACH, size, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    quarters = torch.cartesian_prod(*[torch.tensor([-0.25, 0.25], dtype=torch.float64)] * 2)
    sentence, z = torch.arange(len(words)).repeat_interleave(len(grid)), grid.repeat(len(words), 1)  # [cells]
    while True:
        log_likelihood = generator.log_likelihood(words[sentence], z)
        log_weight = generator.log_prior(z) + 2 * math.log(size)
        if size <= step:
            return integrals(sentence, log_likelihood, log_weight)
        joint = log_likelihood + log_weight
        kept = joint > _largest(sentence, joint)[sentence] - NEGLIGIBLE - UNSURE * size
        sentence, z = sentence[kept].repeat_interleave(4), (z[kept, None] + size * quarters).flatten(0, 1)
        size /= 2


def integrals(sentence, log_likelihood, log_weight):
    """(log p(x), KL(p(z|x) || p(z))) [n] each from points: which sentence each is for, in order, its log p(x|z), and
    the log of p(z) dz there, all [points]; the KL is E[log p(x|z)] - log p(x) under p(z|x)."""
    joint = log_likelihood + log_weight
    largest = _largest(sentence, joint)
    mass = (joint - largest[sentence]).exp()
    total = torch.zeros_like(largest).index_add(0, sentence, mass)
    log_evidence = largest + total.log()
    return log_evidence, torch.zeros_like(total).index_add(0, sentence, mass * log_likelihood) / total - log_evidence


def _largest(sentence, values):
    """The largest value of each sentence: [points] -> [n]."""
    start = torch.full((int(sentence.max()) + 1,), -math.inf, dtype=values.dtype)
    return start.scatter_reduce(0, sentence, values, "amax")
