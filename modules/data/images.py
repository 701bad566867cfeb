"""Image files, and splits of them that yield batches of binary images on the device."""

from pathlib import Path

import numpy as np
import torch

from modules.command import UserError
from modules.data.fingerprint import fingerprint

NAMES = ("train", "validation", "test")
BINARISATION_SEED = 783435  # of validation and test images that are grey: binarised once, alike in every run
FORMAT = "a file of three arrays, training, validation and test images [n, 1, height, width] with values in [0, 1]"


def load_images(path):
    """Read a `.pt` (a list of three tensors) or `.npz` (three arrays) of images, without unpickling anything.

    The arrays of an `.npz` are called train, validation and test, or have no names and stand in this order. Returns
    three float32 tensors [n, 1, height, width]. Raises UserError, naming the file, for anything else.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise UserError(f"{path}: a folder, a pipe or a device; the images must be {FORMAT}")
    try:
        splits = _read_npz(path) if str(path).endswith(".npz") else torch.load(path, "cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; `python prepare_data.py` fetches the known data sets, and data_file in "
            "the config says where this one is expected"
        ) from None
    except PermissionError:
        raise
    except Exception as error:  # a broken file makes torch.load raise almost anything
        raise UserError(f"{path}: cannot be loaded safely; the images must be {FORMAT}") from error
    try:
        check_images(splits)
    except (ValueError, RuntimeError) as error:  # RuntimeError: tensors that cannot be computed with
        raise UserError(f"{path}: {error}; the images must be {FORMAT}") from error
    return [images.detach().float() for images in splits]


def _read_npz(path):
    """The arrays of an `.npz` as a list of float tensors; those whose names say nothing are left out."""
    with np.load(path, allow_pickle=False) as arrays:
        names = NAMES if set(arrays.files) == set(NAMES) else [f"arr_{i}" for i in range(len(arrays.files))]
        found = [arrays[name] for name in names if name in arrays]
    if any(array.dtype.kind not in "biuf" for array in found):
        raise ValueError("an array is not of real numbers")
    return [torch.from_numpy(np.asarray(array, dtype=np.float32)) for array in found]


def check_images(splits):
    """Raise ValueError, with the first thing that is wrong, unless `splits` are three tensors of images."""
    if not isinstance(splits, (list, tuple)) or len(splits) != len(NAMES):
        raise ValueError(f"not a list of {len(NAMES)} tensors ({', '.join(NAMES)})")
    for name, images in zip(NAMES, splits):
        if not isinstance(images, torch.Tensor) or not images.is_floating_point() or images.layout != torch.strided:
            raise ValueError(f"the {name} images are not a dense float tensor")
        if images.dim() != 4 or images.size(1) != 1 or images.numel() == 0:
            raise ValueError(f"the {name} images have shape {list(images.shape)}, not [n > 0, 1, height, width]")
        if images.shape[2:] != splits[0].shape[2:]:
            raise ValueError(f"the {name} images are of another size than the training images")
        if not ((images >= 0) & (images <= 1)).all():  # false for NaN too
            raise ValueError(f"some {name} pixels are not in [0, 1]")


class ImageSplit:
    """Images binarised once, on the device, in consecutive batches: for validation and test.

    A pixel becomes 1 with the probability that is its grey value, so binary images stay what they are.
    """

    unit = "image"

    def __init__(self, images, batch_size, device="cpu"):
        self.size = len(images)
        generator = torch.Generator().manual_seed(BINARISATION_SEED)
        self._batches = torch.bernoulli(images, generator=generator).to(device).split(batch_size)
        self.num_batches = len(self._batches)

    def __iter__(self):
        return iter(self._batches)

    @property
    def fingerprint(self):
        """What tells these images, in this order, from others."""
        return fingerprint(self._batches)

    def about(self):
        """What it holds, for the record."""
        return {"images": self.size}

    def about_each(self):
        """What it holds, of each image: {index: its place in the file, from 0}, a list [size]."""
        return {"index": list(range(self.size))}

    @staticmethod
    def units(batch):
        """How many images the batch holds."""
        return len(batch)


class TrainingImages:
    """Grey images on the device, of which every batch is shuffled and binarised anew each time it is drawn.

    The binarisation takes its random numbers from the device's own generator, whose state a checkpoint keeps.
    """

    unit = "image"
    units, about = staticmethod(ImageSplit.units), ImageSplit.about

    def __init__(self, images, batch_size, device="cpu"):
        if len(images) < 2:
            raise ValueError("batch norm needs at least 2 training images")
        self.size, self.batch_size, self.images = len(images), batch_size, images.to(device)
        self.num_batches = -(-(self.size - 1) // batch_size)  # batch norm can't take a last batch of one: left out

    @property
    def fingerprint(self):
        """What tells these images, in this order, from others."""
        return fingerprint([self.images])

    def order(self, generator):
        """The order of one epoch: a permutation of the images, int64 [size]."""
        return torch.randperm(self.size, generator=generator)

    def batch(self, order, i):
        """Batch number i of an epoch in that order: binary images [batch, 1, height, width]."""
        return self._draw(order[i * self.batch_size : (i + 1) * self.batch_size])

    def random_batch(self, generator):
        """A fresh batch of different images drawn uniformly at random, for the inner loop."""
        return self._draw(torch.randperm(self.size, generator=generator)[: self.batch_size])

    def _draw(self, indices):
        return torch.bernoulli(self.images[indices.to(self.images.device, non_blocking=True)])
