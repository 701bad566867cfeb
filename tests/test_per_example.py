"""The figures of each example (`--per_example`): against each one by itself, in the order of the file."""

import csv
import math
import re

import pytest
import torch
from torch.distributions import Normal, kl_divergence

import image
import text
from modules.data.corpus import TextSplit, Vocabulary, read_corpus
from modules.data.images import ImageSplit
from modules.domains.image_domain import IMAGE
from modules.domains.image_domain import build_vae as build_image_vae
from modules.domains.text_domain import TEXT, build_vae
from modules.evaluation.examples import Examples
from modules.evaluation.metrics import evaluate, importance_weighted_nll, posteriors
from tests.conftest import assert_refused, make_image_workspace, make_workspace

SAMPLES, SEED = 6, 5
LINES = ["b a b a", "a", "", "c a", "b", "new a new b", "c c c c", "b a", "   ", "a c new"]
SENTENCES = [line.split() for line in LINES if line.strip()]


def read(path):
    """The rows of a CSV file as dicts, and its header."""
    with open(path, newline="", encoding="utf-8") as stream:
        rows = csv.DictReader(stream)
        return [{name: float(value) for name, value in row.items()} for row in rows], rows.fieldnames


def with_large_weights(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.3 if "encoder" in name else 1.0)
    return model.double().eval()


@pytest.fixture
def texts(tmp_path):
    """(model, split, the x of each example in the order of the file, their places in the order of the batches)"""
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"{line}\n" for line in LINES))
    vocabulary = Vocabulary([*Vocabulary().words, "a", "b", "c"])
    corpus, _ = read_corpus(path, vocabulary)
    model = with_large_weights(
        build_vae(TEXT.settings(nz=3, ni=4, enc_nh=5, dec_nh=5, dec_dropout_in=0.0, dec_dropout_out=0.0), vocabulary)
    )
    ids = {**vocabulary.ids, "new": vocabulary.unk}
    each = [torch.tensor([[vocabulary.bos, *(ids[word] for word in words), vocabulary.eos]]) for words in SENTENCES]
    places = sorted(range(len(each)), key=lambda i: each[i].size(1))
    return model, TextSplit(corpus, 2), each, places


@pytest.fixture
def pictures():
    """The same of images."""
    x = torch.rand(5, 1, 4, 3, generator=torch.Generator().manual_seed(1)).round().double()
    s = IMAGE.settings(
        img_size=[1, 4, 3], nz=2, enc_layers=[4], dec_kernel_size=[3, 3], dec_layers=[4, 4], latent_feature_map=1
    )
    model = with_large_weights(build_image_vae(s))
    return model, ImageSplit(x, 2), list(x.split(1)), range(5)


@pytest.mark.parametrize("domain", ["texts", "pictures"])
@torch.no_grad()
def test_a_row_is_what_its_example_gives_by_itself(request, tmp_path, domain):
    model, split, each, places = request.getfixturevalue(domain)
    examples = Examples()
    measured = evaluate(model, split, SEED, keep=examples)
    nll = importance_weighted_nll(model, split, SAMPLES, 1000, SEED, keep=examples)
    examples.write(tmp_path / "each.csv", split)
    rows, _ = read(tmp_path / "each.csv")
    assert [row["index"] for row in rows] == list(range(len(each)))
    z = torch.cat([z for _, _, z in posteriors(model, split, SEED)])
    generator, nz = torch.Generator().manual_seed(SEED), z.size(1)
    noise = torch.cat([torch.randn(len(x), SAMPLES, nz, generator=generator, dtype=torch.float64) for x in split])
    for place, its_z, its_noise in zip(places, z, noise, strict=True):
        x, row = each[place], rows[place]
        mean, logvar = model.encoder(x)
        q, prior = Normal(mean, (0.5 * logvar).exp()), Normal(torch.zeros(nz).double(), 1.0)
        assert row["kl"] == pytest.approx(float(kl_divergence(q, prior).sum()))
        assert row["reconstruction"] == pytest.approx(float(model.decoder.reconstruction(x, its_z.view(1, 1, nz))))
        weights = []
        for eps in its_noise:
            draw = mean + (0.5 * logvar).exp() * eps
            likelihood = -model.decoder.reconstruction(x, draw.unsqueeze(1))
            weights.append(math.exp(likelihood + prior.log_prob(draw).sum() - q.log_prob(draw).sum()))
        assert row["iw_nll"] == pytest.approx(-math.log(sum(weights) / SAMPLES))
    assert len({row["iw_nll"] for row in rows}) > 3
    for name, whole in (("iw_nll", nll), ("kl", measured.kl), ("reconstruction", measured.reconstruction)):
        assert sum(row[name] for row in rows) / len(rows) == pytest.approx(whole, rel=1e-12)


def test_words_and_unk_are_those_of_the_lines(texts, tmp_path):
    model, split, _, _ = texts
    examples = Examples()
    evaluate(model, split, SEED, keep=examples)
    importance_weighted_nll(model, split, 1, 10, SEED, keep=examples)
    examples.write(tmp_path / "each.csv", split)
    rows, header = read(tmp_path / "each.csv")
    assert header == ["index", "iw_nll", "kl", "reconstruction", "words", "unk"]
    assert [(row["words"], row["unk"]) for row in rows] == [(len(words), words.count("new")) for words in SENTENCES]


# ---------------------------------------------------------------------- the command

SCRIPTS = {
    "text": (text.main, "tiny", make_workspace, 22),
    "image": (image.main, "tinyimages", make_image_workspace, 9),
}


@pytest.mark.parametrize("domain", SCRIPTS)
def test_the_command_prints_the_same_and_writes_a_row_for_each_example(call, tmp_path, domain):
    main, dataset, make, size = SCRIPTS[domain]
    folder = make(tmp_path / "workspace")
    args = ("--dataset", dataset, "--iw_nsamples", 7, "--iw_batch", 9)
    assert call(main, *args, "--epochs", 1, cwd=folder).returncode == 0
    (model,) = (folder / "models" / dataset).glob("*_783435.pt")
    args += ("--eval", "--load_path", model)
    plain = call(main, *args, cwd=folder)
    ran = call(main, *args, "--per_example", "new/each.csv", cwd=folder)
    assert ran == (0, plain.stdout + "wrote new/each.csv\n", "")
    rows, header = read(folder / "new" / "each.csv")
    assert header == ["index", "iw_nll", "kl", "reconstruction"] + ["words", "unk"] * (domain == "text")
    assert [row["index"] for row in rows] == list(range(size))
    for name, printed in (("iw_nll", "iw nll"), ("kl", "kl"), ("reconstruction", "recon")):
        figure = float(re.search(rf"\b{printed}: (-?\d+\.\d+)", ran.stdout)[1])
        assert sum(row[name] for row in rows) / size == pytest.approx(figure, abs=6e-5)
    if domain == "text":
        lines = (folder / "datasets" / "tiny_data" / "tiny.test.txt").read_text().splitlines()
        assert [row["words"] for row in rows] == [len(line.split()) for line in lines]
        assert [row["unk"] for row in rows] == [0] * 21 + [3]


def test_what_is_refused(call, workspace, monkeypatch):
    args = ("--dataset", "tiny", "--per_example", "each.csv")
    assert_refused(call(text.main, *args, cwd=workspace), "--per_example", "--eval")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    ran = call(text.main, *args, "--eval", "--load_path", "m.pt", cwd=workspace)
    assert_refused(ran, "--per_example", "without torchrun")


def test_a_file_that_cannot_be_written(call, workspace):
    args = ("--dataset", "tiny", "--iw_nsamples", 2)
    assert call(text.main, *args, "--epochs", 1, cwd=workspace).returncode == 0
    (model,) = (workspace / "models" / "tiny").glob("*_783435.pt")
    (workspace / "config.csv").mkdir()
    ran = call(text.main, *args, "--eval", "--load_path", model, "--per_example", "config.csv", cwd=workspace)
    assert ran.returncode == 2
    assert ran.stderr == "error: cannot write config.csv: Is a directory; it is a folder; name a file\n"
    saved = model.read_bytes()
    assert_refused(
        call(text.main, *args, "--eval", "--load_path", model, "--per_example", model, cwd=workspace), ".csv"
    )
    assert model.read_bytes() == saved
