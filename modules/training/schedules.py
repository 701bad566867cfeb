"""What changes with the epochs: the aggressive phase and the learning rate."""

from dataclasses import dataclass


@dataclass
class AggressivePhase:
    """Whether the aggressive phase goes on (paper, section 4): it ends when validation MI stops rising.

    Text ends it at the first epoch whose MI is below the epoch before; until then the epoch before is also the best so
    far, so this is the image rule, "at the n-th epoch below the best so far", with n = 1.
    """

    active: bool
    best: float  # nats
    patience: int
    drops: int = 0  # epochs below the best, in all, not in a row

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
    rebase: bool  # whether the current loss becomes the one to beat at a decay
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
