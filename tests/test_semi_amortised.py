"""Semi-amortised inference: its refinement against steps written out, its gradient against finite differences."""

import math

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
    """The refined mean and log-variance of each x by itself, by steps of momentum 0.5 that autograd follows; a hook on
    each step's gradient keeps it from growing."""
    refined = []
    for row in range(len(x)):
        lam = torch.cat(model.encoder(x[[row]]), dim=1)
        velocity, largest, path = 0, [], [lam]
        for eps in noise[:, [row]]:
            mean, logvar = lam.chunk(2, dim=1)
            z = mean + (0.5 * logvar).exp() * eps
            q = Independent(Normal(mean, (0.5 * logvar).exp()), 1)
            kl = kl_divergence(q, Independent(Normal(torch.zeros_like(mean), 1.0), 1))
            loss = model.decoder.reconstruction(x[[row]], z.unsqueeze(1))[:, 0] + kl_weight * kl
            (gradient,) = torch.autograd.grad(loss, lam, create_graph=True)
            norm = gradient.square().sum().sqrt()
            if norm > clip:
                gradient = gradient * clip / norm
            velocity = 0.5 * velocity + gradient
            lam = lam - semi_amortised.STEP_SIZE * velocity
            path.append(lam)

        def bounded(gradient, largest=largest):
            largest.append(gradient.norm())
            return gradient * min(1.0, largest[0] / gradient.norm())

        for step in path:  # backwards, the last comes first
            step.register_hook(bounded)
        refined.append(lam)
    return torch.cat(refined).chunk(2, dim=1)


@pytest.mark.parametrize("step", [1 / 32, 1.5])
@pytest.mark.parametrize("clip", [28.0, 3.0])
@pytest.mark.parametrize("kl_weight", [1.0, 0.2])
def test_refinement_and_its_gradient_are_those_of_steps_written_out(monkeypatch, step, clip, kl_weight):
    """Value and gradient, by autograd through every step, with the clip in force and without; steps that overshoot,
    whose derivative would explode, among them."""
    monkeypatch.setattr(semi_amortised, "CLIP_NORM", clip)
    monkeypatch.setattr(semi_amortised, "STEP_SIZE", step)
    model = SemiAmortisedVAE(Encoder(), Decoder(), steps=6)
    torch.manual_seed(2)
    noise = torch.randn(6, 4, 2, dtype=torch.float64)
    expected = written_out(model, X, noise, kl_weight, clip)
    torch.manual_seed(2)
    got = model.posterior(X, kl_weight)
    weights = torch.linspace(-1, 2, 16, dtype=torch.float64).view(2, 4, 2)
    gradients = []
    for mean, logvar in (expected, got):
        (weights[0] * mean + weights[1] * logvar).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        model.zero_grad()
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-6, atol=1e-8)


def test_what_flows_back_through_the_steps_does_not_grow(monkeypatch):
    """At the bottom of a bowl so steep that they overshoot; unbounded, each multiplies it by 1 - 300 / 32 or so."""

    class Steep(Decoder):
        def reconstruction(self, x, z):
            return 0.5 * 300 * (z - 0 * self.weight.sum()).square().sum(dim=-1)

    decoder, noise = Steep(), torch.zeros(20, 1, 2, dtype=torch.float64)
    reached = {}
    for growth in (1.0, 1e30):
        monkeypatch.setattr(semi_amortised, "GROWTH", growth)
        start = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
        problem = semi_amortised._Problem(decoder, X[:1], 1.0)
        semi_amortised._Refinement.apply(problem, noise, start, decoder.weight)[0, 0].backward()
        reached[growth] = start.grad.norm()
    assert 0 < reached[1.0] <= 1 + 1e-9 and reached[1e30] > 1e12


def test_the_likelihood_takes_its_samples_from_the_refined_posterior():
    """-log (1/K) sum_k p(x|z_k) p(z_k) / q(z_k|x), with q written out by `torch.distributions`."""
    model = SemiAmortisedVAE(Encoder(), Decoder(), steps=6).eval()
    got = model.iw_nll(X, 50, 1000, torch.Generator().manual_seed(2))
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        mean, logvar = model.posterior(X)
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
    unrefined = SemiAmortisedVAE(model.encoder, model.decoder, 1).eval()
    unrefined = unrefined.iw_nll(X, 50, 1000, torch.Generator().manual_seed(2))
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
@pytest.mark.parametrize("clip", [28.0, 1.0])
def test_the_gradient_of_the_elbo_is_that_of_finite_differences(monkeypatch, build, clip):
    """Of the whole objective, refinement and all, in float64, with nothing bounded: the largest entries for every
    parameter."""
    monkeypatch.setattr(semi_amortised, "CLIP_NORM", clip)
    monkeypatch.setattr(semi_amortised, "GROWTH", 1e9)
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


def test_noise_is_new_at_each_step_of_training_and_always_the_same_in_evaluation():
    """So sentences that are the same have the same q(z|x), which then says nothing of which of them it is."""
    model, x = text_model()
    x = x[:1].expand(16, -1)
    model.train()
    first, again = model.posterior(x)[0], model.posterior(x)[0]
    assert not torch.equal(first, again) and not torch.allclose(first[0], first[1])
    model.eval()
    mean, logvar = model.posterior(x)
    assert torch.equal(mean, model.posterior(x)[0])
    torch.testing.assert_close(mean, mean[:1].expand(16, -1))
    z = mean + (0.5 * logvar).exp() * torch.randn(mean.shape, generator=torch.Generator().manual_seed(1))
    assert float(metrics.batch_mutual_information(mean, logvar, z).detach()) == pytest.approx(0, abs=1e-3)


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
        model = SemiAmortisedVAE(Shifted(), decoder, steps)
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


@pytest.mark.parametrize("build", [text_model, image_model])
@pytest.mark.parametrize("clip", [28.0, 0.1])
def test_an_x_is_refined_the_same_whatever_its_batch(monkeypatch, build, clip):
    monkeypatch.setattr(semi_amortised, "CLIP_NORM", clip)
    model, x = build()
    model.eval()
    together = torch.cat(model.posterior(x), dim=1)
    alone = torch.cat([torch.cat(model.posterior(x[[i]]), dim=1) for i in range(len(x))])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("build", [text_model, image_model])
def test_refinement_sees_the_decoder_as_evaluation_does_and_leaves_it_as_it_was(build):
    model, x = build()
    model.eval().decoder.train()  # the start and the noise are those of evaluation
    buffers = {name: value.clone() for name, value in model.decoder.named_buffers()}
    frozen = next(model.decoder.parameters()).requires_grad_(False)
    training = model.posterior(x)
    assert model.decoder.training and all(module.training for module in model.decoder.modules())
    assert [p.requires_grad for p in model.decoder.parameters()].count(False) == 1 and not frozen.requires_grad
    assert all(torch.equal(value, buffers[name]) for name, value in model.decoder.named_buffers())
    model.eval()
    with torch.no_grad():
        evaluation = model.posterior(x)
    torch.testing.assert_close(training, evaluation)
    assert not evaluation[0].requires_grad


def test_metrics_are_those_of_the_refined_posterior(text_data):
    splits, vocabulary = text_data
    torch.manual_seed(0)
    model = build_vae(TEXT.settings(**TEXT_CONFIG, model="savae", svi_steps=3), vocabulary)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.6)
    encoded = metrics.posteriors(model.eval(), splits["val"], seed=3)
    for x, (mean, _, _) in zip(splits["val"], encoded):
        assert not torch.allclose(mean, model.encoder(x)[0], atol=1e-3)
    means, logvars = (torch.cat(parts) for parts in zip(*(model.posterior(x) for x in splits["val"])))
    q = Independent(Normal(means.detach(), (0.5 * logvars.detach()).exp()), 1)
    measured = metrics.evaluate(model, splits["val"], seed=3)
    kl = kl_divergence(q, Independent(Normal(torch.zeros_like(means), torch.ones_like(means)), 1))
    assert measured.kl == pytest.approx(float(kl.mean()), rel=1e-4)
    assert measured.active_units == (means.var(dim=0) >= 0.01).sum()
    z = torch.cat([drawn.flatten(0, -2) for _, _, drawn in encoded])  # mi_agg from the densities themselves
    mixed = Normal(q.mean, q.stddev).log_prob(z[:, None]).sum(-1).logsumexp(1) - math.log(len(q.mean))
    assert measured.mi_agg == pytest.approx(float((q.log_prob(z) - mixed).mean()), abs=1e-4)
