"""Downloads from a server that misbehaves, checksums, confirmation pages and mirrors."""

import hashlib
import json
import sys

import pytest

from modules.data import fetch
from modules.data.fetch import Downloader, FetchError, MirrorFolder, NotFound, Upstream, digest, open_source
from modules.command import UserError

pytest_plugins = "tests.http_server"     # its fixtures

CONTENT = bytes(range(256)) * 40    # 10,240 bytes
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def path(tmp_path):
    """Where the download goes."""
    return tmp_path / "downloads" / "file.bin"


def downloader(attempts=3, **settings):
    """A Downloader that does not wait between attempts."""
    return Downloader(attempts=attempts, pause=0, **settings)


def leave_part(path, content, **note):
    """Leave an unfinished download, as an earlier run would."""
    path.parent.mkdir()
    path.with_name("file.bin.part").write_bytes(content)
    if note:
        path.with_name("file.bin.note.part").write_text(json.dumps(note))


def leftovers(path):
    """Names in the folder of downloads."""
    return sorted(entry.name for entry in path.parent.iterdir())


def test_download_leaves_the_file_and_nothing_else(server, path, capsys):
    url = server.add("/f", CONTENT)
    downloader().download(url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert leftovers(path) == ["file.bin"]
    assert "file.bin: downloaded, 0.0 MB" in capsys.readouterr().out
    assert server.header("Range") == [None]


def test_length_not_announced(server, path):
    downloader().download(server.add("/f", CONTENT, announces=False), path)
    assert path.read_bytes() == CONTENT


def test_a_dropped_connection_is_resumed_where_it_broke(server, path):
    url = server.add("/f", CONTENT, drops=[1000, 500], headers={"ETag": '"v1"'})
    downloader().download(url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert server.header("Range") == [None, "bytes=1000-", "bytes=1500-"]
    assert server.header("If-Range") == [None, '"v1"', '"v1"']


def test_the_next_run_resumes(server, path):
    url = server.add("/f", CONTENT, drops=[4000])
    with pytest.raises(FetchError, match="0.0 MB are kept, the same command goes on from there"):
        downloader(attempts=1).download(url, path)
    assert not path.exists()
    downloader(attempts=1).download(url, path)
    assert path.read_bytes() == CONTENT
    assert server.header("Range") == [None, "bytes=4000-"]


def test_a_part_without_a_note_is_resumed(server, path):
    url = server.add("/f", CONTENT)
    leave_part(path, CONTENT[:77])
    downloader().download(url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert server.header("Range") == ["bytes=77-"]
    assert server.header("If-Range") == [None]


def test_a_part_from_another_address_is_not_used(server, path):
    url = server.add("/f", CONTENT)
    leave_part(path, b"other", url="http://elsewhere/f", version="")
    downloader().download(url, path)
    assert path.read_bytes() == CONTENT
    assert server.header("Range") == [None]


@pytest.mark.parametrize("note", ["[1, 2]", "{half"])
def test_a_damaged_note_does_no_harm(server, path, note):
    leave_part(path, CONTENT[:5])
    path.with_name("file.bin.note.part").write_text(note)
    downloader().download(server.add("/f", CONTENT), path)
    assert path.read_bytes() == CONTENT


def test_a_server_that_ignores_ranges(server, path):
    url = server.add("/f", CONTENT, drops=[1000], ranges=False)
    downloader().download(url, path)
    assert path.read_bytes() == CONTENT
    assert server.header("Range") == [None, "bytes=1000-"]


def test_a_new_version_replaces_the_part(server, path):
    url = server.add("/f", CONTENT, headers={"ETag": '"v2"'})
    leave_part(path, b"old" * 10, url=url, version='"v1"')
    downloader().download(url, path)
    assert path.read_bytes() == CONTENT
    assert server.header("If-Range") == ['"v1"']


@pytest.mark.parametrize("headers, version", [
    ({"ETag": 'W/"weak"'}, None),
    ({"ETag": 'W/"weak"', "Last-Modified": "Wed, 01 Jan 2020 00:00:00 GMT"}, "Wed, 01 Jan 2020 00:00:00 GMT"),
])
def test_a_weak_etag_is_not_relied_on(server, path, headers, version):
    url = server.add("/f", CONTENT, drops=[9], headers=headers)
    downloader().download(url, path)
    assert path.read_bytes() == CONTENT
    assert server.header("If-Range") == [None, version]


def test_a_resumed_file_with_a_wrong_checksum_is_fetched_anew(server, path):
    url = server.add("/f", CONTENT)
    leave_part(path, b"another beginning")
    downloader().download(url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert server.header("Range") == ["bytes=17-", None]


def test_416_for_a_complete_part(server, path):
    url = server.add("/f", CONTENT)
    leave_part(path, CONTENT)
    downloader(attempts=1).download(url, path, SHA256)
    assert path.read_bytes() == CONTENT


def test_416_for_a_part_that_is_too_long(server, path):
    url = server.add("/f", CONTENT)
    leave_part(path, CONTENT + b"more")
    downloader().download(url, path)
    assert path.read_bytes() == CONTENT
    assert server.header("Range") == ["bytes=10244-", None]


def test_another_range_than_asked_for_is_not_appended(server, path):
    url = server.add("/f", CONTENT, drops=[1000], shift=5)
    downloader().download(url, path)
    assert path.read_bytes() == CONTENT
    assert server.header("Range") == [None, "bytes=1000-", None]


def test_a_range_that_ends_early_is_gone_on_from(server, path, capsys):
    url = server.add("/f", CONTENT, drops=[9000], span=1000)
    downloader().download(url, path)
    assert path.read_bytes() == CONTENT
    assert server.header("Range") == [None, "bytes=9000-", "bytes=10000-"]
    assert "the connection ended after 10,000 of 10,240 bytes" in capsys.readouterr().out


def test_a_length_that_is_too_long_is_found_out(server, path):
    downloader().download(server.add("/f", CONTENT, announced=20_000), path, SHA256)    # the 416 tells the true one
    assert path.read_bytes() == CONTENT


def test_a_length_that_stays_too_long_fails(server, path):
    url = server.add("/f", CONTENT, announced=20_000, ranges=False)
    with pytest.raises(FetchError, match="file.bin"):
        downloader().download(url, path)
    assert not path.exists()
    assert len(server.requests) == 3


def test_a_length_that_is_too_short_fails_the_checksum(server, path):
    url = server.add("/f", CONTENT, announced=6000)
    with pytest.raises(FetchError, match="^file.bin: sha256 checksum"):
        downloader().download(url, path, SHA256)
    assert leftovers(path) == []
    assert len(server.requests) == 1


def test_a_server_out_of_order_is_asked_again(server, path, capsys):
    downloader().download(server.add("/f", CONTENT, statuses=[503, 500]), path)
    assert path.read_bytes() == CONTENT
    assert "out of order (HTTP 503); trying again" in capsys.readouterr().out


def test_a_server_that_stays_out_of_order(server, path):
    url = server.add("/f", CONTENT, statuses=[503] * 9)
    with pytest.raises(FetchError, match="HTTP 503"):
        downloader(attempts=4).download(url, path)
    assert len(server.requests) == 4


@pytest.mark.parametrize("status, error", [(404, NotFound), (403, NotFound), (401, FetchError)])
def test_a_refusal_is_final(server, path, status, error):
    url = server.add("/f", CONTENT, statuses=[status])
    with pytest.raises(error, match=f"file.bin.*HTTP {status}"):
        downloader().download(url, path)
    assert len(server.requests) == 1


def test_redirects_are_followed(server, path):
    target = server.add("/target", CONTENT, drops=[100])
    downloader().download(server.add("/f", redirect=target), path)
    assert path.read_bytes() == CONTENT


def test_a_circle_of_redirects_ends(server, path):
    url = server.add("/f", redirect="/f")
    with pytest.raises(FetchError, match="redirects"):
        downloader().download(url, path)


def test_silence_counts_as_a_break(server, path):
    url = server.add("/f", CONTENT * 4, stalls=[40_000])
    downloader(timeout=0.2).download(url, path)
    assert path.read_bytes() == CONTENT * 4
    assert server.header("Range") == [None, f"bytes={40_000 // fetch.CHUNK * fetch.CHUNK}-"]


def test_pauses_double(server, path, monkeypatch):
    pauses = []
    monkeypatch.setattr(fetch.time, "sleep", pauses.append)
    with pytest.raises(FetchError):
        Downloader(attempts=4, pause=1.5).download(server.add("/f", statuses=[500] * 4), path)
    assert pauses == [1.5, 3, 6]


def test_an_unreachable_host_is_given_up_once(path, monkeypatch, deaf_host):
    pauses = []
    monkeypatch.setattr(fetch.time, "sleep", pauses.append)
    insisting = downloader()
    for _ in range(2):
        with pytest.raises(FetchError, match="file.bin: no connection to 127.0.0.1") as error:
            insisting.download(f"http://user:secret@{deaf_host}/f", path)
        assert "secret" not in str(error.value)
    assert len(pauses) == 2     # all of them for the first file


def test_an_address_that_is_none(path):
    with pytest.raises(FetchError, match="file.bin"):
        downloader().download("http://", path)


def test_a_disk_that_refuses_is_named(server, tmp_path):
    (tmp_path / "downloads").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot write .*file.bin"):
        downloader().download(server.add("/f", CONTENT), tmp_path / "downloads" / "file.bin")


def test_what_is_labelled_as_compressed_is_stored_as_it_came(server, path):
    url = server.add("/f", CONTENT, headers={"Content-Encoding": "gzip"})
    downloader().download(url, path)
    assert path.read_bytes() == CONTENT
    assert server.header("Accept-Encoding") == ["identity"]


def test_temporary_removes_the_file_when_the_block_fails(server, path):
    with pytest.raises(ZeroDivisionError):
        with downloader().temporary(server.add("/f", CONTENT), path) as there:
            assert there.read_bytes() == CONTENT
            1 / 0
    assert leftovers(path) == []


# ---------------------------------------------------------------- Google Drive's confirmation page

FORM = b"""<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
<form id="search" action="/search"><input name="q" value=""></form>
<form id="download-form" action="/download" method="get"><input type="submit" value="Download anyway"/>
<input type="hidden" name="id" value="ab&amp;c"><input type="hidden" name="confirm" value="t">
<input type="hidden" name="uuid" value="12-34"></form></body></html>"""
LINK = b'<html><a href="/help">?</a><a href="/uc?export=download&amp;confirm=XyZ&amp;id=1">Anyway</a></html>'


def test_confirmation_by_form(server, path):
    url = server.add("/uc?id=1", FORM, content_type="text/html; charset=utf-8")
    server.add("/download?id=ab%26c&confirm=t&uuid=12-34", CONTENT)
    downloader().download(url, path)
    assert path.read_bytes() == CONTENT


def test_confirmation_by_link(server, path):
    url = server.add("/uc?id=1", LINK, content_type="text/html")
    server.add("/uc?export=download&confirm=XyZ&id=1", CONTENT)
    downloader().download(url, path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("redirected", [False, True])
def test_confirmation_by_cookie(server, path, redirected):
    cookie = {"Set-Cookie": "download_warning_123=tok; Path=/"}
    url = server.add("/uc?id=1", b"<html>big</html>", content_type="text/html", headers={} if redirected else cookie)
    server.add("/uc?id=1&confirm=tok", CONTENT)
    if redirected:
        url = server.add("/f", redirect=url, headers=cookie)
    downloader().download(url, path)
    assert path.read_bytes() == CONTENT
    assert server.header("Cookie")[-1] == "download_warning_123=tok"


def test_a_confirmed_download_is_resumed(server, path):
    url = server.add("/uc?id=1", FORM, content_type="text/html", ranges=False)
    server.add("/download", CONTENT, drops=[3000], headers={"ETag": '"v1"'})
    downloader().download(url, path)
    assert path.read_bytes() == CONTENT
    assert server.header("Range") == [None, None, "bytes=3000-", "bytes=3000-"]


def test_a_page_that_asks_nothing_is_no_file(server, path):
    page = b"<html><head><title>Google Drive - Quota exceeded</title></head><body>Too many users</body></html>"
    leave_part(path, CONTENT[:10])
    with pytest.raises(FetchError, match="file.bin: the server sends a web page .'Google Drive - Quota exceeded'"):
        downloader().download(server.add("/f", page, content_type="text/html"), path)
    assert len(server.requests) == 1
    assert path.with_name("file.bin.part").read_bytes() == CONTENT[:10]


def test_a_page_that_asks_for_ever(server, path):
    url = server.add("/download", FORM, content_type="text/html")
    with pytest.raises(FetchError, match="web page"):
        downloader().download(url, path)
    assert len(server.requests) == 2


# ---------------------------------------------------------------- checksums


def test_digests(tmp_path):
    file = tmp_path / "hello"
    file.write_bytes(b"hello\n")
    assert digest(file, "git-blob") == "ce013625030ba8dba906f756967f9e9ca394464a"   # git hash-object
    assert digest(file, "md5") == "b1946ac92492d2347c6235b4d2611184"
    assert digest(file, "sha256") == "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"


def test_sums_are_read_in_both_modes(tmp_path):
    sums = tmp_path / "SHA256SUMS"
    sums.write_text(f"{'a' * 64}  one\n{'B' * 64} *./two words\n\n")
    assert fetch.read_sums(sums) == {"one": "a" * 64, "two words": "b" * 64}
    sums.write_text("<html>not found</html>")
    with pytest.raises(UserError, match="SHA256SUMS: line 1"):
        fetch.read_sums(sums)


# ---------------------------------------------------------------- sources


def test_upstream_addresses_are_complete():
    assert fetch.UPSTREAM["yahoo_data.tar.gz"].url == (
        "https://drive.google.com/uc?export=download&id=13azGlTuGdzWLCmgDmQPmvb_jcexVWX7i")
    assert fetch.UPSTREAM["chardata.mat"].url == (
        "https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/chardata.mat")
    assert {remote.base for remote in fetch.UPSTREAM.values()} == set(fetch.BASES)


def test_upstream_checks_the_published_checksum(server, tmp_path, monkeypatch):
    monkeypatch.setitem(fetch.BASES, "lstm", server.url + "/data/")
    server.add("/data/ptb.train.txt", b"not the treebank\n")
    with pytest.raises(FetchError, match="ptb.train.txt: md5 checksum .*, not f26c4b92c5fdc7b3f8c7cdcb991d8420"):
        with Upstream(downloader(), tmp_path).file("ptb.train.txt"):
            pass


def test_mirror_folder(tmp_path):
    (tmp_path / "a.bin").write_bytes(CONTENT)
    source = open_source(str(tmp_path), tmp_path / "downloads")
    with source.file("a.bin") as path:
        assert path == tmp_path / "a.bin"
    assert path.exists()    # the mirror's own file stays
    with pytest.raises(NotFound, match="b.bin is not in"):
        with source.file("b.bin"):
            pass


def test_mirror_folder_with_sums(tmp_path, capsys):
    for name in "good.bin", "bad.bin", "unlisted.bin":
        (tmp_path / name).write_bytes(CONTENT)
    (tmp_path / "SHA256SUMS").write_text(f"{SHA256[7:]}  good.bin\n{'0' * 64}  bad.bin\n")
    source = MirrorFolder(tmp_path)
    with source.file("good.bin"):
        assert capsys.readouterr().out == ""
    with source.file("unlisted.bin"):
        assert "unlisted.bin: not listed" in capsys.readouterr().out
    with pytest.raises(FetchError, match="bad.bin: sha256 checksum"):
        with source.file("bad.bin"):
            pass


def test_mirror_server_with_sums(server, tmp_path, capsys):
    server.add("/m/good.bin", CONTENT)
    server.add("/m/unlisted.bin", CONTENT)
    server.add("/m/bad.bin", CONTENT)
    server.add("/m/SHA256SUMS", f"{SHA256[7:]}  good.bin\n{'0' * 64}  bad.bin\n".encode())
    source = open_source(server.url + "/m", tmp_path, downloader())
    with source.file("good.bin") as path:
        assert path.read_bytes() == CONTENT
    assert not path.exists()    # it was a download
    with pytest.raises(FetchError, match="bad.bin: sha256 checksum"):
        with source.file("bad.bin"):
            pass
    with source.file("unlisted.bin"):
        assert "unlisted.bin: not listed" in capsys.readouterr().out
    with pytest.raises(NotFound):
        with source.file("missing.bin"):
            pass
    assert "not listed" not in capsys.readouterr().out
    assert [address for address, _ in server.requests].count("/m/SHA256SUMS") == 1
    assert list(tmp_path.iterdir()) == []


def test_mirror_server_without_sums(server, tmp_path):
    server.add("/m/a.bin", CONTENT)
    with open_source(server.url + "/m/", tmp_path, downloader()).file("a.bin") as path:
        assert path.read_bytes() == CONTENT


def test_mirror_server_whose_sums_cannot_be_had_is_not_trusted(server, tmp_path):
    server.add("/a.bin", CONTENT)
    server.add("/SHA256SUMS", statuses=[500] * 9)
    with pytest.raises(FetchError, match="SHA256SUMS"):
        with open_source(server.url, tmp_path, downloader()).file("a.bin"):
            pass


@pytest.mark.parametrize("mirror", ["no/such/folder", "ftp://host/data"])
def test_a_mirror_that_is_none(tmp_path, mirror):
    with pytest.raises(UserError, match=f"--mirror {mirror}"):
        open_source(mirror, tmp_path)


# ---------------------------------------------------------------- progress


def test_plain_progress_lines(monkeypatch, capsys):
    monkeypatch.setattr(fetch, "REPORT_EVERY", 0)
    with fetch.progress("f.zip", 1_000_000, 5_000_000) as advance:
        advance(1_500_000)
    with fetch.progress("g.zip", 0, None) as advance:
        advance(100_000)
    assert capsys.readouterr().out == "f.zip: 2.5 of 5.0 MB\ng.zip: 0.1 MB\n"


def test_plain_progress_is_not_a_flood(monkeypatch, capsys):
    seconds = 0
    monkeypatch.setattr(fetch.time, "monotonic", lambda: seconds)
    monkeypatch.setattr(fetch, "REPORT_EVERY", 10)
    with fetch.progress("f.zip", 0, 10**7) as advance:
        for seconds in range(2, 26, 2):     # a chunk takes two seconds
            advance(100_000)
    assert capsys.readouterr().out == "f.zip: 0.5 of 10.0 MB\nf.zip: 1.0 of 10.0 MB\n"


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with fetch.progress("f.zip", 250_000, 1_000_000) as advance:
        advance(500_000)
    assert "f.zip:  25%" in capsys.readouterr().err
