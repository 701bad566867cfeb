"""beta-VAE (Higgins et al. 2017): loss = reconstruction + beta * (KL weight) * KL."""

from modules.methods.method import Method
from modules.settings import MOST, Setting, exactly, number


class Beta(Method):
    """`--beta 0.4`; `--beta 0` is an autoencoder, which still samples z."""

    settings = (Setting("beta", number(f"[0, {MOST}]"), "multiplies the KL weight; 0: an autoencoder", 1.0),)

    def tag(self, s):
        return f"beta{exactly(s.beta)}"

    def title(self, s):
        return "autoencoder" if s.beta == 0 else f"beta-VAE {exactly(s.beta)}"

    def kl_weight(self, s, iteration, batches_per_epoch):
        return s.beta

    def validation_loss(self, s, metrics):
        """Of an autoencoder the reconstruction: its KL grows without bound."""
        return metrics.reconstruction if s.beta == 0 else None
