"""What the methods beside the paper's own promise, each against a direct calculation."""

import math
from dataclasses import replace

import pytest
import scipy.optimize
import torch
import torch.nn.functional as F

from modules import methods
from modules.domains.image_domain import IMAGE
from modules.domains.image_domain import build_vae as build_image_vae
from modules.domains.text_domain import TEXT, build_vae
from modules.evaluation import metrics
from modules.methods.annealing import annealed_weight
from modules.methods.batch_norm import BatchNormMean
from modules.methods.committed_rate import BoundedVariance
from modules.models.gaussian import kl_to_standard_normal
from modules.training.loop import Trainer
from modules.training.recipe import TEXT as RECIPE
from modules.training.run_files import RunFiles
from tests.test_loop import ListRecords, make_trainer, script_validation, text_data

TEXT_CONFIG = {
    "nz": 3,
    "ni": 4,
    "enc_nh": 5,
    "dec_nh": 6,
    "dec_dropout_in": 0.3,
    "dec_dropout_out": 0.3,
    "batch_size": 4,
}
IMAGE_CONFIG = {
    "img_size": [1, 5, 4],
    "nz": 3,
    "enc_layers": [4],
    "dec_kernel_size": [3, 3, 3],
    "dec_layers": [4, 4, 4],
    "latent_feature_map": 2,
    "batch_size": 4,
}


# ------------------------------------------------------------------ the KL weight


@pytest.mark.parametrize("batches, start, warm_up, cycles", [(7, 0.0, 3, 4), (1, 0.1, 2, 2), (13, 0.0, 1, 3)])
def test_cyclical_annealing_is_that_of_the_paper(batches, start, warm_up, cycles):
    """beta_t = tau / R up to R, then 1, with tau = mod(t - 1, T / M) / (T / M), here with R = 1/2 (Fu et al. 2019,
    equations 6 and 7), one increment ahead, as is the plain warm-up."""
    period = 2 * warm_up * batches
    for iteration in range(cycles * period):
        tau = (iteration % period + 1) / period
        expected = start + (1 - start) * min(1, tau / 0.5)
        assert annealed_weight(iteration, batches, start, warm_up, cycles) == pytest.approx(expected)
    assert all(
        annealed_weight(iteration, batches, start, warm_up, cycles) == 1.0
        for iteration in range(cycles * period, (cycles + 1) * period)
    )


@pytest.mark.parametrize("warm_up, cycles, epoch", [(10, 4, 80), (2, 3, 15), (10, 1, 15)])
def test_no_decay_of_the_rate_before_the_last_cycle_ends(warm_up, cycles, epoch):
    s = TEXT.settings(**TEXT_CONFIG, kl_start=0.0, warm_up=warm_up, kl_cycles=cycles)
    assert methods.recipe(s, RECIPE).decay_from_epoch == epoch


def test_beta_multiplies_the_annealed_weight(make_trainer):
    trainer = make_trainer(aggressive=False, warm_up=2, kl_start=0.1, epochs=3, beta=0.4)
    trainer.fit()
    assert [e["kl_weight"] for e in trainer.records.named("val")] == pytest.approx([0.4 * 0.55, 0.4, 0.4])
    for event in trainer.records.named("val"):
        assert event["loss"] == pytest.approx(event["reconstruction"] + event["kl"])  # reported at weight 1


@pytest.mark.parametrize("beta, best", [(0.0, [0, 1, 3]), (0.4, [0, 2])])
def test_of_an_autoencoder_the_reconstruction_decides_what_is_best(make_trainer, monkeypatch, beta, best):
    trainer = make_trainer(aggressive=False, epochs=4, beta=beta)
    script_validation(monkeypatch, trainer, [5.0, 4.0, 4.5, 3.0], kl=[1.0, 9.0, 1.0, 30.0])
    trainer.fit()
    assert [e["epoch"] for e in trainer.records.named("best")] == best


# ------------------------------------------------------------------ free bits


def free_bits(kl, free, over):
    return methods.kl_penalty(TEXT.settings(free_bits=free, free_bits_over=over), kl)


KL = torch.tensor([[0.30, 0.01, 2.0], [0.10, 0.05, 4.0], [0.50, 0.00, 6.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    "free, over, expected",
    [
        (0.0, "dimension", 0.30 + 0.02 + 4.0),  # the KL itself
        (0.25, "dimension", 0.30 + 0.25 + 4.0),  # means over the batch are 0.3, 0.02 and 4
        (0.31, "dimension", 0.31 + 0.31 + 4.0),
        (5.0, "dimension", 15.0),
        (4.31, "sum", 4.32),
        (4.33, "sum", 4.33),
        (0.0, "sum", 4.32),
    ],
)
def test_free_bits_are_the_larger_of_bound_and_mean_kl(free, over, expected):
    assert float(free_bits(KL, free, over).mean()) == pytest.approx(expected)


@pytest.mark.parametrize(
    "free, over, pays",
    [
        (0.25, "dimension", [True, False, True]),
        (0.31, "dimension", [False, False, True]),
        (4.31, "sum", [True] * 3),
        (4.33, "sum", [False] * 3),
    ],
)
def test_what_is_free_has_no_gradient(free, over, pays):
    kl = KL.clone().requires_grad_()
    free_bits(kl, free, over).sum().backward()
    assert kl.grad.tolist() == [[float(p) for p in pays]] * 3


def test_a_step_under_free_bits_is_the_one_computed_by_hand(make_trainer):
    trainer = make_trainer(replace(RECIPE, clip_norm=1e9), free_bits=0.02, nsamples=2)
    model, x = trainer.model.eval(), trainer.splits["train"].batch([0], 0)
    torch.manual_seed(5)
    mean, logvar = model.encoder(x)
    z = mean.unsqueeze(1) + (0.5 * logvar).exp().unsqueeze(1) * torch.randn(len(x), 2, mean.size(1))
    kl = [0.5 * (mean[:, j] ** 2 + logvar[:, j].exp() - logvar[:, j] - 1).mean() for j in range(mean.size(1))]
    assert min(kl) < 0.02 < max(kl), "else one of the two cases is not seen"
    loss = model.decoder.reconstruction(x, z).mean() + 0.7 * sum(max(term, torch.tensor(0.02)) for term in kl)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    torch.manual_seed(5)
    trainer.algorithm.gradients(x, 0.7)
    for parameter, gradient in zip(model.parameters(), expected):
        torch.testing.assert_close(parameter.grad, gradient)


# ------------------------------------------------------------------ posteriors that cannot collapse


def test_batch_normalised_means_have_the_second_moment_asked_for():
    torch.manual_seed(0)
    constraint = BatchNormMean(4, 0.6)
    torch.nn.init.normal_(constraint.shift)
    for scale in (1e-4, 1.0, 1e3):  # a text encoder starts with means of the order of 1e-4
        mean, logvar = scale * torch.randn(50, 4) + 2 * scale, torch.randn(50, 4)
        normalised, same = constraint(mean, logvar)
        assert same is logvar
        torch.testing.assert_close(normalised.square().mean(dim=0), 0.36 + constraint.shift.square(), rtol=1e-3, atol=0)
        centred = (mean - mean.mean(dim=0)) / mean.std(dim=0, unbiased=False)
        torch.testing.assert_close(normalised, 0.6 * centred + constraint.shift, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_batch_normalised_means_bound_the_kl_of_a_batch(gamma):
    """nz * gamma^2 / 2, attained at unit variance and no shift."""
    torch.manual_seed(1)
    constraint, mean = BatchNormMean(4, gamma), 0.01 * torch.randn(64, 4)
    bound = 4 * gamma**2 / 2
    unit, other = (
        kl_to_standard_normal(*constraint(mean, logvar)).detach().mean()
        for logvar in (torch.zeros(64, 4), torch.randn(64, 4))
    )
    assert float(unit) == pytest.approx(bound, rel=1e-3)
    assert float(other) > bound


def test_a_batch_of_one_and_evaluation_use_the_running_statistics():
    constraint = BatchNormMean(2, 0.5)
    data = torch.randn(400, 2) * torch.tensor([2.0, 0.1]) + 3
    for _ in range(150):
        constraint(data, data)
    running = constraint.norm.running_mean.clone()
    expected = 0.5 * (data - data.mean(dim=0)) / data.std(dim=0)
    torch.testing.assert_close(constraint(data[:1], data[:1])[0], expected[:1], rtol=0.02, atol=0.02)
    constraint.eval()
    torch.testing.assert_close(constraint(data, data)[0], expected, rtol=0.02, atol=0.02)
    assert torch.equal(constraint.norm.running_mean, running)


def test_evaluation_normalises_as_the_whole_training_split_does(make_trainer):
    """After an epoch the batches' statistics, of one length each, and their lag are gone, and no random number with
    them: so the method's bound holds in evaluation, too."""
    trainer = make_trainer(aggressive=False, bn_gamma=0.6, epochs=1)
    model, split = trainer.model, trainer.splits["train"]
    for x in split:
        model.encoder(x)  # averages of a kind
    before, noise = model.encoder.constraints[0].norm.running_mean.clone(), torch.get_rng_state()
    methods.after_epoch(trainer.s, model, split)
    assert model.training and torch.equal(torch.get_rng_state(), noise)
    raw = torch.cat([model.encoder.gaussian(x)[0] for x in split]).detach()
    norm = model.encoder.constraints[0].norm
    assert not torch.allclose(norm.running_mean, before)
    torch.testing.assert_close((norm.running_mean, norm.running_var), (raw.mean(dim=0), raw.var(dim=0, correction=0)))
    trainer.fit()
    measured = metrics.evaluate(model, split, seed=0)
    assert measured.kl >= trainer.s.nz * 0.6**2 / 2 * (1 - 1e-5)


@pytest.mark.parametrize("rate, nz", [(0.5, 1), (3.0, 32), (20.0, 2), (1e-3, 8)])
def test_the_committed_rate_bounds_every_kl(rate, nz):
    torch.manual_seed(2)
    constraint = BoundedVariance(nz, rate).double()
    mean, logvar = torch.randn(500, nz, dtype=torch.float64), 10 * torch.randn(500, nz, dtype=torch.float64)
    assert (kl_to_standard_normal(*constraint(mean, logvar)) >= rate * (1 - 1e-9)).all()
    nothing_said, anything = torch.zeros(1, nz, dtype=torch.float64), torch.full((1, nz), 200.0, dtype=torch.float64)
    assert float(kl_to_standard_normal(*constraint(nothing_said, anything))) == pytest.approx(rate)


def test_the_variance_is_bounded_by_the_root_and_free_far_below():
    constraint = BoundedVariance(1, 0.7).double()
    root = scipy.optimize.brentq(lambda s: 0.5 * (s - math.log(s) - 1) - 0.7, 1e-9, 1 - 1e-9)
    mean = torch.zeros(3, 1, dtype=torch.float64)
    _, logvar = constraint(mean, torch.tensor([[50.0], [0.0], [-30.0]], dtype=torch.float64))
    assert float(logvar[0].exp()) == pytest.approx(root)
    assert float(logvar[1].exp()) < root
    assert float(logvar[2]) == pytest.approx(-30)


# ------------------------------------------------------------------ no latent variable


def test_the_language_model_is_an_lstm_by_itself():
    """Its likelihood against one computed with PyTorch's own pieces; exact from the first importance sample on."""
    torch.manual_seed(3)
    model = build_vae(TEXT.settings(**TEXT_CONFIG, model="lm"), range(9)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    x, decoder = torch.randint(0, 9, (5, 7)), model.decoder
    hidden, _ = torch.nn.LSTM.forward(decoder.lstm, decoder.embed(x[:, :-1].T))
    logits = hidden @ decoder.pred_linear.weight.T
    expected = F.cross_entropy(logits.permute(1, 2, 0), x[:, 1:], reduction="none").sum(dim=1)
    reconstruction, kl = model.elbo_terms(x)
    assert kl.shape == (5, 0)
    torch.testing.assert_close(reconstruction, expected)
    torch.testing.assert_close(model.iw_nll(x, 500, 2), expected)


def test_the_pixelcnn_by_itself_sees_the_image_alone():
    model = build_image_vae(IMAGE.settings(**IMAGE_CONFIG, model="lm")).eval()
    assert model.decoder.main[0].main[0].main[0].in_channels == 1
    assert not [name for name, p in model.named_parameters() if p.numel() and "z_transform" in name]
    x = (torch.rand(6, 1, 5, 4) < 0.4).float()
    logits = model.decoder.logits(x, torch.zeros(6, 0))
    torch.testing.assert_close(
        model.iw_nll(x, 500, 100), F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(dim=(1, 2, 3))
    )
    images, probabilities = model.decoder.sample(torch.zeros(6, 0), torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        model.decoder.logits(images, torch.zeros(6, 0)).sigmoid(), probabilities, rtol=1e-4, atol=1e-5
    )


def test_without_a_latent_variable_there_is_no_information(text_data):
    splits, vocabulary = text_data
    model = build_vae(TEXT.settings(**TEXT_CONFIG, model="lm"), vocabulary)
    measured = metrics.evaluate(model, splits["val"], seed=0)
    assert (measured.kl, measured.mi, measured.mi_agg, measured.active_units) == (0, 0, 0, 0)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_the_decoder_alone_is_trained(text_data, tmp_path, optimiser):
    splits, vocabulary = text_data
    model = build_vae(TEXT.settings(**TEXT_CONFIG, model="lm"), vocabulary)
    s = TEXT.settings(**TEXT_CONFIG, model="lm", warm_up=0, epochs=3, test_nepoch=9, seed=1)
    trainer = Trainer(
        model,
        splits,
        replace(RECIPE, optimiser=optimiser, lr=0.01),
        s,
        ListRecords(),
        RunFiles("tiny", "run", models=tmp_path),
        {"domain": "text", "dataset": "tiny"},
    )
    before = metrics.evaluate(model, splits["val"], seed=0).loss
    trainer.fit()
    assert trainer.records.named("val")[-1]["loss"] < before
