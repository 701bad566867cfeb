"""Every reported figure against a closed form, quadrature, or a slow independent calculation."""

import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from modules.data.corpus import TextSplit, Vocabulary, read_corpus
from modules.domains.text_domain import TEXT, build_vae
from modules.evaluation import metrics
from modules.evaluation.metrics import (
    active_units,
    aggregate_mutual_information,
    batch_mutual_information,
    evaluate,
    importance_weighted_nll,
    mutual_information,
    mutual_information_ceiling,
    perplexity,
    posteriors,
    quick_look,
)
from modules.models.encoders.gaussian_encoder import GaussianEncoder
from modules.models.gaussian import (
    kl_to_standard_normal,
    log_density,
    log_mixture_density,
    log_standard_normal,
    reparameterize,
)
from modules.models.vae import VAE


def gaussians(n, nz, seed=0):
    """Means and log-variances of n diagonal Gaussians, and one draw from each, in float64."""
    generator = torch.Generator().manual_seed(seed)
    mean, noise, logvar = torch.randn(3, n, nz, dtype=torch.float64, generator=generator)
    return 2 * mean, logvar, 2 * mean + noise * (0.5 * logvar).exp()


# ---------------------------------------------------------------------- Gaussians


def test_kl_and_densities_are_those_of_torch_distributions():
    mean, logvar, z = gaussians(50, 4)
    q = Independent(Normal(mean, (0.5 * logvar).exp()), 1)
    p = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
    torch.testing.assert_close(kl_to_standard_normal(mean, logvar), kl_divergence(q, p))
    torch.testing.assert_close(log_density(z, mean, logvar), q.log_prob(z))
    torch.testing.assert_close(log_standard_normal(z), p.log_prob(z))


@pytest.mark.parametrize("mean, logvar", [(0.0, 0.0), (1.5, -2.0), (-0.3, 1.0)])
def test_kl_by_quadrature(mean, logvar):
    q, p = scipy.stats.norm(mean, math.exp(0.5 * logvar)), scipy.stats.norm()
    value, _ = scipy.integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -15, 15, epsabs=1e-10)
    assert kl_to_standard_normal(torch.tensor([[mean]]), torch.tensor([[logvar]])).item() == pytest.approx(
        value, abs=1e-6
    )


def test_draws_have_the_mean_and_variance_asked_for():
    mean, logvar, _ = gaussians(3, 2)
    z = reparameterize(mean, logvar, 40_000, torch.Generator().manual_seed(0))
    assert z.shape == (3, 40_000, 2)
    torch.testing.assert_close(z.mean(dim=1), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(z.var(dim=1), logvar.exp(), atol=0, rtol=0.05)


@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_mixture_density_is_that_of_loops(chunk):
    mean, logvar, _ = gaussians(20, 3)
    _, _, z = gaussians(30, 3, seed=1)
    expected = [
        math.log(
            np.mean(
                [
                    scipy.stats.multivariate_normal(m, np.diag(v)).pdf(point)
                    for m, v in zip(mean.numpy(), logvar.exp().numpy())
                ]
            )
        )
        for point in z.numpy()
    ]
    torch.testing.assert_close(log_mixture_density(z, mean, logvar, chunk), torch.tensor(expected, dtype=torch.float64))


def test_mixture_density_of_narrow_components_far_out():
    """Float32 posteriors of standard deviation 5e-5 around means near 50: expanding squares must not cancel them."""
    mean = torch.tensor([[50.0], [-50.0]])
    logvar = torch.full_like(mean, -20.0)
    z = mean + 1e-4
    expected = log_density(z.double(), mean.double(), logvar.double()) - math.log(2)
    torch.testing.assert_close(log_mixture_density(z, mean, logvar), expected, atol=0.01, rtol=0)


# ---------------------------------------------------------------------- mutual information


def expected_information(estimate, mean, logvar, nodes=80):
    """The expectation of a one-draw estimate over z ~ q(z|x), nz = 1, by Gauss-Hermite quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    values = [float(estimate(mean, logvar, mean + point * (0.5 * logvar).exp())) for point in points]
    return float(np.dot(weights, values) / weights.sum())


def true_information(mean, logvar):
    """I(x, z) for x uniform over 1-d Gaussians q(z|x), by adaptive quadrature."""
    components = [scipy.stats.norm(m, math.exp(0.5 * v)) for m, v in zip(mean.flatten().tolist(), logvar.flatten())]

    def integrand(z):
        densities = [q.pdf(z) for q in components]
        mixture = np.mean(densities)
        return np.mean([d * math.log(d / mixture) for d in densities if d > 1e-300])

    return scipy.integrate.quad(integrand, -12, 12, points=mean.flatten().tolist(), epsabs=1e-9, limit=400)[0]


@pytest.mark.parametrize(
    "means, logvars",
    [
        ([-2.0, 2.0], [0.0, 0.0]),
        ([-1.0, 0.0, 0.5, 3.0], [0.3, -1.0, 0.0, -0.5]),
        ([0.0, 0.0], [0.5, -0.5]),
    ],
)
def test_batch_information_of_a_mixture_on_the_line(means, logvars):
    mean, logvar = (torch.tensor(values, dtype=torch.float64).unsqueeze(1) for values in (means, logvars))
    assert expected_information(batch_mutual_information, mean, logvar) == pytest.approx(
        true_information(mean, logvar), abs=2e-4
    )


@pytest.mark.parametrize("size", [4, 32, 50])
def test_batch_information_has_its_ceiling_at_log_batch(size):
    mean = 100.0 * torch.arange(size).unsqueeze(1)
    logvar = torch.zeros(size, 1)
    draws = [batch_mutual_information(mean, logvar, mean + shift).item() for shift in (-1.0, 0.0, 1.0)]
    assert np.mean(draws) == pytest.approx(math.log(size), abs=0.5)  # one draw: exact only on average
    assert expected_information(batch_mutual_information, mean, logvar) == pytest.approx(math.log(size), abs=1e-6)


def test_information_is_zero_at_collapse():
    mean, logvar = torch.zeros(64, 1), torch.zeros(64, 1)
    assert expected_information(batch_mutual_information, mean, logvar) == pytest.approx(0, abs=1e-6)


def test_batches_count_by_their_size():
    """Ten points far apart and a lone one: (10 log 10 + 1 log 1) / 11."""
    mean = 100.0 * torch.arange(10).unsqueeze(1)
    encoded = [(mean, torch.full((10, 1), -1.0)), (torch.zeros(1, 1), torch.full((1, 1), -1.0))]
    value = expected_over_batches(mutual_information, encoded)
    assert value == pytest.approx(10 * math.log(10) / 11, abs=1e-6)
    assert value == pytest.approx(mutual_information_ceiling(ListSplit(mean for mean, _ in encoded)), abs=1e-6)


def expected_over_batches(estimate, encoded):
    """As `expected_information`, of an estimate that takes a list of (mean, logvar, z)."""
    sizes = [len(mean) for mean, _ in encoded]
    mean, logvar = (torch.cat(parts) for parts in zip(*encoded))

    def of_batches(*whole):
        return estimate(list(zip(*(part.split(sizes) for part in whole))))

    return expected_information(of_batches, mean, logvar)


def test_aggregate_information_sees_through_the_ceiling_of_a_batch():
    """Twelve points far apart in batches of four: log 4 by the batch, log 12 over the split."""
    encoded = [(100.0 * torch.arange(i, i + 4).unsqueeze(1), torch.zeros(4, 1)) for i in (0, 4, 8)]
    assert expected_over_batches(mutual_information, encoded) == pytest.approx(math.log(4), abs=1e-6)
    assert expected_over_batches(aggregate_mutual_information, encoded) == pytest.approx(math.log(12), abs=1e-6)


def test_aggregate_information_is_that_of_loops():
    mean, logvar, z = gaussians(40, 3)
    sizes = [16, 16, 8]
    total = 0.0
    for i in range(40):
        own, mixture = 0.0, []
        for j in range(40):
            density = sum(scipy.stats.norm.logpdf(z[i, d], mean[j, d], math.exp(0.5 * logvar[j, d])) for d in range(3))
            mixture.append(density)
            own = density if i == j else own
        total += own - (scipy.special.logsumexp(mixture) - math.log(40))
    encoded = list(zip(*(t.float().split(sizes) for t in (mean, logvar, z))))
    assert aggregate_mutual_information(encoded) == pytest.approx(total / 40, abs=1e-5)


# ---------------------------------------------------------------------- active units


def test_active_units_are_those_of_numpy():
    means = np.random.default_rng(0).normal(size=(30, 40)) * np.geomspace(1e-3, 10, 40)
    expected = int((np.var(means, axis=0, ddof=1) >= 0.01).sum())
    assert 0 < expected < 40
    assert active_units(torch.from_numpy(means)) == expected
    assert active_units(torch.from_numpy(means).float()) == expected


def test_active_units_divide_by_n_minus_one():
    assert active_units(torch.tensor([[-0.0708], [0.0708]])) == 1  # variance 0.010025, or 0.005 divided by n
    assert active_units(torch.tensor([[-0.0706], [0.0706]])) == 0  # variance 0.009969


def test_the_threshold_is_inclusive(monkeypatch):
    assert metrics.ACTIVE_VARIANCE == 0.01
    monkeypatch.setattr(metrics, "ACTIVE_VARIANCE", 0.5)  # a variance that floats hold exactly
    assert active_units(torch.tensor([[0.0], [1.0]])) == 1


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_constant_means_are_not_active(offset):
    assert active_units(torch.full((20, 3), offset)) == 0
    assert active_units(torch.full((1, 3), offset)) == 0


# ---------------------------------------------------------------------- importance-weighted likelihood


class LinearGaussian:
    """x = W z + b + noise with orthogonal columns of W, so that the true posterior is a diagonal Gaussian.

    A decoder that keeps account of the pairs it is asked about.
    """

    weight = torch.tensor([[1.0, 1.0], [2.0, -1.0], [0.0, 0.5], [-1.0, -1.0]], dtype=torch.float64)
    bias = torch.tensor([0.3, -0.2, 1.0, 0.0], dtype=torch.float64)
    sigma = 0.7

    def __init__(self):
        self.asked = []

    def reconstruction(self, x, z):
        """-log N(x; W z + b, sigma^2 I): x [batch, 4], z [batch, nsamples, 2] -> [batch, nsamples]."""
        self.asked.append((x, z))
        return -Normal(z @ self.weight.T + self.bias, self.sigma).log_prob(x.unsqueeze(1)).sum(dim=-1)

    def log_likelihood(self, x):
        """The exact log p(x)."""
        covariance = self.weight @ self.weight.T + self.sigma**2 * torch.eye(4, dtype=torch.float64)
        return torch.from_numpy(scipy.stats.multivariate_normal(self.bias, covariance).logpdf(x.numpy()))


class PosteriorTimes(GaussianEncoder):
    """The exact posterior of a `LinearGaussian` with its standard deviation `widen`-fold."""

    def __init__(self, widen=1.0):
        super().__init__()
        self.widen = nn.Parameter(torch.tensor(float(widen), dtype=torch.float64))

    def forward(self, x):
        m = LinearGaussian
        variance = 1 / (1 + m.weight.square().sum(dim=0) / m.sigma**2)
        mean = variance * ((x - m.bias) @ m.weight) / m.sigma**2
        return mean, (variance * self.widen**2).log().expand_as(mean)


def linear_gaussian(widen=1.0):
    return VAE(PosteriorTimes(widen), LinearGaussian())


X = torch.from_numpy(np.random.default_rng(3).normal(size=(7, 4)))
CUTS = [(1, 1), (1, 100), (2, 500), (5, 3), (5, 7), (5, 14), (5, 20), (5, 35), (23, 50)]


def test_columns_are_orthogonal():
    gram = LinearGaussian.weight.T @ LinearGaussian.weight
    assert gram[0, 1] == 0


@pytest.mark.parametrize("nsamples, max_rows", CUTS)
def test_the_exact_posterior_gives_the_exact_likelihood(nsamples, max_rows):
    """Every weight is then p(x): no variance, so any number of samples, cut anyhow, gives the same value."""
    model = linear_gaussian()
    torch.testing.assert_close(-model.iw_nll(X, nsamples, max_rows), LinearGaussian().log_likelihood(X))


@pytest.mark.parametrize("nsamples, max_rows", CUTS)
def test_the_estimate_is_the_mean_weight_of_the_samples_that_the_decoder_saw(nsamples, max_rows):
    """As many as asked for, each x with as many, at most `max_rows` at a time; weights by scipy, one by one."""
    model = linear_gaussian(widen=1.5)
    estimate = model.iw_nll(X, nsamples, max_rows, torch.Generator().manual_seed(0))
    mean, logvar = (t.detach().numpy() for t in model.encoder(X))
    weights = {i: [] for i in range(len(X))}
    for x, z in model.decoder.asked:
        assert len(x) == len(z) and z.size(0) * z.size(1) <= max_rows
        for row, draws in zip(x.tolist(), z.numpy()):
            i = X.tolist().index(row)
            for draw in draws:
                likelihood = (
                    scipy.stats.norm(
                        LinearGaussian.weight.numpy() @ draw + LinearGaussian.bias.numpy(), LinearGaussian.sigma
                    )
                    .logpdf(row)
                    .sum()
                )
                prior = scipy.stats.norm.logpdf(draw).sum()
                q = scipy.stats.norm.logpdf(draw, mean[i], np.exp(0.5 * logvar[i])).sum()
                weights[i].append(likelihood + prior - q)
    assert [len(values) for values in weights.values()] == [nsamples] * len(X)
    expected = [-scipy.special.logsumexp(values) + math.log(nsamples) for values in weights.values()]
    torch.testing.assert_close(estimate, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("max_rows", [1000, 7 * 4096])
def test_a_wrong_posterior_converges_to_the_likelihood(max_rows):
    model = linear_gaussian(widen=1.3)
    exact = LinearGaussian().log_likelihood(X)
    many = -model.iw_nll(X, 20_000, max_rows, torch.Generator().manual_seed(0))
    torch.testing.assert_close(many, exact, atol=0.03, rtol=0)
    few = torch.stack([-model.iw_nll(X, 1, 100, torch.Generator().manual_seed(i)) for i in range(300)]).mean(dim=0)
    torch.manual_seed(0)
    reconstruction, kl = model.elbo_terms(X, 20_000)
    torch.testing.assert_close(few, -(reconstruction + kl.sum(dim=1)), atol=0.2, rtol=0)  # one sample: the ELBO ...
    assert (few < exact - 0.05).all()  # ... a lower bound


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        linear_gaussian().iw_nll(X, 0, 10)


def test_the_split_is_averaged_by_sentence_not_by_batch():
    split = ListSplit([X[:5], X[5:]])
    value = importance_weighted_nll(linear_gaussian(), split, 3, 4, seed=0)
    assert value == pytest.approx(-float(LinearGaussian().log_likelihood(X).mean()))


class ListSplit(list):
    """The least that an evaluation asks of a split: batches, their units, and the size."""

    unit = "point"

    @property
    def size(self):
        return sum(map(len, self))

    @staticmethod
    def units(batch):
        return len(batch)


# ---------------------------------------------------------------------- a text VAE


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("".join(" ".join("abcdefg"[(n * k) % 7] for k in range(1, n % 5 + 2)) + "\n" for n in range(23)))
    return read_corpus(path)


@pytest.fixture
def split(corpus):
    return TextSplit(corpus[0], batch_size=3)


@pytest.fixture
def model(corpus):
    """A text VAE with large weights (no figure is near zero) and much dropout (which evaluation must end)."""
    torch.manual_seed(0)
    model = build_vae(TEXT.settings(nz=3, ni=5, enc_nh=6, dec_nh=7, dec_dropout_in=0.6, dec_dropout_out=0.6), corpus[1])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model.train()


def test_posteriors_are_the_encoders_with_one_draw_each(model, split):
    encoded = posteriors(model, split, seed=5)
    noise = []
    for x, (mean, logvar, z) in zip(split, encoded, strict=True):
        torch.testing.assert_close((mean, logvar), tuple(model.encoder(x)))
        noise.append(((z - mean) * (-0.5 * logvar).exp()).detach())
    noise = torch.cat(noise)
    assert noise.shape == (23, 3)
    assert abs(noise.mean()) < 0.5 and 0.7 < noise.std() < 1.3
    again, other = posteriors(model, split, seed=5), posteriors(model, split, seed=6)
    assert all(torch.equal(a[2], b[2]) for a, b in zip(encoded, again))
    assert not any(torch.equal(a[2], b[2]) for a, b in zip(encoded, other))


def test_evaluation_is_a_slow_sentence_by_sentence_calculation(model, split):
    measured = evaluate(model, split, seed=5)
    model.eval()
    draws = torch.cat([z for _, _, z in posteriors(model, split, seed=5)])
    sentences = [sentence for batch in split for sentence in batch]
    reconstruction = kl = words = 0.0
    means, q = [], []
    with torch.no_grad():
        model.double()
        for sentence, z in zip(sentences, draws.double(), strict=True):
            mean, logvar = model.encoder(sentence.unsqueeze(0))
            means.append(mean[0].numpy())
            reconstruction += model.decoder.reconstruction(sentence.unsqueeze(0), z.view(1, 1, -1)).item()
            q.append(Normal(mean, (0.5 * logvar).exp()))
            kl += kl_divergence(q[-1], Normal(torch.zeros(3), torch.ones(3))).sum().item()
            words += len(sentence) - 1
    assert measured.reconstruction == pytest.approx(reconstruction / 23, rel=1e-5)
    assert measured.kl == pytest.approx(kl / 23, rel=1e-5)
    assert measured.loss == pytest.approx((reconstruction + kl) / 23, rel=1e-5)
    density = [[one.log_prob(z).sum().item() for one in q] for z in draws.double()]  # of each draw, under each q

    def information(groups):
        """E[log q(z|x) - log q(z)], q(z) mixed over the group of x."""
        mixed = [math.log(sum(math.exp(density[x][y]) for y in group) / len(group)) for group in groups for x in group]
        return sum(density[x][x] - log_q for x, log_q in enumerate(mixed)) / 23

    batches = list(torch.arange(23).split([len(x) for x in split]))
    assert measured.mi == pytest.approx(information(batches), rel=1e-5)
    assert measured.mi_agg == pytest.approx(information([range(23)]), rel=1e-5)
    assert measured.kl_agg == pytest.approx(kl / 23 - information([range(23)]), rel=1e-5)
    assert (measured.size, measured.units) == (23, words)
    assert measured.active_units == (np.var(means, axis=0, ddof=1) >= 0.01).sum() == 3
    assert perplexity(measured.loss, measured.size, measured.units) == pytest.approx(
        math.exp((reconstruction + kl) / words), rel=1e-4
    )


def test_a_uniform_decoder_has_the_vocabulary_as_its_perplexity(model, split, corpus):
    """So `</s>` is among the predicted words and `<s>` is not, in the sum as in the count."""
    with torch.no_grad():
        model.decoder.pred_linear.weight.zero_()
        model.encoder.linear.weight.zero_()
    measured = evaluate(model, split, seed=0)
    assert measured.kl == 0 and measured.mi == pytest.approx(0, abs=0.2) and measured.active_units == 0
    assert perplexity(measured.loss, measured.size, measured.units) == pytest.approx(len(corpus[1]), rel=1e-5)
    nll = importance_weighted_nll(model, split, 7, 5, seed=0)
    assert perplexity(nll, measured.size, measured.units) == pytest.approx(len(corpus[1]), rel=1e-5)


def test_perplexity_too_large_for_a_float_is_infinite(model, split):
    measured = evaluate(model, split, seed=0)
    assert perplexity(1e6, measured.size, measured.units) == math.inf


MEASURES = {
    "evaluate": lambda model, split: evaluate(model, split, 3).as_dict(),
    "quick_look": lambda model, split: quick_look(model, split, 3),
    "importance_weighted_nll": lambda model, split: importance_weighted_nll(model, split, 5, 4, 3),
}


@pytest.mark.parametrize("measure, training", list(itertools.product(MEASURES, [True, False])))
def test_measuring_leaves_training_as_it_was(model, split, measure, training):
    """The same random numbers come next, every part is in its mode, no gradient and no weight has changed."""
    model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    first = MEASURES[measure](model, split)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(part.training == training for part in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.manual_seed(99)  # whatever training drew meanwhile ...
    assert MEASURES[measure](model, split) == first  # ... it is measured under the same noise, without dropout


def test_a_quick_look_is_what_the_whole_evaluation_finds(model, split):
    measured = evaluate(model, split, 3)
    assert quick_look(model, split, 3) == (pytest.approx(measured.mi), measured.active_units)
    assert measured.mi == pytest.approx(mutual_information(posteriors(model, split, 3)))


def test_iw_bound_tightens_with_samples(model, split):
    """Burda et al. 2016, theorem 1, here well beyond the noise; one sample estimates the negative ELBO."""
    one, hundred = (importance_weighted_nll(model, split, n, 500, seed=0) for n in (1, 200))
    assert hundred < one


def test_evaluation_of_one_sentence(tmp_path, model):
    path = tmp_path / "one.txt"
    path.write_text("a b\n")
    split = TextSplit(read_corpus(path, Vocabulary([*Vocabulary().words, "a", "b"]))[0], 32)
    measured = evaluate(model, split, 0)
    assert (measured.size, measured.units, measured.active_units) == (1, 3, 0)
    assert all(math.isfinite(value) for value in measured.as_dict().values())
