"""Downloads from a server on this machine that fails in every way that servers do."""

from __future__ import annotations

import json
import shutil
import socket
import threading

import pytest

from amfast.errors import WeightsError
from amfast.weights import store
from amfast.weights.download import Patience
from tests.weights.conftest import HASTY, saved, sha256, small_state
from tests.weights.toy import BODY, FINAL, check_toy, files, refused


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
