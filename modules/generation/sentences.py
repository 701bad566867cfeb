"""What `text.py` does with a trained model: sentences from points of the latent space, and points from sentences."""

from pathlib import Path

import numpy as np
import torch

from modules import methods
from modules.command import UserError, progress
from modules.data.corpus import read_lines
from modules.files import replacing
from modules.generation import search
from modules.generation.points import need_latent_variable, read_points, write_posteriors
from modules.generation.reconstruction import describe
from modules.models.gaussian import interpolate, reparameterize
from modules.settings import Group, Setting, file_name, number, one_of, switch, whole

ENCODE_BATCH = 256  # sentences of one length that the encoder reads at once
SAMPLES = 100  # from the prior
MAX_LENGTH = 100  # words of a sentence, at most, where no input line sets the limit
PART = 1000  # sentences generated between two updates of the progress bar

ALTERNATIVES = (
    ("z", "decode_input"),
    ("z", "num_samples"),
    ("num_samples", "decode_mean"),
    ("num_samples", "interpolate"),
)
DECODING = Group(
    "decoding, into samples/",
    (
        Setting("decode_from", file_name, "generate sentences from this saved model", None),
        Setting(
            "num_samples",
            whole(1),
            f"sentences from the prior (default: {SAMPLES}), or of each line of --decode_input that many "
            "reconstructions on consecutive lines, each from a sample of its posterior of its own (default: 1)",
            None,
            needs=("decode_from",),
        ),
        Setting("decode_input", file_name, "instead, reconstruct each line of this file", None, needs=("decode_from",)),
        Setting("decode_mean", switch, "from the posterior's mean, not a sample of it", False, needs=("decode_input",)),
        Setting(
            "interpolate",
            switch,
            "instead, sentences between the 1st and 2nd line of --decode_input, the 3rd and 4th, ...",
            False,
            needs=("decode_input",),
        ),
        Setting("steps", whole(2), "points between two lines, both ends included", 9, needs=("interpolate",)),
        Setting(
            "z",
            file_name,
            "instead, a sentence for each point in this .npz, a row of its array mean [n, nz], as --encode writes it",
            None,
            needs=("decode_from",),
        ),
        Setting("no_unk", switch, "never generate <unk>", False, needs=("decode_from",)),
        Setting(
            "decoding_strategy",
            one_of("greedy", "beam", "sample"),
            "how words are chosen",
            "greedy",
            needs=("decode_from",),
        ),
        Setting("beam_size", whole(1), "hypotheses of beam search", 5, needs=("decoding_strategy", "beam")),
        Setting(
            "temperature",
            number("[1e-6, 1e6]"),
            "of --decoding_strategy sample",
            1.0,
            needs=("decoding_strategy", "sample"),
        ),
        Setting(
            "top_k", whole(1), "sample among the K most probable words", None, needs=("decoding_strategy", "sample")
        ),
        Setting(
            "top_p",
            number("(0, 1]"),
            "sample among the most probable words that have this share",
            None,
            needs=("decoding_strategy", "sample"),
        ),
        Setting(
            "max_length",
            whole(1),
            f"words of a sentence, at most (default: as in the longest line of --decode_input, else {MAX_LENGTH})",
            None,
            needs=("decode_from",),
        ),
        Setting(
            "encode",
            file_name,
            "write mean and logvar of q(z|x) for each line of this file (.npz), with the model of --load_path",
            None,
            needs=("load_path",),
        ),
    ),
    of_run=False,
)


def decode(model, vocabulary, s):
    """Write sentences from the prior or from given points, reconstructions, or sentences between lines, and say where.

    One generator on the CPU draws the noise of z, then that of sampled words: a seed means the same on every device.
    """
    random = torch.Generator().manual_seed(s.seed)
    if s.decode_input or s.z:
        need_latent_variable(s, s.decode_from)
    if s.interpolate:
        between_lines(model, vocabulary, s, random)
    elif s.decode_input:
        reconstruct(model, vocabulary, s, random)
    else:
        nz = methods.dimensions(s)
        z = read_points(s.z, nz) if s.z else torch.randn(s.num_samples or SAMPLES, nz, generator=random)
        sentences = generate(model, vocabulary, s, z, random, MAX_LENGTH)
        write_lines(output_path(s, "decoded" if s.z else "sample"), sentences)


def reconstruct(model, vocabulary, s, random):
    """Write `--num_samples` sentences for each line (one, unless told), in order, and print how close they come."""
    corpus = read_lines(s.decode_input, vocabulary, s.label)
    sentences = generate(model, vocabulary, s, latents(model, corpus, s, random), random, longest(corpus))
    write_lines(output_path(s, "mean.rec" if s.decode_mean else "rec"), sentences)
    originals = [vocabulary.sentence(corpus[i].tolist()) for i in range(len(corpus))]
    print(describe([line for line in originals for _ in range(s.num_samples or 1)], sentences))


def between_lines(model, vocabulary, s, random):
    """Write `--steps` sentences for each pair of lines, with z on the line between theirs, and an empty line."""
    corpus = read_lines(s.decode_input, vocabulary, s.label)
    if len(corpus) % 2:
        raise UserError(f"{s.decode_input}: {len(corpus)} lines; --interpolate takes them in pairs")
    z = latents(model, corpus, s, random)
    sentences = generate(model, vocabulary, s, interpolate(z[::2], z[1::2], s.steps), random, longest(corpus))
    blocks = [sentences[i : i + s.steps] for i in range(0, len(sentences), s.steps)]
    write_lines(output_path(s, "interpolation"), [line for block in blocks for line in [*block, ""]][:-1])


def encode(model, vocabulary, s):
    """Write the means and log-variances of q(z|x), [lines, nz] both, one row for each line of a file."""
    need_latent_variable(s, s.load_path)
    mean, logvar = posteriors(model, read_lines(s.encode, vocabulary, s.label))
    write_posteriors(Path("samples", f"{s.load_path.stem}_{s.encode.stem}.npz"), mean, logvar)


@torch.no_grad()
def posteriors(model, corpus):
    """Mean and log-variance of q(z|x) for each sentence of a corpus, in order: [sentences, nz] both."""
    encoded = [(rows, *model.posterior(x)) for rows, x in corpus.batches(ENCODE_BATCH, model.device)]
    order = torch.cat([rows for rows, _, _ in encoded]).argsort()
    return tuple(torch.cat(parts)[order.to(parts[0].device)] for parts in list(zip(*encoded))[1:])


def latents(model, corpus, s, random):
    """The z of a corpus, [z, nz], sentence by sentence: samples of its posterior, or with --decode_mean the mean."""
    mean, logvar = posteriors(model, corpus)
    if s.decode_mean:
        return mean
    return reparameterize(mean.cpu(), logvar.cpu(), s.num_samples or 1, random).flatten(0, 1)


def longest(corpus):
    """Words of the longest sentence of a corpus, 1 at least."""
    return max(1, int(np.diff(corpus.offsets).max()) - 2)


def generate(model, vocabulary, s, z, random, max_length):
    """One sentence for each z [n, nz], as strings, by the strategy that the flags name.

    `max_length` words at most, unless --max_length says otherwise.
    """
    decoder, z, max_length = model.decoder, z.to(model.device), s.max_length or max_length
    vocabulary = vocabulary.without_unk() if s.no_unk else vocabulary
    strategies = {
        "greedy": lambda part: search.greedy(decoder, part, vocabulary, max_length),
        "beam": lambda part: search.beam_search(decoder, part, vocabulary, max_length, s.beam_size),
        "sample": lambda part: search.sample(
            decoder, part, vocabulary, max_length, random, s.temperature, s.top_k, s.top_p
        ),
    }
    parts = progress(z.split(PART), desc="sentences", unit=f"x{PART}")
    return [vocabulary.sentence(tokens) for part in parts for tokens in strategies[s.decoding_strategy](part).tolist()]


def output_path(s, kind):
    """Where the sentences go."""
    source = s.decode_input or s.z
    return Path("samples", f"{s.decode_from.stem}_{s.decoding_strategy}{f'_{source.stem}' if source else ''}.{kind}")


def write_lines(path, lines):
    """Write one line each, atomically, and say where."""
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"wrote {path}")
