"""Images of one's own: a folder of PNG and JPEG files, or MNIST's files, made into the format of Omniglot's."""

import gzip
import math
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from modules.command import UserError, note
from modules.data import own
from modules.data.archives import naming_damage
from modules.data.download import refuse_endless
from modules.data.omniglot import SIZE, finish, reduce_area, save_tensors

PICTURES = {".png", ".jpg", ".jpeg"}
IDX_IMAGES = 0x803  # how MNIST's files of images begin: bytes, in three dimensions
# Training images, at most, and the config with sizes for so many: the published network had 22,345; it is proposed
# from about half as many on.
SIZES = ((10_000, "omniglot_small"), (math.inf, "omniglot"))
LEFT = 4  # pixels a side that the published encoder's three blocks leave of 28


def prepare_images(source, name, img_size=SIZE, invert=False, overwrite=False):
    """Make a data set and a config called `name` of a folder of pictures, or of one or both of MNIST's files.

    Images become squares of `img_size` pixels; ink, which is dark in a picture and bright in MNIST's files (`invert`:
    the other way round), is 1. Raises UserError, naming the file, for what can't be read, and for a name that is taken.
    """
    own.refuse_inside(name, [source])
    own.refuse_taken(name, overwrite)
    sets, names = read_images(Path(source), img_size, invert)
    if (ink := sets[0].mean()) > 0.5:
        mend = "leave out --invert" if invert else "give --invert"
        note(f"{source}: {ink:.0%} of the pixels are ink; if that is the paper, {mend}")
    held_out = own.held_out_size(len(sets[0]), source, "images")
    if len(sets) == 1:
        *parts, test = own.split(len(sets[0]), held_out)
        sets, names = ([of_all[0][np.concatenate(parts)], of_all[0][test]] for of_all in (sets, names))
    rng = np.random.default_rng(own.SEED)
    order = rng.permutation(len(sets[0]))
    splits = finish(sets[0][order], sets[1], held_out, rng)
    names = *np.split(names[0][order], [-held_out]), names[1]
    model = own.smallest_that_fits(SIZES, len(splits[0]))
    params = own.published_params(model)
    blocks, file = params["enc_layers"], f"{name}.pt"
    blocks = blocks + blocks[-1:] * max(0, math.ceil(math.log2(img_size / LEFT)) - len(blocks))
    params.update(img_size=[1, img_size, img_size], enc_layers=blocks, data_file=f"{own.place(name).as_posix()}/{file}")
    sizes = " / ".join(f"{len(images):,}" for images in splits)
    about = f"{sizes} images, {img_size} x {img_size}"

    def write(folder):
        save_tensors(splits, folder / file)
        for part, its in zip(("train", "valid", "test"), names):
            (folder / f"{name}.{part}.txt").write_text(
                "".join(f"{one}\n" for one in its), encoding="utf-8", errors="surrogateescape"
            )

    own.install(name, about, f"those of config_{model}.py", params, write, overwrite)


def read_images(source, size, invert):
    """The sets in a folder or file, [all] or [train, test]: float32 [n, size, size], ink = 1; and what their images are
    called, [n] each: files of the folder, or a file of MNIST's and a number from 0."""
    if not source.is_dir() and not source.is_file():
        raise UserError(f"--images {source}: no such folder or file; name a folder of pictures, or a file of MNIST's")
    files = [source]
    if source.is_dir():
        found = (sorted(source.glob(f"{part}-images*idx3-ubyte*")) for part in ("train", "t10k"))
        files = [next(filter(Path.is_file, paths), None) for paths in found]
    if any(files):
        files = [path for path in files if path]
        grey = [reduce_area(read_idx(path).astype(np.float32) / 255, size) for path in files]
        names = [[f"{path.name} {i}" for i in range(len(images))] for path, images in zip(files, grey)]
    else:
        found = find_pictures(source)
        grey = [1 - np.stack([read_picture(path, size, invert) for path in found])]
        names = [[path.relative_to(source).as_posix() for path in found]]
    grey = [np.clip(1 - images if invert else images, 0, 1) for images in grey]  # rounding may have led out
    return grey, [np.array(its) for its in names]


def find_pictures(folder):
    """The PNG and JPEG files in a folder and below it, sorted, without hidden ones; UserError if none is left."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(folder)))
    found = [path for path in files if path.suffix.lower() in PICTURES]
    if found and len(found) < len(files):
        note(f"{folder}: {len(files) - len(found)} of {len(files)} files are no PNG or JPEG, and left out")
    if not found:
        raise UserError(f"--images {folder}: no PNG, JPEG or train-images-idx3-ubyte is in it; name another folder")
    return found


def _hidden(path):
    return any(part.startswith(".") for part in path.parts)


def read_picture(path, size, invert):
    """A PNG or JPEG file, the right way up, as float32 [size, size], white = 1; the transparent is white, with `invert`
    black."""
    try:
        with Image.open(path, formats=["PNG", "JPEG"]) as image:
            image.verify()  # the checksums of a PNG, which decoding passes over
        with Image.open(path, formats=["PNG", "JPEG"]) as image:
            image = ImageOps.exif_transpose(image)  # cameras store the pixels as the sensor lies
            if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
                grey = np.asarray(image, dtype=np.float32) / 65535
            else:
                paper = Image.new("RGBA", image.size, "black" if invert else "white")
                flat = Image.alpha_composite(paper, image.convert("RGBA")).convert("L")
                grey = np.asarray(flat, dtype=np.float32) / 255
    except PermissionError:
        raise
    except Exception as error:  # a broken file makes Pillow raise almost anything
        raise UserError(f"{path}: not a PNG or JPEG image that can be read; mend it or take it away") from error
    return reduce_area(grey, size)


def read_idx(path):
    """The images of one of MNIST's files, gzipped or not: uint8 [n, height, width]. UserError, naming it, if none."""
    content = bytearray()
    with naming_damage(path), open(path, "rb") as plain:
        zipped = plain.peek(2)[:2] == b"\x1f\x8b"
        stream = gzip.open(plain) if zipped else plain
        for chunk in iter(lambda: stream.read(2**20), b""):
            refuse_endless(path, len(content) + len(chunk))
            content += chunk
    kind, *shape = struct.unpack(">4I", content[:16].ljust(16, b"\0"))
    if kind != IDX_IMAGES:
        raise UserError(f"{path}: not an IDX file of images, such as MNIST's train-images-idx3-ubyte; name one")
    if not all(shape) or len(content) - 16 != math.prod(shape):
        count, height, width = shape
        raise UserError(
            f"{path}: damaged or cut short, {len(content) - 16:,} bytes instead of {count:,} images of "
            f"{height} x {width}; fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=16).reshape(shape)
