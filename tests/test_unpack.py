"""Archives that are fine, damaged, hostile or no archives."""

import gzip
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from modules.data import unpack as unpacking
from modules.data.unpack import install, scratch_folder, unpack
from modules.command import UserError

TEXT = b"some words\n" * 1000


def make_tar(path, members, mode="w:gz"):
    """Write a tar of `members`, (name, content or TarInfo type, link target)."""
    with tarfile.open(path, mode) as tar:
        for name, content, *target in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes) and len(content) != 1:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:   # a type is one byte
                info.type, info.linkname = content, target[0] if target else ""
                tar.addfile(info)
    return path


def make_zip(path, members):
    """Write a zip of `members`, (name, content, Unix mode)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content, *mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = (mode[0] if mode else 0o100644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            opened.writestr(info, content)
    return path


@pytest.fixture
def folder(tmp_path):
    """An empty folder to unpack into, itself within an empty one."""
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    return inner


def refused(archive, folder, message, **limits):
    """Check that the archive is refused with a message that names it, and that nothing was written outside."""
    with pytest.raises(UserError, match=message) as error:
        unpack(archive, folder, **limits)
    assert str(archive) in str(error.value)
    assert "\n" not in str(error.value)
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("suffix, mode", [("tar.gz", "w:gz"), ("tar", "w"), ("zip", None)])
def test_good_archives(tmp_path, folder, suffix, mode):
    members = [("data/one.txt", TEXT), ("./data/sub/two.txt", b"two"), ("data/.hidden", b"")]
    archive = tmp_path / f"wrongly.named.{suffix}.bin"
    make_tar(archive, members, mode) if mode else make_zip(archive, members)
    unpack(archive, folder)
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {"data/one.txt": TEXT, "data/sub/two.txt": b"two", "data/.hidden": b""}


def test_folders_are_members_too(tmp_path, folder):
    unpack(make_tar(tmp_path / "a", [("data", tarfile.DIRTYPE), ("data/one.txt", TEXT)]), folder)
    unpack(make_zip(tmp_path / "b", [("more/", b"", 0o40755), ("more/two.txt", TEXT, 0)]), folder)
    assert (folder / "data/one.txt").read_bytes() == (folder / "more/two.txt").read_bytes() == TEXT


def test_modes_are_not_restored(tmp_path, folder):
    unpack(make_zip(tmp_path / "a.zip", [("run.sh", TEXT, 0o104777)]), folder)
    assert not (folder / "run.sh").stat().st_mode & (stat.S_ISUID | stat.S_IXUSR)


OUTSIDE = ["../evil", "data/../../evil", "/tmp/evil", "C:/evil", "C:evil", "..\\evil", "\\evil", "data\\..\\..\\evil",
           "//host/evil"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_tar_members_that_leave_the_folder(tmp_path, folder, name):
    archive = make_tar(tmp_path / "a.tar.gz", [("data/fine", TEXT), (name, b"evil")])
    refused(archive, folder, "leaves the folder|absolute name")


@pytest.mark.parametrize("name", OUTSIDE)
def test_zip_members_that_leave_the_folder(tmp_path, folder, name):
    archive = make_zip(tmp_path / "a.zip", [("data/fine", TEXT), (name, b"evil")])
    refused(archive, folder, "leaves the folder|absolute name")
    assert list(folder.iterdir()) == []     # a zip is looked through before anything is written


def test_a_folder_that_leaves_the_folder(tmp_path, folder):
    refused(make_tar(tmp_path / "a.tar.gz", [("../evil", tarfile.DIRTYPE)]), folder, "leaves the folder")


@pytest.mark.parametrize("kind", [
    tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_tar_links_and_devices(tmp_path, folder, kind):
    archive = make_tar(tmp_path / "a.tar.gz", [("data/odd", kind, "/etc/passwd"), ("data/odd/x", b"evil")])
    refused(archive, folder, "'data/odd' is a link or a device")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_zip_links_and_devices(tmp_path, folder, mode):
    archive = make_zip(tmp_path / "a.zip", [("data/odd", b"/etc/passwd", mode | 0o777)])
    refused(archive, folder, "'data/odd' is a link or a device")


def test_control_characters_in_a_name_are_not_printed(tmp_path, folder):
    refused(make_tar(tmp_path / "a.tar.gz", [("../\x1b[2Jevil\n", b"evil")]), folder, r"x1b\[2Jevil")


@pytest.mark.parametrize("make", [make_tar, make_zip])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_in_each_others_way(tmp_path, folder, make):
    refused(make(tmp_path / "twice", [("data/a", TEXT), ("data/a", b"other")]), folder, "'data/a' is in the way")
    refused(make(tmp_path / "below", [("data/b", TEXT), ("data/b/c", b"other")]), folder, "'data/b/c' is in the way")
    refused(make(tmp_path / "deep", [("data/d", TEXT), ("data/d/e/f", b"other")]), folder, "'data/d/e/f' is in")


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_bombs(tmp_path, folder, make):
    archive = make(tmp_path / "bomb", [("data/small", TEXT), ("data/large", bytes(10**6))])
    assert archive.stat().st_size < 20_000
    refused(archive, folder, "unpacks to more than", limit=10**6)
    assert not (folder / "data/large").exists()
    unpack(archive, folder / "again", limit=10**6 + len(TEXT) + 10**5)


def test_a_bomb_behind_the_end_of_a_tar(tmp_path, folder):
    make_tar(tmp_path / "a.tar", [("data/one", TEXT)], "w")
    archive = tmp_path / "bomb.tar.gz"
    archive.write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes() + bytes(10**7)))
    refused(archive, folder, "unpacks to more than", limit=10**6)


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_too_many_members(tmp_path, folder, make, monkeypatch):
    monkeypatch.setattr(unpacking, "MEMBER_LIMIT", 3)
    unpack(make(tmp_path / "three", [(f"a/{number}", b"") for number in range(3)]), folder)
    refused(make(tmp_path / "four", [(f"b/{number}", b"") for number in range(4)]), folder, "or 3 files")


def incompressible(count):
    """Bytes that no archive makes smaller, so that a cut hits their middle."""
    return os.urandom(count)


@pytest.mark.parametrize("keep", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("mode", ["w:gz", "w", "zip"])
def test_truncated_archives(tmp_path, folder, mode, keep):
    archive = tmp_path / "cut"
    members = [("data/one", incompressible(50_000)), ("data/two", incompressible(50_000))]
    make_zip(archive, members) if mode == "zip" else make_tar(archive, members, mode)
    os.truncate(archive, int(archive.stat().st_size * keep))
    refused(archive, folder, "damaged or cut short")


def test_a_gzip_that_lacks_only_its_last_bytes(tmp_path, folder):
    archive = make_tar(tmp_path / "a.tar.gz", [("data/one", TEXT)])
    os.truncate(archive, archive.stat().st_size - 4)
    refused(archive, folder, "damaged or cut short")


@pytest.mark.parametrize("make, where", [(make_tar, 30_000), (make_zip, 30_000)])
def test_flipped_bits(tmp_path, folder, make, where):
    archive = make(tmp_path / "flipped", [("data/one", incompressible(50_000))])
    content = bytearray(archive.read_bytes())
    content[where] ^= 0x55
    archive.write_bytes(content)
    refused(archive, folder, "damaged or cut short")


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html></html>", b"\xef\xbb\xbf\n  <HTML>", b"<?xml version='1'?>"])
def test_a_web_page_is_named_as_such(tmp_path, folder, page):
    archive = tmp_path / "yahoo_data.tar.gz"
    archive.write_bytes(page)
    refused(archive, folder, "a web page, not an archive")


@pytest.mark.parametrize("content, message", [(b"", "empty"), (b"just text " * 100, "neither a tar.gz nor a zip"),
                                              (gzip.compress(TEXT), "damaged"), (b"PK but no zip", "damaged")])
def test_other_things_that_are_no_archives(tmp_path, folder, content, message):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(content)
    refused(archive, folder, message)


def test_an_encrypted_zip(tmp_path, folder):
    archive = make_zip(tmp_path / "a.zip", [("data/one", TEXT)])
    content = bytearray(archive.read_bytes())
    for header, flags in (b"PK\x03\x04", 6), (b"PK\x01\x02", 8):
        content[content.index(header) + flags] |= 1
    archive.write_bytes(content)
    refused(archive, folder, "damaged or cut short .*encrypted")


def test_a_disk_that_refuses_is_named(tmp_path):
    archive = make_tar(tmp_path / "a.tar.gz", [("data/one", TEXT), ("data/" + "x" * 300, TEXT)])
    with pytest.raises(UserError, match="cannot unpack .*a.tar.gz"):
        unpack(archive, tmp_path)


# ---------------------------------------------------------------- folders


def test_scratch_folder_is_removed_whatever_happens(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with scratch_folder(tmp_path / "datasets") as scratch:
            (scratch / "half").mkdir()
            raise KeyboardInterrupt
    assert list((tmp_path / "datasets").iterdir()) == []


def test_install_takes_the_name(tmp_path):
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "file").write_text("new")
    (tmp_path / "target").mkdir()   # an empty folder is no loss
    assert install(tmp_path / "fresh", tmp_path / "target") is None
    assert (tmp_path / "target" / "file").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["target"]


def test_install_sets_aside_what_was_there(tmp_path):
    for number, aside in enumerate([None, "target.old", "target.old2"]):
        (tmp_path / "fresh").mkdir()
        (tmp_path / "fresh" / "file").write_text(str(number))
        assert install(tmp_path / "fresh", tmp_path / "target") == (aside and tmp_path / aside)
    kept = [Path(tmp_path / name / "file").read_text() for name in ("target.old", "target.old2", "target")]
    assert kept == ["0", "1", "2"]
