from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading

from amfast.generators.architectures import ARCHITECTURES, random_biggan
from amfast.weights.catalogue import CATALOGUE
from tests.command import REPOSITORY, assert_refused, can_mount, environment, listing, wait_for
from tests.generators.conftest import CONFIGS
from tests.weights.conftest import (  # noqa: F401 - fixtures
    enter,
    file_size_limit,
    home,
    saved,
    server,
    sha256,
    small_state,
)

BODY = saved(small_state())


def test_list(invoke, home):  # noqa: F811
    answer = invoke("weights", "list", "--json")
    assert (answer.returncode, answer.stderr) == (0, "")
    found = {entry["name"]: entry for entry in json.loads(answer.stdout)}
    assert found.keys() == CATALOGUE.keys()
    assert {entry["state"] for entry in found.values()} == {"absent"}
    assert found["alexnet"]["path"] == str(home / "alexnet.safetensors")
    table = invoke("weights", "list")
    assert table.returncode == 0
    for entry in CATALOGUE.values():
        begins = re.escape(entry.licence.split()[0])  # a long one wraps
        assert re.search(rf"{entry.name} +{entry.kind} .*{begins}", table.stdout)
    assert f"kept in {home}\n" in table.stdout


def test_fetch_verify_path(invoke, home, server, enter):  # noqa: F811
    enter(server.put("toy", BODY))
    assert_refused(invoke("weights", "path", "toy"), 1, "'amfast weights fetch toy'", "CC0")
    assert invoke("weights", "verify").stdout == "no weights are here\n"
    place = home / "toy.safetensors"
    answer = invoke("weights", "fetch", "toy")
    assert (answer.returncode, answer.stdout) == (0, f"{place}\n")
    assert answer.stderr == f"downloading toy.pth from {server.url}/toy\n"
    assert invoke("weights", "path", "toy").stdout == f"{place}\n"
    assert json.loads(invoke("weights", "path", "toy", "--json").stdout) == {"path": str(place)}
    assert invoke("weights", "path").stdout == f"{home}\n"
    answer = invoke("weights", "verify", "toy")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "toy: in order\n", "")
    (report,) = json.loads(invoke("weights", "verify", "--json").stdout)
    assert report["sha256"] == {"toy.pth": sha256(BODY)} and report["error"] is None
    answer = invoke("weights", "fetch", "toy", "--json")
    assert (answer.stdout, answer.stderr) == (
        json.dumps([{"name": "toy", "path": str(place)}]) + "\n",
        "",
    )
    assert len(server.log) == 1


def test_verify_goes_on_after_a_damaged_one(invoke, home, server, enter):  # noqa: F811
    url = server.put("toy", BODY)
    for name in ("toy", "toy2"):
        enter(url, name=name)
        assert invoke("weights", "fetch", name).returncode == 0
    (home / "downloads/toy/toy.pth").write_bytes(b"changed")
    answer = invoke("weights", "verify")
    assert (answer.returncode, answer.stdout) == (1, "toy2: in order\n")
    assert re.fullmatch(r"amfast: .*toy\.pth has changed since it was fetched; .*\n", answer.stderr)
    answer = invoke("weights", "verify", "--json")
    assert answer.returncode == 1
    assert [bool(found["error"]) for found in json.loads(answer.stdout)] == [True, False]


def test_refused(invoke, home, server, enter):  # noqa: F811
    enter(f"{server.url}/gone")
    fetch = "weights", "fetch", "toy"
    assert_refused(invoke(*fetch, "--json"), 1, "cannot fetch toy.pth: .*/gone answered 404")
    for command in ("fetch", "verify", "path"):
        assert_refused(invoke("weights", command, "alexnut"), 2, "did you mean alexnet")
    for name, option in (
        ("alexnet", "--classifier-weights, or --judge-weights where it judges"),
        ("biggan-256", "--weights"),
    ):
        said = f"weights of {name} are not here.*, or give a file with {option}\n"
        assert_refused(invoke("weights", "verify", name), 1, said)
    assert_refused(invoke("weights", "verify", "fid-inception"), 1, r"Apache-2\.0\)\n")
    assert invoke("weights", "fetch").returncode == 2
    assert invoke(*fetch, "--timeout", "0").returncode == 2


#: The real command, with one entry more.
COMMAND = """
import sys
from amfast.cli import main
from amfast.weights.catalogue import CATALOGUE, Entry, RemoteFile

file = RemoteFile("toy.pth", (sys.argv.pop(1),))
CATALOGUE["toy"] = Entry("toy", "classifier", (file,), "CC0", "Nobody")
main()
"""


def test_interrupted_on_a_terminal_and_resumed(invoke, home, server, enter):  # noqa: F811
    """The real command, with a bar; after Ctrl-C it says what to do, and goes on."""
    url = server.put("toy", BODY, silent=(go := threading.Event()), silent_at=40_000)
    enter(url)
    terminal, end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, url, "weights", "fetch", "toy"],
        cwd=REPOSITORY,
        env={**environment(measured=False), "TERM": "xterm", "TTY_INTERACTIVE": "1"},
        stdout=subprocess.PIPE,
        stderr=end,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        os.close(end)
        part = home / "downloads" / "toy" / ".toy.pth.part"
        wait_for(lambda: part.exists() and part.stat().st_size == 32_768)
        shown = b""
        while b"32.8/" not in shown:
            shown += os.read(terminal, 4096)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # the other end is closed
            while more := os.read(terminal, 4096):
                shown += more
        assert process.wait(timeout=60) == 130
    go.set()
    assert "interrupted; 'amfast weights fetch toy' goes on from here" in shown.decode()
    assert part.stat().st_size == 32_768 and not (home / "toy.safetensors").exists()
    server.put("toy", BODY)
    assert invoke("weights", "fetch", "toy").returncode == 0
    assert server.log[-1][1] == "bytes=32768-"
    assert invoke("weights", "verify", "toy").returncode == 0


def test_full_disk(tmp_path, invoke, home, server, enter, file_size_limit):  # noqa: F811
    """A disk that the file does not fit on: a sentence, and nothing left on it."""
    url = server.put("toy", BODY, length=False)
    fetch = ("weights", "fetch", "toy", "--json")
    said = (
        r"cannot write .*/downloads/toy/\.toy\.pth\.part: (no space left on device|file too large)"
    )
    if can_mount():
        home.mkdir()
        left = tmp_path / "left"
        script = (
            f'mount -t tmpfs -o size=40k tmpfs "$0"; "$@"; e=$?; find "$0" -type f >{left}; exit $e'
        )
        unshared = ("unshare", "--map-root-user", "--mount", "sh", "-c", script, home)
        done = subprocess.run(
            [*unshared, sys.executable, "-c", COMMAND, url, *fetch],
            cwd=REPOSITORY,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert left.read_text() == f"{home}/downloads/toy/lock\n"
    else:
        enter(url)
        with file_size_limit(10_000):
            done = invoke(*fetch)
        assert listing(home) == ["downloads", "downloads/toy", "downloads/toy/lock"]
    assert_refused(done, 1, said)


def test_a_run_fetches_what_it_needs(invoke, home, server, monkeypatch, tmp_path):  # noqa: F811
    name, config = "biggan-128", CONFIGS["one-block"]
    monkeypatch.setitem(ARCHITECTURES, name, config)
    url = server.put("G_ema.pth", saved(dict(random_biggan(config).state_dict())))
    file = dataclasses.replace(CATALOGUE[name].files[0], sources=(url,))
    entry = dataclasses.replace(CATALOGUE[name], files=(file,), member=None)
    monkeypatch.setitem(CATALOGUE, name, entry)
    run = ("run", "--generator", name, "--classes", "1", "--trials", "1", "--latents", "2")
    run = (*run, "--steps", "1", "--outdir", str(tmp_path / "runs"))
    assert_refused(invoke(*run), 1, "run 'amfast weights fetch biggan-128'")
    answer = invoke(*run, "--fetch")
    assert answer.returncode == 0, answer.stderr
    assert f"downloading {file.name} from {url}\n" in answer.stderr
    requests = len(server.log)
    answer = invoke(*run, "--fetch", "--quiet")  # the embedded classifier is never fetched
    assert (answer.returncode, answer.stderr, len(server.log)) == (0, "", requests)
