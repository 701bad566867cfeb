"""Making a data set complete in `datasets/`: fetch, unpack, check, put in place."""

import os
import shutil
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Callable

import torch

from modules.data import omniglot, synthetic
from modules.data.fetch import UPSTREAM
from modules.data.unpack import install, looks_like_page, scratch_folder, unpack
from modules.command import UserError

NAMES = ("synthetic", "yahoo", "yelp", "omniglot", "ptb")
HELD_OUT = 2_000    # validation sentences, the last of the training file, where the synthetic set comes with none


def prepare_each(names, source, root, generate=False):
    """Prepare every data set of `names`, whatever becomes of the others; raises UserError if any failed."""
    failed = []
    for name in names:
        try:
            prepare(name, source, root, generate)
        except (UserError, OSError) as error:
            if len(names) == 1:
                raise
            print(f"error: {name}: {error}", file=sys.stderr, flush=True)
            failed.append(name)
    if failed:
        raise UserError(f"{len(failed)} of {len(names)} data sets could not be prepared: {', '.join(failed)}; "
                        f"see the lines above")


def prepare(name, source, root, generate=False):
    """Make the data set `root`/`name`_data complete, with files from `source`, unless it is.

    Raises UserError with what the user can do; then nothing is changed, except that a broken download is kept.
    """
    target = root / f"{name}_data"
    if target.exists():
        try:
            hint = "; move it away to generate it anew" if generate and name == "synthetic" else ""
            print(f"{name}: already there, {target} ({summary(name, target)}){hint}", flush=True)
            return
        except UserError as error:
            print(f"{name}: {target} is not complete ({error}); preparing it anew", flush=True)
    with scratch_folder(root) as scratch:
        fresh = scratch / target.name
        fresh.mkdir()
        try:
            fill(name, source, scratch, fresh, generate)
        except UserError as error:
            raise UserError(f"{error}. By hand: {by_hand(name)}") from error
        finally:
            with suppress(OSError):     # parts of broken downloads stay, and so does their folder
                (root / "downloads").rmdir()
        done = summary(name, fresh)
        aside = install(fresh, target)
    print(f"{name}: ready, {target} ({done})" + (f"; what was there is now {aside}" if aside else ""), flush=True)


def fill(name, source, scratch, fresh, generate):
    """Put the files of the data set into the empty folder `fresh`; `scratch` is for what is needed in between."""
    if name == "omniglot":
        fill_omniglot(source, scratch, fresh)
    elif name == "synthetic":
        fill_synthetic(source, scratch, fresh, generate)
    else:
        fill_text(name, source, scratch, fresh)


def summary(name, folder):
    """Check the data set in `folder`; returns its sizes as text. Raises UserError, naming the file, for a bad one."""
    if name != "omniglot":
        return text_summary(TEXT_SETS[name], folder)
    path = folder / "omniglot.pt"
    if not path.exists():
        raise UserError(f"{path.name} is missing")
    return f"{sizes(len(images) for images in omniglot.load_tensors(path))} images"


def sizes(numbers):
    """Sizes of train, validation and test as text."""
    return " / ".join(f"{number:,}" for number in numbers)


def by_hand(name):
    """What the user can do where the network or the upstream server is of no help."""
    ways = OMNIGLOT_WAYS if name == "omniglot" else {TEXT_SETS[name].fetched: None}
    wanted = ", or ".join(" and ".join(f"{UPSTREAM[file].url} as {file}" for file in files) for files in ways)
    return f"save {wanted} into a folder DIR and run: python prepare_data.py --dataset {name} --mirror DIR"


# ---------------------------------------------------------------- text


def is_sentence(line):
    """Any line is a sentence."""
    return True


def is_labelled(line):
    """True for `label<TAB>text`."""
    return "\t" in line


def is_integers(line):
    """True for integers separated by spaces."""
    return line.strip() != "" and all(word.isdecimal() for word in line.split())


@dataclass(frozen=True)
class TextSet:
    """A data set of three text files, one sentence a line."""

    files: tuple        # in the order train, validation, test
    published: tuple    # their numbers of lines
    fetched: tuple      # names of what is fetched: an archive, or the files themselves
    is_line: Callable = is_sentence
    line: str = "a sentence"        # what `is_line` asks for, in words


TEXT_SETS = {
    "synthetic": TextSet(("synthetic_train.txt", "synthetic_valid.txt", "synthetic_test.txt"),
                         (16_000, 2_000, 2_000), ("synthetic_data.tar.gz",), is_integers, "a row of integers"),
    "yahoo": TextSet(("yahoo.train.txt", "yahoo.valid.txt", "yahoo.test.txt"),
                     (100_000, 10_000, 10_000), ("yahoo_data.tar.gz",)),
    "yelp": TextSet(("yelp.train.txt", "yelp.valid.txt", "yelp.test.txt"),
                    (100_000, 10_000, 10_000), ("yelp_data.tar.gz",), is_labelled, "a label, a tab and a text"),
    "ptb": TextSet(("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"),
                   (42_068, 3_370, 3_761), ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt")),
}


def text_summary(dataset, folder):
    """`summary` of a text data set, with a warning where its sizes are not the published ones."""
    counts = tuple(count_lines(folder / file, dataset) for file in dataset.files)
    valid, test = ((folder / file).read_bytes() for file in dataset.files[1:])
    if valid == test:
        raise UserError(f"{dataset.files[1]} and {dataset.files[2]} are the same; fetch the data set again")
    warning = f", published: {sizes(dataset.published)}" if counts != dataset.published else ""
    return f"{sizes(counts)} lines{warning}"


def count_lines(path, dataset):
    """The number of lines of a text file. Raises UserError, naming it, unless all are as `dataset` wants them."""
    if not path.is_file() or path.stat().st_size == 0:
        raise UserError(f"{path.name} is {'empty' if path.is_file() else 'missing'}")
    with open(path, "rb") as stream:
        if looks_like_page(stream.read(512)):
            raise UserError(f"{path.name} is a web page, not text; fetch it again")
    try:
        with open(path, encoding="utf-8", newline="\n") as lines:
            blank = True
            for number, line in enumerate(lines, start=1):
                blank = blank and line.isspace()
                if not dataset.is_line(line):
                    raise UserError(f"{path.name}, line {number}: not {dataset.line}; fetch it again")
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is not UTF-8 text; fetch it again") from error
    if blank:
        raise UserError(f"{path.name} holds nothing but white space; fetch it again")
    return number


def fill_text(name, source, scratch, fresh):
    """Fetch a text data set into `fresh`: the files themselves, or an archive that holds them."""
    dataset = TEXT_SETS[name]
    with ExitStack() as stack:
        paths = [stack.enter_context(source.file(file)) for file in dataset.fetched]
        if dataset.fetched == dataset.files:
            for path in paths:
                shutil.copyfile(path, fresh / path.name)
        else:
            take_files(paths[0], dataset.files, scratch, fresh)


def take_files(archive, files, scratch, fresh):
    """Unpack `archive` and move those of `files` that it holds in one folder, the first for certain, to `fresh`."""
    unpacked = scratch / "unpacked"
    unpacked.mkdir()
    unpack(archive, unpacked)
    found = min((path.parent for path in unpacked.rglob(files[0])), default=None)
    if found is None:
        raise UserError(f"{archive.name} holds no {files[0]}; fetch it again")
    for file in files:
        if (found / file).is_file():
            os.replace(found / file, fresh / file)


# ---------------------------------------------------------------- synthetic


def fill_synthetic(source, scratch, fresh, generate):
    """Fetch the synthetic set into `fresh`, or generate it, on request or where it cannot be had."""
    if not generate:
        try:
            fill_text("synthetic", source, scratch, fresh)
            hold_out_validation(*(fresh / file for file in TEXT_SETS["synthetic"].files))
            summary("synthetic", fresh)
            return
        except UserError as error:
            print(f"synthetic: {error}", flush=True)
    print("synthetic: generating it by the paper's recipe", flush=True)
    words, start = synthetic.generate(), 0
    for file, count in zip(TEXT_SETS["synthetic"].files, TEXT_SETS["synthetic"].published):
        synthetic.write(fresh / file, words[start:start + count])
        start += count


def hold_out_validation(train, valid, test):
    """Where a synthetic set has no validation file of its own, make one of the last lines of the training file."""
    if valid.exists() and (not test.exists() or valid.read_bytes() != test.read_bytes()):
        return
    lines = train.read_bytes().splitlines(keepends=True)
    if len(lines) <= HELD_OUT:
        raise UserError(f"{train.name} has {len(lines):,} lines, too few to hold out {HELD_OUT:,} for validation")
    train.write_bytes(b"".join(lines[:-HELD_OUT]))
    valid.write_bytes(b"".join(lines[-HELD_OUT:]))
    print(f"synthetic: the set has no validation file of its own, so the last {HELD_OUT:,} of {len(lines):,} training "
          f"lines are now {valid.name}", flush=True)


# ---------------------------------------------------------------- omniglot


def from_ready_tensors(paths, scratch):
    """The three tensors from the authors' archive."""
    take_files(paths[0], ("omniglot.pt",), scratch, scratch)
    return omniglot.load_tensors(scratch / "omniglot.pt")


# What to fetch for each way to make Omniglot, in the order in which they are tried: files -> function(paths, scratch)
OMNIGLOT_WAYS = {
    ("omniglot_data.tar.gz",): from_ready_tensors,
    ("chardata.mat",): lambda paths, scratch: omniglot.from_mat(paths[0]),
    ("images_background.zip", "images_evaluation.zip"): lambda paths, scratch: omniglot.from_images(paths),
}


def fill_omniglot(source, scratch, fresh):
    """Make `fresh`/omniglot.pt from the first of OMNIGLOT_WAYS whose files can be had; says which it was."""
    for files, make in OMNIGLOT_WAYS.items():
        try:
            with ExitStack() as stack:
                splits = make([stack.enter_context(source.file(file)) for file in files], scratch)
        except UserError as error:
            print(f"omniglot: {error}", flush=True)
        else:
            print(f"omniglot: made from {' and '.join(files)}", flush=True)
            torch.save(splits, fresh / "omniglot.pt")
            return
    raise UserError("none of the files that it can be made from can be had")
