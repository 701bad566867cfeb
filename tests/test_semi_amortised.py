"""Semi-amortised inference: its refinement against steps written out, its gradient against finite differences."""

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from modules.domains.image_domain import IMAGE
from modules.domains.image_domain import build_vae as build_image_vae
from modules.domains.text_domain import TEXT, build_vae
from modules.evaluation import metrics
from modules.methods import semi_amortised
from modules.methods.semi_amortised import SemiAmortisedVAE
from modules.models.layers.dropout import Dropout
from tests.test_loop import text_data
from tests.test_methods import IMAGE_CONFIG, TEXT_CONFIG
from tests.test_metrics import LinearGaussian, PosteriorTimes

X = torch.randn(4, 4, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


class Encoder(nn.Module):
    """Any linear encoder of the vectors of `LinearGaussian`."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.weight = nn.Parameter(0.3 * torch.randn(4, 4, generator=generator, dtype=torch.float64))

    def forward(self, x):
        return (x @ self.weight).chunk(2, dim=1)


class Decoder(nn.Module):
    """`LinearGaussian` with a weight that learns; autograd can differentiate it twice."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(LinearGaussian.weight.clone())

    def reconstruction(self, x, z):
        means = (z @ self.weight.T).tanh() + LinearGaussian.bias
        return -Normal(means, LinearGaussian.sigma).log_prob(x.unsqueeze(1)).sum(dim=-1)


def written_out(model, x, noise, kl_weight, clip):
    """The refined mean and log-variance, by steps that autograd follows: step size 1, momentum 0.5."""
    lam = torch.cat(model.encoder(x), dim=1)
    velocity = 0
    for eps in noise:
        mean, logvar = lam.chunk(2, dim=1)
        z = mean + (0.5 * logvar).exp() * eps
        q = Independent(Normal(mean, (0.5 * logvar).exp()), 1)
        kl = kl_divergence(q, Independent(Normal(torch.zeros_like(mean), 1.0), 1))
        loss = (model.decoder.reconstruction(x, z.unsqueeze(1))[:, 0] + kl_weight * kl).sum() / model.batch_size
        (gradient,) = torch.autograd.grad(loss, lam, create_graph=True)
        norm = gradient.square().sum().sqrt()
        if norm > clip:
            gradient = gradient * clip / norm
        velocity = 0.5 * velocity + gradient
        lam = lam - velocity
    return lam.chunk(2, dim=1)


@pytest.mark.parametrize("clip", [5.0, 0.3])
@pytest.mark.parametrize("kl_weight", [1.0, 0.2])
def test_refinement_and_its_gradient_are_those_of_steps_written_out(monkeypatch, clip, kl_weight):
    """Value and gradient, by autograd through every step, with the clip in force and without."""
    monkeypatch.setattr(semi_amortised, "CLIP_NORM", clip)
    model = SemiAmortisedVAE(Encoder(), Decoder(), steps=6, batch_size=5)
    noise = torch.randn(6, 4, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = written_out(model, X, noise, kl_weight, clip)
    got = model.posterior(X, torch.Generator().manual_seed(2), kl_weight)
    weights = torch.linspace(-1, 2, 16, dtype=torch.float64).view(2, 4, 2)
    gradients = []
    for mean, logvar in (expected, got):
        (weights[0] * mean + weights[1] * logvar).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        model.zero_grad()
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-6, atol=1e-8)


def test_the_likelihood_takes_its_samples_from_the_refined_posterior():
    """-log (1/K) sum_k p(x|z_k) p(z_k) / q(z_k|x), with q written out by `torch.distributions`."""
    model = SemiAmortisedVAE(Encoder(), Decoder(), steps=6, batch_size=5)
    got = model.iw_nll(X, 50, 1000, torch.Generator().manual_seed(2))
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        mean, logvar = model.posterior(X, random)
        q, prior = Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)
        z = mean.unsqueeze(1) + q.scale.unsqueeze(1) * torch.randn(4, 50, 2, dtype=torch.float64, generator=random)
        weights = [
            -model.decoder.reconstruction(X, z[:, [k]])[:, 0]
            + prior.log_prob(z[:, k]).sum(1)
            - q.log_prob(z[:, k]).sum(1)
            for k in range(50)
        ]
    expected = -torch.logsumexp(torch.stack(weights), dim=0) + torch.tensor(50.0).log()
    torch.testing.assert_close(got, expected)
    unrefined = SemiAmortisedVAE(model.encoder, model.decoder, 1, 5).iw_nll(
        X, 50, 1000, torch.Generator().manual_seed(2)
    )
    assert (got - unrefined).abs().max() > 1e-3


def text_model():
    torch.manual_seed(0)
    model = build_vae(TEXT.settings(**TEXT_CONFIG, model="savae", svi_steps=4), range(9))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.6)
    return model, torch.randint(0, 9, (3, 6))


def image_model():
    torch.manual_seed(0)
    model = build_image_vae(IMAGE.settings(**IMAGE_CONFIG, model="savae", svi_steps=3))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # running statistics that have seen something
            nn.init.uniform_(module.running_mean, -0.3, 0.3), nn.init.uniform_(module.running_var, 0.5, 2)
    return model, (torch.rand(4, 1, 5, 4) < 0.4).float()


@pytest.mark.parametrize("build", [text_model, image_model])
@pytest.mark.parametrize("clip", [5.0, 0.5])
def test_the_gradient_of_the_elbo_is_that_of_finite_differences(monkeypatch, build, clip):
    """Of the whole objective, refinement and all, in float64: the largest entries for every parameter."""
    monkeypatch.setattr(semi_amortised, "CLIP_NORM", clip)
    model, x = build()
    model = model.double().train()
    model.decoder.train_dtype = torch.float64
    for module in model.modules():  # finite differences need the same masks and moments each time
        if isinstance(module, (Dropout, nn.BatchNorm2d)):
            module.eval()
    if x.is_floating_point():
        x = x.double()

    def objective():
        torch.manual_seed(1)
        reconstruction, kl = model.elbo_terms(x, kl_weight=0.7)
        return reconstruction.mean() + 0.7 * kl.sum(dim=1).mean()

    objective().backward()
    for name, parameter in model.named_parameters():
        values, gradient = parameter.data, parameter.grad
        largest = gradient.flatten().abs().topk(min(2, gradient.numel())).indices
        for i in (tuple(index) for index in torch.stack(torch.unravel_index(largest, gradient.shape)).T):
            original = values[i].item()
            at = []
            for shift in (1e-5, -1e-5):
                values[i] = original + shift
                at.append(objective().item())
            values[i] = original
            assert gradient[i].item() == pytest.approx((at[0] - at[1]) / 2e-5, rel=1e-4, abs=1e-6), name


def test_lstms_alone_stay_in_training_mode():
    """cuDNN differentiates them in no other; dropout and batch norm are as in evaluation."""
    model = build_vae(TEXT.settings(**TEXT_CONFIG, model="savae", svi_steps=1), range(9)).train()
    with semi_amortised._as_evaluated(model.decoder):
        modes = {name: module.training for name, module in model.decoder.named_modules()}
    assert {name for name, training in modes.items() if training} == {"lstm"}
    assert all(module.training for module in model.decoder.modules())


def test_noise_comes_from_the_given_generator():
    model = build_vae(TEXT.settings(**TEXT_CONFIG, model="savae", svi_steps=2), range(9)).eval()
    x = torch.tensor([[1, 5, 6, 2], [1, 7, 8, 2]])
    first, again = (model.posterior(x, torch.Generator().manual_seed(3))[0] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, model.posterior(x, torch.Generator().manual_seed(4))[0])


def test_refinement_finds_a_better_elbo():
    """From a posterior that is wrong towards the exact one, whose ELBO is the likelihood."""

    class Shifted(PosteriorTimes):
        def forward(self, x):
            mean, logvar = super().forward(x)
            return mean + 1.0, logvar + 1.0

    decoder = LinearGaussianModule()
    exact = LinearGaussian().log_likelihood(X)
    losses = {}
    for steps in (1, 20, 300):
        model = SemiAmortisedVAE(Shifted(), decoder, steps, batch_size=100)
        torch.manual_seed(0)
        reconstruction, kl = model.elbo_terms(X, 2000)
        losses[steps] = (reconstruction + kl.sum(dim=1) + exact).detach()  # its distance from the likelihood
    assert (losses[1] > losses[20]).all() and (losses[20] > losses[300]).all()
    assert (losses[300] < 0.1 * losses[1]).all()


class LinearGaussianModule(LinearGaussian, nn.Module):
    """`LinearGaussian` as a decoder that a model can own."""

    def __init__(self):
        nn.Module.__init__(self)
        self.asked = []


def test_a_sentence_is_refined_the_same_whatever_its_batch():
    """As long as the clip is not in force: the step is by the config's batch size, not by the batch at hand."""
    model, x = text_model()
    model.steps, noise = 5, torch.randn(5, 3, 3)
    together = torch.cat(refined_with(model, x, noise), dim=1)
    alone = torch.cat([torch.cat(refined_with(model, x[i : i + 1], noise[:, i : i + 1]), dim=1) for i in range(3)])
    torch.testing.assert_close(together, alone)


def test_a_batch_larger_than_the_config_s_is_refined_in_parts(monkeypatch):
    """With the clip in force, which is over a batch: as if its parts had come one after the other."""
    monkeypatch.setattr(semi_amortised, "CLIP_NORM", 0.1)
    model, x = text_model()
    model.eval().batch_size = 2
    together = model.posterior(x, torch.Generator().manual_seed(6))
    random = torch.Generator().manual_seed(6)
    parts = [model.posterior(part, random) for part in (x[:2], x[2:])]
    for whole, pieces in zip(together, zip(*parts)):
        torch.testing.assert_close(whole, torch.cat(pieces))


def refined_with(model, x, noise):
    """The refined posterior under given noise [steps, batch, nz]."""
    problem = semi_amortised._Problem(model, x, 1.0)
    start = torch.cat(model.encoder(x), dim=1)
    return semi_amortised._Refinement.apply(problem, noise, start, *model.decoder.parameters()).chunk(2, dim=1)


@pytest.mark.parametrize("build", [text_model, image_model])
def test_refinement_sees_the_decoder_as_evaluation_does_and_leaves_it_as_it_was(build):
    model, x = build()
    model.encoder.eval()  # so that the start is the same; the decoder is in training
    model.decoder.train()
    buffers = {name: value.clone() for name, value in model.decoder.named_buffers()}
    frozen = next(model.decoder.parameters()).requires_grad_(False)
    training = model.posterior(x, torch.Generator().manual_seed(0))
    assert model.decoder.training and all(module.training for module in model.decoder.modules())
    assert [p.requires_grad for p in model.decoder.parameters()].count(False) == 1 and not frozen.requires_grad
    assert all(torch.equal(value, buffers[name]) for name, value in model.decoder.named_buffers())
    model.eval()
    with torch.no_grad():
        evaluation = model.posterior(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(training, evaluation)
    assert not evaluation[0].requires_grad


def test_metrics_are_those_of_the_refined_posterior(text_data):
    splits, vocabulary = text_data
    torch.manual_seed(0)
    model = build_vae(TEXT.settings(**TEXT_CONFIG, model="savae", svi_steps=3), vocabulary)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.6)
    encoded = metrics.posteriors(model.eval(), splits["val"], seed=3)
    assert metrics.evaluate(model, splits["val"], seed=3) == metrics.evaluate(model, splits["val"], seed=3)
    for x, (mean, _, _) in zip(splits["val"], encoded):
        assert not torch.allclose(mean, model.encoder(x)[0], atol=1e-3)
