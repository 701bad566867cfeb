"""Image files of both formats, good and bad, and the batches of binary images that are made of them."""

import collections
import math
import pickle
import zipfile

import numpy as np
import pytest
import torch

from modules.command import UserError
from modules.data.images import ImageSplit, TrainingImages, load_images
from tests.test_checkpoint import Hostile

HEIGHT, WIDTH = 7, 6
NAMES = ("train", "validation", "test")


def grey(count, seed=0):
    """`count` grey images, float32 [count, 1, 7, 6]."""
    return torch.rand(count, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


def numbered(count, shade=0.5):
    """Images whose first row is their number in binary, all other pixels being of one shade."""
    images = torch.full((count, 1, HEIGHT, WIDTH), shade)
    images[:, 0, 0] = torch.arange(count).unsqueeze(1).bitwise_right_shift(torch.arange(WIDTH)).remainder(2).float()
    return images


def numbers(batch):
    """The numbers of a batch of numbered images."""
    return batch[:, 0, 0].long().mul(2 ** torch.arange(WIDTH)).sum(dim=1).tolist()


def write(path, splits):
    """Write the splits as the file's name says; arrays of an .npz without names."""
    if path.suffix == ".npz":
        np.savez(path, *splits)
    else:
        torch.save(splits, path)
    return path


def assert_frequencies(drawn, expected):
    """The mean of 0s and 1s over the first dimension is within five standard deviations of each probability."""
    bound = 5 * (expected * (1 - expected) / len(drawn)).sqrt()
    assert ((drawn.mean(dim=0) - expected).abs() <= bound + 1e-6).all()


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize("suffix", [".pt", ".npz"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_what_is_written_is_loaded(tmp_path, suffix, dtype):
    splits = [grey(count, seed).to(dtype) for seed, count in enumerate((5, 3, 2))]
    loaded = load_images(write(tmp_path / f"images{suffix}", splits))
    assert all(images.dtype == torch.float32 for images in loaded)
    assert all(map(torch.equal, loaded, (images.float() for images in splits)))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_named_arrays_of_an_npz_stand_in_any_order(tmp_path, order, save):
    splits = [grey(count, seed) for seed, count in enumerate((5, 3, 2))]
    save(tmp_path / "images.npz", **{NAMES[i]: splits[i].numpy() for i in order})
    assert all(map(torch.equal, load_images(str(tmp_path / "images.npz")), splits))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_binary_images_of_an_npz_may_be_of_any_type(tmp_path, dtype):
    splits = [grey(count).round().numpy().astype(dtype) for count in (5, 3, 2)]
    np.savez(tmp_path / "images.npz", *splits)
    for images, expected in zip(load_images(tmp_path / "images.npz"), splits):
        assert images.dtype == torch.float32 and (images.numpy() == expected).all()


def with_pixel(value):
    images = grey(3)
    images[1, 0, 2, 3] = value
    return images


BAD_SPLITS = {
    "two": [grey(2), grey(2)],
    "four": [grey(2)] * 4,
    "no images": [grey(2), grey(0), grey(2)],
    "no pixels": [grey(2)[..., :0]] * 3,
    "no channel": [grey(2)[:, 0]] * 3,
    "three channels": [grey(2).expand(-1, 3, -1, -1)] * 3,
    "test of another height": [grey(2), grey(2), grey(2)[:, :, 1:]],
    "validation of another width": [grey(2), grey(2)[..., 1:], grey(2)],
    "train above 1": [with_pixel(1.001), grey(2), grey(2)],
    "0 to 255": [(255 * grey(2)).floor()] * 3,
    "validation below 0": [grey(2), with_pixel(-0.001), grey(2)],
    "test NaN": [grey(2), grey(2), with_pixel(math.nan)],
    "train infinite": [with_pixel(math.inf), grey(2), grey(2)],
}
SAID = {
    "two": "a list of 3 tensors",
    "four": "a list of 3 tensors",
    "no images": "validation",
    "no pixels": "train",
    "no channel": "[2, 7, 6]",
    "three channels": "[2, 3, 7, 6]",
    "0 to 255": "[0, 1]",
}


def refused(path):
    """The one line with which the file is refused, which names it."""
    with pytest.raises(UserError) as error:
        load_images(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


@pytest.mark.parametrize("suffix", [".pt", ".npz"])
@pytest.mark.parametrize("name", BAD_SPLITS)
def test_other_arrays_are_refused(tmp_path, suffix, name):
    message = refused(write(tmp_path / f"images{suffix}", BAD_SPLITS[name]))
    assert SAID.get(name, name.split()[0]) in message and "in [0, 1]" in message


@pytest.mark.parametrize(
    "content",
    [
        {"train": grey(2)},
        grey(3),
        [grey(2).numpy().tolist()] * 3,
        [grey(2).round().to(torch.uint8)] * 3,
        [grey(2).to_sparse()] * 3,
        [None] * 3,
        3,
    ],
    ids=["dict", "one tensor", "lists", "whole numbers", "sparse", "none", "number"],
)
def test_a_pt_file_of_other_things_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "images.pt")
    refused(tmp_path / "images.pt")


def test_an_npz_with_other_names_says_which_are_needed(tmp_path):
    np.savez(tmp_path / "images.npz", train=grey(2), valid=grey(2), test=grey(2))
    message = refused(tmp_path / "images.npz")
    assert all(name in message for name in NAMES) and "a list of 3 tensors" in message


@pytest.mark.parametrize("suffix", [".pt", ".npz"])
@pytest.mark.parametrize("left", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, suffix, left):
    path = write(tmp_path / f"images{suffix}", [grey(50)] * 3)
    whole = path.read_bytes()
    path.write_bytes(whole[: left if isinstance(left, int) else int(left * len(whole))])
    refused(path)


def test_a_damaged_npz_is_refused(tmp_path):
    path = write(tmp_path / "images.npz", [grey(50)] * 3)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    refused(path)


@pytest.mark.parametrize("suffix", [".pt", ".npz"])
def test_no_image_file_at_all(tmp_path, suffix):
    path = tmp_path / f"images{suffix}"
    assert "no such file" in refused(path)
    path.mkdir()
    refused(path)
    path.rmdir()
    path.write_text("<!DOCTYPE html><html><body>Too many people have downloaded this file</body></html>\n")
    refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train.txt", "not an array")
    refused(path)


@pytest.mark.parametrize(
    "name, save",
    [
        ("images.pt", torch.save),
        ("images.pt", lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False)),
        ("images.pt", lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))),
        ("images.npz", lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))),
        ("images.npz", lambda content, path: np.savez(path, *(np.array([part], dtype=object) for part in content))),
    ],
    ids=["pt", "legacy pt", "pickle as pt", "pickle as npz", "objects in npz"],
)
def test_a_hostile_file_is_refused_and_not_run(tmp_path, name, save):
    path, mark = tmp_path / name, tmp_path / "mark"
    save([Hostile(mark)] * 3, path)
    refused(path)
    assert not mark.exists()


# ---------------------------------------------------------------------- validation and test


def test_binary_images_stay_what_they_are():
    images = grey(999).round()
    assert torch.equal(torch.cat(list(ImageSplit(images, 50))), images)


def test_grey_images_are_binarised_once_and_alike_in_every_run():
    images = grey(20)
    split = ImageSplit(images, 6)
    first, again = torch.cat(list(split)), torch.cat(list(split))
    torch.manual_seed(5)
    other_run = torch.cat(list(ImageSplit(images, 9)))
    assert torch.equal(first, again) and torch.equal(first, other_run)
    assert set(first.unique().tolist()) == {0, 1} and not torch.equal(first, images.round())


def test_a_grey_pixel_is_ink_as_often_as_it_is_dark():
    shades = grey(1)
    assert_frequencies(torch.cat(list(ImageSplit(shades.expand(5000, -1, -1, -1), 64))), shades[0])


@pytest.mark.parametrize("count, sizes", [(1, [1]), (4, [4]), (5, [4, 1]), (11, [4, 4, 3])])
def test_a_split_yields_every_image_once_in_order(count, sizes):
    split = ImageSplit(numbered(count), 4)
    assert [len(batch) for batch in split] == sizes
    assert sum(map(numbers, split), []) == list(range(count))
    assert (split.size, split.num_batches, split.unit) == (count, len(sizes), "image")
    assert [split.units(batch) for batch in split] == sizes


# ---------------------------------------------------------------------- training


def epoch(split, seed):
    """The batches of one epoch."""
    order = split.order(torch.Generator().manual_seed(seed))
    return [split.batch(order, i) for i in range(split.num_batches)]


@pytest.mark.parametrize(
    "count, batch_size, sizes",
    [(2, 4, [2]), (4, 4, [4]), (5, 4, [4]), (6, 4, [4, 2]), (11, 4, [4, 4, 3]), (13, 4, [4, 4, 4]), (3, 2, [2])],
)
def test_an_epoch_holds_every_image_once_but_for_a_last_batch_of_one(count, batch_size, sizes):
    split = TrainingImages(numbered(count), batch_size)
    batches = epoch(split, seed=1)
    assert [len(batch) for batch in batches] == sizes and split.num_batches == len(sizes)
    seen = sum(map(numbers, batches), [])
    assert len(set(seen)) == len(seen) == sum(sizes) and set(seen) <= set(range(count))
    assert count - len(seen) in ((1,) if count % batch_size == 1 else (0,))
    assert (split.size, split.unit, split.units(batches[0])) == (count, "image", sizes[0])


def test_each_epoch_has_an_order_of_its_own_and_leaves_out_another_image():
    split = TrainingImages(numbered(5), 4)
    orders = [sum(map(numbers, epoch(split, seed)), []) for seed in range(200)]
    assert orders[0] == sum(map(numbers, epoch(split, 0)), [])
    left_out = collections.Counter(({0, 1, 2, 3, 4} - set(order)).pop() for order in orders)
    assert all(abs(left_out[i] - 40) < 5 * math.sqrt(32) for i in range(5))
    assert len(set(map(tuple, orders))) > 60  # of 120


def test_training_images_are_binarised_anew_each_time():
    split = TrainingImages(numbered(8), 8)
    order = split.order(torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    first, second = split.batch(order, 0), split.batch(order, 0)
    assert numbers(first) == numbers(second) == order.tolist()
    assert set(first.unique().tolist()) == {0, 1}
    assert 0.3 < (first != second)[:, :, 1:].float().mean() < 0.7
    torch.manual_seed(0)
    assert torch.equal(split.batch(order, 0), first)  # the global generator is all that decides
    assert torch.equal(split.images, numbered(8))


def test_a_training_pixel_is_ink_as_often_as_it_is_dark():
    images = grey(6)
    split = TrainingImages(images, 6)
    torch.manual_seed(0)
    drawn = torch.stack([split.batch(torch.arange(6), 0) for _ in range(2000)])
    assert_frequencies(drawn, images)


def test_random_batches_are_uniform_and_hold_no_image_twice():
    """Of the ten pairs of five images, each comes as often; binarised anew, too."""
    split, generator = TrainingImages(numbered(5), 2), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    batches = [split.random_batch(generator) for _ in range(4000)]
    assert all(batch.shape == (2, 1, HEIGHT, WIDTH) for batch in batches)
    counts = collections.Counter(frozenset(numbers(batch)) for batch in batches)
    assert {len(pair) for pair in counts} == {2} and len(counts) == 10
    assert all(abs(count - 400) < 5 * math.sqrt(4000 * 0.1 * 0.9) for count in counts.values())
    assert_frequencies(torch.cat(batches)[:, :, 1:], torch.full((1, HEIGHT - 1, WIDTH), 0.5))


def test_random_batches_follow_the_generator():
    split = TrainingImages(numbered(50), 8)
    first, again, other = (numbers(split.random_batch(torch.Generator().manual_seed(seed))) for seed in (1, 1, 2))
    assert first == again != other


def test_one_training_image_is_not_enough():
    with pytest.raises(ValueError, match="at least 2 training images"):
        TrainingImages(grey(1), 4)
