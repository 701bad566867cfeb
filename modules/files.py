"""Writing files so that a reader never meets half of one, and what reading a damaged one may raise."""

import os
import shutil
import tempfile
import tokenize
import zlib
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from modules.command import UserError, os_complaint

# What `numpy.load` and the arrays of its `.npz` raise where a file is none, or damaged.
BAD_FILE = (
    *(OSError, ValueError, TypeError, AttributeError, KeyError, EOFError, RuntimeError),
    *(BadZipFile, zlib.error, SyntaxError, tokenize.TokenError),  # the last two from an array's header
)


class CannotWrite(UserError):
    """The file system refuses; nothing but room or permission there mends it."""


@contextmanager
def replacing(path):
    """Yield a temporary path beside `path`; when the block ends well, the file there takes the name `path`.

    On any failure the temporary file is removed and whatever stood at `path` before is untouched.
    Raises CannotWrite, naming the file, if the file system refuses (no space, no permission).
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise CannotWrite(f"cannot write {os_complaint(error, path)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_bytes(path, content):
    """Write bytes made in memory, as `replacing` does: writers of libraries have no clear words for a full disk."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_npz(path, **arrays):
    """Write numpy arrays by their names as an `.npz`, as `replacing` does."""
    with replacing(path) as temporary, open(temporary, "wb") as stream:  # of a name, numpy would make another
        np.savez(stream, **arrays)


@contextmanager
def scratch_folder(root):
    """Yield a new folder in `root` that is gone afterwards, as are those that killed processes have left there; no
    other process may be at one now."""
    for left in root.glob(".preparing.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".preparing.", suffix=".tmp") as folder:
        yield Path(folder)


def clear_leftovers(path):
    """Remove what processes that were killed while `replacing` this path have left; no other may be at it now."""
    for temporary in Path(path).parent.glob(f"{escape(Path(path).name)}.*.tmp"):
        temporary.unlink(missing_ok=True)
