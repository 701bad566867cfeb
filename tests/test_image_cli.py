"""image.py as people run it, on tiny images: what it prints, writes and draws, and how it refuses bad input."""

import copy
import math
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import image
from modules.checkpoint import load_checkpoint
from modules.data.images import ImageSplit
from modules.domains.image_domain import IMAGE, build_vae
from modules.evaluation import metrics
from modules.models.gaussian import interpolate
from tests.conftest import (
    TINY_IMAGES_CONFIG,
    assert_refused,
    events,
    images,
    logged,
    make_image_workspace,
    run_pattern,
    run_script,
)

ARGS = ("--dataset", "tinyimages", "--iw_nsamples", 20)
PLAIN = "tinyimages_aggressive0_ns2_kls1.0_warm10_0_0_783435"
AGGRESSIVE = "tinyimages_aggressive1_ns1_kls0.2_warm1_3_2_202"
HEIGHT, WIDTH = 7, 6
GAP, BETWEEN = 2, 200  # pixels between two images of a grid, and their grey value


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder with a finished run of the plain VAE, and what the run printed."""
    folder = make_image_workspace(tmp_path_factory.mktemp("plain") / "workspace")
    return folder, run_script("image.py", *ARGS, "--nsamples", 2, cwd=folder)


@pytest.fixture(scope="module")
def aggressive(tmp_path_factory):
    """The same of an aggressive run, on 13 of the images."""
    folder = make_image_workspace(tmp_path_factory.mktemp("aggressive") / "workspace")
    return folder, run_script(
        "image.py",
        *ARGS,
        "--aggressive",
        1,
        "--warm_up",
        1,
        "--kl_start",
        0.2,
        "--jobid",
        3,
        "--taskid",
        2,
        "--train_limit",
        13,
        cwd=folder,
    )


@pytest.fixture(params=["plain", "aggressive"])
def finished(request):
    """(folder, what was printed, run id) of either."""
    return *request.getfixturevalue(request.param), {"plain": PLAIN, "aggressive": AGGRESSIVE}[request.param]


def saved_model(folder, run_id=PLAIN):
    """Where the best model of a run lies."""
    return folder / "models" / "tinyimages" / f"{run_id}.pt"


def originals_of(folder):
    """The test images of a folder's data set, which are binary."""
    return torch.load(folder / "datasets" / "tinyimages_data" / "tinyimages.pt", weights_only=True)[2]


# ---------------------------------------------------------------------- a run


def test_a_run_prints_the_lines_that_notebooks_parse(finished):
    _, ran, run_id = finished
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(run_pattern(words=False), ran.stdout), ran.stdout
    assert "ppl" not in ran.stdout
    assert ran.stdout.count("pre mi:") == (2 if run_id == AGGRESSIVE else 0)
    assert ran.stdout.count("VAL ---") == 2 and ran.stdout.count("TEST ---") == 2  # after epoch 0, and at the end


def test_a_run_leaves_its_files_and_no_others(finished):
    folder, ran, run_id = finished
    made = sorted(str(path.relative_to(folder)) for top in ("models", "logs") for path in (folder / top).rglob("*.*"))
    assert made == [
        f"logs/tinyimages/{run_id}.jsonl",
        f"logs/tinyimages/{run_id}.log",
        f"logs/tinyimages/{run_id}.png",
        f"models/tinyimages/{run_id}.pt",
        f"models/tinyimages/{run_id}.resume.pt",
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["config", "datasets", "logs", "models"]
    assert (folder / "logs" / "tinyimages" / f"{run_id}.log").read_text() == logged(ran)


def test_a_batch_of_one_image_is_left_out_of_training_alone(plain, aggressive):
    """33 and 13 training images make 8 and 3 batches of 4; validation and test images are 9 each, all measured."""
    for (folder, _), run_id, batches in ((plain, PLAIN, 8), (aggressive, AGGRESSIVE, 3)):
        assert [e["iteration"] for e in events(folder, run_id) if e["event"] == "val"] == [batches, 2 * batches]
        model = load_checkpoint(saved_model(folder, run_id).with_suffix(".resume.pt"), "image")["model"]
        steps = [e["encoder_steps"] for e in events(folder, run_id) if e["event"] == "val"][-1] + 2 * batches
        assert {int(value) for name, value in model.items() if name.endswith("num_batches_tracked")} == {steps}


def test_only_the_aggressive_run_takes_inner_steps(plain, aggressive):
    assert {e["encoder_steps"] for e in events(plain[0], PLAIN) if e["event"] == "val"} == {0}
    last = [e for e in events(aggressive[0], AGGRESSIVE) if e["event"] == "val"][-1]
    assert last["aggressive"] and last["iteration"] * 20 <= last["encoder_steps"] <= last["iteration"] * 99


def test_a_finished_run_goes_on_from_its_last_weights_not_from_its_best(call, plain, tmp_path):
    """The optimisers' state belongs to the last ones; here the first epoch was the best."""
    assert load_checkpoint(saved_model(plain[0]), "image")["epoch"] == 0
    resumed = shutil.copytree(plain[0], tmp_path / "resumed")
    whole = make_image_workspace(tmp_path / "whole")
    for folder, flags in ((resumed, ["--resume"]), (whole, [])):
        ran = call(image.main, *ARGS, "--nsamples", 2, "--epochs", 3, *flags, cwd=folder)
        assert (ran.returncode, ran.stderr) == (0, "")
    losses = [[e["loss"] for e in events(folder, PLAIN) if e["event"] == "val"] for folder in (resumed, whole)]
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_flags_run(call, image_workspace):
    ran = call(
        image.main,
        *ARGS,
        "--aggressive",
        1,
        "--epochs",
        1,
        "--train_limit",
        5,
        "--inner_clip",
        "encoder",
        "--precision",
        "bf16",
        "--nz",
        3,
        "--dec_kernel_size",
        "3,3",
        "--dec_layers",
        "6,6",
        cwd=image_workspace,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(run_pattern(words=False), ran.stdout)
    run_id = "tinyimages_aggressive1_ns1_kls1.0_warm10_0_0_783435"
    saved = load_checkpoint(saved_model(image_workspace, run_id), "image")
    assert saved["args"]["dec_kernel_size"] == [3, 3] and saved["args"]["nz"] == 3
    assert {value.dtype for value in saved["model"].values() if value.is_floating_point()} == {torch.float32}


def test_a_data_set_of_ones_own(call, tmp_path):
    """A config and an .npz of another size are all that it takes to train, test, evaluate and draw."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config_abc.py").write_text(
        TINY_IMAGES_CONFIG.replace("[1, 7, 6]", "[1, 5, 11]")
        .replace('"epochs": 2', '"epochs": 1')
        .replace("datasets/tinyimages_data/tinyimages.pt", "abc.npz")
    )
    np.savez(
        tmp_path / "abc.npz",
        test=images(5, 2, (5, 11)),
        train=images(9, 0, (5, 11)),
        validation=images(3, 1, (5, 11)).round().to(torch.uint8),
    )
    ran = call(image.main, "--dataset", "abc", "--iw_nsamples", 5, cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(run_pattern(words=False), ran.stdout)
    (model,) = (tmp_path / "models" / "abc").glob("*_783435.pt")
    again = call(image.main, "--dataset", "abc", "--iw_nsamples", 5, "--eval", "--load_path", model, cwd=tmp_path)
    assert again.stdout.startswith("data: test 5 images\nTEST ---") and logged(ran).endswith(
        again.stdout.partition("\n")[2]
    )
    drawn = call(image.main, "--dataset", "abc", "--sample_from", model, "--reconstruct", 5, cwd=tmp_path)
    assert (drawn.returncode, drawn.stderr) == (0, "")
    assert len(tiles(tmp_path / "samples" / f"{model.stem}_reconstruction.png", 5, 11)) == 10


# ---------------------------------------------------------------------- evaluation


def test_eval_prints_the_figures_of_the_run(call, finished, tmp_path):
    """The sizes of the model come from its file, and the noise is the same."""
    folder, ran, run_id = finished
    other = make_image_workspace(tmp_path / "elsewhere")
    config = other / "config" / "config_tinyimages.py"
    config.write_text(TINY_IMAGES_CONFIG.replace('"nz": 2', '"nz": 5').replace("[4, 4, 4]", "[6, 6, 6]"))
    model = shutil.copy(saved_model(folder, run_id), other / "copied.pt")
    seed = run_id.rpartition("_")[2]
    evaluated = call(image.main, *ARGS, "--eval", "--load_path", model, "--seed", seed, cwd=other)
    assert (evaluated.returncode, evaluated.stderr) == (0, "")
    assert evaluated.stdout == "data: test 9 images\n" + logged(ran)[ran.stdout.rindex("TEST ---") :]
    assert not (other / "models").exists() and not (other / "logs").exists()


@pytest.fixture
def model():
    """A small model in float64, in training mode, its running statistics far from those of any one batch."""
    torch.manual_seed(0)
    model = build_vae(
        IMAGE.settings(
            img_size=[1, HEIGHT, WIDTH],
            nz=3,
            enc_layers=[4],
            dec_kernel_size=[5, 3, 3],
            dec_layers=[4] * 3,
            latent_feature_map=2,
        )
    ).double()
    with torch.no_grad():
        for name, value in model.named_buffers():
            if "running" in name:
                value.uniform_(0.5, 2)
        model.encoder.linear.weight.mul_(0.3)
    return model.train()


def binary(count):
    return images(count, 5).double().bernoulli(generator=torch.Generator().manual_seed(6))


def measure(model, split):
    """Every figure that is reported of a split."""
    return (
        metrics.evaluate(model, split, 1).as_dict(),
        metrics.quick_look(model, split, 1),
        metrics.importance_weighted_nll(model, split, 3, 100, 1),
    )


@pytest.mark.parametrize("training", [True, False])
def test_measuring_is_done_in_evaluation_mode_and_changes_nothing(model, training):
    split, evaluating = ImageSplit(binary(9), 4), copy.deepcopy(model).eval()
    model.train(training)
    before = copy.deepcopy(model.state_dict())
    assert measure(model, split) == measure(evaluating, split)
    assert all(module.training == training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_an_image_is_measured_alike_in_whatever_batch(model):
    """Batch norm takes its running statistics: q(z|x), and p(x|z) given z, are those of the image alone."""
    x, z = binary(9), torch.randn(9, 2, 3, dtype=torch.float64)
    with metrics.evaluation_mode(model), torch.no_grad():
        whole = model.decoder.reconstruction(x, z)
        mean, logvar = model.encoder(x)
        for size in (1, 4, 8):
            parts = [model.decoder.reconstruction(*part) for part in zip(x.split(size), z.split(size))]
            torch.testing.assert_close(torch.cat(parts), whole)
            posterior = [torch.cat(part) for part in zip(*map(model.encoder, x.split(size)))]
            torch.testing.assert_close(posterior, [mean, logvar])
    kl = 0.5 * (mean**2 + logvar.exp() - logvar - 1).sum(dim=1).mean()
    for size in (1, 4, 9):
        assert metrics.evaluate(model, ImageSplit(x, size), 1).kl == pytest.approx(float(kl))


# ---------------------------------------------------------------------- drawing


def tiles(path, height=HEIGHT, width=WIDTH):
    """The images of a grid as grey values [n, height, width], row by row, places left empty among them."""
    picture = Image.open(path)
    assert picture.mode == "L" and path.read_bytes().startswith(b"\x89PNG")
    pixels = np.asarray(picture)[::2, ::2]
    assert (pixels.repeat(2, axis=0).repeat(2, axis=1) == np.asarray(picture)).all()
    padded = np.pad(pixels, ((0, GAP), (0, GAP)), constant_values=BETWEEN)
    rows, columns = padded.shape[0] // (height + GAP), padded.shape[1] // (width + GAP)
    assert padded.shape == (rows * (height + GAP), columns * (width + GAP))
    cells = padded.reshape(rows, height + GAP, columns, width + GAP).swapaxes(1, 2)
    cells = cells.reshape(-1, height + GAP, width + GAP)
    assert (cells[:, height:] == BETWEEN).all() and (cells[:, :, width:] == BETWEEN).all()
    return cells[:, :height, :width]


def draw(call, folder, model, *args, cwd):
    """Draw from the model; returns the paths written, as the command names them."""
    ran = call(image.main, "--dataset", "tinyimages", "--sample_from", model, *args, cwd=cwd)
    assert (ran.returncode, ran.stderr) == (0, "")
    paths = re.findall(r"wrote (.*)\n", ran.stdout)
    assert sorted(path.name for path in (cwd / "samples").iterdir()) == sorted(path.split("/")[1] for path in paths)
    return [cwd / path for path in paths]


def test_samples_are_two_grids_drawn_without_the_data_set(call, plain, tmp_path):
    """In an empty folder; the binary images are drawn with the probabilities of the other grid."""
    paths = draw(call, plain[0], saved_model(plain[0]), cwd=tmp_path)
    assert [path.name for path in paths] == [f"{PLAIN}_sample.png", f"{PLAIN}_probability.png"]
    size = 2 * (20 * (WIDTH + GAP) - GAP), 2 * (20 * (HEIGHT + GAP) - GAP)
    assert [Image.open(path).size for path in paths] == [size, size]
    samples, probabilities = (1 - tiles(path) / 255 for path in paths)
    assert samples.shape == probabilities.shape == (400, HEIGHT, WIDTH)
    assert set(np.unique(samples)) == {0, 1} and len(np.unique(probabilities)) > 20
    for likely in (probabilities > 0.5, probabilities <= 0.5):
        p = probabilities[likely]
        assert abs((samples[likely] - p).sum()) < 5 * np.sqrt((p * (1 - p)).sum()) + p.size / 510


@pytest.mark.parametrize("count", [1, 20, 23])
def test_as_many_samples_as_asked_for(call, plain, tmp_path, count):
    for path in draw(call, plain[0], saved_model(plain[0]), "--num_samples", count, cwd=tmp_path):
        drawn = tiles(path)
        assert len(drawn) == 20 * math.ceil(count / 20)
        empty = (drawn == BETWEEN).all(axis=(1, 2))
        assert empty[count:].all() and not empty[:count].any()


def test_samples_follow_the_seed(call, plain, tmp_path):
    drawn = [
        [
            path.read_bytes()
            for path in draw(call, plain[0], saved_model(plain[0]), "--num_samples", 9, *seed, cwd=tmp_path)
        ]
        for seed in ((), ("--seed", 783435), ("--taskid", 1), ("--seed", 101))
    ]
    assert drawn[0] == drawn[1] and drawn[2] == drawn[3]
    assert drawn[0][0] != drawn[2][0] and drawn[0][1] != drawn[2][1]


def ink(images):
    """What images [n, 1, height, width] look like in a grid."""
    return (255 * (1 - images[:, 0])).to(torch.uint8).numpy()


@pytest.mark.parametrize("count", [1, 5, 9])
def test_reconstructions_stand_beside_their_originals(call, plain, count):
    (path,) = draw(call, plain[0], saved_model(plain[0]), "--reconstruct", count, "--seed", 4, cwd=plain[0])
    drawn = tiles(path)
    path.unlink()
    assert len(drawn) == 10 * math.ceil(count / 5) and (drawn[2 * count :] == BETWEEN).all()
    originals = originals_of(plain[0])[:count]
    assert (drawn[: 2 * count : 2] == ink(originals)).all()
    model = trained(saved_model(plain[0]))
    mean = model.encoder(originals)[0]
    expected, _ = model.decoder.sample(mean, torch.Generator().manual_seed(4))
    assert (drawn[1 : 2 * count : 2] == ink(expected)).all()


def trained(path):
    """The model of a checkpoint, in evaluation mode."""
    content = load_checkpoint(path, "image")
    model = build_vae(IMAGE.settings(**content["args"]))
    model.load_state_dict(content["model"])
    return model.eval()


@pytest.mark.parametrize("count, steps", [(1, 9), (4, 5), (2, 2)])
def test_interpolations_lead_from_one_original_to_the_other(call, plain, count, steps):
    (path,) = draw(call, plain[0], saved_model(plain[0]), "--interpolate", count, "--steps", steps, cwd=plain[0])
    rows = tiles(path).reshape(count, steps + 2, HEIGHT, WIDTH)
    path.unlink()
    originals = originals_of(plain[0])[: 2 * count]
    assert (rows[:, 0] == ink(originals[::2])).all() and (rows[:, -1] == ink(originals[1::2])).all()
    model = trained(saved_model(plain[0]))
    mean = model.encoder(originals)[0].detach()
    z = torch.stack(
        [
            start + (end - start) * step / (steps - 1)
            for start, end in zip(mean[::2], mean[1::2])
            for step in range(steps)
        ]
    )
    expected, _ = model.decoder.sample(z, torch.Generator().manual_seed(783435))
    assert (rows[:, 1:-1].reshape(-1, HEIGHT, WIDTH) == ink(expected)).all()


@pytest.mark.parametrize("split, place", [("val", 1), ("test", 2)])
def test_encoded_rows_are_those_of_the_images(call, plain, split, place):
    ran = call(
        image.main, "--dataset", "tinyimages", "--load_path", saved_model(plain[0]), "--encode", split, cwd=plain[0]
    )
    name = f"samples/{PLAIN}_{split}.npz"
    assert (ran.stdout, ran.stderr) == (f"wrote {name}: mean and logvar, [9, 2] each\n", "")
    with np.load(plain[0] / name) as arrays:
        found = {key: arrays[key] for key in arrays}
    (plain[0] / name).unlink()
    images = torch.load(plain[0] / "datasets" / "tinyimages_data" / "tinyimages.pt", weights_only=True)[place]
    model = trained(saved_model(plain[0]))
    with torch.no_grad():
        each = [model.encoder(x) for x in next(iter(ImageSplit(images, 9))).split(1)]
    for i, key in enumerate(("mean", "logvar")):
        assert found[key] == pytest.approx(torch.cat([pair[i] for pair in each]).numpy(), abs=1e-5)
    assert sorted(found) == ["logvar", "mean"] and np.ptp(found["mean"]) > 1e-3


def test_points_of_a_file_are_drawn_in_their_order(call, plain, tmp_path):
    points = np.random.default_rng(0).normal(size=(23, 2))
    np.savez(tmp_path / "lines.npz", mean=points, logvar=np.zeros((1, 1)))
    paths = draw(call, plain[0], saved_model(plain[0]), "--z", "lines.npz", "--seed", 4, cwd=tmp_path)
    assert [path.name for path in paths] == [f"{PLAIN}_lines_sample.png", f"{PLAIN}_lines_probability.png"]
    z = torch.from_numpy(points).float()
    expected, probabilities = trained(saved_model(plain[0])).decoder.sample(z, torch.Generator().manual_seed(4))
    assert (tiles(paths[0])[:23] == ink(expected)).all()
    shades = 1 - tiles(paths[1])[:23] / 255
    assert np.allclose(shades, probabilities[:, 0].detach().numpy(), atol=1 / 255)


@pytest.mark.parametrize("points, names", [(np.zeros((2, 3)), ["3 dimensions", "has 2"]), (np.zeros(2), ["[2]"])])
def test_bad_points(call, plain, tmp_path, points, names):
    np.savez(tmp_path / "bad.npz", mean=points)
    ran = call(image.main, *ARGS[:2], "--sample_from", saved_model(plain[0]), "--z", "bad.npz", cwd=tmp_path)
    assert_refused(ran, "bad.npz", *names)
    assert not (tmp_path / "samples").exists()


def test_points_between_are_on_the_line_and_hold_its_ends():
    start, end = torch.tensor([[0.0, 1.0], [3.0, 3.0]]), torch.tensor([[1.0, -1.0], [3.0, 4.0]])
    expected = [[0, 1], [0.25, 0.5], [0.5, 0], [0.75, -0.5], [1, -1], [3, 3], [3, 3.25], [3, 3.5], [3, 3.75], [3, 4]]
    assert torch.equal(interpolate(start, end, 5), torch.tensor(expected))


def test_reconstructions_take_the_data_file_of_the_command_line(call, plain):
    other = plain[0] / "other.npz"
    splits = [images(2, 8), images(2, 9), images(3, 10).round()]
    np.savez(other, *splits)
    (path,) = draw(call, plain[0], saved_model(plain[0]), "--reconstruct", 3, "--data_file", other, cwd=plain[0])
    drawn = tiles(path)
    path.unlink()
    other.unlink()
    assert (drawn[:6:2] == ink(splits[2])).all()


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "args, names",
    [
        ([], ["--dataset"]),
        (["--dataset", "nope"], ["config_nope.py", "tinyimages"]),
        (["--dataset", "tinyimages", "--img_size", "1,6,7"], ["tinyimages.pt", "[1, 7, 6]", "[1, 6, 7]"]),
        (["--dataset", "tinyimages", "--img_size", "1,28,28"], ["tinyimages.pt", "[1, 28, 28]"]),
        (["--dataset", "tinyimages", "--dec_kernel_size", "3,4,3"], ["dec_kernel_size", "odd", "[3, 4, 3]"]),
        (["--dataset", "tinyimages", "--dec_kernel_size", "3,3"], ["dec_kernel_size", "dec_layers", "2", "3"]),
        (["--dataset", "tinyimages", "--dec_layers", "4,4,6"], ["dec_layers", "[4, 4, 6]"]),
        (["--dataset", "tinyimages", "--train_limit", "1"], ["tinyimages.pt", "2 training images"]),
        (["--dataset", "tinyimages", "--data_file", "missing.npz"], ["missing.npz", "data_file"]),
        (["--dataset", "tinyimages", "--data_file", "config"], ["config"]),
        (["--dataset", "tinyimages", "--momentum", "0.9"], ["--momentum", "[0, 0]"]),
        (["--dataset", "tinyimages", "--sample_from", "m.pt", "--overwrite"], ["--overwrite", "--sample_from"]),
        (["--dataset", "tinyimages", "--eval"], ["--load_path"]),
        (["--dataset", "tinyimages", "--load_path", "m.pt"], ["--eval"]),
        (["--dataset", "tinyimages", "--eval", "--load_path", "missing.pt"], ["missing.pt"]),
        (["--dataset", "tinyimages", "--sample_from", "missing.pt"], ["missing.pt"]),
        (["--dataset", "tinyimages", "--sample_from", "config"], ["config", "folder"]),
        (
            ["--dataset", "tinyimages", "--sample_from", "m.pt", "--eval", "--load_path", "m.pt"],
            ["--eval", "--sample_from"],
        ),
        (["--dataset", "tinyimages", "--reconstruct", "2"], ["--reconstruct", "--sample_from"]),
        (["--dataset", "tinyimages", "--interpolate", "2"], ["--interpolate", "--sample_from"]),
        (
            ["--dataset", "tinyimages", "--sample_from", "m.pt", "--reconstruct", "2", "--interpolate", "2"],
            ["--reconstruct", "--interpolate"],
        ),
        (["--dataset", "tinyimages", "--z", "x.npz"], ["--z", "--sample_from"]),
        (["--dataset", "tinyimages", "--sample_from", "m.pt", "--z", "x.npz", "--interpolate", "2"], ["--z", "--int"]),
        (["--dataset", "tinyimages", "--sample_from", "m.pt", "--z", "x.npz", "--reconstruct", "2"], ["--z", "--rec"]),
        (["--dataset", "tinyimages", "--sample_from", "m.pt", "--z", "x.npz", "--num_samples", "2"], ["--z", "--num"]),
        (["--dataset", "tinyimages", "--encode", "test"], ["--encode", "--load_path"]),
        (["--dataset", "tinyimages", "--encode", "train", "--load_path", "m.pt"], ["--encode", "val, test"]),
        (["--dataset", "tinyimages", "--encode", "test", "--eval", "--load_path", "m.pt"], ["--encode", "--eval"]),
        (["--dataset", "tinyimages", "--per_example", "x.csv"], ["--per_example", "--eval"]),
    ],
    ids=lambda value: " ".join(value[2:]) or "nothing",
)
def test_bad_commands(call, image_workspace, args, names):
    assert_refused(call(image.main, *args, cwd=image_workspace), *names)
    assert not any((image_workspace / made).exists() for made in ("models", "logs", "samples"))


@pytest.mark.parametrize(
    "flag, value",
    [
        ("--nz", "0"),
        ("--batch_size", "1"),
        ("--img_size", "1,x,7"),
        ("--img_size", "1,0,7"),
        ("--dec_layers", "4,,4"),
        ("--dec_kernel_size", ""),
        ("--enc_layers", "0"),
        ("--latent_feature_map", "0"),
        ("--num_samples", "0"),
        ("--reconstruct", "0"),
        ("--interpolate", "0"),
        ("--steps", "0"),
    ],
)
def test_bad_values_of_flags(call, image_workspace, flag, value):
    assert_refused(call(image.main, "--dataset", "tinyimages", flag, value, cwd=image_workspace), flag, value)


@pytest.mark.parametrize(
    "old, new, name",
    [
        ('"nz": 2', '"nz": 2, "ni": 3', "ni"),
        ('"nz": 2, ', "", "nz"),
        ("[1, 7, 6]", "7", "img_size"),
        ("[1, 7, 6]", "[1, 7.5, 6]", "img_size"),
        ("[1, 7, 6]", "[]", "img_size"),
        ('"batch_size": 4', '"batch_size": 1', "batch_size"),
    ],
)
def test_bad_configs(call, image_workspace, old, new, name):
    (image_workspace / "config" / "config_tinyimages.py").write_text(TINY_IMAGES_CONFIG.replace(old, new))
    assert_refused(call(image.main, *ARGS, cwd=image_workspace), "config/config_tinyimages.py", name)


@pytest.mark.parametrize("what", ["missing", "truncated", "pixels of 2"])
def test_bad_data(call, image_workspace, what):
    path = image_workspace / "datasets" / "tinyimages_data" / "tinyimages.pt"
    whole = path.read_bytes()
    path.unlink()
    if what == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif what == "pixels of 2":
        torch.save([2 * images(3, 0)] * 3, path)
    assert_refused(call(image.main, *ARGS, cwd=image_workspace), "datasets/tinyimages_data/tinyimages.pt")
    assert not (image_workspace / "models").exists() and not (image_workspace / "logs").exists()


@pytest.mark.parametrize("args", [("--reconstruct", 10), ("--interpolate", 5)], ids=str)
def test_more_originals_than_test_images(call, plain, args):
    ran = call(image.main, *ARGS[:2], "--sample_from", saved_model(plain[0]), *args, cwd=plain[0])
    assert_refused(ran, "datasets/tinyimages_data/tinyimages.pt", "9 test images", "10")
    assert not any((plain[0] / "samples").glob("*"))


@pytest.mark.parametrize(
    "args",
    [("--eval", "--load_path"), ("--reconstruct", 2, "--sample_from"), ("--interpolate", 1, "--sample_from")],
    ids=str,
)
def test_test_images_of_another_size_than_the_models(call, plain, image_workspace, args):
    path = image_workspace / "datasets" / "tinyimages_data" / "tinyimages.pt"
    torch.save([images(3, 0, (6, 7))] * 3, path)
    ran = call(image.main, *ARGS[:2], *args, saved_model(plain[0]), cwd=image_workspace)
    assert_refused(ran, "datasets/tinyimages_data/tinyimages.pt", "[1, 6, 7]", "[1, 7, 6]")
