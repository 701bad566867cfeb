"""What `text.py` does with a trained model: sentences from points of the latent space, and points from sentences."""

import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from modules import cli, latent
from modules.generation import search as generation
from modules.data.corpus import read_lines
from modules.command import UserError
from modules.files import replacing
from modules.models.gaussian import interpolate, reparameterize
from modules.generation.reconstruction import describe

ENCODE_BATCH = 256      # sentences of one length that the encoder reads at once
MAX_LENGTH = 100        # words of a sentence from the prior, at most
PART = 1000             # sentences generated between two updates of the progress bar


def add_flags(parser):
    """The flags of generation, reconstruction and encoding."""
    group = parser.add_argument_group("decoding, into samples/")
    group.add_argument("--decode_from", type=Path, help="generate sentences from this saved model")
    group.add_argument("--num_samples", type=cli.COUNT, default=100, help="sentences from the prior")
    group.add_argument("--decode_input", type=Path, help="instead, reconstruct each line of this file")
    group.add_argument("--decode_mean", action="store_true", help="from the posterior's mean, not a sample of it")
    group.add_argument("--interpolate", action="store_true",
                       help="instead, sentences between the 1st and 2nd line of --decode_input, the 3rd and 4th, ...")
    group.add_argument("--steps", type=cli.TWO_OR_MORE, default=9, help="points between two lines, both ends included")
    group.add_argument("--decoding_strategy", choices=("greedy", "beam", "sample"), default="greedy")
    group.add_argument("--beam_size", type=cli.COUNT, default=5, help="hypotheses of beam search")
    group.add_argument("--temperature", type=cli.TEMPERATURE, default=1.0, help="of --decoding_strategy sample")
    group.add_argument("--top_k", type=cli.COUNT, help="sample among the K most probable words")
    group.add_argument("--top_p", type=cli.SHARE, help="sample among the most probable words that have this share")
    group.add_argument("--max_length", type=cli.COUNT, help="words of a sentence, at most (default: as in the longest "
                                                            f"line of --decode_input, else {MAX_LENGTH})")
    group.add_argument("--encode", type=Path, help="write mean and logvar of q(z|x) for each line of this file (.npz), "
                                                   "with the model of --load_path")


def check_flags(parser, args):
    """Refuse flags that need others, or exclude them."""
    if args.decode_input and not args.decode_from:
        parser.error("--decode_input needs the model of --decode_from")
    if args.interpolate and not args.decode_input:
        parser.error("--interpolate needs the lines of --decode_input")
    if args.decode_mean and not args.decode_input:
        parser.error("--decode_mean needs the lines of --decode_input")
    if args.decoding_strategy != "sample" and (args.top_k or args.top_p or args.temperature != 1):
        parser.error("--top_k, --top_p and --temperature belong to --decoding_strategy sample")
    if args.eval and args.encode:
        parser.error("--eval and --encode exclude each other")
    if args.decode_from and (args.load_path or args.encode):
        parser.error("--decode_from excludes --eval, --encode and --load_path")


def decode(args, model, vocabulary, config):
    """Write sentences from the prior, reconstructions, or sentences between lines, and say where.

    The noise of z and of sampled words comes from one generator on the CPU: a seed means the same on every device, and
    the words do not depend on the noise of z.
    """
    random = torch.Generator().manual_seed(args.seed)
    if args.interpolate:
        between_lines(args, model, vocabulary, config, random)
    elif args.decode_input:
        reconstruct(args, model, vocabulary, config, random)
    else:
        z = torch.randn(args.num_samples, latent.dimensions(config), generator=random)
        write_lines(output_path(args, "sample"), generate(args, model, vocabulary, z, random, MAX_LENGTH))


def reconstruct(args, model, vocabulary, config, random):
    """Write one sentence for each line, in order, and print how close they come."""
    corpus = read_lines(args.decode_input, vocabulary, config["label"])
    sentences = generate(args, model, vocabulary, latents(args, model, corpus, random), random, longest(corpus))
    write_lines(output_path(args, "rec"), sentences)
    print(describe([vocabulary.sentence(corpus[i].tolist()) for i in range(len(corpus))], sentences))


def between_lines(args, model, vocabulary, config, random):
    """Write `--steps` sentences for each pair of lines, with z on the line between theirs, and an empty line."""
    corpus = read_lines(args.decode_input, vocabulary, config["label"])
    if len(corpus) % 2:
        raise UserError(f"{args.decode_input}: {len(corpus)} lines; --interpolate takes them in pairs")
    z = latents(args, model, corpus, random)
    sentences = generate(args, model, vocabulary, interpolate(z[::2], z[1::2], args.steps), random,
                         longest(corpus))
    blocks = [sentences[i:i + args.steps] for i in range(0, len(sentences), args.steps)]
    write_lines(output_path(args, "interpolation"), [line for block in blocks for line in [*block, ""]][:-1])


def encode(args, model, vocabulary, config):
    """Write the means and log-variances of q(z|x), [lines, nz] both, one row for each line of a file."""
    random = torch.Generator().manual_seed(args.seed)
    mean, logvar = posteriors(model, read_lines(args.encode, vocabulary, config["label"]), random)
    path = Path("samples", f"{args.load_path.stem}_{args.encode.stem}.npz")
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, mean=mean.cpu().numpy(), logvar=logvar.cpu().numpy())
    print(f"wrote {path}: mean and logvar, {list(mean.shape)} each")


@torch.no_grad()
def posteriors(model, corpus, random):
    """Mean and log-variance of q(z|x) for each sentence of a corpus, in order: [sentences, nz] both."""
    encoded = [(rows, *model.posterior(x, random)) for rows, x in corpus.batches(ENCODE_BATCH, model.device)]
    order = torch.cat([rows for rows, _, _ in encoded]).argsort()
    return tuple(torch.cat(parts)[order.to(parts[0].device)] for parts in list(zip(*encoded))[1:])


def latents(args, model, corpus, random):
    """A z for each sentence of a corpus, [sentences, nz]: a sample of its posterior, or with --decode_mean the mean."""
    mean, logvar = posteriors(model, corpus, random)
    return mean if args.decode_mean else reparameterize(mean.cpu(), logvar.cpu(), 1, random).squeeze(1)


def longest(corpus):
    """Words of the longest sentence of a corpus, 1 at least."""
    return max(1, int(np.diff(corpus.offsets).max()) - 2)


def generate(args, model, vocabulary, z, random, max_length):
    """One sentence for each z [n, nz], as strings, by the strategy that the flags name.

    `max_length` words at most, unless --max_length says otherwise.
    """
    decoder, z, max_length = model.decoder, z.to(model.device), args.max_length or max_length
    strategies = {
        "greedy": lambda part: generation.greedy(decoder, part, vocabulary, max_length),
        "beam": lambda part: generation.beam_search(decoder, part, vocabulary, max_length, args.beam_size),
        "sample": lambda part: generation.sample(decoder, part, vocabulary, max_length, random, args.temperature,
                                                 args.top_k, args.top_p)}
    parts = tqdm(z.split(PART), desc="sentences", unit=f"x{PART}", leave=False, disable=not sys.stderr.isatty())
    return [vocabulary.sentence(tokens) for part in parts
            for tokens in strategies[args.decoding_strategy](part).tolist()]


def output_path(args, kind):
    """Where the sentences go."""
    return Path("samples", f"{args.decode_from.stem}_{args.decoding_strategy}.{kind}")


def write_lines(path, lines):
    """Write one line each, atomically, and say where."""
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"wrote {path}")
