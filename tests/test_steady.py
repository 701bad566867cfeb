"""`--steady`: an outer iteration against Adam and SGD written out, its penalty, how many steps it takes, its name."""

from dataclasses import replace

import pytest
import torch

import image
import text
from modules import methods
from modules.domains.text_domain import TEXT
from modules.methods import method_name
from modules.methods.steady import ENCODER_LR, INNER_STEPS
from modules.training.recipe import IMAGE
from modules.training.recipe import TEXT as RECIPE
from tests.conftest import assert_refused, events
from tests.test_loop import make_trainer, text_data  # noqa: F401

ARGS = ("--dataset", "tiny", "--iw_nsamples", 5, "--aggressive", 1, "--steady")


def gradients(model, x, parameters):
    """Gradients of the batch's mean negative ELBO, half a nat of its KL free, z drawn by the global generator."""
    mean, logvar = model.encoder(x)
    z = mean.unsqueeze(1) + (0.5 * logvar).exp().unsqueeze(1) * torch.randn(len(x), 1, mean.size(1))
    kl = 0.5 * (mean**2 + logvar.exp() - logvar - 1).sum(dim=1)
    loss = model.decoder.reconstruction(x, z).mean() + kl.mean().clamp(min=0.5)
    return torch.autograd.grad(loss, parameters)


@pytest.mark.parametrize("aggressive", [True, False])
@pytest.mark.parametrize("rate, wide", [(1.0, 1), (0.5, 1), (0.5, 5)])
def test_an_outer_iteration_is_ten_steps_of_adam_and_one_of_sgd(make_trainer, text_data, rate, wide, aggressive):  # noqa: F811
    """Or, after the phase, one of each at once. Also after a decay of the rate, which the encoder's follows, and with
    posteriors so wide apart that their KL is not free. Nothing is clipped: the bound is out of reach."""
    settings = {"aggressive": 1, "steady": True}
    recipe = replace(methods.recipe(make_trainer(**settings).s, RECIPE), clip_norm=1e9)
    theirs, ours = (make_trainer(recipe, **settings) for _ in range(2))
    for trainer in (theirs, ours):
        trainer.model.encoder.linear.weight.data *= wide
    train, model = text_data[0]["train"], ours.model.eval()
    theirs.model.eval()
    theirs.algorithm.start_optimisers(rate)
    x, draws = train.batch([0], 0), torch.Generator().manual_seed(3)
    assert (model.elbo_terms(x)[1].sum(dim=1).mean() > 0.5) == (wide > 1)
    torch.manual_seed(5)
    steps, *_ = theirs.algorithm.outer_iteration(x, 1.0, aggressive, train, torch.Generator().manual_seed(3))
    assert steps == (INNER_STEPS if aggressive else 0)
    torch.manual_seed(5)
    phi, theta = list(model.encoder.parameters()), list(model.decoder.parameters())
    first, second = [torch.zeros_like(p) for p in phi], [torch.zeros_like(p) for p in phi]

    def adam(step, of_phi):
        for i, gradient in enumerate(of_phi):
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = 0.999 * second[i] + 0.001 * gradient**2
            moved = first[i] / (1 - 0.9**step) / ((second[i] / (1 - 0.999**step)).sqrt() + 1e-8)
            phi[i].data -= ENCODER_LR * rate * moved

    for step in range(1, steps + 1):
        adam(step, gradients(model, x if step == 1 else train.random_batch(draws), phi))
    of_both = gradients(model, x, [*phi, *theta])
    if not aggressive:
        adam(1, of_both[: len(phi)])
    for parameter, gradient in zip(theta, of_both[len(phi) :]):
        parameter.data -= rate * gradient
    for name, value in theirs.model.named_parameters():
        torch.testing.assert_close(value, model.get_parameter(name), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("recipe", [RECIPE, IMAGE])
def test_every_inner_loop_takes_all_its_steps(make_trainer, text_data, recipe):  # noqa: F811
    """Where the loss rises, the published inner loop would have stopped."""
    trainer = make_trainer(methods.recipe(make_trainer(aggressive=1, steady=True).s, recipe), aggressive=1, steady=True)
    losses = iter(range(100))
    trainer.algorithm.encoder_step = lambda batch, weight: torch.tensor(float(next(losses)))
    train = text_data[0]["train"]
    steps, *_ = trainer.algorithm.outer_iteration(train.batch([0], 0), 1.0, True, train, torch.Generator())
    assert steps == INNER_STEPS == next(losses)


@pytest.mark.parametrize(
    "kl, loss, gradient",
    [
        ([[0.3, 0.1], [0.2, 0.2]], 0.5, [[0, 0], [0, 0]]),  # 0.4 on average
        ([[0.0, 1.0], [0.1, 0.1]], 0.6, [[0.5, 0.5], [0.5, 0.5]]),  # 0.6, though one example has less
    ],
)
def test_half_a_nat_is_free(kl, loss, gradient):
    """Of all dimensions together, averaged over the batch; by hand."""
    kl = torch.tensor(kl, requires_grad=True)
    penalty = methods.kl_penalty(TEXT.settings(aggressive=1, steady=True), kl).mean()
    penalty.backward()
    assert penalty.item() == pytest.approx(loss)
    assert kl.grad.tolist() == gradient


def test_a_run_tells_its_steps_and_its_name(call, workspace):
    ran = call(text.main, *ARGS, cwd=workspace)
    assert (ran.returncode, ran.stderr) == (0, "")
    run, *told = events(workspace, "tiny_aggressive1_kls1.00_warm10_steady_0_0_783435")
    assert method_name(run["args"]) == "aggressive, steady"
    before = 0
    for val in [event for event in told if event["event"] == "val"]:
        iterations = val["iteration"] if val["aggressive"] else before
        assert val["encoder_steps"] == INNER_STEPS * iterations
        assert val["loss"] == pytest.approx(val["reconstruction"] + val["kl"], abs=1e-3) and val["kl"] < 0.4
        before = iterations


def test_images_too(call, image_workspace):
    args = ("--dataset", "tinyimages", "--train_limit", 12, "--epochs", 1, *ARGS[2:])
    assert call(image.main, *args, cwd=image_workspace).returncode == 0


def test_without_the_aggressive_phase_it_is_nothing(call, workspace):
    assert_refused(call(text.main, "--dataset", "tiny", "--steady", cwd=workspace), "--steady", "--aggressive")


def test_a_config_does_not_make_steady_what_is_not_aggressive(call, workspace):
    config = workspace / "config" / "config_tiny.py"
    config.write_text(config.read_text() + '\nparams["steady"] = True\n')
    assert_refused(call(text.main, "--dataset", "tiny", cwd=workspace), "--steady", "--aggressive 1")
    assert_refused(call(text.main, "--dataset", "tiny", "--model", "lm", cwd=workspace), "--steady", "--aggressive 1")
