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
import torch
from safetensors.torch import save_file

from amfast.errors import UsageError, WeightsError
from amfast.fingerprint import fingerprint
from amfast.weights import store
from amfast.weights.catalogue import CATALOGUE, Entry, RemoteFile
from amfast.weights.download import Patience, Transfer
from amfast.weights.files import read_safetensors
from tests.command import REPOSITORY, listing
from tests.weights.conftest import HASTY, saved, sha256, small_state

BODY = saved(small_state())
FINAL = ["downloads/toy/toy.pth", "toy.json", "toy.safetensors"]


def files(home: Path) -> list[str]:
    """What the store holds, without folders and locks."""
    found = [name for name in listing(home) if (home / name).is_file()]
    return [name for name in found if not name.endswith("/lock")]


def check_toy(home: Path) -> None:
    """The converted file has the tensors, and says of what it was made."""
    tensors, metadata = read_safetensors(home / "toy.safetensors")
    wanted = small_state()
    assert {k: v.dtype for k, v in tensors.items()} == {k: v.dtype for k, v in wanted.items()}
    assert all(torch.equal(tensors[key], wanted[key]) for key in wanted)
    assert metadata["name"] == "toy" and metadata["licence"] == "CC0"
    assert metadata["source_sha256"] == sha256(BODY)
    assert metadata["fingerprint"] == fingerprint(wanted)
    assert files(home) == FINAL


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


@pytest.mark.parametrize("cuts", [1, 2])
def test_cut_connection_is_resumed_in_one_fetch(home, server, enter, cuts):
    enter(server.put("toy", BODY, cut_at=20_000, times=cuts), digest=sha256(BODY))
    store.fetch("toy", patience=HASTY)
    asked = [None, "bytes=16384-", "bytes=16384-"][: cuts + 1]
    assert server.log == [("/toy", wanted) for wanted in asked]
    check_toy(home)


def test_resumed_by_the_next_fetch(home, server, enter):
    enter(server.put("toy", BODY, cut_at=20_000, times=9))
    with pytest.raises(WeightsError, match=r"cannot fetch toy.pth: .*/toy cut the connection"):
        store.fetch("toy", patience=HASTY)
    assert files(home) == ["downloads/toy/.toy.pth.part", "downloads/toy/.toy.pth.part.json"]
    assert (home / files(home)[0]).read_bytes() == BODY[:16_384]
    (status,) = [status for status in store.status() if status.name == "toy"]
    assert status.state == "unfinished"
    server.log.clear()
    server.put("toy", BODY)
    store.fetch("toy", patience=HASTY)
    assert server.log == [("/toy", "bytes=16384-")]
    check_toy(home)


def test_no_resume_of_another_version(home, server, enter):
    """The file was replaced meanwhile: the two halves would make a file that never was."""
    other = saved(small_state(seed=1))
    enter(server.put("toy", other, cut_at=20_000, times=9, tag='"old"'))
    with pytest.raises(WeightsError):
        store.fetch("toy", patience=HASTY)
    server.put("toy", BODY, tag='"new"')
    store.fetch("toy", patience=HASTY)
    assert server.log[-1] == ("/toy", "bytes=16384-")
    check_toy(home)


@pytest.mark.parametrize("how", [{"ranges": False}, {"tag": ""}, {"tag": 'W/"weak"'}])
def test_server_that_cannot_resume_starts_again(home, server, enter, how):
    enter(server.put("toy", BODY, cut_at=20_000, **how))
    store.fetch("toy", patience=HASTY)
    asked = "bytes=16384-" if how == {"ranges": False} else None
    assert server.log == [("/toy", None), ("/toy", asked)]
    check_toy(home)


@pytest.mark.parametrize("skew", [100, 10**9])
def test_server_that_resumes_wrongly(home, server, enter, skew):
    """With another part of the file, or none (416): from the start, without asking for a range."""
    enter(server.put("toy", BODY, cut_at=20_000, skew=skew))
    store.fetch("toy", patience=HASTY)
    assert server.log == [("/toy", None), ("/toy", "bytes=16384-"), ("/toy", None)]
    check_toy(home)


def test_complete_part_costs_no_request(home, server, enter):
    """Killed between the last byte and the check."""
    enter(server.put("toy", BODY, cut_at=20_000, times=9), digest=sha256(BODY))
    with pytest.raises(WeightsError):
        store.fetch("toy", patience=HASTY)
    (home / "downloads/toy/.toy.pth.part").write_bytes(BODY)
    server.log.clear()
    store.fetch("toy", patience=HASTY)
    assert server.log == []
    check_toy(home)


def test_slow_server_is_given_up(home, server, enter):
    silent = threading.Event()
    slow, fast = server.put("slow", BODY, silent=silent), server.put("fast", BODY)
    enter(slow, fast)
    store.fetch("toy", patience=Patience(timeout=0.2, attempts=1))
    check_toy(home)
    shutil.rmtree(home)
    enter(slow)
    said = r"/slow sent nothing for 0.2 seconds \(1 attempts\)"
    with pytest.raises(WeightsError, match=said):
        store.fetch("toy", patience=Patience(timeout=0.2, attempts=1))
    assert not set(files(home)) & set(FINAL)


def test_mirrors_in_turn(home, server, enter):
    enter(f"{server.url}/gone", server.put("toy", BODY))
    store.fetch("toy", patience=HASTY)
    assert [path for path, _ in server.log] == ["/gone", "/toy"]  # a 404 is not tried again
    check_toy(home)
    record = json.loads((home / "toy.json").read_text())
    assert record["files"][0]["source"] == f"{server.url}/toy"


def test_server_in_trouble_is_tried_again(home, server, enter):
    enter(server.put("toy", BODY, status=503, times=2))
    store.fetch("toy", patience=HASTY)
    assert len(server.log) == 3
    check_toy(home)


def refused(home: Path, *said: str) -> None:
    with pytest.raises(WeightsError) as caught:
        store.fetch("toy", patience=HASTY)
    for part in said:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(home) == []


def test_nobody_has_it(home, server, enter):
    enter(f"{server.url}/gone", f"{server.url}/lost")
    refused(
        home,
        "/gone answered 404 Not Found; ",
        "/lost answered 404 Not Found; ",
        "put the file into",
    )


def test_no_network(home, server, enter):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        enter(f"http://127.0.0.1:{free.getsockname()[1]}/toy")
        refused(home, "cannot be reached (3 attempts)")


def test_no_certificate(home, server, enter):
    enter(server.put("toy", BODY).replace("http:", "https:"))
    refused(home, "cannot prove over TLS who it is (3 attempts)")


def test_no_name(home, enter):
    enter("http://nowhere.invalid/toy")
    refused(home, "http://nowhere.invalid/toy cannot be reached")


def test_wrong_hash(home, server, enter):
    enter(server.put("toy", BODY), digest="00ff" * 16)
    refused(home, f"gave a file whose SHA-256 is {sha256(BODY)}, expected 00ff00ff")


def test_prefix_of_a_hash(home, server, enter):
    enter(server.put("toy", BODY), digest=sha256(BODY)[:8])
    store.fetch("toy", patience=HASTY)
    check_toy(home)
    shutil.rmtree(home)
    enter(server.put("toy", BODY), digest="0" * 8)
    refused(home, "expected 00000000")


def test_wrong_hash_then_a_mirror(home, server, enter):
    enter(server.put("bad", BODY[:-1]), server.put("toy", BODY), digest=sha256(BODY))
    store.fetch("toy", patience=HASTY)
    check_toy(home)


@pytest.mark.parametrize("pinned", [None, "prefix"])
def test_first_download_is_held_to(home, server, enter, pinned):
    digest = sha256(BODY)[:1] if pinned else None
    enter(server.put("toy", BODY), digest=digest)
    store.fetch("toy", patience=HASTY)
    for name in FINAL[::2]:
        (home / name).unlink()
    seed = next(
        seed for seed in range(1, 500) if sha256(saved(small_state(seed))).startswith(digest or "")
    )
    server.put("toy", saved(small_state(seed)), tag='"two"')
    with pytest.raises(WeightsError, match=f"expected {sha256(BODY)}.*toy.json is of its first"):
        store.fetch("toy", patience=HASTY)
    assert files(home) == ["toy.json"]
    server.put("toy", BODY)
    store.fetch("toy", patience=HASTY)
    check_toy(home)


@pytest.mark.parametrize(
    "how", [{"kind": "text/html; charset=utf-8"}, {"kind": "application/octet-stream"}]
)
def test_web_page_instead_of_the_file(home, server, enter, how):
    page = b"\n<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>"
    enter(server.put("toy", page, **how))
    refused(home, "answered with a web page instead of the file, as Google Drive does")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"not weights at all", "cannot read weights"),
        (BODY[:30_000], "truncated or damaged"),
        (saved({"epoch": 3}), "holds no state_dict"),
    ],
)
def test_what_is_not_the_model(home, server, enter, body, said):
    enter(server.put("toy", body))
    refused(home, f"what {server.url}/toy gave is not toy: ", said)


def test_no_space_is_seen_before_the_download(home, server, enter, monkeypatch):
    enter(server.put("toy", BODY))
    usage = shutil.disk_usage(home.parent)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    refused(home, "no space left for ", "0.1 MB are wanted and 0.0 MB are free", "AMFAST_HOME")


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
