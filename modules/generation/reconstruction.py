"""How close reconstructed sentences come to their originals, and whether they differ at all among themselves."""


def describe(originals, outputs):
    """One line on the reconstructions `outputs` of `originals`, lists of sentences with spaces between the words.

    Unknown words count as `<unk>` on both sides. A collapsed model gives one sentence for every original.
    """
    return (f"exact match {exact_match(originals, outputs):.2%}, "
            f"token accuracy {token_accuracy(originals, outputs):.2%}, BLEU {bleu(originals, outputs):.2f}, "
            f"{len(set(outputs))} distinct of {len(outputs)}")


def exact_match(originals, outputs):
    """Share of the originals that are met word for word."""
    return sum(map(str.__eq__, originals, outputs)) / len(originals)


def token_accuracy(originals, outputs):
    """Share of the originals' tokens, their ends counted, that the output has at the same position."""
    right = total = 0
    for original, output in zip(originals, outputs):
        expected, found = [*original.split(), None], [*output.split(), None]
        right += sum(a == b for a, b in zip(expected, found))
        total += len(expected)
    return right / total


def bleu(originals, outputs):
    """Corpus BLEU-4 in percent (Papineni et al. 2002; sacrebleu, the words as they are)."""
    import sacrebleu            # here, as nothing else needs it and it takes a while

    return sacrebleu.corpus_bleu(outputs, [originals], tokenize="none", force=True).score
