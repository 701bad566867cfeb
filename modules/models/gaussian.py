"""Diagonal Gaussians: the closed forms that posterior, prior and aggregate posterior need. Everything is in nats."""

import math

import torch

CANCELS = 1e9  # squares over variances from which float64 no longer keeps 1e-6 of their differences
LOG_2PI = math.log(2 * math.pi)


def reparameterize(mean, logvar, nsamples=1, generator=None):
    """Draw z = mean + exp(logvar / 2) * eps, eps ~ N(0, I) (Kingma & Welling 2014).

    mean, logvar: [batch, nz] -> z: [batch, nsamples, nz], differentiable in both.
    """
    shape = (mean.size(0), nsamples, mean.size(1))
    noise = torch.randn(shape, dtype=mean.dtype, device=mean.device, generator=generator)
    return torch.addcmul(mean.unsqueeze(1), noise, (0.5 * logvar).exp().unsqueeze(1))


def interpolate(start, end, steps):
    """Points on the straight lines from start to end, both [n, nz], ends included: [n * steps, nz], line by line."""
    weights = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device).view(1, steps, 1)
    return torch.lerp(start.unsqueeze(1), end.unsqueeze(1), weights).flatten(0, 1)


def kl_per_dimension(mean, logvar):
    """KL(N(mean, exp(logvar)) || N(0, 1)) of each dimension by itself: [batch, nz] -> [batch, nz]."""
    return 0.5 * (mean.square() + logvar.expm1() - logvar)


def kl_to_standard_normal(mean, logvar):
    """KL(N(mean, diag exp(logvar)) || N(0, I)) of each row: [batch, nz] -> [batch]."""
    return kl_per_dimension(mean, logvar).sum(dim=-1)


def log_density(z, mean, logvar):
    """log N(z; mean, diag exp(logvar)), broadcast over leading dimensions: [..., nz] -> [...]."""
    return -0.5 * (LOG_2PI + logvar + (z - mean).square() * (-logvar).exp()).sum(dim=-1)


def log_standard_normal(z):
    """log N(z; 0, I): [..., nz] -> [...]."""
    return -0.5 * (LOG_2PI + z.square()).sum(dim=-1)


def largest_square(z, mean, logvar):
    """A bound on the squares over variances that the expansion of `log_mixture_density` meets: a scalar tensor."""
    z, mean, logvar = z.double(), mean.double(), logvar.double()
    if not mean.numel():
        return z.new_zeros(())
    return (-logvar).exp().max() * torch.maximum(mean.square().max(), z.square().max())


def log_mixture_density(z, mean, logvar, chunk=1024, largest=None):
    """log of the equal mixture (1/n) sum_j N(z; mean_j, diag exp(logvar_j)): z [m, nz], mixture [n, nz] -> [m].

    The square is expanded so that all m * n densities come from one matrix product (19% off the toy study's
    evaluation); float64 keeps what the expansion would cancel, but of values so large (a run that diverges) that it
    would not: those take the long way. `chunk` points at a time, so the memory is chunk * n. `largest` is
    `largest_square` where that has been read already.
    """
    z, mean, logvar = z.double(), mean.double(), logvar.double()
    if not (largest_square(z, mean, logvar) if largest is None else largest) < CANCELS:
        return torch.cat(
            [torch.logsumexp(log_density(part.unsqueeze(1), mean, logvar), dim=1) for part in z.split(16)]
        ) - math.log(len(mean))
    precision = (-logvar).exp()
    features = torch.cat([precision, -2 * mean * precision], dim=1).T  # [2 nz, n]
    constant = (mean.square() * precision + logvar + LOG_2PI).sum(dim=1)  # [n]
    parts = []
    for part in z.split(chunk):
        squares = torch.cat([part.square(), part], dim=1) @ features + constant  # [chunk, n]
        parts.append(torch.logsumexp(-0.5 * squares, dim=1))
    return torch.cat(parts) - math.log(len(mean))
