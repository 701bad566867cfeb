"""What the tests share: tiny made-up data sets in folders of their own, and ways to run the real commands there."""

import json
import os
import random
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "plot_scripts")]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts: on tiny tensors, more threads only wait
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # figures are compared digit by digit; test_cuda.py has the GPU

import torch

from modules.command import run_command

TINY_CONFIG = """
params = {
    "enc_type": "lstm", "dec_type": "lstm", "nz": 2, "ni": 6, "enc_nh": 8, "dec_nh": 8,
    "dec_dropout_in": 0.2, "dec_dropout_out": 0.2, "batch_size": 4, "epochs": 2, "test_nepoch": 1,
    "train_data": "datasets/tiny_data/tiny.train.txt",
    "val_data": "datasets/tiny_data/tiny.valid.txt",
    "test_data": "datasets/tiny_data/tiny.test.txt",
}
"""
TINY_IMAGES_CONFIG = """
params = {
    "img_size": [1, 7, 6], "nz": 2, "enc_layers": [4], "dec_kernel_size": [5, 3, 3], "dec_layers": [4, 4, 4],
    "latent_feature_map": 2, "batch_size": 4, "epochs": 2, "test_nepoch": 1,
    "data_file": "datasets/tinyimages_data/tinyimages.pt",
}
"""
NUMBER = r"-?\d+\.\d{4}"
Outcome = namedtuple("Outcome", "returncode stdout stderr")


def sentences(count, seed):
    """`count` made-up sentences of 1 to 4 words; the first word decides which others are likely."""
    rng = random.Random(seed)
    topics = (["red", "green", "blue"], ["one", "two", "three"])
    return [" ".join(rng.choice(topic) for _ in range(rng.randint(1, 4))) for topic in rng.choices(topics, k=count)]


def make_workspace(folder):
    """Put `config/config_tiny.py` and its three data files into `folder`; returns it."""
    (folder / "config").mkdir(parents=True)
    (folder / "config" / "config_tiny.py").write_text(TINY_CONFIG)
    data = folder / "datasets" / "tiny_data"
    data.mkdir(parents=True)
    for seed, (name, count) in enumerate([("train", 40), ("valid", 20), ("test", 21)]):
        lines = sentences(count, seed) + (["never seen before"] if name == "test" else [])
        (data / f"tiny.{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


def images(count, seed, size=(7, 6)):
    """`count` made-up grey images [count, 1, height, width]: dark on the left or on the right, with spots."""
    generator = torch.Generator().manual_seed(seed)
    shade = 0.1 + 0.2 * torch.rand(count, 1, *size, generator=generator)
    left = torch.arange(size[1]) < size[1] // 2
    side = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    return torch.where(left == side, 1 - shade, shade)


def make_image_workspace(folder):
    """Put `config/config_tinyimages.py` and its data file into `folder`; returns it.

    A batch is 4 images, so that the last one of each split would be a batch of one.
    """
    (folder / "config").mkdir(parents=True)
    (folder / "config" / "config_tinyimages.py").write_text(TINY_IMAGES_CONFIG)
    data = folder / "datasets" / "tinyimages_data"
    data.mkdir(parents=True)
    torch.save(
        [images(33, 0), images(9, 1), images(9, 2).bernoulli(generator=torch.Generator().manual_seed(3))],
        data / "tinyimages.pt",
    )
    return folder


def command(name, *args):
    """The command line of a script of the repository."""
    return [sys.executable, str(ROOT / name), *map(str, args)]


def environment():
    """Surroundings in which a command computes the same bits every time."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run_script(name, *args, cwd, timeout=120):
    """Run a script of the repository as a process of its own, to its end."""
    return subprocess.run(
        command(name, *args), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout
    )


def start_script(name, *args, cwd):
    """Start a script of the repository and return its process."""
    return subprocess.Popen(
        command(name, *args), cwd=cwd, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def run_pattern(words):
    """What a run prints, as a regular expression; perplexities stand there only where the unit is the word."""
    ppl, iw_ppl = (rf", ppl: {NUMBER}", rf", iw ppl: {NUMBER}") if words else ("", "")
    means = rf"avg_loss: {NUMBER}, kl: {NUMBER}, mi: {NUMBER}, recon: {NUMBER}"
    report = rf"epoch: \d+, iter: \d+, {means},au \d+, time elapsed \d+\.\d\ds\n"
    figures = rf"{means}, nll: {NUMBER}{ppl}\nmi_agg: {NUMBER}, kl_agg: {NUMBER}\n\d+ active units\n"
    epoch = (
        rf"({report})*(pre mi:{NUMBER}\. cur mi:{NUMBER}\n(STOP BURNING\n)?)?kl weight {NUMBER}\n"
        rf"VAL --- {figures}(update best loss\n|new lr: \d\.\d{{6}}\n)?(TEST --- {figures})?"
    )
    data = r"data: train .+; val .+; test .+\n(validation batches hold few x each, .+\n)?"
    return rf"{data}({epoch})+TEST --- {figures}iw nll: {NUMBER}{iw_ppl}\nwrote logs/\S+\.png\n"


def logged(ran):
    """What a run printed of what its log holds: all but the last line, which says where its picture is."""
    return ran.stdout[: ran.stdout.rindex("wrote logs/")]


def events(folder, run_id):
    """The JSON events of a run."""
    (path,) = (folder / "logs").rglob(f"{run_id}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_refused(ran, *names):
    """Exit code 2, one line on standard error that holds all of `names`, nothing on standard output."""
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert len(ran.stderr.splitlines()) == 1 and "Traceback" not in ran.stderr
    for name in names:
        assert str(name) in ran.stderr


@pytest.fixture
def workspace(tmp_path):
    """A folder of its own with the tiny data set, for a test that may change it."""
    return make_workspace(tmp_path / "workspace")


@pytest.fixture
def image_workspace(tmp_path):
    """The same with the tiny images."""
    return make_image_workspace(tmp_path / "workspace")


@pytest.fixture
def call(monkeypatch, capsys):
    """`call(main, *args, cwd=...)`: a script's `main` as a command, but in this process; returns an `Outcome`."""

    def run(main, *args, cwd):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", [f"{main.__module__}.py", *map(str, args)])
        capsys.readouterr()
        code = 0
        try:
            run_command(main)
        except SystemExit as stop:
            code = stop.code
        return Outcome(code, *capsys.readouterr())

    return run
