"""A local web server that misbehaves on request, for the tests of downloading."""

import re
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Resource:
    """What the server answers at one address. The lists are used up, one entry for each request."""

    content: bytes = b""
    content_type: str = "application/octet-stream"
    headers: dict = field(default_factory=dict)  # further response headers
    announced: int = None  # Content-Length of a whole answer, where it is a lie
    announces: bool = True  # sends Content-Length at all
    honours_range: bool = True
    redirect: str = ""  # sends the client there
    statuses: list = field(default_factory=list)  # answers these first
    drops: list = field(default_factory=list)  # closes the connection after so many bytes of the body
    stalls: list = field(default_factory=list)  # falls silent after so many bytes of the body


class LocalServer(ThreadingHTTPServer):
    """Serves `resources`, {path or path?query: Resource}, and keeps a list of `requests`, (address, headers)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.resources, self.requests, self.closing = {}, [], threading.Event()

    @property
    def url(self):
        """The address of the server, without a slash at the end."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, path, content=b"", **behaviour):
        """Serve `content` at `path`; returns its address."""
        self.resources[path] = Resource(content, **behaviour)
        return self.url + path

    def header(self, name):
        """The values that `name` had in the requests so far, None where it was missing."""
        return [headers.get(name) for _, headers in self.requests]


class Handler(BaseHTTPRequestHandler):
    """Answers GET requests as the Resource says."""

    def do_GET(self):
        """Answer one request."""
        self.server.requests.append((self.path, dict(self.headers)))
        resource = self.server.resources.get(self.path) or self.server.resources.get(self.path.partition("?")[0])
        if resource is None:
            return self.send_error(404)
        if resource.statuses:
            return self.send_error(resource.statuses.pop(0))
        if resource.redirect:
            return self.answer(302, b"", {"Location": resource.redirect, **resource.headers})
        start = self.range_start(resource)
        if start is None:
            length = len(resource.content) if resource.announced is None else resource.announced
            headers = {"Content-Length": length} if resource.announces else {}
            return self.answer(200, resource.content, {**headers, **resource.headers}, resource)
        return self.answer_range(resource, start)

    def range_start(self, resource):
        """The first byte asked for, or None for the whole: no Range, or If-Range names another version."""
        match = resource.honours_range and re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        versions = resource.headers.get("ETag"), resource.headers.get("Last-Modified"), None
        if not match or self.headers.get("If-Range") not in versions:
            return None
        return int(match[1])

    def answer_range(self, resource, start):
        """Answer with the bytes from `start` on."""
        total = len(resource.content)
        if start >= total:
            return self.answer(416, b"", {"Content-Range": f"bytes */{total}"})
        body = resource.content[start:]
        span = {"Content-Range": f"bytes {start}-{start + len(body) - 1}/{total}", "Content-Length": len(body)}
        return self.answer(206, body, {**span, **resource.headers}, resource)

    def answer(self, status, body, headers, resource=Resource()):
        """Send an answer, or as much of it as `resource` allows."""
        self.send_response(status)
        self.send_header("Content-Type", resource.content_type)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        if resource.stalls:
            self.wfile.write(body[: resource.stalls.pop(0)])
            self.wfile.flush()
            self.server.closing.wait(30)
        else:
            self.wfile.write(body[: resource.drops.pop(0)] if resource.drops else body)

    def log_message(self, *args):
        """Keep quiet."""


@contextmanager
def running_server():
    """Run a LocalServer while the block runs."""
    with LocalServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def no_proxy(monkeypatch):
    """Keep a proxy that the environment may set out of the way."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server(no_proxy):
    """A running LocalServer."""
    with running_server() as running:
        yield running


@pytest.fixture
def deaf_host(no_proxy):
    """Host and port that nobody listens at: connections are refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"
