"""Exact sampling from a PixelCNN that computes each layer once per pixel.

A pixel's probability depends on the pixels before it alone, so what a layer gave there can be kept. Of a masked
convolution, the rows above are one convolution for each new row, for all of its columns; the pixels before in the same
row are one small matrix product a pixel. Generating an image costs about as much as looking at it once or
twice, some 500 times less than a whole pass for each pixel.
"""

from functools import partial

import torch
import torch.nn.functional as F


@torch.no_grad()
def sample(decoder, z, uniform, progress=lambda rows: rows):
    """Draw an image for each z from p(x|z), with batch norm as in evaluation.

    z: [n, nz]; uniform: numbers from U(0, 1) [height * width, n], one row a pixel in raster order; a pixel is 1 where
    its number is below its probability. Returns the images and the probabilities, both [n, 1, height, width].
    """
    height, width = decoder.planes[1:]
    network = NetworkAtPixel(decoder, z)
    unknown, probabilities, pixels = z.new_zeros(len(z), 1), [], []
    for row in progress(range(height)):
        network.start_row()
        for column in range(width):
            p = network(unknown).sigmoid_()  # [n, 1]
            pixel = (uniform[row * width + column].unsqueeze(1) < p).to(p.dtype)
            network.tell(pixel)
            probabilities.append(p)
            pixels.append(pixel)
    return tuple(torch.cat(parts, dim=1).view(-1, 1, height, width) for parts in (pixels, probabilities))


class NetworkAtPixel:
    """A decoder that is asked about one pixel of n images after the other, and told the pixel after each answer.

    It is called with anything [n, 1] in place of the pixel, which the first layer does not look at, and gives the
    logits [n, 1].
    """

    def __init__(self, decoder, z):
        pixelcnn, convolution, norm, _, last = decoder.main
        first, *blocks = pixelcnn.main
        self.first = FirstLayerAtPixel(first, decoder.latent_planes(z))
        self.layers = [self.first, *(BottleneckAtPixel(block, self.first.masked) for block in blocks)]
        self.skips = [BottleneckAtPixel(block, self.first.masked) for block in pixelcnn.direct_connects]
        self.through = pixelcnn.through
        self.convolution, self.last = linear(*convolution.folded(norm)), linear(last.weight)

    def start_row(self):
        """Let every layer begin its next row."""
        for layer in [*self.layers, *self.skips]:
            layer.masked.start_row()

    def __call__(self, x):
        return self.last(F.elu_(self.convolution(self.through(x, self.layers, self.skips))))

    def tell(self, x):
        """Put the pixel that `__call__` was last asked about where the first layer sees it from now on."""
        self.first.masked.put(x)


class FirstLayerAtPixel:
    """`FirstLayer`, of which the part that sees the latent planes [n, planes, height, width] is computed beforehand."""

    def __init__(self, layer, planes):
        masked, norm, _ = layer.main
        kernel, bias = masked.folded(norm)
        n, latent_planes, height, width = planes.shape
        constant = bias.view(-1, 1, 1).expand(n, -1, height, width)  # [n, channels, height, width]
        if latent_planes:
            constant = constant + F.conv2d(planes, kernel[:, 1:], padding=masked.padding)
        self.masked = MaskedConvolutionAtPixel(kernel[:, :1, : kernel.size(3) // 2 + 1], constant)

    def __call__(self, x):
        return F.elu_(self.masked(x))


class BottleneckAtPixel:
    """`Bottleneck` on images of the number and size that the masked convolution `like` knows."""

    def __init__(self, block, like):
        narrow, narrow_norm, _, masked, masked_norm, _, widen, widen_norm = block.main
        kernel, bias = masked.folded(masked_norm)
        n, _, height, width = like.constant.shape
        self.narrow, self.widen = linear(*narrow.folded(narrow_norm)), linear(*widen.folded(widen_norm))
        self.masked = MaskedConvolutionAtPixel(kernel, bias.view(-1, 1, 1).expand(n, -1, height, width))

    def __call__(self, x):
        hidden = F.elu_(self.narrow(x))
        hidden = F.elu_(self.masked(hidden))
        return F.elu_(self.widen(hidden).add_(x))


class MaskedConvolutionAtPixel:
    """A masked convolution that is called with its input at one pixel after the other, in raster order.

    kernel: [out, in, rows down to the pixel's own, columns]; constant: what is added [n, out, height, width].
    """

    def __init__(self, kernel, constant):
        (n, _, _, width), inputs, reach = constant.shape, kernel.size(1), kernel.size(3) // 2
        self.constant, self.reach, self.row = constant, reach, -1
        self.kernel_above = kernel[:, :, :reach]
        self.matrix = kernel[:, :, reach, : reach + 1].permute(2, 1, 0).flatten(0, 1)  # [(reach + 1) * in, out]
        self.rows_above = constant.new_zeros(n, reach, width + 2 * reach, inputs)
        self.this_row = constant.new_zeros(n, width + 2 * reach, inputs)

    def start_row(self):
        """Compute at once what the rows above give for every pixel of the next row."""
        self.row, self.column = self.row + 1, -1
        self.given = self.constant[:, :, self.row].transpose(1, 2)  # [n, width, out]
        if self.reach:
            self.rows_above = torch.cat([self.rows_above[:, 1:], self.this_row.unsqueeze(1)], dim=1)
            above = F.conv2d(self.rows_above.permute(0, 3, 1, 2), self.kernel_above)  # [n, out, 1, width]
            self.given = self.given + above.squeeze(2).transpose(1, 2)

    def __call__(self, x):
        """x: the input at the next pixel [n, in] -> the output there [n, out]."""
        self.column += 1
        self.put(x)
        window = self.this_row[:, self.column : self.column + self.reach + 1].flatten(1)
        return torch.addmm(self.given[:, self.column], window, self.matrix)

    def put(self, x):
        """Set the input at the pixel of the last call."""
        self.this_row[:, self.column + self.reach] = x


def linear(kernel, bias=None):
    """The function on [n, in] that is a 1x1 convolution at one pixel."""
    return partial(F.linear, weight=kernel.flatten(1), bias=bias)
