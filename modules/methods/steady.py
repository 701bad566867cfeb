"""Steady aggressive training: an encoder that keeps up, in a few steps (beyond the paper; docs/steady.md)."""

from dataclasses import replace

from modules.methods.annealing import annealed_weight
from modules.methods.method import Method
from modules.settings import Setting, switch

INNER_STEPS = 10
ENCODER_LR = 3e-3
KL_START = 0.1
FEWEST_UPDATES = 1000  # of the decoder until the KL weight is 1


class Steady(Method):
    """`--aggressive 1 --steady`: while aggressive, `INNER_STEPS` encoder steps before each update of the decoder, no
    more and no fewer; from beginning to end the encoder is optimised by Adam, whatever the decoder's optimiser is.

    SGD at the decoder's published rate of 1 moves the encoder too far: q(z|x) jumps about the model's posterior, so the
    published inner loop needs 40 steps where 10 do, its noisy test sends it on at random, and once the phase is over
    the encoder loses a decoder that moves as fast. Adam's steps are of one size whatever the loss is.

    And z must be cheap until the decoder has learnt to use it: whatever `--kl_start` is, the KL weight rises from 0.1
    at most, to 1 over `--warm_up` epochs or `FEWEST_UPDATES`, whichever are more.
    """

    settings = (
        Setting(
            "steady",
            switch,
            f"aggressive training with Adam for the encoder, {INNER_STEPS} inner steps, and always the annealing of "
            f"--kl_start {KL_START}; beyond the paper",
            False,
            needs=("aggressive",),
        ),
    )

    def tag(self, s):
        return "steady"

    def addition(self, s):
        return ", steady"

    def kl_weight(self, s, iteration, batches_per_epoch):
        """What brings the annealing of the run, which has a factor of its own, down to the rule's."""
        epochs = max(s.warm_up, FEWEST_UPDATES / batches_per_epoch)
        most = annealed_weight(iteration, batches_per_epoch, KL_START, epochs)
        return min(1.0, most / annealed_weight(iteration, batches_per_epoch, s.kl_start, s.warm_up, s.kl_cycles))

    def recipe(self, s, recipe):
        """Never tested before its last step, the inner loop takes all of them."""
        return replace(
            recipe,
            encoder_optimiser="adam",
            encoder_lr=ENCODER_LR,
            inner_steps=INNER_STEPS,
            inner_test_every=INNER_STEPS + 1,
        )
