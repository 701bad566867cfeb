"""Making a data set complete in `datasets/`: fetch, unpack, check, put in place."""

import re
import shutil
import sys
import time
from contextlib import closing, suppress

from filelock import FileLock

from modules.command import UserError, os_complaint
from modules.data import omniglot, synthetic
from modules.data.archives import unpack
from modules.data.download import UPSTREAM, Broken, refuse_page
from modules.files import CannotWrite, replacing, scratch_folder

PTB = ["ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"]
WAYS = {  # data set: what it can be made from, in the order in which that is tried; from nothing, it is generated
    "synthetic": [["synthetic_data.tar.gz"], []],
    "yahoo": [["yahoo_data.tar.gz"]],
    "yelp": [["yelp_data.tar.gz"]],
    "omniglot": [["omniglot_data.tar.gz"], ["chardata.mat"], ["images_background.zip", "images_evaluation.zip"]],
    "ptb": [PTB],
    "ptb_short": [PTB],
}
NAMES = tuple(WAYS)
TEXT_SETS = {  # the files for train, valid and test, their numbers of lines, the pattern of a line, in words
    "synthetic": ("synthetic_{}.txt", (16_000, 2_000, 2_000), r"^\s*\d+(\s+\d+)*\s*$", "a row of integers"),
    "yahoo": ("yahoo.{}.txt", (100_000, 10_000, 10_000), "", "a sentence"),
    "yelp": ("yelp.{}.txt", (100_000, 10_000, 10_000), "\t", "a label, a tab and a text"),
    "ptb": ("ptb.{}.txt", (42_068, 3_370, 3_761), "", "a sentence"),
    "ptb_short": ("ptb_short.{}.txt", (9_520, 805, 854), "", "a sentence"),
}
SHORT = range(4, 14)  # words of the sentences of ptb_short
FILES = {name: [file.format(part) for part in ("train", "valid", "test")] for name, (file, *_) in TEXT_SETS.items()}
FILES["omniglot"] = ["omniglot.pt"]


def prepare_each(names, source, root, generate=False):
    """Prepare every data set of `names`, whatever becomes of the others; raises UserError if any failed."""
    failed = []
    for name in names:
        try:
            prepare(name, source, root, generate)
        except UserError as error:
            if len(names) == 1:
                raise
            print(f"error: {name}: {error}", file=sys.stderr, flush=True)
            failed.append(name)
    if failed:
        raise UserError(f"{len(failed)} of {len(names)} data sets could not be prepared: {', '.join(failed)}")


def prepare(name, source, root, generate=False):
    """Make the data set `root`/`name`_data complete, unless it is; UserError, and no change, where that fails."""
    target = root / f"{name}_data"
    try:
        with FileLock(root / ".lock"), closing(source):
            try:
                return print(f"{name}: already there, {target} ({check(name, target)}); move it away to make it anew")
            except UserError as error:
                lack = error
            with scratch_folder(root) as scratch:
                fresh = scratch / target.name
                fresh.mkdir()
                done = make(name, source, fresh, generate)
                with suppress(FileNotFoundError):
                    aside = target.rename(f"{target}.{time.strftime('%Y%m%d-%H%M%S')}.old")
                    print(f"{name}: {target} was not complete ({lack}); what was there is now {aside}")
                fresh.rename(target)
            print(f"{name}: ready, {target} ({done})", flush=True)
    except (CannotWrite, Broken):
        raise
    except UserError as error:
        ways = [" and ".join(f"{UPSTREAM[file][0]} as {file}" for file in way) for way in WAYS[name] if way]
        command = f"python prepare_data.py --dataset {name} --mirror DIR"
        raise UserError(f"{error}. By hand: save {', or '.join(ways)} into a folder DIR and run: {command}") from error
    except OSError as error:
        raise UserError(f"cannot prepare {os_complaint(error, error.filename or target)}") from error


def make(name, source, folder, generate):
    """Make the data set in the empty `folder`, in the first of its ways that works; returns sizes and way as text."""
    failures = []
    for way in [[]] if generate and name == "synthetic" else WAYS[name]:
        try:
            fill(name, [source.fetch(file) for file in way], folder)
            made = f"{check(name, folder)}, made from {' and '.join(way) or 'the recipe of the paper'}"
            return "; ".join([made, *failures])
        except (CannotWrite, Broken):  # another way would be as large; this one goes on
            raise
        except UserError as error:
            failures.append(str(error))
    raise UserError("; ".join(failures))


def fill(name, paths, folder):
    """Make the data set in `folder` from one kind of files, all of `paths`, or generate it if there are none."""
    files, kind = [folder / file for file in FILES[name]], paths[0].suffix if paths else "none"
    if kind == ".gz":
        unpack(paths[0], FILES[name], folder)
    elif kind == ".txt":
        copy = copy_short if name == "ptb_short" else shutil.copyfile
        for path, file in zip(paths, files):
            with replacing(file) as temporary:
                copy(path, temporary)
    elif name == "omniglot":
        omniglot.save_tensors(omniglot.from_mat(*paths) if kind == ".mat" else omniglot.from_images(paths), files[0])
    else:
        synthetic.write_splits(files, TEXT_SETS[name][1])
    if name == "synthetic":
        synthetic.hold_out_validation(*files)


def copy_short(source, target):
    """Copy the lines with as many words as `SHORT` has."""
    lines = source.read_bytes().splitlines(keepends=True)
    target.write_bytes(b"".join(line for line in lines if len(line.split()) in SHORT))


def check(name, folder):
    """The sizes of the data set in `folder`, as text. Raises UserError, naming the file, if it is not complete."""
    if name == "omniglot":
        return " / ".join(f"{len(images):,}" for images in omniglot.load_tensors(folder / "omniglot.pt")) + " images"
    _, expected, *line = TEXT_SETS[name]
    splits = [read_text(folder / file, *line) for file in FILES[name]]
    if splits[1] == splits[2]:
        raise UserError(f"{FILES[name][1]} and {FILES[name][2]} are the same; fetch the data set again")
    sizes, expected = (" / ".join(f"{number:,}" for number in n) for n in (map(len, splits), expected))
    return f"{sizes} lines" + (f", expected: {expected}" if sizes != expected else "")


def read_text(path, pattern, line_is):
    """The lines of a text file. Raises UserError, naming it, unless `pattern` is in each; `line_is`, in words."""
    try:
        refuse_page(path)
        lines = path.read_bytes().decode().removesuffix("\n").split("\n")
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError) as error:
        raise UserError(f"{path.name} is missing or not UTF-8 text") from error
    bad = next((i for i, line in enumerate(lines, 1) if not re.search(pattern, line)), None)
    if bad or not any(map(str.strip, lines)):
        raise UserError(f"{path.name}, line {bad or 1}: not {line_is}; fetch it again")
    return lines
