"""The methods beside the paper's own as people run them: from training to evaluation, generation and resume."""

import pytest
import torch

import image
import text
import toy
from modules.checkpoint import load_checkpoint
from modules.domains.image_domain import IMAGE
from modules.domains.text_domain import TEXT
from modules.methods import semi_amortised
from modules.methods.committed_rate import BoundedVariance
from modules.methods.semi_amortised import SemiAmortisedVAE
from tests.conftest import assert_refused, events, logged, make_workspace
from tests.test_resume import ARGS as ARGS_TO_RESUME
from tests.test_resume import json_events

ARGS = ("--dataset", "tiny", "--iw_nsamples", 5)
IMAGE_ARGS = ("--dataset", "tinyimages", "--iw_nsamples", 5, "--train_limit", 12, "--epochs", 1)
METHODS = {  # flags: what the run's name says of them
    "--model lm": "kls1.00_warm10_lm",
    "--model savae --svi_steps 2": "kls1.00_warm10_savae",
    "--beta 0.4 --kl_start 0.1 --warm_up 1": "kls0.10_warm1_beta0.4",
    "--beta 0": "kls1.00_warm10_beta0",
    "--kl_start 0 --warm_up 1 --kl_cycles 2": "kls0.00_warm1_cycles2",
    "--free_bits 0.25": "kls1.00_warm10_free0.25",
    "--free_bits 3 --free_bits_over sum": "kls1.00_warm10_freesum3",
    "--bn_gamma 0.6": "kls1.00_warm10_bn0.6",
    "--committed_rate 2": "kls1.00_warm10_rate2",
}
METHODS_OF_TEXT = {
    "--word_dropout 0.25": "kls1.00_warm10_wdrop0.25",
    "--model lm --word_dropout 0.5": "kls1.00_warm10_lm_wdrop0.5",
    "--model savae --svi_steps 2 --word_dropout 0.5": "kls1.00_warm10_savae_wdrop0.5",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for the runs that need no data of their own."""
    return make_workspace(tmp_path_factory.mktemp("methods") / "workspace")


@pytest.mark.parametrize("flags, name", {**METHODS, **METHODS_OF_TEXT}.items())
def test_every_method_is_trained_tested_and_evaluated_again(call, folder, flags, name):
    ran = call(text.main, *ARGS, *flags.split(), cwd=folder)
    assert (ran.returncode, ran.stderr) == (0, "")
    run_id = f"tiny_aggressive0_{name}_0_0_783435"
    figures, iw = events(folder, run_id)[-2:]
    assert figures["final"] and iw["event"] == "iw"
    if name.endswith("_lm"):
        assert (figures["kl"], figures["mi"], figures["active_units"]) == (0, 0, 0) and iw["nll"] == figures["loss"]
    if name.endswith("_rate2"):
        assert figures["kl"] >= 2
    again = call(text.main, *ARGS, "--eval", "--load_path", f"models/tiny/{run_id}.pt", cwd=folder)
    assert again.returncode == 0 and logged(ran).endswith(
        again.stdout.partition("\n")[2]
    )  # the model's file says what it is


WIRING = {  # flags: what the parts of the model, or the decoder's optimiser, have of them
    "--model savae": {"steps": 20},
    "--model savae --svi_steps 2": {"steps": 2},
    "--bn_gamma 0.6": {"gamma": 0.6},
    "--committed_rate 2": {"log_bound": BoundedVariance(2, 2).log_bound},
    "--word_dropout 0.25": {"share": 0.25},
    "--precision bf16": {"train_dtype": torch.bfloat16},
    "--momentum 0.5": {"momentum": 0.5},
}


@pytest.mark.parametrize("flags, expected", WIRING.items())
def test_a_flag_reaches_what_it_is_about(call, workspace, monkeypatch, flags, expected):
    seen = {}
    monkeypatch.setattr(
        "modules.training.loop.Trainer.fit",
        lambda trainer: (
            [seen.update(vars(part)) for part in trainer.model.modules()]
            + [seen.update(trainer.algorithm.decoder_optimiser.param_groups[0])]
        ),
    )
    assert call(text.main, *ARGS, *flags.split(), cwd=workspace).returncode == 0
    assert {name: seen.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    "flags, weights",
    [
        ("--beta 0.4 --kl_start 0.1 --warm_up 2", [0.4 * 0.55, 0.4, 0.4]),
        ("--kl_start 0 --warm_up 1 --kl_cycles 2", [1, 1, 1]),
        ("--kl_start 0 --warm_up 2 --kl_cycles 2", [0.5, 1, 1, 1, 0.5, 1]),
    ],
)
def test_the_weight_of_the_kl_at_the_end_of_each_epoch(call, workspace, flags, weights):
    call(text.main, *ARGS, *flags.split(), "--epochs", len(weights), cwd=workspace)
    run = next((workspace / "logs").rglob("*.jsonl"))
    recorded = [event["kl_weight"] for event in events(workspace, run.stem) if event["event"] == "val"]
    assert recorded == pytest.approx(weights)


def test_inference_knows_the_weight_of_the_kl(call, workspace, monkeypatch):
    """A semi-amortised model refines for the ELBO that it is trained on: beta times the annealed weight."""
    asked = []

    def posterior(model, x, kl_weight=1.0, real=SemiAmortisedVAE.posterior):
        if model.training:
            asked.append(kl_weight)
        return real(model, x, kl_weight)

    monkeypatch.setattr(SemiAmortisedVAE, "posterior", posterior)
    call(
        text.main,
        *ARGS,
        *[
            "--model",
            "savae",
            "--svi_steps",
            "1",
            "--beta",
            "0.5",
            "--kl_start",
            "0",
            "--warm_up",
            "1",
            "--epochs",
            "1",
        ],
        cwd=workspace,
    )
    assert len(asked) > 2 and asked == pytest.approx([0.5 * (i + 1) / len(asked) for i in range(len(asked))])


def test_published_constants_of_semi_amortised_inference():
    """Kim et al. 2018: a step of 1 and a clip at 5 of the gradient of the mean over 32 sentences."""
    assert (semi_amortised.STEP_SIZE, semi_amortised.MOMENTUM) == (1 / 32, 0.5)
    assert pytest.approx(5 * 32**0.5, rel=0.02) == semi_amortised.CLIP_NORM  # of each, if they are alike
    assert (TEXT.settings().svi_steps, IMAGE.settings().svi_steps) == (20, 10)


@pytest.mark.parametrize("flags", [*METHODS, "--bn_gamma 0.6 --committed_rate 2"])
def test_every_method_trains_on_images(call, image_workspace, flags):
    ran = call(image.main, *IMAGE_ARGS, *flags.split(), cwd=image_workspace)
    assert (ran.returncode, ran.stderr) == (0, "") and "iw nll: " in ran.stdout
    (model,) = (path for path in (image_workspace / "models").rglob("*.pt") if "resume" not in path.name)
    drawn = call(image.main, "--dataset", "tinyimages", "--sample_from", model, "--num_samples", 4, cwd=image_workspace)
    assert (drawn.returncode, drawn.stderr) == (0, "")


@pytest.mark.parametrize(
    "flags",
    [
        "--model savae --svi_steps 2 --inner_clip encoder",
        "--free_bits 0.1",
        "--beta 0.5",
        "--bn_gamma 0.6",
        "--committed_rate 1",
        "--kl_cycles 2 --warm_up 1 --kl_start 0",
    ],
)
def test_methods_go_with_aggressive_training(call, workspace, flags):
    ran = call(text.main, *ARGS, "--aggressive", 1, "--epochs", 1, "--train_limit", 8, *flags.split(), cwd=workspace)
    assert (ran.returncode, ran.stderr) == (0, "") and "pre mi:" in ran.stdout


@pytest.mark.parametrize("flags", ["--model lm", "--model savae --svi_steps 2"])
def test_the_models_generate(call, folder, flags):
    model = f"models/tiny/tiny_aggressive0_{METHODS[flags]}_0_0_783435.pt"
    lines = "datasets/tiny_data/tiny.test.txt"
    call(text.main, *ARGS, *flags.split(), "--overwrite", cwd=folder)
    ran = call(text.main, "--dataset", "tiny", "--decode_from", model, cwd=folder)
    assert (ran.returncode, ran.stderr) == (0, "")
    for orders in (("--decode_from", model, "--decode_input", lines), ("--load_path", model, "--encode", lines)):
        ran = call(text.main, "--dataset", "tiny", *orders, cwd=folder)
        if "lm" in flags:
            assert_refused(ran, model, "latent variable")
        else:
            assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(
    "flags", ["--model savae --svi_steps 2", "--model lm", "--free_bits 0.2 --beta 0.5 --bn_gamma 1", "--steady"]
)
def test_a_run_taken_up_again_ends_as_one_never_stopped(call, tmp_path, flags):
    """Stopped after two of four epochs, here by a smaller --epochs; bit for bit."""
    args = [*ARGS_TO_RESUME[:-1], 4, *flags.split()]
    args[args.index("--aggressive") + 1] = int("steady" in flags)
    if "lm" in flags:  # it has no KL to anneal
        args[args.index("--kl_start") + 1] = 1
    whole, parts = make_workspace(tmp_path / "whole"), make_workspace(tmp_path / "parts")
    assert call(text.main, *args, cwd=whole).returncode == 0
    assert call(text.main, *args, "--epochs", 2, cwd=parts).returncode == 0
    assert call(text.main, *args, "--resume", cwd=parts).returncode == 0
    states = [load_checkpoint(next((place / "models").rglob("*.resume.pt")), "text") for place in (whole, parts)]
    assert all(torch.equal(value, states[1]["model"][name]) for name, value in states[0]["model"].items())
    last = [[event for event in json_events(place) if event["event"] in ("val", "iw")][-2:] for place in (whole, parts)]
    assert last[0] == last[1]


@pytest.mark.parametrize("flags", [("--svi_steps", 3), ("--nz", 5), ("--model", "vae")])
def test_a_saved_model_is_not_taken_for_another(call, folder, flags):
    """What its file says holds; a flag that says otherwise is not passed over."""
    run_id = f"tiny_aggressive0_{METHODS['--model savae --svi_steps 2']}_0_0_783435"
    call(text.main, *ARGS, "--model", "savae", "--svi_steps", 2, "--epochs", 1, "--overwrite", cwd=folder)
    for more in (["--eval", "--load_path"], ["--decode_from"]):
        refused = call(text.main, "--dataset", "tiny", *flags, *more, f"models/tiny/{run_id}.pt", cwd=folder)
        assert_refused(refused, flags[0], run_id, "leave the flag out")


# ------------------------------------------------------------------ an encoder from elsewhere


@pytest.fixture(scope="module")
def autoencoder(folder, tmp_path_factory):
    """A folder with a saved autoencoder in it, and the path of its file there."""
    place = make_workspace(tmp_path_factory.mktemp("autoencoder") / "workspace")
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patch:
        patch.chdir(place)
        patch.setattr("sys.argv", ["text.py", *map(str, ARGS), "--beta", "0", "--epochs", "1"])
        text.main()
    return place, "models/tiny/tiny_aggressive0_kls1.00_warm10_beta0_0_0_783435.pt"


def test_the_encoder_comes_from_the_file_and_the_decoder_is_new(call, autoencoder, monkeypatch):
    """Seen in the state that is written before the first step."""
    place, path = autoencoder
    monkeypatch.setattr("modules.training.loop.Trainer.fit", lambda trainer: None)
    states = {}
    for name, flags in (("init", ["--encoder_from", path]), ("new", ["--jobid", 1])):
        assert call(text.main, *ARGS, *flags, cwd=place).returncode == 0
        tag = "init_0" if name == "init" else "1"
        state = load_checkpoint(place / f"models/tiny/tiny_aggressive0_kls1.00_warm10_{tag}_0_783435.resume.pt", "text")
        states[name] = state["model"]
    saved = load_checkpoint(place / path, "text")["model"]
    for name, value in states["init"].items():
        assert torch.equal(value, saved[name] if name.startswith("encoder.") else states["new"][name])
        assert not torch.equal(saved[name], states["new"][name])


def test_an_encoder_from_elsewhere_goes_with_constraints_and_aggressive_training(call, autoencoder):
    """Its own constraints are not taken over, the new run's are new. An encoder that knows nothing is remarked on."""
    place, path = autoencoder
    known = load_checkpoint(place / path, "text")["metrics"]["mi_agg"]
    remark = f"note: {path}: its encoder tells next to nothing of x, mi_agg {known:.2f} nats\n"
    assert known < 0.1
    for flags in (["--bn_gamma", 0.6, "--jobid", 3], ["--aggressive", 1, "--epochs", 1]):
        ran = call(text.main, *ARGS, "--encoder_from", path, *flags, cwd=place)
        assert (ran.returncode, ran.stderr) == (0, remark)
    saved = "models/tiny/tiny_aggressive0_kls1.00_warm10_bn0.6_init_3_0_783435.pt"
    ran = call(text.main, *ARGS, "--encoder_from", saved, "--jobid", 4, cwd=place)
    assert (ran.returncode, ran.stderr) == (0, "")  # batch norm has it say something


def test_a_run_goes_on_with_the_encoder_that_it_began_with(call, autoencoder, tmp_path):
    """The file is not read again, but another one's name is refused."""
    place, path = autoencoder
    copy = tmp_path / "encoder.pt"
    copy.write_bytes((place / path).read_bytes())
    args = (*ARGS, "--encoder_from", copy, "--jobid", 7)
    assert call(text.main, *args, "--epochs", 1, cwd=place).returncode == 0
    copy.unlink()
    other = call(text.main, *ARGS, "--jobid", 7, "--encoder_from", "other.pt", "--resume", cwd=place)
    assert_refused(other, "encoder_from", copy, "other.pt")
    assert call(text.main, *args, "--epochs", 2, "--resume", cwd=place).returncode == 0


def test_an_encoder_that_does_not_fit_is_refused_before_anything_is_written(call, autoencoder, workspace):
    place, path = autoencoder
    file = place / path
    for flags, names in (
        (["--encoder_from", file, "--enc_nh", 9], [file, "lstm"]),
        (["--encoder_from", file, "--train_limit", 3], [file, "vocabulary"]),
        (["--encoder_from", "nowhere.pt"], ["nowhere.pt"]),
    ):
        assert_refused(call(text.main, *ARGS, *flags, cwd=workspace), *names)
    assert not (workspace / "logs").exists() and not (workspace / "models").exists()


# ------------------------------------------------------------------ bad commands


@pytest.mark.parametrize(
    "flags, names",
    [
        (["--model", "lm", "--aggressive", 1], ["--model lm", "--aggressive 1"]),
        (["--model", "lm", "--free_bits", 1], ["--model lm", "--free_bits"]),
        (["--model", "lm", "--bn_gamma", 1], ["--model lm", "--bn_gamma"]),
        (["--model", "lm", "--encoder_from", "x.pt"], ["--model lm", "--encoder_from"]),
        (["--model", "savae", "--committed_rate", 1], ["--model savae", "--committed_rate"]),
        (["--model", "savae", "--bn_gamma", 1], ["--model savae", "--bn_gamma"]),
        (["--model", "savae", "--free_bits", 1], ["--model savae", "--free_bits"]),
        (["--model", "savae", "--aggressive", 1, "--steady"], ["--model savae", "--steady"]),
        (["--free_bits", 1, "--aggressive", 1, "--steady"], ["--free_bits", "--steady"]),
        (["--beta", 0, "--aggressive", 1, "--steady"], ["--beta 0", "--steady"]),
        (["--model", "lm", "--beta", 0.5], ["--model lm", "--beta"]),
        (["--model", "lm", "--kl_cycles", 2, "--kl_start", 0], ["--model lm", "--kl_cycles"]),
        (["--svi_steps", 3], ["--svi_steps", "--model savae"]),
    ],
)
def test_what_excludes_each_other_is_refused(call, workspace, flags, names):
    assert_refused(call(text.main, *ARGS, *flags, cwd=workspace), *names)


@pytest.mark.parametrize(
    "flag, value",
    [
        ("--model", "gan"),
        ("--svi_steps", 0),
        ("--beta", -1),
        ("--beta", "nan"),
        ("--kl_cycles", 0),
        ("--free_bits", -0.1),
        ("--free_bits_over", "batch"),
        ("--bn_gamma", 0),
        ("--committed_rate", "many"),
        ("--committed_rate", 1e-17),
    ],
)
def test_bad_values_of_flags(call, workspace, flag, value):
    ran = call(text.main, *ARGS, flag, value, cwd=workspace)
    assert ran.returncode == 2 and flag in ran.stderr and "Traceback" not in ran.stderr


def test_there_is_no_posterior_mean_space_without_a_latent_variable(call, workspace):
    assert_refused(call(toy.main, "--dataset", "tiny", "--model", "lm", cwd=workspace), "--model lm")
