"""`--tensorboard`: what is written of which event, with a writer that stands in for TensorBoard's."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import image
import text
import toy
from modules.training.records import Records
from modules.training.run_files import RunFiles
from modules.training.scalars import scalars
from tests.conftest import TINY_IMAGES_CONFIG, assert_refused, events

RUN_ID = "tiny_aggressive1_kls1.00_warm10_0_0_783435"
FOLDER = f"logs/tiny/{RUN_ID}.tensorboard"
ARGS = ("--dataset", "tiny", "--aggressive", 1, "--train_limit", 12, "--iw_nsamples", 2)


class Writer:
    """Keeps its scalars, (tag, value, iteration, clock), and makes a file as torch's SummaryWriter does.

    `purge_step` 0 hides from TensorBoard what earlier files of the folder hold, so the last writer must have all.
    """

    made = []

    def __init__(self, folder, purge_step):
        assert purge_step == 0
        self.scalars, self.closed = [], False
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, f"events.out.tfevents.{len(self.made)}").touch()
        self.made.append(self)

    def add_scalar(self, tag, value, iteration, clock):
        self.scalars.append((tag, float(value), iteration, clock))

    def flush(self):
        pass

    def close(self):
        self.closed = True


@pytest.fixture
def made(monkeypatch):
    """The writers that were made, in order."""
    monkeypatch.setattr(Writer, "made", [])
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    return Writer.made


def without_clock(writer):
    return [scalar[:3] for scalar in writer.scalars]


@pytest.mark.parametrize("main, dataset", [(text.main, "tiny"), (toy.main, "tiny"), (image.main, "tinyimages")])
def test_without_the_package_nothing_is_made(call, workspace, monkeypatch, main, dataset):
    (workspace / "config" / "config_tinyimages.py").write_text(TINY_IMAGES_CONFIG)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert_refused(call(main, "--dataset", dataset, "--tensorboard", cwd=workspace), "--tensorboard", "pip install")
    assert sorted(path.name for path in workspace.iterdir()) == ["config", "datasets"]


@pytest.mark.parametrize(
    "event, expected",
    [
        ({"event": "run", "id": "x", "args": {}}, {}),
        ({"event": "best", "epoch": 0, "loss": 2.0}, {}),
        (
            {"event": "report", "epoch": 0, "iteration": 3, "loss": 2.0, "kl": 0.5, "mi": 0.1, "seconds": 1.0},
            {"train/loss": 2.0, "train/kl": 0.5, "train/mi": 0.1},
        ),
        (
            {"event": "val", "mi_agg": 0.2, "kl_agg": 0.3, "lr": 1.0, "aggressive": True, "units": 9},
            {"val/mi_agg": 0.2, "val/kl_agg": 0.3, "val/lr": 1.0, "val/aggressive": True},
        ),
        ({"event": "test", "loss": 3.0, "final": True}, {"test/loss": 3.0}),
        ({"event": "iw", "nll": 2.5, "ppl": None, "nsamples": 500}, {"test/iw_nll": 2.5}),
    ],
    ids=lambda value: value.get("event", ""),
)
def test_which_figures_of_which_event(event, expected):
    assert scalars(event) == expected


def test_a_run_writes_what_its_json_lines_say(call, workspace, made):
    ran = call(text.main, *ARGS, "--tensorboard", cwd=workspace)
    assert (ran.returncode, ran.stderr) == (0, "")
    (writer,) = made
    assert writer.closed and (workspace / FOLDER).is_dir()
    recorded = events(workspace, RUN_ID)
    assert recorded[0]["args"]["tensorboard"] is True
    for event, tag, name in (("report", "train/kl", "kl"), ("val", "val/mi_agg", "mi_agg"), ("val", "val/lr", "lr")):
        expected = [(e[name], e["iteration"], e["seconds"]) for e in recorded if e["event"] == event]
        found = [scalar[1:] for scalar in writer.scalars if scalar[0] == tag]
        assert [pair[:2] for pair in found] == [values[:2] for values in expected] and len(found) > 1
        since = [clock - found[0][2] for *_, clock in found]  # the clock is the time of training
        assert since == pytest.approx([values[2] - expected[0][2] for values in expected], abs=1e-3)
    last = max(e["iteration"] for e in recorded if "iteration" in e)
    assert ("test/iw_nll", recorded[-1]["nll"], last) in without_clock(writer)
    assert len(set(scalar[::2] for scalar in without_clock(writer))) == len(writer.scalars)  # nothing twice


def test_a_resumed_run_writes_nothing_twice(tmp_path, made):
    """What came after the checkpoint is forgotten, as in the JSON lines."""
    records = Records(RunFiles("tiny", "run", tmp_path), True, tensorboard=True)
    report = {"epoch": 0, "reconstruction": 1.0, "mi": 0.0, "active_units": 0, "seconds": 5.0}
    records.write("report", iteration=1, loss=4.0, kl=1.0, **report)
    saved = records.positions()
    records.write("report", iteration=2, loss=9.0, kl=9.0, **report)
    resumed = Records(RunFiles("tiny", "run", tmp_path), True, tensorboard=True)  # the first was killed
    resumed.rewind(saved)
    resumed.write("resume", iteration=1)
    resumed.write("report", iteration=2, loss=3.0, kl=2.0, **report)
    first, second = made
    assert [scalar for scalar in without_clock(first) if scalar[0] == "train/kl"][1:] == [("train/kl", 9.0, 2)]
    assert [scalar for scalar in without_clock(second) if scalar[0] == "train/kl"] == [
        ("train/kl", 1.0, 1),
        ("train/kl", 2.0, 2),
    ]


def test_it_may_be_asked_for_later_and_goes_with_the_run(call, workspace, made):
    """A resume writes the epochs before it, too; --overwrite removes the folder as it does the other files."""
    assert call(text.main, *ARGS, "--epochs", 1, cwd=workspace).returncode == 0
    assert not (workspace / FOLDER).exists() and made == []
    assert call(text.main, *ARGS, "--epochs", 2, "--resume", "--tensorboard", cwd=workspace).returncode == 0
    assert call(text.main, *ARGS, "--epochs", 3, "--resume", cwd=workspace).returncode == 0
    (writer,) = made
    losses = [event["loss"] for event in events(workspace, RUN_ID) if event["event"] == "val"]
    assert [value for tag, value, _ in without_clock(writer) if tag == "val/loss"] == losses[:2]
    assert call(text.main, *ARGS, "--epochs", 1, "--overwrite", cwd=workspace).returncode == 0
    assert not (workspace / FOLDER).exists()
