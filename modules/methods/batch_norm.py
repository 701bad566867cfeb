"""Batch-normalised posterior means (Zhu et al. 2020)."""

import torch
from torch import nn

from modules.command import UserError
from modules.methods.method import Method
from modules.settings import Setting, exactly, number

EPSILON = 1e-12  # the usual 1e-5 would drown the variance of a text encoder's first means, and let them stay there


class BatchNormMean(nn.Module):
    """Batch normalisation of the posterior mean with a fixed scale gamma and a learned shift (Zhu et al. 2020).

    mean' = gamma * (mean - E[mean]) / sd[mean] + shift, expectations over the batch. As KL >= mean'^2 / 2 summed over
    the dimensions, and E[mean'^2] = gamma^2 + shift^2, a training batch's average KL is at least nz * gamma^2 / 2 nats.
    In evaluation the running statistics stand in for those of the batch, as they do for a training batch of one.
    """

    def __init__(self, nz, gamma):
        super().__init__()
        self.gamma = gamma
        self.norm = MeanNorm(nz, eps=EPSILON, affine=False)
        self.shift = nn.Parameter(torch.zeros(nz))

    def forward(self, mean, logvar):
        """mean, logvar: [batch, nz] -> the same, the mean normalised."""
        return self.gamma * self.norm(mean) + self.shift, logvar


class MeanNorm(nn.BatchNorm1d):
    """Batch normalisation that takes one mean by itself, too."""

    def forward(self, mean):
        """mean [batch, nz] -> the same shape."""
        if len(mean) == 1:
            return (mean - self.running_mean) * (self.running_var + self.eps).rsqrt()
        return super().forward(mean)


class BatchNorm(Method):
    """`--bn_gamma 0.6`."""

    settings = (
        Setting(
            "bn_gamma", number("(0, 100]"), "batch-normalise the posterior mean, with this scale", None, model=True
        ),
    )

    def tag(self, s):
        return f"bn{exactly(s.bn_gamma)}"

    def addition(self, s):
        return f", batch norm {exactly(s.bn_gamma)}"

    def check(self, s):
        if s.bn_gamma and s.batch_size == 1:
            raise UserError("--bn_gamma and --batch_size 1 exclude each other: one mean cannot be normalised")

    def constraint(self, s):
        return BatchNormMean(s.nz, s.bn_gamma)
