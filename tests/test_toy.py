"""The posterior mean space: the model posterior against quadrature, the order of half-steps, scripts on tiny data."""

import importlib.util
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.integrate
import torch
from conftest import ROOT, assert_refused

import toy
from modules.evaluation import metrics, posterior_space
from modules.evaluation import model_posterior as posterior
from modules.evaluation.model_posterior import posterior_mean
from modules.evaluation.space_statistics import read_snapshot, read_trajectory, snapshot_path
from modules.models.decoders.lstm_decoder import LSTMDecoder
from modules.training.recipe import TOY

ARGS = ("--dataset", "tiny", "--zmin", "-6", "--zmax", "6", "--dz", "0.5", "--aggressive", "1", "--num_plot", "7")


def plot_script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "plot_scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def decoder():
    torch.manual_seed(1)
    decoder = LSTMDecoder(9, 1, 3, 4).double().eval()
    for parameter in decoder.parameters():
        torch.nn.init.uniform_(parameter, -1.5, 1.5)
    return decoder


SENTENCES = torch.tensor([[1, 4, 5, 6, 2], [1, 8, 8, 7, 2], [1, 3, 4, 4, 2]], dtype=torch.int32)


def test_posterior_mean_against_quadrature(decoder):
    def joint(z, x):
        with torch.no_grad():
            nll = decoder.reconstruction(x.unsqueeze(0), torch.tensor([[[z]]], dtype=torch.float64))
        return math.exp(-float(nll) - z * z / 2)

    expected = [
        scipy.integrate.quad(lambda z, x: z * joint(z, x), -12, 12, args=(x,), points=[0.0], limit=200)[0]
        / scipy.integrate.quad(joint, -12, 12, args=(x,), points=[0.0], limit=200)[0]
        for x in SENTENCES
    ]
    grid = torch.arange(-12, 12, 0.05, dtype=torch.float64).unsqueeze(1)
    ours = posterior.posterior_mean(decoder, SENTENCES, grid).squeeze(1)
    assert max(abs(value) for value in expected) > 0.1  # not all at the prior
    assert np.allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 60.0], ids=["small logits", "logits too large for exp"])
@pytest.mark.parametrize("rows", [1, 8192])
def test_pruned_grid_against_every_point(decoder, monkeypatch, rows, scale):
    """What is left out is negligible, whatever the chunks and whichever way the logits are summed."""
    monkeypatch.setattr(posterior, "ROWS", rows)
    decoder.pred_linear.weight.data.mul_(scale)
    grid = torch.arange(-20, 20, 0.1, dtype=torch.float64).unsqueeze(1)
    with torch.no_grad():
        nll = decoder.reconstruction(SENTENCES, grid.expand(len(SENTENCES), -1, -1))
        expected = torch.softmax(-nll - grid.T.square() / 2, dim=1) @ grid
    assert torch.allclose(posterior.posterior_mean(decoder, SENTENCES, grid), expected, atol=1e-8)


def test_a_large_vocabulary_does_not_overflow():
    """20,000 words whose largest possible logit is 80: the sum of their exponentials is beyond float32."""
    vocabulary = torch.full((20_000, 2), 39.9)
    log_sum = posterior._log_sum_exp(vocabulary)(torch.ones(1, 2))
    assert float(log_sum) == pytest.approx(79.8 + math.log(20_000), rel=1e-5)


def test_fewer_sentences_of_one_length_than_asked_for(workspace, call):
    ran = call(toy.main, *ARGS, "--plot_mode", "single", "--max_iterations", 1, "--num_plot", 40, cwd=workspace)
    found = read_trajectory(1)["model_mean"].shape[1]
    assert 1 < found < 40 and f"note: --num_plot 40: follows the {found} that there are of one length" in ran.stderr


def test_single_mode(workspace, call, monkeypatch):
    """Half-steps by turns: the encoder's leave the model's mean alone, the decoder's the inference mean."""
    ran = call(toy.main, *ARGS, "--plot_mode", "single", "--max_iterations", 5, cwd=workspace)
    assert ran.returncode == 0, ran.stderr
    path = read_trajectory(1)
    assert list(path["half"]) == ["start"] + ["encoder", "decoder"] * 5
    assert list(path["iteration"]) == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    for i, half in enumerate(path["half"][1:], start=1):
        still, moved = ("model_mean", "inference_mean") if half == "encoder" else ("inference_mean", "model_mean")
        assert np.array_equal(path[still][i], path[still][i - 1])
        assert not np.array_equal(path[moved][i], path[moved][i - 1])

    assert (
        call(toy.main, *ARGS, "--plot_mode", "single", "--max_iterations", 7, "--resume", cwd=workspace).returncode == 0
    )
    resumed = read_trajectory(1)
    assert (
        call(toy.main, *ARGS, "--plot_mode", "single", "--max_iterations", 7, "--overwrite", cwd=workspace).returncode
        == 0
    )
    whole = read_trajectory(1)
    for name in ("model_mean", "inference_mean", "kl", "mi", "iteration", "half"):
        assert np.array_equal(resumed[name], whole[name]), name

    for script, *args in (
        ("plot_single", "--steps", 2, 4),
        ("plot_single", "--steps", 1, 2, "--format", "png"),
        ("animate", "--mode", "single"),
    ):
        ran = call(plot_script(script).main, *args, cwd=workspace)
        assert ran.returncode == 0, ran.stderr
        assert (workspace / ran.stdout.split()[-1]).stat().st_size > 1000
    assert_refused(call(plot_script("plot_single").main, "--steps", 3, 2, cwd=workspace), "the first comes after")
    ran = call(plot_script("plot_single").main, "--steps", 11, 19, cwd=workspace)
    assert ran.returncode == 2 and "0 to 7" in ran.stderr


def test_multiple_mode(workspace, call):
    for aggressive in (0, 1):
        ran = call(toy.main, *ARGS, "--aggressive", aggressive, "--plot_niter", 3, "--max_iterations", 7, cwd=workspace)
        assert ran.returncode == 0, ran.stderr
    snapshot = read_snapshot(1, 6)
    assert snapshot["model_mean"].shape == snapshot["inference_mean"].shape == (7,)
    assert snapshot["settings"]["plot_niter"] == 3 and int(snapshot["iteration"]) == 6
    for script, *args in (
        ("plot_multiple",),
        ("plot_multiple", "--iter", 6, "--format", "png"),
        ("plot_multiple", "--aggressive", 0, 1),
        ("animate", "--mode", "multiple"),
    ):
        ran = call(plot_script(script).main, *args, cwd=workspace)
        assert ran.returncode == 0, ran.stderr
        assert (workspace / ran.stdout.split()[-1]).stat().st_size > 1000
    for args, says in ((["--iter", 2000], "0, 3, 6"), (["--output", "cloud.xyz"], "cloud.xyz"), (["--panels", 1], "2")):
        ran = call(plot_script("plot_multiple").main, *args, cwd=workspace)
        assert ran.returncode == 2 and says in ran.stderr and ran.stderr.count("\n") == 1


@pytest.mark.parametrize("flags, recipe", [([], TOY), (["--optim", "adam"], replace(TOY, optimiser="adam", lr=1e-3))])
def test_the_recipe_is_that_of_the_toy_study(workspace, call, monkeypatch, flags, recipe):
    seen = []
    monkeypatch.setattr("modules.training.loop.Trainer.fit", lambda trainer: seen.append(trainer.recipe))
    assert call(toy.main, *ARGS, *flags, cwd=workspace).returncode == 0
    assert seen == [recipe]


def test_a_snapshot_is_measured_as_a_split_is(workspace, call, monkeypatch):
    """KL and MI of the cloud are those of the model as evaluated, not as trained: here batch norm's statistics tell."""
    measured = []

    def measure(model, sentences, grid, seed, *rest, real=posterior_space.measure):
        point = real(model, sentences, grid, seed, *rest)
        measured.append((point, metrics.evaluate(model, sentences, seed)))
        with metrics.evaluation_mode(model), torch.no_grad():
            measured[-1] += (torch.cat([posterior_mean(model.decoder, x, grid) for x in sentences]),)
        return point

    monkeypatch.setattr(posterior_space, "measure", measure)
    assert (
        call(toy.main, *ARGS, "--bn_gamma", 0.6, "--plot_niter", 2, "--max_iterations", 4, cwd=workspace).returncode
        == 0
    )
    assert len(measured) == 3
    for point, expected, means in measured:
        assert point["kl"] == pytest.approx(expected.kl, rel=1e-5) and expected.kl != 0
        assert point["mi"] == pytest.approx(expected.mi_agg, abs=1e-6)
        assert point["model_mean"] == pytest.approx(means.squeeze(1).numpy())


def test_two_runs_are_two_rows_of_the_snapshots_that_both_have(workspace, call, monkeypatch):
    for aggressive, iterations in ((0, 5), (1, 9)):
        assert (
            call(
                toy.main,
                *ARGS,
                "--aggressive",
                aggressive,
                "--plot_niter",
                1,
                "--max_iterations",
                iterations,
                cwd=workspace,
            ).returncode
            == 0
        )
    script = plot_script("plot_multiple")
    drawn, saved = [], []
    monkeypatch.setattr(script.figures, "save_figure", lambda figure, *_, **__: saved.append(figure))
    monkeypatch.setattr(
        script,
        "read_snapshot",
        lambda run, iteration: (
            drawn.append((run, iteration))
            or {"model_mean": np.zeros(2), "inference_mean": np.zeros(2), "kl": 0.5, "mi": 0.25}
        ),
    )
    assert call(script.main, "--panels", 3, cwd=workspace).returncode == 0
    assert drawn == [(run, iteration) for run in (0, 1) for iteration in (0, 2, 5)]
    panels = saved[0].axes
    assert [panel.get_title() for panel in panels] == ["iteration 0", "iteration 2", "iteration 5", "", "", ""]
    assert [panel.get_ylabel() for panel in panels] == ["plain", "", "", "aggressive", "", ""]
    assert all(panel.texts[0].get_text() == "KL 0.50\nMI 0.25" for panel in panels)


def test_an_earlier_run_is_not_overwritten_by_accident(workspace, call):
    """Snapshots have one name for all runs of a kind: only the same run may replace them, with --overwrite."""
    run = (*ARGS, "--plot_niter", 1)
    assert call(toy.main, *run, "--max_iterations", 4, cwd=workspace).returncode == 0
    before = snapshot_path(1, 2).read_bytes()
    ran = call(toy.main, *run, "--max_iterations", 2, "--jobid", 1, cwd=workspace)
    assert ran.returncode == 2 and "jobid = 0" in ran.stderr and "iter0.npz" in ran.stderr
    ran = call(toy.main, *run, "--max_iterations", 2, "--seed", 1, "--overwrite", cwd=workspace)
    assert ran.returncode == 2 and "seed = 783435" in ran.stderr and "iter0.npz" in ran.stderr
    assert snapshot_path(1, 2).read_bytes() == before
    assert call(toy.main, *run, "--max_iterations", 2, "--overwrite", cwd=workspace).returncode == 0
    assert [snapshot_path(1, i).exists() for i in range(5)] == [True, True, True, False, False]


def test_a_resumed_run_does_not_take_up_what_another_has_recorded(workspace, call, tmp_path):
    run = (*ARGS, "--plot_niter", 1)
    assert call(toy.main, *run, "--max_iterations", 1, cwd=workspace).returncode == 0
    for path in snapshot_path(1, 0).parent.iterdir():  # as the message of the next run would say
        path.rename(tmp_path / path.name)
    assert call(toy.main, *run, "--seed", 1, "--max_iterations", 3, cwd=workspace).returncode == 0
    before = snapshot_path(1, 2).read_bytes()
    ran = call(toy.main, *run, "--max_iterations", 2, "--resume", cwd=workspace)
    assert ran.returncode == 2 and "seed = 1, not 783435" in ran.stderr and "another place" in ran.stderr
    assert snapshot_path(1, 2).read_bytes() == before


def test_the_sentences_followed_are_trained_on(workspace, call):
    ran = call(toy.main, *ARGS, "--train_limit", 5, "--max_iterations", 1, cwd=workspace)
    assert ran.returncode == 0 and read_snapshot(1, 0)["model_mean"].shape == (5,)


@pytest.mark.parametrize(
    "script, args, says",
    [
        ("plot_multiple", [], "no statistics"),
        ("plot_single", [], "no such statistics"),
        ("animate", ["--mode", "multiple"], "no statistics"),
        ("animate", ["--output", "x.png"], "no such statistics"),
    ],
)
def test_missing_statistics(workspace, call, script, args, says):
    ran = call(plot_script(script).main, *args, cwd=workspace)
    assert ran.returncode == 2 and says in ran.stderr and ran.stderr.count("\n") == 1


@pytest.mark.parametrize("script", ["plot_multiple", "plot_single", "animate"])
@pytest.mark.parametrize(
    "flags",
    [("--dpi", 0), ("--axis", "nan", 1), ("--axis", 1, 1), ("--axis", 0, "inf")],
    ids=lambda flags: " ".join(map(str, flags)),
)
def test_bad_flags_of_figures(workspace, call, script, flags):
    ran = call(plot_script(script).main, *flags, cwd=workspace)
    assert ran.returncode == 2 and flags[0] in ran.stderr and ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "args, says",
    [
        (["--nz", "2"], "one latent"),
        (["--dz", "0"], "no grid"),
        (["--zmin", "7"], "no grid"),
        (["--plot_mode", "double"], "plot_mode"),
        (["--zmax", "inf"], "--zmax"),
        (["--dz", "1e-9"], "no grid"),
        (["--eval", "--load_path", "m.pt"], "--eval"),
        (["--optim", "adam", "--momentum", "0.5"], "--momentum"),
    ],
)
def test_bad_flags(workspace, call, args, says):
    ran = call(toy.main, *ARGS, *args, cwd=workspace)
    assert ran.returncode == 2 and says in ran.stderr and ran.stderr.count("\n") == 1
