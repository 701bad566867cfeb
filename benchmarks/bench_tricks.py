"""Time each trick for speed alone: the code as it is against the code with that one trick replaced by the plain way.

    python benchmarks/bench_tricks.py                              # everything: some 20 minutes on two free CPU cores
    python benchmarks/bench_tricks.py --only ptb "image: inner" --seconds 40

In each table all ways take turns in one process, as in `bench_text.py`, until `--seconds` are over; "gain" is the share
of the plain way's time that the trick saves, of the fastest turn of each. With OMP_NUM_THREADS=1 it is the processor's
time that counts, so that other programs matter less; one line times the code as it is again, to show what is noise.
Sizes and data are those of the other benchmarks. As in the commands, freed memory is kept; what that gives needs
processes of its own: `bench_memory.py`. Results, and what was tried and went, are in docs/speed.md.
"""

import argparse
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import bench_decoding, bench_image, bench_posterior, bench_text, contest
from modules.data.corpus import TextSplit
from modules.domains import text_domain
from modules.evaluation import metrics, model_posterior
from modules.generation import search
from modules.methods import semi_amortised
from modules.models.decoders import lstm_decoder, pixelcnn, pixelcnn_sampler
from modules.models.gaussian import log_density
from modules.models.layers import convolution, dropout, vocabulary_softmax
from modules.training import algorithm
from modules.training.memory import keep_freed_memory

AGAIN = "nothing (what is noise)"
ENDLESS = 2**62  # in place of a number of rows at a time
VALIDATION = {"toy": 1000, "ptb": 3370, "image": 1345}  # sentences or images of the splits


# ---------------------------------------------------------------------- the plain ways


def plain_nll(hidden, weight, targets, dtype=torch.float32):
    return F.cross_entropy((hidden.to(dtype) @ weight.to(dtype).T).to(hidden.dtype), targets, reduction="none")


def plain_optimiser(algorithm1, name, parameters, lr):
    if name == "adam":
        return torch.optim.Adam(parameters, lr=lr)
    return torch.optim.SGD(parameters, lr=lr, momentum=algorithm1.s.momentum)


def plain_mixture(z, mean, logvar, chunk=64, largest=None):
    mean, logvar = mean.double(), logvar.double()
    return (
        torch.cat(
            [torch.logsumexp(log_density(part.double().unsqueeze(1), mean, logvar), dim=1) for part in z.split(chunk)]
        )
        - torch.tensor(float(len(mean))).log()
    )


@torch.no_grad()
def plain_sample(decoder, z, uniform):
    """The first of the passes of the whole network, one for each pixel."""
    return decoder.logits(z.new_zeros(len(z), 1, *decoder.planes[1:]), z)[:, 0, 0, 0].sigmoid() > uniform[0]


@torch.no_grad()
def posterior_by_reconstruction(decoder, x, grid):
    """Every word of every sentence and grid point, by the decoder's own method."""
    return torch.cat(
        [
            F.softmax(
                model_posterior.log_standard_normal(grid)
                - decoder.reconstruction(part, grid.expand(len(part), -1, -1)),
                dim=1,
            )
            @ grid
            for part in x.split(20)
        ]
    )


@torch.no_grad()
def posterior_without_floor(decoder, x, grid):
    return F.softmax(model_posterior._log_joint(decoder, x, grid), dim=1) @ grid


TRICKS = {
    "vocabulary softmax in one": patch.object(lstm_decoder, "token_nll", plain_nll),
    "vocabulary softmax in parts": patch.object(vocabulary_softmax, "CHUNK", ENDLESS),
    "dropout of 16 bits": patch.object(dropout.Dropout, "forward", lambda self, x: F.dropout(x, self.p, self.training)),
    "fused optimisers": patch.object(algorithm.Algorithm1, "_optimiser", plain_optimiser),
    "hidden rows left out": patch.multiple(
        pixelcnn.MaskedConvolution,
        kernel=lambda self: self.weight * self.mask,
        convolve=convolution.Convolution.convolve,
    ),
    "batch norm folded": patch.object(convolution.Convolution, "normalised", lambda self, x, norm: norm(self(x))),
    "channels last": patch.object(torch, "channels_last", torch.contiguous_format),
    "images in parts": patch.object(pixelcnn, "CHUNK", ENDLESS),
    "a cache (plain: one of 784 pixels)": patch.object(pixelcnn_sampler, "sample", plain_sample),
    "mixture by a product": patch.object(metrics, "log_mixture_density", plain_mixture),
    "SVI's decoder frozen": patch.object(semi_amortised, "_frozen", lambda decoder: nullcontext()),
    "logits in blocks": patch.object(search, "LOGITS", ENDLESS),
    "all of them: by reconstruction": patch.object(model_posterior, "posterior_mean", posterior_by_reconstruction),
    "negligible points dropped": patch.object(model_posterior, "posterior_mean", posterior_without_floor),
    "no search for the maximum": patch.object(model_posterior, "SAFE_EXPONENT", -1),
    "logits in parts": patch.object(model_posterior, "CHUNK", ENDLESS),
}
TEXT = ["vocabulary softmax in one", "dropout of 16 bits", "fused optimisers"]
GRID = ["all of them: by reconstruction", "negligible points dropped", "no search for the maximum", "logits in parts"]
IMAGE = ["hidden rows left out", "channels last", "fused optimisers"]


# ---------------------------------------------------------------------- what is timed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[""], help="tables whose names begin so, such as image: inner")
    parser.add_argument("--seconds", type=float, default=30, help="for each table, two turns at least")
    args = parser.parse_args()
    keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name, tables in TABLES.items():
        for title, tricks, build in tables():
            title = f"{name}: {title}"
            if title.startswith(tuple(args.only)):
                compare(title, tricks, build, args.seconds)


def compare(title, tricks, build, seconds):
    """Print what each of the tricks saves of what build() gives, which runs as run(count)."""
    runs = {name: under(TRICKS.get(name, nullcontext()), build) for name in ["", *tricks, AGAIN]}
    times = contest.take_turns(runs, seconds, contest.fair_clock(), typical=min)
    ours = times.pop("")
    print(f"\n{f'{title}: {1e3 * ours:.2f} ms':50}{'plain ms':>10}{'gain':>8}")
    for name, plain in times.items():
        print(f"{name:50}{1e3 * plain:10.2f}{1 - ours / plain:8.1%}", flush=True)


def under(change, build):
    """What build() gives, built and run under the context manager `change`."""
    with change:
        run = build()

    def changed(count):
        with change:
            run(count)

    return changed


def text_tables(name):
    size = bench_text.SIZES[name]
    split = TextSplit(bench_text.made_up_corpus(size, bench_text.BATCHES * size.batch), size.batch)
    few = TextSplit(bench_text.made_up_corpus(size, size.iw_sentences), size.batch)

    trainer = partial(bench_text.project_trainer, size, split, "joint", "float32", bench_text.DROPOUT)
    yield "inner step", TEXT, lambda: partial(contest.inner_steps, trainer())
    yield "outer step", TEXT, lambda: partial(contest.outer_steps, trainer())
    yield (
        "IW-NLL",
        [TEXT[0], "vocabulary softmax in parts"],
        lambda: partial(contest.likelihood, trainer().model, few, size.iw_samples),
    )
    if name != "yahoo":
        yield (
            "evaluation",
            ["mixture by a product", TEXT[0], "vocabulary softmax in parts"],
            partial(
                evaluation, trainer().model, TextSplit(bench_text.made_up_corpus(size, VALIDATION[name]), size.batch)
            ),
        )
    yield (
        "outer step of the semi-amortised VAE, 3 steps",
        ["SVI's decoder frozen"],
        lambda: partial(contest.outer_steps, semi_amortised_trainer(size, split)),
    )


def semi_amortised_trainer(size, split):
    config = {
        "model": "savae",
        "svi_steps": 3,
        "batch_size": size.batch,
        "nz": size.nz,
        "ni": size.ni,
        "enc_nh": size.nh,
        "dec_nh": size.nh,
        "dec_dropout_in": 0.5,
        "dec_dropout_out": 0.5,
    }
    model = text_domain.build_vae(text_domain.TEXT.settings(**config), range(size.vocab))
    return contest.make_trainer(model, split, bench_text.RECIPE, "joint")


def evaluation(model, split):
    return lambda count: [metrics.evaluate(model, split, 0) for _ in range(count)]


def image_tables():
    split = bench_image.Images(4 * bench_image.BATCH, bench_image.BATCH)
    few = bench_image.Images(1, 1)
    trainer = partial(bench_image.project_trainer, split, "joint", "float32")
    yield "inner step", IMAGE, lambda: partial(contest.inner_steps, trainer())
    yield "outer step", IMAGE, lambda: partial(contest.outer_steps, trainer())
    yield (
        "IW-NLL",
        [*IMAGE[:2], "batch norm folded", "images in parts"],
        lambda: partial(contest.likelihood, trainer().model, few, 200),
    )
    yield (
        "evaluation",
        ["mixture by a product"],
        partial(evaluation, trainer().model, bench_image.Images(VALIDATION["image"], bench_image.BATCH)),
    )


def sampling_tables():
    decoder = bench_image.project_model().eval().decoder
    z, uniform = torch.randn(bench_image.SAMPLES, bench_image.NZ), torch.rand(bench_image.SIDE**2, bench_image.SAMPLES)
    yield (
        f"{len(z)} images",
        ["a cache (plain: one of 784 pixels)"],
        lambda: lambda count: [pixelcnn_sampler.sample(decoder, z, uniform) for _ in range(count)],
    )


def decoding_tables():
    model, _, vocabulary = bench_decoding.make_models()
    z = torch.randn(1000, bench_decoding.NZ)
    for title, way in (("greedy", search.greedy), ("beam", partial(search.beam_search, beam_size=5))):
        yield (
            f"{title}, 1,000 sentences",
            ["logits in blocks"],
            lambda: lambda count: [way(model.decoder, z, vocabulary, bench_decoding.MAX_LENGTH) for _ in range(count)],
        )


def grid_tables():
    for name, scale in bench_posterior.DECODERS.items():
        decoder, x, grid = bench_posterior.problem(scale, sentences=500)
        yield name, GRID, lambda: lambda count: [model_posterior.posterior_mean(decoder, x, grid) for _ in range(count)]


TABLES = {
    **{name: partial(text_tables, name) for name in bench_text.SIZES},
    "image": image_tables,
    "sampling": sampling_tables,
    "decoding": decoding_tables,
    "grid": grid_tables,
}


if __name__ == "__main__":
    main()
