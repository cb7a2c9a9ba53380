"""A small model, and a server on this machine that gives it, well or badly."""

from __future__ import annotations

import contextlib
import hashlib
import io
import resource
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import Tensor

from amfast.weights.catalogue import CATALOGUE, Entry, RemoteFile
from amfast.weights.download import Patience

#: Fails at once, so that a test of three failures takes no seconds.
HASTY = Patience(timeout=5.0, attempts=3, pause=0.0)


@dataclass
class Answer:
    """How the server answers for one path. What is wrong is wrong ``times`` times."""

    body: bytes
    status: int = 200
    cut_at: int | None = None  # bytes into the file at which the connection is cut
    times: int = 1
    ranges: bool = True
    length: bool = True
    skew: int = 0  # the rest of the file begins so many bytes late
    tag: str = '"one"'
    kind: str = "application/octet-stream"
    silent: threading.Event | None = None  # the body waits for it, and is cut then
    silent_at: int = 1


@dataclass
class Server:
    url: str
    answers: dict[str, Answer] = field(default_factory=dict)
    #: The path, and the Range that was asked for, of every request.
    log: list[tuple[str, str | None]] = field(default_factory=list)

    def put(self, name: str, body: bytes, **how: object) -> str:
        self.answers[f"/{name}"] = Answer(body, **how)  # type: ignore[arg-type]
        return f"{self.url}/{name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    shared: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.shared.log.append((self.path, asked))
        answer = self.shared.answers.get(self.path)
        if answer is None or (answer.status != 200 and answer.times > 0):
            if answer:
                answer.times -= 1
            self.send_error(404 if answer is None else answer.status)
            return
        start = 0
        if asked and answer.ranges and self.headers.get("If-Range") == answer.tag:
            start = int(asked.removeprefix("bytes=").rstrip("-")) + answer.skew
        if start >= len(answer.body):
            self.send_error(416)
            return
        if start:
            self.send_response(206)
            end, size = len(answer.body) - 1, len(answer.body)
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", answer.kind)
        if answer.tag:
            self.send_header("ETag", answer.tag)
        if answer.length:
            self.send_header("Content-Length", str(len(answer.body) - start))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        end = len(answer.body)
        if answer.cut_at is not None and answer.times > 0:
            answer.times -= 1
            end = answer.cut_at
        if answer.silent is not None:
            self.wfile.write(answer.body[start : answer.silent_at])
            self.wfile.flush()
            answer.silent.wait(60)
            return
        self.wfile.write(answer.body[start:end])

    def log_message(self, *_: object) -> None:
        """Not on the test's stderr."""


@pytest.fixture
def server() -> Iterator[Server]:
    handler = type("Shared", (Handler,), {})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.shared = Server(f"http://127.0.0.1:{http.server_port}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield handler.shared
    finally:
        for answer in handler.shared.answers.values():
            if answer.silent is not None:
                answer.silent.set()
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store's place, for this test alone; nothing on the way to it asks for a proxy."""
    place = tmp_path / "home"
    monkeypatch.setenv("AMFAST_HOME", str(place))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return place


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def small_state(seed: int = 0) -> dict[str, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return {
        "conv.weight": torch.randn(64, 3, 9, 9, generator=stream),
        "norm.running_mean": torch.randn(64, generator=stream),
        "norm.num_batches_tracked": torch.tensor(7),
    }


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Put an entry into the catalogue for this test: one file, from these sources."""

    def put(*sources: str, digest: str | None = None, name: str = "toy", **more: object) -> Entry:
        file = RemoteFile("toy.pth", sources, None, digest)
        entry = Entry(name, "classifier", (file,), "CC0", "Nobody: Nothing. 2020", **more)  # type: ignore[arg-type]
        monkeypatch.setitem(CATALOGUE, name, entry)
        return entry

    return put


@pytest.fixture
def file_size_limit() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """No file of this process may grow beyond so many bytes: writes fail, as on a full disk."""

    @contextlib.contextmanager
    def limit(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit
