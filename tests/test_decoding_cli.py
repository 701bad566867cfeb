"""text.py --decode_from and --encode as people run them: what they write and print, and how they refuse bad input."""

import math
import os
import re
import shutil
from collections import Counter

import numpy as np
import pytest
import torch

import text
from modules.checkpoint import load_checkpoint, save_checkpoint
from modules.data.corpus import Vocabulary
from modules.domains.text_domain import TEXT, build_vae
from modules.generation import reconstruction
from modules.generation import search as generation
from modules.generation import sentences as decoding
from tests.conftest import make_workspace, run_script

LINES = ["red green", "", "never seen words", "one", "blue red blue green red red red", "  ", "two two three\r", "one"]
WORDS = [line.split() for line in LINES]
KNOWN = {"red", "green", "blue", "one", "two", "three"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a trained model, m.pt, made sharp enough for different sentences to get different z."""
    folder = make_workspace(tmp_path_factory.mktemp("decoding") / "workspace")
    ran = run_script("text.py", "--dataset", "tiny", "--iw_nsamples", 2, "--epochs", 1, cwd=folder)
    assert (ran.returncode, ran.stderr) == (0, "")
    content = load_checkpoint(next((folder / "models" / "tiny").glob("*_783435.pt")), "text")
    generator = torch.Generator().manual_seed(3)
    for name, weight in content["model"].items():
        content["model"][name] = 1.5 * torch.randn(weight.shape, generator=generator)
    save_checkpoint(folder / "m.pt", content)
    shutil.rmtree(folder / "datasets")  # the model has all that is needed
    (folder / "lines.txt").write_text("".join(f"{line}\n" for line in LINES), newline="")
    return folder


@pytest.fixture
def decode(call, trained, tmp_path):
    """`decode(*flags)`: text.py with that model; returns (what it printed, {file in a fresh `samples/`: lines})."""

    def run(*flags):
        shutil.rmtree(trained / "samples", ignore_errors=True)
        ran = call(text.main, "--dataset", "tiny", *flags, cwd=trained)
        assert (ran.returncode, ran.stderr) == (0, "")
        return ran.stdout, {
            path.name: path.read_text().split("\n")[:-1] if path.suffix != ".npz" else np.load(path)
            for path in (trained / "samples").iterdir()
        }

    return run


def sentences(decode, *flags):
    """The lines of the one file that these flags make."""
    (lines,) = decode("--decode_from", "m.pt", *flags)[1].values()
    return lines


def model_of(folder):
    content = load_checkpoint(folder / "m.pt", "text")
    vocabulary = Vocabulary(content["vocabulary"])
    model = build_vae(TEXT.settings(**content["args"]), vocabulary).eval()
    model.load_state_dict(content["model"])
    return model, vocabulary


@torch.no_grad()
def encoded(folder, words):
    """Mean and log-variance of one sentence."""
    model, vocabulary = model_of(folder)
    ids = [vocabulary.bos, *(vocabulary.ids.get(word, vocabulary.unk) for word in words), vocabulary.eos]
    return model.encoder(torch.tensor([ids]))


# ---------------------------------------------------------------------- from the prior


@pytest.mark.parametrize("strategy", ["greedy", "beam", "sample"])
def test_a_hundred_sentences_from_the_prior(decode, strategy):
    printed, files = decode("--decode_from", "m.pt", "--decoding_strategy", strategy)
    assert printed == f"wrote samples/m_{strategy}.sample\n"
    (lines,) = files.values()
    assert len(lines) == 100 and len(set(lines)) > 3
    assert set(" ".join(lines).split()) <= KNOWN | {"<unk>"}


@pytest.mark.parametrize("strategy", ["greedy", "beam", "sample"])
def test_the_seed_decides_and_the_limits_hold(decode, strategy):
    flags = ("--decoding_strategy", strategy, "--num_samples", 7, "--max_length", 3)
    lines = sentences(decode, *flags, "--seed", 1)
    assert len(lines) == 7 and max(len(line.split()) for line in lines) == 3
    assert sentences(decode, *flags, "--seed", 1) == lines
    assert sentences(decode, *flags, "--seed", 2) != lines
    assert sentences(decode, *flags, "--taskid", 1) == sentences(decode, *flags, "--seed", 101)


def test_the_flags_reach_the_strategies(decode):
    greedy = sentences(decode)
    assert sentences(decode, "--decoding_strategy", "beam", "--beam_size", 1) == greedy
    assert sentences(decode, "--decoding_strategy", "beam") != greedy
    drawn = sentences(decode, "--decoding_strategy", "sample")
    assert drawn != greedy
    for flags in (("--top_k", 1), ("--top_p", 1e-6), ("--temperature", 1e-3)):
        assert sentences(decode, "--decoding_strategy", "sample", *flags) == greedy


def test_the_words_are_drawn_with_other_numbers_than_z(decode, monkeypatch):
    """With the same ones, the first word of a sentence would follow from its z."""
    states = []
    sample = generation.sample

    def recorded(*args):
        states.extend(arg.get_state() for arg in args if isinstance(arg, torch.Generator))
        return sample(*args)

    monkeypatch.setattr(generation, "sample", recorded)
    sentences(decode, "--decoding_strategy", "sample", "--seed", 1)
    (state,) = states
    assert not torch.equal(state, torch.Generator().manual_seed(1).get_state())


def test_parts_of_the_progress_bar_change_nothing(decode, monkeypatch):
    for strategy in ("greedy", "beam", "sample"):
        whole = sentences(decode, "--decoding_strategy", strategy, "--num_samples", 23)
        monkeypatch.setattr("modules.generation.sentences.PART", 5)
        assert sentences(decode, "--decoding_strategy", strategy, "--num_samples", 23) == whole
        monkeypatch.undo()


# ---------------------------------------------------------------------- reconstruction


def test_one_line_for_each_line_in_order(decode, trained):
    """Empty lines, lines of unknown words, CRLF; each is what its own mean gives, alone."""
    printed, files = decode("--decode_from", "m.pt", "--decode_input", "lines.txt", "--decode_mean", "--max_length", 9)
    assert list(files) == ["m_greedy_lines.mean.rec"] and printed.startswith(
        "wrote samples/m_greedy_lines.mean.rec\nexact match "
    )
    model, vocabulary = model_of(trained)
    expected = [
        vocabulary.sentence(generation.greedy(model.decoder, encoded(trained, words)[0], vocabulary, 9)[0].tolist())
        for words in WORDS
    ]
    assert files["m_greedy_lines.mean.rec"] == expected
    assert expected[1] == expected[5] and expected[3] == expected[7] and len(set(expected)) > 2


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_the_last_line_needs_no_end(decode, trained, ending):
    (trained / "few.txt").write_text(f"red\n\none{ending}", newline="")
    assert len(sentences(decode, "--decode_input", "few.txt")) == 3


def test_only_a_line_feed_ends_a_line(decode, trained):
    (trained / "few.txt").write_bytes("red\rgreen\none\x0btwo\x85three\n".encode())
    assert len(sentences(decode, "--decode_input", "few.txt")) == 2


def test_reconstructions_may_be_as_long_as_the_longest_line(decode, trained, monkeypatch):
    (trained / "few.txt").write_text("red\n" + "one " * 130 + "\n")
    monkeypatch.setattr(
        generation,
        "greedy",
        lambda decoder, z, vocabulary, max_length: torch.full((len(z), max_length), vocabulary.unk),
    )
    assert [len(line.split()) for line in sentences(decode, "--decode_input", "few.txt")] == [130, 130]
    flags = ("--decode_input", "few.txt", "--max_length", 7)
    assert [len(line.split()) for line in sentences(decode, *flags)] == [7, 7]
    assert [len(line.split()) for line in sentences(decode, "--num_samples", 2)] == [100, 100]


def test_a_file_of_empty_lines(decode, trained):
    (trained / "few.txt").write_text("\n\n")
    printed, files = decode("--decode_from", "m.pt", "--decode_input", "few.txt")
    assert len(files["m_greedy_few.rec"]) == 2
    assert re.search(
        r"exact match \d+\.\d\d%, token accuracy \d+\.\d\d%, \d distinct of 2, 0\.00% of the words <unk>\n", printed
    )


def test_the_mean_needs_no_seed_and_the_sample_does(decode):
    flags = ("--decode_input", "lines.txt")
    mean = sentences(decode, *flags, "--decode_mean", "--seed", 1)
    assert sentences(decode, *flags, "--decode_mean", "--seed", 2) == mean
    drawn = sentences(decode, *flags, "--seed", 1)
    assert sentences(decode, *flags, "--seed", 1) == drawn
    assert len({tuple(sentences(decode, *flags, "--seed", seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize("labels", [True, False])
def test_labels_are_ignored_where_the_config_says_so(decode, trained, labels):
    content = load_checkpoint(trained / "m.pt", "text")
    save_checkpoint(trained / "labels.pt", {**content, "args": {**content["args"], "label": labels}})
    (trained / "few.txt").write_text("5\tred green\nred green\n5\t\n\n")
    (lines,) = decode("--decode_from", "labels.pt", "--decode_input", "few.txt", "--decode_mean")[1].values()
    means = decode("--encode", "few.txt", "--load_path", "labels.pt")[1]["labels_few.npz"]["mean"]
    assert len(lines) == 4
    assert np.allclose(means[0], means[1], atol=1e-6) == np.allclose(means[2], means[3], atol=1e-6) == labels


def test_the_report_is_of_what_was_written(decode):
    printed, files = decode("--decode_from", "m.pt", "--decode_input", "lines.txt")
    originals = [" ".join(word if word in KNOWN else "<unk>" for word in words) for words in WORDS]
    assert printed.splitlines()[1] == reconstruction.describe(originals, files["m_greedy_lines.rec"])


ORIGINALS = ["a b c d e", "a a b", "", "c d e f g h"]
OUTPUTS = ["a b c d e", "a b b c", "", "c d e f x"]


def plain_bleu(originals, outputs):
    """Corpus BLEU-4, written out: clipped n-gram counts over the corpus, geometric mean, brevity penalty."""
    log_precision = 0.0
    for n in range(1, 5):
        right = total = 0
        for original, output in zip(originals, outputs):
            grams = [Counter(zip(*(line.split()[i:] for i in range(n)))) for line in (original, output)]
            right += (grams[0] & grams[1]).total()
            total += grams[1].total()
        log_precision += math.log(right / total) / 4
    lengths = [sum(len(line.split()) for line in lines) for lines in (originals, outputs)]
    return 100 * math.exp(log_precision + min(0, 1 - lengths[0] / lengths[1]))


def test_the_report_against_counts_by_hand():
    """Positions that agree, ends counted: 6 of 6, 2 of 4 (a, b at the third), 1 of 1, 4 of 7."""
    assert reconstruction.exact_match(ORIGINALS, OUTPUTS) == 2 / 4
    assert reconstruction.token_accuracy(ORIGINALS, OUTPUTS) == (6 + 2 + 1 + 4) / (6 + 4 + 1 + 7)
    by_hand = 100 * (11 / 14 * 8 / 11 * 5 / 8 * 3 / 5) ** 0.25
    assert plain_bleu(ORIGINALS, OUTPUTS) == pytest.approx(by_hand)
    assert reconstruction.bleu(ORIGINALS, OUTPUTS) == pytest.approx(by_hand)
    assert reconstruction.describe(ORIGINALS, OUTPUTS) == (
        f"exact match 50.00%, token accuracy 72.22%, BLEU {by_hand:.2f}, 4 distinct of 4, 0.00% of the words <unk>"
    )
    assert reconstruction.token_accuracy(["a <unk> b"], ["a <unk> c"]) == 2 / 4  # a and the end
    assert reconstruction.exact_match(["a", "<unk>"], ["a", "<unk>"]) == 1 / 2
    assert reconstruction.describe(["a <unk>"], ["a b"]).endswith("1 distinct of 1, 50.00% of the words <unk>")
    short = [line.rpartition(" ")[0] for line in ORIGINALS]
    assert reconstruction.bleu(ORIGINALS, short) == pytest.approx(plain_bleu(ORIGINALS, short))
    assert reconstruction.bleu(ORIGINALS, short) < 100 * math.exp(-0.2)


def test_without_unk(decode, trained):
    """A model that says `<unk>` where the other says green."""
    content = load_checkpoint(trained / "m.pt", "text")
    green = content["vocabulary"].index("green")
    weight = content["model"]["decoder.pred_linear.weight"]
    weight[[3, green]] = weight[[green, 3]]
    save_checkpoint(trained / "unk.pt", content)
    for strategy in ("greedy", "beam", "sample"):
        for source in ([], ["--decode_input", "lines.txt", "--decode_mean"]):
            flags = ("--decode_from", "unk.pt", "--decoding_strategy", strategy, *source)
            for more, says_unk in (([], True), (["--no_unk"], False)):
                (lines,) = decode(*flags, *more)[1].values()
                assert ("<unk>" in " ".join(lines).split()) == says_unk


def test_several_draws_for_each_line_stand_one_below_the_other(decode, trained):
    """Each is what its own z gives, alone; the report is of them all."""
    flags = ("--decode_input", "lines.txt", "--num_samples", 3, "--max_length", 9)
    printed, files = decode("--decode_from", "m.pt", *flags)
    model, vocabulary = model_of(trained)
    noise = torch.randn(8, 3, 2, generator=torch.Generator().manual_seed(783435))
    expected = []
    for words, draws in zip(WORDS, noise):
        mean, logvar = encoded(trained, words)
        for eps in draws:
            tokens = generation.greedy(model.decoder, mean + (0.5 * logvar).exp() * eps, vocabulary, 9)
            expected.append(vocabulary.sentence(tokens[0].tolist()))
    assert files["m_greedy_lines.rec"] == expected
    assert any(len(set(expected[i : i + 3])) > 1 for i in range(0, 24, 3))
    originals = [" ".join(word if word in KNOWN else "<unk>" for word in words) for words in WORDS for _ in range(3)]
    assert printed.splitlines()[1] == reconstruction.describe(originals, expected)


def test_one_draw_for_each_line_is_what_there_is_without_asking(decode):
    flags = ("--decode_input", "lines.txt", "--decoding_strategy", "sample")
    assert sentences(decode, *flags, "--num_samples", 1) == sentences(decode, *flags)


# ---------------------------------------------------------------------- points from a file


def write_points(folder, points, name="points.npz"):
    np.savez(folder / name, mean=points, other=np.zeros(3))


@pytest.mark.parametrize("strategy", ["greedy", "beam", "sample"])
def test_encoded_lines_decode_to_their_reconstructions(decode, trained, strategy):
    flags = ("--decoding_strategy", strategy, "--max_length", 9)
    arrays = decode("--encode", "lines.txt", "--load_path", "m.pt")[1]["m_lines.npz"]
    np.savez(trained / "points.npz", **arrays)
    printed, files = decode("--decode_from", "m.pt", "--z", "points.npz", *flags)
    assert printed == f"wrote samples/m_{strategy}_points.decoded\n"
    expected = sentences(decode, "--decode_input", "lines.txt", "--decode_mean", *flags)
    assert files[f"m_{strategy}_points.decoded"] == expected and len(set(expected)) > 1


@pytest.mark.parametrize("kind", ["float64", "int8"])
def test_points_are_decoded_in_their_order(decode, trained, kind):
    """Differences of points, of whatever type; each is what it gives alone."""
    encoded_lines = np.concatenate([encoded(trained, words)[0].numpy() for words in WORDS])
    points = (3 * (encoded_lines[:, None] - encoded_lines[None, ::-1])).reshape(-1, 2).astype(kind)
    write_points(trained, np.asfortranarray(points))
    model, vocabulary = model_of(trained)
    for strategy, search in (
        ("greedy", generation.greedy),
        ("beam", lambda *args: generation.beam_search(*args, 5)),
    ):
        expected = [
            vocabulary.sentence(search(model.decoder, z.unsqueeze(0), vocabulary, 9)[0].tolist())
            for z in torch.from_numpy(points.astype("float32"))
        ]
        flags = ("--decoding_strategy", strategy, "--max_length", 9)
        assert sentences(decode, "--z", "points.npz", *flags) == expected
        assert len(set(expected)) > 2


def test_sampled_sentences_of_points_follow_the_seed(decode, trained):
    write_points(trained, np.zeros((30, 2)))
    flags = ("--z", "points.npz", "--decoding_strategy", "sample")
    drawn = sentences(decode, *flags, "--seed", 1)
    assert len(drawn) == 30 and len(set(drawn)) > 3  # one point, other words
    assert sentences(decode, *flags, "--seed", 1) == drawn != sentences(decode, *flags, "--seed", 2)


# ---------------------------------------------------------------------- interpolation and encoding


def test_interpolation_begins_and_ends_at_the_reconstructions(decode):
    mean = sentences(decode, "--decode_input", "lines.txt", "--decode_mean")
    printed, files = decode(
        "--decode_from", "m.pt", "--decode_input", "lines.txt", "--decode_mean", "--interpolate", "--steps", 5
    )
    assert printed == "wrote samples/m_greedy_lines.interpolation\n"
    lines = files["m_greedy_lines.interpolation"]
    assert len(lines) == 4 * 5 + 3
    for pair in range(4):
        block = lines[6 * pair : 6 * pair + 5]
        assert (block[0], block[-1]) == (mean[2 * pair], mean[2 * pair + 1])
    assert [lines[i] for i in (5, 11, 17)] == ["", "", ""]


def test_interpolation_has_nine_steps_from_a_sample_unless_told_otherwise(decode):
    drawn = sentences(decode, "--decode_input", "lines.txt", "--seed", 4)
    lines = sentences(decode, "--decode_input", "lines.txt", "--interpolate", "--seed", 4)
    assert len(lines) == 4 * 9 + 3 and (lines[0], lines[8]) == (drawn[0], drawn[1])


def test_encoded_rows_are_those_of_the_lines(decode, trained):
    printed, files = decode("--encode", "lines.txt", "--load_path", "m.pt")
    assert printed == "wrote samples/m_lines.npz: mean and logvar, [8, 2] each\n"
    arrays = files["m_lines.npz"]
    assert sorted(arrays) == ["logvar", "mean"]
    for i, words in enumerate(WORDS):
        mean, logvar = encoded(trained, words)
        assert arrays["mean"][i] == pytest.approx(mean[0].numpy(), abs=1e-5)
        assert arrays["logvar"][i] == pytest.approx(logvar[0].numpy(), abs=1e-5)


# ---------------------------------------------------------------------- bad input


@pytest.fixture
def refused(call, trained):
    """`refused(*flags, names=...)`: exit code 2, one line that holds the names, and the files as they were."""

    def run(*flags, names=()):
        shutil.rmtree(trained / "samples", ignore_errors=True)
        kept = {
            "m_greedy.rec": "rec",
            "m_greedy.sample": "sample",
            "m_greedy_lines.interpolation": "between",
            "m_x.npz": "x",
        }
        (trained / "samples").mkdir()
        for name, content in kept.items():
            (trained / "samples" / name).write_text(content)
        ran = call(text.main, "--dataset", "tiny", *flags, cwd=trained)
        assert ran.returncode == 2
        assert len(ran.stderr.splitlines()) == 1 and "Traceback" not in ran.stderr
        assert all(str(name) in ran.stderr for name in names), ran.stderr
        assert {path.name: path.read_text() for path in (trained / "samples").iterdir()} == kept

    return run


FROM = ("--decode_from", "m.pt")


@pytest.mark.parametrize(
    "flags, names",
    [
        (["--decode_from", "missing.pt"], ["missing.pt"]),
        (["--decode_from", "config"], ["config", "folder"]),
        (["--decode_from", "lines.txt"], ["lines.txt"]),
        ([*FROM, "--decode_input", "missing.txt"], ["missing.txt: no such file\n"]),
        ([*FROM, "--decode_input", "config"], ["config"]),
        (["--decode_input", "lines.txt"], ["--decode_input", "--decode_from"]),
        ([*FROM, "--interpolate"], ["--interpolate", "--decode_input"]),
        ([*FROM, "--encode", "lines.txt"], ["--encode"]),
        ([*FROM, "--eval"], ["--eval"]),
        ([*FROM, "--eval", "--load_path", "m.pt"], ["--decode_from", "--eval"]),
        ([*FROM, "--encode", "lines.txt", "--load_path", "m.pt"], ["--decode_from", "--encode"]),
        ([*FROM, "--load_path", "m.pt"], ["--load_path", "--eval or --encode"]),
        (["--encode", "lines.txt"], ["--encode", "--load_path"]),
        (["--encode", "lines.txt", "--load_path", "m.pt", "--eval"], ["--encode", "--eval"]),
        (["--encode", "missing.txt", "--load_path", "m.pt"], ["missing.txt"]),
        ([*FROM, "--decode_mean"], ["--decode_mean", "--decode_input"]),
        ([*FROM, "--resume"], ["--resume", "--decode_from"]),
        (["--eval", "--load_path", "m.pt", "--overwrite"], ["--overwrite", "--eval"]),
        ([*FROM, "--top_k", "3"], ["--top_k", "sample"]),
        ([*FROM, "--top_p", "0.5", "--decoding_strategy", "beam"], ["--top_p", "sample"]),
        ([*FROM, "--temperature", "0.5"], ["--temperature", "sample"]),
        ([*FROM, "--max_length", "1000000000"], ["memory", "--max_length"]),
        (["--z", "x.npz"], ["--z", "--decode_from"]),
        (["--no_unk"], ["--no_unk", "--decode_from"]),
        (["--encode", "lines.txt", "--load_path", "m.pt", "--z", "x.npz"], ["--z", "--decode_from"]),
        ([*FROM, "--z", "missing.npz"], ["missing.npz: no such file", "mean"]),
        ([*FROM, "--z", "config"], ["config"]),
        ([*FROM, "--z", "x.npz", "--decode_input", "lines.txt"], ["--z", "--decode_input"]),
        ([*FROM, "--z", "x.npz", "--num_samples", "3"], ["--z", "--num_samples"]),
        ([*FROM, "--z", "x.npz", "--interpolate"], ["--interpolate", "--decode_input"]),
        (
            [*FROM, "--decode_input", "lines.txt", "--num_samples", "3", "--decode_mean"],
            ["--num_samples", "--decode_mean"],
        ),
        (
            [*FROM, "--decode_input", "lines.txt", "--num_samples", "1", "--interpolate"],
            ["--num_samples", "--interpolate"],
        ),
    ],
    ids=" ".join,
)
def test_bad_commands(refused, flags, names):
    refused(*flags, names=names)


@pytest.mark.parametrize(
    "flag, value",
    [
        ("--top_p", "0"),
        ("--top_p", "1.1"),
        ("--top_p", "nan"),
        ("--top_k", "0"),
        ("--temperature", "0"),
        ("--temperature", "-1"),
        ("--temperature", "inf"),
        ("--temperature", "1e-45"),
        ("--temperature", "1e39"),
        ("--beam_size", "0"),
        ("--max_length", "0"),
        ("--num_samples", "0"),
        ("--steps", "1"),
        ("--decoding_strategy", "best"),
    ],
)
def test_bad_values(refused, flag, value):
    refused(*FROM, flag, value, names=[flag, value])


@pytest.mark.parametrize(
    "content, names", [(b"", ["empty"]), (b"red\ncaf\xe9\n", ["line 2", "UTF-8"])], ids=["empty", "not UTF-8"]
)
@pytest.mark.parametrize(
    "flags",
    [(*FROM, "--decode_input"), (*FROM, "--interpolate", "--decode_input"), ("--load_path", "m.pt", "--encode")],
)
def test_bad_files(refused, trained, flags, content, names):
    (trained / "bad.txt").write_bytes(content)
    refused(*flags, "bad.txt", names=["bad.txt", *names])


@pytest.mark.parametrize(
    "points, names",
    [
        (np.zeros((4, 3)), ["3 dimensions", "has 2"]),
        (np.zeros((4, 0)), ["0 dimensions", "has 2"]),
        (np.zeros(2), ["[2]", "[n, nz]"]),
        (np.zeros((0, 2)), ["[0, 2]"]),
        (np.zeros((2, 2, 2)), ["[2, 2, 2]"]),
        (np.array([[0, 1], [2, np.nan], [np.inf, 1]]), ["row 1", "finite"]),
        (np.array([[0, -1e300]]), ["row 0", "finite"]),
        (np.array([["a", "b"]]), ["U1"]),
        (np.array([[1j, 1]]), ["complex"]),
        (np.array([[{}, 1]]), ["damaged", "mean"]),
    ],
    ids=lambda value: f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else "",
)
def test_bad_points(refused, trained, points, names):
    write_points(trained, points, "bad.npz")
    refused(*FROM, "--z", "bad.npz", names=["bad.npz", *names])


def test_files_without_points(refused, trained):
    np.savez(trained / "bad.npz", np.zeros((3, 2)))
    refused(*FROM, "--z", "bad.npz", names=["bad.npz", "mean"])
    np.save(trained / "bad.npy", np.zeros((3, 2)))
    refused(*FROM, "--z", "bad.npy", names=["bad.npy", "npz", "mean"])
    write_points(trained, np.zeros((300, 2)), "bad.npz")
    whole = (trained / "bad.npz").read_bytes()
    for content in (b"", b"text", whole[:200], whole[:-50]):
        (trained / "bad.npz").write_bytes(content)
        refused(*FROM, "--z", "bad.npz", names=["bad.npz", "mean"])


def test_an_odd_line_has_no_partner(refused, trained):
    (trained / "few.txt").write_text("red\n\none\n")
    refused(*FROM, "--decode_input", "few.txt", "--interpolate", names=["few.txt", "3 lines", "pairs"])


def test_a_real_process(trained):
    """No progress bar where nobody looks."""
    ran = run_script("text.py", "--dataset", "tiny", *FROM, "--decoding_strategy", "beam", cwd=trained)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "wrote samples/m_beam.sample\n", "")


def test_special_words_in_a_line_are_unknown_words(decode, trained, monkeypatch):
    """A `</s>` that somebody wrote neither ends the line nor makes an empty output an exact match."""
    (trained / "few.txt").write_text("</s> red\n<pad> <s>\n")
    seen = []
    monkeypatch.setattr(decoding, "describe", lambda originals, outputs: seen.extend(originals))
    decode("--decode_from", "m.pt", "--decode_input", "few.txt")
    assert seen == ["<unk> red", "<unk> <unk>"]


def test_lines_may_come_through_a_pipe(call, trained):
    read, write = os.pipe()
    os.write(write, b"red\none\n")
    os.close(write)
    ran = call(text.main, "--dataset", "tiny", *FROM, "--decode_input", f"/dev/fd/{read}", cwd=trained)
    os.close(read)
    assert ran.returncode == 0, ran.stderr
