"""What every encoder shares: the approximate posterior q(z|x) is a diagonal Gaussian."""

import torch
from torch import nn


class GaussianEncoder(nn.Module):
    """q(z|x) = N(mean, diag exp(logvar)). A subclass implements `gaussian(x) -> mean, logvar`, both [batch, nz].

    `constraints` are modules that map mean and logvar to others, one after the other (`modules.methods`).
    """

    def __init__(self, constraints=()):
        super().__init__()
        self.constraints = nn.ModuleList(constraints)

    def forward(self, x):
        """The mean and log-variance of q(z|x), both [batch, nz]."""
        mean, logvar = self.gaussian(x)
        for constraint in self.constraints:
            mean, logvar = constraint(mean, logvar)
        return mean, logvar


class NoEncoder(GaussianEncoder):
    """The encoder of a model without a latent variable: q(z|x) has no dimension, so KL and MI are exactly 0.

    Its one parameter has no element; with it, training needs no special case.
    """

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.empty(0))

    def gaussian(self, x):
        nothing = self.nothing.expand(len(x), 0)
        return nothing, nothing
