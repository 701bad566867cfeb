"""A committed rate, after the delta-VAE (Razavi et al. 2019), for independent dimensions: a bound on the variance."""

import math

import scipy.special
import torch.nn.functional as F
from torch import nn

from modules.command import UserError
from modules.methods.method import Method
from modules.settings import Setting, exactly, number

MOST_NATS = 8  # that a rate asks of each dimension: posteriors of standard deviation 2e-4


class BoundedVariance(nn.Module):
    """A bound on the variance that keeps KL(q(z|x) || N(0, I)) at `rate` nats or more for every x.

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


class CommittedRate(Method):
    """`--committed_rate 3`: a KL of at least 3 nats for every x."""

    settings = (
        Setting(
            "committed_rate",
            number("(1e-6, 100]"),
            "bound the posterior's variance to a KL of at least that, nats",
            None,
            model=True,
        ),
    )

    def tag(self, s):
        return f"rate{exactly(s.committed_rate)}"

    def addition(self, s):
        return f", committed rate {exactly(s.committed_rate)}"

    def check(self, s):
        if (s.committed_rate or 0) > MOST_NATS * s.nz:
            raise UserError(
                f"--committed_rate {exactly(s.committed_rate)}: with nz = {s.nz} at most {MOST_NATS * s.nz}, since "
                "float32 cannot tell narrower posteriors apart"
            )

    def constraint(self, s):
        return BoundedVariance(s.nz, s.committed_rate)
