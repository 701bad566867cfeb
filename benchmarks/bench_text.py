"""Time this project's text VAE against the plain textbook one of `benchmarks/textbook.py`, in turns, on one machine.

    python benchmarks/bench_text.py                                # everything: some 6 minutes on two free CPU cores
    python benchmarks/bench_text.py --sizes toy ptb --seconds 20   # half a minute each

Where other programs run beside it, OMP_NUM_THREADS=1 in front gives steadier figures: threads wait for the slowest.

Data are made up. Both sides get the same weights, and their losses over a few steps are compared before any timing.
Then all contestants of a size take turns until `--seconds` are over, twice at least; the table gives the medians. A
step is one of the training loop's own: outer (both networks, `Trainer.outer_iteration`) or inner (the encoder alone,
in `optimise_encoder`, with either `--inner_clip`). The textbook computes in float32, with every gradient, in both.

"of peak" is the time that the step's necessary matrix products would take at the rate that a large torch.mm reaches
in the same turns, over the time taken. Necessary are 2 FLOPs per weight and use in the LSTMs and the vocabulary matrix
for the forward pass, and as many for the gradient of the inputs and of the weights each; with `--inner_clip encoder`
without the decoder's weights. In bf16, the products with the vocabulary matrix count at bf16's rate.

`corpus` reads a file of 100,000 documents and 8 million tokens, each way in a process of its own.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.contest import (
    DEVICE,
    begin,
    compare,
    make_trainer,
    peak_memory,
    project_rows,
    textbook_runs,
)
from benchmarks.textbook import TextbookVAE, textbook_read, textbook_step
from modules.data.corpus import Corpus, TextSplit, read_corpus
from modules.domains.text_domain import TEXT, build_vae
from modules.training.recipe import TEXT as PUBLISHED

DROPOUT = 0.5
RECIPE = replace(PUBLISHED, lr=1e-3)  # all stay near the weights that they start with
BATCHES = 4  # different ones
DOCUMENTS, WORDS, VOCABULARY = 100_000, 78, 20_000  # of the made-up corpus; <s> and </s> come on top
TEXTBOOK_NAMES = {
    "encoder.embed": "enc_embed",
    "encoder.lstm": "enc_lstm",
    "encoder.linear": "enc_linear",
    "decoder.embed": "dec_embed",
    "decoder.trans_linear": "dec_trans",
    "decoder.lstm": "dec_lstm",
    "decoder.pred_linear": "dec_pred",
}


@dataclass(frozen=True)
class Size:
    vocab: int
    ni: int
    nh: int
    nz: int
    batch: int
    length: int  # tokens of a sentence, <s> and </s> included
    iw_sentences: int
    iw_samples: int

    def flops(self, encoder_passes, decoder_passes, sentences=None):
        """Matrix FLOPs in (the LSTMs, the product with the vocabulary): 1 pass = forward, 2 or 3 = with gradients."""
        sentences = sentences or self.batch
        read, predicted = sentences * self.length, sentences * (self.length - 1)
        encoder = 2 * read * 4 * self.nh * (self.ni + self.nh) * encoder_passes
        decoder = 2 * predicted * 4 * self.nh * (self.ni + self.nz + self.nh) * decoder_passes
        return encoder + decoder, 2 * predicted * self.vocab * self.nh * decoder_passes


SIZES = {
    "toy": Size(vocab=1_000, ni=50, nh=50, nz=2, batch=16, length=12, iw_sentences=16, iw_samples=500),
    "ptb": Size(vocab=10_000, ni=256, nh=256, nz=32, batch=32, length=23, iw_sentences=2, iw_samples=500),
    "yahoo": Size(vocab=20_000, ni=512, nh=1024, nz=32, batch=32, length=81, iw_sentences=2, iw_samples=50),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=[*SIZES, "corpus"], default=[*SIZES, "corpus"])
    parser.add_argument("--seconds", type=float, default=60, help="for each size, once both sides are seen to agree")
    args = parser.parse_args()
    begin()
    for name in args.sizes:
        if name == "corpus":
            compare_reading()
        else:
            compare_training(name, SIZES[name], args.seconds)


# ---------------------------------------------------------------------- training steps and likelihood


def compare_training(name, size, seconds):
    """Print the table of one size."""
    split = TextSplit(made_up_corpus(size, BATCHES * size.batch), size.batch, DEVICE)
    few = TextSplit(made_up_corpus(size, size.iw_sentences), size.batch, DEVICE)
    check_agreement(size, next(iter(split))[:4])
    textbook = textbook_runs(
        textbook_model(size, DROPOUT),
        partial(torch.optim.SGD, lr=RECIPE.lr),
        RECIPE.clip_norm,
        [x.long() for x in split],
        next(iter(few)).long(),
        size.iw_samples,
    )
    rows = project_rows(
        lambda clip, precision: project_trainer(size, split, clip, precision, DROPOUT), size.flops, few, size.iw_samples
    )
    compare(
        f"{name}: vocabulary {size.vocab}, ni {size.ni}, nh {size.nh}, nz {size.nz}, batch {size.batch} x "
        f"{size.length}",
        textbook,
        rows,
        seconds,
    )


# ---------------------------------------------------------------------- the same problem for both


def made_up_corpus(size, sentences):
    """Uniformly random words between `<s>` and `</s>`."""
    tokens = np.random.default_rng(0).integers(4, size.vocab, (sentences, size.length), dtype=np.int32)
    tokens[:, 0], tokens[:, -1] = 1, 2
    return Corpus(tokens.ravel(), np.arange(0, tokens.size + 1, size.length))


def check_agreement(size, x):
    """Assert that both sides see the same losses without dropout, over steps whose gradients are clipped alike."""
    for precision, tolerance in (("float32", 1e-5), ("bf16", 1e-3)):
        for clip, steps in (("joint", 3), ("encoder", 1)):
            textbook = textbook_model(size, dropout=0.0)
            optimiser = torch.optim.SGD(textbook.encoder_parameters(), lr=PUBLISHED.lr)
            trainer = project_trainer(size, None, clip, precision, 0.0, PUBLISHED)
            for seed in range(steps):
                torch.manual_seed(seed)
                expected = textbook_step(textbook, optimiser, x.long(), 1.0, PUBLISHED.clip_norm)
                torch.manual_seed(seed)
                with trainer.algorithm.only_encoder_gradients():
                    loss = float(trainer.algorithm.encoder_step(x, 1.0))
                assert abs(loss - expected) <= tolerance * expected, (precision, clip, seed, loss, expected)


def project_trainer(size, split, clip, precision, dropout, recipe=RECIPE):
    """A trainer of a new model, which starts with the same weights at every call."""
    torch.manual_seed(0)
    config = {
        "nz": size.nz,
        "ni": size.ni,
        "enc_nh": size.nh,
        "dec_nh": size.nh,
        "dec_dropout_in": dropout,
        "dec_dropout_out": dropout,
    }
    model = build_vae(TEXT.settings(**config, precision=precision), range(size.vocab)).to(DEVICE)
    return make_trainer(model, split, recipe, clip)


def textbook_model(size, dropout):
    """The textbook's model, with the weights of `project_trainer`."""
    model = TextbookVAE(size.vocab, size.nz, size.ni, size.nh, dropout).to(DEVICE)
    load_into_textbook(model, project_trainer(size, None, "joint", "float32", dropout).model)
    return model


def load_into_textbook(textbook, model):
    """Give the textbook's model the weights of this project's."""
    textbook.load_state_dict({textbook_name(name): weight for name, weight in model.state_dict().items()})


def textbook_name(name):
    """What the textbook calls the parameter that is called `name` here."""
    module, part = name.rsplit(".", 1)
    return f"{TEXTBOOK_NAMES[module]}.{part}"


# ---------------------------------------------------------------------- reading


def compare_reading():
    """Print seconds and bytes per token of both ways to read a corpus of Yahoo's size."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "corpus.txt")
        write_corpus(path)
        print(f"\ncorpus: {DOCUMENTS} documents, {DOCUMENTS * (WORDS + 2)} tokens, <s> and </s> counted")
        print(f"{'reading':42}{'textbook':>10}{'ours':>10}{'ratio':>8}")
        context = multiprocessing.get_context("spawn")
        results = [[], []]
        for _ in range(3):
            for read, result in zip((textbook_read, read_corpus), results):
                with context.Pool(1) as pool:
                    result.append(pool.apply(cost_of_reading, (read, path)))
        for label, plain, ours in zip(
            ("median seconds", "bytes per token"), *(map(statistics.median, zip(*result)) for result in results)
        ):
            print(f"{label:42}{plain:10.2f}{ours:10.2f}{plain / ours:8.2f}")


def write_corpus(path):
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(VOCABULARY)])
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(DOCUMENTS):
            file.write(" ".join(words[np.minimum(rng.zipf(1.3, WORDS), VOCABULARY) - 1]) + "\n")


def cost_of_reading(read, path):
    """(seconds, bytes by which this process's peak of memory grew for each token)"""
    before = peak_memory()
    start = time.perf_counter()
    kept = read(path)
    seconds = time.perf_counter() - start
    after = peak_memory()
    del kept
    return seconds, (after - before) / (DOCUMENTS * (WORDS + 2))


if __name__ == "__main__":
    main()
