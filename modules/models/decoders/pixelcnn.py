"""The image decoder: an ungated PixelCNN that sees z at every pixel (paper, appendix; van den Oord et al. 2016)."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from modules.models.decoders import pixelcnn_sampler
from modules.models.layers.convolution import Convolution
from modules.models.layers.linear import linear

CHUNK = 50  # images at a time in evaluation on the CPU, for memory: it takes the same time without
REACH = 3  # a skip path leads from each layer's output to the input of the layer that many further on


class PixelCNNDecoder(nn.Module):
    """p(x|z) of binary images: a Bernoulli per pixel, given z and the pixels before it in raster order.

    A linear map turns z into `latent_feature_map` planes (none with nz = 0, a PixelCNN by itself); with the image they
    go through a `PixelCNN` of the kernel sizes `dec_kernel_size` and the channels `dec_layers`. `img_size` is
    [1, height, width]. Parameter names `z_transform`, `main` and what lies below them are those of the authors' files.
    `train_dtype` is the precision of the PixelCNN while training; evaluation always uses the parameters' own.
    """

    def __init__(self, nz, img_size, dec_kernel_size, dec_layers, latent_feature_map, train_dtype=torch.float32):
        super().__init__()
        check_config(img_size, dec_kernel_size, dec_layers, latent_feature_map)
        self.planes = (latent_feature_map if nz else 0, *img_size[1:])
        channels = dec_layers[0]
        self.z_transform = nn.Sequential(linear(nz, math.prod(self.planes)))
        self.main = nn.Sequential(
            PixelCNN(self.planes[0], channels, dec_kernel_size),
            Convolution(channels, channels, 1),
            nn.BatchNorm2d(channels),
            nn.ELU(inplace=True),
            Convolution(channels, 1, 1),
        )
        self.main.to(memory_format=torch.channels_last)  # on the CPU a fifth off a step
        self.train_dtype = train_dtype
        if nz:
            nn.init.xavier_uniform_(self.z_transform[0].weight)
            nn.init.zeros_(self.z_transform[0].bias)

    def reconstruction(self, x, z):
        """-log p(x|z) in nats per image.

        x: binary images [batch, 1, height, width]; z: [batch, nsamples, nz] -> [batch, nsamples].
        """
        x = x.unsqueeze(1).expand(-1, z.size(1), -1, -1, -1).flatten(0, 1)  # [batch * nsamples, 1, height, width]
        rows = len(x) if self.training or x.device.type != "cpu" else CHUNK
        parts = zip(x.split(rows), z.flatten(0, 1).split(rows))
        return torch.cat([self._nll(*part) for part in parts]).view(z.shape[:2])

    def _nll(self, x, z):
        """-log p(x|z) of each pair of an image [n, 1, height, width] and a z [n, nz]: [n], in nats."""
        pixels = F.binary_cross_entropy_with_logits(self.logits(x, z), x, reduction="none")
        return pixels.sum(dim=(1, 2, 3))

    def logits(self, x, z):
        """x: [n, 1, height, width], z: [n, nz] -> the logit of p(pixel = 1) of each pixel [n, 1, height, width]."""
        pixelcnn, convolution, norm, elu, last = self.main
        planes = self.latent_planes(z)
        seen = torch.cat([x, planes], dim=1).to(self.train_dtype if self.training else planes.dtype)
        features = elu(convolution.normalised(pixelcnn(seen), norm))
        return last(features).to(planes.dtype)

    def latent_planes(self, z):
        """z: [n, nz] -> [n, latent planes, height, width]."""
        return self.z_transform(z).view(len(z), *self.planes)

    def sample(self, z, generator=None, progress=lambda rows: rows):
        """Draw an image from p(x|z) for each z [n, nz]: images and probabilities, both [n, 1, height, width].

        The random numbers come from the CPU `generator`, whatever the device; `progress` wraps the rows.
        """
        uniform = torch.rand(self.planes[1] * self.planes[2], len(z), dtype=z.dtype, generator=generator)
        return pixelcnn_sampler.sample(self, z, uniform.to(z.device), progress)


def check_config(img_size, dec_kernel_size, dec_layers, latent_feature_map):
    """Raise ValueError, with the first thing that is wrong, unless a PixelCNN can be made of these."""
    if len(img_size) != 3 or img_size[0] != 1 or min(img_size) < 1:
        raise ValueError(f"img_size must be [1, height, width], not {list(img_size)}")
    if not dec_layers or len(dec_kernel_size) != len(dec_layers):
        raise ValueError(
            f"dec_kernel_size and dec_layers must have an entry for each layer, one layer at least, but "
            f"have {len(dec_kernel_size)} and {len(dec_layers)}"
        )
    if any(size < 1 or size % 2 == 0 for size in dec_kernel_size):
        raise ValueError(f"dec_kernel_size must hold odd sizes only, not {list(dec_kernel_size)}")
    if len(set(dec_layers)) > 1 or dec_layers[0] < 2 or dec_layers[0] % 2:
        raise ValueError(f"dec_layers must hold one even number of channels throughout, not {list(dec_layers)}")
    if latent_feature_map < 1:
        raise ValueError(f"latent_feature_map must be at least 1, not {latent_feature_map}")


class PixelCNN(nn.Module):
    """A masked-A layer, then masked-B bottleneck blocks, with skip paths that jump over two layers.

    From the fourth layer on, layer i also receives the output of layer i - 3 through a bottleneck block of its own; the
    third-last output reaches the end the same way. That block has the kernel size of layer i - 2.
    """

    def __init__(self, latent_planes, channels, kernel_sizes):
        super().__init__()
        first, *others = kernel_sizes
        self.main = nn.ModuleList([FirstLayer(latent_planes, channels, first)])
        self.main.extend(Bottleneck(channels, size) for size in others)
        self.direct_connects = nn.ModuleList(Bottleneck(channels, size) for size in others[:-1])

    def forward(self, x):
        """x: image and latent planes [n, 1 + planes, height, width] -> [n, channels, height, width]."""
        return self.through(x, self.main, self.direct_connects)

    @staticmethod
    def through(x, layers, skips):
        """Send x through the layers, and along the skip paths between them."""
        outputs = []  # of the last few layers
        for i, layer in enumerate(layers):
            if i >= REACH:
                x = x + skips[i - REACH](outputs[-REACH])
            x = layer(x)
            outputs = [*outputs, x][-REACH:]
        return x + skips[-1](outputs[-REACH]) if len(layers) >= REACH else x


class FirstLayer(nn.Module):
    """Masked-A convolution of the image and a whole one of the latent planes; batch norm, ELU."""

    def __init__(self, latent_planes, channels, kernel_size):
        super().__init__()
        self.main = nn.Sequential(
            MaskedConvolution(1 + latent_planes, channels, kernel_size, masked_channels=1, sees_centre=False),
            nn.BatchNorm2d(channels),
            nn.ELU(inplace=True),
        )

    def forward(self, x):
        """x: image and latent planes [n, 1 + planes, height, width] -> [n, channels, height, width]."""
        masked, norm, elu = self.main
        return elu(masked.normalised(x, norm))


class Bottleneck(nn.Module):
    """Residual block with half the channels inside: 1x1, masked-B k x k, 1x1; batch norm after each, ELU between."""

    def __init__(self, channels, kernel_size):
        super().__init__()
        half = channels // 2
        self.main = nn.Sequential(
            Convolution(channels, half, 1),
            nn.BatchNorm2d(half),
            nn.ELU(inplace=True),
            MaskedConvolution(half, half, kernel_size, masked_channels=half, sees_centre=True),
            nn.BatchNorm2d(half),
            nn.ELU(inplace=True),
            Convolution(half, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x):
        """x [n, channels, height, width] -> the same shape."""
        narrow, narrow_norm, elu, masked, masked_norm, _, widen, widen_norm = self.main
        hidden = elu(narrow.normalised(x, narrow_norm))
        hidden = elu(masked.normalised(hidden, masked_norm))
        return elu(widen.normalised(hidden, widen_norm).add_(x))


class MaskedConvolution(Convolution):
    """A convolution that, of its first `masked_channels`, sees only what comes before a pixel in raster order.

    The pixel itself is seen if `sees_centre` (mask B; else mask A). The weights are stored for the whole kernel, as in
    the authors' files, with the mask beside them; whatever is loaded, what the mask hides is zero. Rows of the kernel
    that are hidden from every channel are not computed: 9% off a step.
    """

    def __init__(self, in_channels, out_channels, kernel_size, masked_channels, sees_centre):
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.masked_channels, self.sees_centre = masked_channels, sees_centre
        self.register_buffer("mask", torch.ones_like(self.weight))
        self.register_load_state_dict_post_hook(lambda module, incompatible_keys: module.hide())
        self.hide()

    @torch.no_grad()
    def hide(self):
        """Set the mask, and to zero the weights that it hides."""
        position = torch.arange(self.mask[0, 0].numel(), device=self.mask.device).view(self.kernel_size)  # raster order
        hidden = position >= len(position) ** 2 // 2 + self.sees_centre
        self.mask.fill_(1)[:, : self.masked_channels].masked_fill_(hidden, 0)
        self.weight *= self.mask

    def kernel(self):
        """[out, in, rows down to the last one that is seen, columns]; the gradient, too, stops at the mask."""
        size = len(self.mask[0, 0])
        rows = size // 2 + 1 if self.masked_channels == self.in_channels else size
        return (self.weight * self.mask)[:, :, :rows]

    def convolve(self, x, kernel, bias=None):
        """x [n, in, height, width] -> [n, out, height, width]; `kernel` may lack rows that are hidden."""
        above, beside = self.padding
        below = kernel.size(2) - 1 - above  # none where hidden rows are left out
        return F.conv2d(F.pad(x, (0, 0, above, below)), kernel, bias, padding=(0, beside))
