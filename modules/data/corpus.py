"""Text corpora: reading, the vocabulary, and batches of sentences of one length."""

from array import array
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from modules.command import UserError, note
from modules.data.fingerprint import fingerprint

SPECIAL = PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"  # ids 0..3, part of the contract with saved models


class Vocabulary:
    """Words and their ids: the four special ones first, then words in order of first occurrence.

    `never` are the ids of words that no sentence is generated with.
    """

    pad, bos, eos, unk = range(len(SPECIAL))

    def __init__(self, words=SPECIAL, never=(PAD, BOS)):
        self.words = list(words)
        self.ids = {word: i for i, word in enumerate(self.words)}
        self.never = [self.ids[word] for word in never]

    @classmethod
    def of_file(cls, words, path):
        """The vocabulary that the file `path` holds as a list of words; raises UserError if it is none."""
        if (
            not isinstance(words, list)
            or tuple(words[: len(SPECIAL)]) != SPECIAL
            or not all(isinstance(word, str) for word in words)
            or len(set(words)) < len(words)
        ):
            raise UserError(f"{path}: damaged; its vocabulary is no list of words from {PAD} {BOS} {EOS} {UNK} on")
        return cls(words)

    def __len__(self):
        return len(self.words)

    def without_unk(self):
        """The same vocabulary, but that `<unk>` is never generated either."""
        return Vocabulary(self.words, never=(PAD, BOS, UNK))

    def sentence(self, tokens):
        """The words of a list of ids up to `</s>`, or all of them, as one string; a leading `<s>` is left out."""
        tokens = tokens[1:] if tokens[:1] == [self.bos] else tokens
        end = tokens.index(self.eos) if self.eos in tokens else len(tokens)
        return " ".join(self.words[token] for token in tokens[:end])


class Corpus:
    """The sentences of one file as one flat array of token ids, `<s>` and `</s>` included.

    `tokens` int32 [all tokens], `offsets` int64 [sentences + 1]: sentence i is tokens[offsets[i]:offsets[i + 1]].
    `left_out` is how many sentences were skipped as too long, None if no limit was set.
    """

    def __init__(self, tokens, offsets, left_out=None):
        self.tokens = tokens
        self.offsets = offsets
        self.left_out = left_out

    def __len__(self):
        return len(self.offsets) - 1

    def __getitem__(self, i):
        return self.tokens[self.offsets[i] : self.offsets[i + 1]]

    def batches(self, batch_size, device="cpu"):
        """Yield (which sentences, int64 [batch]; their token ids [batch, time]), by length, then in file order."""
        lengths = np.diff(self.offsets)
        for length in np.unique(lengths):
            sentences = np.flatnonzero(lengths == length)
            group = torch.from_numpy(self.tokens[self.offsets[sentences][:, None] + np.arange(length)]).to(device)
            yield from zip(torch.from_numpy(sentences).split(batch_size), group.split(batch_size))


def read_corpus(path, vocabulary=None, label=False, limit=None, vocab_limit=None, longest=None):
    """Read a file of one tokenised sentence a line: returns (Corpus, Vocabulary).

    Without `vocabulary` one is made from the file; with one, words it lacks become `<unk>`. With `label`, a line is
    `label<TAB>text`. Empty sentences and those of more than `longest` words are skipped; of the rest the first `limit`
    are read. `vocab_limit` keeps that many of the most frequent words of a new vocabulary. Raises UserError, naming the
    file and the line, for a missing, empty or non-UTF-8 file, for a line without its tab, and if no sentence is short
    enough.
    """
    grow = vocabulary is None
    ids = _ids_of_words(vocabulary or Vocabulary())
    tokens, lengths, left_out = array("i"), array("q", [0]), 0
    for words in _sentences(path, label):
        if len(lengths) - 1 == limit:
            break
        if longest and len(words) > longest:
            left_out += 1
            continue
        tokens.append(Vocabulary.bos)
        if grow:
            tokens.extend([ids.setdefault(word, len(ids)) for word in words])
        else:
            tokens.extend([ids.get(word, Vocabulary.unk) for word in words])
        tokens.append(Vocabulary.eos)
        lengths.append(len(words) + 2)
    if left_out and len(lengths) == 1:
        raise UserError(f"{path}: every sentence has more than {longest} words; give a larger --max_train_length")
    if len(lengths) == 1:
        raise UserError(f"{path}: there is no sentence in it; it needs one tokenised sentence a line")
    tokens, offsets = np.frombuffer(tokens, dtype=np.int32), np.cumsum(np.frombuffer(lengths, dtype=np.int64))
    corpus = Corpus(tokens, offsets, left_out if longest else None)
    if not grow:
        return corpus, vocabulary
    return _keep_frequent(corpus, Vocabulary(ids), vocab_limit) if vocab_limit else (corpus, Vocabulary(ids))


def _sentences(path, label):
    """Yield the words of each line that is not empty, of a line with a `label` those behind it."""
    for number, line in enumerate(text_lines(path), start=1):
        if label and not line.isspace():
            _, tab, line = line.partition("\t")
            if not tab:
                raise UserError(
                    f"{path}, line {number}: no tab between label and text; "
                    "mend the line, or set label to False in the config"
                )
        words = words_of(line)
        if number == 1 and words and words[0].lower().startswith(("<!doctype", "<html", "<?xml")):
            note(f"{path}: begins like a web page, not like text")
        if words:
            yield words


def words_of(line):
    """The words of a line, without a leading `<s>` and a trailing `</s>`, which some corpora write out."""
    words = line.split()
    return words[words[:1] == [BOS] : len(words) - (words[-1:] == [EOS])]


def _ids_of_words(vocabulary):
    """{word: id} for reading text, in which a literal `<pad>`, `<s>` or `</s>` is `<unk>`."""
    return {**vocabulary.ids, **dict.fromkeys((PAD, BOS, EOS), vocabulary.unk)}


def read_lines(path, vocabulary, label=False):
    """Read every line of a file as a sentence, empty ones too: a Corpus, with words that are not known as `<unk>`.

    With `label`, what stands before a first tab is left out. Raises UserError, naming the file, for a missing, empty or
    non-UTF-8 file.
    """
    ids, sentences = _ids_of_words(vocabulary), []
    for line in text_lines(path, advice="", regular=False):
        words = words_of(line.partition("\t")[2] if label and "\t" in line else line)
        sentences.append([vocabulary.bos, *(ids.get(word, vocabulary.unk) for word in words), vocabulary.eos])
    if not sentences:
        raise UserError(f"{path}: the file is empty; it needs one sentence a line")
    lengths = np.fromiter(map(len, sentences), dtype=np.int64)
    return Corpus(np.fromiter(chain.from_iterable(sentences), dtype=np.int32), np.cumsum(np.append(0, lengths)))


def _keep_frequent(corpus, vocabulary, vocab_limit):
    """Keep the `vocab_limit` most frequent words (of equals, the earlier), in their order; the rest become `<unk>`."""
    special = len(SPECIAL)
    counts = np.bincount(corpus.tokens, minlength=len(vocabulary))[special:]
    kept = np.sort(np.argsort(-counts, kind="stable")[:vocab_limit]) + special
    new_ids = np.full(len(vocabulary), vocabulary.unk, dtype=np.int32)
    new_ids[:special] = np.arange(special)
    new_ids[kept] = np.arange(len(kept)) + special
    words = vocabulary.words[:special] + [vocabulary.words[i] for i in kept]
    return Corpus(new_ids[corpus.tokens], corpus.offsets, corpus.left_out), Vocabulary(words)


def text_lines(
    path,
    advice="; `python prepare_data.py` fetches the known data sets, and the config says where this one is expected",
    regular=True,
):
    """Yield the lines of a text file, with their ends. Raises UserError, naming it, if it is missing or not UTF-8.

    `advice` is added to what is said of a missing file; without `regular` it may be a pipe, which is read once.
    """
    if not Path(path).exists():
        raise UserError(f"{path}: no such file{advice}")
    if Path(path).is_dir():
        raise UserError(f"{path}: a folder; a file in it is needed")
    if regular and not Path(path).is_file():
        raise UserError(f"{path}: a pipe or a device; data must be a regular file, since it is read more than once")
    with open(path, "rb") as lines:  # no other character than \n ends a line
        for number, line in enumerate(lines, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise UserError(f"{path}, line {number}: not UTF-8 text; convert the file to UTF-8") from None
            if text:  # a file may be nothing but a byte order mark
                yield text


class TextSplit:
    """A corpus cut into batches of equal length, on the device.

    Sentences of one length are cut in file order into batches of at most `batch_size`; every sentence is in exactly
    one batch. The training loop shuffles the order of the batches, not what is in them.
    """

    unit = "word"

    def __init__(self, corpus, batch_size, device="cpu"):
        self.size, self.left_out = len(corpus), corpus.left_out
        batches = list(corpus.batches(batch_size, device))
        self._rows, self._batches = [rows for rows, _ in batches], [batch for _, batch in batches]
        self.num_batches = len(self._batches)

    def __iter__(self):
        return iter(self._batches)

    @property
    def fingerprint(self):
        """What tells these sentences, in this order, from others."""
        return fingerprint(self._batches)

    def about(self):
        """What it holds, for the record: {sentences, words, unk: their share of `<unk>`, shortest, longest}, and where
        a length was set {left_out: how many sentences were longer}."""
        words = sum(batch.size(0) * (batch.size(1) - 2) for batch in self)
        unk = int(sum((batch == Vocabulary.unk).sum() for batch in self))
        lengths = [batch.size(1) - 2 for batch in self]
        return {
            "sentences": self.size,
            "words": words,
            "unk": round(unk / max(1, words), 4),
            "shortest": min(lengths),
            "longest": max(lengths),
            **({} if self.left_out is None else {"left_out": self.left_out}),
        }

    def about_each(self):
        """What it holds, of each sentence, batch after batch: {index: its place in the file from 0, empty lines not
        counted; words; unk: how many of them are `<unk>`}, a list [size] each.
        """
        return {
            "index": torch.cat(self._rows).tolist(),
            "words": [batch.size(1) - 2 for batch in self for _ in batch],
            "unk": torch.cat([(batch == Vocabulary.unk).sum(dim=1) for batch in self]).tolist(),
        }

    def order(self, generator):
        """The order of one epoch: a permutation of the batches, int64 [num_batches]."""
        return torch.randperm(self.num_batches, generator=generator)

    def batch(self, order, i):
        """Batch number i of an epoch in that order: token ids [batch, time]."""
        return self._batches[order[i]]

    def random_batch(self, generator):
        """A batch drawn uniformly at random with replacement, for the inner loop."""
        return self._batches[int(torch.randint(self.num_batches, (), generator=generator))]

    @staticmethod
    def units(batch):
        """How many predicted tokens the batch holds; `<s>` is not predicted."""
        return batch.size(0) * (batch.size(1) - 1)


class OneBatch(TextSplit):
    """The first of the largest batches of a corpus, over and over, as often as another split has batches in an epoch.

    A batch holds sentences of one length, so it may be of fewer than `batch_size`.
    """

    def __init__(self, corpus, batch_size, num_batches, device="cpu"):
        super().__init__(corpus, batch_size, device)
        largest = max(range(self.num_batches), key=lambda i: len(self._batches[i]))
        self._rows, self._batches = [self._rows[largest]], [self._batches[largest]]
        self.size, self.num_batches = len(self._batches[0]), num_batches

    def batch(self, order, i):
        """The batch, whatever the order."""
        return self._batches[0]

    def random_batch(self, generator):
        """The batch."""
        return self._batches[0]
