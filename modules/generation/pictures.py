"""What `image.py` draws from a trained model: samples from the prior, reconstructions, lines between images."""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from modules import methods
from modules.command import UserError
from modules.domains.image_domain import IMAGE
from modules.files import replacing
from modules.models.gaussian import interpolate
from modules.settings import Group, Setting, path, whole

SAMPLE_COLUMNS = 20  # of the grid of samples from the prior
PART = 400  # images drawn together; bounds the memory
PAIR_COLUMNS = 5  # of the grid of originals, each beside its reconstruction
GAP = 2  # pixels between two pictures of a grid
SCALE = 2  # pixels of the file for a pixel of an image, each way

DRAWING = Group(
    "drawing, into samples/",
    (
        Setting("sample_from", path, "draw images from this saved model", None),
        Setting("num_samples", whole(1), "images from the prior", 400, needs=("sample_from",)),
        Setting(
            "reconstruct",
            whole(1),
            "instead, that many test images and their reconstructions",
            None,
            needs=("sample_from",),
        ),
        Setting(
            "interpolate", whole(1), "or lines between that many pairs of test images", None, needs=("sample_from",)
        ),
        Setting("steps", whole(2), "points of such a line, its ends included", 9, needs=("interpolate",)),
    ),
    of_run=False,
)


def check(s):
    """Refuse flags that need others, or exclude them."""
    if s.momentum:
        s.parser.error("--momentum is that of SGD; images are trained with Adam, which has its own")
    if s.eval and s.sample_from:
        s.parser.error("--eval and --sample_from exclude each other")
    if s.reconstruct and s.interpolate:
        s.parser.error("--reconstruct and --interpolate exclude each other")
    if "num_samples" in s.given and (s.reconstruct or s.interpolate):
        s.parser.error("--num_samples is for images from the prior, not --reconstruct or --interpolate")


def draw(model, s):
    """Draw from a saved model: from the prior, reconstructions of test images, or points between two of them."""
    random = torch.Generator().manual_seed(s.seed)  # on the CPU: a seed means the same on every device
    if s.reconstruct:
        draw_reconstructions(model, s, random)
    elif s.interpolate:
        draw_interpolations(model, s, random)
    else:
        z = torch.randn(s.num_samples, methods.dimensions(s), generator=random)
        images, probabilities = sample(model, z, random)
        save_grid(images, SAMPLE_COLUMNS, grid_path(s, "sample"))
        save_grid(probabilities, SAMPLE_COLUMNS, grid_path(s, "probability"))


@torch.no_grad()
def draw_reconstructions(model, s, random):
    """Test images, each beside a sample of p(x|z) with z the mean of q(z|x)."""
    originals = first_test_images(s, s.reconstruct)
    images, _ = sample(model, model.posterior(originals.to(model.device), random)[0], random)
    pairs = torch.stack([originals, images.cpu()], dim=1).flatten(0, 1)
    save_grid(pairs, 2 * PAIR_COLUMNS, grid_path(s, "reconstruction"))


@torch.no_grad()
def draw_interpolations(model, s, random):
    """A row for each pair of test images: samples of p(x|z) with z on the line between their posterior means."""
    originals = first_test_images(s, 2 * s.interpolate)
    mean, _ = model.posterior(originals.to(model.device), random)
    images, _ = sample(model, interpolate(mean[::2], mean[1::2], s.steps), random)
    between = images.cpu().view(s.interpolate, s.steps, *images.shape[1:])
    rows = torch.cat([originals[::2].unsqueeze(1), between, originals[1::2].unsqueeze(1)], dim=1)
    save_grid(rows.flatten(0, 1), s.steps + 2, grid_path(s, "interpolation"))


def first_test_images(s, count):
    """The first `count` test images, binary, [count, 1, height, width]; raises UserError if there are fewer."""
    split = IMAGE.read(s, "cpu", ("test",))[0]["test"]
    if split.size < count:
        raise UserError(f"{s.data_file}: {split.size} test images, but {count} are needed")
    return torch.cat(list(split))[:count]


def sample(model, z, random):
    """Images and probabilities from p(x|z), [n, 1, height, width] both, with a progress bar."""
    parts = [
        model.decoder.sample(
            part.to(model.device),
            random,
            lambda rows: tqdm(rows, desc="rows", leave=False, disable=not sys.stderr.isatty()),
        )
        for part in z.split(PART)
    ]
    return tuple(torch.cat(grids) for grids in zip(*parts))


def grid_path(s, kind):
    """Where a grid of images goes."""
    return Path("samples", f"{s.sample_from.stem}_{kind}.png")


def save_grid(images, columns, path):
    """Write images [n, 1, height, width], values in [0, 1], as one PNG, row by row; 1 is black, atomically."""
    n, _, height, width = images.shape
    rows = -(-n // columns)
    canvas = np.full((rows, height + GAP, columns, width + GAP), 200, dtype=np.uint8)  # light grey between them
    for i, picture in enumerate((255 * (1 - images[:, 0])).round().to(torch.uint8).cpu().numpy()):
        canvas[i // columns, :height, i % columns, :width] = picture
    pixels = canvas.reshape(rows * (height + GAP), columns * (width + GAP))[:-GAP, :-GAP]
    with replacing(path) as temporary:
        Image.fromarray(pixels.repeat(SCALE, axis=0).repeat(SCALE, axis=1)).save(temporary, format="png")
    print(f"wrote {path}")
