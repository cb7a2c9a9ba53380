from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from amfast.errors import RunError
from amfast.fingerprint import fingerprint
from amfast.runs import read_embeddings
from amfast.runs.embeddings_file import write_embeddings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "embeddings.safetensors"


def test_sorted_and_without_failed_trials(path, facts, generator, make_result):
    results = [make_result(2, 1), make_result(2, 0), make_result(1, 0, 1), make_result(0, 1)]
    write_embeddings(path, results, facts, "am-l")
    read = read_embeddings(path, generator)
    assert read.class_ids.tolist() == [0, 2, 2]
    assert read.trial_ids.tolist() == [1, 0, 1]
    expected = torch.stack([results[i].embedding for i in (3, 1, 0)])
    assert torch.equal(read.embeddings, expected)
    assert read.class_names == {0: "ring", 2: "heart"}

    first = path.read_bytes()
    write_embeddings(path, reversed(results), facts, "am-l")
    assert path.read_bytes() == first


def test_every_trial_failed(path, facts, generator, make_result):
    write_embeddings(path, [make_result(failed_at=0)], facts, "am-l")
    read = read_embeddings(path, generator)
    assert read.embeddings.shape == (0, generator.embedding_dim)
    assert read.class_names == {}


def test_another_generator_is_named(path, facts, generator, make_result):
    write_embeddings(path, [make_result()], facts, "am-l")
    other = dataclasses.replace(generator, name="biggan-128", fingerprint="ffff")
    with pytest.raises(RunError, match=r"embedded \(fingerprint 00aa\).*biggan-128 \(.* ffff\)"):
        read_embeddings(path, other)


def test_wrong_shape_and_missing_tensors(path, facts, generator, make_result):
    write_embeddings(path, [make_result()], facts, "am-l")
    wider = dataclasses.replace(generator, embedding_dim=6)
    with pytest.raises(RunError, match=r"class_embeddings torch.float32 \[1, 5\].* \[1, 6\]"):
        read_embeddings(path, wider)
    metadata = {"format": "amfast-embeddings", "format_version": "1", "checksum": fingerprint({})}
    save_file({}, path, {**metadata, "generator_fingerprint": "00aa"})
    with pytest.raises(RunError, match="holds no tensors"):
        read_embeddings(path, generator)


@pytest.mark.parametrize("names", [{}, {"class_names": "[]"}, {"class_names": "{"}])
def test_damaged_names(path, facts, generator, make_result, names):
    write_embeddings(path, [make_result()], facts, "am-l")
    tensors = load_file(path)
    metadata = {"format": "amfast-embeddings", "format_version": "1", **names}
    metadata |= {"checksum": fingerprint(tensors), "generator_fingerprint": "00aa"}
    save_file(tensors, path, metadata)
    with pytest.raises(RunError, match="class_names"):
        read_embeddings(path, generator)


def test_missing_and_damaged(path, generator):
    with pytest.raises(RunError, match="no such file"):
        read_embeddings(path, generator)
    path.write_bytes(b"junk" * 10)
    with pytest.raises(RunError, match="truncated or damaged"):
        read_embeddings(path, generator)


def test_a_type_that_torch_lacks(path, generator):
    header = b'{"a":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[0,1]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(RunError, match="truncated or damaged"):
        read_embeddings(path, generator)
