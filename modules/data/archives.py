"""Reading archives that may be broken, hostile or no archives at all."""

import gzip
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import PurePosixPath

from modules.command import UserError
from modules.data.download import BoundedFile

# What the libraries raise on damaged input (RuntimeError: an encrypted zip member, ValueError: senseless fields).
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError, ValueError)


@contextmanager
def naming_damage(archive):
    """Turn what the libraries raise on a damaged or hostile `archive` in the block into a UserError that names it."""
    try:
        yield
    except DAMAGE as error:
        raise UserError(f"{archive}: damaged, cut short or not to be trusted ({error}); fetch it again") from error


def unpack(archive, wanted, folder):
    """Take the files named `wanted` out of a tar or tar.gz, whatever folder they lie in there, into `folder`.

    Returns the path of the first; nothing else is written. Raises UserError, naming the archive, for one that is
    damaged, too large, holds a link, a device or a name that leads out of the folder, or lacks the first file.
    """
    with open(archive, "rb") as stream:
        opener = gzip.open if stream.read(2) == b"\x1f\x8b" else open
    with naming_damage(archive), tempfile.NamedTemporaryFile(dir=folder) as plain:
        with opener(archive, "rb") as packed, BoundedFile(plain.name, archive) as out:
            shutil.copyfileobj(packed, out)     # to its end, where gzip's checksum is
        tar = tarfile.open(fileobj=plain, mode="r|")
        for member in tar:
            if member.name.startswith("/") or not (member.isfile() or member.isdir()) or member.issparse():
                raise UserError(f"{archive}: {member.name!r} is a link, a device or an absolute name, which no data "
                                f"set has; get it from a place you trust")
            tarfile.data_filter(member, folder)     # raises for a name that leads out of the folder
            name = PurePosixPath(member.name).name
            if name in wanted and member.isfile():
                with open(folder / name, "wb") as out:
                    shutil.copyfileobj(tar.extractfile(member), out)
    if not (folder / wanted[0]).is_file():
        raise UserError(f"{archive.name} holds no {wanted[0]}; fetch it again")
    return folder / wanted[0]
