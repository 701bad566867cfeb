"""Downloads from a server that misbehaves, mirrors and checksums.

Google Drive itself is not reached: `drive` sends what gdown asks it for to the local server. What gdown makes of the
many pages that Drive may show is gdown's own business; the one with a form, and one without, are tried here.
"""

import hashlib
from contextlib import closing

import pytest
import requests

from modules.command import UserError
from modules.data import download as downloads
from modules.data.download import DRIVE, UPSTREAM, Broken, Missing, Source

pytest_plugins = "tests.http_server"  # its fixtures

NAME = "yahoo_data.tar.gz"
CONTENT = bytes(range(256)) * 8000  # 2 MB, several of gdown's chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Try again at once."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.fixture
def folder(tmp_path):
    """The folder that downloads go through."""
    return tmp_path / "downloads"


@pytest.fixture
def drive(server, monkeypatch):
    """The local server in the place of Google Drive, with the data set yahoo; returns a function that serves more."""
    get = requests.Session.get
    monkeypatch.setattr(
        requests.Session,
        "get",
        lambda self, url, **kwargs: get(self, url.replace("https://drive.google.com", server.url), **kwargs),
    )
    monkeypatch.setattr(downloads, "RETRIES", 0)

    def serve(content=CONTENT, address=UPSTREAM[NAME][0].partition(DRIVE)[2], **behaviour):
        return server.add(
            f"/uc?id={address}", content, headers={"Content-Disposition": 'attachment; filename="x"'}, **behaviour
        )

    return serve


def received(source, name=NAME):
    """The content of a file of the source; nothing of the download may be left after that."""
    with closing(source):
        content = source.fetch(name).read_bytes()
    assert not source.downloads.exists()
    return content


def refused(source, message, name=NAME, error=UserError):
    """The file cannot be had, which is said in one line with its name."""
    with pytest.raises(error, match=message) as caught:
        received(source, name)
    assert "\n" not in str(caught.value) and name in str(caught.value)


# ---------------------------------------------------------------- from a server


@pytest.mark.parametrize(
    "behaviour", [{}, {"announces": False}, {"drops": [1000]}, {"drops": [0, 5]}, {"drops": [600_000, 5]}]
)
def test_a_download_is_tried_again(server, folder, behaviour, capsys):
    server.add(f"/m/{NAME}", CONTENT, **behaviour)
    assert received(Source(server.url + "/m/", folder)) == CONTENT
    assert capsys.readouterr().out.endswith(f"{NAME}: downloaded, 2.0 MB\n")


@pytest.mark.parametrize(
    "behaviour, message, asked",
    [
        ({"statuses": [503] * 9}, "127.0.0.1:.* gives HTTPError 503", 1),
        ({"statuses": [401] * 9}, "HTTPError 401", 1),
        ({"drops": [0] * 9}, "ChunkedEncodingError", 3),
        ({"announced": 9_000_000}, "DownloadError", 2),
        ({"redirect": "/" + NAME}, "TooManyRedirects", 31),
    ],
)
def test_a_server_that_stays_out_of_order(server, folder, behaviour, message, asked):
    server.add(f"/{NAME}", CONTENT, **behaviour)
    refused(Source(server.url, folder), message)
    assert len(server.requests) == asked
    assert not folder.exists()


@pytest.mark.parametrize("upstream", [True, False])
def test_a_broken_download_is_gone_on_with(drive, server, folder, monkeypatch, upstream):
    drive(drops=[1_200_000])
    server.add(f"/{NAME}", CONTENT, drops=[1_200_000])
    monkeypatch.setattr(downloads, "RETRIES", 0)
    mirror = None if upstream else server.url
    refused(Source(mirror, folder), "gives ChunkedEncodingError; the same command goes on", error=Broken)
    (part,) = folder.iterdir()
    assert part.name.endswith(".part") and CONTENT.startswith(part.read_bytes()) and part.stat().st_size > 10**6
    start = part.stat().st_size
    assert received(Source(mirror, folder)) == CONTENT
    assert f"bytes={start}-" in server.header("Range")


@pytest.mark.parametrize("honours_range", [True, False])
def test_a_server_that_cannot_go_on(server, folder, honours_range):
    """It sends the whole, or has no more than what is there already; the next command starts anew."""
    folder.mkdir()
    (folder / f"{NAME}abcdefgh.part").write_bytes(CONTENT[:1000])
    content = CONTENT[:1000] if honours_range else CONTENT
    server.add(f"/{NAME}", content, honours_range=honours_range)
    refused(Source(server.url, folder), "gives DownloadError")
    assert received(Source(server.url, folder)) == content


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_final(server, folder, status):
    server.add(f"/{NAME}", statuses=[status])
    refused(Source(server.url, folder), f"HTTPError {status}", error=Missing)
    assert len(server.requests) == 1


def test_an_unreachable_host(folder, deaf_host):
    with pytest.raises(UserError, match=f"cannot download {NAME}: {deaf_host} gives ConnectionError") as error:
        received(Source(f"http://user:secret@{deaf_host}", folder))
    assert "secret" not in str(error.value)


def test_a_server_that_sends_without_end(server, folder, monkeypatch):
    monkeypatch.setattr(downloads, "SIZE_LIMIT", 100_000)
    server.add(f"/{NAME}", CONTENT, announces=False)
    refused(Source(server.url, folder), f"{NAME}: more than 100,000 bytes")
    assert len(server.requests) == 1 and not folder.exists()


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html></html>", b"\xef\xbb\xbf\n  <HTML>", b"<?xml version='1'?>"])
def test_a_web_page_is_named(server, tmp_path, folder, page):
    server.add(f"/{NAME}", page, content_type="text/html")
    refused(Source(server.url, folder), f"{NAME}: a web page, not data")
    (tmp_path / NAME).write_bytes(page)
    refused(Source(str(tmp_path), folder), f"{NAME}: a web page, not data")


# ---------------------------------------------------------------- from Google Drive


def test_drive_asks_whether_to_go_on_without_a_virus_scan(drive, server, folder):
    form = (
        f'<html><form id="download-form" action="{server.url}/uc?id=real"><input type="hidden" name="confirm" '
        f'value="t"></form></html>'
    ).encode()
    drive(address="real&confirm=t")
    server.add("/uc?id=" + UPSTREAM[NAME][0].partition(DRIVE)[2], form, content_type="text/html")
    assert received(Source(None, folder)) == CONTENT


def test_drive_shows_a_page_instead(drive, server, folder):
    server.add("/uc", b"<html>Quota exceeded</html>", content_type="text/html")
    refused(Source(None, folder), "a web page, not the file")


def test_drive_sends_without_end(drive, folder, monkeypatch):
    monkeypatch.setattr(downloads, "SIZE_LIMIT", 100_000)
    drive(announces=False)
    refused(Source(None, folder), f"{NAME}: more than 100,000 bytes")
    assert not folder.exists()


def test_drive_is_asked_without_cookies_of_the_user(folder, monkeypatch):
    def download(url, output, **asked):
        assert asked["resume"] and asked["timeout"] and asked["retries"] and not asked["use_cookies"]
        open(output, "wb").close()

    monkeypatch.setattr(downloads.gdown, "download", download)
    assert received(Source(None, folder)) == b""


# ---------------------------------------------------------------- checksums and mirrors


def test_every_address_is_one_of_the_specification():
    assert UPSTREAM[NAME][0] == "https://drive.google.com/uc?export=download&id=13azGlTuGdzWLCmgDmQPmvb_jcexVWX7i"
    assert UPSTREAM["chardata.mat"] == (
        "https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/chardata.mat",
        "git-blob:016a3536ffe5e1d38e42563a18d7a78bfaf643ec",
    )
    assert all(checksum or url.startswith(DRIVE) for url, checksum in UPSTREAM.values())


def test_git_blob_id(tmp_path, folder, monkeypatch):
    (tmp_path / "hello").write_bytes(b"hello\n")
    source = Source(str(tmp_path), folder)
    source.sums = {"hello": "git-blob:ce013625030ba8dba906f756967f9e9ca394464a"}  # git hash-object
    assert received(source, "hello") == b"hello\n"


@pytest.mark.parametrize(
    "name, message",
    [
        ("ptb.train.txt", "md5 checksum .*, not f26c4b92c5fdc7b3f8c7cdcb991d8420"),
        ("chardata.mat", "git-blob checksum .*, not 016a3536ffe5e1d38e42563a18d7a78bfaf643ec"),
    ],
)
def test_the_published_checksum_is_checked(server, folder, monkeypatch, name, message):
    monkeypatch.setitem(UPSTREAM, name, (server.add(f"/{name}", b"another\n"), UPSTREAM[name][1]))
    refused(Source(None, folder), f"^{name}: {message}", name)


@pytest.mark.parametrize("served", [True, False])
def test_the_sums_of_a_mirror(server, tmp_path, folder, served):
    sums = f"{SHA256}  good\n{SHA256.upper()} *./marked\n\n{'0' * 64}  bad\n"
    for name in "good", "marked", "bad", "unlisted":
        (tmp_path / name).write_bytes(CONTENT)
        server.add(f"/{name}", CONTENT)
    (tmp_path / "SHA256SUMS").write_text(sums)
    server.add("/SHA256SUMS", sums.encode())
    source = Source(server.url if served else str(tmp_path), folder)
    assert received(source, "good") == received(source, "marked") == CONTENT
    assert received(source, "unlisted") == CONTENT
    refused(source, "^bad: sha256 checksum", "bad")
    refused(source, "missing", "missing", error=Missing)
    assert (tmp_path / "bad").exists()  # the mirror's own file stays
    assert [address for address, _ in server.requests].count("/SHA256SUMS") == served


@pytest.mark.parametrize("behaviour", [{"statuses": [500] * 9}, {"content": b"gone\n"}, {"content": b"gone away\n"}])
def test_a_mirror_whose_sums_cannot_be_had_is_not_trusted(server, folder, behaviour):
    server.add(f"/{NAME}", CONTENT)
    server.add("/SHA256SUMS", **behaviour)
    with pytest.raises(UserError, match="SHA256SUMS"):
        received(Source(server.url, folder))


@pytest.mark.parametrize("mirror", ["no/such/folder", "", "ftp://host/data", "http://[", "https://", "://"])
def test_a_mirror_that_is_none(folder, mirror):
    with pytest.raises(UserError) as error:
        Source(mirror, folder)
    assert str(error.value).startswith(f"--mirror {mirror}: ")
