"""The plain textbook image VAE that the benchmarks compare with: stock PyTorch, whole masked kernels, all gradients.

It shares no code with `modules`, but names its parameters alike, so that `load_state_dict` carries weights over.
"""

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.textbook import TextbookELBO


class TextbookImageVAE(TextbookELBO):
    """The project's image VAE for images [1, height, width], with the same layers in the same order."""

    def __init__(self, nz, height, width, enc_layers, kernel_sizes, channels, planes):
        super().__init__()
        self.encoder = Encoder(nz, height, width, enc_layers)
        self.decoder = Decoder(nz, height, width, kernel_sizes, channels, planes)

    def encoder_parameters(self):
        return list(self.encoder.parameters())

    def encode(self, x):
        return self.encoder(x)

    def reconstruction(self, x, z):
        """-log p(x|z), [batch]"""
        return F.binary_cross_entropy_with_logits(self.decoder(x, z), x, reduction="none").sum((1, 2, 3))

    @torch.no_grad()
    def sample(self, z, uniform, passes=None):
        """One pass of the whole network for each pixel, `passes` pixels at most: images and probabilities."""
        x = torch.zeros(len(z), 1, self.decoder.height, self.decoder.width, dtype=z.dtype, device=z.device)
        probabilities = torch.zeros_like(x)
        for i in range(self.decoder.height * self.decoder.width if passes is None else passes):
            row, column = divmod(i, self.decoder.width)
            probabilities[:, 0, row, column] = torch.sigmoid(self.decoder(x, z))[:, 0, row, column]
            x[:, 0, row, column] = (uniform[i] < probabilities[:, 0, row, column]).to(x.dtype)
        return x, probabilities


class Encoder(nn.Module):
    def __init__(self, nz, height, width, layers):
        super().__init__()
        blocks, size = nn.Sequential(), [height, width]
        for before, after in zip([1, *layers], layers):
            blocks.append(EncoderBlock(before, after))
            size = [(length + 1) // 2 for length in size]
        resnet = nn.Module()
        resnet.main = blocks
        self.main = nn.Sequential(resnet, nn.Conv2d(layers[-1], 512, size, bias=False), nn.BatchNorm2d(512))
        self.linear = nn.Linear(512, 2 * nz)

    def forward(self, x):
        resnet, convolution, norm = self.main
        return self.linear(F.elu(norm(convolution(resnet.main(x)))).flatten(1)).chunk(2, dim=-1)


class EncoderBlock(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride=2, bias=False), nn.BatchNorm2d(after))

    def forward(self, x):
        hidden = self.bn2(self.conv2(F.elu(self.bn1(self.conv1(x)))))
        return F.elu(hidden + self.downsample(x))


class Decoder(nn.Module):
    def __init__(self, nz, height, width, kernel_sizes, channels, planes):
        super().__init__()
        self.height, self.width = height, width
        self.z_transform = nn.Sequential(nn.Linear(nz, planes * height * width))
        pixelcnn = nn.Module()
        pixelcnn.main = nn.ModuleList([FirstLayer(1 + planes, channels, kernel_sizes[0])])
        pixelcnn.main.extend(Block(channels, size) for size in kernel_sizes[1:])
        pixelcnn.direct_connects = nn.ModuleList(Block(channels, size) for size in kernel_sizes[1:-1])
        self.main = nn.Sequential(
            pixelcnn,
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ELU(),
            nn.Conv2d(channels, 1, 1, bias=False),
        )

    def forward(self, x, z):
        planes = self.z_transform(z).view(len(z), -1, self.height, self.width)
        pixelcnn, *head = self.main
        hidden, outputs = torch.cat([x, planes], dim=1), []
        for i, layer in enumerate(pixelcnn.main):
            if i > 2:
                hidden = hidden + pixelcnn.direct_connects[i - 3](outputs[i - 3])
            hidden = layer(hidden)
            outputs.append(hidden)
        if len(outputs) > 2:
            hidden = hidden + pixelcnn.direct_connects[-1](outputs[-3])
        return nn.Sequential(*head)(hidden)


class FirstLayer(nn.Module):
    def __init__(self, in_channels, channels, size):
        super().__init__()
        self.main = nn.Sequential(MaskedConv2d("A", 1, in_channels, channels, size), nn.BatchNorm2d(channels), nn.ELU())

    def forward(self, x):
        return self.main(x)


class Block(nn.Module):
    def __init__(self, channels, size):
        super().__init__()
        half = channels // 2
        self.main = nn.Sequential(
            nn.Conv2d(channels, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ELU(),
            MaskedConv2d("B", half, half, half, size),
            nn.BatchNorm2d(half),
            nn.ELU(),
            nn.Conv2d(half, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x):
        return F.elu(self.main(x) + x)


class MaskedConv2d(nn.Conv2d):
    def __init__(self, kind, masked_channels, in_channels, out_channels, size):
        super().__init__(in_channels, out_channels, size, padding=size // 2, bias=False)
        mask = torch.ones_like(self.weight)
        mask[:, :masked_channels, size // 2, size // 2 + (kind == "B") :] = 0
        mask[:, :masked_channels, size // 2 + 1 :] = 0
        self.register_buffer("mask", mask)

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, padding=self.padding)
