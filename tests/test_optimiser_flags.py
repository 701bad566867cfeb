"""`--lr`, `--optimizer` and `--clip_norm`: what trains, what a run is called, what its record and state remember."""

from dataclasses import asdict, replace

import pytest
import torch

import image
import text
import toy
from modules.checkpoint import load_checkpoint, save_checkpoint
from modules.domains.domain import EVALUATION, RUNNING, settle
from modules.domains.image_domain import IMAGE
from modules.domains.text_domain import TEXT
from modules.settings import parse
from modules.training import recipe
from tests.conftest import assert_refused, events, make_workspace
from tests.test_resume import log_lines

ARGS = ("--dataset", "tiny", "--iw_nsamples", 2)
PLAIN = "tiny_aggressive0_kls1.00_warm10_0_0_783435"
TOY_PLAIN = f"toy_multiple_{PLAIN}"
NAMES = [
    (TEXT, "", "", ("sgd", 1.0, 5.0)),
    (TEXT, "--optimizer sgd --lr 1 --clip_norm 5", "", ("sgd", 1.0, 5.0)),
    (TEXT, "--lr 0.5", "lr0.5_", ("sgd", 0.5, 5.0)),
    (TEXT, "--lr 0.12345678", "lr0.12345678_", ("sgd", 0.12345678, 5.0)),
    (TEXT, "--lr 0.001", "lr0.001_", ("sgd", 0.001, 5.0)),
    (TEXT, "--optimizer adam", "adam_", ("adam", 0.001, 5.0)),
    (TEXT, "--optim adam --lr 0.001", "adam_", ("adam", 0.001, 5.0)),
    (TEXT, "--optimizer adam --lr 1 --clip_norm 1", "adam_lr1_clip1_", ("adam", 1.0, 1.0)),
    (TEXT, "--beta 0.4 --clip_norm 0.25", "beta0.4_clip0.25_", ("sgd", 1.0, 0.25)),
    (IMAGE, "--lr 0.001 --momentum 0", "", ("adam", 0.001, 5.0)),
    (IMAGE, "--lr 1e-05 --clip_norm 100", "lr1e-05_clip100_", ("adam", 1e-5, 100.0)),
]


def settings(domain, flags):
    """The settings of a command line."""
    dataset = "synthetic" if domain is TEXT else "omniglot"
    return settle(parse((*domain.groups, RUNNING, EVALUATION), "A test", ["--dataset", dataset, *flags.split()]))


@pytest.mark.parametrize("domain, flags, part, chosen", NAMES)
def test_a_run_that_leaves_the_recipe_says_so(domain, flags, part, chosen):
    """In its name and in its record, and nothing else of the recipe changes."""
    s = settings(domain, flags)
    published = "synthetic_aggressive0_kls1.00" if domain is TEXT else "omniglot_aggressive0_ns1_kls1.0"
    assert domain.run_id(s) == f"{published}_warm10_{part}0_0_783435"
    assert (s.record().get("optimizer", "adam"), s.record()["lr"], s.record()["clip_norm"]) == chosen
    expected = replace(domain.recipe, **dict(zip(("optimiser", "lr", "clip_norm"), chosen)))
    assert asdict(recipe.adjusted(domain.recipe, s)) == asdict(expected)


def test_settings_made_in_code_have_the_name_of_the_recipe():
    assert TEXT.run_id(TEXT.settings(dataset="tiny", seed=783435)) == PLAIN


@pytest.mark.parametrize(
    "flags, optimiser, lr, clip_norm",
    [
        ("", torch.optim.SGD, 1.0, 5.0),
        ("--lr 0.25 --clip_norm 2", torch.optim.SGD, 0.25, 2.0),
        ("--optimizer adam", torch.optim.Adam, 0.001, 5.0),
        ("--optimizer adam --lr 0.01", torch.optim.Adam, 0.01, 5.0),
    ],
)
@pytest.mark.parametrize("script", [text, toy])
def test_what_is_asked_for_trains(call, workspace, monkeypatch, script, flags, optimiser, lr, clip_norm):
    seen = []
    monkeypatch.setattr("modules.training.loop.Trainer.fit", lambda trainer: seen.append(trainer.algorithm))
    assert call(script.main, *ARGS, *flags.split(), cwd=workspace).returncode == 0
    for one in (seen[0].encoder_optimiser, seen[0].decoder_optimiser):
        assert type(one) is optimiser and [group["lr"] for group in one.param_groups] == [lr]
    assert seen[0].recipe.clip_norm == clip_norm


def test_images_train_with_adam_at_the_rate_asked_for(call, image_workspace):
    flags = ("--dataset", "tinyimages", "--iw_nsamples", 2, "--epochs", 1)
    ran = call(image.main, *flags, "--lr", 0.01, "--clip_norm", 2, cwd=image_workspace)
    assert (ran.returncode, ran.stderr) == (0, "")
    told = events(image_workspace, "tinyimages_aggressive0_ns1_kls1.0_warm10_lr0.01_clip2_0_0_783435")
    assert [event["lr"] for event in told if event["event"] == "val"] == [0.01] and "optimizer" not in told[0]["args"]
    assert_refused(call(image.main, *flags, "--optimizer", "sgd", cwd=image_workspace), "--optimizer")


def test_a_run_goes_on_as_it_began(call, tmp_path):
    """Adam's state, rate and bound come back with --resume: the records are those of a run that nothing stopped."""
    flags = (*ARGS, "--optimizer", "adam", "--lr", 0.02, "--clip_norm", 0.5, "--word_dropout", 0.4, "--max_iterations")
    whole, stopped = (make_workspace(tmp_path / name) for name in ("whole", "stopped"))
    assert call(text.main, *flags, 22, cwd=whole).returncode == 0
    assert call(text.main, *flags, 7, cwd=stopped).returncode == 0
    assert len(log_lines(stopped)) < len(log_lines(whole))
    assert call(text.main, *flags, 22, "--resume", cwd=stopped).returncode == 0
    assert log_lines(stopped) == log_lines(whole)
    (log,) = (stopped / "logs").rglob("*.log")
    assert log.stem == "tiny_aggressive0_kls1.00_warm10_wdrop0.4_adam_lr0.02_clip0.5_0_0_783435"


def state_of(folder, run_id=PLAIN):
    return folder / "models" / "tiny" / f"{run_id}.resume.pt"


def test_a_state_remembers(call, workspace):
    """Under another name, too."""
    assert call(text.main, *ARGS, "--lr", 0.5, "--max_iterations", 2, cwd=workspace).returncode == 0
    state_of(workspace, PLAIN.replace("warm10", "warm10_lr0.5")).rename(state_of(workspace))
    ran = call(text.main, *ARGS, "--max_iterations", 3, "--resume", cwd=workspace)
    assert_refused(ran, f"{PLAIN}.resume.pt", "lr = 0.5, not 1.0")


def make_old(path, **more):
    """Let a state be of a version that had no such settings, but `more`."""
    content = load_checkpoint(path, "text")
    for name in ("lr", "optimizer", "clip_norm", "word_dropout", "max_train_length"):
        del content["args"][name]
    content["args"].update(more)
    save_checkpoint(path, content)


def test_states_of_earlier_versions_go_on(call, workspace):
    assert call(text.main, *ARGS, "--max_iterations", 2, cwd=workspace).returncode == 0
    make_old(state_of(workspace))
    assert call(text.main, *ARGS, "--max_iterations", 3, "--resume", cwd=workspace).returncode == 0


def test_toy_states_of_earlier_versions_go_on_with_their_optimiser(call, workspace):
    """One name stood for either optimiser, and the setting was called as its flag is."""
    flags = (*ARGS, "--plot_niter", 50, "--num_plot", 3, "--max_iterations")
    assert call(toy.main, *flags, 2, cwd=workspace).returncode == 0
    make_old(state_of(workspace, TOY_PLAIN), optim="sgd")
    assert call(toy.main, *flags, 3, "--resume", cwd=workspace).returncode == 0
    make_old(state_of(workspace, TOY_PLAIN), optim="adam")
    assert_refused(call(toy.main, *flags, 4, "--resume", cwd=workspace), "optimizer = adam, not sgd")


def test_a_run_that_diverges_is_told_what_helps(call, workspace):
    ran = call(text.main, *ARGS, "--lr", 1e9, "--clip_norm", 1e9, cwd=workspace)
    assert ran.returncode == 2 and ran.stderr.startswith("error: training diverged") and ran.stderr.count("\n") == 1
    assert "--lr" in ran.stderr and "--clip_norm" in ran.stderr


@pytest.mark.parametrize(
    "flags, names",
    [
        ("--optimizer adam --momentum 0.5", ["--momentum", "adam"]),
        ("--optim adam --momentum 0.5", ["--momentum", "adam"]),
        ("--optimizer rmsprop", ["--optimizer", "sgd, adam"]),
        ("--lr 0", ["--lr"]),
        ("--lr nan", ["--lr"]),
        ("--clip_norm 0", ["--clip_norm"]),
        ("--clip_norm inf", ["--clip_norm"]),
    ],
)
def test_what_cannot_be(call, workspace, flags, names):
    assert_refused(call(text.main, *ARGS, *flags.split(), cwd=workspace), *names)


def test_adam_without_momentum_is_no_contradiction():
    assert settings(TEXT, "--optimizer adam --momentum 0").momentum == 0


def test_the_help_says_which_rates_there_are(call, workspace):
    for script, rates in ((text, ("default: 1, or 0.001 with --optimizer adam",)), (toy, ("--optim", "sgd|adam"))):
        said = " ".join(call(script.main, "--dataset", "tiny", "--help", cwd=workspace).stdout.split())
        assert all(rate in said for rate in rates)
