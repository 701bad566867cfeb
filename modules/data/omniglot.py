"""Omniglot at 28 x 28: the authors' tensors, Burda's MATLAB file or the original images, made into one format.

That format is a list of three float32 tensors [n, 1, 28, 28], ink = 1: train grey in [0, 1], validation and test
binary. From the original images (1,623 characters, 20 drawings of each) the split is the only even one of the
published sizes: of each character 15 drawings, drawn at random, are for training, 15 * 1,623 = 24,345, and the other
5 for test; as 5 * 1,623 is 45 more than the published 8,070, 45 characters drawn at random give one drawing less.
So each character is in both splits. In every case the last 2,000 of the shuffled training images are validation.
"""

import functools
import io
import zipfile
from dataclasses import dataclass

import numpy as np
import scipy.io
import torch
from PIL import Image, UnidentifiedImageError

from modules.command import UserError
from modules.data.archives import naming_damage
from modules.data.images import NAMES, load_images
from modules.files import write_bytes

SIZE = 28  # pixels, of an image as the models see it
ORIGINAL_SIZE = 105  # pixels, of an original drawing
ARCHIVE_LIMIT = 2**28  # bytes the images of one archive may take; the real ones take 5 million


@dataclass(frozen=True)
class Split:
    """How the images are divided; the defaults give the published sizes."""

    train_drawings: int = 15  # of each character, validation included
    test: int = 8_070  # images
    validation: int = 2_000  # images, taken from the training images
    seed: int = 783435  # of the shuffles, the split and the binarisation


def load_tensors(path):
    """Read an `omniglot.pt`: returns its three tensors. Raises UserError, naming the file, for anything else."""
    splits = load_images(path)
    for name, images in zip(NAMES, splits):
        if tuple(images.shape[2:]) != (SIZE, SIZE):
            raise UserError(f"{path}: the {name} images have shape {list(images.shape)}, not [n, 1, {SIZE}, {SIZE}]")
        if name != "train" and not ((images == 0) | (images == 1)).all():
            raise UserError(f"{path}: some {name} pixels are neither 0 nor 1; fetch it again")
    return splits


def save_tensors(splits, path):
    """Write the three tensors to `path`. Raises UserError, naming it, if the disk refuses."""
    buffer = io.BytesIO()
    torch.save(splits, buffer)
    write_bytes(path, buffer.getbuffer())


def from_mat(path, split=Split()):
    """Make the three tensors from Burda's `chardata.mat`: `data` and `testdata`, grey, [784, n], columns first.

    Raises UserError, naming the file, if it is something else.
    """
    try:
        fields = scipy.io.loadmat(path, variable_names=["data", "testdata"])
    except Exception as error:  # a broken file makes loadmat raise almost anything
        raise UserError(f"{path}: not a MATLAB file that can be read; fetch it again") from error
    train, test = (mat_images(path, fields, name) for name in ("data", "testdata"))
    if len(train) <= split.validation:
        raise UserError(f"{path}: {len(train)} training images, but {split.validation} are wanted for validation alone")
    rng = np.random.default_rng(split.seed)
    return finish(train[rng.permutation(len(train))], test, split.validation, rng)


def mat_images(path, fields, name):
    """The field `name` as images [n, 28, 28] with rows first."""
    data = np.asarray(fields.get(name))
    if data.ndim != 2 or data.shape[0] != SIZE * SIZE or data.dtype.kind not in "fiu":  # floats, integers
        raise UserError(f"{path}: no numeric field {name!r} of {SIZE * SIZE} rows; fetch it again")
    if not ((data >= 0) & (data <= 1)).all():
        raise UserError(f"{path}: some values of {name!r} are not in [0, 1]; fetch it again")
    return data.T.reshape(-1, SIZE, SIZE).transpose(0, 2, 1).astype(np.float32)  # [n, row, column]


def from_images(archives, split=Split()):
    """Make the three tensors from the zip archives of the original images, read without being unpacked.

    Raises UserError, naming the archive, for one that is damaged or not to be trusted.
    """
    characters = {}  # name: [drawings, 28, 28]
    for archive in archives:
        characters.update(read_characters(archive))
    rng = np.random.default_rng(split.seed)
    try:
        train, test = split_drawings([characters[name] for name in sorted(characters)], split, rng)
    except ValueError as error:
        raise UserError(f"{' and '.join(map(str, archives))}: {error}; fetch them again") from error
    test, train = (images[rng.permutation(len(images))] for images in (test, train))
    return finish(train, test, split.validation, rng)


def read_characters(archive):
    """Read the PNG images of an archive: {folder, which stands for a character: float32 [drawings, 28, 28]}."""
    characters = {}
    with naming_damage(archive), zipfile.ZipFile(archive) as opened:
        if sum(member.file_size for member in opened.infolist()) > ARCHIVE_LIMIT:  # zipfile gives no more than these
            raise UserError(f"{archive}: more than {ARCHIVE_LIMIT:,} bytes of images; get it from a place you trust")
        for name in sorted(filter(is_drawing, opened.namelist())):
            drawing = reduce_area(read_drawing(archive, name, opened.read(name)), SIZE)
            characters.setdefault(name.rpartition("/")[0], []).append(drawing)
    return {character: np.stack(drawings) for character, drawings in characters.items()}


def is_drawing(name):
    """True for a member that is a drawing, and not what macOS hides in archives."""
    return name.endswith(".png") and not name.startswith("__MACOSX/") and not name.rpartition("/")[2].startswith(".")


def read_drawing(archive, name, content):
    """Decode one PNG image into float32 [105, 105] with ink (black) = 1 and paper = 0."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.size != (ORIGINAL_SIZE, ORIGINAL_SIZE):  # before decoding: it may claim any size
                width, height = image.size
                raise UserError(f"{archive}: {name!r} is {width} x {height} pixels, not {ORIGINAL_SIZE} squared")
            return 1.0 - np.asarray(image.convert("L"), dtype=np.float32) / 255
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{archive}: {name!r} is not a PNG image that can be read; fetch the archive again") from error


def reduce_area(image, size):
    """Reduce float32 images [..., height, width] to [..., size, size] by area averaging.

    A new pixel is the mean over the square of old ones that it covers, each counted by the share that is covered.
    From 105 to 28 these shares are multiples of 1/4, so that the sums are exact and the same on every machine.
    """
    height, width = image.shape[-2:]
    return overlaps(height, size) @ image @ overlaps(width, size).T / np.float32(height / size * (width / size))


@functools.lru_cache
def overlaps(old, new):
    """float32 [new, old]: the length that each of `new` equal parts of a line has in common with each of `old`.

    The unit is the length of an old part.
    """
    left = np.arange(new)[:, None] * (old / new)  # [new, 1], where a new part begins
    right = left + old / new
    part = np.arange(old)[None, :]  # [1, old], where an old part begins
    return np.maximum(np.minimum(right, part + 1) - np.maximum(left, part), 0).astype(np.float32)


def split_drawings(characters, split, rng):
    """Divide each character's drawings between training and test, as told at the top of this module.

    characters: arrays [drawings, 28, 28]. Returns two arrays [n, 28, 28]. Raises ValueError if the sizes do not fit.
    """
    train, test = [], []
    for drawings in characters:
        order = rng.permutation(len(drawings))
        train.append(drawings[order[: split.train_drawings]])
        test.append(drawings[order[split.train_drawings :]])
    surplus = sum(map(len, test)) - split.test
    spared = [index for index, drawings in enumerate(test) if len(drawings) > 1]  # may give one drawing less
    if not 0 <= surplus <= len(spared) or not all(map(len, test)):
        raise ValueError(
            f"{sum(map(len, characters))} drawings of {len(characters)} characters cannot be split into "
            f"{split.train_drawings} training drawings each and {split.test} test drawings in all"
        )
    for index in rng.choice(spared, size=surplus, replace=False):
        test[index] = test[index][1:]
    return np.concatenate(train), np.concatenate(test)


def finish(train, test, validation, rng):
    """Take the last `validation` images of `train`, which is in random order, and binarise these and `test` once.

    train, test: grey images [n, 28, 28]. Returns the three tensors [n, 1, 28, 28].
    """
    train, held_out = train[:-validation], train[-validation:]
    splits = train, binarise(held_out, rng), binarise(test, rng)
    return [torch.from_numpy(images.astype(np.float32)[:, None]) for images in splits]


def binarise(images, rng):
    """Draw each pixel from the Bernoulli distribution whose mean is its grey value."""
    return rng.random(images.shape) < images
