"""Free bits (Kingma et al. 2016, equation 15): the first nats of KL cost nothing."""

import torch

from modules.command import UserError
from modules.methods.method import Method
from modules.settings import MOST, Setting, exactly, number, one_of


class FreeBits(Method):
    """`--free_bits 0.1` for each dimension, or `--free_bits 3 --free_bits_over sum` for all of them together.

    With lambda = `free_bits` the KL, averaged over the batch, is penalised as

        sum_j max(lambda, E_x[KL_j])   or   max(lambda, E_x[sum_j KL_j]),

    each dimension, or all of them, being one group. Where it is lambda there is no gradient: that much information is
    free.
    """

    settings = (
        Setting("free_bits", number(f"[0, {MOST}]"), "nats of KL without a penalty ...", 0.0),
        Setting(
            "free_bits_over",
            one_of("dimension", "sum"),
            "... for each dimension of z, or for their sum",
            "dimension",
            needs=("free_bits",),
        ),
    )

    def used(self, s):
        return s.free_bits > 0

    def tag(self, s):
        return f"free{'sum' if s.free_bits_over == 'sum' else ''}{exactly(s.free_bits)}"

    def addition(self, s):
        return f", free bits {exactly(s.free_bits)} {'in all' if s.free_bits_over == 'sum' else 'per dimension'}"

    def check(self, s):
        if s.free_bits and s.beta == 0:
            raise UserError("--free_bits does nothing with --beta 0: the KL costs nothing; leave one of them out")

    def kl_penalty(self, s, kl):
        """kl [batch, nz] -> [batch, nz], or [batch, 1] of their sum."""
        return with_free_nats(kl.sum(dim=1, keepdim=True) if s.free_bits_over == "sum" else kl, s.free_bits)


def with_free_nats(kl, nats):
    """kl [batch, groups]; a group whose mean over the batch is at most `nats` becomes `nats`, without a gradient."""
    return torch.where(kl.mean(dim=0) > nats, kl, nats)
