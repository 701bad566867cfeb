"""Steady aggressive training: an encoder that keeps up, in a few steps (beyond the paper; docs/steady.md)."""

from dataclasses import replace

from modules.command import UserError
from modules.methods.free_bits import with_free_nats
from modules.methods.method import Method
from modules.settings import Setting, switch

INNER_STEPS = 10
ENCODER_LR = 3e-3
FREE_NATS = 0.5


class Steady(Method):
    """`--aggressive 1 --steady`: while aggressive, `INNER_STEPS` encoder steps before each update of the decoder, no
    more and no fewer; from beginning to end the encoder is optimised by Adam, whatever the decoder's optimiser is.

    SGD at the decoder's published rate of 1 moves the encoder too far: q(z|x) jumps about the model's posterior, so the
    published inner loop needs 40 steps where 10 do, its noisy test sends it on at random, and once the phase is over
    the encoder loses a decoder that moves as fast. Adam's steps are of one size whatever the loss is.

    And from beginning to end the first `FREE_NATS` of the KL, all dimensions together, cost nothing: they hold z where
    it is worth no more to the bound than it costs, which is no matter of lag.
    """

    settings = (
        Setting(
            "steady",
            switch,
            f"aggressive training with Adam for the encoder, {INNER_STEPS} inner steps and {FREE_NATS} free nats, "
            "beyond the paper",
            False,
            needs=("aggressive",),
        ),
    )

    def tag(self, s):
        return "steady"

    def addition(self, s):
        return ", steady"

    def check(self, s):
        if self.used(s) and not s.aggressive:  # a config may say so, whose keys no flag brings along
            raise UserError("--steady does nothing without --aggressive 1")
        if self.used(s) and s.free_bits:
            raise UserError(f"--steady and --free_bits exclude each other: it has {FREE_NATS} free nats of its own")
        if self.used(s) and s.beta == 0:
            raise UserError("--steady and --beta 0 exclude each other: its free nats do nothing where the KL is free")

    def kl_penalty(self, s, kl):
        return with_free_nats(kl.sum(dim=1, keepdim=True), FREE_NATS)

    def recipe(self, s, recipe):
        """Never tested before its last step, the inner loop takes all of them."""
        return replace(
            recipe,
            encoder_optimiser="adam",
            encoder_lr=ENCODER_LR,
            inner_steps=INNER_STEPS,
            inner_test_every=INNER_STEPS + 1,
        )
