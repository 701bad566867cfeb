"""KL annealing (Bowman et al. 2016), and its cyclical form (Fu et al. 2019)."""

from dataclasses import replace

from modules.command import UserError, note
from modules.methods.method import Method
from modules.settings import Setting, number, whole


class Annealing(Method):
    """`--kl_start 0.1 --warm_up 10`: the KL weight grows from 0.1 to 1 over ten epochs."""

    settings = (
        Setting("kl_start", number("[0, 1]"), "KL weight at the start", 1.0),
        Setting("warm_up", whole(0), "epochs over which the KL weight grows to 1", 10),
        Setting(
            "kl_cycles",
            whole(1),
            "cyclical annealing: repeat the warm-up this many times, holding the weight at 1 equally long after each",
            1,
        ),
    )

    def used(self, s):
        """Also where a warm-up was asked for that comes to nothing, so that `begin` remarks on it."""
        return super().used(s) or "warm_up" in getattr(s, "given", ())  # not known of a log's settings

    def tag(self, s):
        """The warm-up stands in every run's name anyway."""
        return f"cycles{s.kl_cycles}" if s.kl_cycles > 1 else ""

    def addition(self, s):
        if s.kl_start == 1 or s.warm_up == 0 or s.beta == 0:
            return ""
        return " + anneal" if s.kl_cycles == 1 else ", cyclical"

    def check(self, s):
        if s.kl_cycles > 1 and (s.kl_start == 1 or s.warm_up == 0):
            raise UserError("--kl_cycles does nothing without --kl_start below 1 and --warm_up of an epoch at least")
        if s.kl_start < 1 and s.warm_up == 0:
            raise UserError(
                "--warm_up 0 and --kl_start below 1 exclude each other: with no epoch to grow in, the KL "
                "weight is 1 from the start; give --warm_up N, or --beta for a weight that stays"
            )
        if s.kl_start < 1 and s.beta == 0:
            raise UserError("--kl_start does nothing with --beta 0: its KL weight is 0; leave one of them out")

    def begin(self, s, model, description):
        """Remark on a weight that does not grow to 1, or does not grow."""
        end = annealed_weight(s.epochs - 1, 1, s.kl_start, s.warm_up, s.kl_cycles)
        if end < 1:
            weight = f"{end:.4g} (--warm_up {s.warm_up})"
            note(f"--epochs {s.epochs}: the KL weight will still be growing at the end, {weight}")
        if s.kl_start == 1 and not {"kl_start", "beta"} & s.given:
            note("--warm_up does nothing without --kl_start below 1: the KL weight is 1 from the start")

    def recipe(self, s, recipe):
        """With cycles no decay of the learning rate before the last has ended: it would reload the weights of a former
        one, and several would end the training."""
        end = 2 * s.warm_up * s.kl_cycles if s.kl_cycles > 1 else 0
        return replace(recipe, decay_from_epoch=max(recipe.decay_from_epoch, end))

    def kl_weight(self, s, iteration, batches_per_epoch):
        return annealed_weight(iteration, batches_per_epoch, s.kl_start, s.warm_up, s.kl_cycles)


def annealed_weight(iteration, batches_per_epoch, start, warm_up, cycles=1):
    """KL weight of outer iteration `iteration` (the first is 0): linear from `start` to 1 over `warm_up` epochs.

    One increment per outer iteration, counted in batches, so that the last iteration of epoch `warm_up` has weight 1
    whatever the batching makes of the data.

    With several `cycles` this is cyclical annealing: the weight stays 1 for another `warm_up` epochs, falls back to
    `start`, and so on; after the last cycle it is 1. In equations 6 and 7 of Fu et al., R = 1/2 and T / M = 2 * warm_up
    epochs.
    """
    ramp = warm_up * batches_per_epoch
    done = iteration + 1
    if cycles > 1 and iteration < cycles * 2 * ramp:
        done = iteration % (2 * ramp) + 1
    return 1.0 if done >= ramp else start + (1.0 - start) * done / ramp
