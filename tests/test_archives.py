"""Archives that are fine, damaged, hostile or no archives."""

import gzip
import io
import os
import tarfile

import pytest

from modules.command import UserError
from modules.data import download
from modules.data.archives import unpack

TEXT = b"some words\n" * 1000


def make_tar(path, members, mode="w:gz"):
    """Write a tar of `members`, (name, content or TarInfo type, link target)."""
    with tarfile.open(path, mode) as tar:
        for name, content, *target in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes) and len(content) != 1:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:  # a type is one byte
                info.type, info.linkname = content, target[0] if target else ""
                tar.addfile(info)
    return path


@pytest.fixture
def folder(tmp_path):
    """An empty folder to unpack into, itself within an empty one."""
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    return inner


def refused(archive, folder, message):
    """The archive is refused in one line that names it, and nothing is written outside `folder`."""
    with pytest.raises(UserError, match=message) as error:
        unpack(archive, ["a.txt"], folder)
    assert archive.name in str(error.value) and "\n" not in str(error.value)
    assert list(folder.parent.iterdir()) == [folder]


def test_what_is_wanted_is_taken_from_any_folder(tmp_path, folder):
    members = [
        ("data", tarfile.DIRTYPE),
        ("data/._a.txt", b"no"),
        ("./data/a.txt", TEXT),
        ("b.txt", b"two"),
        ("data/setuid", b"no"),
    ]
    unpack(make_tar(tmp_path / "x.bin", members), ["a.txt", "b.txt", "c.txt"], folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a.txt": TEXT, "b.txt": b"two"}


@pytest.mark.parametrize("name", ["../a.txt", "data/../../a.txt", "/tmp/a.txt", "//host/a.txt", "../\x1b[2Ja.txt\n"])
def test_names_that_lead_out_of_the_folder(tmp_path, folder, name):
    refused(make_tar(tmp_path / "x.tar.gz", [("a.txt", TEXT), (name, b"evil")]), folder, "don't trust it|be trusted")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "b.txt"])
def test_links_and_devices(tmp_path, folder, kind, target):
    archive = make_tar(tmp_path / "x.tar.gz", [("b.txt", TEXT), ("data/a.txt", kind, target), ("data/a.txt", b"evil")])
    refused(archive, folder, "'data/a.txt' is a link, a device or an absolute name")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("behind", [False, True])
def test_bombs(tmp_path, folder, monkeypatch, behind):
    monkeypatch.setattr(download, "SIZE_LIMIT", 10**6)
    make_tar(tmp_path / "x.tar", [("a.txt", TEXT), ("b.txt", b"" if behind else bytes(10**6))], "w")
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(gzip.compress((tmp_path / "x.tar").read_bytes() + bytes(10**6 if behind else 0)))
    refused(archive, folder, "more than 1,000,000 bytes")
    assert list(folder.iterdir()) == []


def test_a_sparse_file_that_claims_to_be_huge(tmp_path, folder):
    archive = make_tar(tmp_path / "x.tar.gz", [("a.txt", tarfile.GNUTYPE_SPARSE)])
    refused(archive, folder, "don't trust it|damaged")


@pytest.mark.parametrize("keep", [0.05, 0.5, 0.95, 0.9999])
def test_truncated_archives(tmp_path, folder, keep):
    archive = make_tar(tmp_path / "x.tar.gz", [("a.txt", os.urandom(50_000)), ("b.txt", os.urandom(50_000))])
    os.truncate(archive, int(archive.stat().st_size * keep))
    refused(archive, folder, "damaged, cut short")


def test_flipped_bits(tmp_path, folder):
    archive = make_tar(tmp_path / "x.tar.gz", [("a.txt", os.urandom(50_000))])
    content = bytearray(archive.read_bytes())
    content[30_000] ^= 0x55
    archive.write_bytes(content)
    refused(archive, folder, "damaged, cut short")


@pytest.mark.parametrize(
    "content", [b"", b"just text " * 100, gzip.compress(TEXT, mtime=0), b"PK but no zip", b"\x1f\x8b"]
)
def test_things_that_are_no_archives(tmp_path, folder, content):
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(content)
    refused(archive, folder, "damaged, cut short")
