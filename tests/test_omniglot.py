"""Omniglot from tiny made-up image archives, MATLAB files and tensor files."""

import io
import zipfile

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from modules.command import UserError
from modules.data import omniglot
from modules.data.omniglot import Split, from_images, from_mat, load_tensors, reduce_area

TINY = Split(train_drawings=3, test=10, validation=4, seed=5)  # of 6 characters with 5 drawings each


def png(ink):
    """PNG file of a boolean array [height, width], ink black on white, 1 bit, as the originals are."""
    out = io.BytesIO()
    Image.fromarray(~ink).convert("1").save(out, "PNG")
    return out.getvalue()


def drawing(character, number):
    """Ink [105, 105] in two 15 x 15 blocks that tell the character and the number of the drawing."""
    ink = np.zeros((105, 105), dtype=bool)
    ink[0:15, 15 * character : 15 * character + 15] = True
    ink[30:45, 15 * number : 15 * number + 15] = True
    return ink


def identify(image):
    """(character, number) of a reduced drawing [28, 28]; a block has become 4 x 4."""
    return int(image[0].argmax()) // 4, int(image[8].argmax()) // 4


def write_archive(path, characters, drawings=5, extra=()):
    """Write a zip like the original ones, folder entries included, in an order that is not sorted."""
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("images/", b"")
        for number in reversed(range(drawings)):
            for character in characters:
                name = f"images/Alphabet/character{character:02d}/{character:04d}_{number:02d}.png"
                opened.writestr(name, png(drawing(character, number)))
        for name, content in extra:
            opened.writestr(name, content)
    return path


@pytest.fixture
def archives(tmp_path):
    """Two archives with 2 and 4 characters."""
    return [
        write_archive(tmp_path / "background.zip", [0, 1]),
        write_archive(tmp_path / "evaluation.zip", [2, 3, 4, 5]),
    ]


def make_tensors(train=3, validation=2, test=2):
    """Three tensors as they should be."""
    grey = torch.rand(train, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return [grey, torch.ones(validation, 1, 28, 28), torch.zeros(test, 1, 28, 28)]


# ---------------------------------------------------------------- images


def saved(splits, path):
    """The tensors after a journey through a file, where they are checked."""
    omniglot.save_tensors(splits, path)
    return load_tensors(path)


def test_from_images(archives, tmp_path):
    splits = saved(from_images(archives, TINY), tmp_path / "omniglot.pt")
    assert [list(images.shape) for images in splits] == [[14, 1, 28, 28], [4, 1, 28, 28], [10, 1, 28, 28]]
    train, validation, test = ([identify(image[0]) for image in images] for images in splits)
    every = train + validation + test
    assert len(set(every)) == len(every) == 28  # 30 drawings, of which two are left out
    for character in range(6):
        assert sum(found[0] == character for found in train + validation) == 3
        assert sum(found[0] == character for found in test) in (1, 2)
    for found in train, test:  # characters are mixed, and it is not the same drawings of each that are in a split
        assert [character for character, _ in found] != sorted(character for character, _ in found)
        assert len({tuple(sorted(n for c, n in found if c == character)) for character in range(6)}) > 3


def test_ink_is_one_and_in_its_place(archives):
    images = from_images(archives, TINY)[0]
    character, number = identify(images[0, 0])
    expected = torch.zeros(28, 28)
    expected[0:4, 4 * character : 4 * character + 4] = 1
    expected[8:12, 4 * number : 4 * number + 4] = 1
    assert torch.equal(images[0, 0], expected)


def test_the_seed_decides_the_split(archives):
    one, same, other = (from_images(archives, Split(3, 10, 4, seed)) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(one, same))
    assert not torch.equal(one[0], other[0])


def test_the_order_in_an_archive_does_not_matter(tmp_path, archives):
    expected = from_images(archives, TINY)
    with zipfile.ZipFile(archives[1]) as given, zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        for name in sorted(given.namelist()):
            other.writestr(name, given.read(name))
        assert other.namelist() != given.namelist()
    found = from_images([tmp_path / "other.zip", archives[0]], TINY)
    assert all(torch.equal(a, b) for a, b in zip(found, expected))


def test_what_else_is_in_an_archive_is_passed_over(tmp_path, archives):
    extra = [
        ("__MACOSX/images/Alphabet/character00/._0000_00.png", b"x"),
        ("images/readme.txt", b"x"),
        ("images/Alphabet/character00/._0000_00.png", b"x"),
    ]
    archives[0] = write_archive(tmp_path / "more.zip", [0, 1], extra=extra)
    assert len(from_images(archives, TINY)[0]) == 14


@pytest.mark.parametrize("split", [Split(3, 13, 4), Split(3, 5, 4), Split(5, 0, 4), Split()])
def test_sizes_that_cannot_be_had(archives, split):
    with pytest.raises(UserError, match="background.zip and .*evaluation.zip: 30 drawings of 6 characters"):
        from_images(archives, split)


def test_the_published_sizes_fit_the_real_archives():
    characters = [np.zeros((20, 1, 1), dtype=np.float32)] * 1623
    train, test = omniglot.split_drawings(characters, Split(), np.random.default_rng(0))
    assert (len(train), len(test)) == (24_345, 8_070)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"no image", "not a PNG"),
        (png(drawing(0, 0))[:60], "not a PNG"),
        (png(np.zeros((28, 28), bool)), "28 x 28 pixels"),
    ],
)
def test_bad_images_are_named(tmp_path, content, message):
    archive = write_archive(tmp_path / "bad.zip", [0], extra=[("images/Alphabet/character00/bad.png", content)])
    with pytest.raises(UserError, match=f"bad.zip: 'images/Alphabet/character00/bad.png' is {message}"):
        from_images([archive], TINY)


def test_damaged_archives_and_bombs(tmp_path, archives, monkeypatch):
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(archives[0].read_bytes()[:500])
    with pytest.raises(UserError, match="damaged.zip: damaged, cut short"):
        from_images([damaged], TINY)
    monkeypatch.setattr(omniglot, "ARCHIVE_LIMIT", 1000)
    with pytest.raises(UserError, match="background.zip: more than 1,000 bytes"):
        from_images(archives, TINY)


def test_reduction_is_the_area_average():
    image = (np.random.default_rng(0).random((105, 105)) < 0.3).astype(np.float32)
    fine = image.repeat(4, axis=0).repeat(4, axis=1)  # 420 = 28 * 15, so that blocks fit
    expected = fine.reshape(28, 15, 28, 15).mean(axis=(1, 3), dtype=np.float64)
    np.testing.assert_allclose(reduce_area(image, 28), expected, rtol=1e-6)
    assert reduce_area(np.ones((105, 105), np.float32), 28).max() == 1  # exactly, never an ulp above


def test_binarised_once_with_the_right_mean():
    grey = np.full((500, 28, 28), 0.3, dtype=np.float32)
    grey[:, 0] = 0
    grey[:, 1] = 1
    drawn = omniglot.binarise(grey, np.random.default_rng(0))
    assert not drawn[:, 0].any() and drawn[:, 1].all()
    assert drawn[:, 2:].mean() == pytest.approx(0.3, abs=0.005)


# ---------------------------------------------------------------- MATLAB file


def write_mat(path, train, test, **fields):
    """Write images [n, 28, 28] in the layout of chardata.mat: a column is an image, its pixels columns first."""
    columns = {
        name: np.stack([image.flatten(order="F") for image in images], axis=1)
        for name, images in (("data", train), ("testdata", test))
    }
    scipy.io.savemat(path, {**columns, **fields})
    return path


def test_from_mat(tmp_path):
    train = np.zeros((12, 28, 28))
    for number in range(12):  # an upright image is told from a transposed one
        train[number, 3, 2 * number] = (number + 1) / 16
        train[number, 3, 27] = 1
    test = np.zeros((5, 28, 28))
    test[:, 20, 4] = 1
    splits = saved(from_mat(write_mat(tmp_path / "chardata.mat", train, test), TINY), tmp_path / "omniglot.pt")
    assert [len(images) for images in splits] == [8, 4, 5]
    assert torch.equal(splits[2], torch.from_numpy(test).float()[:, None])
    rows = {int(image[0, 3, :27].argmax()) // 2 for image in splits[0]}
    assert len(rows) == 8  # eight different ones of the twelve
    for image in splits[0]:
        assert torch.equal(image[0].double(), torch.from_numpy(train[int(image[0, 3, :27].argmax()) // 2]))
    assert (splits[1][:, 0, 3, 27] == 1).all()


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"data": np.zeros((783, 9))}, "no numeric field 'data' of 784 rows"),
        ({"testdata": np.full((784, 3), 1.5)}, "values of 'testdata' are not in"),
        ({"testdata": np.full((784, 3), np.nan)}, "values of 'testdata' are not in"),
        ({"data": "text"}, "no numeric field 'data'"),
        ({"data": np.zeros((784, 4))}, "4 training images, but 4 are wanted for validation"),
    ],
)
def test_bad_mat_files(tmp_path, fields, message):
    path = write_mat(tmp_path / "chardata.mat", np.zeros((9, 28, 28)), np.zeros((3, 28, 28)), **fields)
    with pytest.raises(UserError, match=f"chardata.mat: .*{message}"):
        from_mat(path, TINY)


def test_a_mat_file_that_is_none(tmp_path):
    (tmp_path / "chardata.mat").write_bytes(b"<!DOCTYPE html>" * 100)
    with pytest.raises(UserError, match="chardata.mat: not a MATLAB file"):
        from_mat(tmp_path / "chardata.mat")


# ---------------------------------------------------------------- tensors


@pytest.mark.parametrize("dtype, legacy", [(torch.float32, False), (torch.float64, False), (torch.float32, True)])
def test_load_tensors(tmp_path, dtype, legacy):
    tensors = [images.to(dtype) for images in make_tensors()]
    torch.save(tensors, tmp_path / "omniglot.pt", _use_new_zipfile_serialization=not legacy)  # old files are legacy
    loaded = load_tensors(tmp_path / "omniglot.pt")
    assert all(a.dtype == torch.float32 and torch.equal(a, b.float()) for a, b in zip(loaded, tensors))


def changed(index, change):
    """Good tensors but for one, which `change` is applied to."""
    tensors = make_tensors()
    tensors[index] = change(tensors[index])
    return tensors


@pytest.mark.parametrize(
    "content, message",
    [
        ({"a": 1}, "not a list of 3 tensors"),
        (make_tensors()[:2], "not a list of 3 tensors"),
        (changed(0, lambda t: 3), "train images are not a dense float tensor"),
        (changed(1, lambda t: t.long()), "validation images are not a dense float tensor"),
        (changed(2, lambda t: t.to_sparse()), "test images are not a dense float tensor"),
        (changed(2, lambda t: t.to("meta")), "meta tensors"),
        (changed(0, lambda t: t[:, 0]), r"train images have shape \[3, 28, 28\]"),
        (changed(1, lambda t: t[:0]), r"validation images have shape \[0, 1, 28, 28\]"),
        (changed(0, lambda t: t + 1), r"train pixels are not in \[0, 1\]"),
        (changed(0, lambda t: t * float("nan")), r"train pixels are not in \[0, 1\]"),
        (changed(1, lambda t: t / 2), "validation pixels are neither 0 nor 1"),
        (changed(2, lambda t: t + 0.25), "test pixels are neither 0 nor 1"),
    ],
)
def test_bad_tensors_are_named(tmp_path, content, message):
    torch.save(content, tmp_path / "omniglot.pt")
    with pytest.raises(UserError, match=f"omniglot.pt: .*{message}"):
        load_tensors(tmp_path / "omniglot.pt")
