"""What the tests share: a tiny made-up data set in a folder of its own, and ways to run the real commands there."""

import os
import random
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")       # before torch starts: on tiny tensors, more threads only wait

from modules.errors import run_command  # noqa: E402  (needs the path above)

TINY_CONFIG = """
params = {
    "enc_type": "lstm", "dec_type": "lstm", "nz": 2, "ni": 6, "enc_nh": 8, "dec_nh": 8,
    "dec_dropout_in": 0.2, "dec_dropout_out": 0.2, "batch_size": 4, "epochs": 2, "test_nepoch": 1,
    "train_data": "datasets/tiny_data/tiny.train.txt",
    "val_data": "datasets/tiny_data/tiny.valid.txt",
    "test_data": "datasets/tiny_data/tiny.test.txt",
}
"""
Outcome = namedtuple("Outcome", "returncode stdout stderr")


def sentences(count, seed):
    """`count` made-up sentences of 1 to 4 words; the first word decides which others are likely."""
    rng = random.Random(seed)
    topics = (["red", "green", "blue"], ["one", "two", "three"])
    return [" ".join(rng.choice(topic) for _ in range(rng.randint(1, 4)))
            for topic in rng.choices(topics, k=count)]


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


def command(name, *args):
    """The command line of a script of the repository."""
    return [sys.executable, str(ROOT / name), *map(str, args)]


def environment():
    """Surroundings in which a command computes the same bits every time."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run_script(name, *args, cwd, timeout=120):
    """Run a script of the repository as a process of its own, to its end."""
    return subprocess.run(command(name, *args), cwd=cwd, env=environment(), capture_output=True, text=True,
                          timeout=timeout)


def start_script(name, *args, cwd):
    """Start a script of the repository and return its process."""
    return subprocess.Popen(command(name, *args), cwd=cwd, env=environment(), stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)


@pytest.fixture
def workspace(tmp_path):
    """A folder of its own with the tiny data set, for a test that may change it."""
    return make_workspace(tmp_path / "workspace")


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
