"""Weights from every kind of file that people have them in; nothing in a file is ever run."""

from __future__ import annotations

import io
import json
import pickle
import random
import sys
import tarfile
import zipfile
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.serialization import MAGIC_NUMBER, PROTOCOL_VERSION

from amfast.errors import WeightsError
from amfast.weights.files import read_labels, read_weights
from tests.command import listing
from tests.weights.conftest import saved, small_state

STATE = small_state()


def assert_is_state(tensors: dict[str, torch.Tensor]) -> None:
    assert tensors.keys() == STATE.keys()
    for key, tensor in STATE.items():
        assert tensors[key].dtype == tensor.dtype
        assert torch.equal(tensors[key], tensor)


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: tensor for key, tensor in STATE.items()}


class Touch:
    """Unpickled, it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


@pytest.mark.parametrize("tensors_alone", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        STATE,
        OrderedDict(STATE),
        {"state_dict": STATE, "epoch": 90, "arch": "resnet18", "best_prec1": torch.tensor(54.0)},
        {"model_state_dict": STATE},
        {"model": STATE, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        {"state_dict": prefixed("module.")},
        {
            "model": {
                **prefixed("module.model."),
                **prefixed("module.attacker.model."),
                "module.normalizer.new_mean": torch.zeros(3, 1, 1),
            }
        },
        {key: nn.Parameter(t) if t.is_floating_point() else t for key, t in STATE.items()},
    ],
    ids=["bare", "ordered", "state_dict", "state", "model", "parallel", "robust", "parameters"],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_checkpoints(path, value, legacy, tensors_alone):
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    tensors, metadata = read_weights(path, tensors_alone=tensors_alone)
    assert_is_state(tensors)
    assert metadata == {}


def test_safetensors(path):
    save_file(STATE, path, {"labels": '["ring"]', "norm_eps": "1e-4"})
    tensors, metadata = read_weights(path)
    assert_is_state(tensors)
    assert metadata == {"labels": '["ring"]', "norm_eps": "1e-4"}
    assert read_labels(metadata, path) == ["ring"]
    assert read_labels({}, path) == []
    for labels in ("[1]", "{}", "[", '"ring"'):
        with pytest.raises(WeightsError, match="labels"):
            read_labels({"labels": labels}, path)


def test_views_share_a_storage(path):
    """Offsets and strides of what was saved, with either reader."""
    whole = torch.arange(24.0)
    torch.save({"a": whole[3:9].view(2, 3).t(), "b": whole[::2]}, path)
    for tensors_alone in (False, True):
        tensors, _ = read_weights(path, tensors_alone=tensors_alone)
        assert torch.equal(tensors["a"], whole[3:9].view(2, 3).t())
        assert torch.equal(tensors["b"], whole[::2])


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("tensors_alone", [False, True])
@pytest.mark.parametrize("beside", [False, True])
def test_nothing_is_run(path, tmp_path, legacy, tensors_alone, beside):
    touched = tmp_path / "touched"
    trap = Touch(touched)
    value = {"state_dict": STATE, "extra": trap} if beside else {**STATE, "extra": trap}
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    torch.load(path, weights_only=False)
    assert touched.exists()  # the trap works
    touched.unlink()
    if tensors_alone and beside:
        assert_is_state(read_weights(path, tensors_alone=True)[0])
    else:
        said = "holds no state_dict" if tensors_alone else "does not unpickle because that can run"
        with pytest.raises(WeightsError, match=said) as caught:
            read_weights(path, tensors_alone=tensors_alone)
        assert "weights_only=False" not in str(caught.value) and "\n" not in str(caught.value)
    assert not touched.exists()


def with_program(path: Path, code: bytes) -> None:
    """An archive as torch writes it, but for the pickle in it."""
    with zipfile.ZipFile(io.BytesIO(saved(STATE))) as sound, zipfile.ZipFile(path, "w") as copy:
        for name in sound.namelist():
            copy.writestr(name, code if name.endswith("data.pkl") else sound.read(name))


#: Ways in which a pickle can reach code, each as the opcodes of a program that would create a file.
PROGRAMS = {
    "reduce": b"cos\nsystem\n(Vtouch {}\ntR.",
    "import of a stranger": b"cevil\nrun\n(V{}\ntR.",
    "instance": b"(Vtouch {}\nios\nsystem\n.",
    "object": b"(cos\nsystem\nVtouch {}\no.",
    "new object": b"\x80\x02cos\nsystem\nVtouch {}\n\x85\x81.",
    "stack global": b"\x80\x04Vos\nVsystem\n\x93Vtouch {}\n\x85R.",
    "attribute of torch": b"\x80\x04Vtorch._utils\nVos.system\n\x93Vtouch {}\n\x85R.",
    "getattr of a module": b"c__builtin__\ngetattr\n(cos\npath\nVsystem\ntR(Vtouch {}\ntR.",
    "evaluation": b"c__builtin__\neval\n(V__import__('pathlib').Path('{}').touch()\ntR.",
    "call of a stand-in": b"cos\nsystem\n(tR(Vtouch {}\ntR(Vtouch {}\ntR.",
    "state": b"cpathlib\nPath\n(V{}\ntR}Vtouch\ncos\nsystem\nsb.",
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("tensors_alone", [False, True])
def test_programs_do_nothing(path, tmp_path, monkeypatch, program, tensors_alone):
    """The pickle within an archive of torch is a program; imports alone can run code too."""
    touched = tmp_path / "touched"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text(f"open({str(touched)!r}, 'w')\ndef run(*_): pass\n")
    with_program(path, PROGRAMS[program].replace(b"{}", str(touched).encode()))
    with pytest.raises(WeightsError) as caught:
        read_weights(path, tensors_alone=tensors_alone)
    assert "weights_only" not in str(caught.value)  # torch advises to switch the check off
    assert not touched.exists() and "evil" not in sys.modules


def test_the_programs_are_real(tmp_path):
    """Python's own unpickler obeys them."""
    for name in ("reduce", "instance", "object", "stack global", "evaluation"):
        touched = tmp_path / name.replace(" ", "-")
        pickle.loads(PROGRAMS[name].replace(b"{}", str(touched).encode()))
        assert touched.exists(), name


@pytest.mark.parametrize("function", ["_rebuild_tensor_v2", "_rebuild_parameter"])
@pytest.mark.parametrize("key", ["dump_patches", "__code__", "__class__", "__call__"])
def test_a_pickle_cannot_change_its_reader(path, function, key):
    """What stands for torch's functions has no attributes that a pickle could set."""
    for state in (b"}V%b\ncos\nsystem\nsb.", b"(N}V%b\ncos\nsystem\nstb."):
        code = f"ctorch._utils\n{function}\n".encode() + state % key.encode()
        with_program(path, code)
        with pytest.raises(WeightsError, match="attribute|assignment|read-only"):
            read_weights(path, tensors_alone=True)
    path.write_bytes(saved(STATE))
    assert_is_state(read_weights(path, tensors_alone=True)[0])


@pytest.mark.parametrize("container", ["torch._utils\n_rebuild_tensor_v2", "evil\nNet"])
@pytest.mark.parametrize("changed", [False, True])
def test_no_patch_is_written(path, tmp_path, monkeypatch, container, changed):
    """In files of before 2020 torch compares a class's source, and may write a file about it."""
    monkeypatch.chdir(tmp_path)
    named = b"c%b\n" % container.encode()
    first = named + b"(N}Vdump_patches\nI01\nsV__name__\nVstolen\nstb0" if changed else b""
    code = b"\x80\x02" + first + b"(Vmodule\n" + named + b"Vnet.py\nVclass Net: pass\ntQ."
    parts = [pickle.dumps(part, 2) for part in (MAGIC_NUMBER, PROTOCOL_VERSION, {})]
    path.write_bytes(b"".join([*parts, code, pickle.dumps([], 2)]))
    with pytest.raises(WeightsError):
        read_weights(path, tensors_alone=True)
    assert listing(tmp_path) == ["weights.pth"]


def test_tar_is_not_unpacked(path, monkeypatch):
    """One whose first byte is a pickle's; torch would extract its members."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        archive.addfile(tarfile.TarInfo("\x80storages"))
    assert path.read_bytes().startswith(b"\x80") and tarfile.is_tarfile(path)
    monkeypatch.setattr(tarfile.TarFile, "extract", None)
    monkeypatch.setattr(tarfile.TarFile, "extractall", None)
    with pytest.raises(WeightsError, match="a tar archive, as torch wrote them before 2017"):
        read_weights(path, tensors_alone=True)
    with pytest.raises(WeightsError, match=r"weights\.pth"):
        read_weights(path)


class Meter(list):  # type: ignore[type-arg]
    """A class of the trainer's own, of every kind that pickle treats in its own way."""


class Table(dict):  # type: ignore[type-arg]
    pass


class Bag(set):  # type: ignore[type-arg]
    pass


def test_strangers_beside_the_tensors(path):
    """What trainers leave in checkpoints stands as nothing, and the tensors are read."""
    model = nn.Linear(3, 2)
    beside = {
        "args": Namespace(lr=0.1, path=Path("/data")),
        "meter": Meter([1, 2, 3]),
        "table": Table(a=1, b=[2]),
        "bag": Bag({1, 2}),
        "model_object": model,
        "optimizer": torch.optim.Adam(model.parameters()),
        "random": random.Random(3),
        "schedule": torch.optim.lr_scheduler.StepLR(torch.optim.SGD(model.parameters()), 3),
    }
    for legacy in (False, True):
        torch.save({"state_dict": STATE, **beside}, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(WeightsError, match="more than tensors"):
            read_weights(path)
        assert_is_state(read_weights(path, tensors_alone=True)[0])


def test_text_of_python_2(path):
    """Bytes in no known encoding, as in the checkpoints of Places365."""
    with zipfile.ZipFile(io.BytesIO(saved({"note": "e", "state_dict": STATE}))) as sound:
        (name,) = (name for name in sound.namelist() if name.endswith("data.pkl"))
        code = sound.read(name)
    old = code.replace(b"X\x01\x00\x00\x00e", b"U\x01\xe9")
    assert old != code
    with_program(path, old)
    assert_is_state(read_weights(path, tensors_alone=True)[0])


@pytest.mark.parametrize("tensors_alone", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        {},
        {"epoch": 3},
        {"state_dict": {}},
        {**STATE, "epoch": 3},
        {"state_dict": {**STATE, "note": "text"}},
        {**STATE, "sparse": torch.eye(3).to_sparse()},
        {**STATE, "nested": dict(STATE)},
        torch.zeros(3),
        [torch.zeros(3)],
        "text",
    ],
    ids=["empty", "number", "none", "extra", "text", "sparse", "nested", "tensor", "list", "word"],
)
def test_no_state_dict(path, value, tensors_alone):
    torch.save(value, path)
    said = "holds no state_dict: expected tensors by name|holds more than tensors|truncated or dam"
    with pytest.raises(WeightsError, match=said):
        read_weights(path, tensors_alone=tensors_alone)


@pytest.mark.parametrize("tensors_alone", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated(path, share, legacy, tensors_alone):
    torch.save(STATE, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsError, match=r"weights\.pth"):
        read_weights(path, tensors_alone=tensors_alone)


@pytest.mark.parametrize("place", [0, 8, 9, 40])
def test_tampered_header(path, place):
    """What the header says is checked; changed numbers are for a checksum to find."""
    save_file(STATE, path)
    whole = bytearray(path.read_bytes())
    whole[place] ^= 0x80
    path.write_bytes(whole)
    with pytest.raises(WeightsError, match=r"weights\.pth"):
        read_weights(path)


@pytest.mark.parametrize(
    "junk", [b"", b"\x80", b"PK\x03\x04", b"<html>", b"\x00" * 64, b"\x80\x02."]
)
def test_junk(path, junk):
    path.write_bytes(junk)
    with pytest.raises(WeightsError, match=r"weights\.pth") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_missing_and_folder(tmp_path):
    with pytest.raises(WeightsError, match=r"cannot read weights from .*none: No such file"):
        read_weights(tmp_path / "none")
    with pytest.raises(WeightsError, match=r"cannot read weights from .*: Is a directory"):
        read_weights(tmp_path)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    place = tmp_path / "weights.zip"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("138k/G_ema.pth", saved(STATE))
        packed.writestr("138k/notes.json", json.dumps({"iterations": 138_000}))
    return place


def test_member_of_a_zip(archive):
    assert_is_state(read_weights(archive, member="138k/G_ema.pth")[0])
    with pytest.raises(
        WeightsError, match=r"holds no G_ema\.pth: it holds 138k/G_ema\.pth, 138k/n"
    ):
        read_weights(archive, member="G_ema.pth")
    with pytest.raises(WeightsError, match="damaged"):
        read_weights(archive, member="138k/notes.json")


def test_zip_without_a_member_named(archive):
    with pytest.raises(WeightsError, match="is an archive, not weights: unpack it and name a file"):
        read_weights(archive)


def test_damaged_zip(archive):
    whole = bytearray(archive.read_bytes())
    for damaged in (whole[: len(whole) // 2], whole[:500] + b"\x00" * 99 + whole[599:]):
        archive.write_bytes(damaged)
        with pytest.raises(WeightsError, match="truncated or damaged"):
            read_weights(archive, member="138k/G_ema.pth")


def test_a_header_of_any_length_is_a_header(tmp_path: Path) -> None:
    """Its length begins the file, and may begin with the byte that begins a pickle."""
    first = set()
    for filler in range(0, 256, 8):
        path = tmp_path / "w.safetensors"
        save_file(STATE, path, {"filler": "x" * filler})
        first.add(path.read_bytes()[0])
        assert_is_state(read_weights(path)[0])
    assert 0x80 in first
