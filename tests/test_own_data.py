"""Data of one's own: prepare_data.py --text and --images, then training; and configs of the authors' code."""

import ast
import gzip
import runpy
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import image
import prepare_data
import text
from modules.data import own, own_images, own_text
from modules.data.images import load_images
from tests.conftest import TINY_CONFIG, assert_refused, make_workspace, sentences

SMALL = ("--epochs", "1", "--iw_nsamples", "2")
SMALL_TEXT = (*SMALL, "--ni", "4", "--enc_nh", "4", "--dec_nh", "4")
SMALL_IMAGES = (*SMALL, "--enc_layers", "4,4", "--dec_kernel_size", "3,3", "--dec_layers", "4,4")


@pytest.fixture
def prepare(call, tmp_path):
    """`prepare(*args)`: prepare_data.py in a folder of its own."""
    return lambda *args: call(prepare_data.main, *args, cwd=tmp_path)


def write_lines(path, lines):
    """Write a text file, a line each; returns its name."""
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path.name


def read_splits(folder, name="abc"):
    """The lines of the three files of a text set."""
    paths = (folder / "datasets" / f"{name}_data" / f"{name}.{part}.txt" for part in ("train", "valid", "test"))
    return [path.read_text("utf-8").splitlines() for path in paths]


def params(folder, name="abc"):
    """The params of a config that was written, which must be laid out as the linter has it."""
    path = folder / "config" / f"config_{name}.py"
    assert ast.get_docstring(ast.parse(path.read_text()))
    assert all(len(line) <= 120 and "'" not in line for line in path.read_text().splitlines())
    return runpy.run_path(str(path))["params"]


def tree(folder):
    """{name: bytes} of the data sets and configs in a folder."""
    paths = [path for top in ("datasets", "config") for path in (folder / top).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.name != ".lock"}


# ---------------------------------------------------------------- text


def test_text_takes_two_commands(prepare, call, tmp_path):
    lines = sentences(60, 0)
    ran = prepare("--text", write_lines(tmp_path / "lines.txt", lines), "--name", "abc")
    assert ran.returncode == 0
    train, valid, test = read_splits(tmp_path)
    assert [len(train), len(valid), len(test)] == [48, 6, 6]
    assert sorted(train + valid + test) == sorted(lines)
    words = sum(len(line.split()) for line in train)
    assert f"48 / 6 / 6 sentences, {words} training words, 10 in the vocabulary" in ran.stdout
    *command, _ = ran.stdout.splitlines()[-1].partition(" --aggressive")
    assert command[0] == "next: python text.py --dataset abc"
    trained = call(text.main, *command[0].split()[3:], *SMALL_TEXT, cwd=tmp_path)
    assert trained.returncode == 0 and "iw nll: " in trained.stdout


def test_a_split_is_random_keeps_the_order_of_the_file_and_is_the_same_again(prepare, tmp_path):
    lines = [str(number) for number in range(1000)]
    name = write_lines(tmp_path / "lines.txt", ["", *lines[:500], " \t", *lines[500:]])
    assert prepare("--text", name, "--name", "abc").returncode == 0
    found = [[int(line) for line in part] for part in read_splits(tmp_path)]
    assert all(part == sorted(part) for part in found)
    assert all(400 < np.mean(part) < 600 for part in found)  # no part is a piece of the file
    assert prepare("--text", name, "--name", "again").returncode == 0
    assert [[int(line) for line in part] for part in read_splits(tmp_path, "again")] == found


def test_no_more_is_held_out_than_in_the_published_sets():
    assert [len(part) for part in own.split(200_000, own.held_out_size(200_000, "x", "y"))] == [180_000, 10_000, 10_000]


def test_repeated_lines(prepare, tmp_path):
    name = write_lines(tmp_path / "lines.txt", [*(f"line {number % 20}" for number in range(30)), "é", "é"])
    kept = prepare("--text", name, "--name", "kept")
    assert sum(map(len, read_splits(tmp_path, "kept"))) == 32
    assert kept.stderr.startswith("note: lines.txt: 11 of 32 lines repeat an earlier one; some may be in two splits")
    gone = prepare("--text", name, "--name", "gone", "--deduplicate")
    assert sorted(sum(read_splits(tmp_path, "gone"), [])) == sorted({*(f"line {number}" for number in range(20)), "é"})
    assert "they are left out" in gone.stderr


def test_three_files_stay_apart(prepare, tmp_path):
    files = [write_lines(tmp_path / f"{part}.txt", [f"1\t{part} a", "0\tb b"]) for part in ("one", "two", "three")]
    ran = prepare("--text", *files, "--name", "abc", "--label", "--vocab_limit", "1")
    assert ran.returncode == 0 and ran.stderr == ""
    assert read_splits(tmp_path) == [[f"1\t{part} a", "0\tb b"] for part in ("one", "two", "three")]
    assert "2 / 2 / 2 sentences, 4 training words, 5 in the vocabulary" in ran.stdout
    assert params(tmp_path) | {"label": True, "vocab_limit": 1} == params(tmp_path)


@pytest.mark.parametrize(
    "words, ni, nh, batch_size, epochs",
    [(400_000, 50, 50, 16, 50), (400_010, 256, 256, 32, 100), (2_500_010, 512, 1024, 32, 100)],
)
def test_sizes_follow_the_number_of_training_words(monkeypatch, tmp_path, words, ni, nh, batch_size, epochs):
    monkeypatch.chdir(tmp_path)
    lines = ["w " * 10] * (words // 10)
    monkeypatch.setattr(own_text, "read_sentences", lambda path, label: lines if path == "train" else [str(path)])
    own_text.prepare_text(["train", "valid", "test"], "abc")
    assert params(tmp_path) == {
        **{"enc_type": "lstm", "dec_type": "lstm", "nz": 32, "ni": ni, "enc_nh": nh, "dec_nh": nh},
        **{"dec_dropout_in": 0.5, "dec_dropout_out": 0.5, "batch_size": batch_size, "epochs": epochs},
        **{"test_nepoch": 5, "train_data": "datasets/abc_data/abc.train.txt"},
        **{"val_data": "datasets/abc_data/abc.valid.txt", "test_data": "datasets/abc_data/abc.test.txt"},
    }


# ---------------------------------------------------------------- images


def picture(number, size=(56, 56)):
    """A grey picture, uint8: white paper with black ink in one 8 x 8 block of 7 x 7, which tells the number."""
    paper = np.full(size, 255, np.uint8)
    row, column = divmod(number, 7)
    height, width = size[0] // 7, size[1] // 7
    paper[height * row : height * (row + 1), width * column : width * (column + 1)] = 0
    return paper


def reduced(number):
    """The same as the models see it: float32 [28, 28], ink = 1."""
    return 1 - np.kron(picture(number, (7, 7)) / np.float32(255), np.ones((4, 4), np.float32))


def write_pictures(folder, count=20, **how):
    """Write so many PNG files into a folder and one below it; returns the folder's name."""
    (folder / "below").mkdir(parents=True)
    for number in range(count):
        Image.fromarray(picture(number, **how)).save(folder / ("below" if number % 2 else ".") / f"{number}.PNG")
    return folder.name


def idx(images):
    """The bytes of MNIST's format."""
    return struct.pack(">4I", 0x803, *images.shape) + images.astype(np.uint8).tobytes()


def load(folder):
    """The three tensors of the set abc, as arrays [n, 28, 28]."""
    return [images.squeeze(1).numpy() for images in load_images(folder / "datasets" / "abc_data" / "abc.pt")]


def names_of(folder):
    """What the images of its splits are called."""
    return [
        (folder / "datasets" / "abc_data" / f"abc.{part}.txt").read_text().splitlines()
        for part in ("train", "valid", "test")
    ]


def assert_all_there(splits, expected):
    """Every expected image is in one of the splits, once."""
    found = np.concatenate(splits)
    assert sorted(map(bytes, found)) == sorted(map(bytes, np.stack([*expected]).astype(np.float32)))


@pytest.mark.parametrize("size", [(56, 56), (112, 70), (7, 7)], ids=str)
def test_pictures_are_reduced_with_ink_as_one(prepare, tmp_path, size):
    ran = prepare("--images", write_pictures(tmp_path / "drawings", size=size), "--name", "abc")
    assert ran.returncode == 0 and ran.stderr == ""
    assert "16 / 2 / 2 images, 28 x 28" in ran.stdout
    assert_all_there([images.round(5) for images in load(tmp_path)], map(reduced, range(20)))
    for images, names in zip(load(tmp_path), names_of(tmp_path), strict=True):
        numbers = [int(Path(name).stem) for name in names]
        assert names == [f"{'below/' * (number % 2)}{number}.PNG" for number in numbers]
        np.testing.assert_allclose(images, [reduced(number) for number in numbers], atol=1e-5)


def test_files_that_are_no_pictures_are_counted(prepare, tmp_path):
    write_pictures(tmp_path / "drawings")
    (tmp_path / "drawings" / ".trash").mkdir()
    for name in ("notes.txt", "below/moving.gif", ".hidden", ".trash/old.png"):
        (tmp_path / "drawings" / name).write_bytes(b"x")
    ran = prepare("--images", "drawings", "--name", "abc")
    assert ran.returncode == 0 and ran.stderr.startswith("note: drawings: 2 of 22 files are no PNG or JPEG")


def test_a_photograph_is_turned_as_its_exif_says(tmp_path):
    """Orientation 6: the first row of what is stored is the right side of what was seen."""
    stored, exif = np.full((16, 16), 255, dtype=np.uint8), Image.Exif()
    stored[:8], exif[0x0112] = 0, 6
    Image.fromarray(stored).save(tmp_path / "photo.jpg", exif=exif, quality=100)
    seen = own_images.read_picture(tmp_path / "photo.jpg", 4, False)
    np.testing.assert_allclose(seen, np.tile([1, 1, 0, 0], (4, 1)), atol=0.05)


def test_images_take_two_commands(prepare, call, tmp_path):
    ran = prepare("--images", write_pictures(tmp_path / "drawings"), "--name", "abc")
    assert ran.stdout.splitlines()[-1].startswith("next: python image.py --dataset abc --aggressive 1")
    trained = call(image.main, "--dataset", "abc", *SMALL_IMAGES, cwd=tmp_path)
    assert trained.returncode == 0 and "iw nll: " in trained.stdout


def test_grey_is_kept_for_training_and_binarised_for_the_others(prepare, tmp_path):
    (tmp_path / "drawings").mkdir()
    for number in range(20):
        Image.fromarray(np.full((30, 30), 204, np.uint8)).save(tmp_path / "drawings" / f"{number}.png")
    assert prepare("--images", "drawings", "--name", "abc").returncode == 0
    train, *others = load(tmp_path)
    np.testing.assert_allclose(train, 0.2, rtol=1e-5)
    for images in others:
        assert set(np.unique(images)) == {0, 1}
        assert abs(images.mean() - 0.2) < 5 * (0.2 * 0.8 / images.size) ** 0.5


def test_every_kind_of_picture(tmp_path):
    """A left half of ink: as JPEG, RGB, palette, 1 bit, 16 bits, and transparent paper, which is the other colour."""
    grey = np.full((40, 40), 255, np.uint8)
    grey[:, :20] = 0
    plain = Image.fromarray(grey)
    alpha = {ink: Image.new("LA", plain.size, (ink, 255)) for ink in (0, 255)}
    for drawn in alpha.values():
        drawn.putalpha(Image.fromarray(255 - grey))
    kinds = {f"{mode}.png": plain.convert(mode) for mode in ("RGB", "P", "1", "L", "RGBA")}
    kinds |= {"a.jpg": plain, "b.jpeg": plain.convert("CMYK"), "c.png": alpha[0]}
    kinds["d.png"] = Image.fromarray(grey.astype(np.uint16) * 257)
    for file, drawn in kinds.items():
        drawn.save(tmp_path / file)
        found = own_images.read_picture(tmp_path / file, 4, invert=False)
        np.testing.assert_allclose(found, [[0, 0, 1, 1]] * 4, atol=0.02, err_msg=file)
    alpha[255].save(tmp_path / "e.png")
    np.testing.assert_allclose(own_images.read_picture(tmp_path / "e.png", 4, invert=True), [[1, 1, 0, 0]] * 4)


def test_invert_and_the_note_that_asks_for_it(prepare, tmp_path):
    write_pictures(tmp_path / "drawings")
    for path in (tmp_path / "drawings").rglob("*.PNG"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    noted = prepare("--images", "drawings", "--name", "dark")
    assert noted.returncode == 0
    assert noted.stderr == "note: drawings: 98% of the pixels are ink; if that is the paper, give --invert\n"
    ran = prepare("--images", "drawings", "--name", "abc", "--invert")
    assert ran.returncode == 0 and ran.stderr == ""
    assert_all_there(load(tmp_path), map(reduced, range(20)))


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_files(prepare, call, tmp_path, packed):
    drawn = 255 - np.stack([picture(number, (28, 28)) for number in range(30)])
    (tmp_path / "mnist").mkdir()
    for file, images in (("train-images-idx3-ubyte", drawn[:20]), ("t10k-images-idx3-ubyte", drawn[20:])):
        content = gzip.compress(idx(images)) if packed else idx(images)
        (tmp_path / "mnist" / f"{file}{'.gz' if packed else ''}").write_bytes(content)
    (tmp_path / "mnist" / "train-labels-idx1-ubyte").write_bytes(b"not read")
    assert prepare("--images", "mnist", "--name", "abc").returncode == 0
    train, validation, test = load(tmp_path)
    assert [len(train), len(validation), len(test)] == [18, 2, 10]
    assert_all_there([test], map(reduced, range(20, 30)))
    assert_all_there([train, validation], map(reduced, range(20)))
    names = names_of(tmp_path)
    suffix = ".gz" if packed else ""
    assert names[2] == [f"t10k-images-idx3-ubyte{suffix} {number}" for number in range(10)]
    for drawing, name in zip([*train, *validation], names[0] + names[1], strict=True):
        assert name.startswith(f"train-images-idx3-ubyte{suffix} ")
        np.testing.assert_allclose(drawing, reduced(int(name.split()[1])), atol=1e-5)


def test_one_mnist_file_is_split(prepare, tmp_path):
    (tmp_path / "some").write_bytes(idx(picture(0, (14, 14))[None].repeat(20, axis=0)))
    assert prepare("--images", "some", "--name", "abc", "--invert").returncode == 0
    assert_all_there(load(tmp_path), [reduced(0)] * 20)


def test_another_size_fits_the_model(prepare, call, tmp_path):
    write_pictures(tmp_path / "drawings")
    assert prepare("--images", "drawings", "--name", "abc", "--img_size", "56").returncode == 0
    config = params(tmp_path)
    assert config["img_size"] == [1, 56, 56] and config["enc_layers"] == [16, 32, 32, 32]
    assert load(tmp_path)[0].shape == (16, 56, 56)
    small = ("--enc_layers", "4,4,4,4", *SMALL_IMAGES[6:])
    assert call(image.main, "--dataset", "abc", *SMALL, *small, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("count, layers", [(12_500, 4), (12_502, 13)])
def test_image_sizes_follow_the_number_of_training_images(monkeypatch, tmp_path, count, layers):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        own_images, "read_images", lambda *_: ([np.zeros((count, 28, 28), np.float32)], [np.arange(count)])
    )
    own_images.prepare_images("x", "abc")
    assert len(params(tmp_path)["dec_layers"]) == layers
    assert params(tmp_path)["img_size"] == [1, 28, 28] and params(tmp_path)["nz"] == 32


# ---------------------------------------------------------------- names, and all or nothing


def test_nothing_is_overwritten_unless_asked(prepare, tmp_path):
    name = write_lines(tmp_path / "lines.txt", sentences(20, 0))
    other = write_lines(tmp_path / "other.txt", sentences(30, 1))
    assert prepare("--text", name, "--name", "abc").returncode == 0
    before = tree(tmp_path)
    assert_refused(prepare("--text", other, "--name", "abc"), "--name abc", "datasets/abc_data", "--overwrite")
    (tmp_path / "datasets" / "abc_data").rename(tmp_path / "away")
    assert_refused(prepare("--text", other, "--name", "abc"), "--name abc", "config/config_abc.py", "--overwrite")
    (tmp_path / "away").rename(tmp_path / "datasets" / "abc_data")
    assert tree(tmp_path) == before
    assert prepare("--text", other, "--name", "abc", "--overwrite").returncode == 0
    assert sorted(sum(read_splits(tmp_path), [])) == sorted(sentences(30, 1))
    old = "config/config_abc.py.old"
    assert sorted(tree(tmp_path)) == sorted({**before, old: b""}) and tree(tmp_path)[old] == before[old[:-4]]


def test_a_data_set_is_not_made_of_itself(prepare, tmp_path):
    assert prepare("--text", write_lines(tmp_path / "lines.txt", sentences(20, 0)), "--name", "abc").returncode == 0
    before = tree(tmp_path)
    for flag, source in (("--text", "datasets/abc_data/abc.train.txt"), ("--images", "datasets/abc_data")):
        assert_refused(prepare(flag, source, "--name", "abc", "--overwrite"), source, "take another --name")
    assert tree(tmp_path) == before


def test_a_config_of_another_hand_is_never_overwritten(prepare, tmp_path):
    name = write_lines(tmp_path / "lines.txt", sentences(20, 0))
    (tmp_path / "config").mkdir(exist_ok=True)
    (tmp_path / "config" / "config_mine.py").write_text("params = {}\n")
    before = tree(tmp_path)
    for taken in ("mine", "yahoo"):
        refused = prepare("--text", name, "--name", taken, "--overwrite")
        assert_refused(refused, f"config_{taken}.py", "not written by prepare_data.py", "another name")
    assert tree(tmp_path) == before


def test_a_config_that_cannot_be_put_in_place_leaves_no_data(prepare, tmp_path):
    name = write_lines(tmp_path / "lines.txt", range(20))
    (tmp_path / "config" / "config_abc.py").mkdir(parents=True)
    assert_refused(prepare("--text", name, "--name", "abc"), "config/config_abc.py")
    assert tree(tmp_path) == {}


def test_a_name_of_the_repository_is_taken(prepare, tmp_path):
    name = write_lines(tmp_path / "lines.txt", sentences(20, 0))
    assert_refused(prepare("--text", name, "--name", "yahoo"), "--name yahoo", "config_yahoo.py")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("broken", ["config_text", "rename"])
def test_a_failure_leaves_everything_as_it_was(prepare, tmp_path, monkeypatch, there, broken):
    name = write_lines(tmp_path / "lines.txt", sentences(20, 0))
    if there:
        assert prepare("--text", name, "--name", "abc").returncode == 0
    before, rename = tree(tmp_path), Path.rename

    def fail(*args):
        raise KeyboardInterrupt

    def rename_old_only(path, target):
        return fail() if path.parent.name.startswith(".preparing") and path.name == "abc_data" else rename(path, target)

    monkeypatch.setattr(*((own, broken, fail) if broken == "config_text" else (Path, broken, rename_old_only)))
    assert prepare("--text", name, "--name", "abc", "--overwrite", "--vocab_limit", "2").returncode == 130
    assert tree(tmp_path) == before


def test_what_a_killed_preparation_left_goes_with_the_next(prepare, tmp_path):
    left = tmp_path / "datasets" / ".preparing.killed.tmp"
    left.mkdir(parents=True)
    (left / "half.txt").write_bytes(b"x")
    assert prepare("--text", write_lines(tmp_path / "lines.txt", sentences(20, 0)), "--name", "abc").returncode == 0
    assert not left.exists()


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "content, names",
    [
        (None, ["lines.txt", "no such file"]),
        (b"", ["lines.txt", "there is no sentence in it"]),
        (b"\n \n<s> </s>\n", ["lines.txt", "there is no sentence in it"]),
        (b"a b\ncaf\xe9\n", ["lines.txt, line 2", "not UTF-8"]),
        (b"a b\n" * 9, ["lines.txt", "9 sentences are too few", "it takes 10"]),
    ],
    ids=["missing", "empty", "blank", "not UTF-8", "too few"],
)
def test_bad_texts(prepare, tmp_path, content, names):
    if content is not None:
        (tmp_path / "lines.txt").write_bytes(content)
    ran = prepare("--text", "lines.txt", "--name", "abc")
    assert_refused(ran._replace(stderr=ran.stderr.splitlines(keepends=True)[-1]), *names)
    assert tree(tmp_path) == {}


def test_texts_that_do_not_fit_their_flags(prepare, tmp_path):
    files = [write_lines(tmp_path / f"{n}.txt", lines) for n, lines in enumerate([["0\ta", "b"], ["c"], ["c"]])]
    assert_refused(prepare("--text", *files, "--name", "abc"), "1.txt and 2.txt hold the same sentences")
    assert_refused(prepare("--text", *files, "--name", "abc", "--label"), "0.txt, line 2", "no tab")


def test_bad_images(prepare, tmp_path):
    def refused(*names):
        assert_refused(prepare("--images", "drawings", "--name", "abc"), *names)

    refused("--images drawings", "no such folder")
    (tmp_path / "drawings").mkdir()
    (tmp_path / "drawings" / "._hidden.png").write_bytes(b"what macOS leaves")
    refused("--images drawings", "no PNG, JPEG")
    write_pictures(tmp_path / "drawings" / "some", 9)
    refused("drawings", "9 images are too few", "it takes 10")
    bad = tmp_path / "drawings" / "bad.png"
    whole = (tmp_path / "drawings" / "some" / "0.PNG").read_bytes()
    flipped = whole[:-30] + bytes([whole[-30] ^ 1]) + whole[-29:]
    for content in (b"", b"text", whole[:-20], whole[: len(whole) // 2], whole.replace(b"IDAT", b"IDAX"), flipped):
        bad.write_bytes(content)
        refused("drawings/bad.png", "not a PNG or JPEG image that can be read")
    assert tree(tmp_path) == {}


def test_bad_idx_files(prepare, tmp_path):
    whole = idx(np.zeros((20, 28, 28)))
    for content, message in {
        b"": "not an IDX file",
        b"some text that is long enough": "not an IDX file",
        struct.pack(">2I", 0x801, 20) + bytes(20): "not an IDX file",  # labels
        whole[:-1]: "cut short",
        whole + b"x": "20 images of 28 x 28",
        idx(np.zeros((0, 28, 28))): "0 images",
        gzip.compress(whole)[:-9]: "damaged",
        b"\x1f\x8bnot gzip": "damaged",
    }.items():
        (tmp_path / "file").write_bytes(content)
        assert_refused(prepare("--images", "file", "--name", "abc"), "file: ", message)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "args, message",
    [
        (["--text", "x"], "--text needs --name"),
        (["--images", "x"], "--images needs --name"),
        (["--text", "x", "--images", "y", "--name", "abc"], "--text and --images exclude each other"),
        (["--text", "x", "--dataset", "ptb", "--name", "abc"], "--text and --dataset exclude each other"),
        (["--images", "x", "--mirror", "y", "--name", "abc"], "--images and --mirror exclude each other"),
        (["--text", "x", "y", "--name", "abc"], "one file or three"),
        (["--text", "x", "y", "z", "--name", "abc", "--deduplicate"], "--deduplicate is for one file"),
        (["--text", "x", "--name", "a/b"], "--name: must be a name of letters"),
        (["--text", "x", "--name", "abc", "--vocab_limit", "0"], "--vocab_limit: must be a whole number from 1"),
        (["--images", "x", "--name", "abc", "--img_size", "1"], "--img_size: must be a whole number from 2"),
        (["--name", "abc"], "--name does nothing without --text or --images"),
        (["--text", "x", "--name", "abc", "--invert"], "--invert does nothing without --images"),
        (["--images", "x", "--name", "abc", "--label"], "--label does nothing without --text"),
    ],
)
def test_flags_that_do_not_go_together(prepare, tmp_path, args, message):
    assert_refused(prepare(*args), message)
    assert not (tmp_path / "datasets").exists()


# ---------------------------------------------------------------- configs of the authors' code


def test_keys_that_only_the_authors_code_knows_are_passed_over(call, tmp_path):
    config = make_workspace(tmp_path) / "config" / "config_tiny.py"
    before = call(text.main, "--dataset", "tiny", *SMALL, "--max_iterations", "1", cwd=tmp_path)
    config.write_text(TINY_CONFIG.replace('"nz"', '"log_niter": 50, "vocab_file": "vocab.txt", "nz"'))
    args = ("--dataset", "tiny", *SMALL, "--max_iterations", "1", "--overwrite")
    ran = call(text.main, *args, cwd=tmp_path)
    assert ran.returncode == 0
    (line,) = [line for line in ran.stderr.splitlines() if line not in before.stderr.splitlines()]
    assert line.startswith("note: config/config_tiny.py: passed over log_niter (") and ", vocab_file (" in line
    config.write_text(TINY_CONFIG.replace('"nz"', '"log_niter": 50, "log_nitre": 50, "nz"'))
    assert_refused(call(text.main, *args, cwd=tmp_path), "config/config_tiny.py: unknown key 'log_nitre'")


def test_an_unknown_key_is_guessed_at(call, tmp_path):
    config = make_workspace(tmp_path) / "config" / "config_tiny.py"
    another = "the known keys are"
    assert_refused(call(image.main, "--dataset", "tiny", cwd=tmp_path), another)
    config.write_text(TINY_CONFIG.replace('"enc_nh"', '"enc_hn"'))
    guess = "config/config_tiny.py: unknown key 'enc_hn'; did you mean 'enc_nh'? the known keys are"
    assert_refused(call(text.main, "--dataset", "tiny", cwd=tmp_path), guess)
    config.write_text(TINY_CONFIG.replace('"nz"', '"colour": 3, "nz"'))
    assert_refused(call(text.main, "--dataset", "tiny", cwd=tmp_path), "unknown key 'colour'; the known keys are")
