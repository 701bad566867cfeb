"""Making a data set complete in `datasets/`: fetch, unpack, check, put in place."""

import fcntl
import itertools
import os
import re
import shutil
import sys
import tempfile
from collections import namedtuple
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from modules.command import UserError, os_complaint
from modules.data import omniglot, synthetic
from modules.data.archives import unpack
from modules.data.download import UPSTREAM, refuse_page

NAMES = ("synthetic", "yahoo", "yelp", "omniglot", "ptb")
ANY, LABELLED = ("", "a sentence"), ("\t", "a label, a tab and a text")     # what a line is: its pattern, in words
INTEGERS = (r"^\s*\d+(\s+\d+)*\s*$", "a row of integers")
# Files (train, validation, test), their published numbers of lines, what is fetched (an archive with them, or they).
TextSet = namedtuple("TextSet", "files published fetched line")
TEXT_SETS = {
    "synthetic": TextSet(("synthetic_train.txt", "synthetic_valid.txt", "synthetic_test.txt"),
                         (16_000, 2_000, 2_000), ("synthetic_data.tar.gz",), INTEGERS),
    "yahoo": TextSet(("yahoo.train.txt", "yahoo.valid.txt", "yahoo.test.txt"),
                     (100_000, 10_000, 10_000), ("yahoo_data.tar.gz",), ANY),
    "yelp": TextSet(("yelp.train.txt", "yelp.valid.txt", "yelp.test.txt"),
                    (100_000, 10_000, 10_000), ("yelp_data.tar.gz",), LABELLED),
    "ptb": TextSet(("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"),
                   (42_068, 3_370, 3_761), ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"), ANY),
}
OMNIGLOT_WAYS = {   # in the order in which they are tried: what is fetched -> function(its paths, a scratch folder)
    ("omniglot_data.tar.gz",): lambda paths, scratch: omniglot.load_tensors(unpack(paths[0], ["omniglot.pt"], scratch)),
    ("chardata.mat",): lambda paths, scratch: omniglot.from_mat(paths[0]),
    ("images_background.zip", "images_evaluation.zip"): lambda paths, scratch: omniglot.from_images(paths),
}


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
        raise UserError(f"{len(failed)} of {len(names)} data sets could not be prepared: {', '.join(failed)}; "
                        f"see the lines above")


def prepare(name, source, root, generate=False):
    """Make the data set `root`/`name`_data complete, with files from `source`, unless it is.

    Raises UserError with what the user can do; then nothing is changed, except that a broken download may be kept.
    """
    target = root / f"{name}_data"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            lock(root, stack)
            try:
                hint = "; move it away to generate it anew" if generate and name == "synthetic" else ""
                return print(f"{name}: already there, {target} ({summary(name, target)}){hint}", flush=True)
            except UserError as error:
                if target.exists():
                    print(f"{name}: {target} is not complete ({error}); preparing it anew", flush=True)
            scratch = stack.enter_context(tempfile.TemporaryDirectory(dir=root, prefix=".preparing.", suffix=".tmp"))
            fresh = Path(scratch, target.name)
            fresh.mkdir()
            {"omniglot": fill_omniglot, "synthetic": fill_synthetic}.get(name, fill_text)(name, source, fresh, generate)
            done, aside = summary(name, fresh), install(fresh, target)
            now = f"; what was there is now {aside}" if aside else ""
            print(f"{name}: ready, {target} ({done}){now}", flush=True)
    except UserError as error:
        raise UserError(f"{error}. By hand: {by_hand(name)}") from error
    except OSError as error:
        raise UserError(f"cannot prepare {os_complaint(error, error.filename or target)}") from error


def lock(folder, stack):
    """Wait until no other command prepares data in `folder`, and keep others waiting until `stack` is closed."""
    descriptor = os.open(folder, os.O_RDONLY)
    stack.callback(os.close, descriptor)
    with suppress(OSError):     # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def by_hand(name):
    """What the user can do where the network or the upstream server is of no help."""
    ways = OMNIGLOT_WAYS if name == "omniglot" else [TEXT_SETS[name].fetched]
    wanted = ", or ".join(" and ".join(f"{UPSTREAM[file][0]} as {file}" for file in files) for files in ways)
    return f"save {wanted} into a folder DIR and run: python prepare_data.py --dataset {name} --mirror DIR"


def install(fresh, target):
    """Rename the folder `fresh` to `target`; what stood there is set aside, to the path returned (None: nothing)."""
    aside = None
    if os.path.lexists(target):
        names = (target.with_name(f"{target.name}.old{number}") for number in itertools.chain([""], itertools.count(2)))
        aside = next(name for name in names if not os.path.lexists(name))
        os.rename(target, aside)
    os.rename(fresh, target)
    return aside


def summary(name, folder):
    """Check the data set in `folder`; returns its sizes as text. Raises UserError, naming the file, for a bad one."""
    if name == "omniglot":
        return f"{sizes(map(len, omniglot.load_tensors(folder / 'omniglot.pt')))} images"
    files, published, _, line = TEXT_SETS[name]
    train, valid, test = (read_text(folder / file, *line) for file in files)
    if valid == test:
        raise UserError(f"{files[1]} and {files[2]} are the same; fetch the data set again")
    counts = len(train), len(valid), len(test)
    return f"{sizes(counts)} lines" + (f", published: {sizes(published)}" if counts != published else "")


def sizes(numbers):
    """Sizes of train, validation and test as text."""
    return " / ".join(f"{number:,}" for number in numbers)


def read_text(path, pattern, line_is):
    """The lines of a text file. Raises UserError, naming it, unless `pattern` is in each; `line_is`, in words."""
    if not path.is_file():
        raise UserError(f"{path.name} is missing")
    refuse_page(path)
    try:
        lines = path.read_bytes().decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is not UTF-8 text; fetch it again") from error
    if not any(map(str.strip, lines)):
        raise UserError(f"{path.name} is empty; fetch it again")
    for number, line in enumerate(lines, start=1):
        if not re.search(pattern, line):
            raise UserError(f"{path.name}, line {number}: not {line_is}; fetch it again")
    return lines


def fill_text(name, source, fresh, _):
    """Put the files of a text data set into the empty folder `fresh`, as they come or out of an archive."""
    for file in TEXT_SETS[name].fetched:
        with source.file(file) as path:
            if file in TEXT_SETS[name].files:
                shutil.copyfile(path, fresh / file)
            else:
                unpack(path, TEXT_SETS[name].files, fresh)


def fill_synthetic(name, source, fresh, generate):
    """Fetch the synthetic set, or generate it, on request or where it cannot be had."""
    paths = [fresh / file for file in TEXT_SETS[name].files]
    if not generate:
        try:
            fill_text(name, source, fresh, generate)
            synthetic.hold_out_validation(*paths)
            return summary(name, fresh)
        except UserError as error:
            print(f"synthetic: {error}", flush=True)
    print("synthetic: generating it by the paper's recipe", flush=True)
    for path, words in zip(paths, np.split(synthetic.generate(), np.cumsum(TEXT_SETS[name].published[:2]))):
        synthetic.write(path, words)


def fill_omniglot(name, source, fresh, _):
    """Make omniglot.pt from the first of OMNIGLOT_WAYS whose files can be had; says which it was."""
    for files, make in OMNIGLOT_WAYS.items():
        try:
            with ExitStack() as stack:
                splits = make([stack.enter_context(source.file(file)) for file in files], fresh.parent)
        except UserError as error:
            print(f"omniglot: {error}", flush=True)
        else:
            print(f"omniglot: made from {' and '.join(files)}", flush=True)
            return omniglot.save_tensors(splits, fresh / "omniglot.pt")
    raise UserError("none of the files that it can be made from can be had")
