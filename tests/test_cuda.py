"""The commands on a GPU, where there is one: train, stop, go on, evaluate, generate. The other tests hide the GPU."""

import os
import shutil
import subprocess

import pytest

from tests.conftest import command, make_image_workspace, make_workspace

pytestmark = pytest.mark.skipif(
    shutil.which("nvidia-smi") is None or subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode != 0,
    reason="no GPU",
)


def run(script, *args, cwd):
    surroundings = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    ran = subprocess.run(command(script, *args), cwd=cwd, env=surroundings, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    "flags",
    [
        "--aggressive 1",
        "--aggressive 1 --inner_clip encoder",
        "--precision bf16",
        "--model savae --svi_steps 2",
        "--model lm",
    ],
)
@pytest.mark.parametrize(
    "script, dataset, generate", [("text.py", "tiny", "--decode_from"), ("image.py", "tinyimages", "--sample_from")]
)
def test_a_run_and_its_model(tmp_path, script, dataset, generate, flags):
    folder = (make_workspace if script == "text.py" else make_image_workspace)(tmp_path / "workspace")
    settings = ("--dataset", dataset, "--iw_nsamples", 5, *flags.split())
    run(script, *settings, "--epochs", 1, cwd=folder)
    figures = run(script, *settings, "--epochs", 2, "--resume", cwd=folder)
    (model,) = (path for path in (folder / "models").rglob("*.pt") if "resume" not in path.name)
    again = run(script, "--dataset", dataset, "--iw_nsamples", 5, "--eval", "--load_path", model, cwd=folder)
    assert "iw nll: " in again and figures.count("iw nll: ") == 1
    assert "wrote " in run(script, "--dataset", dataset, generate, model, "--num_samples", 4, cwd=folder)


def test_the_toy_study(tmp_path):
    folder = make_workspace(tmp_path / "workspace")
    for mode in ("single", "multiple"):
        run(
            "toy.py",
            "--dataset",
            "tiny",
            "--aggressive",
            1,
            "--plot_mode",
            mode,
            "--num_plot",
            5,
            "--max_iterations",
            3,
            cwd=folder,
        )
