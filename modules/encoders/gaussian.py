"""What every encoder shares: the approximate posterior q(z|x) is a diagonal Gaussian."""

from torch import nn

from modules.gaussian import reparameterize


class GaussianEncoder(nn.Module):
    """q(z|x) = N(mean, diag exp(logvar)). A subclass implements `forward(x) -> mean, logvar`, both [batch, nz]."""

    def sample(self, x, nsamples=1, generator=None):
        """Draw from q(z|x): returns z [batch, nsamples, nz] with mean and logvar [batch, nz]."""
        mean, logvar = self(x)
        return reparameterize(mean, logvar, nsamples, generator), mean, logvar
