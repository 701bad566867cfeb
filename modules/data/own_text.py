"""Texts of one's own, one tokenised sentence a line: split if they come in one file, with sizes that fit them."""

import math

from modules.command import UserError, note
from modules.data import own
from modules.data.corpus import SPECIAL, text_lines, words_of

PARTS = {"train": "train_data", "valid": "val_data", "test": "test_data"}  # in a file's name: in the config
# Training words, at most, and the config with sizes for so many. The sets of these configs have 160,000, 890,000 and
# 7.9 million; between two of them lies their geometric mean, rounded.
SIZES = ((400_000, "synthetic"), (2_500_000, "ptb"), (math.inf, "yahoo"))
NZ = 32  # as in every config of natural text: dimensions that a text has no use for stay inactive


def prepare_text(files, name, label=False, vocab_limit=None, deduplicate=False, overwrite=False):
    """Make a data set and a config called `name` of one text file, which is split, or of three.

    With `label` a line is `label<TAB>text`. Raises UserError, naming file and line, for files that are missing, empty,
    not UTF-8 or too short, and for a name that is taken.
    """
    own.refuse_inside(name, files)
    own.refuse_taken(name, overwrite)
    splits = [read_sentences(path, label) for path in files]
    if len(files) == 1:
        splits = split_sentences(files[0], *splits, deduplicate)
    elif splits[1] == splits[2]:
        raise UserError(f"{files[1]} and {files[2]} hold the same sentences; give one for validation, another for test")

    def write(folder):
        for part, lines in zip(PARTS, splits):
            (folder / f"{name}.{part}.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8", newline="\n")

    words = [word for line in splits[0] for word in words_of(line.partition("\t")[2] if label else line)]
    special = set(SPECIAL)
    vocabulary = min(len(special.union(words)), len(special) + (vocab_limit or len(words)))
    model = own.smallest_that_fits(SIZES, len(words))
    params = {
        **own.published_params(model),
        "nz": NZ,
        **{key: f"{own.place(name).as_posix()}/{name}.{part}.txt" for part, key in PARTS.items()},
        **({"label": True} if label else {}),
        **({"vocab_limit": vocab_limit} if vocab_limit else {}),
    }
    sentences = " / ".join(f"{len(lines):,}" for lines in splits)
    about = f"{sentences} sentences, {len(words):,} training words, {vocabulary:,} in the vocabulary"
    own.install(name, about, f"those of config_{model}.py, nz {NZ}", params, write, overwrite)


def read_sentences(path, label):
    """The lines of a file that hold a sentence, without their ends."""
    kept = []
    for number, line in enumerate(text_lines(path, advice=""), start=1):
        if label and not line.isspace() and "\t" not in line:
            raise UserError(f"{path}, line {number}: no tab between label and text; mend it, or leave --label out")
        if words_of(line.partition("\t")[2] if label else line):
            kept.append(line.rstrip("\r\n"))
    if not kept:
        raise UserError(f"{path}: there is no sentence in it; it needs one tokenised sentence a line")
    return kept


def split_sentences(path, lines, deduplicate):
    """Divide the lines of one file at random, in the order of the file: [train, validation, test]."""
    distinct = list(dict.fromkeys(lines))
    if repeated := len(lines) - len(distinct):
        what = "they are left out" if deduplicate else "some may be in two splits; --deduplicate leaves them out"
        note(f"{path}: {repeated:,} of {len(lines):,} lines repeat an earlier one; {what}")
    lines = distinct if deduplicate else lines
    return [
        [lines[i] for i in part] for part in own.split(len(lines), own.held_out_size(len(lines), path, "sentences"))
    ]
