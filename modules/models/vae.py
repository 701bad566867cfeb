"""The variational autoencoder: the two terms of the ELBO and the importance-weighted likelihood."""

import math

import torch
from torch import nn

from modules.models.gaussian import kl_per_dimension, log_density, log_standard_normal, reparameterize


class VAE(nn.Module):
    """An encoder q(z|x), a decoder p(x|z) and the prior N(0, I).

    The encoder is called as `encoder(x) -> mean, logvar`, the decoder offers `reconstruction(x, z) -> -log p(x|z)`;
    nothing here knows what x is.
    """

    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    @property
    def device(self):
        """Where the parameters are, and x has to be."""
        return next(self.parameters()).device

    def posterior(self, x, kl_weight=1.0):
        """Mean and log-variance of q(z|x), [batch, nz] both: what the encoder says.

        A model that infers otherwise (`modules.methods.semi_amortised`) needs the KL weight of the ELBO that it is to
        maximise.
        """
        return self.encoder(x)

    def elbo_terms(self, x, nsamples=1, kl_weight=1.0):
        """Reconstruction -log p(x|z) averaged over `nsamples` draws [batch], and KL(q(z|x) || N(0, I)) of each
        dimension [batch, nz], in nats.

        The negative ELBO is the sum of them all (paper, equation 1). `kl_weight` is only for `posterior`.
        """
        mean, logvar = self.posterior(x, kl_weight)
        z = reparameterize(mean, logvar, nsamples)
        return self.decoder.reconstruction(x, z).mean(dim=1), kl_per_dimension(mean, logvar)

    @torch.no_grad()
    def iw_nll(self, x, nsamples, max_rows, generator=None):
        """Importance-weighted estimate of -log p(x), in nats (Burda et al. 2016, equation 8): [batch].

        -log (1/K) sum_k p(x|z_k) p(z_k) / q(z_k|x) with K = nsamples draws from q. Each x is encoded once; at most
        `max_rows` pairs of an x and a z (at least one) go through the decoder at a time.
        """
        if nsamples < 1:
            raise ValueError(f"the importance-weighted estimate needs at least 1 sample, not {nsamples}")
        log_weights = []
        for z, mean, logvar in self.iw_draws(x, nsamples, max_rows, generator):
            rows = max(1, max_rows // z.size(1))
            log_likelihood = -torch.cat(
                [self.decoder.reconstruction(part_x, part_z) for part_x, part_z in zip(x.split(rows), z.split(rows))]
            )
            log_weights.append(
                log_likelihood + log_standard_normal(z) - log_density(z, mean.unsqueeze(1), logvar.unsqueeze(1))
            )
        log_weights = torch.cat(log_weights, dim=1)  # [batch, K]
        return math.log(log_weights.size(1)) - torch.logsumexp(log_weights, dim=1)

    @torch.no_grad()
    def iw_draws(self, x, nsamples, max_rows, generator=None):
        """The samples of `iw_nll`, some at a time: yields (z [batch, draws, nz], mean and logvar of q(z|x))."""
        mean, logvar = self.posterior(x)
        if mean.size(1) == 0:
            nsamples = 1  # without a latent variable the first estimate is exact
        draws = max(1, min(nsamples, max_rows // len(x)))
        for drawn in range(0, nsamples, draws):
            yield reparameterize(mean, logvar, min(draws, nsamples - drawn), generator), mean, logvar
