"""What changes while a model trains: KL weight, aggressive phase, learning rate; and the free bits of the KL."""

from dataclasses import dataclass

import torch


def kl_weight(iteration, batches_per_epoch, start, warm_up, cycles=1):
    """KL weight of outer iteration `iteration` (the first is 0): linear from `start` to 1 over `warm_up` epochs.

    One increment per outer iteration, counted in batches, so that the last iteration of epoch `warm_up` has weight 1
    whatever the batching makes of the data.

    With several `cycles` this is cyclical annealing (Fu et al. 2019): the weight stays 1 for another `warm_up` epochs,
    falls back to `start`, and so on; after the last cycle it is 1. In their equations 6 and 7, R = 1/2 and
    T / M = 2 * warm_up epochs.
    """
    ramp = warm_up * batches_per_epoch
    done = iteration + 1
    if cycles > 1 and iteration < cycles * 2 * ramp:
        done = iteration % (2 * ramp) + 1
    return 1.0 if done >= ramp else start + (1.0 - start) * done / ramp


def kl_penalty(kl, free_bits, over):
    """What the KL weight multiplies, from the KL of each dimension [batch, nz]: [batch], in nats.

    The KL itself, or with `free_bits` = lambda > 0 no less than that for each dimension (`over` = "dimension") or for
    all of them together ("sum"): the mean over the batch is

        sum_j max(lambda, E_x[KL_j])   or   max(lambda, E_x[sum_j KL_j])

    (Kingma et al. 2016, equation 15, each dimension or all of them as one group). Where it is lambda there is no
    gradient: that much information is free.
    """
    if over == "sum":
        kl = kl.sum(dim=1, keepdim=True)
    if free_bits > 0:
        kl = torch.where(kl.mean(dim=0) > free_bits, kl, free_bits)
    return kl.sum(dim=1)


@dataclass
class AggressivePhase:
    """Whether the aggressive phase goes on (paper, section 4): it ends when validation MI stops rising.

    Text ends it at the first epoch whose MI is below the epoch before; until then the epoch before is also the best so
    far, so this is the image rule, "at the n-th epoch below the best so far", with n = 1.
    """

    active: bool
    best: float                 # nats
    patience: int
    drops: int = 0              # epochs below the best, in all, not in a row

    def update(self, mi):
        """Take the validation MI of the epoch that just ended; returns whether the phase goes on."""
        if mi < self.best:
            self.drops += 1
            self.active = self.drops < self.patience
        else:
            self.best = mi
        return self.active


@dataclass
class LearningRateDecay:
    """Multiply the rate by `factor` when the validation loss has not improved for `patience` epochs."""

    lr: float
    factor: float
    patience: int
    from_epoch: int
    max_decays: int
    rebase: bool                # whether the current loss becomes the one to beat at a decay
    to_beat: float = float("inf")
    not_improved: int = 0
    decays: int = 0

    def update(self, epoch, loss):
        """Take an epoch's validation loss; returns whether the rate decayed now."""
        if loss <= self.to_beat:
            self.to_beat, self.not_improved = loss, 0
            return False
        self.not_improved += 1
        if self.not_improved < self.patience or epoch < self.from_epoch:
            return False
        self.lr *= self.factor
        self.decays += 1
        self.not_improved = 0
        if self.rebase:
            self.to_beat = loss
        return True

    @property
    def exhausted(self):
        """Whether training should stop."""
        return self.decays >= self.max_decays
