"""How close reconstructed sentences come to their originals, and whether they differ at all among themselves."""

from modules.data.corpus import UNK


def describe(originals, outputs):
    """One line on the reconstructions `outputs` of `originals`, lists of sentences with spaces between the words.

    Unknown words are `<unk>` on both sides, and never right. BLEU is left out where no original has four words. A
    collapsed model gives one sentence for every original.
    """
    words = [word for original in originals for word in original.split()]
    unknown = words.count(UNK) / max(1, len(words))
    has_bleu = any(len(original.split()) >= 4 for original in originals)
    return (
        f"exact match {exact_match(originals, outputs):.2%}, "
        f"token accuracy {token_accuracy(originals, outputs):.2%}, "
        + (f"BLEU {bleu(originals, outputs):.2f}, " if has_bleu else "")
        + f"{len(set(outputs))} distinct of {len(outputs)}, {unknown:.2%} of the words <unk>"
    )


def exact_match(originals, outputs):
    """Share of the originals that are met word for word, and have no unknown word."""
    return sum(a == b and UNK not in a.split() for a, b in zip(originals, outputs)) / len(originals)


def token_accuracy(originals, outputs):
    """Share of the originals' tokens, their ends counted, that the output has at the same position."""
    right = total = 0
    for original, output in zip(originals, outputs):
        expected, found = [*original.split(), None], [*output.split(), None]
        right += sum(a == b != UNK for a, b in zip(expected, found))
        total += len(expected)
    return right / total


def bleu(originals, outputs):
    """Corpus BLEU-4 in percent (Papineni et al. 2002; sacrebleu, the words as they are, `<unk>` never right)."""
    import sacrebleu  # here, as nothing else needs it and it takes a while

    outputs = [" ".join("<wrong>" if word == UNK else word for word in output.split()) for output in outputs]
    return sacrebleu.corpus_bleu(outputs, [originals], tokenize="none", force=True).score
