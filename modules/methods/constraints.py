"""Constraints that keep the KL of q(z|x) away from 0: what they do to the encoder's mean and log-variance."""

import math

import scipy.special
import torch
import torch.nn.functional as F
from torch import nn


EPSILON = 1e-12     # the usual 1e-5 would drown the variance of a text encoder's first means, and let them stay there


class BatchNormMean(nn.Module):
    """Batch normalisation of the posterior mean with a fixed scale gamma and a learned shift (Zhu et al. 2020).

    mean' = gamma * (mean - E[mean]) / sd[mean] + shift, expectations over the batch. As KL >= mean'^2 / 2 summed over
    the dimensions, and E[mean'^2] = gamma^2 + shift^2, a training batch's average KL is at least nz * gamma^2 / 2 nats.
    In evaluation the running statistics stand in for those of the batch, as they do for a training batch of one.
    """

    def __init__(self, nz, gamma):
        super().__init__()
        self.gamma = gamma
        self.norm = nn.BatchNorm1d(nz, eps=EPSILON, affine=False)
        self.shift = nn.Parameter(torch.zeros(nz))

    def forward(self, mean, logvar):
        """mean, logvar: [batch, nz] -> the same, the mean normalised."""
        if len(mean) == 1:
            mean = (mean - self.norm.running_mean) * (self.norm.running_var + self.norm.eps).rsqrt()
        else:
            mean = self.norm(mean)
        return self.gamma * mean + self.shift, logvar


class CommittedRate(nn.Module):
    """A bound on the variance that keeps KL(q(z|x) || N(0, I)) at `rate` nats or more for every x: the delta-VAE of
    Razavi et al. (2019), for independent dimensions.

    Whatever the mean, a variance v of at most s, the root below 1 of (s - ln s - 1) / 2 = rate / nz, costs a dimension
    that much. By Lambert's function, s = -W(-exp(-1 - 2 rate / nz)). A smooth minimum keeps the log-variance below
    ln s, and leaves it as it is far below. A KL of `rate` is not yet information: one N(0, s) for every x has it, too,
    with a mutual information of 0.
    """

    def __init__(self, nz, rate):
        super().__init__()
        self.log_bound = math.log(-scipy.special.lambertw(-math.exp(-1 - 2 * rate / nz)).real)

    def forward(self, mean, logvar):
        """mean, logvar: [batch, nz] -> the same, the log-variance bounded."""
        return mean, self.log_bound - F.softplus(self.log_bound - logvar)
