"""The store against a server on this machine: what is fetched, kept, refused and left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from safetensors.torch import save_file

from amfast.errors import UsageError, WeightsError
from amfast.fingerprint import fingerprint
from amfast.weights import store
from amfast.weights.catalogue import CATALOGUE, Entry, RemoteFile
from amfast.weights.download import Transfer
from amfast.weights.files import read_safetensors
from tests.command import REPOSITORY
from tests.weights.conftest import HASTY, sha256, small_state
from tests.weights.toy import BODY, FINAL, check_toy, files, refused


def test_fetch_converts_records_and_then_needs_no_server(home, server, enter):
    enter(server.put("toy", BODY))
    told: list[Transfer] = []
    found = store.fetch("toy", on_progress=told.append, patience=HASTY)
    assert found == home / "toy.safetensors" == store.resolve("toy")
    check_toy(home)
    assert (told[-1].done, told[-1].total) == (len(BODY), len(BODY))
    record = json.loads((home / "toy.json").read_text())
    assert record["files"] == [
        {
            "name": "toy.pth",
            "size": len(BODY),
            "sha256": sha256(BODY),
            "source": f"{server.url}/toy",
        }
    ]
    assert record["fingerprint"] == fingerprint(small_state())
    verified = store.verify("toy")
    assert verified.sha256 == {"toy.pth": sha256(BODY)}
    before = {name: (home / name).read_bytes() for name in FINAL}
    server.log.clear()
    assert store.fetch("toy", patience=HASTY) == found
    assert server.log == []  # what is here and sound costs no request
    assert {name: (home / name).read_bytes() for name in FINAL} == before


def test_offline(home, server, enter, monkeypatch):
    """Once fetched, no socket is opened, whether or not there is a network."""
    enter(server.put("toy", BODY))
    store.fetch("toy", patience=HASTY)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert store.fetch("toy") == store.resolve("toy") == store.verify("toy").path
    (home / "downloads/toy/toy.pth").unlink()  # it may be deleted
    assert store.fetch("toy") == home / "toy.safetensors"
    (home / "toy.safetensors").unlink()
    with pytest.raises(WeightsError, match="run 'amfast weights fetch toy'"):
        store.resolve("toy")


def test_converted_again_without_the_network(home, server, enter):
    enter(server.put("toy", BODY))
    store.fetch("toy", patience=HASTY)
    (home / "toy.safetensors").unlink()
    server.log.clear()
    store.fetch("toy", patience=HASTY)
    assert server.log == []
    check_toy(home)


def test_no_space_in_the_middle(home, server, enter, file_size_limit):
    """A server that does not say how much will come."""
    enter(server.put("toy", BODY, length=False))
    with file_size_limit(10_000):
        refused(home, "cannot write ", "toy.pth.part: file too large")


def test_no_space_for_the_converted_file(home, server, enter, file_size_limit):
    enter(server.put("toy", BODY))
    store.fetch("toy", patience=HASTY)
    converted = home / "toy.safetensors"
    limit = converted.stat().st_size - 1
    converted.unlink()
    with file_size_limit(limit), pytest.raises(WeightsError, match=r"cannot write .*toy.safet"):
        store.fetch("toy", patience=HASTY)
    assert "toy.safetensors" not in files(home)
    assert not [name for name in files(home) if name.endswith(".tmp")]


def test_home_that_cannot_be(home, server, enter):
    enter(server.put("toy", BODY))
    home.write_text("a file")
    with pytest.raises(WeightsError, match=f"cannot keep weights in {home}: not a directory"):
        store.fetch("toy", patience=HASTY)
    assert server.log == []


def test_folder_in_the_way(home, server, enter):
    enter(server.put("toy", BODY))
    (home / "toy.safetensors").mkdir(parents=True)
    with pytest.raises(WeightsError, match=r"cannot write .*toy\.safetensors: is a directory"):
        store.fetch("toy", patience=HASTY)
    assert not [name for name in files(home) if name.endswith(".tmp")]


@pytest.mark.parametrize("name", FINAL[::2])
def test_tampered_file_is_refused_and_replaced(home, server, enter, name):
    enter(server.put("toy", BODY))
    store.fetch("toy", patience=HASTY)
    whole = (home / name).read_bytes()
    (home / name).write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(WeightsError, match=f"{Path(name).name} has changed since .*'amfast weig"):
        store.verify("toy")
    notes: list[str] = []
    store.fetch("toy", on_note=notes.append, patience=HASTY)
    assert len(notes) == 1
    assert re.match(r"fetching toy again: .* has changed since it was [^;]*$", notes[0])
    check_toy(home)


def test_other_weights_in_its_place(home, server, enter):
    """A whole, sound safetensors file with a fingerprint of its own is no better."""
    enter(server.put("toy", BODY))
    store.fetch("toy", patience=HASTY)
    path = home / "toy.safetensors"
    _, metadata = read_safetensors(path)
    other = small_state(seed=5)
    save_file(other, path, {**metadata, "fingerprint": fingerprint(other)})
    with pytest.raises(WeightsError, match="has changed since it was made of toy.pth"):
        store.verify("toy")
    save_file(small_state(), path, {**metadata, "name": "resnet50"})
    with pytest.raises(WeightsError, match="has changed"):
        store.verify("toy")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="cannot read weights"):
        store.verify("toy")


def test_record_that_was_changed(home, server, enter):
    enter(server.put("toy", BODY), digest=sha256(BODY)[:8])
    store.fetch("toy", patience=HASTY)
    record = home / "toy.json"
    sound = record.read_text()
    record.write_text(sound.replace(sha256(BODY), "0" * 64))
    with pytest.raises(WeightsError, match=f"0000, and {sha256(BODY)[:8]} is published"):
        store.verify("toy")
    of_numbers = sound.replace(f'"{sha256(BODY)}"', "7")
    for junk in ("{", "[]", '{"format": "amfast-weights", "format_version": 2}', of_numbers):
        record.write_text(junk)
        for call in (store.verify, store.fetch):
            with pytest.raises(WeightsError, match=r"toy.json cannot be read .*: delete it"):
                call("toy")
    record.unlink()
    with pytest.raises(WeightsError, match="has no record in .*toy.json"):
        store.verify("toy")
    store.fetch("toy", patience=HASTY)
    check_toy(home)


def test_file_put_there_by_hand(home, enter):
    enter("http://nowhere.invalid/toy", digest=sha256(BODY))
    folder = home / "downloads" / "toy"
    folder.mkdir(parents=True)
    (folder / "toy.pth").write_bytes(BODY)
    store.fetch("toy", patience=HASTY)
    check_toy(home)


FETCH = """
import sys
from amfast.weights import store
from amfast.weights.catalogue import CATALOGUE, Entry, RemoteFile
from amfast.weights.download import Patience

file = RemoteFile("toy.pth", (sys.argv[1],))
CATALOGUE["toy"] = Entry("toy", "classifier", (file,), "CC0", "Nobody")
store.fetch("toy", patience=Patience(timeout=60))
"""


def test_two_processes_at_once(home, server, enter):
    """The second is refused while the first is at work, and disturbs nothing."""
    enter(server.put("toy", BODY, silent=(go := threading.Event())))
    with subprocess.Popen(
        [sys.executable, "-c", FETCH, f"{server.url}/toy"],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as first:
        while not server.log:
            assert first.poll() is None
        with pytest.raises(WeightsError, match=f"downloads/toy is in use by process {first.pid} "):
            store.fetch("toy", patience=HASTY)
        server.put("toy", BODY)  # from where the first was cut
        go.set()
        _, said = first.communicate(timeout=60)
    assert first.returncode == 0, said
    check_toy(home)


def test_zip_member_and_eps(home, server, enter):
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("138k/D.pth", b"something else")
        archive.writestr("138k/G_ema.pth", BODY)
    url = server.put("toy", packed.getvalue())
    enter(url, member="138k/G_ema.pth", norm_eps=1e-5, spectral_eps=1e-6)
    tensors, metadata = read_safetensors(store.fetch("toy", patience=HASTY))
    assert fingerprint(tensors) == fingerprint(small_state())
    assert (float(metadata["norm_eps"]), float(metadata["spectral_eps"])) == (1e-5, 1e-6)
    shutil.rmtree(home)
    enter(url, member="140k/G_ema.pth")
    refused(home, "holds no 140k/G_ema.pth: it holds 138k/D.pth, 138k/G_ema.pth")


@pytest.fixture
def deep(server, monkeypatch):
    """A BigGAN-deep's two files, of which the second may be wrong."""

    def enter_deep(config: bytes) -> None:
        sources = {"pytorch_model.bin": BODY, "config.json": config}
        remote = [RemoteFile(name, (server.put(name, body),)) for name, body in sources.items()]
        entry = Entry("toy", "generator", tuple(remote), "MIT", "Nobody", resolution=128)
        monkeypatch.setitem(CATALOGUE, "toy", entry)

    return enter_deep


def test_two_files(home, server, deep):
    deep(b'{"output_dim": 128, "eps": 0.0003}')
    _, metadata = read_safetensors(store.fetch("toy", patience=HASTY))
    assert float(metadata["norm_eps"]) == 3e-4 and "spectral_eps" not in metadata
    assert len(server.log) == 2
    assert set(store.verify("toy").sha256) == {"pytorch_model.bin", "config.json"}
    (home / "downloads/toy/config.json").write_text("{}")
    with pytest.raises(WeightsError, match="config.json has changed since it was fetched"):
        store.verify("toy")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (b'{"output_dim": 256, "eps": 0.0001}', "of a generator of 256 px, expected 128 px"),
        (b"{}", "is no BigGAN-deep's configuration"),
        (b"[1]", "is no BigGAN-deep's configuration"),
        (b'{"eps"', "is no BigGAN-deep's configuration"),
    ],
)
def test_wrong_configuration(home, deep, config, said):
    deep(config)
    refused(home, "gave is not toy: ", said)


def test_unknown_name():
    for call in (store.fetch, store.verify, store.resolve, store.path):
        with pytest.raises(
            UsageError, match="no weights are known as 'biggan-12': did you mean bi"
        ):
            call("biggan-12")
    with pytest.raises(UsageError, match="known are biggan-128, biggan-256, "):
        store.path("zzz")


def test_home(monkeypatch, tmp_path):
    monkeypatch.delenv("AMFAST_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.home() == tmp_path / "amfast"
    monkeypatch.setenv("AMFAST_HOME", "~/weights")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.path("alexnet") == tmp_path / "weights" / "alexnet.safetensors"


def test_sentence_for_what_is_not_here(home):
    with pytest.raises(WeightsError) as caught:
        store.resolve("alexnet")
    assert "'amfast weights fetch alexnet' (244 MB, licence: BSD-3-Clause)" in str(caught.value)
    with pytest.raises(WeightsError, match="biggan-256' .size not published, licence: not stated"):
        store.resolve("biggan-256")
