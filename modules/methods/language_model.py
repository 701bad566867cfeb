"""The decoder alone: an LSTM language model, or a PixelCNN."""

from modules.command import UserError
from modules.methods.method import Method


class LanguageModel(Method):
    """`--model lm`: no z, so no encoder and no KL; log p(x) is exact."""

    model = "lm"

    def title(self, s):
        return "PixelCNN" if hasattr(s, "img_size") else "LM"  # as the paper calls them

    def check(self, s):
        if not self.used(s):
            return
        refuse = {
            "--aggressive 1": s.aggressive,
            "--encoder_from": s.encoder_from,
            "--beta": s.beta != 1,
            "--kl_cycles": s.kl_cycles > 1,
            "--kl_start": s.kl_start != 1,
            "--nsamples": s.nsamples > 1,
            "--free_bits": s.free_bits,
            "--bn_gamma": s.bn_gamma,
            "--committed_rate": s.committed_rate,
        }
        for flag, given in refuse.items():
            if given:
                raise UserError(
                    f"--model lm and {flag} exclude each other: a model without latent variable has no "
                    "encoder and no KL"
                )
