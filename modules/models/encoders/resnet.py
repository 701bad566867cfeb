"""The image encoder: a small residual network (paper, appendix; He et al. 2016 for the blocks)."""

import torch
import torch.nn.functional as F
from torch import nn

from modules.models.encoders.gaussian_encoder import GaussianEncoder
from modules.models.layers.convolution import Convolution

FEATURES = 512  # what the linear map to mean and log-variance sees of an image


class ResNetEncoder(GaussianEncoder):
    """Residual blocks that halve the image, a convolution over what is left of it, a linear map to mean and logvar.

    `img_size` is [channels, height, width], `enc_layers` the channels of each block. Parameter names `main`, `linear`
    and what lies below them are those of the authors' files.
    """

    def __init__(self, nz, img_size, enc_layers, constraints=()):
        super().__init__(constraints)
        channels, height, width = img_size
        if min(channels, height, width, *enc_layers) < 1 or not enc_layers:
            raise ValueError(
                f"the image encoder needs at least one block, and sizes of at least 1, not images "
                f"{list(img_size)} with blocks {list(enc_layers)}"
            )
        for _ in enc_layers:
            height, width = (height + 1) // 2, (width + 1) // 2  # 28 -> 14 -> 7 -> 4
        self.main = nn.Sequential(
            ResNet(channels, enc_layers),
            Convolution(enc_layers[-1], FEATURES, (height, width)),
            nn.BatchNorm2d(FEATURES),
            nn.ELU(inplace=True),
        ).to(memory_format=torch.channels_last)
        self.linear = nn.Linear(FEATURES, 2 * nz)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def gaussian(self, x):
        """x: images [batch, channels, height, width] -> mean, logvar, both [batch, nz]."""
        return self.linear(self.main(x).flatten(1)).chunk(2, dim=-1)


class ResNet(nn.Module):
    """Residual blocks one after the other, each with stride 2."""

    def __init__(self, in_channels, layers):
        super().__init__()
        self.main = nn.Sequential(*(ResidualBlock(*pair) for pair in zip([in_channels, *layers], layers)))

    def forward(self, x):
        """x [batch, in_channels, height, width] -> [batch, layers[-1], ...], height and width halved by each block."""
        return self.main(x)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, the first with stride 2, beside a 1x1 convolution with stride 2; batch norm after each."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv1 = Convolution(in_channels, out_channels, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = Convolution(out_channels, out_channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = nn.Sequential(
            Convolution(in_channels, out_channels, 1, stride=2), nn.BatchNorm2d(out_channels)
        )

    def forward(self, x):
        """x: [batch, in_channels, height, width] -> [batch, out_channels, ceil(height / 2), ceil(width / 2)]."""
        hidden = F.elu(self.bn1(self.conv1(x)), inplace=True)
        return F.elu(self.bn2(self.conv2(hidden)) + self.downsample(x), inplace=True)
