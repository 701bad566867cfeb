"""The picture that a training leaves beside its log."""

import subprocess
import sys

import plot_epochs
import pytest
from PIL import Image

import image
import text
import toy
from modules.reports import curves
from tests.conftest import ROOT, environment, events, make_image_workspace

RUN_ID = "tiny_aggressive1_kls1.00_warm10_0_0_783435"
PICTURE = f"logs/tiny/{RUN_ID}.png"
ARGS = ("--dataset", "tiny", "--aggressive", 1, "--train_limit", 12, "--iw_nsamples", 2)


def size(path):
    """(width, height) of a PNG, read to its end."""
    with Image.open(path) as picture:
        picture.load()
        return picture.size


def test_it_is_drawn_at_the_end_and_named_last(call, workspace):
    ran = call(text.main, *ARGS, cwd=workspace)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-1] == f"wrote {PICTURE}" and size(workspace / PICTURE) == (900, 320)
    (workspace / PICTURE).unlink()  # as of a run that was killed before it drew
    ran = call(text.main, *ARGS, "--resume", cwd=workspace)
    assert ran.stdout.splitlines()[1:] == [f"wrote {PICTURE}"] and size(workspace / PICTURE) == (900, 320)
    before = (workspace / PICTURE).stat().st_mtime_ns
    ran = call(text.main, *ARGS, "--resume", "--epochs", 3, cwd=workspace)
    assert f"wrote {PICTURE}" in ran.stdout and (workspace / PICTURE).stat().st_mtime_ns > before
    ran = call(plot_epochs.main, *sorted((workspace / "logs" / "tiny").iterdir()), cwd=workspace)  # logs/tiny/*
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_run_that_was_stopped_shows_the_epochs_it_has(call, workspace):
    ran = call(text.main, *ARGS, "--max_iterations", 2, cwd=workspace)
    assert ran.stdout.splitlines()[-1].startswith("stopped after 2") and not (workspace / PICTURE).exists()
    ran = call(text.main, *ARGS, "--resume", "--max_iterations", 7, cwd=workspace)
    assert [event["event"] for event in events(workspace, RUN_ID)].count("val") == 1
    assert "\nstopped after 7" in ran.stdout and ran.stdout.endswith(f"\nwrote {PICTURE}\n")
    ran = call(text.main, *ARGS, "--overwrite", "--max_iterations", 2, cwd=workspace)
    assert ran.returncode == 0 and not (workspace / PICTURE).exists()


def test_iterations_that_end_with_an_epoch_end_it(call, workspace):
    """The epoch is validated as any other; of the last epoch the run is finished and tested."""
    assert call(text.main, *ARGS, "--epochs", 2, cwd=workspace).returncode == 0
    whole = [event for event in events(workspace, RUN_ID) if event["event"] in ("val", "iw")]
    first, last, tested = whole
    ran = call(text.main, *ARGS, "--overwrite", "--epochs", 2, "--max_iterations", first["iteration"], cwd=workspace)
    assert f"\nstopped after {first['iteration']}" in ran.stdout
    assert [event["event"] for event in events(workspace, RUN_ID)].count("val") == 1
    ran = call(text.main, *ARGS, "--resume", "--epochs", 2, "--max_iterations", last["iteration"], cwd=workspace)
    assert "\nstopped after" not in ran.stdout
    again = [event for event in events(workspace, RUN_ID) if event["event"] in ("val", "iw")]
    assert [{**event, "seconds": 0} for event in again] == [{**event, "seconds": 0} for event in whole]
    assert again[-1]["event"] == "iw" and tested["nll"] == again[-1]["nll"]


@pytest.mark.parametrize("error", [RuntimeError("no\nfont"), MemoryError(), ImportError("matplotlib")], ids=repr)
def test_a_failure_to_draw_loses_nothing(call, workspace, monkeypatch, error):
    def fail(log):
        raise error

    monkeypatch.setattr(curves, "run_figure", fail)
    ran = call(text.main, *ARGS, "--epochs", 1, cwd=workspace)
    assert ran.returncode == 0 and "iw nll: " in ran.stdout.splitlines()[-1]
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"note: {PICTURE}: not drawn ({type(error).__name__}") and "--resume" in line
    monkeypatch.undo()
    assert call(text.main, *ARGS, "--epochs", 1, "--resume", cwd=workspace).stdout.endswith(f"\nwrote {PICTURE}\n")


def test_images_and_the_toy_study_have_one(call, workspace, tmp_path):
    few = ("--epochs", 1, "--iw_nsamples", 2)
    ran = call(image.main, "--dataset", "tinyimages", *few, cwd=make_image_workspace(tmp_path / "images"))
    assert ran.stdout.endswith("\nwrote logs/tinyimages/tinyimages_aggressive0_ns1_kls1.0_warm10_0_0_783435.png\n")
    ran = call(toy.main, *ARGS[:2], *few, "--num_plot", 5, "--zmin", -3, "--zmax", 3, "--dz", 1, cwd=workspace)
    assert ran.stdout.endswith("\nwrote logs/tiny/toy_multiple_tiny_aggressive0_kls1.00_warm10_0_0_783435.png\n")


def test_matplotlib_waits_until_something_is_drawn():
    code = "import sys, image, text, toy; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment()).returncode == 0
