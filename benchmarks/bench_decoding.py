"""Time generation (`modules/generation/search.py`) against a plain beam search with an object per hypothesis, in turns.

    python benchmarks/bench_decoding.py             # about a minute on two free CPU cores

PTB's sizes: vocabulary 10,000, `ni` and `nh` 256, nz 32; 1,000 z from the prior, beam 5, 30 words at most. The weights
are larger than training starts with, and `</s>` is more probable, so that sentences differ and end at many lengths.

The textbook searches one sentence at a time. It takes `--part` of the sentences, spread over all of them, and its time
is scaled up; theirs must be the same as the batched search's. It steps its hypotheses one after the other, each being
an object with a state of its own, or those of a sentence together, as the authors' code does; either way it stops as
early as the batched search, which a plain search would not. Greedy decoding is compared with itself, one by one.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bench_text import load_into_textbook
from benchmarks.contest import DEVICE, begin, wait
from benchmarks.textbook import TextbookVAE, textbook_beam_search
from modules.data.corpus import Vocabulary
from modules.domains.text_domain import TEXT, build_vae
from modules.generation import search as generation

VOCABULARY, NZ, NI, NH = 10_000, 32, 256, 256
BEAM, MAX_LENGTH = 5, 30
SCALE, EMBEDDING_SCALE, END_SCALE = 10.0, 10.0, 2.0  # of the weights, the embeddings, and </s> on top
TURNS = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--part", type=int, default=20, help="sentences that are searched or generated one by one")
    args = parser.parse_args()
    model, textbook, vocabulary = make_models()
    z = torch.randn(args.sentences, NZ, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    part = torch.arange(0, args.sentences, max(1, args.sentences // args.part))
    begin(f"{args.sentences} sentences, {len(part)} of them one by one")

    def textbook_search(together):
        return [textbook_beam_search(textbook, row, BEAM, MAX_LENGTH, together) for row in z[part]]

    contestants = {
        "beam": lambda: generation.beam_search(model.decoder, z, vocabulary, MAX_LENGTH, BEAM),
        "textbook beam, hypotheses one by one": lambda: textbook_search(False),
        "textbook beam, hypotheses together": lambda: textbook_search(True),
        "greedy": lambda: generation.greedy(model.decoder, z, vocabulary, MAX_LENGTH),
        "greedy one by one": lambda: [
            generation.greedy(model.decoder, row, vocabulary, MAX_LENGTH) for row in z[part].split(1)
        ],
    }
    results, seconds = take_turns(contestants)
    found = {name: words_of(results[name], vocabulary) for name in ("beam", "greedy")}
    expected = [found["beam"][i] for i in part]
    for name in ("textbook beam, hypotheses one by one", "textbook beam, hypotheses together"):
        assert results[name] == expected, f"{name}: other sentences"
    assert torch.equal(torch.cat(results["greedy one by one"]), results["greedy"][part])
    for name, sentences in found.items():
        lengths = sorted(map(len, sentences))
        print(
            f"{name}: lengths {lengths[0]} to {lengths[-1]}, {sum(lengths) / len(lengths):.1f} on average, "
            f"{len(set(map(tuple, sentences)))} distinct sentences"
        )
    print(f"{f'median ms a sentence, of {TURNS} turns':42}{'one by one':>12}{'batched':>10}{'ratio':>8}")
    for name, plain in (
        ("beam", "textbook beam, hypotheses one by one"),
        ("beam", "textbook beam, hypotheses together"),
        ("greedy", "greedy one by one"),
    ):
        one_by_one, batched = 1e3 * seconds[plain] / len(part), 1e3 * seconds[name] / len(z)
        print(f"{plain:42}{one_by_one:12.2f}{batched:10.2f}{one_by_one / batched:8.1f}")


def take_turns(contestants):
    """(what each returned, the median of its seconds) of `TURNS` turns."""
    results, seconds = {}, {name: [] for name in contestants}
    for _ in range(TURNS):
        for name, run in contestants.items():
            wait()
            start = time.perf_counter()
            results[name] = run()
            wait()
            seconds[name].append(time.perf_counter() - start)
    return results, {name: statistics.median(times) for name, times in seconds.items()}


def make_models():
    """(VAE, the textbook's with the same weights, Vocabulary)"""
    torch.manual_seed(0)
    vocabulary = Vocabulary([*Vocabulary().words, *(f"word{i}" for i in range(4, VOCABULARY))])
    config = {"nz": NZ, "ni": NI, "enc_nh": NH, "dec_nh": NH, "dec_dropout_in": 0.5, "dec_dropout_out": 0.5}
    model = build_vae(TEXT.settings(**config), vocabulary).to(DEVICE).eval()
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():
            parameter *= EMBEDDING_SCALE if "embed" in name else SCALE
        model.decoder.pred_linear.weight[vocabulary.eos] *= END_SCALE
    textbook = TextbookVAE(VOCABULARY, NZ, NI, NH).to(DEVICE).eval()
    load_into_textbook(textbook, model)
    return model, textbook, vocabulary


def words_of(tokens, vocabulary):
    """The ids of each sentence before `</s>`, of token ids [n, max_length]."""
    ends = (tokens != vocabulary.eos).sum(dim=1).tolist()
    return [row[:end] for row, end in zip(tokens.tolist(), ends)]


if __name__ == "__main__":
    main()
