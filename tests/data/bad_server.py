"""A local HTTP server that misbehaves by a script: one entry a request, the last one kept."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from struct import pack
from typing import Any


class BadServer(ThreadingHTTPServer):
    """Serves ``files`` (path -> bytes); ``script`` says how the next requests are answered.

    Behaviours: "ok", a status code, "drop" (half, then the connection is cut), "stall" (half, then
    silence until the one who asked has gone), "no ranges", "damage" (one byte differs), "more" /
    "less" (announces more or fewer bytes than it sends), "no length" (announces none), "endless"
    (and sends too many), "elsewhere" (a range that was not asked for), "reset" (half, and the
    connection is torn down), "page" (a page to log in, as a proxy sends it). ``heads`` is the
    script of HEAD requests, which know "ok", "stall", "page" and a status code.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes], script: list[Any]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.script = files, script
        self.asked: list[tuple[str, str | None]] = []
        self.headers: dict[str, str] = {}
        self.heads: list[Any] = ["ok"]

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Cut connections are what this is for."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: BadServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:  # noqa: N802
        """The hub's answer to who asks for a file's size and hash: it lies in another house."""
        script = self.server.heads
        how, content = script.pop(0) if len(script) > 1 else script[0], self.server.files[self.path]
        if how == "stall":
            self.rfile.read(1)
            return None
        if how == "page":
            return self.page()
        self.send_response(how if isinstance(how, int) else 302)
        self.send_header("Location", f"http://elsewhere.invalid{self.path}")
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.end_headers()

    def page(self) -> None:
        """What is no answer to the question."""
        body = b"<html>Log in to this network</html>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:  # noqa: N802
        """A file, in the way the script says."""
        server, asked = self.server, self.headers.get("Range")
        server.asked.append((self.path, asked))
        how = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        content = server.files.get(self.path)
        if how == "page":
            return self.page()
        if isinstance(how, int) or content is None:
            self.send_response(how if isinstance(how, int) else 404)
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0 if asked is None or how == "no ranges" else int(asked[6:].split("-")[0])
        if asked and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            shown = start + (how == "elsewhere")
            self.send_header("Content-Range", f"bytes {shown}-{len(content) - 1}/{len(content)}")
        body = content[start:]
        if how == "damage":
            body = body[:-1] + bytes([body[-1] ^ 1])
        length = len(body) + {"more": 7, "less": -7}.get(str(how), 0)
        if how not in ("no length", "endless"):
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if how in ("drop", "stall", "reset"):
            self.wfile.write(body[: max(1, len(body) // 2)])
            self.wfile.flush()
            if how == "stall":
                self.rfile.read(1)
            if how == "reset":  # closed with bytes still to be sent, the system sends RST
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
                self.rfile.close()
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(body * (2000 if how == "endless" else 1))
        self.close_connection = how in ("more", "less", "no length", "endless")


@contextmanager
def serving(files: dict[str, bytes], *script: Any) -> Iterator[BadServer]:
    """The server, running."""
    server = BadServer(files, list(script) or ["ok"])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def leftovers(folder: Path) -> list[str]:
    """Names of what lies in a folder afterwards."""
    return sorted(path.name for path in folder.iterdir())
