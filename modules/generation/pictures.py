"""What `image.py` does with a trained model: images from points of the latent space, and points from images."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from modules import methods
from modules.command import UserError, progress
from modules.domains.image_domain import IMAGE
from modules.files import replacing
from modules.generation.points import need_latent_variable, read_points, write_posteriors
from modules.models.gaussian import interpolate
from modules.settings import Group, Setting, file_name, one_of, whole

SAMPLE_COLUMNS = 20  # of the grid of samples from the prior
PART = 400  # images drawn together; bounds the memory
PAIR_COLUMNS = 5  # of the grid of originals, each beside its reconstruction
GAP = 2  # pixels between two pictures of a grid
SCALE = 2  # pixels of the file for a pixel of an image, each way

ALTERNATIVES = (("num_samples", "reconstruct", "interpolate", "z"),)  # what to draw
DRAWING = Group(
    "drawing, into samples/",
    (
        Setting("sample_from", file_name, "draw images from this saved model", None),
        Setting("num_samples", whole(1), "images from the prior", 400, needs=("sample_from",)),
        Setting(
            "reconstruct",
            whole(1),
            "draw N test images and their reconstructions instead",
            None,
            needs=("sample_from",),
        ),
        Setting(
            "interpolate",
            whole(1),
            "draw lines between N pairs of test images instead",
            None,
            needs=("sample_from",),
        ),
        Setting("steps", whole(2), "points of such a line, its ends included", 9, needs=("interpolate",)),
        Setting(
            "z",
            file_name,
            "draw an image for each point in this .npz instead, a row of its array mean [n, nz], as --encode writes it",
            None,
            needs=("sample_from",),
        ),
        Setting(
            "encode",
            one_of("val", "test"),
            "write mean and logvar of q(z|x) for each image of this split (.npz), with the model of --load_path",
            None,
            needs=("load_path",),
        ),
    ),
    of_run=False,
)


def draw(model, s):
    """Draw from a saved model: from the prior, from given points, reconstructions of test images, or between two."""
    random = torch.Generator().manual_seed(s.seed)  # on the CPU: a seed means the same on every device
    if s.reconstruct or s.interpolate or s.z:
        need_latent_variable(s, s.sample_from)
    if s.reconstruct:
        draw_reconstructions(model, s, random)
    elif s.interpolate:
        draw_interpolations(model, s, random)
    else:
        nz = methods.dimensions(s)
        z = read_points(s.z, nz) if s.z else torch.randn(s.num_samples, nz, generator=random)
        images, probabilities = sample(model, z, random)
        save_grid(images, SAMPLE_COLUMNS, grid_path(s, "sample"))
        save_grid(probabilities, SAMPLE_COLUMNS, grid_path(s, "probability"))


@torch.no_grad()
def draw_reconstructions(model, s, random):
    """Test images, each beside a sample of p(x|z) with z the mean of q(z|x)."""
    originals = first_test_images(s, s.reconstruct)
    images, _ = sample(model, model.posterior(originals.to(model.device))[0], random)
    pairs = torch.stack([originals, images.cpu()], dim=1).flatten(0, 1)
    save_grid(pairs, 2 * PAIR_COLUMNS, grid_path(s, "reconstruction"))


@torch.no_grad()
def draw_interpolations(model, s, random):
    """A row for each pair of test images: samples of p(x|z) with z on the line between their posterior means."""
    originals = first_test_images(s, 2 * s.interpolate)
    mean, _ = model.posterior(originals.to(model.device))
    images, _ = sample(model, interpolate(mean[::2], mean[1::2], s.steps), random)
    between = images.cpu().view(s.interpolate, s.steps, *images.shape[1:])
    rows = torch.cat([originals[::2].unsqueeze(1), between, originals[1::2].unsqueeze(1)], dim=1)
    save_grid(rows.flatten(0, 1), s.steps + 2, grid_path(s, "interpolation"))


@torch.no_grad()
def encode(model, s):
    """Write the means and log-variances of q(z|x), [images, nz] both, one row for each image of a split."""
    need_latent_variable(s, s.load_path)
    split = IMAGE.read(s, model.device, (s.encode,))[0][s.encode]
    mean, logvar = (torch.cat(parts) for parts in zip(*(model.posterior(x) for x in split)))
    write_posteriors(Path("samples", f"{s.load_path.stem}_{s.encode}.npz"), mean, logvar)


def first_test_images(s, count):
    """The first `count` test images, binary, [count, 1, height, width]; raises UserError if there are fewer."""
    split = IMAGE.read(s, "cpu", ("test",))[0]["test"]
    if split.size < count:
        raise UserError(f"{s.data_file}: {split.size} test images, but {count} are needed")
    return torch.cat(list(split))[:count]


def sample(model, z, random):
    """Images and probabilities from p(x|z), [n, 1, height, width] both, with a progress bar."""
    parts = [
        model.decoder.sample(part.to(model.device), random, lambda rows: progress(rows, desc="rows"))
        for part in z.split(PART)
    ]
    return tuple(torch.cat(grids) for grids in zip(*parts))


def grid_path(s, kind):
    """Where a grid of images goes."""
    return Path("samples", f"{s.sample_from.stem}{f'_{s.z.stem}' if s.z else ''}_{kind}.png")


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
