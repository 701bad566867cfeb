"""Plain state dicts with the names of the authors' public code, written out here by hand: text and image models."""

import os
import re
from pathlib import Path

import pytest
import torch

import image
import text
from modules.checkpoint import save_checkpoint
from modules.data.corpus import Vocabulary
from modules.domains.image_domain import IMAGE
from modules.domains.text_domain import TEXT
from modules.settings import parse
from tests.conftest import assert_refused, make_workspace
from tests.test_checkpoint import Hostile

WORDS, NZ, NI, NH = 6 + 4, 2, 6, 8  # of the tiny data set: six words and the special ones

TEXT_SHAPES = {
    "encoder.embed.weight": [WORDS, NI],
    "encoder.lstm.weight_ih_l0": [4 * NH, NI],
    "encoder.lstm.weight_hh_l0": [4 * NH, NH],
    "encoder.lstm.bias_ih_l0": [4 * NH],
    "encoder.lstm.bias_hh_l0": [4 * NH],
    "encoder.linear.weight": [2 * NZ, NH],
    "decoder.embed.weight": [WORDS, NI],
    "decoder.trans_linear.weight": [NH, NZ],
    "decoder.lstm.weight_ih_l0": [4 * NH, NI + NZ],
    "decoder.lstm.weight_hh_l0": [4 * NH, NH],
    "decoder.lstm.bias_ih_l0": [4 * NH],
    "decoder.lstm.bias_hh_l0": [4 * NH],
    "decoder.pred_linear.weight": [WORDS, NH],
}
IMAGE_CONFIG = """
params = {"img_size": [1, 6, 5], "nz": 3, "enc_layers": [4, 6], "dec_kernel_size": [5, 3, 3, 3], "dec_layers": [4] * 4,
          "latent_feature_map": 2, "batch_size": 4, "epochs": 1, "test_nepoch": 1, "data_file": "images.pt"}
"""


def random_tensors(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def text_weights():
    """A text model, with the constant that the authors' loss leaves in their files."""
    return {**random_tensors(TEXT_SHAPES), "decoder.loss.weight": torch.ones(WORDS)}


def image_weights():
    """An image model without counters of batches, masks beside the weights and the weights unmasked."""
    weights = {}
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return 0.3 * torch.randn(shape, generator=generator)

    def convolution(name, out, into, size, width=None):
        weights[f"{name}.weight"] = normal(out, into, size, width or size)

    def norm(name, channels):
        weights[f"{name}.weight"], weights[f"{name}.bias"] = 1 + normal(channels), normal(channels)
        weights[f"{name}.running_mean"], weights[f"{name}.running_var"] = normal(channels), 1 + normal(channels) ** 2

    def masked(name, out, into, size, channels, kind):
        convolution(name, out, into, size)
        mask = torch.ones(out, into, size, size)
        mask[:, :channels, size // 2, size // 2 + (kind == "B") :] = 0
        mask[:, :channels, size // 2 + 1 :] = 0
        weights[f"{name}.mask"] = mask

    def bottleneck(name, size):
        convolution(f"{name}.main.0", 2, 4, 1)
        norm(f"{name}.main.1", 2)
        masked(f"{name}.main.3", 2, 2, size, channels=2, kind="B")
        norm(f"{name}.main.4", 2)
        convolution(f"{name}.main.6", 4, 2, 1)
        norm(f"{name}.main.7", 4)

    for block, (into, out) in enumerate([(1, 4), (4, 6)]):
        name = f"encoder.main.0.main.{block}"
        convolution(f"{name}.conv1", out, into, 3)
        norm(f"{name}.bn1", out)
        convolution(f"{name}.conv2", out, out, 3)
        norm(f"{name}.bn2", out)
        convolution(f"{name}.downsample.0", out, into, 1)
        norm(f"{name}.downsample.1", out)
    convolution("encoder.main.1", 512, 6, 2, 2)  # 6 x 5 -> 3 x 3 -> 2 x 2
    norm("encoder.main.2", 512)
    weights["encoder.linear.weight"], weights["encoder.linear.bias"] = normal(6, 512), normal(6)
    weights["decoder.z_transform.0.weight"], weights["decoder.z_transform.0.bias"] = normal(2 * 30, 3), normal(2 * 30)
    masked("decoder.main.0.main.0.main.0", 4, 3, 5, channels=1, kind="A")
    norm("decoder.main.0.main.0.main.1", 4)
    for layer in (1, 2, 3):
        bottleneck(f"decoder.main.0.main.{layer}", 3)
    for skip in (0, 1):
        bottleneck(f"decoder.main.0.direct_connects.{skip}", 3)
    convolution("decoder.main.1", 4, 4, 1)
    norm("decoder.main.2", 4)
    convolution("decoder.main.4", 1, 4, 1)
    return weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tiny texts and images with their configs; `<domain>.pt` as the authors', `own_<domain>.pt` as this project's."""
    folder = make_workspace(tmp_path_factory.mktemp("authors") / "workspace")
    (folder / "config" / "config_pictures.py").write_text(IMAGE_CONFIG)
    generator = torch.Generator().manual_seed(0)
    torch.save([torch.rand(n, 1, 6, 5, generator=generator).round() for n in (8, 4, 7)], folder / "images.pt")
    torch.save(text_weights(), folder / "text.pt")
    torch.save(image_weights(), folder / "image.pt")
    train = (folder / "datasets" / "tiny_data" / "tiny.train.txt").read_text()
    vocabulary = ["<pad>", "<s>", "</s>", "<unk>", *dict.fromkeys(train.split())]
    assert len(vocabulary) == WORDS
    here = Path.cwd()
    os.chdir(folder)
    try:
        for domain, its, dataset, more in [
            ("text", TEXT, "tiny", {"vocabulary": vocabulary}),
            ("image", IMAGE, "pictures", {}),
        ]:
            s = parse(its.groups, "", ["--dataset", dataset])
            model = its.build(s, Vocabulary(vocabulary), None)
            own, theirs = model.state_dict(), torch.load(f"{domain}.pt", weights_only=True)
            for name, value in own.items():
                if name in theirs:
                    value.copy_(theirs[name] * theirs.get(f"{name.removesuffix('weight')}mask", torch.ones(())))
            save_checkpoint(f"own_{domain}.pt", {"domain": domain, "args": s.record(), "model": own, **more})
    finally:
        os.chdir(here)
    return folder


MAINS = {"text": (text.main, "tiny"), "image": (image.main, "pictures")}


@pytest.fixture
def run(call, folder):
    """`run(domain, *flags)`: its script on its data set."""

    def run(domain, *flags):
        main, dataset = MAINS[domain]
        return call(main, "--dataset", dataset, *flags, cwd=folder)

    return run


@pytest.fixture
def refused(run):
    """`refused(domain, path)`: the one line on standard error with which loading it ends."""

    def refused(domain, path, flag="--load_path"):
        ran = run(domain, flag, path, *(["--eval"] if flag == "--load_path" else []))
        assert ran.returncode == 2
        assert len(ran.stderr.splitlines()) == 1 and "Traceback" not in ran.stderr and len(ran.stderr) < 1000
        assert path in ran.stderr
        return ran.stderr

    return refused


# ---------------------------------------------------------------------- the same model


@pytest.mark.parametrize(
    "domain, recognised",
    [
        ("text", "14 tensors; read with the config of tiny and the 10 words of datasets/tiny_data/tiny.train.txt"),
        ("image", "131 tensors; read with the config of pictures"),
    ],
)
def test_the_same_figures(run, domain, recognised):
    theirs = run(domain, "--eval", "--load_path", f"{domain}.pt", "--iw_nsamples", 20)
    own = run(domain, "--eval", "--load_path", f"own_{domain}.pt", "--iw_nsamples", 20)
    assert (theirs.returncode, theirs.stderr, own.returncode, own.stderr) == (0, "", 0, "")
    assert own.stdout.startswith("data: test ") and "\nTEST --- " in own.stdout
    assert theirs.stdout == f"{domain}.pt: a plain state dict, {recognised}\n{own.stdout}"


def test_the_figures_depend_on_the_weights(run, folder):
    torch.save(random_tensors(TEXT_SHAPES, seed=1), folder / "other.pt")
    figures = [
        run("text", "--eval", "--load_path", path, "--iw_nsamples", 2).stdout.split("TEST")[1]
        for path in ("text.pt", "other.pt")
    ]
    assert figures[0] != figures[1]


def test_files_of_old_versions_of_torch(run, folder):
    torch.save(text_weights(), folder / "legacy.pt", _use_new_zipfile_serialization=False)
    legacy, new = (run("text", "--eval", "--load_path", path, "--iw_nsamples", 2) for path in ("legacy.pt", "text.pt"))
    assert (legacy.returncode, legacy.stdout.split("TEST")[1]) == (0, new.stdout.split("TEST")[1])


@pytest.mark.parametrize(
    "flags", [["--decoding_strategy", "beam"], ["--decode_input", "datasets/tiny_data/tiny.test.txt"]]
)
def test_the_same_sentences(run, folder, flags):
    """The words of the output, too, are those of the training file in order of first occurrence."""
    outputs = []
    for path in ("text.pt", "own_text.pt"):
        ran = run("text", "--decode_from", path, *flags)
        assert (ran.returncode, ran.stderr) == (0, "")
        written = re.search("wrote (.*)", ran.stdout)[1]
        assert Path(written).name.startswith(path.removesuffix(".pt"))
        outputs.append((folder / written).read_text())
    assert outputs[0] == outputs[1] and len(set(outputs[0].splitlines())) > 2


def test_the_same_images(run, folder):
    for path in ("image.pt", "own_image.pt"):
        ran = run("image", "--sample_from", path, "--num_samples", 3)
        assert (ran.returncode, ran.stderr) == (0, "")
    grids = [(folder / "samples" / f"{name}_probability.png").read_bytes() for name in ("image", "own_image")]
    assert grids[0] == grids[1]


def test_the_vocabulary_needs_the_training_data(run, refused, folder):
    train = folder / "datasets" / "tiny_data" / "tiny.train.txt"
    content = train.read_text()
    train.unlink()
    try:
        assert_refused(run("text", "--eval", "--load_path", "text.pt"), "tiny.train.txt")
        train.write_text(content + "another word\n")
        line = refused("text", "text.pt")
        assert "of another shape: encoder.embed.weight [10, 6] instead of [12, 6], decoder.embed.weight" in line
    finally:
        train.write_text(content)


# ---------------------------------------------------------------------- another model's files


def test_what_does_not_fit_is_listed(refused, folder):
    weights = text_weights()
    del weights["encoder.linear.weight"]
    weights.update({f"extra.{i}": torch.zeros(3) for i in range(9)})
    weights["decoder.trans_linear.weight"] = torch.zeros(NH, NZ + 1)
    torch.save(weights, folder / "wrong.pt")
    line = refused("text", "wrong.pt")
    assert line == (
        "error: wrong.pt: these weights are not of this model; missing: encoder.linear.weight; "
        "unexpected: extra.0, extra.1, extra.2, extra.3 and 5 more; "
        "of another shape: decoder.trans_linear.weight [8, 3] instead of [8, 2]\n"
    )
    assert refused("text", "wrong.pt", "--decode_from") == line


@pytest.mark.parametrize("name", [1, None, "two\nlines", "long" * 1000], ids=["number", "none", "two lines", "long"])
def test_names_that_are_no_names(refused, folder, name):
    torch.save({**text_weights(), name: torch.zeros(2)}, folder / "wrong.pt")
    refused("text", "wrong.pt")


@pytest.mark.parametrize("domain, other", [("text", "image"), ("image", "text")])
def test_the_other_scripts_file(refused, domain, other):
    line = refused(domain, f"{other}.pt")
    assert "missing: encoder." in line and "unexpected: encoder." in line and " more" in line
    assert f"{other} script" in refused(domain, f"own_{other}.pt")


def test_a_checkpoint_of_another_size(refused, folder):
    content = torch.load(folder / "own_text.pt", weights_only=True)
    save_checkpoint(folder / "wrong.pt", {**content, "args": {**content["args"], "dec_nh": 9}})
    assert "decoder.trans_linear.weight [8, 2] instead of [9, 2]" in refused("text", "wrong.pt")


@pytest.mark.parametrize(
    "change",
    [
        {"model": 5},
        {"model": {"encoder.linear.weight": "text"}},
        {"args": 5},
        {"args": {}},
        {"vocabulary": 5},
        {"vocabulary": ["red"]},
        {"args": None},
        {"model": None},
        {"vocabulary": None},
        {"args": {1: 2, "nz": 3}},
        {"data": 5},
        {"metrics": 5},
    ],
    ids=str,
)
def test_a_checkpoint_with_nonsense_in_it(refused, folder, change):
    content = torch.load(folder / "own_text.pt", weights_only=True)
    save_checkpoint(folder / "wrong.pt", {**content, **change})
    refused("text", "wrong.pt")


# ---------------------------------------------------------------------- hostile and broken files


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("domain", ["text", "image"])
def test_a_hostile_file_is_refused_and_not_run(refused, folder, tmp_path, domain, zipped):
    mark = tmp_path / "mark"
    weights = {"text": text_weights, "image": image_weights}[domain]()
    torch.save({**weights, "extra": Hostile(mark)}, folder / "hostile.pt", _use_new_zipfile_serialization=zipped)
    for flag in ("--load_path", {"text": "--decode_from", "image": "--sample_from"}[domain]):
        assert "nothing in it was run" in refused(domain, "hostile.pt", flag)
    assert not mark.exists()


@pytest.mark.parametrize("domain", ["text", "image"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.95])
def test_truncated(refused, folder, domain, part):
    whole = (folder / f"{domain}.pt").read_bytes()
    (folder / "torn.pt").write_bytes(whole[: int(part * len(whole))])
    assert "checkpoint" in refused(domain, "torn.pt")


@pytest.mark.parametrize(
    "content",
    [{}, [torch.zeros(2)], torch.zeros(2), {"model": text_weights()}, {"a": 1}],
    ids=["empty", "list", "tensor", "nested", "number"],
)
def test_neither_a_state_dict_nor_a_checkpoint(refused, folder, content):
    torch.save(content, folder / "foreign.pt")
    assert "not a checkpoint of this project" in refused("text", "foreign.pt")
