"""A server on this machine that speaks the Hugging Face Hub's calls, for one file of 24 MB."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

FILE = "features/a.bin"
CONTENT = bytes(range(256)) * 96_000  # 24 MB: the client keeps what it has by 10 MB
DIGEST = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "a" * 40


@dataclass
class Hub:
    """The server's address, what it was asked, and how it misbehaves.

    ``lab/data`` is public, ``lab/locked`` wants a token, ``lab/gated`` and ``lab/private`` refuse.
    """

    address: str = ""
    break_off: bool = False  # close the connection in the middle of the next file
    stall: bool = False  # stop sending in the middle of the file, until released
    released: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def starts(self) -> list[int]:
        """At which byte each resumed download went on."""
        ranges = [headers["range"] for method, _, headers in self.asked if "range" in headers]
        return [int(text.removeprefix("bytes=").split("-")[0]) for text in ranges]


@contextmanager
def fake_hub() -> Iterator[Hub]:
    """Run the server for the time of the block."""
    state = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def refusal(self, headers: dict[str, str]) -> tuple[int, str] | None:
            if self.path.startswith("/lab/gated"):
                return 403, "GatedRepo"
            locked = self.path.startswith("/lab/locked") and "authorization" not in headers
            if locked or self.path.startswith("/lab/private"):
                return 401, "RepoNotFound"
            return None if self.path.endswith(FILE) else (404, "EntryNotFound")

        def answer(self, body: bool) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            if "/resolve/" in self.path:
                state.asked.append((self.command, self.path, headers))
            refusal = self.refusal(headers)
            if refusal is not None:
                self.send_response(refusal[0])
                self.send_header("X-Error-Code", refusal[1])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = 0
            if body and "range" in headers:
                start = int(headers["range"].removeprefix("bytes=").split("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{DIGEST}"')
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.send_header("Accept-Ranges", "bytes")
            if start:
                size = len(CONTENT)
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.end_headers()
            if body:
                self.send_body(start)

        def send_body(self, start: int) -> None:
            half = len(CONTENT) // 2
            if state.break_off:
                state.break_off = False
                self.wfile.write(CONTENT[:half])
                self.wfile.flush()
                self.connection.close()
            elif state.stall:
                self.wfile.write(CONTENT[start:half])
                self.wfile.flush()
                state.released.wait(60)
                self.close_connection = True
            else:
                self.wfile.write(CONTENT[start:])

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        server.shutdown()
        server.server_close()
