"""Unpacking archives that may be broken, hostile or not archives at all.

A member that would leave the folder (`..`, an absolute name, a link) or that is no plain file condemns the whole
archive. Nothing here restores owners, permissions or times.
"""

import gzip
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from modules.command import UserError

SIZE_LIMIT = 4 * 2**30      # bytes an archive may unpack to; the largest set has a tenth of that
MEMBER_LIMIT = 200_000      # entries in one archive; the largest has 20,000
CHUNK = 2**20               # bytes copied at once

# What tarfile, zipfile, gzip and zlib raise on damaged input. (RuntimeError: an encrypted zip member,
# NotImplementedError: an unknown compression, ValueError: fields that make no sense.)
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError,
          NotImplementedError, ValueError)


def unpack(archive, folder, limit=SIZE_LIMIT):
    """Unpack a tar, tar.gz or zip `archive`, known by its content, into the existing folder `folder`.

    Raises UserError, naming the archive, if it is damaged, cut short, no archive, larger than `limit` bytes unpacked
    or holds a member that is not to be trusted. `folder` may then hold a part of it: give it a scratch folder.
    """
    archive, folder = Path(archive), Path(folder)
    members = {"zip": zip_members, "tar": tar_members, "tar.gz": tar_members}[archive_kind(archive)]
    with naming_damage(archive):
        for name, stream in members(archive, limit):
            write_member(archive, folder, name, stream)


@contextmanager
def naming_damage(archive):
    """Turn whatever the libraries raise on a damaged `archive` within the block into a UserError that names it."""
    try:
        yield
    except DAMAGE as error:
        raise UserError(f"{archive}: damaged or cut short ({error}); fetch it again") from error
    except OSError as error:
        raise UserError(f"cannot unpack {archive}: {error.strerror or error}; make room or check the place") from error


def archive_kind(archive):
    """Return "zip", "tar.gz" or "tar" by the first bytes. Raises UserError for anything else, a web page by name."""
    with open(archive, "rb") as stream:
        head = stream.read(512)
    if not head:
        raise UserError(f"{archive}: empty; fetch it again")
    if looks_like_page(head):
        raise UserError(f"{archive}: a web page, not an archive; open its address in a browser and fetch it by hand")
    if head.startswith(b"PK"):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "tar.gz"
    if head[257:262] == b"ustar":
        return "tar"
    raise UserError(f"{archive}: neither a tar.gz nor a zip archive; fetch it again")


def looks_like_page(head):
    """True if the bytes `head`, the beginning of a file, are those of an HTML page."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml"))


def tar_members(archive, limit):
    """Yield (name, stream) of each file in a tar or tar.gz; each stream is to be read before the next is asked for."""
    opener = gzip.open if archive_kind(archive) == "tar.gz" else open
    left = limit
    with opener(archive, "rb") as stream:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for count, member in enumerate(tar):
                refuse_unsafe_name(archive, member.name)
                if not (member.isreg() or member.isdir()):
                    raise untrusted(archive, member.name, "is a link or a device")
                left -= member.size
                refuse_bomb(archive, left, count, limit)
                if member.isreg():
                    yield member.name, tar.extractfile(member)
        # tarfile stops at the end mark; only reading on to the very end makes gzip compare its checksum
        while trailing := stream.read(CHUNK):
            left -= len(trailing)
            refuse_bomb(archive, left, 0, limit)


def zip_members(archive, limit):
    """Yield (name, stream) of each file in a zip."""
    with zipfile.ZipFile(archive) as opened:
        for member in trusted_zip_members(archive, opened, limit):
            with opened.open(member) as stream:
                yield member.filename, stream


def trusted_zip_members(archive, opened, limit=SIZE_LIMIT):
    """Return the ZipInfo of every file in the ZipFile `opened`, after all entries have been checked.

    zipfile never yields more bytes of a member than its entry announces, so the announced sizes can be relied on.
    Raises UserError, naming `archive`, for a member that is not to be trusted.
    """
    left = limit
    for count, member in enumerate(opened.infolist()):
        refuse_unsafe_name(archive, member.filename)
        kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where the archive was made without Unix modes
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise untrusted(archive, member.filename, "is a link or a device")
        left -= member.file_size
        refuse_bomb(archive, left, count, limit)
    return [member for member in opened.infolist() if not member.is_dir()]


def refuse_unsafe_name(archive, name):
    """Raise UserError unless `name` stays below the folder it is unpacked into, on any operating system."""
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    if posix.is_absolute() or windows.drive or windows.root:
        raise untrusted(archive, name, "has an absolute name")
    if ".." in windows.parts or "\\" in name or "\0" in name:
        raise untrusted(archive, name, "leaves the folder")


def refuse_bomb(archive, left, count, limit):
    """Raise UserError if fewer than 0 of `limit` bytes are `left`, or if member number `count` is one too many."""
    if left < 0 or count >= MEMBER_LIMIT:
        raise UserError(f"{archive}: unpacks to more than {limit / 2**30:.3g} GiB or {MEMBER_LIMIT:,} files, "
                        f"which no data set does; fetch it from a place you trust")


def untrusted(archive, name, what):
    """The error for a hostile member; its name is quoted, for it may hold control characters."""
    return UserError(f"{archive}: the member {name!r} {what}, so the archive is refused; "
                     f"fetch it from a place you trust")


def write_member(archive, folder, name, stream):
    """Write `stream` to the new file `folder`/`name`."""
    path = folder / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as out:
            shutil.copyfileobj(stream, out, CHUNK)
    except (FileExistsError, NotADirectoryError):
        raise untrusted(archive, name, "is in the way of another") from None


@contextmanager
def scratch_folder(parent):
    """Yield an empty folder within `parent` (made if need be) that is removed with all in it when the block ends."""
    parent = Path(parent)
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".preparing.", suffix=".tmp") as folder:
        yield Path(folder)


def install(folder, target):
    """Rename the complete `folder` to `target`, in one step.

    Whatever stood at `target` is not deleted but set aside; returns the path it was set aside to, or None.
    """
    aside = None
    if os.path.lexists(target) and not is_empty_folder(target):
        aside = unused_name(target)
        os.rename(target, aside)
    os.replace(folder, target)
    return aside


def is_empty_folder(path):
    """True for an existing folder with nothing in it."""
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def unused_name(target):
    """The first free one of target.old, target.old2, target.old3, ..."""
    number = 1
    while True:
        aside = target.with_name(f"{target.name}.old{number if number > 1 else ''}")
        if not os.path.lexists(aside):
            return aside
        number += 1
