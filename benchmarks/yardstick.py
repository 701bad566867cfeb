"""Compute the numbers of `KNOWN` in `modules/evaluation/optimum.py` again, in both ways, and compare the two.

    python benchmarks/yardstick.py                      # validation and test, about 25 minutes on one CPU core
    python benchmarks/yardstick.py --sentences 100      # the first 100 of each, about 2 minutes

The published set is sampled anew; nothing is read but the code. `drawn z` is a third estimate of the information, which
needs no posterior: the mean of log p(x|z) - log p(x) at the z that each sentence was drawn with. Standard errors are in
brackets.
"""

import argparse
import hashlib
import math
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from modules.data import synthetic
from modules.data.corpus import TextSplit, read_corpus
from modules.evaluation import optimum

SPLITS = {"train": slice(0, 16_000), "valid": slice(16_000, 18_000), "test": slice(18_000, None)}
BATCH = 40  # sentences: the cells of their grids take some 100 MB
FREEDOM = 4  # degrees of freedom of the Student distributions that z is proposed from
FROM_PRIOR = 4  # one in so many proposals comes from the prior


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, help="only that many of each split")
    parser.add_argument("--splits", nargs="+", choices=("valid", "test"), default=("valid", "test"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe = synthetic.Recipe()
    words, drawn = synthetic.generate(), drawn_latents(recipe)
    fingerprints = identify()
    generator = optimum.Generator(synthetic.begin()[1], recipe.centres)
    for split in args.splits:
        print(f"{split}: file, fingerprint: {', '.join(fingerprints[split])}", flush=True)
        chosen = torch.from_numpy(words[SPLITS[split]][: args.sentences])
        measure(generator, chosen, torch.from_numpy(drawn[SPLITS[split]][: args.sentences]))


def measure(generator, words, drawn):
    """Print a line for every way: -log p(x) and KL(p(z|x) || p(z)), how they differ from the first way's, seconds."""
    ways = {
        "grid": optimum.quadrature,
        "grid, twice the step": lambda *args: optimum.quadrature(*args, step=2 * optimum.STEP),
        "importance sampling": importance,
    }
    first = None
    for way, compute in ways.items():
        start = time.process_time()
        found = torch.cat([torch.stack(compute(generator, batch)) for batch in words.split(BATCH)], dim=1)
        first = found if first is None else first
        (nll, information), differ = (-found[0], found[1]), found - first
        print(
            f"  {way:20}  nll {with_error(nll)}, information {with_error(information)}; differ by"
            f" {' '.join(f'{x:+.5f}' for x in differ.mean(dim=1))}, a sentence"
            f" {' '.join(f'{x:.5f}' for x in differ.abs().mean(dim=1))}, at most"
            f" {' '.join(f'{x:.4f}' for x in differ.abs().amax(dim=1))}; {time.process_time() - start:.0f} s",
            flush=True,
        )
    at_drawn = generator.log_likelihood(words, drawn)
    print(f"  {'drawn z':20}  nll given z {with_error(-at_drawn)}, information {with_error(at_drawn - first[0])}")
    print(f"  {'':20}  that information less the grid's {with_error(at_drawn - first.sum(dim=0))}", flush=True)


def importance(generator, words, draws=640, rounds=3, seed=0):
    """What `quadrature` returns, by importance sampling: z from a Student distribution fitted to p(z|x), or the prior.

    Each round's weighted draws tell the next where p(z|x) lies and how wide it is; the last round's are the estimate.
    """
    random, n = torch.Generator().manual_seed(seed), len(words)
    location, scale = torch.zeros(n, 2, dtype=torch.float64), 2 * torch.eye(2, dtype=torch.float64).repeat(n, 1, 1)
    sentence = torch.arange(n).repeat_interleave(draws)
    for _ in range(rounds):
        z, log_proposal = _propose(generator, location, scale, draws, random)  # [n, draws, 2], [n, draws]
        log_likelihood = generator.log_likelihood(words[sentence], z.flatten(0, 1))
        log_weight = generator.log_prior(z.flatten(0, 1)) - log_proposal.flatten() - math.log(draws)
        share = (log_likelihood + log_weight).view(n, draws).softmax(dim=1)
        location = torch.einsum("nd,ndi->ni", share, z)
        away = z - location[:, None]
        covariance = torch.einsum("nd,ndi,ndj->nij", share, away, away)
        scale = torch.linalg.cholesky(covariance + 1e-3 * torch.eye(2, dtype=torch.float64))
    return optimum.integrals(sentence, log_likelihood, log_weight)


def _propose(generator, location, scale, draws, random):
    """Draws [n, draws, 2] from Student distributions at location [n, 2] with scale [n, 2, 2], some from the prior, and
    the log density [n, draws] of that mixture."""
    n, plain = len(location), draws // FROM_PRIOR
    noise = torch.randn(n, draws, 2 + FREEDOM, dtype=torch.float64, generator=random)
    spread = noise[..., 2:].square().mean(dim=2, keepdim=True).rsqrt()
    z = location[:, None] + (noise[..., :2] * spread) @ scale.mT
    centre = torch.randint(len(generator.centres), (n, plain), generator=random)
    z[:, :plain] = generator.centres[centre] + noise[:, :plain, :2]
    distance = torch.linalg.solve_triangular(scale, (z - location[:, None]).mT, upper=False).square().sum(dim=1)
    student = (
        -(FREEDOM / 2 + 1) * (distance / FREEDOM).log1p()
        - math.log(2 * math.pi)
        - scale.diagonal(dim1=1, dim2=2).log().sum(dim=1, keepdim=True)
    )
    prior = generator.log_prior(z.flatten(0, 1)).view(n, draws)
    return z, torch.logaddexp(prior + math.log(plain / draws), student + math.log(1 - plain / draws))


def with_error(values):
    """The mean and its standard error."""
    return f"{values.mean():.4f} ({values.std() / len(values) ** 0.5:.4f})"


def drawn_latents(recipe):
    """The z that the published sentences were drawn with, [sentences, 2]."""
    return synthetic.draw_latents(synthetic.begin()[0], recipe.num_sentences, recipe.centres)


def identify():
    """{split: (SHA-256 of its file, its fingerprint with the vocabulary of the training file)} of the published set."""
    vocabulary, found = None, {}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{split}.txt") for split in SPLITS]
        synthetic.write_splits(paths, (16_000, 2_000, 2_000))
        for split, path in zip(SPLITS, paths):
            corpus, vocabulary = read_corpus(path, vocabulary)
            found[split] = hashlib.sha256(path.read_bytes()).hexdigest(), TextSplit(corpus, 16).fingerprint
    return found


if __name__ == "__main__":
    main()
