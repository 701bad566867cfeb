"""`--max_train_length`: which sentences are read, what is said of the others, and that only training has fewer."""

import pytest

import text
import toy
from modules.command import UserError
from modules.data.corpus import TextSplit, read_corpus
from modules.training.records import lines_of
from tests.conftest import assert_refused, events

LINES = ["a b c", "d", "a b", "e f g h", "", "b b", "i j k", "c"]
ARGS = ("--dataset", "tiny", "--iw_nsamples", 2, "--epochs", 1)
RUN_ID = "tiny_aggressive0_kls1.00_warm10_0_0_783435"


@pytest.fixture
def path(tmp_path):
    (tmp_path / "lines.txt").write_text("".join(f"{line}\n" for line in LINES))
    return tmp_path / "lines.txt"


def read(path, **options):
    """(sentences, words of the vocabulary, how many were left out)."""
    corpus, vocabulary = read_corpus(path, **options)
    return [vocabulary.sentence(corpus[i].tolist()) for i in range(len(corpus))], vocabulary.words[4:], corpus.left_out


def test_longer_sentences_are_left_out(path):
    assert read(path, longest=2) == (["d", "a b", "b b", "c"], ["d", "a", "b", "c"], 3)
    assert read(path, longest=3) == ([*LINES[:3], *LINES[5:]], [*"abcdijk"], 1)
    assert read(path, longest=4)[2] == 0 and read(path)[2] is None
    assert read(path, longest=4)[:2] == read(path)[:2]


def test_the_limit_counts_what_is_kept(path):
    assert read(path, longest=2, limit=3) == (["d", "a b", "b b"], ["d", "a", "b"], 2)


def test_the_vocabulary_is_limited_after_that(path):
    """Of `d a b b b c`, b is the most frequent word."""
    assert read(path, longest=2, vocab_limit=1) == (["<unk>", "<unk> b", "b b", "<unk>"], ["b"], 3)


def test_marks_are_no_words(tmp_path):
    (tmp_path / "x.txt").write_text("<s> a b </s>\na b c\n")
    assert read(tmp_path / "x.txt", longest=2) == (["a b"], ["a", "b"], 1)


def test_none_is_short_enough(path):
    path.write_text("a b c\nd e\n")
    with pytest.raises(UserError, match="lines.txt: every sentence has more than 1 words; .*--max_train_length"):
        read_corpus(path, longest=1)


def test_how_many_is_said(path):
    told = {n: TextSplit(read_corpus(path, longest=n)[0], 4).about() for n in (None, 2, 4)}
    assert "left_out" not in told[None] and [told[n].pop("left_out") for n in (2, 4)] == [3, 0]
    assert told[4] == told[None]
    (line,) = lines_of({"event": "data", "splits": {"train": {**told[2], "left_out": 1234}}, "vocabulary": 8}, True)
    assert line == (
        "data: train 4 sentences of 1 to 2 words, 6 in all, 0.00% <unk>, 1,234 longer ones left out; vocabulary 8"
    )


def test_a_run_on_short_sentences(call, workspace):
    """Validation and test keep theirs; the line and the event say how many there are; a resume asks for the same."""
    lines = (workspace / "datasets/tiny_data/tiny.train.txt").read_text().splitlines()
    longer = sum(len(line.split()) > 2 for line in lines)
    assert 0 < longer < len(lines)
    ran = call(text.main, *ARGS, "--max_train_length", 2, cwd=workspace)
    assert (ran.returncode, ran.stderr) == (0, "")
    (line,) = (line for line in ran.stdout.splitlines() if line.startswith("data: "))
    assert f"<unk>, {longer} longer ones left out; val 20 sentences" in line and line.count("left out") == 1
    (data,) = (event["splits"] for event in events(workspace, RUN_ID) if event["event"] == "data")
    assert data["train"]["sentences"] + longer == len(lines)
    assert (data["train"]["longest"], data["train"]["left_out"], data["val"]["longest"]) == (2, longer, 4)
    assert "left_out" not in {**data["val"], **data["test"]}
    assert events(workspace, RUN_ID)[0]["args"]["max_train_length"] == 2
    other = call(text.main, *ARGS, "--max_train_length", 3, "--resume", cwd=workspace)
    assert_refused(other, "max_train_length = 2, not 3")


def test_the_toy_study_follows_sentences_that_it_trains_on(call, workspace, monkeypatch):
    followed = []
    monkeypatch.setattr("modules.training.loop.Trainer.fit", lambda trainer: followed.append(trainer.observer))
    flags = ("--dataset", "tiny", "--num_plot", 7, "--max_train_length", 2)
    assert call(toy.main, *flags, cwd=workspace).returncode == 0
    lines = [line.split() for line in (workspace / "datasets/tiny_data/tiny.train.txt").read_text().splitlines()]
    first = sorted(len(words) for words in [words for words in lines if len(words) <= 2][:7])
    assert sorted(batch.size(1) - 2 for batch in followed[0].sentences for _ in batch) == first
