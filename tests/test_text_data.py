"""Reading corpora, the vocabulary, and batches of sentences of one length."""

import os
from collections import Counter
from threading import Thread

import numpy as np
import pytest
import torch

from modules.command import UserError
from modules.data.corpus import TextSplit, Vocabulary, read_corpus, read_lines


@pytest.fixture
def write(tmp_path):
    """`write(content)`: a file with that text, or those bytes; returns its path."""

    def write_file(content, name="corpus.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def as_words(corpus, vocabulary):
    """The sentences of a corpus as strings."""
    return [" ".join(vocabulary.words[i] for i in corpus[n]) for n in range(len(corpus))]


def test_vocabulary_has_the_special_words_and_then_words_in_order_of_first_occurrence(write):
    _, vocabulary = read_corpus(write("the cat\nsat on the mat\na cat\n"))
    assert vocabulary.words == ["<pad>", "<s>", "</s>", "<unk>", "the", "cat", "sat", "on", "mat", "a"]
    assert [vocabulary.ids[word] for word in vocabulary.words] == list(range(10))
    assert (vocabulary.bos, vocabulary.eos, vocabulary.unk, len(vocabulary)) == (1, 2, 3, 10)


def test_vocabulary_survives_as_a_list_of_words(write):
    _, vocabulary = read_corpus(write("b a\nc\n"))
    assert Vocabulary(vocabulary.words).ids == vocabulary.ids


def test_sentences_stand_between_their_marks(write):
    corpus, vocabulary = read_corpus(write("a b\nc\n"))
    assert as_words(corpus, vocabulary) == ["<s> a b </s>", "<s> c </s>"]


def test_words_that_a_given_vocabulary_lacks_become_unk(write):
    _, vocabulary = read_corpus(write("a b\n"))
    corpus, same = read_corpus(write("b c a\nd\n", "other.txt"), vocabulary)
    assert same is vocabulary
    assert vocabulary.words[4:] == ["a", "b"]
    assert as_words(corpus, vocabulary) == ["<s> b <unk> a </s>", "<s> <unk> </s>"]


def test_unk_in_the_training_file_is_the_special_word(write):
    corpus, vocabulary = read_corpus(write("a <unk> b\n"))
    assert corpus[0].tolist() == [1, 4, 3, 5, 2]
    assert len(vocabulary) == 6


@pytest.mark.parametrize(
    "content",
    [
        "a b\n\nc\n",
        "a b\n  \t \nc\n\n\n",
        "\na b\nc",
        "a b\r\n\r\nc\r\n",
        " a  b \nc\n",
    ],
    ids=["empty line", "blank lines", "no newline at the end", "crlf", "spare spaces"],
)
def test_empty_lines_and_line_ends_do_not_matter(write, content):
    corpus, vocabulary = read_corpus(write(content))
    assert as_words(corpus, vocabulary) == ["<s> a b </s>", "<s> c </s>"]


def test_words_are_not_ascii_only(write):
    _, vocabulary = read_corpus(write("naïve 東京 🙂\n"))
    assert vocabulary.words[4:] == ["naïve", "東京", "🙂"]


@pytest.mark.parametrize("limit, kept", [(1, ["a"]), (2, ["a", "b"]), (3, ["a", "b", "c"]), (99, ["a", "b", "c"])])
def test_limit_counts_sentences_and_bounds_the_vocabulary(write, limit, kept):
    corpus, vocabulary = read_corpus(write("a\n\nb\nc\n"), limit=limit)
    assert len(corpus) == len(kept)
    assert vocabulary.words[4:] == kept


@pytest.mark.parametrize(
    "vocab_limit, kept, first",
    [
        (1, ["c"], "<s> <unk> c <unk> <unk> </s>"),
        (2, ["b", "c"], "<s> b c <unk> b </s>"),
        (3, ["b", "c", "a"], "<s> b c a b </s>"),
        (99, ["b", "c", "a", "d"], "<s> b c a b </s>"),
    ],
)
def test_vocabulary_limit_keeps_the_most_frequent_words_in_their_order(write, vocab_limit, kept, first):
    """Counts: b 2, c 3, a 1, d 1; of equals the earlier. `<unk>` in the file is no word to count."""
    corpus, vocabulary = read_corpus(write("b c a b\nc d c\n<unk> <unk> <unk> <unk>\n"), vocab_limit=vocab_limit)
    assert vocabulary.words == ["<pad>", "<s>", "</s>", "<unk>", *kept]
    assert as_words(corpus, vocabulary)[0] == first
    assert corpus.tokens.dtype == np.int32
    assert len(corpus) == 3


def test_vocabulary_limit_keeps_the_earlier_of_equals(write):
    words = [f"w{n}" for n in range(500)]
    _, vocabulary = read_corpus(write("\n".join(words)), vocab_limit=123)
    assert vocabulary.words[4:] == words[:123]


def test_labels_are_cut_off(write):
    corpus, vocabulary = read_corpus(write("5\tgood food\nvery bad\tno\tway\n"), label=True)
    assert as_words(corpus, vocabulary) == ["<s> good food </s>", "<s> no way </s>"]


def test_a_labelled_line_without_text_is_skipped(write):
    assert len(read_corpus(write("5\t\n1\tgood\n"), label=True)[0]) == 1


def test_tokens_are_kept_compactly(write):
    corpus, _ = read_corpus(write("a b c\n" * 50))
    assert corpus.tokens.dtype == np.int32
    assert corpus.tokens.size == 50 * 5
    batch = next(iter(TextSplit(corpus, 8)))
    assert batch.dtype == torch.int32


@pytest.mark.parametrize(
    "content, label, says",
    [
        (b"", False, "no sentence"),
        (b"\n \n", False, "no sentence"),
        (b"good\nbad \xff\xfe bytes\nx\n", False, "line 2\\b"),
        (b"good line\n" * 500 + b"caf\xe9\n", False, "line 501\\b"),
        (b"1\tgood\n0 bad\n", True, "line 2\\b"),
        (b"1\tgood\n" * 700 + b"0 bad\n", True, "line 701\\b"),
    ],
    ids=["empty", "only blank lines", "not UTF-8", "not UTF-8, late", "no tab", "no tab, late"],
)
def test_bad_files_are_named_with_the_line(write, content, label, says):
    path = write(content)
    with pytest.raises(UserError, match=says) as error:
        read_corpus(path, label=label)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such pipes")
def test_a_bad_byte_in_a_pipe_is_named_with_its_line(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = Thread(target=path.write_bytes, args=(b"a b\n\xff\n",))
    writer.start()
    with pytest.raises(UserError, match="pipe, line 2: not UTF-8"):
        read_lines(path, Vocabulary())
    writer.join()


@pytest.mark.parametrize("name, what", [("missing.txt", "no such file"), (".", "a folder")])
def test_no_such_file(tmp_path, name, what):
    with pytest.raises(UserError, match=what):
        read_corpus(tmp_path / name)


@pytest.fixture
def split(write):
    """300 different sentences of 1 to 9 words in batches of at most 16."""
    rng = np.random.default_rng(0)
    lines = [" ".join([f"w{n}"] * rng.integers(1, 10)) for n in range(300)]
    return TextSplit(read_corpus(write("\n".join(lines)))[0], batch_size=16)


def test_every_sentence_is_in_exactly_one_batch_of_its_length(split):
    seen = Counter()
    for batch in split:
        assert 1 <= len(batch) <= 16
        assert (batch[:, 0] == 1).all() and (batch[:, -1] == 2).all()  # nothing cut, nothing padded
        assert (batch[:, 1:-1] >= 4).all()
        seen.update(batch[:, 1].tolist())
    assert seen == {word: 1 for word in range(4, 304)}
    assert split.size == 300


def test_equal_lengths_make_more_batches_than_sentences_over_batch_size(split):
    lengths = Counter(batch.size(1) for batch in split)
    sizes = {length: sum(len(batch) for batch in split if batch.size(1) == length) for length in lengths}
    assert lengths == {length: -(-size // 16) for length, size in sizes.items()}
    assert split.num_batches == sum(lengths.values()) > -(-300 // 16)


def test_an_epoch_visits_every_batch_once_in_an_order_of_its_own(split):
    generator = torch.Generator().manual_seed(0)
    orders = [split.order(generator) for _ in range(2)]
    for order in orders:
        words = [w for i in range(split.num_batches) for w in split.batch(order, i)[:, 1].tolist()]
        assert sorted(words) == list(range(4, 304))
    assert orders[0].tolist() != orders[1].tolist() != list(range(split.num_batches))
    assert torch.equal(split.order(torch.Generator().manual_seed(0)), orders[0])


def test_inner_loop_draws_are_uniform_over_batches(split):
    generator = torch.Generator().manual_seed(0)
    draws = 400 * split.num_batches
    counts = Counter(int(split.random_batch(generator)[0, 1]) for _ in range(draws))
    assert len(counts) == split.num_batches
    chi_square = sum((count - 400) ** 2 / 400 for count in counts.values())
    freedom = split.num_batches - 1
    assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5


def test_units_are_the_predicted_words(split):
    """`</s>` is predicted, `<s>` is not: a sentence of n words counts n + 1."""
    for batch in split:
        assert split.units(batch) == len(batch) * (batch.size(1) - 2 + 1)
    assert split.unit == "word"
