"""The convolutions of the image models: no bias (batch norm follows) and the published initialisation."""

import math

from torch import nn


def convolution(in_channels, out_channels, kernel_size, **options):
    """A `torch.nn.Conv2d` without bias, initialised as published."""
    return initialise(nn.Conv2d(in_channels, out_channels, kernel_size, bias=False, **options))


def initialise(layer):
    """Weights from N(0, sqrt(2 / (kernel height * kernel width * output channels))) (He et al. 2015); returns layer."""
    nn.init.normal_(layer.weight, std=math.sqrt(2 / (math.prod(layer.kernel_size) * layer.out_channels)))
    return layer
