"""Reading archives that may be broken, hostile or no archives at all."""

import gzip
import tarfile
import tempfile
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import PurePosixPath

from modules.command import UserError
from modules.data.download import refuse_endless
from modules.files import write_bytes

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
    """Take the files named `wanted` out of a tar.gz into `folder`; UserError for an archive damaged or hostile."""
    with naming_damage(archive), gzip.open(archive) as packed, tempfile.TemporaryFile(dir=folder) as plain:
        for chunk in iter(lambda: packed.read(2**20), b""):  # to its end, where gzip's checksum is
            refuse_endless(archive, plain.tell() + len(chunk))
            plain.write(chunk)
        plain.seek(0)
        for member in (tar := tarfile.open(fileobj=plain, mode="r|")):
            if member.name.startswith("/") or not (member.isfile() or member.isdir()) or member.issparse():
                raise UserError(f"{archive}: {member.name!r} is a link, a device or an absolute name; don't trust it")
            tarfile.data_filter(member, folder)  # raises for a name that leads out of the folder
            name = PurePosixPath(member.name).name
            if name in wanted and member.isfile():
                write_bytes(folder / name, tar.extractfile(member).read())
