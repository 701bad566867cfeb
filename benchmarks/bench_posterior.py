"""Time the mean of p(z|x) on the grid (`modules/evaluation/model_posterior.py`) against the plain way, in turns.

    python benchmarks/bench_posterior.py            # about a minute on two free CPU cores

The plain way gives the decoder every sentence with every grid point, a few sentences at a time, and takes the full
log-probabilities of the vocabulary. The sizes are those of the toy study: 500 sentences of 10 words, z from -20 to 20
in steps of 0.1. Each way computes in a process of its own, which also tells how far its peak of memory grew. Two
decoders: one as training starts, whose posterior is the prior, and one with larger weights, where z matters.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from pathlib import Path

import torch
from torch.nn.functional import log_softmax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.contest import peak_memory
from modules.domains.text_domain import TEXT, build_vae
from modules.evaluation.model_posterior import posterior_mean

VOCABULARY, WORDS = 1004, 10
CONFIG = {"nz": 1, "ni": 50, "enc_nh": 50, "dec_nh": 50, "dec_dropout_in": 0.5, "dec_dropout_out": 0.5}
DECODERS = {"as training starts": 1.0, "weights 50 times as large": 50.0}
PLAIN_CHUNK = 10  # sentences: with all grid points, 180 MB of log-probabilities
TURNS = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=500)
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.sentences} sentences")
    print(f"{'decoder':28}{'':12}{'plain':>10}{'ours':>10}{'ratio':>8}{'differ by':>12}")
    context = multiprocessing.get_context("spawn")
    for name, scale in DECODERS.items():
        means, costs = {}, {plain_mean: [], posterior_mean: []}
        for _ in range(TURNS):
            for way in costs:
                with context.Pool(1) as pool:
                    means[way], *cost = pool.apply(cost_of_mean, (way, scale, args.sentences))
                costs[way].append(cost)
        difference = (means[plain_mean] - means[posterior_mean]).abs().max()
        assert difference < 1e-5, difference
        (plain_seconds, plain_memory), (seconds, memory) = (
            map(statistics.median, zip(*cost)) for cost in costs.values()
        )
        print(
            f"{name:28}{'seconds':12}{plain_seconds:10.2f}{seconds:10.2f}{plain_seconds / seconds:8.2f}"
            f"{difference:12.1e}"
        )
        print(f"{'':28}{'MiB':12}{plain_memory:10.0f}{memory:10.0f}{plain_memory / memory:8.2f}")


def cost_of_mean(way, scale, sentences):
    """(posterior means [sentences, 1], seconds, MiB by which this process's peak of memory grew)"""
    decoder, x, grid = problem(scale, sentences)
    way(decoder, x[:2], grid)  # warm
    before = peak_memory()
    start = time.perf_counter()
    mean = way(decoder, x, grid)
    seconds = time.perf_counter() - start
    return mean, seconds, (peak_memory() - before) / 2**20


def problem(scale, sentences):
    """(decoder, token ids [sentences, WORDS + 2], grid [points, 1])"""
    torch.manual_seed(0)
    decoder = build_vae(TEXT.settings(**CONFIG), range(VOCABULARY)).decoder.eval()
    for parameter in decoder.parameters():
        parameter.data.mul_(scale)
    x = torch.randint(4, VOCABULARY, (sentences, WORDS + 2), dtype=torch.int32)
    x[:, 0], x[:, -1] = 1, 2
    grid = torch.arange(-20, 20, 0.1).unsqueeze(1)
    return decoder, x, grid


@torch.no_grad()
def plain_mean(decoder, x, grid):
    """`posterior_mean` with everything computed."""
    means = []
    for sentences in x.long().split(PLAIN_CHUNK):
        tokens, count = sentences.T, len(sentences)
        embedded = decoder.embed(tokens[:-1]).repeat_interleave(len(grid), dim=1)  # [time - 1, rows, ni]
        z = grid.repeat(count, 1)  # [rows, 1]
        cell = decoder.trans_linear(z).unsqueeze(0)
        source = torch.cat([embedded, z.expand(len(embedded), -1, -1)], dim=2)
        hidden, _ = decoder.lstm(source, (cell.tanh(), cell))
        log_p = log_softmax(decoder.pred_linear(hidden), dim=2)  # [time - 1, rows, vocab]
        targets = tokens[1:].repeat_interleave(len(grid), dim=1).unsqueeze(2)
        log_joint = log_p.gather(2, targets).sum(dim=(0, 2)) - z.squeeze(1).square() / 2
        means.append(torch.softmax(log_joint.view(count, len(grid)), dim=1) @ grid)
    return torch.cat(means)


if __name__ == "__main__":
    main()
