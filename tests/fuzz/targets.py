"""Every file that amfast reads: a sound one, what becomes of it, and who reads it."""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from hypothesis import strategies as st
from safetensors.torch import save

from amfast.classes import select_classes
from amfast.classifiers import load_classifier
from amfast.discriminator import Discriminator, DiscriminatorConfig, load_discriminator
from amfast.embedded import EMBEDDED
from amfast.exchange import importing
from amfast.generators import load_generator
from amfast.generators.architectures import random_biggan, random_deep
from amfast.images.pillow_loader import PillowLoader
from amfast.runs.embeddings_file import read_embeddings
from amfast.runs.facts import generator_facts
from amfast.runs.imported import ImportedFile, ImportedFrom, ImportedRun, open_any_run
from amfast.study.answers import read_answers
from amfast.study.key import Key, Question, Side, draw_sides, hash_images, read_key
from amfast.weights import download, store
from amfast.weights.catalogue import CATALOGUE, Entry, RemoteFile
from amfast.weights.files import read_weights
from tests.fuzz import mutations as bad
from tests.fuzz.commands import of_commands
from tests.fuzz.runs import of_runs
from tests.fuzz.target import LABELS, SPEC, Target, file_target
from tests.generators.conftest import CONFIGS, DEEP_CONFIGS
from tests.images.pictures import encoded, picture

_CREATED_MS = 1_700_000_000_000
_STATE = {"conv.weight": torch.arange(54.0).view(2, 3, 3, 3), "norm.bias": torch.ones(2)}


def make_targets(root: Path) -> list[Target]:
    """All of them, each with a folder of its own in ``root``."""
    targets = [*of_runs(root), *_of_weights(root), *_of_exchange(root), *_of_studies(root)]
    targets += [*_of_the_store(root), *_of_pictures(root), _class_file(root)]
    return [*targets, *of_commands(root)]


def _of_weights(root: Path) -> Iterator[Target]:
    def of_model(model: torch.nn.Module, **metadata: str) -> bytes:
        return save({k: t.contiguous() for k, t in model.state_dict().items()}, metadata)

    def generator(path: Path) -> None:
        load_generator("embedded", weights=path, device="cpu")

    biggan = of_model(random_biggan(CONFIGS["one-block"]), labels='["a", "b"]', norm_eps="1e-4")
    deep = of_model(random_deep(DEEP_CONFIGS["one-stage"]), labels='["a", "b"]')
    yield file_target(root, "BigGAN", "w.safetensors", biggan, generator)
    yield file_target(root, "BigGAN-deep", "w.safetensors", deep, generator)
    folder = file_target(root, "config.json", "config.json", b'{"eps": 0.0001, "output_dim": 8}',
                     lambda path: generator(path.parent))  # fmt: skip
    (folder.folder / "model.safetensors").write_bytes(deep)
    yield folder
    with torch.random.fork_rng(devices=[]):
        judge = Discriminator(DiscriminatorConfig((4, 8), 0, num_classes=2))
    yield file_target(
        root, "discriminator", "d.safetensors", of_model(judge),
        lambda path: load_discriminator("embedded", weights=path, device="cpu"),
    )  # fmt: skip
    yield file_target(
        root, "classifier", "c.safetensors", (EMBEDDED / "classifier.safetensors").read_bytes(),
        lambda path: load_classifier("embedded", weights=path, device="cpu"),
    )  # fmt: skip
    for legacy in (False, True):
        for alone in (False, True):
            kind = "pickle" if legacy else "archive"
            yield file_target(
                root,
                f"{kind}{', tensors alone' if alone else ''}",
                "w.pth",
                bad.pickled(_STATE, legacy),
                lambda path, alone=alone: _weights(path, tensors_alone=alone),
                bad.bad_pickle(_STATE, legacy=legacy),
            )
    packed = bad.pickled(_STATE, False)
    yield file_target(
        root, "zip with a member", "w.zip", bad.zipped(packed, "a/G.pth"),
        lambda path: _weights(path, member="a/G.pth"), bad.bad_member(packed, "a/G.pth"),
    )  # fmt: skip


def _weights(path: Path, **how: Any) -> None:
    """What every loader does with the tensors: look whether they are finite."""
    for tensor in read_weights(path, **how)[0].values():
        tensor.isfinite().all()


def _of_exchange(root: Path) -> Iterator[Target]:
    goal = importing._Target(SPEC, LABELS)

    def read(path: Path) -> None:
        importing._read(path, goal)

    rows = torch.ones(2, SPEC.embedding_dim)
    buffer = io.BytesIO()
    np.save(buffer, rows.numpy())
    npy = buffer.getvalue()
    types = ("'<f4'", "'|O'", "'<U9'", "[('a', '<f4')]", "'<f99'", "1", "'<f8'", "'m8'")
    shapes = ("(2, 5)", f"({2**60}, 5)", "(-1, 5)", "()", "(0, 5)", "5", "(2.0, 5)", "(" * 300)
    headers = st.builds(
        "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}".format,
        st.sampled_from(types),
        st.sampled_from(("False", "True", "2")),
        st.sampled_from((*shapes, "__import__('os').system('touch escaped')")),
    ).map(lambda text: npy[:8] + len(text).to_bytes(2, "little") + text.encode() + npy[128:])
    yield file_target(
        root, "npy", "002_heart.npy", npy, read,
        st.one_of(bad.damaged(npy), headers, st.binary(max_size=64)),
    )  # fmt: skip
    tokens = {"<star>": rows, "<ring>": rows[0].clone()}
    yield file_target(root, "learned_embeds", "l.safetensors", save(tokens), read)
    yield file_target(
        root, "learned_embeds.bin", "l.bin", bad.pickled(tokens, False), read,
        bad.bad_pickle(tokens, legacy=False),
    )  # fmt: skip
    about = {"format": "amfast-export", "format_version": 1, "exported": "npy"}
    about |= {"generator": SPEC.name, "generator_fingerprint": SPEC.fingerprint}
    about["trials"] = [{"class_id": 2, "trial": 0, "file": "002_heart.npy", "index": 0}]  # type: ignore[assignment]
    manifest = file_target(
        root, "amfast.json", "amfast.json", json.dumps(about).encode(),
        lambda path: read(path.with_name("002_heart.npy")),
    )  # fmt: skip
    (manifest.folder / "002_heart.npy").write_bytes(npy)
    yield manifest
    source = ImportedFrom(
        generator="embedded",
        weights=None,
        files=[ImportedFile(file="l.bin", sha256="0" * 64, embeddings=1)],
    )
    embeddings = read_embeddings(
        next((root / "made").iterdir()) / "embeddings.safetensors", SPEC
    ).select([0])
    made = ImportedRun.create(
        root / "imported", source, generator_facts(SPEC), None, dict(enumerate(LABELS)), embeddings
    )
    yield file_target(
        root, "imported run.json", "run.json", (made.path / "run.json").read_bytes(),
        lambda path: open_any_run(path.parent),
    )  # fmt: skip


def _of_studies(root: Path) -> Iterator[Target]:
    def side(i: int, kind: Any) -> list[Side]:
        return [
            Side(set=name, sha256=f"{2 * i + j:064x}")
            for j, name in enumerate(draw_sides(7, i, kind))
        ]

    questions = [
        Question(question=i + 1, kind=kind, class_id=i, name=LABELS[i], trial=0,
                 left=side(i, kind)[0], right=side(i, kind)[1])
        for i, kind in enumerate(("diversity", "realism"))
    ]  # fmt: skip
    digest = hash_images(questions)
    key = Key(
        study=digest[:16], images_sha256=digest, seed=7, generator="embedded",
        generator_fingerprint="00aa", created="2023-11-14T22:13:20+00:00", created_ms=_CREATED_MS,
        questions=questions,
    )  # fmt: skip

    def seal_key(value: dict[str, Any]) -> dict[str, Any]:
        found = hash_images(Question.model_validate(q) for q in value["questions"])
        return {**value, "study": found[:16], "images_sha256": found}

    def seal(value: dict[str, Any]) -> dict[str, Any]:
        lines = [value["study"], value["participant"], f"{value['started']} {value['finished']}"]
        lines += [f"{a['question']} {a['value']} {a['at']}" for a in value["answers"]]
        said = zlib.crc32("\n".join(lines).encode("utf-8", "surrogatepass"))
        return {**value, "checksum": f"{said:08x}"}

    text = key.model_dump_json().encode()
    value = json.loads(text)
    again = bad.hostile_json(value).map(lambda made: bad.sealed(made, seal_key))
    yield file_target(
        root, "key.json", "key.json", text, read_key, st.one_of(bad.bad_json(text), again)
    )
    start = _CREATED_MS + 1000
    given = seal({
        "format": "amfast-study-answers", "format_version": 1, "study": key.study,
        "participant": "0" * 32, "started": start, "finished": start + 10_000,
        "answers": [{"question": q, "value": 3, "at": start + q} for q in (1, 2)],
    })  # fmt: skip
    again = bad.hostile_json(given).map(lambda made: bad.sealed(made, seal))
    data = json.dumps(given).encode()
    yield file_target(
        root, "answers", "a.json", data, lambda path: read_answers(path, key),
        st.one_of(bad.bad_json(data), again),
    )  # fmt: skip


@contextmanager
def _home(folder: Path) -> Iterator[None]:
    """The weight store in a folder, with one entry more in its catalogue."""
    toy = Entry("toy", "classifier", (RemoteFile("toy.pth", ("http://127.0.0.1:9/toy.pth",)),),
                "CC0", "Nobody: Nothing. 2020")  # fmt: skip
    with patch.dict(os.environ, AMFAST_HOME=str(folder)), patch.dict(CATALOGUE, toy=toy):
        yield


def _of_the_store(root: Path) -> Iterator[Target]:
    def verify(path: Path) -> None:
        with _home(path.parent):
            store.status()
            store.verify("toy")

    def filled(folder: Path) -> None:
        place = folder / "downloads/toy/toy.pth"
        place.parent.mkdir(parents=True)
        place.write_bytes(bad.pickled(_STATE, False))
        with _home(folder):
            store.fetch("toy")

    filled(root / "home")
    for name, file in (("record of the store", "toy.json"), ("kept weights", "toy.safetensors")):
        target = file_target(root, name, file, (root / "home" / file).read_bytes(), verify)
        filled(target.folder)
        yield target
    url = "http://127.0.0.1:9/toy.pth"
    note = json.dumps({"source": url, "version": '"one"', "total": 9}).encode()

    def unfinished(path: Path) -> None:
        size, version, total = download._unfinished(path.with_name(".toy.pth.part"), url)
        assert size >= 0 and isinstance(version, str) and isinstance(total, int | None)

    place = download._note(Path(".toy.pth.part")).name
    target = file_target(root, "note of a download", place, note, unfinished)
    (target.folder / ".toy.pth.part").write_bytes(b"half")
    yield target


def _of_pictures(root: Path) -> Iterator[Target]:
    loader = PillowLoader(8)
    small = picture(24, 18)
    for kind, options in (
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ):
        data = encoded(small, kind, **options)
        name = f"{kind}{', progressive' if 'progressive' in options else ''}"
        yield file_target(
            root, name, "picture", data, lambda path: loader.load([path]),
            st.one_of(bad.damaged(data), bad.damaged(data), st.binary(max_size=64)),
        )  # fmt: skip


def _class_file(root: Path) -> Target:
    text = b"# classes\nstar, 0-2\nring # again\n"
    return file_target(
        root, "class file", "classes.txt", text, lambda path: select_classes(f"@{path}", LABELS),
        bad.bad_text(text),
    )  # fmt: skip
